"""Keys and values that an earlier call made and this one only reads."""

from __future__ import annotations

from dataclasses import replace

from sim.workload.graph import EinsumOp, Graph, OperandRole, Role, ViewOp

SCORES, CONTEXT = "attention.scores", "attention.context"
_JOINS = ("aten.cat", "aten.clone")
"""Ops between a cache and the product that reads it: new keys and values are put behind it, a layout is changed."""


def find_caches(graph: Graph) -> Graph:
    """Inputs that attention reads as keys and values become KV caches, which are in the home memory before the call.

    (A cache that the model writes in place is one already.) They are keys and values of an encoder's states, or a
    cache that is handed over from call to call. Only where the network makes the queries (of a graph of attention
    alone, all three are inputs), and of inputs that nothing else reads: what queries are made from is new.

    Needs: regions of attention. Promises: nothing but roles changes; a second run changes nothing.
    """
    joined: dict[str, set[str]] = {}
    for op in graph.ops:
        if op.kind in _JOINS:
            sources = {graph.tensors[key].storage for key in op.inputs}
            joined.setdefault(graph.tensors[op.outputs[0]].storage, set()).update(sources)
    inputs = {tensor.storage for tensor in graph.tensors.values() if tensor.role is Role.INPUT}

    def read(op: EinsumOp, role: OperandRole) -> set[str]:
        """Storages of the inputs that the operand is, or is joined from."""
        found, left = set(), {graph.tensors[op.einsum.operand(role).tensor].storage}
        while left:
            found |= left
            left = set().union(*(joined.get(storage, set()) for storage in left)) - found
        return found & inputs

    products = [op for op in graph.ops if isinstance(op, EinsumOp) and op.kind in (SCORES, CONTEXT)]
    alone = {op.region for op in products if op.kind == SCORES and read(op, OperandRole.INPUT)}
    caches = set().union(*(read(op, OperandRole.WEIGHT) for op in products if op.region not in alone))
    for op in graph.ops:
        if op.kind not in (SCORES, CONTEXT, *_JOINS) and not isinstance(op, ViewOp):
            caches -= {graph.tensors[key].storage for key in op.inputs}
    if not caches:
        return graph
    tensors = {key: replace(t, role=Role.KV_CACHE) if t.storage in caches else t for key, t in graph.tensors.items()}
    return graph.with_(tensors=tensors)


__all__ = ["find_caches"]
