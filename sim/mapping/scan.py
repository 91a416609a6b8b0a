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

ROUNDING = 4e-6
"""Share by which a bound in single precision (some thirty roundings of 6e-8) may miss the bound itself."""

WIDE = 3.0
"""Largest over least pace of a port within a band of clocks: then about a tenth of the candidates has a bound
at the fastest corner below the least bound at the slowest."""


class Scan:
    """Candidates that fit the largest of some rooms, in order of the smallest room that they fit."""

    def __init__(self, pool: Pool, rooms: np.ndarray) -> None:
        """rooms: bytes that designs have for tiles."""
        self.rooms = np.unique(rooms)
        place = np.searchsorted(self.rooms, pool.footprint)
        if len(self.rooms) == 1:
            self.positions = np.flatnonzero(place == 0)
            self.fitting = np.array([len(self.positions)])
        else:
            order = np.argsort(place.astype(np.uint16), kind="stable")
            self.fitting = np.searchsorted(place[order], np.arange(len(self.rooms)), side="right")
            self.positions = order[: self.fitting[-1]]
        self.pool = pool
        whole = len(self.positions) == len(pool) and len(self.rooms) == 1
        self.order = None if whole else self.positions
        self.place: np.ndarray | None = None

    def number(self, rooms: np.ndarray) -> np.ndarray:
        """Numbers of some rooms, by ascending size."""
        return np.searchsorted(self.rooms, rooms)

    def fits(self, rooms: np.ndarray) -> np.ndarray:
        """How many of the candidates fit rooms: the first so many."""
        return self.fitting[self.number(rooms)]

    def places(self, candidates: np.ndarray) -> np.ndarray:
        """Where candidates of the pool stand here."""
        if self.place is None:
            self.place = np.zeros(len(self.pool), dtype=np.int64)
            self.place[self.positions] = np.arange(len(self.positions))
        return self.place[candidates]

    def of(self, values: np.ndarray) -> np.ndarray:
        """Numbers of all candidates of the pool, in this order."""
        return (values if self.order is None else values[self.order]).astype(np.float32)

    @cached_property
    def parts(self) -> Parts:
        return self.pool.bounds.everywhere(np.float32, self.order)

    def everywhere(self, corner: Clock) -> np.ndarray:
        """The bound of all candidates in cycles."""
        return self.parts.time(*corner)

    def some(self, places: np.ndarray) -> Parts:
        """What bounds candidates at some places."""
        return self.parts if len(places) == len(self.positions) else self.parts.take(places)

    def least(self, values: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """Of numbers (n, places) the least of the candidates (at these places) that fit each room: (n, rooms); inf
        where none does."""
        ends = self.fitting if places is None else np.searchsorted(places, self.fitting)
        sizes = np.diff(ends, prepend=0)
        held = np.flatnonzero(sizes)
        found = np.full((len(values), len(ends)), np.inf)
        found[:, held] = np.minimum.reduceat(values, (ends - sizes)[held], axis=1)
        return np.minimum.accumulate(found, axis=1)

    def best(self, values: np.ndarray) -> np.ndarray:
        """Places of the least numbers, one among those that fit each room and not the one before."""
        ends = self.fitting.tolist()
        parts = zip([0, *ends[:-1]], ends, strict=True)
        return np.array([start + int(values[start:end].argmin()) for start, end in parts if start < end])


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
