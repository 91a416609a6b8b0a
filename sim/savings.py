"""What fusion and tensors kept on chip save, against the same network with every op alone and all tensors at home.

The alternative is costed in full, mappings included; nothing is derived from the schedule itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite

from sim.errors import DovetailError
from sim.hardware.chip import Chip, Costing
from sim.results import Estimate, OpEstimate, Saved, Traffic
from sim.schedule.network import Network, Options, Shared, cost_network
from sim.units import Dimension, format_quantity
from sim.workload.graph import Graph
from sim.workload.passes.precision import PrecisionPolicy
from sim.workload.precision import Precision


def with_savings(
    found: Estimate,
    network: Network,
    traced: Graph,
    chip: Chip,
    precision: Precision | PrecisionPolicy,
    options: Options,
    shared: Shared,
) -> Estimate:
    """The estimate with `saved` filled, per op and in all; as it is where the alternative cannot run or unit and
    network leave no choice.

    Args: network: the one design that `found` reads; traced: the graph that it was costed from.
    """
    if network.unit.costing is not Costing.MAPPED or not isfinite(found.latency_s) or options.overrides_s:
        return found
    try:
        apart = cost_network(traced, [chip], precision, replace(options, apart=True), shared=shared)
    except DovetailError:  # without fusion some tensor fits nowhere
        return found
    if apart.infeasible[0]:
        return found
    before = _sums(apart, absorbed(network, apart))
    ops = tuple(replace(op, saved=_less(before.get(op.name, (0.0, {})), op)) for op in found.ops)
    total = _total([op.saved for op in ops if op.saved is not None])
    return replace(found, ops=ops, saved=total, notes=(*found.notes, *_note(total, found)))


def absorbed(network: Network, apart: Network) -> dict[str, str]:
    """Op of the unfused network -> the group of the fused one that does its work.

    Groups bear the name of the op that leads them, list ops that they run inside, and end in the result of the last
    op that they took in: what stands between and is no group of its own belongs to them.
    """
    owner = {name: group.name for group in network.groups for name in (group.name, *group.fused)}
    graph = apart.graph
    ops = {op.name: op for op in graph.ops}
    made = {key: op.name for op in graph.ops for key in op.outputs}
    for op in network.graph.ops:
        if op.name not in owner:
            continue
        waiting = [made[key.removesuffix(".flat")] for key in op.outputs if key.removesuffix(".flat") in made]
        while waiting:
            name = waiting.pop()
            if name in owner:
                continue
            owner[name] = owner[op.name]
            waiting += [made[key] for key in ops[name].inputs if key in made]
    return owner


def _sums(apart: Network, owner: Mapping[str, str]) -> dict[str, tuple[float, dict[str, tuple[float, float]]]]:
    """Group -> (seconds, memory -> (read, written) bytes) of its ops one by one."""
    total: dict[str, tuple[float, dict[str, tuple[float, float]]]] = {}
    for group, increment in zip(apart.groups, apart.increments_s, strict=True):
        name = owner[group.name]
        seconds, moved = total.get(name, (0.0, {}))
        for memory, table in group.traffic_bytes.items():
            read, write = (sum(float(ways[i][0]) for ways in table.values()) for i in (0, 1))
            before = moved.get(memory, (0.0, 0.0))
            moved[memory] = (before[0] + read, before[1] + write)
        total[name] = (seconds + float(increment[0]), moved)
    return total


def _less(before: tuple[float, dict[str, tuple[float, float]]], op: OpEstimate) -> Saved:
    seconds, moved = before
    own = {
        memory: (sum(t.read for t in table.values()), sum(t.write for t in table.values()))
        for memory, table in op.traffic_bytes.items()
    }
    traffic = {}
    for memory in dict.fromkeys((*moved, *own)):
        (read, write), (now_read, now_write) = moved.get(memory, (0.0, 0.0)), own.get(memory, (0.0, 0.0))
        traffic[memory] = Traffic(read=read - now_read, write=write - now_write)
    return Saved(latency_s=seconds - op.latency_s, traffic_bytes=traffic)


def _total(parts: Sequence[Saved]) -> Saved:
    traffic: dict[str, Traffic] = {}
    for part in parts:
        for memory, moved in part.traffic_bytes.items():
            sofar = traffic.get(memory, Traffic())
            traffic[memory] = Traffic(read=sofar.read + moved.read, write=sofar.write + moved.write)
    return Saved(latency_s=sum(part.latency_s for part in parts), traffic_bytes=traffic)


def _note(saved: Saved, found: Estimate) -> list[str]:
    """The total in words, where something was fused or kept."""
    home = next(iter(saved.traffic_bytes), None)
    if home is None or saved.latency_s <= 0:
        return []
    before = found.latency_s + saved.latency_s
    moved = saved.traffic_bytes[home].read + saved.traffic_bytes[home].write
    words = (
        f"fusion and tensors kept on chip save {format_quantity(saved.latency_s, Dimension.TIME)} "
        f"({saved.latency_s / before:.0%}) and {format_quantity(moved, Dimension.SIZE)} over {home}, against every op "
        f"alone with all tensors in {home}"
    )
    return [words]


__all__ = ["absorbed", "with_savings"]
