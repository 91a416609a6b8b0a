"""Attention that the model wrote by hand: product, softmax, product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

from sim.workload.graph import BY_HAND, EinsumOp, Graph, MovementOp, Op, OpBase, Region, Role, Tensor, VectorOp, ViewOp
from sim.workload.passes.dead_code import dead_code

_SOFTMAX = {"aten._softmax", "aten.softmax", "aten._safe_softmax"}
_BETWEEN = {
    "add", "sub", "mul", "div", "where", "masked_fill", "clamp", "clamp_min", "maximum", "tanh", "_to_copy", "to",
    "clone", "dropout", "native_dropout",
}  # fmt: skip
"""What stands between the products and the softmax: scale, bias, mask, soft cap, change of type or layout."""

_JOINS = {"aten.cat"}
"""Of what stands before the softmax: scores that the model holds, such as sinks, beside those of the keys."""
_MAXIMA = {"aten.max", "aten.amax"}


def find_attention(graph: Graph) -> Graph:
    """Mark each product - softmax - product as an attention region, as a fused call would be.

    The scores reach the softmax, and its result the second product, through element-wise ops, copies
    and views only, each result read once (copies for a result that nobody takes aside). The keys must
    not be a parameter of the model (a linear layer before a softmax is a classifier). Attributes:
    head_dim, query_length and key_length from the products; heads = kv_heads from the axes of the
    scores before the last two ([N, H, L, S]; of [N * H, L, S] the whole first axis); `causal` False,
    since a mask's values are unknown here; `by_hand` True: a compiler may fuse it, a framework that
    runs op by op does not. Before the softmax, the largest score of each row may be taken off, and
    scores that the model holds (sinks) may be joined to it: that is vector work then, no movement.

    Needs: single assignment. Promises: names of ops, tensors, order and MACs as before; a second run
    changes nothing.
    """
    ops, regions, readers = list(graph.ops), dict(graph.regions), _readers(graph)
    for place, op in enumerate(graph.ops):
        if not isinstance(op, VectorOp) or op.kind not in _SOFTMAX or not _free(graph, op):
            continue
        found = _around(graph, place, readers)
        if found is None:
            continue
        first, between, last = found
        region = _region(graph, first, op, f"{op.module}.attention" if op.module else "attention", regions)
        regions[region.id] = region
        kinds = {first: "attention.scores", place: "attention.softmax", last: "attention.context"}
        for i in (first, *between, place, last):
            ops[i] = replace(_joining(ops[i]), region=region.id, kind=kinds.get(i, ops[i].kind))
    return graph.with_(ops=tuple(ops), regions=regions)


def _free(graph: Graph, op: Op) -> bool:
    """In no region, or in that of a whole attention layer (whose inside is what is looked for)."""
    return op.region is None or graph.regions[op.region].kind == "attention_layer"


Readers = Mapping[str, tuple[int, ...]]
"""Tensor id -> places of the ops that read it and reach a result."""


def _readers(graph: Graph) -> Readers:
    live = {op.name for op in dead_code(graph)}
    found = {key: tuple(i for i in places if graph.ops[i].name in live) for key, places in graph.consumers.items()}
    return {key: places for key, places in found.items() if places}


def _around(graph: Graph, softmax: int, readers: Readers) -> tuple[int, list[int], int] | None:
    """Places of the product before, of the ops between, and of the product after a softmax."""
    between: list[int] = []
    first = softmax
    while not isinstance(graph.ops[first], EinsumOp):  # back to the scores, along the input that has their shape
        found = _makers(graph, first, readers)
        if not found:
            return None
        between += found
        first = found[-1]
    between.pop()
    product = graph.ops[first]
    if not isinstance(product, EinsumOp) or graph.tensors[product.inputs[1]].role is Role.WEIGHT:
        return None
    place = softmax
    while True:
        reads = readers.get(graph.ops[place].outputs[0], ())
        if len(reads) != 1:
            return None
        place = reads[0]
        reader = graph.ops[place]
        if isinstance(reader, EinsumOp):
            return (first, between, place) if _free(graph, reader) else None
        if not _passes(graph, reader):
            return None
        between.append(place)


def _makers(graph: Graph, place: int, readers: Readers) -> list[int]:
    """The op whose result an op reads, and only it reads, of a kind that may stand here, last; before it, the maximum
    of each row of that result, where the op takes it off. Empty: there is none."""
    op = graph.ops[place]
    for name in op.inputs:
        made = graph.producer.get(name)
        if made is None or not _is_main(graph, op, name):
            continue
        maker, maxima = graph.ops[made], _maxima(graph, name, place, readers)
        stands = isinstance(maker, EinsumOp) or maker.kind in _JOINS or _passes(graph, maker)
        if maxima is not None and _free(graph, maker) and stands:
            return [*maxima, made]
    return []


def _is_main(graph: Graph, op: Op, name: str) -> bool:
    """Whether the scores are this input: as large as the result, or joined with what the model holds alone."""
    made, tensor = graph.tensors[op.outputs[0]], graph.tensors[name]
    if op.kind not in _JOINS:
        return tensor.elements == made.elements
    held = all(graph.tensors[key].role is Role.WEIGHT for key in op.inputs if key != name)
    return held and tensor.shape[:-1] == made.shape[:-1]


def _maxima(graph: Graph, name: str, place: int, readers: Readers) -> list[int] | None:
    """Places of the maximum, and views of it, that an op reads beside this tensor; None if something else reads it."""
    found: list[int] = []
    for reader in readers.get(name, ()):
        at = reader
        while at != place:
            op = graph.ops[at]
            after = readers.get(op.outputs[0], ())
            if len(after) != 1 or not (op.kind in _MAXIMA if at == reader else isinstance(op, ViewOp)):
                return None
            found.append(at)
            at = after[0]
    return found


def _joining(op: Op) -> Op:
    """A joined column is read with the scores as a mask is: as vector work of no operations."""
    if not isinstance(op, MovementOp) or op.kind not in _JOINS:
        return op
    shared = {field.name: getattr(op, field.name) for field in fields(OpBase)}
    return VectorOp(**shared, primitives=op.primitives)


def _passes(graph: Graph, op: Op) -> bool:
    if not _free(graph, op) or not isinstance(op, VectorOp | ViewOp | MovementOp):
        return False
    return isinstance(op, ViewOp) or op.kind.rpartition(".")[2].rstrip("_") in _BETWEEN


def _region(graph: Graph, first: int, softmax: Op, name: str, taken: dict[str, Region]) -> Region:
    scores: Tensor = graph.tensors[softmax.outputs[0]]
    product = graph.ops[first]
    assert isinstance(product, EinsumOp)
    ranks = product.einsum.ranks
    depth = 1
    for rank in product.einsum.reduction_ranks:
        depth *= ranks[rank]
    heads = scores.shape[-3] if len(scores.shape) > 2 else 1
    number = 1
    unique = name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    attrs = {
        "heads": heads,
        "kv_heads": heads,
        "head_dim": depth,
        "query_length": scores.shape[-2] if len(scores.shape) > 1 else 1,
        "key_length": scores.shape[-1] * graph.tensors[product.outputs[0]].elements // scores.elements,
        "causal": False,
        BY_HAND: True,
    }
    return Region(id=unique, kind="attention", attrs=attrs)
