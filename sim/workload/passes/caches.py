"""Keys and values that an earlier call made and this one only reads."""

from __future__ import annotations

from dataclasses import replace

from sim.workload.graph import EinsumOp, Graph, OperandRole, Role, ViewOp

SCORES, CONTEXT = "attention.scores", "attention.context"
_JOINS = ("aten.cat", "aten.clone", "aten.repeat_interleave", "aten.repeat", "aten._to_copy")
"""Ops between a cache and the product that reads it: new keys and values are put behind it, a layout or a type is
changed, heads are repeated."""
_PICKS = ("aten.index_select", "aten.index")
"""The same of a part of it: the beams that go on, the pages of a request. Indices are no cache."""


def find_caches(graph: Graph) -> Graph:
    """Inputs that attention reads as keys and values become KV caches, which are in the home memory before the call.

    (A cache that the model writes in place is one already.) They are keys and values of an encoder's states, or a
    cache that is handed over from call to call. Only where the network makes the queries (of a graph of attention
    alone, all three are inputs), and of inputs that nothing else reads: what queries are made from is new.

    Needs: regions of attention. Promises: nothing but roles changes; a second run changes nothing.
    """
    joined: dict[str, set[str]] = {}
    for op in graph.ops:
        if op.kind in _JOINS or op.kind in _PICKS:
            given = op.inputs[:1] if op.kind in _PICKS else op.inputs
            sources = {graph.tensors[key].storage for key in given}
            joined.setdefault(graph.tensors[op.outputs[0]].storage, set()).update(sources)
    inputs = {tensor.storage for tensor in graph.tensors.values() if tensor.role is Role.INPUT}

    def read(key: str) -> set[str]:
        """Storages of the inputs that a tensor is, or is joined from."""
        found, left = set(), {graph.tensors[key].storage}
        while left:
            found |= left
            left = set().union(*(joined.get(storage, set()) for storage in left)) - found
        return found & inputs

    products = [op for op in graph.ops if isinstance(op, EinsumOp) and op.kind in (SCORES, CONTEXT)]
    queries = [(op.region, read(op.einsum.operand(OperandRole.INPUT).tensor)) for op in products if op.kind == SCORES]
    alone = {region for region, found in queries if found}
    asked = (op.einsum.operand(OperandRole.WEIGHT).tensor for op in products if op.region not in alone)
    caches = set().union(*map(read, asked)).difference(*(found for _, found in queries))
    for op in graph.ops if caches else ():
        if op.kind not in (SCORES, CONTEXT, *_JOINS, *_PICKS) and not isinstance(op, ViewOp):
            caches = caches.difference(*map(read, op.inputs))
    if not caches:
        return graph
    tensors = {key: replace(t, role=Role.KV_CACHE) if t.storage in caches else t for key, t in graph.tensors.items()}
    return graph.with_(tensors=tensors)


__all__ = ["find_caches"]
