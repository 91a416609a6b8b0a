"""The bound of every candidate on one design after another, in single precision and few passes.

A filter: it decides which candidates are looked at, never what a mapping costs. Single precision
halves the memory traffic; what it rounds stays within `ROUNDING`, which every comparison allows for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim.mapping.bound import End
from sim.mapping.search import Pool

ROUNDING = 2e-6
"""Share by which a bound in single precision (a dozen roundings of 6e-8) may miss the bound itself."""


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
        self.terms: _Terms | None = None
        self.place: np.ndarray | None = None

    def fits(self, room: float) -> int:
        """How many of the candidates fit a room: the first so many."""
        return int(self.fitting[np.searchsorted(self.rooms, room)])

    def places(self, candidates: Sequence[int]) -> list[int]:
        """Where candidates of the pool stand here."""
        if self.place is None:
            self.place = np.zeros(len(self.pool), dtype=np.int64)
            self.place[self.positions] = np.arange(len(self.positions))
        return self.place[np.asarray(candidates, dtype=np.int64)].tolist()

    def of(self, values: np.ndarray) -> np.ndarray:
        """Numbers of all candidates of the pool, in this order."""
        whole = len(self.positions) == len(values) and len(self.rooms) == 1
        return (values if whole else values[self.positions]).astype(np.float32)

    def times(self, rates: np.ndarray, setup: float, latency: float) -> np.ndarray:
        """The bound in cycles on a design with these rates (ports,)."""
        if self.terms is None:
            self.terms = _Terms(self)
        return self.terms.times(1.0 / rates, setup, latency)


@dataclass(frozen=True, slots=True)
class _Term:
    """What some ports serve alike: bytes between the ends, and the ends."""

    moved: np.ndarray
    first: End
    last: End


class _Terms:
    """The terms of `bound.Bounds`, each once: ports that serve the same bind by the slower one."""

    def __init__(self, scan: Scan) -> None:
        bounds = self.bounds = scan.pool.bounds
        self.scan, self.double, self.cycles = scan, bounds.double, scan.of(bounds.cycles)
        self.terms = []
        for moved, *ends in zip(bounds.least, bounds.first, bounds.last, strict=True):
            self.terms.append(_Term(scan.of(moved), *(End(scan.of(end.bytes), end.count) for end in ends)))
        self.wire = bounds.wire
        self.fed = [None if fed is None or not fed.any() else scan.of(fed) for fed in bounds.fed]
        alone = {entry for entry, fed in zip(self.wire, self.fed, strict=True) if fed is None}
        self.alone = [entry in alone for entry in range(len(self.terms))]
        """Whether a port serves the term and nothing of the array."""

    @cached_property
    def count(self) -> list[np.ndarray]:
        """Transfers between the ends of each term."""
        return [self.scan.of(count) for count in self.bounds.least_count]

    def times(self, pace: np.ndarray, setup: float, latency: float) -> np.ndarray:
        """pace: cycles per byte and port."""
        paused = [count * np.float32(setup) for count in self.count] if setup else [None] * len(self.terms)
        slowest = [
            max(float(pace[p]) for p, e in enumerate(self.wire) if e == entry) for entry in range(len(self.terms))
        ]
        moving = [_moving(term, rest, pace) for term, rest, pace in zip(self.terms, paused, slowest, strict=True)]
        time = self.cycles
        for busy, alone in zip(moving, self.alone, strict=True):
            if self.double and alone:
                time = np.maximum(time, busy)
        for p, (entry, fed) in enumerate(zip(self.wire, self.fed, strict=True)):
            if fed is not None:
                busy = fed * np.float32(pace[p])
                if self.double and entry is not None:
                    busy = busy + _moving(self.terms[entry], paused[entry], float(pace[p]))
                time = np.maximum(time, busy)
        firsts, lasts = ([getattr(term, end) for term in self.terms] for end in ("first", "last"))
        for waits in ([] if self.double else moving, _ends(firsts, slowest, setup), _ends(lasts, slowest, setup)):
            if waits:
                time = time + (waits[0] if len(waits) == 1 else np.maximum.reduce(waits))
        return time + np.float32(latency)


def _moving(term: _Term, paused: np.ndarray | None, pace: float) -> np.ndarray:
    busy = term.moved * np.float32(pace)
    return busy if paused is None else busy + paused


def _ends(ends: list[End], pace: list[float], setup: float) -> list[np.ndarray]:
    """Cycles of the first load or the last store on the ports that take part."""
    working = zip(ends, pace, strict=True)
    return [end.bytes * np.float32(p) + np.float32(setup * end.count) for end, p in working if end.count]
