"""One search of the mapper: which candidate is best on each of n designs, all designs in step.

Every candidate has a bound on every design (`bound.Bounds`); those with the least bounds are costed exactly
in rounds, until the next bound passes the best exact value. All that is kept of a design are entries of arrays,
so that a thousand designs take few more array operations than one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from sim.mapping.evaluate import Cost
from sim.mapping.scan import ROUNDING, WIDE, Scan, bands, clocks, corner, together
from sim.mapping.search import Pool, SingleBorder
from sim.mapping.settle import CLASS_COUNT, Costs, Keys, Pairs, Rated, Settled, Tables, Times
from sim.mapping.steps import join
from sim.mapping.terms import Numbers
from sim.mapping.winners import Lazy, Objective, Winners, dynamic_energy

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
IN_CACHE = 60_000
"""Bounds made at a time of the candidates that a band of clocks leaves (clocks x candidates)."""

Ask = Keys | Times | Costs
Found = TypeVar("Found")
Asking = Generator[Ask, Any, Found]
"""Part of a search: yields what it asks, is sent the answers, returns what it found."""


class _Chosen:
    """Entries that each belong to one of some designs: candidates (places in the scan) or keys, and their bounds."""

    def __init__(self, owner: np.ndarray, number: np.ndarray, bound: np.ndarray) -> None:
        self.owner, self.number, self.bound = owner, number, bound

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, some: np.ndarray) -> _Chosen:
        return _Chosen(self.owner[some], self.number[some], self.bound[some])

    @staticmethod
    def none() -> _Chosen:
        return _Chosen(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))

    @staticmethod
    def join(parts: list[_Chosen]) -> _Chosen:
        return _Chosen(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("owner", "number", "bound")))


@dataclass(slots=True)
class _Left:
    """Candidates that may still beat the best of n designs: those of design i are entries `next[i]` to `end[i]`, by
    ascending bound."""

    place: np.ndarray
    bound: np.ndarray
    next: np.ndarray
    end: np.ndarray

    @staticmethod
    def none(designs: int) -> _Left:
        return _Left(np.zeros(0, dtype=np.int64), np.zeros(0), *np.zeros((2, designs), dtype=np.int64))

    def put(self, designs: np.ndarray, chosen: _Chosen) -> None:
        """Give (sorted) designs other candidates."""
        order = np.lexsort((chosen.bound, chosen.owner))
        counts = np.bincount(chosen.owner, minlength=len(self.next))[designs]
        self.end[designs] = len(self.place) + np.cumsum(counts)
        self.next[designs] = self.end[designs] - counts
        self.place = np.concatenate([self.place, chosen.number[order]])
        self.bound = np.concatenate([self.bound, chosen.bound[order]])

    def pull(self, designs: np.ndarray, look: int, limits: np.ndarray) -> _Chosen:
        """Take each design's next candidates, at most `look` and none above its limit."""
        start = self.next[designs]
        entry, owner = _spans(start, np.minimum(self.end[designs] - start, look))
        within = self.bound[entry] <= limits[owner]
        entry, owner = entry[within], owner[within]
        self.next[designs] += np.bincount(owner, minlength=len(designs))
        return _Chosen(designs[owner], self.place[entry], self.bound[entry])

    def least(self, designs: np.ndarray) -> np.ndarray:
        """The bound of each design's next candidate; inf where none is left."""
        found = np.full(len(designs), np.inf)
        some = np.flatnonzero(self.next[designs] < self.end[designs])
        found[some] = self.bound[self.next[designs[some]]]
        return found


class _Best:
    """The best of n designs so far: its rank (value, second value, key, order), and where its row stands."""

    def __init__(self, designs: int) -> None:
        self.value, self.second = np.full((2, designs), np.inf)
        self.key, self.order, self.table, self.row = np.full((4, designs), -1, dtype=np.int64)

    def offer(self, owner: np.ndarray, value: np.ndarray, second: np.ndarray, key: np.ndarray, pairs: Pairs) -> None:
        """Take rows that rank before the best of their designs."""
        ranks = ((value, self.value), (second, self.second), (key, self.key), (pairs.order, self.order))
        order = np.lexsort((*(new for new, _ in reversed(ranks)), owner))
        first = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
        mine = owner[first]
        better, even = np.zeros(len(mine), dtype=bool), np.ones(len(mine), dtype=bool)
        for new, old in ranks:
            better |= even & (new[first] < old[mine])
            even &= new[first] == old[mine]
        for new, old in (*ranks, (pairs.table, self.table), (pairs.row, self.row)):
            old[mine[better]] = new[first[better]]

    def inherit(self, heirs: np.ndarray, of: np.ndarray) -> None:
        """Designs have the best of others."""
        for mine in (self.value, self.second, self.key, self.order, self.table, self.row):
            mine[heirs] = mine[of]


