"""The cost of streams (vector and movement ops, depthwise convolutions with a processor of their own), and of any op on
a unit that is costed by roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.cost.compulsory import shared_memories
from sim.cost.roofline import roofline
from sim.cost.vector import lane_cycles, primitives, stream
from sim.mapping.machine import Machine
from sim.mapping.problem import WEIGHT
from sim.results import Term
from sim.schedule.asking import compute_and_widening, homes_of, machine_of
from sim.schedule.groups import (
    WIDENING,
    GroupCost,
    bounds,
    effective_macs,
    vector_count,
    vector_energy,
    widening_energy,
)
from sim.workload.graph import EinsumOp, MovementOp, Op, Primitive, VectorOp

if TYPE_CHECKING:
    from sim.schedule.network import _Coster


def moved_bytes(op: Op, coster: _Coster) -> list[tuple[str, float, float]]:
    """(tensor, read bytes, written bytes) of an op that streams."""
    tensors = coster.graph.tensors
    if isinstance(op, MovementOp):
        return [(k, float(b), 0.0) for k, b in op.read_bytes.items()] + [
            (k, 0.0, float(b)) for k, b in op.write_bytes.items()
        ]
    times = op.passes if isinstance(op, VectorOp) else 1
    reads = [(k, float(tensors[k].size_bytes) * times, 0.0) for k in dict.fromkeys(op.inputs)]
    return reads + [(k, 0.0, float(tensors[k].size_bytes)) for k in dict.fromkeys(op.outputs)]


def cost_stream(op: Op, position: int, coster: _Coster) -> GroupCost:
    """A vector or movement op: lanes beside a stream between home, chip and lanes. Of a depthwise convolution the
    multipliers of its processor, behind which the lanes do the epilogue (and before which they widen weights); the
    rows of a window wait in the processor itself, which takes its input once."""
    n = len(coster.chips)
    full, widened = _machine(op, coster)
    level = _level(full, coster)
    traffic = _traffic(op, full, level, coster)
    load, store, near, busy = _ports(full, traffic, n)
    macs = op.einsum.macs if isinstance(op, EinsumOp) else 0
    products = np.full(n, macs / coster.depthwise_macs_per_cycle(op) if macs else 0.0)
    lanes = np.full(n, lane_cycles(coster.unit.vector, _lane_work(op, widened, coster), chip=coster.chips[0].name))
    total = sum((t[kind][way] for t in traffic.values() for kind in t for way in (0, 1)), start=np.zeros(n))
    flow = stream(
        lanes=np.maximum(products, lanes),
        near_cycles=near,
        load_cycles=load,
        store_cycles=store,
        moved_bytes=total,
        setup=full.setup_cycles,
        latency=full.latency_cycles,
    )
    clock = full.clock_hz
    terms = {
        Term.COMPUTE: products,
        Term.VECTOR: flow.lanes - products,
        Term.DMA_SETUP: flow.setup,
        Term.EXPOSED_MEMORY: flow.time - flow.lanes - flow.setup,
    }
    late = np.where(load > 0, full.latency_cycles, 0.0)
    energy = _energy(full, traffic) | {"vector": vector_energy(op, coster)}
    if widened and isinstance(op, EinsumOp):
        energy["vector"] = energy["vector"] + widening_energy(_weights(op, coster), coster)
    resources = {"vector": lanes / clock}
    if macs:
        energy["MACs"] = macs * full.mac_energy_j
        resources["compute"] = products / clock
    for part in full.levels[: level + 1]:
        resources[f"memory:{part.name}"] = np.maximum(busy[part.read_port], busy[part.write_port]) / clock
    moved = {name: {kind: (ways[0], ways[1]) for kind, ways in table.items()} for name, table in traffic.items()}
    return GroupCost(
        op=op,
        name=op.name,
        launch_s=coster.launch_s,
        time_s=flow.time / clock,
        terms_s={term: value / clock for term, value in terms.items()},
        traffic_bytes=moved,
        # Loads and stores of a stream take turns, each with its set-up.
        home_busy_s=(flow.chunks * (flow.load_step + flow.drain) + late) / clock,
        prefetch_s=np.zeros(n),
        first_weight_bytes=np.zeros(n),
        first_weight_s=np.zeros(n),
        footprint_bytes=np.zeros(n),
        held_bytes=coster.residency.held_bytes[:, position],
        capacity_bytes=full.capacity_bytes[:, level] if level else np.full(n, np.inf),
        energy_j=sum(energy.values(), start=np.zeros(n)),
        energy_parts_j=energy,
        cycles=flow.time,
        macs=macs,
        effective_macs=float(macs),
        vector_ops=vector_count(op),
        machine=full,
        bound=bounds(resources, n),
        resources_s=resources,
        stream=flow,
    )


def _machine(op: Op, coster: _Coster) -> tuple[Machine, bool]:
    """(memories and the array at the rate of what it multiplies, whether weights are widened first)."""
    if isinstance(op, EinsumOp):
        compute, widened = compute_and_widening(op, coster)
        return machine_of(coster, compute), widened
    return machine_of(coster, next(iter(coster.unit.array.macs_per_cycle))), False


def _level(full: Machine, coster: _Coster) -> int:
    """The memory on chip through which all of a stream passes, whether or not tensors stay there after it (0: none)."""
    near = coster.residency.memory or next((memory.name for memory in shared_memories(coster.unit)), None)
    return next((i for i, part in enumerate(full.levels) if part.name == near), 0)


def _lane_work(op: Op, widened: bool, coster: _Coster) -> dict[Primitive, int]:
    work = primitives(op)
    if widened and isinstance(op, EinsumOp):
        work |= {p: work.get(p, 0) + count * _weights(op, coster) for p, count in WIDENING.items()}
    return work


def _weights(op: EinsumOp, coster: _Coster) -> int:
    return coster.graph.tensors[op.einsum.operand(WEIGHT).tensor].elements


def _traffic(op: Op, full: Machine, level: int, coster: _Coster) -> dict[str, dict[str, list[np.ndarray]]]:
    """memory -> operand -> [read, written] bytes: at home what does not stay on chip, near the lanes all of it."""
    n, homes, levels = len(coster.chips), homes_of(op, coster), full.levels[: level + 1]
    weight = op.einsum.operand(WEIGHT).tensor if isinstance(op, EinsumOp) else ""
    kinds = ("input", "weight", "output") if weight else ("input", "output")
    traffic = {level.name: {kind: [np.zeros(n), np.zeros(n)] for kind in kinds} for level in levels}
    room = full.capacity_bytes[:, 1] if len(full.levels) > 1 else np.zeros(n)
    for key, whole, write in moved_bytes(op, coster):
        kept = homes.get(key, np.zeros(n, dtype=bool))
        size = float(coster.graph.tensors[key].size_bytes)
        once = np.where(size <= room, min(whole, size), whole)  # what fits stays on chip between passes and look-ups
        read = whole if isinstance(op, MovementOp) else once  # look-ups find it there; a pass comes as a stream
        role = "weight" if key == weight else "input"
        for kind, way, far, close in ((role, 0, once, read), ("output", 1, write, write)):
            home = traffic[levels[0].name][kind]
            home[way] = home[way] + np.where(kept, 0.0, far)
            if len(levels) > 1:  # everything passes through the memory on chip
                near = traffic[levels[-1].name][kind]
                near[way] = near[way] + close
    return traffic


def _ports(full, traffic, n):
    """(load cycles, store cycles at home; cycles of the busiest port on chip; cycles per port)."""
    busy = {i: np.zeros(n) for i in range(len(full.ports))}
    load, store = np.zeros(n), np.zeros(n)
    for name, table in traffic.items():
        level = next(level for level in full.levels if level.name == name)
        read, write = (sum(ways[way] for ways in table.values()) for way in (0, 1))
        read, write = read / full.rates[:, level.read_port], write / full.rates[:, level.write_port]
        busy[level.read_port] = busy[level.read_port] + read
        busy[level.write_port] = busy[level.write_port] + write
        if level is full.levels[0]:
            load, store = read, write
    home = {full.levels[0].read_port, full.levels[0].write_port}
    near = np.zeros(n)
    for port, cycles in busy.items():
        near = near if port in home else np.maximum(near, cycles)
    return load, store, near, busy


def _energy(full, traffic):
    """Memory -> energy of its traffic."""
    parts = {}
    for i, level in enumerate(full.levels):
        if level.name in traffic:
            ways = traffic[level.name].values()
            read, write = sum(r for r, _ in ways), sum(w for _, w in ways)
            parts[level.name] = read * full.read_energy_j_per_byte[:, i] + write * full.write_energy_j_per_byte[:, i]
    return parts


def cost_roofline(op: Op, position: int, coster: _Coster) -> GroupCost:
    """An op on a unit without a mapping model: its roofline, and the launch floor beside it."""
    n, array = len(coster.chips), coster.unit.array
    points = [_point(op, d, coster) for d in range(n)]
    names = dict.fromkeys(name for point in points for name in point.resource_s)
    resources = {name: np.array([p.resource_s.get(name, 0.0) for p in points]) for name in names}
    time = np.array([p.roofline_s for p in points])
    compute = resources.get("compute", np.zeros(n))
    vector = np.maximum(0.0, resources.get("vector", np.zeros(n)) - compute)
    traffic = {}
    for name in dict.fromkeys(name for point in points for name in point.traffic_bytes):
        moved, written = np.zeros((2, n))
        for d, point in enumerate(points):
            moved[d], written[d] = point.traffic_bytes.get(name, 0.0), point.write_bytes.get(name, 0.0)
        traffic[name] = {"all": (moved - written, written)}
    home = f"memory:{coster.unit.home}"
    clock = np.array([c.main_unit.clock_hz for c in coster.chips])
    return GroupCost(
        op=op,
        name=op.name,
        launch_s=coster.launch_s,
        time_s=time,
        terms_s={
            Term.COMPUTE: compute,
            Term.VECTOR: vector,
            Term.EXPOSED_MEMORY: np.maximum(0.0, time - compute - vector),
        },
        traffic_bytes=traffic,
        home_busy_s=resources.get(home, np.zeros(n)),
        prefetch_s=np.zeros(n),
        first_weight_bytes=np.zeros(n),
        first_weight_s=np.zeros(n),
        footprint_bytes=np.zeros(n),
        held_bytes=coster.residency.held_bytes[:, position],
        capacity_bytes=np.full(n, np.inf),
        energy_j=np.full(n, np.nan),
        cycles=time * clock,
        macs=points[0].macs,
        effective_macs=effective_macs(op, coster),
        vector_ops=points[0].vector_ops,
        mac_slots=compute * clock * array.rows * array.cols if points[0].macs else None,
        bound=bounds(resources, n) if resources else ("launch",) * n,
        resources_s=resources,
    )


def _point(op, d, coster):
    key = ("roofline", d)
    if key not in coster.mapped:
        found = roofline(coster.graph, coster.chips[d], coster.precision_name, homes=coster.home_names(d))
        coster.mapped[key] = {point.name: point for point in found.ops}
    return coster.mapped[key][op.name]
