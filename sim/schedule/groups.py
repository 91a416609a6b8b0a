"""The cost of a mapped einsum on D designs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.roofline import rate_type
from sim.cost.sparsity import rate_speedup
from sim.cost.vector import Stream, lane_cycles
from sim.hardware.physical import vector_energy_j
from sim.mapping.api import Winners
from sim.mapping.machine import Machine
from sim.mapping.problem import ROLES, WEIGHT, Problem
from sim.results import Term
from sim.schedule.asking import Asked, found
from sim.workload.graph import EinsumOp, Op, Primitive, Role, ViewOp

if TYPE_CHECKING:
    from sim.schedule.network import _Coster
    from sim.schedule.slices import Sliced

THERE_BEFORE = (Role.WEIGHT, Role.KV_CACHE)
"""Roles of what can be fetched before the op before is done."""
WIDENING = {Primitive.CONVERT: 1, Primitive.MUL: 1}
"""Lane work for a weight that is stored narrower than it is multiplied."""
Parts = list[tuple[np.ndarray, Winners]]
"""(designs, their winners)"""
Moved = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
"""memory -> operand -> (read, write) bytes"""


@dataclass(frozen=True, kw_only=True)
class GroupCost:
    """One group; arrays are (D,). `terms_s` sum to `time_s` (launch apart). Traffic is
    memory -> operand -> (read, write) bytes."""

    op: Op
    name: str
    launch_s: np.ndarray
    time_s: np.ndarray
    terms_s: Mapping[Term, np.ndarray]
    traffic_bytes: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
    home_busy_s: np.ndarray
    """Time in which the home memory's port is taken (its latency before the first load included)."""
    prefetch_s: np.ndarray
    """Part of the first load that weights alone cause."""
    first_weight_bytes: np.ndarray
    first_weight_s: np.ndarray
    """Time of those bytes at the home memory's port; 0 where they come from another memory on chip."""
    footprint_bytes: np.ndarray
    """Tiles in the outermost memory on chip while it runs."""
    held_bytes: np.ndarray
    """Tensors that stay on chip while it runs."""
    capacity_bytes: np.ndarray
    """Of that memory: weights come ahead where they fit beside both."""
    energy_j: np.ndarray
    cycles: np.ndarray
    ladder: Mapping[str, np.ndarray] | None = None
    macs: int = 0
    effective_macs: float = 0.0
    vector_ops: int = 0
    mac_slots: np.ndarray | None = None
    """MAC slots occupied: utilisation is slots / (array slots x cycles)."""
    winners: tuple[tuple[np.ndarray, Winners], ...] = ()
    """(designs, their winners)"""
    machine: Machine | None = None
    bound: tuple[str, ...] = ()
    resources_s: Mapping[str, np.ndarray] = field(default_factory=dict)
    stream: Stream | None = None
    sliced: Sliced | None = None
    """How a fused group runs slice by slice."""
    fused: tuple[str, ...] = ()
    """Names of further ops that run inside."""
    runs: np.ndarray | None = None
    """(D,) designs that run it, all where None: a group and what it replaces exclude each other."""
    energy_parts_j: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Component -> dynamic energy; sums to `energy_j`."""
    cost_class: str = ""
    """Class of ops whose residuals an interval takes."""
    own_idle_s: np.ndarray | None = None
    """Where it is not all the time beside `home_busy_s`: `idle_s`."""
    flags: tuple[str, ...] = ()
    """What lies outside the data behind the constants."""
    bounded: bool = True
    """Whether anything is known of how far off its time may be."""

    @property
    def idle_s(self) -> np.ndarray:
        """Time in which the DMA engine waits for the compute: what a prefetch for the next group may take."""
        return self.own_idle_s if self.own_idle_s is not None else np.maximum(0.0, self.time_s - self.home_busy_s)

    def with_(self, **changes: object) -> GroupCost:
        """`dataclasses.replace` without its checks: networks hold thousands of groups that differ in names."""
        other = object.__new__(GroupCost)
        other.__dict__.update(self.__dict__, **changes)
        return other


def cost_einsum(one: Asked, coster: _Coster) -> GroupCost:
    """A mapped einsum with its epilogue, on every design."""
    won = [(designs, found(question, one, coster)) for designs, question in one.questions]
    return _assemble(one, won, coster)


def effective_macs(op: Op, coster: _Coster) -> float:
    """What zeros leave of an op's MACs at the rate of its types."""
    if not isinstance(op, EinsumOp):
        return 0.0
    unit, graph = coster.unit, coster.graph
    return op.einsum.macs / rate_speedup(unit, op, graph, rate_type(op, graph, unit, None))


