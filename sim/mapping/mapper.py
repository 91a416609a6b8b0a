"""The mapper over one border: the best even mapping, for every design of a machine.

Search by a lower bound, decide by the exact recurrence: candidates are costed by
`bound.Candidates.time` in blocks and handed to the exact evaluator, best bound first, until the
next bound passes the best exact value. The result is the optimum over the listed candidates and
all their loop orders, because the bound never exceeds the exact value (a law in the tests).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sim.mapping.bound import CLASSES, Numbers
from sim.mapping.evaluate import Cost, Rows, StepTable, step_table
from sim.mapping.machine import Machine
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import footprint_bytes, nest
from sim.mapping.problem import WEIGHT, Problem
from sim.mapping.search import Choice, Pool, SingleBorder
from sim.workload.graph import OperandRole

CLASS_COUNT = len(CLASSES)
LOOKS = (3, 24, 192, 768)
"""Candidates refined in each round; small problems then go on with all that the bound leaves."""
NEAR = 1e-3
"""Share above the least bound within which the first round looks."""
EXACT_BELOW = 40_000
"""Candidates up to which the search ends only when no bound is left below the best value."""
TOLERANCE = 1e-3
"""Beyond that it ends once the best value is proven to be within this share of the optimum, or after
the last of `LOOKS`; `Winners.proven_gap` says how far the proof reaches."""
AT_ONCE = 8
"""Designs whose bounds are made from one pass over the candidates (memory against speed)."""
SLACK = 1e-9
"""Bounds and recurrences round differently: within this share they count as equal."""


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
    first_weight_bytes: Sequence[float]
    """Per row: the weight part of the very first load."""
    footprint_bytes: Sequence[float]
    """Per row: bytes of the outermost memory on chip, second copies included."""
    need_bytes: float
    proven_gap: float
    """Largest share by which an optimum of the space may be better than the mapping found; 0 where
    proven optimal over the candidates, nan where nothing is proven."""
    latency_cycles: np.ndarray
    """(D,) latency of the home memory that the times hold (0 where nothing is read there)."""
    candidates: int
    refined: int


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


class _Exact:
    """Exact tables of candidates, made once per candidate whatever the number of designs."""

    def __init__(self, space: SingleBorder, pool: Pool) -> None:
        self.space, self.pool = space, pool
        self.tables: list[StepTable] = []
        self.traffic: list[np.ndarray] = []
        self.where: dict[tuple[int, int], list[tuple[int, int, int, Choice]]] = {}
        """(position, innermost class) -> [(table, row, order number, choice)]"""
        self.choice: dict[tuple[int, int], Choice] = {}
        """(table, row) -> choice"""

    def add(self, wanted: Sequence[tuple[int, int]]) -> None:
        fresh = [key for key in wanted if key not in self.where]
        named = [(key, order, choice) for key in fresh for order, choice in enumerate(self.pool.choices(*key))]
        for key in fresh:
            self.where[key] = []
        for members, made in self.space.nests([choice for _, _, choice in named]):
            machine = self.space.machine
            rows = Rows(
                nest=made,
                problem=self.space.problem,
                machine=machine,
                rates=np.ones((len(members), len(machine.ports))),
                setup=np.zeros(len(members)),
                latency=np.zeros(len(members)),
            )
            table = step_table(rows)
            self.tables.append(table)
            self.traffic.append(table.total_traffic())
            for row, member in enumerate(members):
                key, order, choice = named[member]
                self.where[key].append((len(self.tables) - 1, row, order, choice))
                self.choice[len(self.tables) - 1, row] = choice


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
    pool = Pool(space)
    exact = _Exact(space, pool)
    room = machine.capacity_bytes[:, space.route.level]
    if reserved_bytes is not None:
        room = room - reserved_bytes[:, space.route.level]
    search = _Search(space, pool, exact, objective, room)
    return search.run()


class _Search:
    def __init__(self, space: SingleBorder, pool: Pool, exact: _Exact, objective: Objective, room: np.ndarray) -> None:
        self.space, self.pool, self.exact, self.objective, self.room = space, pool, exact, objective, room
        machine = space.machine
        numbers = np.column_stack(
            [
                machine.rates,
                machine.setup_cycles,
                machine.latency_cycles,
                machine.read_energy_j_per_byte,
                machine.write_energy_j_per_byte,
                machine.mac_energy_j,
                room,
            ]
        )
        # Designs that differ in nothing that matters here are mapped once.
        _, self.distinct, self.design = np.unique(
            np.nan_to_num(numbers, nan=-1.0, posinf=1e300), axis=0, return_index=True, return_inverse=True
        )
        self.queues: list[_Queue] = []
        self.best: dict[int, tuple[tuple, tuple[int, int]]] = {}
        """design -> (what decided, (table, row))"""

    def run(self) -> Winners:
        pending = self._queues()
        self.queues = [queue for queue in pending if queue is not None]
        rest = [len(self.pool)] * 2 if len(self.pool) <= EXACT_BELOW else []
        for look in (*LOOKS, *rest):
            pending = [p for p in pending if p is not None]
            if not pending:
                break
            self._round(pending, look)
            pending = [p if p.open(self.best.get(p.design)) else None for p in pending]
        return self._winners()

    def _queues(self) -> list[_Queue | None]:
        """A queue for every distinct design; designs that differ in capacity alone share their bounds."""
        machine = self.space.machine
        clocks = np.column_stack([machine.rates, machine.setup_cycles, machine.latency_cycles])[self.distinct]
        _, first, group = np.unique(np.nan_to_num(clocks, posinf=1e300), axis=0, return_index=True, return_inverse=True)
        queues: list[_Queue | None] = []
        for start in range(0, len(first), AT_ONCE):
            designs = self.distinct[first[start : start + AT_ONCE]]
            numbers = Numbers(machine.rates[designs], machine.setup_cycles[designs], machine.latency_cycles[designs])
            for offset, times in enumerate(self.pool.times(numbers)):
                members = self.distinct[group.ravel() == start + offset]
                queues += [self._queue(int(d), times) for d in members]
        return queues

    def _queue(self, d: int, times: np.ndarray) -> _Queue | None:
        machine = self.space.machine
        value = times.copy()
        if self.objective is not Objective.LATENCY:
            energy = self.pool.energies(machine.read_energy_j_per_byte[d], machine.write_energy_j_per_byte[d])
            energy = energy + float(machine.mac_energy_j[d]) * self.space.problem.macs
            value = energy if self.objective is Objective.ENERGY else energy * times
        if not np.isinf(self.room[d]):
            value = np.where(self.pool.footprint > self.room[d], np.inf, value)
        slack = SLACK if len(value) <= EXACT_BELOW else -TOLERANCE
        return _Queue(d, value, slack) if np.isfinite(value).any() else None

    def _round(self, pending: list[_Queue], look: int) -> None:
        fresh = [(queue, queue.take(look, self.best.get(queue.design))) for queue in pending]
        self._split(fresh)
        wanted = {queue.design: queue.promising(self.best.get(queue.design)) for queue, _ in fresh}
        self.exact.add(sorted({key for keys in wanted.values() for key in keys}))
        work: dict[int, list[tuple[int, int, int, int]]] = {}
        for design, keys in wanted.items():
            for key in keys:
                for table, row, order, _ in self.exact.where[key]:
                    work.setdefault(table, []).append((design, row, key[0], order))
        for table, items in work.items():
            self._compare(table, items)

    def _split(self, fresh: list[tuple[_Queue, np.ndarray]]) -> None:
        """Bounds of the taken tilings per innermost class, all designs at once."""
        counts = [len(positions) for _, positions in fresh]
        if not sum(counts):
            return
        machine = self.space.machine
        designs = np.repeat([queue.design for queue, _ in fresh], counts)
        positions = np.concatenate([taken for _, taken in fresh])
        if self.objective is Objective.LATENCY:
            numbers = Numbers(machine.rates[designs], machine.setup_cycles[designs], machine.latency_cycles[designs])
            bounds = self.pool.class_times(numbers, positions)
        else:  # every order of a tiling may win in energy
            bounds = np.zeros((CLASS_COUNT, len(positions)))
        start = 0
        for (queue, _), count in zip(fresh, counts, strict=True):
            queue.defer(positions[start : start + count], bounds[:, start : start + count])
            start += count

    def _compare(self, number: int, items: list[tuple[int, int, int, int]]) -> None:
        machine, table = self.space.machine, self.exact.tables[number]
        designs = np.array([item[0] for item in items])
        rows = np.array([item[1] for item in items])
        time = (
            table.take(rows).time(machine.rates[designs], machine.setup_cycles[designs])
            + machine.latency_cycles[designs]
        )
        energy = self._energy(self.exact.traffic[number][rows], designs)
        second = np.where(np.isnan(energy), self.exact.traffic[number][rows, 0].sum(axis=(1, 2)), energy)
        value = {Objective.LATENCY: time, Objective.ENERGY: energy, Objective.EDP: energy * time}[self.objective]
        second = time if self.objective is not Objective.LATENCY else second
        for (design, row, position, order), one, two in zip(items, value.tolist(), second.tolist(), strict=True):
            found = self.best.get(design)
            if found is None or one < found[0][0] or (one == found[0][0] and (one, two, position, order) < found[0]):
                self.best[design] = ((one, two, position, order), (number, row))

    def _energy(self, traffic: np.ndarray, designs: np.ndarray) -> np.ndarray:
        return dynamic_energy(self.space.machine, self.space.problem, traffic, designs)

    def _gap(self) -> float:
        """Share by which a candidate that was not refined might still beat the best, over all designs."""
        gaps = [0.0]
        for queue in self.queues:
            found = self.best.get(queue.design)
            if found is not None:
                gaps.append(1.0 - queue.remaining() / found[0][0])
        return max(gaps)

    def _winners(self) -> Winners:
        machine = self.space.machine
        found = [int(d) for d in self.distinct if int(d) in self.best]
        keys = [self.best[d][1] for d in found]
        row_of = {d: row for row, d in enumerate(found)}
        rows = np.array([row_of.get(int(self.distinct[g]), -1) for g in self.design.ravel()])
        cost = self._costs(np.array(found, dtype=int), keys)
        mappings = Lazy(keys, lambda key: self.space.mapping(self.exact.choice[key]))
        outer = Lazy(keys, lambda key: outer_tiles(mappings.make(key), self.space.problem, machine, self.space.homes))
        energy = np.full(len(machine), np.nan)
        fits = rows >= 0
        if found:
            energy[fits] = self._energy(cost.traffic[rows[fits]], np.flatnonzero(fits))
        return Winners(
            row=rows,
            cost=cost,
            tables=Lazy(keys, lambda key: self.exact.tables[key[0]].take(np.array([key[1]]))),
            mappings=mappings,
            energy_j=energy,
            first_weight_bytes=tuple(f for f, _ in outer),
            footprint_bytes=tuple(f for _, f in outer),
            need_bytes=float(self.pool.footprint.min()),
            proven_gap=self._gap(),
            latency_cycles=machine.latency_cycles,
            candidates=len(self.pool),
            refined=sum(len(v) for v in self.exact.where.values()),
        )

    def _costs(self, designs: np.ndarray, keys: list[tuple[int, int]]) -> Cost:
        """Full costs of the winners, in the order of `designs`."""
        machine = self.space.machine
        if not keys:
            return join([])
        parts, places = [], []
        for number in sorted({table for table, _ in keys}):
            members = np.array([i for i, (table, _) in enumerate(keys) if table == number])
            at = designs[members]
            table = self.exact.tables[number].take(np.array([keys[i][1] for i in members]))
            cost = table.cost(machine.rates[at], machine.setup_cycles[at])
            cost.time = cost.time + machine.latency_cycles[at]
            cost.first = cost.first + machine.latency_cycles[at]
            parts.append(cost)
            places.append(members)
        return join(parts).take(np.argsort(np.concatenate(places), kind="stable"))


class _Queue:
    """Candidates of one design, taken best bound first, in rounds."""

    def __init__(self, design: int, bound: np.ndarray, slack: float) -> None:
        """`slack`: share by which a bound may pass the best value and still be looked at."""
        self.design, self.bound, self.slack = design, bound, slack
        self.least = float(bound.min())
        self.waiting = [np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)]
        """[bounds, positions, innermost classes] of tilings that were taken and not refined yet"""
        self.more = True

    def take(self, count: int, best: tuple | None) -> np.ndarray:
        """Positions of the `count` least bounds that may still beat the best value, not taken before."""
        found = np.flatnonzero(self.bound <= self._limit(best))
        self.more = best is None or len(found) > count
        if len(found) > count:
            found = found[np.argpartition(self.bound[found], count - 1)[:count]]
        self.bound[found] = np.inf  # taken
        return found

    def _limit(self, best: tuple | None) -> float:
        return self.least * (1 + NEAR) if best is None else best[0][0] * (1 + self.slack)

    def defer(self, positions: np.ndarray, bounds: np.ndarray) -> None:
        """Tilings whose bounds per innermost class (classes, n) are known: refined when promising."""
        letters, columns = np.nonzero(np.isfinite(bounds))
        fresh = (bounds[letters, columns], positions[columns], letters)
        self.waiting = [np.concatenate(pair) for pair in zip(self.waiting, fresh, strict=True)]

    def promising(self, best: tuple | None) -> list[tuple[int, int]]:
        """(position, innermost class) whose bound may still beat the best value, removed from waiting.

        While nothing is known yet, the most promising classes of each tiling.
        """
        bounds, positions, letters = self.waiting
        if best is None:
            _, place = np.unique(positions, return_inverse=True)
            least = np.full(place.max(initial=-1) + 1, np.inf)
            np.minimum.at(least, place, bounds)
            chosen = bounds <= least[place] * (1 + NEAR)
        else:
            chosen = bounds <= self._limit(best)
        self.waiting = [column[~chosen] for column in self.waiting]
        return sorted(zip(positions[chosen].tolist(), letters[chosen].tolist(), strict=True))

    def remaining(self) -> float:
        """The least bound of what was not refined."""
        return float(min(self.bound.min(), self.waiting[0].min(initial=np.inf)))

    def open(self, best: tuple | None) -> bool:
        """Whether a candidate that was not refined yet could still win."""
        if best is None:
            return self.more or len(self.waiting[0]) > 0
        return self.more or bool((self.waiting[0] <= self._limit(best)).any())


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
