"""Drop what nobody reads."""

from __future__ import annotations

from sim.workload.graph import Graph, Op, Role


def dead_code(graph: Graph) -> Graph:
    """Without ops whose results no one uses, and without tensors that no op names.

    Needs: ops in topological order. Promises: every op left reaches a graph output or writes
    state that outlives the run (KV cache); the order is kept; a second run changes nothing. Graph
    inputs stay, weights that no op reads go.
    """
    lasting = {Role.OUTPUT, Role.KV_CACHE, Role.INPUT, Role.WEIGHT}
    live = {t.id for t in graph.tensors.values() if t.role in lasting and t.id in graph.producer}
    # A view of an input or weight is no effect by itself: only writes and outputs are.
    effects = {t for t in live if graph.tensors[t].role in (Role.OUTPUT, Role.KV_CACHE)}
    wanted = set(effects)
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if wanted.intersection(op.outputs):
            kept.append(op)
            wanted.update(op.inputs)
    ops = tuple(reversed(kept))
    named = {t for op in ops for t in (*op.inputs, *op.outputs)}
    named |= {t.id for t in graph.tensors.values() if t.role is Role.INPUT and t.id not in graph.producer}
    tensors = {key: tensor for key, tensor in graph.tensors.items() if key in named or _result(graph, key)}
    used = {op.region for op in ops}
    regions = {key: r for key, r in graph.regions.items() if key in used}
    return graph.with_(ops=ops, tensors=tensors, regions=regions)


def _result(graph: Graph, tensor: str) -> bool:
    """A graph output that no op made (an input handed through)."""
    return graph.tensors[tensor].role is Role.OUTPUT and tensor not in graph.producer
