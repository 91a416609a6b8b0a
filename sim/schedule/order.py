"""One order of execution for a DAG, however its ops are listed.

Depth first from the ends, operands in argument order: a branch is finished before the next one
begins, so few tensors live at a time. Ops that write a storage in place keep their turn among those
that touch it.
"""

from __future__ import annotations

from sim.workload.graph import Graph, ViewOp


def predecessors(graph: Graph) -> list[list[int]]:
    """Per op, the positions that must come before it: producers in argument order, then what touches
    the same storage before an op that writes it in place."""
    needs: list[list[int]] = []
    written: dict[str, int] = {}
    readers: dict[str, list[int]] = {}

    def storage(key: str) -> str:
        return graph.tensors[key].storage or key

    for i, op in enumerate(graph.ops):
        before = [graph.producer[key] for key in op.inputs if key in graph.producer]
        touched = [storage(key) for key in (*op.inputs, *op.outputs)]
        before += [written[place] for place in touched if place in written]
        if not isinstance(op, ViewOp):
            for place in map(storage, op.outputs):
                before += readers.pop(place, [])
                written[place] = i
            for place in map(storage, op.inputs):
                readers.setdefault(place, []).append(i)
        needs.append([j for j in dict.fromkeys(before) if j != i])
    return needs


def in_order(graph: Graph) -> Graph:
    """The graph with its ops in the order in which the chip runs them."""
    needs = predecessors(graph)
    needed = {j for before in needs for j in before}
    ends = sorted((i for i in range(len(graph.ops)) if i not in needed), key=lambda i: graph.ops[i].name)
    order: list[int] = []
    placed: set[int] = set()
    for end in ends:
        stack = [(end, iter(needs[end]))]
        while stack:
            at, rest = stack[-1]
            following = next((j for j in rest if j not in placed), None)
            if following is not None:
                stack.append((following, iter(needs[following])))
                continue
            stack.pop()
            if at not in placed:
                placed.add(at)
                order.append(at)
    if order == list(range(len(graph.ops))):
        return graph
    return graph.with_(ops=tuple(graph.ops[i] for i in order))
