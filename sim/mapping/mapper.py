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

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from sim.mapping.evaluate import Cost
from sim.mapping.machine import Machine
from sim.mapping.problem import Problem
from sim.mapping.scan import NARROW, ROUNDING, WIDE, Scan, bands, clocks, corner, together
from sim.mapping.search import Pool, SingleBorder
from sim.mapping.settle import CLASS_COUNT, Costs, Keys, Pairs, Rated, Settled, Tables, Times
from sim.mapping.steps import join
from sim.mapping.terms import Numbers, Parts
from sim.mapping.winners import Lazy, Objective, Winners, dynamic_energy
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
    asked = Question(problem, machine, homes, objective, reserved_bytes, fixed)
    return next(map_problems([asked]))


@dataclass(frozen=True, slots=True)
class Question:
    """What `map_problem` is asked."""

    problem: Problem
    machine: Machine
    homes: Mapping[OperandRole, int]
    objective: Objective = Objective.LATENCY
    reserved_bytes: np.ndarray | None = None
    fixed: bool = False

    def search(self, tables: Tables) -> _Search:
        machine = self.machine.awake(self.homes)
        space = SingleBorder(self.problem, machine, self.homes, self.fixed)
        room = machine.capacity_bytes[:, space.route.level]
        if self.reserved_bytes is not None:
            room = room - self.reserved_bytes[:, space.route.level]
        return _Search(space, self.objective, room, tables)


def map_problems(asked: Iterable[Question]) -> Iterator[Winners]:
    """As `map_problem` for many, in order: searches go in step, so that what they refine is costed together."""
    tables, running = Tables(), []
    for question in asked:
        search = question.search(tables)
        run = search.run()
        running.append((search, run, _sent(run)))  # begun at once, while its numbers are in the cache
        if sum(search.bounds for search, _, _ in running) > AT_ONCE:
            yield from _in_step(tables, running)
            tables, running = Tables(), []
    yield from _in_step(tables, running)


def _in_step(tables: Tables, running: Sequence[tuple[_Search, Asking[Winners], Ask | Winners]]) -> list[Winners]:
    """The winners of searches that ask for rows, times and costs together."""
    asks = dict(enumerate(ask for _, _, ask in running))
    won: dict[int, Winners] = {}
    while asks:
        won |= {number: ask for number, ask in asks.items() if isinstance(ask, Winners)}
        answers: dict[int, Any] = {number: None for number, ask in asks.items() if isinstance(ask, Keys)}
        tables.add((running[number][0].settled, ask.keys) for number, ask in asks.items() if isinstance(ask, Keys))
        for kind, answer_all in ((Times, tables.times), (Costs, tables.costs)):
            alike = {number: ask.rows for number, ask in asks.items() if isinstance(ask, kind)}
            answers |= zip(alike, answer_all(list(alike.values())), strict=True)
        asks = {number: _sent(running[number][1], answer) for number, answer in answers.items()}
    tables.groups.clear()  # they know their searches: candidates would live until the garbage collector comes by
    return [won[number] for number in range(len(running))]


def _sent(run: Asking[Winners], answer: Any = None) -> Ask | Winners:
    """What a search asks next, or found."""
    try:
        return run.send(answer)
    except StopIteration as end:
        found: Winners = end.value
        return found


_Bounded = tuple[int, np.ndarray, np.ndarray]
LimitOf = Callable[[Sequence[int], np.ndarray | None, Callable[[], np.ndarray]], np.ndarray | float]


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


Ask = Keys | Times | Costs
Found = TypeVar("Found")
Asking = Generator[Ask, Any, Found]
"""Part of a search: yields what it asks, is sent the answers, returns what it found."""