def uncosted(coster: _Coster) -> list[GroupCost]:
    """The ops of a network that fits no design: their work, and no times."""
    n = len(coster.chips)
    zero, unknown, home = np.zeros(n), np.full(n, np.nan), f"memory:{coster.unit.home}"
    groups = []
    for position, op in enumerate(coster.graph.ops):
        if isinstance(op, ViewOp):
            continue
        groups.append(
            GroupCost(
                op=op,
                name=op.name,
                launch_s=unknown,
                time_s=unknown,
                terms_s={},
                traffic_bytes={},
                home_busy_s=unknown,
                prefetch_s=zero,
                first_weight_bytes=zero,
                first_weight_s=zero,
                footprint_bytes=zero,
                held_bytes=coster.residency.held_bytes[:, position],
                capacity_bytes=np.full(n, np.inf),
                energy_j=unknown,
                cycles=unknown,
                macs=op.einsum.macs if isinstance(op, EinsumOp) else 0,
                effective_macs=effective_macs(op, coster),
                vector_ops=vector_count(op),
                bound=(home,) * n,
                resources_s={home: unknown},
            )
        )
    return groups


def _scatter(parts: Parts, total: int, read: Callable[[Winners], np.ndarray]) -> np.ndarray:
    """Values of feasible designs from their winners, nan elsewhere."""
    out: np.ndarray | None = None
    for designs, won in parts:
        fits = won.row >= 0
        if not fits.any():
            continue
        values = read(won)[won.row[fits]]
        if out is None:
            out = np.full((total, *values.shape[1:]), np.nan)
        out[designs[fits]] = values
    return out if out is not None else np.full(total, np.nan)


def _assemble(one: Asked, parts: Parts, coster: _Coster) -> GroupCost:
    """The group's numbers from its winners."""
    op, problem, full, homes = one.op, one.problem, one.machine, one.stays
    held, level, widened = one.held_bytes, one.level, one.widened
    n, clock = len(full), full.clock_hz
    late = np.zeros(n)  # latency before the first load, where something comes from home
    for designs, won in parts:
        late[designs] = won.latency_cycles
    for designs, won in parts:
        for d in designs[won.row < 0].tolist():
            coster.reasons.setdefault(d, _too_large(op, won, full, d, held[d], level, coster))
    get = lambda name: _scatter(parts, n, lambda w: getattr(w.cost, name))  # noqa: E731
    time, array, spatial, preload, setup, first, idle = (
        get(k) for k in ("time", "array", "spatial", "preload", "setup", "first", "idle")
    )
    traffic = _scatter(parts, n, lambda w: w.cost.traffic)
    if traffic.ndim == 1:  # nothing fits anywhere
        traffic, port_busy = np.full((n, len(full.levels), 3, 2), np.nan), np.full((n, len(full.ports)), np.nan)
    else:
        port_busy = (
            _scatter(parts, n, lambda w: w.cost.port_bytes) / full.rates
            + _scatter(parts, n, lambda w: w.cost.port_moves) * full.setup_cycles[:, None]
        )
    home = full.levels[0]
    home_busy = np.maximum(port_busy[:, home.read_port], port_busy[:, home.write_port])
    terms = {
        Term.COMPUTE: spatial,
        Term.PRELOAD: preload,
        Term.FILL_DRAIN: array - spatial - preload,
        Term.DMA_SETUP: setup,
        Term.EXPOSED_MEMORY: time - array - setup,
    }
    moved = {
        full.levels[i].name: {role.value: (traffic[:, i, r, 0], traffic[:, i, r, 1]) for r, role in enumerate(ROLES)}
        for i in range(len(full.levels))
    }
    lanes, extra = _epilogue(op, coster), _extra(op, homes, full, coster, moved)
    home_busy = home_busy + extra + late
    arrived = _arrived(problem, traffic)
    convert = arrived * lane_cycles(coster.unit.vector, WIDENING, chip=coster.chips[0].name) if widened else 0.0
    # Lanes begin when the first tile is there; a prefetch that hides this wait shortens them by no cycle.
    after, widened_by = (first + work if np.any(work) else 0.0 * time for work in (lanes, convert))
    sofar = np.maximum(time, home_busy)
    longest = np.maximum.reduce([sofar, after, widened_by])
    terms[Term.EXPOSED_MEMORY] = terms[Term.EXPOSED_MEMORY] + np.maximum(0.0, home_busy - time)
    terms[Term.VECTOR] = np.maximum(0.0, after - sofar)
    terms[Term.DEQUANTISE] = np.maximum(0.0, widened_by - np.maximum(sofar, after))
    vector_j = vector_energy(op, coster) + (widening_energy(arrived, coster) if widened else 0.0)
    energy = _energy_parts(_scatter_energy(parts, n), moved, full) | {"vector": vector_j}
    resources = {f"memory:{port.split('.')[0]}": port_busy[:, i] / clock for i, port in enumerate(full.ports)}
    for i, port in enumerate(full.ports):
        name = f"memory:{port.split('.')[0]}"
        resources[name] = np.maximum(resources[name], port_busy[:, i] / clock)
    resources["compute"] = array / clock
    resources["vector"] = np.broadcast_to(lanes, n) / clock
    ahead = coster.graph.tensors[op.einsum.operand(WEIGHT).tensor].role in THERE_BEFORE
    weights = _of_rows(parts, n, "first_weight_bytes") if ahead else np.zeros(n)  # else it is yet to be made
    slots = problem.macs / problem.reduction_speedup / full.array.macs_per_cell
    return GroupCost(
        op=op,
        name=op.name,
        launch_s=coster.launch_s,
        time_s=longest / clock,
        terms_s={term: value / clock for term, value in terms.items()},
        traffic_bytes=moved,
        home_busy_s=home_busy / clock,
        prefetch_s=_prefetch(full, parts, first) / clock if ahead else np.zeros(n),
        first_weight_bytes=weights,
        first_weight_s=np.where(_from_home(full, parts), weights / full.rates[:, home.read_port], 0.0) / clock,
        footprint_bytes=_of_rows(parts, n, "footprint_bytes"),
        held_bytes=held,
        capacity_bytes=full.capacity_bytes[:, level or 1] if len(full.levels) > 1 else np.full(n, np.inf),
        energy_j=sum(energy.values(), start=np.zeros(n)),
        energy_parts_j=energy,
        cycles=longest,
        ladder={
            "ideal": np.full(n, slots / (full.array.rows * full.array.cols * _arrays(full))),
            "spatially_mapped": spatial,
            "compute": array,
            "total": longest,
        },
        macs=problem.macs,
        effective_macs=problem.macs / problem.reduction_speedup,
        vector_ops=vector_count(op),
        mac_slots=np.full(n, slots / _arrays(full)),
        winners=tuple(parts),
        machine=full,
        bound=bounds(resources, n),
        resources_s=resources,
        # (Ports on chip may hold the first load up, or the last store: nothing passes beside these.)
        own_idle_s=np.maximum(0.0, idle + (longest - time) - extra) / clock,
    )


