"""The mapper over one border: the best even mapping, for every design of a machine.

Search by a lower bound, decide by the exact recurrence: every candidate is bounded on every design
(`bound.Bounds`), and those with the least bounds are handed to the exact evaluator in rounds, until
the next bound passes the best exact value. The result is the optimum over the listed candidates and
all their loop orders, because the bound never exceeds the exact value (a law in the tests).

Designs share all that does not depend on their numbers: the terms of the bound, and the step tables
of candidates (`settle.Settled`). What is refined for a design depends on its own numbers alone, so
that a sweep finds for each design what a search of its own would find, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sim.mapping.bound import Numbers
from sim.mapping.evaluate import Cost, StepTable
from sim.mapping.machine import Machine
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import footprint_bytes, nest
from sim.mapping.problem import WEIGHT, Problem
from sim.mapping.scan import ROUNDING, Scan
from sim.mapping.search import Pool, SingleBorder
from sim.mapping.settle import CLASS_COUNT, Pairs, Settled
from sim.workload.graph import OperandRole

LOOKS = (3, 24, 192, 768)
"""Candidates refined in each round; small problems then go on with all that the bound leaves."""
NEAR = 1e-3
"""Share above the least bound within which the first round looks."""
EXACT_BELOW = 40_000
"""Candidates up to which the search ends only when no bound is left below the best value."""
TOLERANCE = 1e-3
"""Beyond that it ends once the best value is proven to be within this share of the optimum, or after
the last of `LOOKS`; `Winners.proven_gap` says how far the proof reaches."""
SLACK = 1e-9
"""Bounds and recurrences round differently: within this share they count as equal."""
AT_ONCE = 8_000_000
"""Bounds held at a time (designs x candidates)."""


class Objective(StrEnum):
    LATENCY = "latency"
    ENERGY = "energy"
    EDP = "edp"


@dataclass(frozen=True, kw_only=True)
class Winners:
    """The best mapping of an einsum for each of D designs.

    `row[d]` is the row of `cost` and `table` for design d, -1 where nothing fits; `energy_j` is
    dynamic (memories and MACs), nan where the chip states no energies; `need_bytes` is the least
    footprint of any candidate, for the message when nothing fits.
    """

    row: np.ndarray
    cost: Cost
    tables: Sequence[StepTable]
    mappings: Sequence[LoopNest]
    energy_j: np.ndarray
    first_weight_bytes: Sequence[float] | np.ndarray
    """Per row: the weight part of the very first load."""
    footprint_bytes: Sequence[float] | np.ndarray
    """Per row: bytes of the outermost memory on chip, second copies included."""
    need_bytes: float
    need_level: int | None = None
    """The memory in which `need_bytes` are missing, where several might be it."""
    proven_gap: float
    """Largest share by which an optimum of the space may be better than the mapping found; 0 where
    proven optimal over the candidates, nan where nothing is proven."""
    latency_cycles: np.ndarray
    """(D,) latency of the home memory that the times hold (0 where nothing is read there)."""
    candidates: int
    refined: int

    def first_load_bytes(self, rows: np.ndarray) -> np.ndarray:
        """Bytes of the very first load, (rows, ports)."""
        return np.stack([self.tables[int(row)].first.bytes[0] for row in rows])


class Lazy(Sequence):
    """A sequence whose items are made when they are asked for, equal ones once."""

    def __init__(self, keys: Sequence, make: Callable) -> None:
        self.keys, self.make = list(keys), make
        self.made: dict = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index):
        key = self.keys[index]
        if key not in self.made:
            self.made[key] = self.make(key)
        return self.made[key]


def map_problem(
    problem: Problem,
    machine: Machine,
    homes: Mapping[OperandRole, int],
    *,
    objective: Objective = Objective.LATENCY,
    reserved_bytes: np.ndarray | None = None,
    fixed: bool = False,
) -> Winners:
    """Best even mapping of a problem on each design of a machine with at most one memory border.

    Args: homes: operand -> level in which it lies; reserved_bytes: (D, levels) taken by tensors
        that stay on chip; fixed: only loop orders of the array's dataflow.
    """
    machine = machine.awake(homes)
    space = SingleBorder(problem, machine, homes, fixed)
    room = machine.capacity_bytes[:, space.route.level]
    if reserved_bytes is not None:
        room = room - reserved_bytes[:, space.route.level]
    return _Search(space, objective, room).run()


@dataclass(slots=True)
class _Queue:
    """One design: the candidates that may still beat the best, by ascending bound, and the best so far."""

    design: int
    clock: int
    """Number of its rates, set-up and latency; designs that share them differ in their room."""
    positions: np.ndarray
    bounds: np.ndarray
    taken: np.ndarray
    """What the first round took (places in the scan)."""
    next: int = 0
    """How many candidates were taken."""
    held: tuple[np.ndarray, np.ndarray] = (np.zeros(0, dtype=np.int64), np.zeros(0))
    """Keys and bounds of loop orders that the first round left for the second."""
    rank: tuple = (np.inf,)
    """(value, second value, key, order) of the best."""
    place: tuple[int, int] = (-1, -1)
    """(table, row) of the best."""


class _Search:
    def __init__(self, space: SingleBorder, objective: Objective, room: np.ndarray) -> None:
        self.space, self.objective, self.room = space, objective, room
        self.machine = machine = space.machine
        self.pool = Pool(space)
        self.settled = Settled(self.pool)
        clocks = np.column_stack([machine.rates, machine.setup_cycles, machine.latency_cycles])
        energies = [machine.read_energy_j_per_byte, machine.write_energy_j_per_byte, machine.mac_energy_j]
        if objective is not Objective.LATENCY:
            clocks = np.column_stack([clocks, *energies])
        # Designs that differ in nothing that matters here are mapped once.
        self.distinct, self.design = _distinct(np.column_stack([clocks, *energies, room]))
        self.clock_designs, self.clock = _distinct(clocks)
        small = len(self.pool) <= EXACT_BELOW
        self.slack = SLACK if small else -TOLERANCE
        self.looks = (*LOOKS, len(self.pool)) if small else LOOKS

    def run(self) -> Winners:
        scan = Scan(self.pool, self.room[self.distinct])
        step = max(1, AT_ONCE // max(1, len(self.pool)))
        found: dict[int, _Queue] = {}
        for start in range(0, len(self.clock_designs), step):
            values = {c: self._values(scan, c) for c in range(start, min(start + step, len(self.clock_designs)))}
            members = [int(d) for d in self.distinct if self.clock[d] in values]
            found |= self._search(scan, members, values)
        return self._winners(found)

    def _values(self, scan: Scan, clock: int) -> np.ndarray:
        """Bounds of the objective for the candidates of the scan."""
        machine, d = self.machine, int(self.clock_designs[clock])
        times = scan.times(machine.rates[d], float(machine.setup_cycles[d]), float(machine.latency_cycles[d]))
        if self.objective is Objective.LATENCY:
            return times
        energy = self.pool.energies(machine.read_energy_j_per_byte[d], machine.write_energy_j_per_byte[d])
        problem = self.space.problem
        energy = energy + float(machine.mac_energy_j[d]) * problem.macs / problem.reduction_speedup
        return scan.of(energy) if self.objective is Objective.ENERGY else scan.of(energy) * times

    def _search(self, scan: Scan, designs: list[int], values: Mapping[int, np.ndarray]) -> dict[int, _Queue]:
        """The best of each design; designs where nothing fits are left out.

        What wins with the most room wins with less if it fits there, so that room is searched first. (Where
        the search stops short of a proof, what it finds depends on its path: each design then goes its own.)
        """
        fits = {d: scan.fits(self.room[d]) for d in designs}
        by_clock: dict[int, list[int]] = {}
        for d in sorted(designs, key=lambda d: -fits[d]):
            if fits[d]:
                by_clock.setdefault(int(self.clock[d]), []).append(d)
        queues = [self._start(scan, clock, members, fits, values[clock]) for clock, members in by_clock.items()]
        everyone = [queue for some in queues for queue in some]
        self._round(everyone, LOOKS[0])
        if self.slack < 0:
            self._rounds(scan, queues, fits, values)
        else:
            self._rounds(scan, [some[:1] for some in queues], fits, values)
            queues = [some for some in queues if some[0].place[0] >= 0]  # else nothing has a value, in less room too
            places = scan.places([some[0].rank[2] // CLASS_COUNT for some in queues])
            left = []
            for some, place in zip(queues, places, strict=True):
                for queue in some[1:]:
                    if place < fits[queue.design]:
                        queue.rank, queue.place = some[0].rank, some[0].place
                        queue.positions = queue.bounds = queue.bounds[:0]
                left.append([queue for queue in some[1:] if place >= fits[queue.design]])
            self._rounds(scan, left, fits, values)
        return {queue.design: queue for queue in everyone if queue.place[0] >= 0}

    def _rounds(
        self, scan: Scan, queues: list[list[_Queue]], fits: Mapping[int, int], values: Mapping[int, np.ndarray]
    ) -> None:
        """Finish queues, given per clock, in rounds that they share."""
        for some in queues:
            if some:
                self._fill(scan, some, fits, values[some[0].clock])
        waiting = [queue for some in queues for queue in some]
        for look in self.looks[1:]:
            waiting = [queue for queue in waiting if self._open(queue)]
            if not waiting:
                break
            self._round(waiting, look)

    def _start(
        self, scan: Scan, clock: int, designs: list[int], fits: Mapping[int, int], bounds: np.ndarray
    ) -> list[_Queue]:
        """Queues of the designs of one clock with their least bounds."""
        least = [float(bounds[: fits[d]].min()) * (1 + NEAR) for d in designs]
        near = np.flatnonzero(bounds[: fits[designs[0]]] <= max(least))
        value = bounds[near]
        queues = []
        for d, limit in zip(designs, least, strict=True):
            mine = near[(value <= limit) & (near < fits[d])]
            if len(mine) > LOOKS[0]:
                mine = mine[np.argsort(bounds[mine], kind="stable")[: LOOKS[0]]]
            queues.append(_Queue(d, clock, scan.positions[mine], bounds[mine], taken=mine))
        return queues

    def _fill(self, scan: Scan, queues: list[_Queue], fits: Mapping[int, int], bounds: np.ndarray) -> None:
        """What is left for the queues of one clock once they know a value."""
        limits = [self._limit(queue) * (1 + ROUNDING) for queue in queues]
        left = np.flatnonzero(bounds[: fits[queues[0].design]] <= max(limits))
        value = bounds[left]
        order = np.argsort(value, kind="stable")
        left, value = left[order], value[order]
        for queue, limit in zip(queues, limits, strict=True):
            mine = (value <= limit) & (left < fits[queue.design])
            for one in queue.taken:
                mine &= left != one
            chosen = left[mine]
            queue.positions, queue.bounds, queue.next = scan.positions[chosen], value[mine], 0

    def _limit(self, queue: _Queue) -> float:
        """Bounds above this cannot win."""
        return queue.rank[0] * (1 + self.slack)

    def _open(self, queue: _Queue) -> bool:
        """Whether a candidate that was not refined yet could still win."""
        limit = self._limit(queue)
        if queue.next < len(queue.bounds) and queue.bounds[queue.next] <= limit * (1 + ROUNDING):
            return True
        return bool((queue.held[1] <= limit).any())

    def _round(self, queues: list[_Queue], look: int) -> None:
        """Refine the next `look` candidates of each queue."""
        if not queues:
            return
        keys, bounds, owner, tiling = self._split(queues, look)
        limit = np.array([self._limit(queue) for queue in queues])
        if np.isinf(limit).all():  # nothing is known yet: the most promising classes of each tiling
            least = np.full(tiling.max(initial=-1) + 1, np.inf)
            np.minimum.at(least, tiling, bounds)
            chosen = bounds <= least[tiling] * (1 + NEAR)
            for number, queue in enumerate(queues):
                mine = ~chosen & (owner == number)
                queue.held = (keys[mine], bounds[mine])
        else:
            held = [queue.held for queue in queues]
            keys = np.concatenate([keys, *(k for k, _ in held)])
            bounds = np.concatenate([bounds, *(b for _, b in held)])
            owner = np.concatenate([owner, np.repeat(np.arange(len(held)), [len(k) for k, _ in held])])
            chosen = bounds <= limit[owner]
            for queue in queues:
                queue.held = (np.zeros(0, dtype=np.int64), np.zeros(0))
        keys, owner = keys[chosen], owner[chosen]
        if len(keys):
            order = np.lexsort((keys, owner))
            self.settled.add(np.unique(keys))
            self._compare(queues, keys[order], owner[order])

    def _split(self, queues: list[_Queue], look: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Take the next candidates: (keys, bounds, number of the queue, number of the tiling) per innermost class."""
        taken, values = [], []
        for queue in queues:
            end = queue.next + look
            within = queue.bounds[queue.next : end] <= self._limit(queue) * (1 + ROUNDING)
            taken.append(queue.positions[queue.next : end][within])
            values.append(queue.bounds[queue.next : end][within])
            queue.next = min(end, len(queue.bounds)) if within.all() else queue.next + int(within.sum())
        owner = np.repeat(np.arange(len(queues)), [len(t) for t in taken])
        positions = np.concatenate(taken)
        designs = np.array([queue.design for queue in queues])[owner]
        machine = self.machine
        numbers = Numbers(machine.rates[designs], machine.setup_cycles[designs], machine.latency_cycles[designs])
        bounds = self.pool.class_times(numbers, positions)
        if self.objective is not Objective.LATENCY:  # every order of a tiling may win in energy
            bounds = np.where(np.isfinite(bounds), np.concatenate(values)[None, :] * (1 - ROUNDING), np.inf)
        letters, tiling = np.nonzero(np.isfinite(bounds))
        return positions[tiling] * CLASS_COUNT + letters, bounds[letters, tiling], owner[tiling], tiling

    def _compare(self, queues: list[_Queue], keys: np.ndarray, owner: np.ndarray) -> None:
        """Cost the rows of keys, each on the design of its queue, and keep each queue's best."""
        pairs = self.settled.pairs(keys)
        if not len(pairs.key):
            return
        owner = owner[pairs.key]
        designs = np.array([queue.design for queue in queues])[owner]
        clocks = np.array([queue.clock for queue in queues])[owner]
        time = self._times(pairs, clocks) + self.machine.latency_cycles[designs]
        value = time
        if self.objective is not Objective.LATENCY:
            energy = self._energy(pairs, designs)
            value = energy if self.objective is Objective.ENERGY else energy * time
        present, starts = np.unique(owner, return_index=True)
        least = np.full(len(queues), np.inf)
        least[present] = np.minimum.reduceat(value, starts)
        best = np.flatnonzero(value == least[owner])
        second = self._second(pairs.take(best), designs[best], time[best])
        for i, other in zip(best.tolist(), second.tolist(), strict=True):
            queue = queues[owner[i]]
            rank = (float(value[i]), other, int(keys[pairs.key[i]]), int(pairs.order[i]))
            if rank < queue.rank:
                queue.rank, queue.place = rank, (int(pairs.table[i]), int(pairs.row[i]))

    def _times(self, pairs: Pairs, clocks: np.ndarray) -> np.ndarray:
        """Cycles of pairs; designs that differ in their room alone are costed once."""
        machine = self.machine
        if len(self.distinct) == 1:
            at = self.clock_designs[clocks]
            return self.settled.times(pairs, machine.rates[at], machine.setup_cycles[at])
        code = clocks * self.settled.rows + self.settled.number(pairs)
        _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
        at = self.clock_designs[clocks[first]]
        return self.settled.times(pairs.take(first), machine.rates[at], machine.setup_cycles[at])[inverse]

    def _energy(self, pairs: Pairs, designs: np.ndarray) -> np.ndarray:
        return dynamic_energy(self.machine, self.space.problem, self.settled.traffic(pairs), designs)

    def _second(self, pairs: Pairs, designs: np.ndarray, time: np.ndarray) -> np.ndarray:
        """What decides between equal values: energy (traffic at home where it is unknown), or time."""
        if self.objective is not Objective.LATENCY:
            return time
        energy = self._energy(pairs, designs)
        return np.where(np.isnan(energy), self.settled.traffic(pairs)[:, 0].sum(axis=(1, 2)), energy)

    def _gap(self, queues: Mapping[int, _Queue]) -> float:
        """Share by which a candidate that was not refined might still beat the best, over all designs."""
        left = [queue for queue in queues.values() if queue.next < len(queue.bounds)]
        gaps = [1.0 - float(queue.bounds[queue.next]) / queue.rank[0] for queue in left]
        return max([0.0 if self.slack > 0 else TOLERANCE, *gaps])

    def _winners(self, found: dict[int, _Queue]) -> Winners:
        machine, pool, settled = self.machine, self.pool, self.settled
        designs = np.array(sorted(found), dtype=np.int64)
        queues = [found[int(d)] for d in designs]
        places = [queue.place for queue in queues]
        row_of = {int(d): row for row, d in enumerate(designs)}
        rows = np.array([row_of.get(int(self.distinct[g]), -1) for g in self.design])
        cost = self._costs(designs, places)
        energy = np.full(len(machine), np.nan)
        fits = np.flatnonzero(rows >= 0)
        energy[fits] = dynamic_energy(machine, self.space.problem, cost.traffic[rows[fits]], fits) if len(fits) else ()
        positions = np.array([queue.rank[2] // CLASS_COUNT for queue in queues], dtype=np.int64)
        return Winners(
            row=rows,
            cost=cost,
            tables=Lazy(places, lambda place: settled.tables[place[0]].take(np.array([place[1]]))),
            mappings=Lazy(places, lambda place: self.space.mapping(settled.choice(*place))),
            energy_j=energy,
            first_weight_bytes=pool.weight_tile_bytes()[positions],
            footprint_bytes=pool.footprint[positions],
            need_bytes=float(pool.footprint.min()),
            proven_gap=self._gap(found),
            latency_cycles=machine.latency_cycles,
            candidates=len(pool),
            refined=settled.rows,
        )

    def _costs(self, designs: np.ndarray, places: list[tuple[int, int]]) -> Cost:
        """Full costs of the winners, in the order of `designs`."""
        machine = self.machine
        if not places:
            return join([])
        parts, members = [], []
        tables, rows = np.array(places).T
        for table in np.unique(tables):
            mine = np.flatnonzero(tables == table)
            at = designs[mine]
            cost = self.settled.tables[table].take(rows[mine]).cost(machine.rates[at], machine.setup_cycles[at])
            cost.time = cost.time + machine.latency_cycles[at]
            cost.first = cost.first + machine.latency_cycles[at]
            parts.append(cost)
            members.append(mine)
        return join(parts).take(np.argsort(np.concatenate(members), kind="stable"))


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each distinct one, number of the distinct one per row)."""
    if len(numbers) == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    _, first, inverse = np.unique(
        np.nan_to_num(numbers, nan=-1.0, posinf=1e300), axis=0, return_index=True, return_inverse=True
    )
    return first, inverse.ravel()


def outer_tiles(
    mapping: LoopNest, problem: Problem, machine: Machine, homes: Mapping[OperandRole, int]
) -> tuple[float, float]:
    """(weight bytes of the very first load, bytes in the outermost memory on chip) of a mapping."""
    made = nest(mapping, problem, machine, dict(homes))
    footprints = footprint_bytes(made, problem, machine)
    level = min(footprints, default=0)
    used = float(sum(float(b[0]) for b in footprints.get(level, {}).values()))
    weight = footprints.get(level, {}).get(WEIGHT)
    if weight is None:
        return 0.0, used
    return float(weight[0]) / (2 if machine.levels[level].double_buffered else 1), used


def dynamic_energy(machine: Machine, problem: Problem, traffic: np.ndarray, designs: np.ndarray) -> np.ndarray:
    """Energy of memories and MACs in J: traffic (n, levels, operands, read/write) on designs (n,)."""
    moved = traffic.sum(axis=2)
    read, write = machine.read_energy_j_per_byte[designs], machine.write_energy_j_per_byte[designs]
    memories = (moved[..., 0] * read + moved[..., 1] * write).sum(axis=1)
    return memories + machine.mac_energy_j[designs] * problem.macs / problem.reduction_speedup


def join(costs: Sequence[Cost]) -> Cost:
    """Costs of single rows as one batch."""
    names = ("time", "port_bytes", "port_moves", "traffic", "array", "spatial", "preload", "setup", "first", "drain")
    if not costs:
        return Cost(*(np.zeros(0) for _ in names))
    return Cost(*(np.concatenate([getattr(c, name) for c in costs]) for name in names))