class _Search:
    def __init__(self, space: SingleBorder, objective: Objective, room: np.ndarray, tables: Tables) -> None:
        self.space, self.objective, self.room = space, objective, room
        self.machine = machine = space.machine
        self.pool = Pool(space)
        self.settled = Settled(self.pool, tables)
        numbers = np.column_stack([machine.rates, machine.setup_cycles, machine.latency_cycles])
        energies = [machine.read_energy_j_per_byte, machine.write_energy_j_per_byte, machine.mac_energy_j]
        if objective is not Objective.LATENCY:
            numbers = np.column_stack([numbers, *energies])
        # Designs that differ in nothing that matters here are mapped once.
        self.distinct, self.design = _distinct(np.column_stack([numbers, *energies, room]))
        self.clock_designs, self.clock = _distinct(numbers)
        first = self.clock_designs
        self.clocks = clocks(machine.rates[first], machine.setup_cycles[first], machine.latency_cycles[first])
        latency = objective is Objective.LATENCY  # energies differ by clock too
        self.bands = bands(self.clocks, WIDE) if latency else [[c] for c in range(len(self.clocks))]
        small = len(self.pool) <= EXACT_BELOW
        self.kept: dict[int, np.ndarray] = {}
        self.slack = SLACK if small else -TOLERANCE
        self.looks = (*LOOKS, len(self.pool)) if small else LOOKS

    @property
    def bounds(self) -> int:
        """Bounds held at a time."""
        return min(AT_ONCE, len(self.pool) * len(self.bands))

    def run(self) -> Asking[Winners]:
        """The whole search."""
        self.scan = Scan(self.pool, self.room[self.distinct])
        found = yield from self._search()
        won = yield from self._winners(found)
        return won

    def _lower(self, number: int) -> np.ndarray:
        """Bounds of the objective at the fastest corner of a band, kept as long as there is room."""
        if number in self.kept:
            return self.kept[number]
        lower = self._bounds(self.bands[number])
        if (len(self.kept) + 1) * len(lower) <= AT_ONCE:
            self.kept[number] = lower
        return lower

    def _bounds(self, band: list[int]) -> np.ndarray:
        times = self.scan.everywhere(corner([self.clocks[c] for c in band], min))
        if self.objective is Objective.LATENCY:
            return times
        machine, d, problem = self.machine, int(self.clock_designs[band[0]]), self.space.problem
        energy = self.pool.energies(machine.read_energy_j_per_byte[d], machine.write_energy_j_per_byte[d])
        energy = energy + float(machine.mac_energy_j[d]) * problem.macs / problem.reduction_speedup
        return self.scan.of(energy) if self.objective is Objective.ENERGY else self.scan.of(energy) * times

    def _values(self, number: int, present: Sequence[int], limit_of: LimitOf) -> Iterator[_Bounded]:
        """(clock, places in the scan, bounds of the objective) for clocks of a band, of the candidates that are not
        above a limit at the fastest corner of clocks still nearer to each other.

        limit_of: clocks of the band, places, what their bounds are at clocks' slowest corner.
        """
        lower, scan = self._lower(number), self.scan
        alone = len(self.bands[number]) == 1

        def upper(of: Parts, clocks: Sequence[int]) -> np.ndarray:
            return of.time(*corner([self.clocks[c] for c in clocks], max))

        limit = limit_of(present, None, lambda: lower if alone else upper(scan.parts, present))
        places = np.flatnonzero(lower <= limit)
        if alone:
            yield present[0], places, lower[places]
            return
        parts = scan.some(places)
        for near in bands([self.clocks[c] for c in present], NARROW):
            clocks = [present[n] for n in near]
            least = parts.time(*corner([self.clocks[c] for c in clocks], min))
            few = np.flatnonzero(least <= limit_of(clocks, places, partial(upper, parts, clocks)))
            bounds = parts.take(few).time(*together([self.clocks[c] for c in clocks]))
            yield from ((clock, places[few], own) for clock, own in zip(clocks, bounds, strict=True))

    def _search(self) -> Asking[dict[int, _Queue]]:
        """The best of each design; designs where nothing fits are left out.

        What wins with the most room wins with less if it fits there, so that room is searched first. (Where
        the search stops short of a proof, what it finds depends on its path: each design then goes its own.)
        """
        scan = self.scan
        fits = self.fits = {int(d): scan.fits(self.room[d]) for d in self.distinct}
        by_clock: dict[int, list[int]] = {}
        for d in sorted(fits, key=lambda d: -fits[d]):
            if fits[d]:
                by_clock.setdefault(int(self.clock[d]), []).append(d)
        queues = self._start(by_clock)
        everyone = [queue for some in queues for queue in some]
        yield from self._round(everyone, LOOKS[0])
        if self.slack < 0:
            yield from self._rounds(queues)
        else:
            yield from self._rounds([some[:1] for some in queues])
            queues = [some for some in queues if some[0].place[0] >= 0]  # else nothing has a value, in less room too
            places = scan.places([some[0].rank[2] // CLASS_COUNT for some in queues])
            left = []
            for some, place in zip(queues, places, strict=True):
                for queue in some[1:]:
                    if place < fits[queue.design]:
                        queue.rank, queue.place = some[0].rank, some[0].place
                        queue.positions = queue.bounds = queue.bounds[:0]
                left.append([queue for queue in some[1:] if place >= fits[queue.design]])
            yield from self._rounds(left)
        return {queue.design: queue for queue in everyone if queue.place[0] >= 0}

    def _rounds(self, queues: list[list[_Queue]]) -> Asking[None]:
        """Finish queues, given per clock, in rounds that they share."""
        self._fill({some[0].clock: some for some in queues if some})
        waiting = [queue for some in queues for queue in some]
        for look in self.looks[1:]:
            waiting = [queue for queue in waiting if self._open(queue)]
            if not waiting:
                break
            yield from self._round(waiting, look)

    def _start(self, by_clock: Mapping[int, list[int]]) -> list[list[_Queue]]:
        """Queues of designs, given per clock by falling room, with their least bounds."""

        def limit_of(clocks: Sequence[int], places: np.ndarray | None, upper: Callable[[], np.ndarray]) -> np.ndarray:
            return self.scan.least(upper(), places) * ((1 + NEAR) * (1 + ROUNDING))

        queues = []
        for number, band in enumerate(self.bands):
            present = [clock for clock in band if clock in by_clock]
            if present:
                values = self._values(number, present, limit_of)
                queues += [self._first(clock, by_clock[clock], places, own) for clock, places, own in values]
        return queues

    def _first(self, clock: int, designs: list[int], places: np.ndarray, bounds: np.ndarray) -> list[_Queue]:
        """Queues of the designs of one clock."""
        fits = np.searchsorted(places, [self.fits[d] for d in designs])
        least = [float(bounds[:fit].min()) * (1 + NEAR) for fit in fits]
        near = np.flatnonzero(bounds[: fits[0]] <= max(least))
        value = bounds[near]
        queues = []
        for d, fit, limit in zip(designs, fits, least, strict=True):
            mine = near[(value <= limit) & (near < fit)]
            if len(mine) > LOOKS[0]:
                mine = mine[np.argsort(bounds[mine], kind="stable")[: LOOKS[0]]]
            taken = places[mine]
            queues.append(_Queue(d, clock, self.scan.positions[taken], bounds[mine], taken=taken))
        return queues

    def _fill(self, queues: Mapping[int, list[_Queue]]) -> None:
        """What is left for queues, given per clock, once they know a value."""
        limits = {clock: [self._limit(queue) * (1 + ROUNDING) for queue in some] for clock, some in queues.items()}

        def most(clock: int) -> float:
            return max(limits[clock])

        for number, band in enumerate(self.bands):
            present = [clock for clock in band if clock in queues]
            if present:
                for clock, places, bounds in self._values(number, present, lambda own, *_: max(map(most, own))):
                    self._fill_clock(queues[clock], limits[clock], places, bounds)

    def _fill_clock(self, queues: list[_Queue], limits: list[float], places: np.ndarray, bounds: np.ndarray) -> None:
        left = np.flatnonzero(bounds <= max(limits))
        value = bounds[left]
        order = np.argsort(value, kind="stable")
        left, value = places[left[order]], value[order]
        for queue, limit in zip(queues, limits, strict=True):
            mine = (value <= limit) & (left < self.fits[queue.design])
            for one in queue.taken:
                mine &= left != one
            queue.positions, queue.bounds, queue.next = self.scan.positions[left[mine]], value[mine], 0

    def _limit(self, queue: _Queue) -> float:
        """Bounds above this cannot win."""
        return queue.rank[0] * (1 + self.slack)

    def _open(self, queue: _Queue) -> bool:
        """Whether a candidate that was not refined yet could still win."""
        limit = self._limit(queue)
        if queue.next < len(queue.bounds) and queue.bounds[queue.next] <= limit * (1 + ROUNDING):
            return True
        return bool((queue.held[1] <= limit).any())

    def _round(self, queues: list[_Queue], look: int) -> Asking[None]:
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
            yield Keys(np.unique(keys))
            yield from self._compare(queues, keys[order], owner[order])

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

    def _compare(self, queues: list[_Queue], keys: np.ndarray, owner: np.ndarray) -> Asking[None]:
        """Cost the rows of keys, each on the design of its queue, and keep each queue's best."""
        pairs = self.settled.pairs(keys)
        if not len(pairs.key):
            return
        owner = owner[pairs.key]
        designs = np.array([queue.design for queue in queues])[owner]
        clocks = np.array([queue.clock for queue in queues])[owner]
        cycles = yield from self._times(pairs, clocks)
        time = cycles + self.machine.latency_cycles[designs]
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

    def _times(self, pairs: Pairs, clocks: np.ndarray) -> Asking[np.ndarray]:
        """Cycles of pairs; designs that differ in their room alone are costed once."""
        if len(self.distinct) == 1:
            times: np.ndarray = yield Times(self._rated(pairs.table, pairs.row, self.clock_designs[clocks]))
            return times
        number, rows = self.settled.number(pairs)
        _, first, inverse = np.unique(clocks * rows + number, return_index=True, return_inverse=True)
        some = pairs.take(first)
        times = yield Times(self._rated(some.table, some.row, self.clock_designs[clocks[first]]))
        return times[inverse]

    def _rated(self, table: np.ndarray, row: np.ndarray, designs: np.ndarray) -> Rated:
        return Rated(table, row, self.machine.rates[designs], self.machine.setup_cycles[designs])

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

    def _winners(self, found: dict[int, _Queue]) -> Asking[Winners]:
        machine, pool, settled = self.machine, self.pool, self.settled
        designs = np.array(sorted(found), dtype=np.int64)
        queues = [found[int(d)] for d in designs]
        places = [queue.place for queue in queues]
        row_of = {int(d): row for row, d in enumerate(designs)}
        rows = np.array([row_of.get(int(self.distinct[g]), -1) for g in self.design])
        cost = yield from self._costs(designs, places)
        energy = np.full(len(machine), np.nan)
        fits = np.flatnonzero(rows >= 0)
        energy[fits] = dynamic_energy(machine, self.space.problem, cost.traffic[rows[fits]], fits) if len(fits) else ()
        positions = np.array([queue.rank[2] // CLASS_COUNT for queue in queues], dtype=np.int64)
        # Winners hold neither candidates nor the search: a network has a hundred of them.
        space, tables = self.space, settled.tables
        steps = {place: tables.made[place[0]].take(np.array([place[1]])) for place in set(places)}
        choices = {place: tables.choice(*place) for place in steps}
        return Winners(
            row=rows,
            cost=cost,
            tables=tuple(steps[place] for place in places),
            mappings=Lazy(places, lambda place: space.mapping(choices[place])),
            energy_j=energy,
            first_weight_bytes=pool.weight_tile_bytes(positions),
            footprint_bytes=pool.footprint[positions],
            need_bytes=float(pool.footprint.min()),
            proven_gap=self._gap(found),
            latency_cycles=machine.latency_cycles,
            candidates=len(pool),
            refined=settled.rows,
        )

    def _costs(self, designs: np.ndarray, places: list[tuple[int, int]]) -> Asking[Cost]:
        """Full costs of the winners, in the order of `designs`."""
        if not places:
            return join([])
        table, row = np.array(places).T
        cost: Cost = yield Costs(self._rated(table, row, designs))
        cost.time = cost.time + self.machine.latency_cycles[designs]
        cost.first = cost.first + self.machine.latency_cycles[designs]
        return cost


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each distinct one, number of the distinct one per row)."""
    if len(numbers) == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    _, first, inverse = np.unique(
        np.nan_to_num(numbers, nan=-1.0, posinf=1e300), axis=0, return_index=True, return_inverse=True
    )
    return first, inverse.ravel()
