"""The data sheet's bounds of the groups of a network: of ops that run as one, and of what stays on chip between ops."""

from __future__ import annotations

from collections.abc import Mapping

from sim.cost.ceilings import bandwidths, memory_s
from sim.cost.compulsory import Footprint, footprint
from sim.cost.roofline import RooflinePoint
from sim.hardware.chip import Unit
from sim.schedule.gpu import inside_storages
from sim.schedule.groups import GroupCost
from sim.schedule.host import TRANSFER
from sim.schedule.loads import LOAD
from sim.schedule.network import Network
from sim.schedule.residency import layout
from sim.workload.graph import Graph


def inner_homes(graph: Graph, unit: Unit, fused: frozenset[str] = frozenset()) -> dict[str, str]:
    """Tensors that live inside a fused kernel or a group of ops (`fused`), at the memory nearest to the array."""
    inside = inside_storages(graph, unit) | fused
    nearest_memory = unit.memories[-1].name if unit.memories else unit.home
    return {key: nearest_memory for key, t in graph.tensors.items() if (t.storage or key) in inside}


def prints_of(network: Network, d: int, homes: Mapping[str, str]) -> Footprint | None:
    """What the ops of design `d` touch and where that lies, if groups pass it on or keep weights; None: every op moves
    its own."""
    if not network.residency.loads and all(group.sliced is None for group in network.groups):
        return None
    return footprint(network.graph, network.chips[d], network.unit, None, homes)


def floor_s(
    group: GroupCost, d: int, floors: Mapping[str, RooflinePoint], network: Network, prints: Footprint | None
) -> float:
    """Roofline of ops that run as one: work adds up per resource; what stays inside or on chip does not move."""
    home = f"memory:{network.unit.home}"
    if group.name == TRANSFER:
        return floors[TRANSFER].roofline_s if TRANSFER in floors else 0.0
    if group.op.kind == LOAD:
        return float(group.resources_s[home][d]) * network.chips[d].memory(network.unit.home).efficiency
    points = [floors[name] for name in (group.name, *group.fused)]
    near = f"memory:{network.unit.memories[-1].name}" if len(points) > 1 and network.unit.memories else ""
    total: dict[str, float] = {}
    for point in points:
        for name, seconds in point.resource_s.items():
            total[name] = total.get(name, 0.0) + (seconds if name != near else 0.0)
    if prints is not None and home in total:
        read, written = _home_bytes(group, d, network, prints)
        rate = bandwidths(network.chips[d], network.unit)[network.unit.home]
        total[home] = memory_s(rate, read_bytes=read, write_bytes=written)
    return max(total.values(), default=0.0)


def _home_bytes(group: GroupCost, d: int, network: Network, prints: Footprint) -> tuple[float, float]:
    """(read, written) at home by ops that run as one: what one makes the next have from it, what several read comes
    once, and weights that stay on chip are there."""
    sizes, stays, loads = layout(network.graph).sizes, network.residency.stays, network.residency.loads
    kept = {storage for table in loads.values() for storage in table if stays[storage][d]}
    reads: dict[str, float] = {}
    writes: dict[str, float] = {}
    for name in (group.name, *group.fused):
        rows = [row for row in prints.touched[name] if prints.homes[row[0]] == prints.home]
        for storage, read, _ in rows:
            if storage not in writes and storage not in kept:
                reads[storage] = reads.get(storage, 0.0) + read
        writes |= {storage: written for storage, _, written in rows if written}
    once = (min(amount, sizes.get(storage, amount)) for storage, amount in reads.items())
    return sum(once), sum(writes.values())


__all__ = ["floor_s", "inner_homes", "prints_of"]
