"""Other stored forms of a graph's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sim.workload.graph import Graph, MovementOp, Tensor


def with_stored(graph: Graph, tensors: Mapping[str, Tensor]) -> Graph:
    """The graph with its tensors in other widths or densities; movements (a concatenation, a cache update, looked-up
    rows) move the new bytes.

    Example: an int8 result of a concatenation that was traced in fp32 is written with a quarter of the bytes.
    """
    scale = {
        key: (tensors[key].bits / t.bits) * (tensors[key].density / t.density)
        for key, t in graph.tensors.items()
        if (tensors[key].bits, tensors[key].density) != (t.bits, t.density)
    }
    ops = tuple(_rescaled(op, scale) if isinstance(op, MovementOp) else op for op in graph.ops)
    return graph.with_(ops=ops, tensors=tensors)


def _rescaled(op: MovementOp, scale: Mapping[str, float]) -> MovementOp:
    def scaled(moved: Mapping[str, int]) -> dict[str, int]:
        return {name: -int(-n * scale.get(name, 1) // 1) for name, n in moved.items()}

    return replace(op, read_bytes=scaled(op.read_bytes), write_bytes=scaled(op.write_bytes))


__all__ = ["with_stored"]
