"""Candidates of grids in blocks, each bounded at once.

A grid of candidates is the product of a list per class of ranks. The lists are cut into runs of neighbours; a block of
the grid is bounded by the least of all its factors (the bound grows with each of them, but for the first load and the
last store, which it takes off the ports: there the largest is taken off). What is bounded above a value that is
reached need not be looked at one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from sim.mapping.bound import Bounds, Placed, gathered
from sim.mapping.dims import ClassTiles
from sim.mapping.parts import Parts
from sim.mapping.terms import CLASSES, Grid, Several, Terms

ROUNDED = 1e-9
"""Share by which a bound of a block may be above the bound of a candidate for the order in which they are added."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The blocks of some grids: entry i is a block of grid `grid[i]`, entries `first[:, i]` up to `end[:, i]` of its
    lists (classes, n), with what bounds it and the least and the most bytes that its candidates need."""

    grids: Sequence[Grid]
    starts: np.ndarray
    """Where the candidates of each grid begin, (grids + 1,)"""
    grid: np.ndarray
    first: np.ndarray
    end: np.ndarray
    parts: Parts
    least: Placed
    """What the bound is made of"""
    footprint: np.ndarray
    roof: np.ndarray

    def __len__(self) -> int:
        return len(self.grid)

    def take(self, some: np.ndarray) -> Blocks:
        """Some of the blocks, without their terms."""
        parts, names = self.parts.take(some), ("grid", "footprint", "roof")
        return replace(self, first=self.first[:, some], end=self.end[:, some], parts=parts, least=(),
                       **{name: getattr(self, name)[some] for name in names})  # fmt: skip

    @property
    def candidates(self) -> np.ndarray:
        """(n,)"""
        return (self.end - self.first).prod(axis=0)

    def positions(self, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(numbers of the candidates in some blocks, one block after the other; which of the blocks each is in)."""
        first, sizes = self.first[:, some], (self.end - self.first)[:, some]
        rest, owner = ragged(sizes.prod(axis=0))
        shapes = np.array([grid.shape for grid in self.grids]).T[:, self.grid[some]]
        found, step = np.zeros_like(rest), np.ones(len(some), dtype=np.int64)
        for axis in reversed(range(len(CLASSES))):
            if (sizes[axis] > 1).any():
                rest, within = np.divmod(rest, sizes[axis][owner])
                found += (within + first[axis][owner]) * step[owner]
            else:
                found += (first[axis] * step)[owner]
            step = step * shapes[axis]
        return found + self.starts[self.grid[some]][owner], owner


def ragged(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(0 to `counts[i]` - 1 for each i one after the other, the i of each)."""
    owner = np.repeat(np.arange(len(counts)), counts)
    return np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner], owner


def blocks(bounds: Bounds, pieces: int) -> Blocks:
    """The blocks of grids, `pieces` of each list (as many as it has entries, if they are fewer)."""
    made = [(numbers, *_of(several, pieces)) for numbers, several in bounds.alike]
    grid = np.concatenate([numbers[cut.number] for numbers, cut, _, _ in made])
    order = np.argsort(grid, kind="stable") if len(made) > 1 else np.arange(len(grid))
    place = np.empty(len(grid), dtype=np.int64)
    place[order] = np.arange(len(grid))
    mine = np.split(place, np.cumsum([len(cut.number) for _, cut, _, _ in made])[:-1])
    least, most = (list(zip(mine, terms, strict=True)) for terms in ([m[2] for m in made], [m[3] for m in made]))
    low, high = bounds.of_terms(least), bounds.of_terms(most)
    moved = [
        np.maximum(between + a.bytes + b.bytes - c.bytes - d.bytes, 0.0)
        for between, a, b, c, d in zip(low.moved, low.first, low.last, high.first, high.last, strict=True)
    ]
    return Blocks(
        grids=bounds.grids,
        starts=bounds.starts,
        grid=grid[order],
        first=np.concatenate([cut.first for _, cut, _, _ in made], axis=1)[:, order],
        end=np.concatenate([cut.end for _, cut, _, _ in made], axis=1)[:, order],
        parts=replace(low, moved=moved, late=high.late),
        least=least,
        footprint=gathered(least, Terms.footprint_bytes),
        roof=gathered(most, Terms.footprint_bytes),
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """Blocks of grids beside each other: their grids, and entries of those grids' lists (classes, blocks)."""

    number: np.ndarray
    first: np.ndarray
    end: np.ndarray


def _of(several: Several, pieces: int) -> tuple[_Cut, Terms, Terms]:
    """(the blocks, their least terms, their largest)."""
    counts = np.minimum(several.shapes, pieces)
    total = counts.prod(axis=0)
    rest, number = ragged(total)
    ends = np.cumsum(counts, axis=1)
    at, first, end = np.empty((3, len(CLASSES), len(number)), dtype=np.int64)
    cuts = {}
    for axis in reversed(range(len(CLASSES))):
        rest, within = np.divmod(rest, counts[axis][number])
        size = several.shapes[axis]
        piece, owner = ragged(counts[axis])
        cuts[CLASSES[axis]] = piece * size[owner] // counts[axis][owner] + several.starts[axis][owner]
        at[axis] = within
        first[axis], end[axis] = (i * size[number] // counts[axis][number] for i in (within, within + 1))
    least, most = (
        several.with_lists({c: _reduced(several.lists[c], cuts[c], of) for c in CLASSES}, ends - counts)
        for of in (np.minimum, np.maximum)
    )
    return _Cut(number, first, end), least.terms(number, at), most.terms(number, at)


def _reduced(tiles: ClassTiles, starts: np.ndarray, of: np.ufunc) -> ClassTiles:
    cut: dict[str, Any] = {}
    for field in fields(tiles):
        value = getattr(tiles, field.name)
        if isinstance(value, np.ndarray):
            cut[field.name] = of.reduceat(value, starts)
        elif isinstance(value, dict):
            cut[field.name] = {key: of.reduceat(column, starts) for key, column in value.items()}
    return replace(tiles, **cut)
