"""The bound of every candidate on one design after another, in single precision and few passes.

A filter: it decides which candidates are looked at, never what a mapping costs. Single precision
halves the memory traffic; what it rounds stays within `ROUNDING`, which every comparison allows for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from sim.mapping.search import Pool
from sim.mapping.terms import Parts
from sim.ordered import ascending

ROUNDING = 4e-6
"""Share by which a bound in single precision (some thirty roundings of 6e-8) may miss the bound itself."""

AT_ONCE = 32_768
"""Bounds made at a time, so that their arrays stay in the cache."""

MOSTLY = 0.4
"""Share of the candidates that fit from which on all are bounded."""

WIDE = 3.0
"""Largest over least pace of a port within a band of clocks: then about a tenth of the candidates has a bound
at the fastest corner below the least bound at the slowest."""


class Scan:
    """Candidates that fit the largest room of their space's designs: space by space, and in each in order of the
    smallest room that they fit. A *cell* is a room of a space; all spaces have as many cells, some of them empty."""

    def __init__(self, pool: Pool, space: np.ndarray, room: np.ndarray) -> None:
        """space, room: of each design, the number of its space and its bytes for tiles."""
        self.pool, starts = pool, pool.space_starts.tolist()
        rooms = [ascending(room[space == number]) for number in range(len(pool.spaces))]
        most = max(map(len, rooms))
        self.shape = (len(rooms), most)
        self.cell = np.zeros(len(room), dtype=np.int64)
        """Of each design."""
        self.unfit: np.ndarray | None = None
        """Where candidates stand here that fit no room (few enough to be bounded for nothing)."""
        if most == 1 and self._one_room_each(np.concatenate(rooms)):
            self.cell = space.copy()
            return
        kept, ends, sofar = [], [], 0
        for number, own in enumerate(rooms):
            mine, fitting = _by_room(pool.footprint[starts[number] : starts[number + 1]], own)
            kept.append(mine + starts[number])
            ends += [sofar + int(end) for end in fitting] + [sofar + len(mine)] * (most - len(own))
            sofar += len(mine)
            designs = np.flatnonzero(space == number)
            self.cell[designs] = number * most + np.searchsorted(own, room[designs])
        self.positions = np.concatenate(kept)
        self.ends = np.array(ends)
        """Of the cells: candidates up to here fit."""
        self.space_starts = np.concatenate([[0], self.ends[most - 1 :: most]])
        self.order = None if len(self.positions) == len(pool) and most == 1 else self.positions

    def _one_room_each(self, rooms: np.ndarray) -> bool:
        """Leave the candidates where they are if most of them fit, and some of each space: to sort them takes longer
        than to bound the others."""
        starts = self.pool.space_starts
        if len(rooms) < len(starts) - 1:
            return False
        fits = self.pool.footprint <= np.repeat(rooms, np.diff(starts))
        if fits.mean() < MOSTLY or not np.logical_or.reduceat(fits, starts[:-1]).all():
            return False
        self.positions, self.order, self.unfit = np.arange(len(fits)), None, None if fits.all() else ~fits
        self.ends, self.space_starts = starts[1:], starts
        return True

    def places(self, candidates: np.ndarray) -> np.ndarray:
        """Where candidates of the pool stand here."""
        place = np.zeros(len(self.pool), dtype=np.int64)
        place[self.positions] = np.arange(len(self.positions))
        return place[candidates]

    def of(self, values: np.ndarray) -> np.ndarray:
        """Numbers of all candidates of the pool, in this order."""
        return self._fitting((values if self.order is None else values[self.order]).astype(np.float32))

    def _fitting(self, values: np.ndarray) -> np.ndarray:
        """The numbers (changed in place), inf where nothing fits."""
        if self.unfit is not None:
            values[self.unfit] = np.inf
        return values

    @cached_property
    def parts(self) -> Parts:
        return self.pool.bounds.everywhere(np.float32, self.order)

    def everywhere(self, corner: Clock) -> np.ndarray:
        """The bound of all candidates in cycles."""
        if len(self.positions) <= AT_ONCE:
            return self._fitting(self.parts.time(*corner))
        out = np.empty(len(self.positions), dtype=np.float32)
        for start in range(0, len(out), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            out[part] = self.parts.take(part).time(*corner)
        return self._fitting(out)

    def some(self, places: np.ndarray) -> Parts:
        """What bounds candidates at some places."""
        return self.parts if len(places) == len(self.positions) else self.parts.take(places)

    def least(self, values: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """Of numbers (n, places) the least of the candidates (at these places) that fit each cell: (n, cells); inf
        where none does."""
        found = self._own_least(values, self.ends if places is None else np.searchsorted(places, self.ends))
        return np.minimum.accumulate(found.reshape(len(values), *self.shape), axis=2).reshape(found.shape)

    def _own_least(self, values: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The same of candidates that fit no smaller cell."""
        sizes = np.diff(ends, prepend=0)
        held = np.flatnonzero(sizes)
        found = np.full((len(values), len(ends)), np.inf, dtype=values.dtype)
        found[:, held] = np.minimum.reduceat(values, (ends - sizes)[held], axis=1)
        return found

    def best(self, values: np.ndarray) -> np.ndarray:
        """Places of the least numbers of those that fit each cell and no smaller one."""
        return np.flatnonzero(values <= self.by_cell(self._own_least(values[None], self.ends)[0]))

    def by_cell(self, numbers: np.ndarray) -> np.ndarray:
        """A number of each cell, for the candidates that fit it and no smaller one."""
        return np.repeat(numbers, np.diff(self.ends, prepend=0))


