"""One order of execution for a DAG, however its ops are listed.

Depth first from the ends, operands in argument order: a branch is finished before the next one
begins, so few tensors live at a time. Ops that write a storage in place keep their turn among those
that touch it.
"""

from __future__ import annotations

from heapq import heappop, heappush

from sim.workload.graph import CollectiveOp, Graph, ViewOp


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
    order = _attention_together(order, needs, graph)
    if order == list(range(len(graph.ops))):
        return graph
    return graph.with_(ops=tuple(graph.ops[i] for i in order))


def _attention_together(order: list[int], needs: list[list[int]], graph: Graph) -> list[int]:
    """The order with what stands inside an attention region and does not read from it put before the region.

    Its scores then live only while attention runs, and it may run as one group.
    """
    place: dict[str, list[int]] = {}
    for at, i in enumerate(order):
        region = graph.ops[i].region
        if region is not None and graph.regions[region].kind == "attention":
            place.setdefault(region, []).append(at)
    for region, members in place.items():  # regions do not overlap: a move inside one leaves the places of others
        begin, end = members[0], members[-1] + 1
        inside = {i for i in order[begin:end] if graph.ops[i].region == region}
        if len(inside) == end - begin:
            continue
        late: set[int] = set()
        for i in order[begin:end]:
            if i in inside or late.intersection(needs[i]):
                late.add(i)
        order[begin:end] = [i for i in order[begin:end] if i not in late] + [i for i in order[begin:end] if i in late]
    return order


def hide_collectives(graph: Graph) -> Graph:
    """The graph with ops that wait for a collective put off while there is other work: it runs beside the collective.

    Takes ops in their order, but those that read a result under way only when nothing else can run; then all
    that was under way counts as arrived. Views stand before their first reader.
    """
    if not any(isinstance(op, CollectiveOp) for op in graph.ops):
        return graph
    views = [isinstance(op, ViewOp) for op in graph.ops]
    needs = predecessors(graph)
    work = _through_views(needs, views)
    readers: dict[int, list[int]] = {}
    for i, before in enumerate(work):
        for j in before:
            readers.setdefault(j, []).append(i)
    left = [len(before) for before in work]
    ready = [i for i, count in enumerate(left) if not count and not views[i]]
    late: list[int] = []
    order: list[int] = []
    placed: set[int] = set()
    under_way: set[int] = set()
    while ready or late:
        if not ready:
            ready, late, under_way = sorted(late), [], set()
        at = heappop(ready)
        if under_way.intersection(work[at]):
            late.append(at)
            continue
        _place(at, needs, views, placed, order)
        if isinstance(graph.ops[at], CollectiveOp):
            under_way.add(at)
        for i in readers.get(at, ()):
            left[i] -= 1
            if not left[i] and not views[i]:
                heappush(ready, i)
    for at in range(len(graph.ops)):
        _place(at, needs, views, placed, order)  # views that nothing reads
    return graph.with_(ops=tuple(graph.ops[i] for i in order))


def _through_views(needs: list[list[int]], views: list[bool]) -> list[set[int]]:
    """Per op, the ops before it that do something, views seen through. Ops stand in a topological order."""
    found: list[set[int]] = []
    for before in needs:
        found.append({k for j in before for k in (found[j] if views[j] else (j,))})
    return found


def _place(at: int, needs: list[list[int]], views: list[bool], placed: set[int], order: list[int]) -> None:
    """The op, after the views that it reads."""
    if at in placed:
        return
    for j in needs[at]:
        if views[j]:
            _place(j, needs, views, placed, order)
    placed.add(at)
    order.append(at)