def _spans(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(entries of spans one after the other, number of the span of each)."""
    owner = np.repeat(np.arange(len(start)), count)
    return np.arange(len(owner)) + np.repeat(start - np.cumsum(count) + count, count), owner


class Search:
    """The best candidate of a space on each design of its machine; `room`: bytes (D,) for tiles."""

    def __init__(self, space: SingleBorder, objective: Objective, room: np.ndarray, tables: Tables) -> None:
        self.space, self.objective = space, objective
        self.machine = machine = space.machine
        self.pool = Pool(space)
        self.settled = Settled(self.pool, tables)
        numbers = np.column_stack([machine.rates, machine.setup_cycles, machine.latency_cycles])
        energies = [machine.read_energy_j_per_byte, machine.write_energy_j_per_byte, machine.mac_energy_j]
        if objective is not Objective.LATENCY:
            numbers = np.column_stack([numbers, *energies])
        # Designs that differ in nothing that matters here are mapped once, those without room not at all.
        distinct, self.like = _distinct(np.column_stack([numbers, *energies, room]))
        self.scan = Scan(self.pool, room[distinct])
        fit = self.scan.fits(room[distinct])
        self.design, self.fit, self.room = distinct[fit > 0], fit[fit > 0], room[distinct[fit > 0]]
        self.number = np.where(fit > 0, np.cumsum(fit > 0) - 1, -1)
        self.clock_designs, clock = _distinct(numbers)
        self.clock = clock[self.design]
        first = self.clock_designs
        self.clocks = clocks(machine.rates[first], machine.setup_cycles[first], machine.latency_cycles[first])
        latency = objective is Objective.LATENCY  # energies differ by clock too
        self.bands = bands(self.clocks, WIDE) if latency else [[c] for c in range(len(self.clocks))]
        self.kept: dict[int, np.ndarray] = {}
        small = len(self.pool) <= EXACT_BELOW
        self.slack = SLACK if small else -TOLERANCE
        self.looks = (*LOOKS, len(self.pool)) if small else LOOKS
        self.best, self.left = _Best(len(self.design)), _Left.none(len(self.design))
        self.seen, self.held = _Chosen.none(), _Chosen.none()
        """What the first round took, and the keys that it left for the second."""

    @property
    def bounds(self) -> int:
        """Bounds held at a time."""
        return min(AT_ONCE, len(self.pool) * len(self.bands))

    def run(self) -> Asking[Winners]:
        """The whole search.

        What wins with the most room wins with less if it fits there, so that room is searched first. (Where
        the search stops short of a proof, what it finds depends on its path: each design then goes its own.)
        """
        everyone, best = np.arange(len(self.design)), self.best
        if len(everyone):
            yield from self._first_round(everyone)
        if self.slack < 0:
            yield from self._rounds(everyone)
        else:
            leader = self._leaders()
            yield from self._rounds(everyone[leader == everyone])
            others = everyone[(leader != everyone) & (best.table[leader] >= 0)]  # else nothing has a value
            fits = self.scan.places(best.key[leader[others]] // CLASS_COUNT) < self.fit[others]
            best.inherit(others[fits], leader[others[fits]])
            yield from self._rounds(others[~fits])
        won = yield from self._winners()
        return won

    def _leaders(self) -> np.ndarray:
        """Of each design, the one of its clock with the most room."""
        order = np.lexsort((-self.fit, self.clock))
        _, first, clock = np.unique(self.clock[order], return_index=True, return_inverse=True)
        leader = np.empty_like(order)
        leader[order] = order[first[clock]]
        return leader

    # Bounds ----------------------------------------------------------------------------------------
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

    def _below(self, designs: np.ndarray, limits: np.ndarray | None) -> _Chosen:
        """The candidates of each design whose bound is not above its limit, or (no limits) at most by `NEAR` above its
        least bound."""
        band_of = np.repeat(np.arange(len(self.bands)), [len(band) for band in self.bands])
        band_of = band_of[np.argsort(np.concatenate(self.bands))][self.clock[designs]]
        found = []
        for number in np.flatnonzero(np.bincount(band_of)).tolist():
            mine = np.flatnonzero(band_of == number)
            of = np.unique(self.clock[designs[mine]])
            lower = self._lower(number)
            limit: Any = self._near(number, of, lower) if limits is None else limits[mine].max()
            places = np.flatnonzero(lower <= limit)
            for some, bounds in self._within(number, of, lower, places):
                own = mine[np.isin(self.clock[designs[mine]], some)]
                row = np.searchsorted(some, self.clock[designs[own]])
                found.append(self._chosen(designs[own], row, places, bounds, None if limits is None else limits[own]))
        return _Chosen.join(found) if found else _Chosen.none()

    def _near(self, number: int, of: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Limit of the bounds at a band's fastest corner, per place: above what the best there reaches at any of the
        clocks nothing is near the least bound of one."""
        scan = self.scan
        if len(self.bands[number]) == 1:
            least = scan.least(lower[None])[0]
        else:
            good = scan.best(lower)
            slowest = scan.some(good).time(*corner([self.clocks[c] for c in of], max))
            least = scan.least(slowest[None], good)[0]
        return np.repeat(least * ((1 + NEAR) * (1 + ROUNDING)), np.diff(scan.fitting, prepend=0))

    def _within(
        self, number: int, of: np.ndarray, lower: np.ndarray, places: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(clocks, bounds (clocks, places)) for clocks of a band, some at a time."""
        if len(self.bands[number]) == 1:
            yield of, lower[places][None]
            return
        parts, step = self.scan.some(places), max(1, IN_CACHE // max(1, len(places)))
        for start in range(0, len(of), step):
            some = of[start : start + step]
            yield some, parts.time(*together([self.clocks[c] for c in some]))

    def _chosen(
        self, designs: np.ndarray, row: np.ndarray, places: np.ndarray, bounds: np.ndarray, limits: np.ndarray | None
    ) -> _Chosen:
        """As `_below`, of bounds (rows, places); `row` of each design."""
        if limits is None:
            limits = self.scan.least(bounds, places)[row, self.scan.number(self.room[designs])] * (1 + NEAR)
        most = np.zeros(len(bounds))
        np.maximum.at(most, row, limits)
        at = np.flatnonzero(bounds <= most[:, None])
        value, start = bounds.ravel()[at], np.searchsorted(at, np.arange(len(bounds) + 1) * len(places))
        entry, owner = _spans(start[row], np.diff(start)[row])
        place = places[at[entry] % len(places)] if len(entry) else entry
        mine = (value[entry] <= limits[owner]) & (place < self.fit[designs[owner]])
        return _Chosen(designs[owner[mine]], place[mine], value[entry[mine]])

    # Rounds ----------------------------------------------------------------------------------------
    def _first_round(self, designs: np.ndarray) -> Asking[None]:
        """Refine the most promising candidates."""
        near = self._below(designs, None)
        near = near.take(np.lexsort((near.number, near.bound, near.owner)))
        first = np.searchsorted(near.owner, near.owner)  # (owners are sorted)
        self.seen = near.take(np.flatnonzero(np.arange(len(near)) - first < LOOKS[0]))
        yield from self._refine(self.seen)

    def _rounds(self, designs: np.ndarray) -> Asking[None]:
        """Refine whatever may still win on some designs that know a value."""
        if not len(designs):
            return
        chosen = self._below(designs, self._limit(designs) * (1 + ROUNDING))
        size = len(self.scan.positions)
        old = np.isin(chosen.owner * size + chosen.number, self.seen.owner * size + self.seen.number)
        self.left.put(designs, chosen.take(np.flatnonzero(~old)))
        for look in self.looks[1:]:
            limit = self._limit(designs)
            held = np.zeros(len(self.fit), dtype=bool)
            held[self.held.owner[self.held.bound <= self._limit(self.held.owner)]] = True
            designs = designs[(self.left.least(designs) <= limit * (1 + ROUNDING)) | held[designs]]
            if not len(designs):
                break
            yield from self._refine(self.left.pull(designs, look, self._limit(designs) * (1 + ROUNDING)), designs)

    def _limit(self, designs: np.ndarray) -> np.ndarray:
        """Bounds above this cannot win."""
        return self.best.value[designs] * (1 + self.slack)

    def _refine(self, chosen: _Chosen, held_by: np.ndarray | None = None) -> Asking[None]:
        """Cost candidates, and the keys that these designs hold. The first time (nobody holds any) the most promising
        innermost classes of each candidate, and the others are held."""
        keys, tiling = self._classes(chosen)
        if held_by is None:
            least = np.full(len(chosen), np.inf)
            np.minimum.at(least, tiling, keys.bound)
            now = keys.bound <= least[tiling] * (1 + NEAR)
            self.held = keys.take(np.flatnonzero(~now))
        else:
            theirs = np.isin(self.held.owner, held_by)
            keys = _Chosen.join([keys, self.held.take(np.flatnonzero(theirs))])
            self.held = self.held.take(np.flatnonzero(~theirs))
            now = keys.bound <= self._limit(keys.owner)
        keys = keys.take(np.flatnonzero(now))
        if len(keys):
            yield Keys(np.unique(keys.number))
            yield from self._compare(keys.owner, keys.number)

    def _classes(self, chosen: _Chosen) -> tuple[_Chosen, np.ndarray]:
        """(a key per innermost class of candidates, number of the candidate)."""
        machine, designs, positions = self.machine, self.design[chosen.owner], self.scan.positions[chosen.number]
        numbers = Numbers(machine.rates[designs], machine.setup_cycles[designs], machine.latency_cycles[designs])
        bounds = self.pool.class_times(numbers, positions)
        if self.objective is not Objective.LATENCY:  # every order of a tiling may win in energy
            bounds = np.where(np.isfinite(bounds), chosen.bound[None, :] * (1 - ROUNDING), np.inf)
        letters, tiling = np.nonzero(np.isfinite(bounds))
        return _Chosen(chosen.owner[tiling], positions[tiling] * CLASS_COUNT + letters, bounds[letters, tiling]), tiling

    def _compare(self, owner: np.ndarray, keys: np.ndarray) -> Asking[None]:
        """Cost the rows of keys, each on the design that owns it, and keep each design's best."""
        pairs = self.settled.pairs(keys)
        if not len(pairs.key):
            return
        owner = owner[pairs.key]
        cycles = yield from self._times(pairs, self.clock[owner])
        designs = self.design[owner]
        time = value = cycles + self.machine.latency_cycles[designs]
        if self.objective is not Objective.LATENCY:
            energy = self._energy(pairs, designs)
            value = energy if self.objective is Objective.ENERGY else energy * time
        least = self.best.value.copy()
        np.minimum.at(least, owner, value)
        even = np.flatnonzero(value == least[owner])
        some = pairs.take(even)
        second = self._second(some, designs[even], time[even])
        self.best.offer(owner[even], value[even], second, keys[some.key], some)

    def _times(self, pairs: Pairs, clocks: np.ndarray) -> Asking[np.ndarray]:
        """Cycles of pairs; designs that differ in their room alone are costed once."""
        if len(self.design) == 1:
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

    # The answer ------------------------------------------------------------------------------------
    def _gap(self) -> float:
        """Share by which a candidate that was not refined might still beat the best, over all designs."""
        some = np.flatnonzero((self.left.next < self.left.end) & (self.best.table >= 0))
        gaps = 1.0 - self.left.least(some) / self.best.value[some]
        return float(gaps.max(initial=0.0 if self.slack > 0 else TOLERANCE))

    def _winners(self) -> Asking[Winners]:
        machine, pool, settled, best = self.machine, self.pool, self.settled, self.best
        known = np.flatnonzero(best.table >= 0)
        row_of = np.full(len(best.table) + 1, -1)
        row_of[known] = np.arange(len(known))
        rows = row_of[self.number[self.like]]
        cost = yield from self._costs(known)
        energy = np.full(len(machine), np.nan)
        fits = np.flatnonzero(rows >= 0)
        energy[fits] = dynamic_energy(machine, self.space.problem, cost.traffic[rows[fits]], fits) if len(fits) else ()
        positions = best.key[known] // CLASS_COUNT
        places = list(zip(best.table[known].tolist(), best.row[known].tolist(), strict=True))
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
            proven_gap=self._gap(),
            latency_cycles=machine.latency_cycles,
            candidates=len(pool),
            refined=settled.rows,
        )

    def _costs(self, known: np.ndarray) -> Asking[Cost]:
        """Full costs of the winners of some designs."""
        if not len(known):
            return join([])
        designs = self.design[known]
        cost: Cost = yield Costs(self._rated(self.best.table[known], self.best.row[known], designs))
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


__all__ = ["AT_ONCE", "Ask", "Asking", "Search"]
