"""The data sheet's bounds of the groups of a network: of ops that run as one, and of what stays on chip between ops."""

from __future__ import annotations

from collections.abc import Mapping

from sim.cost.roofline import RooflinePoint
from sim.hardware.chip import Unit
from sim.schedule.gpu import inside_storages
from sim.schedule.groups import GroupCost
from sim.schedule.host import TRANSFER
from sim.schedule.loads import LOAD
from sim.schedule.network import Network
from sim.workload.graph import EinsumOp, Graph, OperandRole, Role


def inner_homes(graph: Graph, unit: Unit, fused: frozenset[str] = frozenset()) -> dict[str, str]:
    """Tensors that live inside a fused kernel or a group of ops (`fused`), at the memory nearest to the array."""
    inside = inside_storages(graph, unit) | fused
    nearest_memory = unit.memories[-1].name if unit.memories else unit.home
    return {key: nearest_memory for key, t in graph.tensors.items() if (t.storage or key) in inside}


def floor_s(group: GroupCost, d: int, floors: Mapping[str, RooflinePoint], network: Network) -> float:
    """Roofline of ops that run as one: work adds up per resource; what stays inside or on chip does not move."""
    home = f"memory:{network.unit.home}"
    if group.name == TRANSFER or group.op.kind == LOAD:
        memory = network.chips[d].memory(network.unit.home)
        return (
            float(group.resources_s[home][d]) * memory.efficiency if group.name != TRANSFER else float(group.time_s[d])
        )
    points = [floors[name] for name in (group.name, *group.fused)]
    near = f"memory:{network.unit.memories[-1].name}" if len(points) > 1 and network.unit.memories else ""
    total: dict[str, float] = {}
    for point in points:
        for name, seconds in point.resource_s.items():
            total[name] = total.get(name, 0.0) + (seconds if name != near else 0.0)
    spared = _kept_weight_bytes(group, d, network) + _passed_bytes(group, network.graph)
    if spared and home in total:
        moved = sum(point.traffic_bytes.get(network.unit.home, 0.0) for point in points)
        total[home] = total[home] * max(0.0, 1.0 - spared / moved)
    return max(total.values(), default=0.0)


def _passed_bytes(group: GroupCost, graph: Graph) -> float:
    """Bytes that lie at home, but that an op of a group that runs in slices has from an op before it in the group."""
    if group.sliced is None:
        return 0.0
    total, there = 0.0, set(group.sliced.slicing.inside)  # (these are counted nowhere at home)
    inside = frozenset(there)
    for op in (graph.ops[i] for i in group.sliced.slicing.members):
        read = {graph.tensors[key].storage or key: graph.tensors[key].size_bytes for key in op.inputs}
        total += sum(size for storage, size in read.items() if storage in there - inside)
        there |= read.keys() | {graph.tensors[key].storage or key for key in op.outputs}
    return total


def _kept_weight_bytes(group: GroupCost, d: int, network: Network) -> float:
    """Bytes of the weights of a product that are on chip already."""
    if not network.residency.loads or not isinstance(group.op, EinsumOp):
        return 0.0
    tensor = network.graph.tensors[group.op.einsum.operand(OperandRole.WEIGHT).tensor]
    stays = network.residency.stays[tensor.storage or tensor.id][d]
    return float(tensor.size_bytes) if stays and tensor.role is Role.WEIGHT else 0.0


__all__ = ["floor_s", "inner_homes"]
