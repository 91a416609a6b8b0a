"""The bound of every candidate on one design after another, in single precision and few passes.

A filter: it decides which candidates are looked at, never what a mapping costs. Single precision
halves the memory traffic; what it rounds stays within `ROUNDING`, which every comparison allows for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.mapping.bound import PortTerms
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


class _Terms:
    """The terms of `bound.Bounds`, each once: ports that serve the same bind by the slower one."""

    def __init__(self, scan: Scan) -> None:
        bounds = scan.pool.bounds
        self.double, self.cycles = bounds.double, scan.of(bounds.cycles)
        self.terms = [(*(scan.of(values) for values in least), *self._ends(scan, entry))
                      for least, entry in zip(bounds.least, bounds.terms, strict=True)]  # fmt: skip
        self.ports = [
            (entry, None if fed is None or not fed.any() else scan.of(fed))
            for entry, fed in zip(bounds.wire, bounds.fed, strict=True)
        ]

    @staticmethod
    def _ends(scan: Scan, entry: PortTerms) -> list[tuple[np.ndarray, int]]:
        return [(scan.of(end.bytes), end.count) for end in (entry.first, entry.last)]

    def times(self, pace: np.ndarray, setup: float, latency: float) -> np.ndarray:
        """pace: cycles per byte and port."""
        slowest = [
            max((float(pace[p]) for p, (other, _) in enumerate(self.ports) if other == entry), default=0.0)
            for entry in range(len(self.terms))
        ]
        paused = [count * np.float32(setup) if setup else None for _, count, _, _ in self.terms]
        time = self.cycles
        waiting: list[np.ndarray] = []
        for entry, (moved, _, _, _) in enumerate(self.terms):
            moving = _plus(moved * np.float32(slowest[entry]), paused[entry])
            if not self.double:
                waiting.append(moving)
            elif any(fed is None and other == entry for other, fed in self.ports):
                time = np.maximum(time, moving)
        for p, (entry, fed) in enumerate(self.ports):
            if fed is not None:
                busy = fed * np.float32(pace[p])
                if self.double and entry is not None:
                    busy = _plus(busy + self.terms[entry][0] * np.float32(pace[p]), paused[entry])
                time = np.maximum(time, busy)
        time = time + np.float32(latency)
        for moves in (waiting, *(self._end(end, slowest, setup) for end in (2, 3))):
            if moves:
                time = time + (moves[0] if len(moves) == 1 else np.maximum.reduce(moves))
        return time

    def _end(self, end: int, slowest: list[float], setup: float) -> list[np.ndarray]:
        """Cycles of the first load (end 2) or the last store (3) on the ports that take part."""
        working = [(term[end], pace) for term, pace in zip(self.terms, slowest, strict=True) if term[end][1]]
        return [moved * np.float32(pace) + np.float32(setup * count) for (moved, count), pace in working]


def _plus(busy: np.ndarray, paused: np.ndarray | None) -> np.ndarray:
    return busy if paused is None else busy + paused
