"""The bound of every candidate on one design after another, in single precision and few passes.

A filter: it decides which candidates are looked at, never what a mapping costs. Single precision
halves the memory traffic; what it rounds stays within `ROUNDING`, which every comparison allows for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from sim.mapping.bound import Placed, gathered
from sim.mapping.parts import Parts
from sim.mapping.search import Pool
from sim.mapping.terms import Terms
from sim.ordered import ascending

ROUNDING = 4e-6
"""Share by which a bound in single precision (some thirty roundings of 6e-8) may miss the bound itself."""

AT_ONCE = 32_768
"""Bounds made at a time, so that their arrays stay in the cache."""

WIDE = 3.0
"""Largest over least pace of a port within a band of clocks: then about a tenth of the candidates has a bound
at the fastest corner below the least bound at the slowest."""


class Cells:
    """The rooms of spaces: a *cell* is a room of a space. All spaces have as many cells, some of them empty."""

    def __init__(self, spaces: int, space: np.ndarray, room: np.ndarray) -> None:
        """space, room: of each design, the number of its space and its bytes for tiles."""
        by_space = np.argsort(space, kind="stable")
        mine = np.split(by_space, np.searchsorted(space[by_space], np.arange(1, spaces)))
        self.rooms = [ascending(room[some]) for some in mine]
        """Per space, ascending."""
        self.shape = (spaces, max(map(len, self.rooms)))
        self.of = np.zeros(len(room), dtype=np.int64)
        """Per design."""
        for number, (some, own) in enumerate(zip(mine, self.rooms, strict=True)):
            self.of[some] = number * self.shape[1] + np.searchsorted(own, room[some])

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    def smallest(self, starts: np.ndarray, needed: np.ndarray) -> np.ndarray:
        """Of things that need bytes, the smallest cell of their space that has room, or -1.

        `starts`: (spaces + 1,) where those of each space begin.
        """
        found = np.empty(len(needed), dtype=np.int64)
        for number, (own, start, end) in enumerate(zip(self.rooms, starts[:-1], starts[1:], strict=True)):
            place = np.searchsorted(own, needed[start:end])
            found[start:end] = np.where(place < len(own), place + number * self.shape[1], -1)
        return found

    def sofar(self, values: np.ndarray) -> np.ndarray:
        """The least of numbers (.., cells) in each cell and the smaller ones of its space."""
        return np.minimum.accumulate(values.reshape(*values.shape[:-1], *self.shape), axis=-1).reshape(values.shape)


class Scan:
    """Candidates that fit the largest room of their space: space by space, and in each in order of the smallest room
    that they fit."""

    def __init__(self, pool: Pool, cells: Cells, positions: np.ndarray) -> None:
        """`positions`: the candidates of the pool to look at, ascending."""
        self.cells = cells
        self.groups: Placed = list(pool.bounds.of_grids(positions))
        starts = np.searchsorted(positions, pool.space_starts)
        cell = cells.smallest(starts, gathered(self.groups, Terms.footprint_bytes))
        self.order = np.argsort(cell, kind="stable")[np.count_nonzero(cell < 0) :]
        self.parts = pool.bounds.of_terms(self.groups, np.float32).take(self.order)
        self.positions, cell = positions[self.order], cell[self.order]
        self.space = cell // cells.shape[1]
        """Of each candidate here."""
        self.ends = np.searchsorted(cell, np.arange(len(cells)), side="right")
        """Of the cells: candidates up to here fit."""
        self.space_starts = np.concatenate([[0], self.ends[cells.shape[1] - 1 :: cells.shape[1]]])
        self.kept: dict[int, np.ndarray] = {}
        """Of some bands of clocks, the bounds of all candidates at the fastest corner (`heat.Heat` makes them)."""

    def __len__(self) -> int:
        return len(self.positions)

    def everywhere(self, corner: Clock) -> np.ndarray:
        """The bound of all candidates in cycles."""
        if len(self) <= AT_ONCE:
            return self.parts.time(*corner)
        out = np.empty(len(self), dtype=np.float32)
        for start in range(0, len(out), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            out[part] = self.parts.take(part).time(*corner)
        return out

    def some(self, places: np.ndarray) -> Parts:
        """What bounds candidates at some places."""
        return self.parts if len(places) == len(self) else self.parts.take(places)

    def least(self, values: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        """Of numbers (n, places) the least of the candidates (at these places) that fit each cell: (n, cells); inf
        where none does."""
        return self.cells.sofar(
            self._own_least(values, self.ends if places is None else np.searchsorted(places, self.ends))
        )

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
