"""One search of the mapper: the best candidate of several problems on each of their designs, all in step.

Every candidate has a bound on every design (`bound.Bounds`); those with the least bounds are costed exactly
in rounds, until the next bound passes the best exact value. All that is kept of a design are entries of arrays,
so that a thousand designs, or the layers of a network, take few more array operations than one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sim.mapping.evaluate import Cost
from sim.mapping.machine import Machine
from sim.mapping.scan import ROUNDING, WIDE, Scan, bands, clocks, corner, together
from sim.mapping.search import Pool, SingleBorder
from sim.mapping.settle import CLASS_COUNT, Kept, Pairs, Rated, Settled
from sim.mapping.steps import join
from sim.mapping.terms import Numbers
from sim.mapping.winners import Lazy, Objective, Winners, dynamic_energy, energy_of, valued
from sim.ordered import among, ascending

LOOKS = (24, 96, 768)
"""Candidates refined in each round; small problems then go on with all that the bound leaves."""
NEAR = 1e-2
"""Share above the least bound within which the first round looks."""
EXACT_BELOW = 40_000
"""Candidates up to which the search ends only when no bound is left below the best value."""
TOLERANCE = 1e-3
"""Beyond that it ends once the best value is proven to be within this share of the optimum, or after
the last of `LOOKS`; `Winners.proven_gap` says how far the proof reaches."""
SLACK = 1e-9
"""Bounds and recurrences round differently: within this share they count as equal."""
AT_ONCE = 8_000_000
"""Bounds kept for later (bands of clocks x candidates)."""
IN_CACHE = 60_000
"""Bounds made at a time of the candidates that a band of clocks leaves (clocks x candidates)."""


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
    """The best candidates of spaces of one kind (`SingleBorder.kind`), on each design of their machines.

    `rooms`: per space, bytes (D,) for tiles. Designs of all spaces are numbered through.
    """

    def __init__(self, spaces: Sequence[SingleBorder], objective: Objective, rooms: Sequence[np.ndarray]) -> None:
        self.spaces, self.objective = spaces, objective
        self.machine = machine = Machine.together([space.machine for space in spaces])
        self.pool = Pool(*spaces)
        self.settled = Settled(self.pool)
        space, room = np.repeat(np.arange(len(spaces)), list(map(len, rooms))), np.concatenate(rooms)
        numbers = np.column_stack([machine.rates, machine.setup_cycles, machine.latency_cycles])
        energies = [
            machine.read_energy_j_per_byte,
            machine.write_energy_j_per_byte,
            machine.mac_energy_j,
            machine.idle_j_per_cycle,
        ]
        if objective is not Objective.LATENCY:
            numbers = np.column_stack([numbers, *energies])
        # Designs that differ in nothing that matters here are mapped once, those without room not at all.
        distinct, self.like = _distinct(np.column_stack([space, numbers, *energies, room]))
        self.scan = Scan(self.pool, space[distinct], room[distinct])
        first, fit = self.scan.space_starts[space[distinct]], self.scan.ends[self.scan.cell]
        some = np.flatnonzero(fit > first)
        self.number = np.full(len(distinct), -1)
        self.number[some] = np.arange(len(some))
        self.design, self.cell, self.first, self.fit = distinct[some], self.scan.cell[some], first[some], fit[some]
        """Per number: row of the machine, cell of the scan, the candidates that fit (from, up to)."""
        self.space = space[self.design]
        self.clock_designs, clock = _distinct(numbers)
        self.clock = clock[self.design]
        of = self.clock_designs
        self.clocks = clocks(machine.rates[of], machine.setup_cycles[of], machine.latency_cycles[of])
        latency = objective is Objective.LATENCY  # energies differ by clock too
        self.bands = bands(self.clocks, WIDE) if latency else [[c] for c in range(len(self.clocks))]
        self.kept: dict[int, np.ndarray] = {}
        self.listed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        """Per band: the limits of a look at its bounds, and the candidates below them."""
        self.small = (np.diff(self.pool.space_starts) <= EXACT_BELOW)[self.space]
        self.best, self.left = _Best(len(self.design)), _Left.none(len(self.design))
        self.seen, self.held = _Chosen.none(), _Chosen.none()
        """What the first round took, and the keys that it left for the second."""

    def run(self) -> list[Winners]:
        """The whole search; winners of each space.

        What wins with the most room wins with less if it fits there, so that room is searched first. (Where
        the search stops short of a proof, what it finds depends on its path: each design then goes its own.)
        """
        everyone, best = np.arange(len(self.design)), self.best
        if len(everyone):
            self._first_round(everyone)
        leader = self._leaders()
        self._rounds(everyone[leader == everyone])
        others = everyone[(leader != everyone) & (best.table[leader] >= 0)]  # else nothing has a value
        if len(others):
            fits = self.scan.places(best.key[leader[others]] // CLASS_COUNT) < self.fit[others]
            best.inherit(others[fits], leader[others[fits]])
            self._rounds(others[~fits])
        return self._winners()

    def _leaders(self) -> np.ndarray:
        """Of each design, the one of its space and clock with the most room; itself in large spaces."""
        order = np.lexsort((-self.fit, self.clock, self.space))
        alike = self.space[order] * len(self.clocks) + self.clock[order]
        first = np.searchsorted(alike, alike)
        leader = np.empty_like(order)
        leader[order] = order[first]
        return np.where(self.small, leader, np.arange(len(leader)))

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
        machine, d = self.machine, int(self.clock_designs[band[0]])
        problems = [space.problem for space in self.spaces]
        macs = np.array([float(machine.mac_energy_j[d]) * p.macs / p.reduction_speedup for p in problems])
        energy = self.pool.energies(machine.read_energy_j_per_byte[d], machine.write_energy_j_per_byte[d])
        energy = energy + np.repeat(macs, np.diff(self.pool.space_starts))
        return valued(self.objective, times, self.scan.of(energy), float(machine.idle_j_per_cycle[d]))

    def _below(self, designs: np.ndarray, limits: np.ndarray | None) -> _Chosen:
        """The candidates of each design whose bound is not above its limit, or (no limits) at most by `NEAR` above its
        least bound."""
        band_of = np.empty(len(self.clocks), dtype=np.int64)
        for number, band in enumerate(self.bands):
            band_of[band] = number
        found = []
        for number in np.flatnonzero(np.bincount(band_of[self.clock[designs]])).tolist():
            mine = np.flatnonzero(band_of[self.clock[designs]] == number)
            of, row = np.unique(self.clock[designs[mine]], return_inverse=True)
            within = self._near(number, of) if limits is None else self._most(designs[mine], limits[mine])
            places = self._places(number, within)
            for start, bounds in self._within(number, of, places):
                own = np.flatnonzero((row >= start) & (row < start + len(bounds)))
                limits_now = None if limits is None else limits[mine[own]]
                found.append(self._chosen(designs[mine[own]], row[own] - start, places, bounds, limits_now))
        return _Chosen.join(found) if found else _Chosen.none()

    def _most(self, designs: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """(cells,) the largest limit of the designs of each space."""
        most = np.zeros(len(self.spaces))
        np.maximum.at(most, self.space[designs], limits)
        return np.repeat(most, self.scan.shape[1])

    def _near(self, number: int, of: np.ndarray) -> np.ndarray:
        """Limit of the bounds at a band's fastest corner, (cells,): above what the best there reaches at any of the
        clocks nothing is near the least bound of one."""
        scan, lower = self.scan, self._lower(number)
        if len(self.bands[number]) == 1:
            least = scan.least(lower[None])[0]
        else:
            good = scan.best(lower)
            slowest = scan.some(good).time(*corner([self.clocks[c] for c in of], max))
            least = scan.least(slowest[None], good)[0]
        return least * ((1 + NEAR) * (1 + ROUNDING))

    def _places(self, number: int, limit: np.ndarray) -> np.ndarray:
        """Candidates whose bound at a band's fastest corner is not above the limit of their cell, (cells,)."""
        wider, places = self.listed.get(number, (limit, None))
        if places is None or (limit > wider).any():  # else what was found below wider limits has them all
            places = np.flatnonzero(self._lower(number) <= self.scan.by_cell(limit))
            self.listed[number] = (limit, places)
        return places

    def _within(self, number: int, of: np.ndarray, places: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(first, bounds (clocks, places)) for clocks of a band, some at a time."""
        if len(self.bands[number]) == 1:
            yield 0, self._lower(number)[places][None]
            return
        parts, step = self.scan.some(places), max(1, IN_CACHE // max(1, len(places)))
        for start in range(0, len(of), step):
            yield start, parts.time(*together([self.clocks[c] for c in of[start : start + step]]))

    def _chosen(
        self, designs: np.ndarray, row: np.ndarray, places: np.ndarray, bounds: np.ndarray, limits: np.ndarray | None
    ) -> _Chosen:
        """As `_below`, of bounds (rows, places); `row` of each design."""
        if limits is None:
            limits = self.scan.least(bounds, places)[row, self.cell[designs]] * (1 + NEAR)
        most = np.zeros((len(bounds), len(self.spaces)))
        np.maximum.at(most, (row, self.space[designs]), limits)
        of_space = np.diff(np.searchsorted(places, self.scan.space_starts))
        at = np.flatnonzero(bounds <= np.repeat(most, of_space, axis=1))
        start, end = (
            np.searchsorted(at, row * len(places) + np.searchsorted(places, edge[designs]))
            for edge in (self.first, self.fit)
        )
        entry, owner = _spans(start, end - start)
        value = bounds.ravel()[at[entry]]
        mine = value <= limits[owner]
        entry, owner = entry[mine], owner[mine]
        return _Chosen(designs[owner], places[at[entry] % len(places)] if len(entry) else entry, value[mine])

    # Rounds ----------------------------------------------------------------------------------------
    def _first_round(self, designs: np.ndarray) -> None:
        """Refine the most promising candidates."""
        near = self._below(designs, None)
        near = near.take(np.lexsort((near.number, near.bound, near.owner)))
        first = np.searchsorted(near.owner, near.owner)  # (owners are sorted)
        self.seen = near.take(np.flatnonzero(np.arange(len(near)) - first < LOOKS[0]))
        self._refine(self.seen)

    def _rounds(self, designs: np.ndarray) -> None:
        """Refine whatever may still win on some designs that know a value."""
        if not len(designs):
            return
        chosen = self._below(designs, self._limit(designs) * (1 + ROUNDING))
        size = len(self.scan.positions)
        old = among(chosen.owner * size + chosen.number, np.sort(self.seen.owner * size + self.seen.number))
        self.left.put(designs, chosen.take(np.flatnonzero(~old)))
        for look in (*LOOKS[1:], len(self.pool)):
            held = np.zeros(len(self.fit), dtype=bool)
            held[self.held.owner[self.held.bound <= self._limit(self.held.owner)]] = True
            within = self.left.least(designs) <= self._limit(designs) * (1 + ROUNDING)
            designs = designs[(within | held[designs]) & (self.small[designs] | (look < len(self.pool)))]
            if not len(designs):
                break
            self._refine(self.left.pull(designs, look, self._limit(designs) * (1 + ROUNDING)), designs)

    def _limit(self, designs: np.ndarray) -> np.ndarray:
        """Bounds above this cannot win."""
        return self.best.value[designs] * (1 + np.where(self.small[designs], SLACK, -TOLERANCE))

    def _refine(self, chosen: _Chosen, held_by: np.ndarray | None = None) -> None:
        """Cost candidates, and the keys that these designs hold. The first time (nobody holds any) the most promising
        innermost classes of each candidate, and the others are held."""
        keys, tiling = self._classes(chosen)
        if held_by is None:
            least = np.full(len(chosen), np.inf)
            np.minimum.at(least, tiling, keys.bound)
            now = keys.bound <= least[tiling] * (1 + NEAR)
            self.held = keys.take(np.flatnonzero(~now))
        else:
            theirs = among(self.held.owner, held_by)
            keys = _Chosen.join([keys, self.held.take(np.flatnonzero(theirs))])
            self.held = self.held.take(np.flatnonzero(~theirs))
            now = keys.bound <= self._limit(keys.owner)
        keys = keys.take(np.flatnonzero(now))
        if len(keys):
            self.settled.add(ascending(keys.number))
            self._compare(keys.owner, keys.number)

    def _classes(self, chosen: _Chosen) -> tuple[_Chosen, np.ndarray]:
        """(a key per innermost class of candidates, number of the candidate)."""
        machine, designs, positions = self.machine, self.design[chosen.owner], self.scan.positions[chosen.number]
        numbers = Numbers(machine.rates[designs], machine.setup_cycles[designs], machine.latency_cycles[designs])
        bounds = self.pool.class_times(numbers, positions)
        if self.objective is not Objective.LATENCY:  # every order of a tiling may win in energy
            bounds = np.where(np.isfinite(bounds), chosen.bound[None, :] * (1 - ROUNDING), np.inf)
        letters, tiling = np.nonzero(np.isfinite(bounds))
        return _Chosen(chosen.owner[tiling], positions[tiling] * CLASS_COUNT + letters, bounds[letters, tiling]), tiling

    def _compare(self, owner: np.ndarray, keys: np.ndarray) -> None:
        """Cost the rows of keys, each on the design that owns it, and keep each design's best."""
        pairs = self.settled.pairs(keys)
        if not len(pairs.key):
            return
        owner = owner[pairs.key]
        designs = self.design[owner]
        time = value = self._times(pairs, self.clock[owner]) + self.machine.latency_cycles[designs]
        if self.objective is not Objective.LATENCY:
            energy = self._energy(self.settled.traffic(pairs), owner)
            value = valued(self.objective, time, energy, self.machine.idle_j_per_cycle[designs])
        least = self.best.value.copy()
        np.minimum.at(least, owner, value)
        even = np.flatnonzero(value == least[owner])
        some = pairs.take(even)
        self.best.offer(owner[even], value[even], self._second(some, owner[even], time[even]), keys[some.key], some)

    def _times(self, pairs: Pairs, clocks: np.ndarray) -> np.ndarray:
        """Cycles of pairs; designs that differ in their room alone are costed once."""
        if len(self.clocks) == len(self.design) or len(self.clocks) == 1 == self.scan.shape[1]:
            return self.settled.times(self._rated(pairs.table, pairs.row, self.clock_designs[clocks]))
        number, rows = self.settled.number(pairs)
        _, first, inverse = np.unique(clocks * rows + number, return_index=True, return_inverse=True)
        some = pairs.take(first)
        return self.settled.times(self._rated(some.table, some.row, self.clock_designs[clocks[first]]))[inverse]

    def _rated(self, table: np.ndarray, row: np.ndarray, designs: np.ndarray) -> Rated:
        return Rated(table, row, self.machine.rates[designs], self.machine.setup_cycles[designs])

    def _energy(self, traffic: np.ndarray, owner: np.ndarray) -> np.ndarray:
        """Dynamic energy of rows on the designs with these numbers."""
        problems = [space.problem for space in self.spaces]
        macs, speedup = (np.array(column)[self.space[owner]] for column in
                         zip(*((p.macs, p.reduction_speedup) for p in problems), strict=True))  # fmt: skip
        return energy_of(self.machine, macs, speedup, traffic, self.design[owner])

    def _second(self, pairs: Pairs, owner: np.ndarray, time: np.ndarray) -> np.ndarray:
        """What decides between equal values: energy (traffic at home where it is unknown), or time."""
        if self.objective is not Objective.LATENCY:
            return time
        traffic = self.settled.traffic(pairs)
        energy = self._energy(traffic, owner)
        return np.where(np.isnan(energy), traffic[:, 0].sum(axis=(1, 2)), energy)

    # The answer ------------------------------------------------------------------------------------
    def _winners(self) -> list[Winners]:
        """Of each space."""
        best, known = self.best, np.flatnonzero(self.best.table >= 0)
        cost = self._costs(known)
        row_of = np.full(len(best.table) + 1, -1)
        row_of[known] = np.arange(len(known))
        row = row_of[self.number[self.like]]
        kept = Kept(self.settled, best.table[known], best.row[known])
        ends = np.cumsum([len(space.machine) for space in self.spaces])
        return [
            self._winners_of(number, np.flatnonzero(self.space[known] == number), known, cost, rows, kept)
            for number, rows in enumerate(np.split(row, ends[:-1]))
        ]

    def _winners_of(
        self, number: int, mine: np.ndarray, known: np.ndarray, cost: Cost, rows: np.ndarray, kept: Kept
    ) -> Winners:
        """`mine`: what is known of the space's designs, in `known` and `cost`; `rows`: the same per design, or -1."""
        space, settled, best, own = self.spaces[number], self.settled, self.best, known[mine]
        cost = cost.take(mine)
        row = np.where(rows >= 0, rows - (mine[0] if len(mine) else 0), -1)  # (numbers go space by space)
        energy = np.full(len(rows), np.nan)
        fits = np.flatnonzero(rows >= 0)
        energy[fits] = dynamic_energy(space.machine, space.problem, cost.traffic[row[fits]], fits) if len(fits) else ()
        positions = best.key[own] // CLASS_COUNT
        used = self.pool.footprint[positions]
        places = list(zip(best.table[own].tolist(), best.row[own].tolist(), strict=True))
        # Winners hold neither candidates nor the search: a network has a hundred of them.
        choices = {place: settled.choice(*place) for place in set(places)}
        span = slice(self.pool.space_starts[number], self.pool.space_starts[number + 1])
        keys = slice(*np.searchsorted(settled.known, [span.start * CLASS_COUNT, span.stop * CLASS_COUNT]))
        return Winners(
            row=row,
            cost=cost,
            tables=Lazy(places, kept.table),
            first_bytes=kept.first_bytes(best.table[own], best.row[own]),
            mappings=Lazy(places, lambda place: space.mapping(choices[place])),
            energy_j=energy,
            first_weight_bytes=self.pool.weight_tile_bytes(positions),
            footprint_bytes=used,
            level_bytes=tuple({space.route.level: one} for one in used.tolist()) if space.at else ({},) * len(own),
            need_bytes=float(self.pool.footprint[span].min()),
            proven_gap=self._gap(np.flatnonzero(self.space == number)),
            latency_cycles=space.machine.latency_cycles,
            candidates=span.stop - span.start,
            refined=int(settled.place[2, keys].sum()),
        )

    def _gap(self, designs: np.ndarray) -> float:
        """Share by which a candidate that was not refined might still beat the best of a space's designs."""
        exact = self.small[designs].all()
        some = designs[(self.left.next[designs] < self.left.end[designs]) & (self.best.table[designs] >= 0)]
        gaps = 1.0 - self.left.least(some) / self.best.value[some]
        return float(gaps.max(initial=0.0 if exact else TOLERANCE))

    def _costs(self, known: np.ndarray) -> Cost:
        """Full costs of the winners of some designs."""
        if not len(known):
            return join([])
        designs = self.design[known]
        cost = self.settled.costs(self._rated(self.best.table[known], self.best.row[known], designs))
        cost.time = cost.time + self.machine.latency_cycles[designs]
        cost.first = cost.first + self.machine.latency_cycles[designs]
        return cost


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each distinct one, number of the distinct one per row), in ascending order."""
    if len(numbers) == 1:
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    _, first, inverse = np.unique(
        np.nan_to_num(numbers, nan=-1.0, posinf=1e300), axis=0, return_index=True, return_inverse=True
    )
    return first, inverse.ravel()


__all__ = ["Search"]
