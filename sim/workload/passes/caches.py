"""Keys and values that an earlier call made and this one only reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sim.workload.graph import EinsumOp, Graph, MovementOp, Op, OperandRole, Role, ViewOp

SCORES, CONTEXT = "attention.scores", "attention.context"
_JOINS = (
    *("aten.cat", "aten.clone", "aten.repeat_interleave", "aten.repeat", "aten._to_copy", "aten.roll"),
    *("aten.copy", "aten.slice_scatter", "aten.select_scatter"),
)
"""Ops between a cache and the product that reads it: new keys and values are put behind it, or into a copy of it, a
layout or a type is changed, heads are repeated."""
_PICKS = ("aten.index_select", "aten.index", "aten.gather", "aten.masked_fill", "aten.constant_pad_nd")
"""The same of a part of it: the beams that go on, the pages of a request. Indices are no cache."""
_PUTS = ("aten.index_copy", "aten.index_put", "aten.scatter")
"""New keys and values at places of a copy of it: between the two stand the indices."""
_CHOOSES = "aten.where"
"""Its first input says which of the other two it is."""
_SCALED = ("aten.mul", "aten.div", "aten.add", "aten.sub")
"""What makes numbers of a cache that is kept in few bits: its scales and zeros are kept beside it."""

_Sources = Mapping[str, set[str]]
"""Storages by what they consist of."""


def _given(op: Op) -> tuple[str, ...]:
    """The inputs that an op's result consists of; none of an op that makes something new."""
    kind = op.kind.removesuffix("_")
    if kind in _PICKS:
        return op.inputs[:1]
    if kind in _PUTS:
        return op.inputs[:1] + op.inputs[2:][-1:]
    if kind == _CHOOSES:
        return op.inputs[1:]
    return op.inputs if kind in _JOINS else ()


def _is_scaled(op: Op) -> bool:
    return op.kind.removesuffix("_") in _SCALED


def find_caches(graph: Graph) -> Graph:
    """Inputs that attention reads as keys and values become KV caches, which are in the home memory before the call.

    (A cache that the model writes in place is one already.) They are keys and values of an encoder's states, or a
    cache that is handed over from call to call. Only where the network makes the queries (of a graph of attention
    alone, all three are inputs), and of inputs that nothing else reads: what queries are made from is new.

    Needs: regions of attention. Promises: nothing but roles changes; a second run changes nothing.
    """
    inputs = {tensor.storage for tensor in graph.tensors.values() if tensor.role is Role.INPUT}
    products = [op for op in graph.ops if isinstance(op, EinsumOp) and op.kind in (SCORES, CONTEXT)]
    if not inputs or not products:
        return graph
    joined, scaled = _sources(graph, scaled=False), _sources(graph, scaled=True)
    queries = {op.name: _made_of(_storages(graph, op, OperandRole.INPUT), joined) for op in products}
    alone = {op.region for op in products if op.kind == SCORES and queries[op.name] & inputs}
    asked = [_storages(graph, op, OperandRole.WEIGHT) for op in products if op.region not in alone]
    keys = _made_of(set().union(*asked), scaled)
    caches = (keys & inputs).difference(*(queries[op.name] for op in products if op.kind == SCORES))
    for op in graph.ops if caches else ():
        made = {graph.tensors[key].storage for key in op.outputs}
        if op.kind in (SCORES, CONTEXT) or isinstance(op, ViewOp) or _given(op) or (_is_scaled(op) and made <= keys):
            continue
        read = op.read_bytes if isinstance(op, MovementOp) else op.inputs  # `k.new_zeros(...)` reads no k
        caches -= _made_of({graph.tensors[key].storage for key in read}, joined)
    if not caches:
        return graph
    tensors = {key: replace(t, role=Role.KV_CACHE) if t.storage in caches else t for key, t in graph.tensors.items()}
    return graph.with_(tensors=tensors)


def _storages(graph: Graph, op: EinsumOp, role: OperandRole) -> set[str]:
    return {graph.tensors[op.einsum.operand(role).tensor].storage}


def _sources(graph: Graph, *, scaled: bool) -> _Sources:
    """What each storage is joined from; `scaled`: or is a scaled form of."""
    found: dict[str, set[str]] = {}
    for op in graph.ops:
        given = op.inputs if scaled and _is_scaled(op) else _given(op)
        if given:
            made = found.setdefault(graph.tensors[op.outputs[0]].storage, set())
            made.update(graph.tensors[key].storage for key in given)
    return found


def _made_of(storages: set[str], sources: _Sources) -> set[str]:
    """These storages, and all that they consist of."""
    found, left = set[str](), storages
    while left:
        found |= left
        left = set[str]().union(*(sources.get(storage, set()) for storage in left)) - found
    return found


__all__ = ["find_caches"]