def _arrays(full: Machine) -> int:
    """Arrays of the unit that one einsum may use."""
    return prod([level.fanout for level in full.levels]) * full.array.fanout


def _too_large(op, won, full, d, held, level, coster):
    if won.need_level not in (None, level):  # another memory than the one that holds tensors
        level, held = won.need_level, 0.0
    memory = full.levels[level].name if level else full.levels[-1].name
    room = float(full.capacity_bytes[d, level] - held) if level else float(full.capacity_bytes[d, -1])
    tensors = tuple(
        f"{coster.graph.tensors[k].name or k} ({coster.graph.tensors[k].size_bytes:,} bytes)"
        for k in (*op.inputs, *op.outputs)
    )
    if won.need_bytes <= room:  # each memory alone has room
        why = f"{op.name}: no {coster.options.map_space} mapping was found that fits all memories at once"
        return f"{why}; another map space, larger memories or a smaller layer is needed", tensors
    return (
        (
            f"{op.name}: the smallest tile needs {won.need_bytes:,.0f} bytes in {memory}, {room:,.0f} are free; "
            f"a larger {memory} or a smaller layer is needed"
        ),
        tensors,
    )


def _epilogue(op: EinsumOp, coster: _Coster) -> float:
    """Lane cycles of the work that follows each output element."""
    if not op.epilogue:
        return 0.0
    elements = prod(axis.size for axis in op.einsum.output.projection)
    return lane_cycles(coster.unit.vector, {p: k * elements for p, k in op.epilogue.items()}, chip=coster.chips[0].name)


def vector_count(op: Op) -> int:
    """Primitives of an op, its epilogue's for every output element."""
    if isinstance(op, EinsumOp):
        return sum(op.epilogue.values()) * prod(axis.size for axis in op.einsum.output.projection)
    return sum(getattr(op, "primitives", {}).values())


