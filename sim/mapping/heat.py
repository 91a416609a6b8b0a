"""A heat of a search: the best candidate of each of some designs.

Every candidate has a bound on every design (`bound.Bounds`). Those with the least bounds are costed exactly in rounds,
until the next bound passes the best exact value. All that is kept of a design are entries of arrays, so that a
thousand designs, or the layers of a network, take few more array operations than one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim.mapping.entries import Best, Chosen, Left, spans
from sim.mapping.rivals import Entrants, Rivals
from sim.mapping.scan import ROUNDING, Scan, together
from sim.mapping.scout import NEAR
from sim.mapping.settle import CLASS_COUNT, Pairs
from sim.mapping.terms import Numbers
from sim.mapping.winners import Objective
from sim.ordered import among, ascending

LOOKS = (24, 96, 768)
"""Candidates refined in each round; small problems then go on with all that the bound leaves."""
TOLERANCE = 1e-3
"""In large spaces the search ends once the best value is proven to be within this share of the optimum, or after
the last of `LOOKS`; `Winners.proven_gap` says how far the proof reaches."""
SLACK = 1e-9
"""Bounds and recurrences round differently: within this share they count as equal."""
AT_ONCE = 8_000_000
"""Bounds kept for later (bands of clocks x candidates)."""
IN_CACHE = 60_000
"""Bounds made at a time of the candidates that a band of clocks leaves (clocks x candidates)."""


class Heat:
    """The best candidates of each of some designs, which are numbered through."""

    def __init__(
        self, rivals: Rivals, scan: Scan, designs: Entrants, cell: np.ndarray, watch: np.ndarray | None = None
    ) -> None:
        """`cell`: of each design. `watch`: (designs,) those of which `undecided` tells."""
        self.rivals, self.scan, self.designs, self.cell = rivals, scan, designs, cell
        self.first, self.fit = scan.space_starts[designs.space], scan.ends[cell]
        """Per design: the candidates that fit it (from, up to)."""
        self.listed: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        """Per band: the limits of a look at its bounds, and the candidates below them."""
        self.best, self.left = Best(len(designs)), Left.none(len(designs))
        self.reach = np.full(len(designs), -np.inf)
        """Bounds up to here were listed for the first round."""
        self.watch = watch
        levels = len(rivals.machine.levels)
        self.moved = np.full((0 if watch is None else len(designs), 2 * levels), np.inf)
        """Least bytes per level and way that a candidate moves whose value is the best."""
        self.near, self.seen, self.held = Chosen.none(), Chosen.none(), Chosen.none()
        """What was listed and not taken, what was, and the keys that the first round left for the second."""

    def run(self) -> Best:
        """The whole heat."""
        everyone = np.flatnonzero(self.fit > self.first)
        if len(everyone):
            self._first_round(everyone)
            self._rounds(everyone)
        return self.best

    def open(self) -> np.ndarray:
        """The least bound of what was not refined for each design; inf where nothing is left."""
        return self.left.least(np.arange(len(self.designs)))

    def undecided(self) -> np.ndarray:
        """Of each design that is watched, whether something as good as its best moves less at some memory: then other
        energies may prefer it."""
        found = np.zeros(len(self.designs), dtype=bool)
        watch = np.zeros_like(found) if self.watch is None else self.watch
        some = np.flatnonzero(watch & (self.best.table >= 0))
        if len(some):
            best = self.best.take(some)
            pairs = Pairs(best.key, best.table, best.row, best.order)
            found[some] = (self.moved[some] < self._moved(pairs)).any(axis=1)
        return found

    def _moved(self, pairs: Pairs) -> np.ndarray:
        """Bytes of pairs per level and way, (pairs, 2 x levels)."""
        moved = self.rivals.settled.traffic(pairs).sum(axis=2)
        return moved.reshape(len(moved), self.moved.shape[1])

    # Bounds ----------------------------------------------------------------------------------------
    def _lower(self, number: int) -> np.ndarray:
        """Bounds of the objective at the fastest corner of a band, kept as long as there is room."""
        kept = self.scan.kept
        if number in kept:
            return kept[number]
        lower = self._bounds(number)
        if (len(kept) + 1) * len(lower) <= AT_ONCE:
            kept[number] = lower
        return lower

    def _bounds(self, number: int) -> np.ndarray:
        times = self.scan.everywhere(self.rivals.corner(self.rivals.bands[number], min))
        return self.rivals.bounds(times, self.scan.groups, self.scan.space, number, self.scan.order)

    def _below(self, designs: np.ndarray, limits: np.ndarray | None) -> Chosen:
        """The candidates of each design whose bound is not above its limit, or (no limits) at most by `NEAR` above its
        least bound."""
        found, clock = [], self.designs.clock[designs]
        band_of = self.rivals.band_of[clock]
        for number in np.flatnonzero(np.bincount(band_of)).tolist():
            mine = np.flatnonzero(band_of == number)
            of, row = np.unique(clock[mine], return_inverse=True)
            within = self._near(number, of) if limits is None else self._most(designs[mine], limits[mine])
            places = self._places(number, within)
            for start, bounds in self._within(number, of, places):
                own = np.flatnonzero((row >= start) & (row < start + len(bounds)))
                limits_now = None if limits is None else limits[mine[own]]
                found.append(self._chosen(designs[mine[own]], row[own] - start, places, bounds, limits_now))
        return Chosen.join(found) if found else Chosen.none()

    def _most(self, designs: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """(cells,) the largest limit of the designs of each space."""
        most = np.zeros(self.rivals.spaces)
        np.maximum.at(most, self.designs.space[designs], limits)
        return np.repeat(most, self.scan.cells.shape[1])

    def _near(self, number: int, of: np.ndarray) -> np.ndarray:
        """Limit of the bounds at a band's fastest corner, (cells,): above what the best there reaches at any of the
        clocks nothing is near the least bound of one."""
        scan, lower = self.scan, self._lower(number)
        if len(self.rivals.bands[number]) == 1:
            least = scan.least(lower[None])[0]
        else:
            good = scan.best(lower)
            slowest = scan.some(good).time(*self.rivals.corner(of.tolist(), max))
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
        if len(self.rivals.bands[number]) == 1:
            yield 0, self._lower(number)[places][None]
            return
        parts, step = self.scan.some(places), max(1, IN_CACHE // max(1, len(places)))
        for start in range(0, len(of), step):
            yield start, parts.time(*together([self.rivals.clocks[c] for c in of[start : start + step]]))

    def _chosen(
        self, designs: np.ndarray, row: np.ndarray, places: np.ndarray, bounds: np.ndarray, limits: np.ndarray | None
    ) -> Chosen:
        """As `_below`, of bounds (rows, places); `row` of each design."""
        if limits is None:
            limits = self.reach[designs] = self.scan.least(bounds, places)[row, self.cell[designs]] * (1 + NEAR)
        most = np.zeros((len(bounds), self.rivals.spaces))
        np.maximum.at(most, (row, self.designs.space[designs]), limits)
        of_space = np.diff(np.searchsorted(places, self.scan.space_starts))
        at = np.flatnonzero(bounds <= np.repeat(most, of_space, axis=1))
        start, end = (
            np.searchsorted(at, row * len(places) + np.searchsorted(places, edge[designs]))
            for edge in (self.first, self.fit)
        )
        entry, owner = spans(start, end - start)
        value = bounds.ravel()[at[entry]]
        mine = value <= limits[owner]
        entry, owner = entry[mine], owner[mine]
        place = places[at[entry] % len(places)] if len(entry) else entry
        return Chosen(designs[owner], self.scan.positions[place], value[mine])

    # Rounds ----------------------------------------------------------------------------------------
    def _first_round(self, designs: np.ndarray) -> None:
        """Refine the most promising candidates."""
        near = self._below(designs, None)
        near = near.take(np.lexsort((near.number, near.bound, near.owner)))
        first = np.searchsorted(near.owner, near.owner)  # (owners are sorted)
        taken = np.arange(len(near)) - first < LOOKS[0]
        self.seen, self.near = near.take(np.flatnonzero(taken)), near.take(np.flatnonzero(~taken))
        self._refine(self.seen)

    def _rounds(self, designs: np.ndarray) -> None:
        """Refine whatever may still win on some designs that know a value."""
        self.left.put(designs, self._unseen(designs))
        for look in (*LOOKS[1:], len(self.rivals.pool)):
            held = np.zeros(len(self.fit), dtype=bool)
            held[self.held.owner[self.held.bound <= self._limit(self.held.owner)]] = True
            within = self.left.least(designs) <= self._limit(designs) * (1 + ROUNDING)
            designs = designs[(within | held[designs]) & (self.designs.small[designs] | (look < len(self.rivals.pool)))]
            if not len(designs):
                break
            self._refine(self.left.pull(designs, look, self._limit(designs) * (1 + ROUNDING)), designs)

    def _unseen(self, designs: np.ndarray) -> Chosen:
        """What the first round did not take and may still win."""
        limit = np.full(len(self.designs), -np.inf)
        limit[designs] = self._limit(designs) * (1 + ROUNDING)
        further = limit > self.reach
        near = self.near.take(np.flatnonzero((self.near.bound <= limit[self.near.owner]) & ~further[self.near.owner]))
        some = np.flatnonzero(further)
        beyond, size = self._below(some, limit[some]), len(self.rivals.pool)
        old = among(beyond.owner * size + beyond.number, np.sort(self.seen.owner * size + self.seen.number))
        return Chosen.join([near, beyond.take(np.flatnonzero(~old))])

    def _limit(self, designs: np.ndarray) -> np.ndarray:
        """Bounds above this cannot win."""
        return self.best.value[designs] * (1 + np.where(self.designs.small[designs], SLACK, -TOLERANCE))

    def _refine(self, chosen: Chosen, held_by: np.ndarray | None = None) -> None:
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
            keys = Chosen.join([keys, self.held.take(np.flatnonzero(theirs))])
            self.held = self.held.take(np.flatnonzero(~theirs))
            now = keys.bound <= self._limit(keys.owner)
        keys = keys.take(np.flatnonzero(now))
        if len(keys):
            self.rivals.settled.add(ascending(keys.number))
            self._compare(keys.owner, keys.number)

    def _classes(self, chosen: Chosen) -> tuple[Chosen, np.ndarray]:
        """(a key per innermost class of candidates, number of the candidate)."""
        machine, designs, positions = self.rivals.machine, self.designs.row[chosen.owner], chosen.number
        numbers = Numbers(machine.rates[designs], machine.setup_cycles[designs], machine.latency_cycles[designs])
        bounds = self.rivals.pool.class_times(numbers, positions)
        if self.rivals.objective is not Objective.LATENCY:  # every order of a tiling may win in energy
            bounds = np.where(np.isfinite(bounds), chosen.bound[None, :] * (1 - ROUNDING), np.inf)
        letters, tiling = np.nonzero(np.isfinite(bounds))
        return Chosen(chosen.owner[tiling], positions[tiling] * CLASS_COUNT + letters, bounds[letters, tiling]), tiling

    def _compare(self, owner: np.ndarray, keys: np.ndarray) -> None:
        """Cost the rows of keys, each on the design that owns it, and keep each design's best."""
        rivals = self.rivals
        pairs = rivals.settled.pairs(keys)
        if not len(pairs.key):
            return
        owner = owner[pairs.key]
        row, space = self.designs.row[owner], self.designs.space[owner]
        time = self._times(pairs, self.designs.clock[owner]) + rivals.machine.latency_cycles[row]
        value = rivals.values(time, pairs, row, space)
        least = self.best.value.copy()
        np.minimum.at(least, owner, value)
        even = np.flatnonzero(value == least[owner])
        some = pairs.take(even)
        if self.watch is not None:
            self._note(owner[even], some, least < self.best.value)
        second = rivals.seconds(time[even], some, row[even], space[even])
        self.best.offer(owner[even], value[even], second, keys[some.key], some)

    def _note(self, owner: np.ndarray, even: Pairs, better: np.ndarray) -> None:
        """Keep what the best of watched designs move; `better`: (designs,) whether all before these were worse."""
        assert self.watch is not None
        self.moved[better] = np.inf
        mine = np.flatnonzero(self.watch[owner])
        np.minimum.at(self.moved, owner[mine], self._moved(even.take(mine)))

    def _times(self, pairs: Pairs, clocks: np.ndarray) -> np.ndarray:
        """Cycles of pairs; designs that differ in their room alone are costed once."""
        rivals = self.rivals
        rows, settled = rivals.rows, rivals.settled
        if len(rows) == len(self.designs) or len(rows) == 1 == self.scan.cells.shape[1]:
            return settled.times(rivals.rated(pairs.table, pairs.row, rows[clocks]))
        number, count = settled.number(pairs)
        _, first, inverse = np.unique(clocks * count + number, return_index=True, return_inverse=True)
        some = pairs.take(first)
        return settled.times(rivals.rated(some.table, some.row, rows[clocks[first]]))[inverse]


__all__ = ["Heat"]
