"""QuantizeLinear and DequantizeLinear around products are notation: they say in which type a product works.

A runtime with quantised products runs none of them: it folds a pair into the products on both sides, and reads a weight
as it is stored, with the scales and zero points of its blocks; those of whole channels go into the results and count
for nothing, as in any int8 product. So a pair is left out here and a weight keeps its stored type; in which type the
products work, the precision of the estimate says. What is no such pair (integers that come from elsewhere) stays an op.
Reference: ONNX operator specification, QuantizeLinear; TensorRT developer guide, "Working with quantized types".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from sim.workload.graph import Graph, Role

Stored = tuple[str, float]
"""Type and bits of an element, what its block has beside it counted in."""

STORED: dict[int, tuple[str, int]] = {
    2: ("uint8", 8), 3: ("int8", 8), 17: ("fp8_e4m3", 8), 19: ("fp8_e5m2", 8), 21: ("int4", 4), 22: ("int4", 4),
}  # fmt: skip
"""onnx.TensorProto.DataType of quantised weights -> ours; four bits cost the same with a sign and without."""


def fold_pairs(model: Any) -> tuple[dict[str, Stored], list[str]]:
    """Take the notation out of a model, in place: (names of its weights -> how they are stored, notes)."""
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    quantised = {node.output[0]: node.input[0] for node in graph.node if _is(node, "QuantizeLinear")}
    readers = Counter(name for node in graph.node for name in node.input) + Counter(v.name for v in graph.output)
    kept, stored, pairs = [], dict[str, Stored](), 0
    for node in graph.node:
        source, scale = (*node.input, "", "")[:2] if _is(node, "DequantizeLinear") else ("", "")
        if source in weights and scale in weights:
            _add_weight(graph, node.output[0], like=weights[source], data_type=weights[scale].data_type)
            if weights[source].data_type in STORED:
                stored[node.output[0]] = _as_stored(node, weights)
            continue
        if source in quantised:
            pairs += 1
            readers[source] -= 1
            name, made = node.name, node.output[0]
            node.Clear()
            node.op_type, node.name = "Identity", name
            node.input.append(quantised[source])
            node.output.append(made)
        kept.append(node)
    left = [node for node in kept if not _is(node, "QuantizeLinear") or readers[node.output[0]]]
    nodes = [type(node).FromString(node.SerializeToString()) for node in left]
    del graph.node[:]
    graph.node.extend(nodes)
    return stored, _notes(pairs, len(stored))


def _as_stored(node: Any, weights: Mapping[str, Any]) -> Stored:
    """How a weight lies in memory: int4 with a 16-bit scale and a zero point of four for 32 of them has 4.625 bits."""
    weight = weights[node.input[0]]
    dtype, bits = STORED[weight.data_type]
    if not any(a.name == "block_size" and a.i for a in node.attribute):
        return dtype, bits
    beside = [weights[name] for name in node.input[1:] if name in weights]
    return dtype, bits + sum(prod(t.dims) * _bits(t.data_type) for t in beside) / prod(weight.dims)


def _bits(data_type: int) -> int:
    """Of an element, of a scale or of a zero point."""
    if data_type in STORED:
        return STORED[data_type][1]
    from onnx.helper import tensor_dtype_to_np_dtype

    return 8 * tensor_dtype_to_np_dtype(data_type).itemsize


def _is(node: Any, kind: str) -> bool:
    return node.op_type == kind and node.domain in ("", "ai.onnx", "com.microsoft")


def _add_weight(graph: Any, name: str, *, like: Any, data_type: int) -> None:
    """A weight of this shape whose values nobody reads."""
    tensor = graph.initializer.add()
    tensor.name, tensor.data_type, tensor.data_location = name, data_type, tensor.EXTERNAL
    tensor.dims.extend(like.dims)


def _notes(pairs: int, weights: int) -> list[str]:
    if not pairs and not weights:
        return []
    note = (
        f"quantised file: {weights} weights are read as they are stored, and {pairs} pairs of QuantizeLinear and "
        "DequantizeLinear are notation that costs nothing; the precision says in which type the products work"
    )
    return [note]


def as_stored(graph: Graph, stored: Mapping[str, Stored]) -> Graph:
    """The graph with these weights, and the views of them, in the types that the file has them in."""
    of = {t.storage: stored[t.name] for t in graph.tensors.values() if t.role is Role.WEIGHT and t.name in stored}
    tensors = {
        key: replace(t, dtype=of[t.storage][0], bits=of[t.storage][1]) if t.storage in of else t
        for key, t in graph.tensors.items()
    }
    return graph.with_(tensors=tensors) if of else graph