def _extra(op, homes, full, coster, moved):
    """Port cycles at home of the epilogue's own inputs (a residual, a bias); adds to `moved`."""
    main = {op.einsum.operand(role).tensor for role in ROLES}
    home, cycles = full.levels[0], np.zeros(len(full))
    read = np.zeros(len(full))
    for key in dict.fromkeys(op.inputs):
        if key not in main:
            amount = float(coster.graph.tensors[key].size_bytes)
            away = ~homes[key]
            read = read + np.where(away, amount, 0.0)
            cycles = cycles + np.where(away, amount / full.rates[:, home.read_port], 0.0)
    if np.any(read):
        moved[home.name]["epilogue"] = (read, np.zeros(len(full)))
    return cycles


def _arrived(problem: Problem, traffic: np.ndarray) -> np.ndarray:
    """Weights that come on chip."""
    return np.asarray(traffic[:, 0, 1, 0] * 8 / problem.bits[WEIGHT])


def widening_energy(weights: np.ndarray | float, coster: _Coster) -> np.ndarray:
    """Energy of the lanes that widen so many weights."""
    one = sum(count * _primitive_energy(primitive, coster) for primitive, count in WIDENING.items())
    return np.asarray(weights * one)


def _scatter_energy(parts: Parts, n: int) -> np.ndarray:
    out = np.full(n, np.nan)
    for designs, won in parts:
        out[designs] = won.energy_j
    return out


def _energy_parts(mapped: np.ndarray, moved: Moved, full: Machine) -> dict[str, np.ndarray]:
    """Energy by component of a mapped einsum: each memory's traffic, and the rest of `mapped`, the MACs.

    What the epilogue reads at home comes on top of `mapped`.
    """
    parts, factors = {}, np.zeros(len(full))
    for i, level in enumerate(full.levels):
        own = np.zeros(len(full))
        for role, (read, write) in moved[level.name].items():
            cost = read * full.read_energy_j_per_byte[:, i] + write * full.write_energy_j_per_byte[:, i]
            own = own + cost
            factors = factors + (cost if role != "epilogue" else 0.0)
        parts[level.name] = own
    return parts | {"MACs": mapped - factors}


def vector_energy(op: Op, coster: _Coster) -> np.ndarray:
    counts = op.epilogue if isinstance(op, EinsumOp) else getattr(op, "primitives", {})
    scale = prod(axis.size for axis in op.einsum.output.projection) if isinstance(op, EinsumOp) else 1
    total = np.zeros(len(coster.chips))
    for primitive, count in counts.items():
        total = total + count * scale * _primitive_energy(primitive, coster)
    return total


def _primitive_energy(primitive: Primitive, coster: _Coster) -> np.ndarray:
    """Of one on the main unit's lanes."""
    key = ("vector", primitive.value)
    if key not in coster.mapped:
        one = vector_energy_j(coster.subject, coster.unit.vector.name, primitive.value)
        coster.mapped[key] = np.atleast_1d(np.asarray(np.nan if one is None else one, dtype=float))
    return coster.mapped[key]  # type: ignore[return-value]


def _prefetch(full: Machine, parts: Parts, first: np.ndarray) -> np.ndarray:
    """Cycles by which the first load shrinks when the first weight tile is there already."""
    out = np.zeros(len(full))
    home = full.levels[0].read_port
    for designs, won in parts:
        fits = won.row >= 0
        at, rows = designs[fits], won.row[fits]
        if not len(at):
            continue
        weights = np.asarray(won.first_weight_bytes)[rows]
        rest = np.maximum(won.first_bytes[rows] - weights[:, None], 0.0)
        left = np.where(rest[:, home] > 0, (rest / full.rates[at]).max(axis=1), 0.0)
        left = np.where(left > 0, left + full.setup_cycles[at] + full.latency_cycles[at], 0.0)
        out[at] = np.where(weights > 0, np.maximum(0.0, first[at] - left), 0.0)
    return out


def _from_home(full: Machine, parts: Parts) -> np.ndarray:
    """(D,) whether the first load comes from home, not from another memory on chip."""
    return _scatter(parts, len(full), lambda won: won.first_bytes[:, full.levels[0].read_port]) > 0


def _of_rows(parts: Parts, n: int, name: str) -> np.ndarray:
    """A per-row number of the winners, scattered to the designs (0 where nothing fits)."""
    out = np.zeros(n)
    for designs, won in parts:
        fits = won.row >= 0
        out[designs[fits]] = np.asarray(getattr(won, name))[won.row[fits]]
    return out


def bounds(resources: Mapping[str, np.ndarray], n: int) -> tuple[str, ...]:
    """The busiest resource of each design."""
    names = list(resources)
    table = np.empty((len(names), n))
    for row, name in zip(table, names, strict=True):
        row[:] = resources[name]
    table[np.isnan(table)] = -1.0
    return tuple(np.array(names, dtype=object)[table.argmax(axis=0)].tolist())