def _by_room(footprint: np.ndarray, rooms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(candidates in order of the smallest of the ascending rooms that they fit, how many fit each)."""
    if not len(rooms):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    place = np.searchsorted(rooms, footprint)
    if len(rooms) == 1:
        fits = np.flatnonzero(place == 0)
        return fits, np.array([len(fits)])
    order = np.argsort(place.astype(np.uint16), kind="stable")
    fitting = np.searchsorted(place[order], np.arange(len(rooms)), side="right")
    return order[: fitting[-1]], fitting


class Clock(NamedTuple):
    """What a bound needs of one design: cycles per byte and port, per transfer, before the first load."""

    pace: list[float]
    setup: float
    latency: float


def clocks(rates: np.ndarray, setup: np.ndarray, latency: np.ndarray) -> list[Clock]:
    """Of designs, (D, ports) and (D,)."""
    return [Clock(*one) for one in zip((1.0 / rates).tolist(), setup.tolist(), latency.tolist(), strict=True)]


def corner(some: Sequence[Clock], of: Callable) -> Clock:
    """The fastest (`min`) or the slowest (`max`) that a design of these clocks may be."""
    return Clock([of(same) for same in zip(*(c.pace for c in some), strict=True)],
                 of(c.setup for c in some), of(c.latency for c in some))  # fmt: skip


def together(some: Sequence[Clock]) -> Clock:
    """Several as one, its numbers arrays (clocks, 1) in single precision."""

    def column(numbers: Iterable[float]) -> Any:
        return np.array(list(numbers), dtype=np.float32)[:, None]

    pace: list[Any] = [column(same) for same in zip(*(c.pace for c in some), strict=True)]
    return Clock(pace, column(c.setup for c in some), column(c.latency for c in some))


def bands(some: Sequence[Clock], wide: float) -> list[list[int]]:
    """Numbers of clocks that are near each other (within a factor in every port's pace), so that few candidates are
    good for any of them."""
    found: list[list[int]] = []
    low: list[float] = []
    high: list[float] = []
    for number in sorted(range(len(some)), key=lambda n: some[n].pace):
        pace = some[number].pace
        if found:
            low, high = list(map(min, low, pace)), list(map(max, high, pace))
            if all(most <= least * wide for least, most in zip(low, high, strict=True)):
                found[-1].append(number)
                continue
        found.append([number])
        low = high = pace
    return found
