"""Parts of a large space that cannot hold its best mapping, left out before their candidates are bounded.

A grid of candidates is the product of a list per class of ranks. The lists are cut into blocks; a block of the grid
is bounded by the least of all its factors (the bound grows with each of them, but for the first load and the last
store, which it takes off the ports: there the largest is taken off). A search of the most promising blocks
gives a value that is reached, and what is bounded above it goes. Of what is left each grid keeps the entries of its
lists that some block needs; then come smaller blocks. The candidates left have the optimum of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sim.mapping.bound import Bounds
from sim.mapping.dims import ClassTiles
from sim.mapping.machine import Machine
from sim.mapping.race import Search
from sim.mapping.search import SingleBorder
from sim.mapping.terms import CLASSES, Grid, Parts, Terms
from sim.mapping.winners import Objective, Winners

BLOCKS = (4, 8)
"""Blocks of each list in the rounds."""
LOOK = 4000
"""Candidates of the most promising blocks that are searched for a first value."""
ROUNDED = 1e-9
"""Share by which a bound of a block may be above the bound of a candidate for the order in which they are added."""

LARGE = 300_000
"""Candidates of a space from which on this takes less time than it saves."""


def search_narrowed(space: SingleBorder, room: np.ndarray) -> Winners:
    """The mapping of least latency on each design of a large space; `room`: (D,) bytes for tiles.

    Each design is searched alone, so that others do not change what it finds.
    """
    machine = space.machine
    numbers = [machine.rates, machine.setup_cycles, machine.latency_cycles, room, machine.read_energy_j_per_byte,
               machine.write_energy_j_per_byte, machine.mac_energy_j]  # fmt: skip
    keys = [tuple(a[d].tobytes() for a in numbers) for d in range(len(machine))]
    known, found = blocks(space, BLOCKS[0]), {}
    for d, key in enumerate(keys):
        if key not in found:
            alone = copy(space)
            alone.machine = machine.take(np.array([d]))
            found[key] = _search(alone, room[d : d + 1], known)
    number = {key: i for i, key in enumerate(found)}
    return Winners.of_designs(list(found.values()), np.array([number[key] for key in keys]))


def _search(space: SingleBorder, room: np.ndarray, known: Blocks) -> Winners:
    """As `search_narrowed`, of one design; `known`: the first blocks."""
    left, best, first = space, None, 0
    for pieces in BLOCKS:
        some = known if left is space else blocks(left, pieces)
        some = some.take(np.flatnonzero(some.footprint <= room[0]))
        bound = some.bounds(space.machine)
        if best is None and len(some):
            order = np.argsort(bound, kind="stable")
            some, bound = some.take(order), bound[order]
            first = min(int(np.searchsorted(np.cumsum(some.candidates), LOOK)) + 1, len(some))
            best = _whole(within(space, some.take(np.arange(first))), room)
        if best is None or best.row[0] < 0:
            break  # nothing that fits: all is searched, and says what it needs
        needed = np.flatnonzero(bound * (1 - ROUNDED) <= best.cost.time[0])
        if left is space and len(needed) <= first:
            return replace(best, candidates=space.candidates)
        left = within(left, some.take(needed))
        if left.candidates <= LARGE:
            break
    return replace(_whole(left, room), candidates=space.candidates)


def _whole(space: SingleBorder, room: np.ndarray) -> Winners:
    return Search([space], Objective.LATENCY, [room]).run()[0]


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of some grids: entry i is a block of grid `grid[i]`, entries `first[:, i]` up to `end[:, i]` of its
    lists (classes, n), with what bounds it and the least bytes that it needs."""

    grid: np.ndarray
    first: np.ndarray
    end: np.ndarray
    parts: Parts
    footprint: np.ndarray

    def __len__(self) -> int:
        return len(self.grid)

    def take(self, some: np.ndarray) -> Blocks:
        return Blocks(
            self.grid[some], self.first[:, some], self.end[:, some], self.parts.take(some), self.footprint[some]
        )

    @property
    def candidates(self) -> np.ndarray:
        return (self.end - self.first).prod(axis=0)

    def bounds(self, machine: Machine) -> np.ndarray:
        """In cycles, on a machine of one design."""
        pace = (1.0 / machine.rates[0]).tolist()
        return self.parts.time(pace, float(machine.setup_cycles[0]), float(machine.latency_cycles[0]))


def blocks(space: SingleBorder, pieces: int) -> Blocks:
    """The blocks of a space, `pieces` of each list."""
    grids = [grid for _, grid in space.grids]
    cuts = [[_cuts(n, pieces) for n in grid.shape] for grid in grids]
    least = [_corner(grid, starts, np.minimum) for grid, starts in zip(grids, cuts, strict=True)]
    most = [_corner(grid, starts, np.maximum) for grid, starts in zip(grids, cuts, strict=True)]
    low, high = Bounds(least).everywhere(), Bounds(most).everywhere()
    moved = [
        np.maximum(between + a.bytes + b.bytes - c.bytes - d.bytes, 0.0)
        for between, a, b, c, d in zip(low.moved, low.first, low.last, high.first, high.last, strict=True)
    ]
    parts = replace(low, moved=moved, late=high.late)
    footprint = np.concatenate([(t := Terms(g, g.problem)).flat(t.footprint_bytes()) for g in least])
    owner = np.repeat(np.arange(len(grids)), [grid.tilings for grid in least])
    places = [np.stack([i.ravel() for i in np.indices(grid.shape)]) for grid in least]
    first = np.concatenate(
        [np.stack([s[i] for s, i in zip(starts, at, strict=True)]) for starts, at in zip(cuts, places, strict=True)],
        axis=1,
    )
    ends = [
        [np.append(s[1:], n) for s, n in zip(starts, g.shape, strict=True)]
        for starts, g in zip(cuts, grids, strict=True)
    ]
    end = np.concatenate(
        [np.stack([e[i] for e, i in zip(es, at, strict=True)]) for es, at in zip(ends, places, strict=True)], axis=1
    )
    return Blocks(owner, first, end, parts, footprint)


def within(space: SingleBorder, some: Blocks) -> SingleBorder:
    """The space with the entries of lists that some of these blocks need."""
    grids = []
    for number in np.unique(some.grid).tolist():
        option, grid = space.grids[number]
        mine = some.take(np.flatnonzero(some.grid == number))
        lists = {}
        for i, letter in enumerate(CLASSES):
            spans = np.unique(np.stack([mine.first[i], mine.end[i]]), axis=1).T
            lists[letter] = grid.lists[letter].take(np.concatenate([np.arange(a, b) for a, b in spans]))
        grids.append((option, _cut(grid, lists)))
    made = copy(space)
    made.__dict__["grids"] = grids
    return made


def _cuts(size: int, pieces: int) -> np.ndarray:
    """Where the blocks of a list begin."""
    return np.unique(np.linspace(0, size, min(size, pieces), endpoint=False).astype(np.int64))


def _corner(grid: Grid, starts: Sequence[np.ndarray], of: np.ufunc) -> Grid:
    """A grid of one candidate per block, each factor the least or the largest of the block."""
    return _cut(grid, {c: _reduced(grid.lists[c], at, of) for c, at in zip(CLASSES, starts, strict=True)})


def _cut(grid: Grid, lists: dict[str, ClassTiles]) -> Grid:
    """The grid with other lists; its classes stay, though of one only a single tiling may be left."""
    made = copy(grid)
    made.lists, made.shape = lists, tuple(len(lists[c]) for c in CLASSES)
    return made


def _reduced(tiles: ClassTiles, starts: np.ndarray, of: np.ufunc) -> ClassTiles:
    cut: dict[str, Any] = {}
    for name in tiles.__dataclass_fields__:
        value = getattr(tiles, name)
        if isinstance(value, np.ndarray):
            cut[name] = of.reduceat(value, starts)
        elif isinstance(value, dict):
            cut[name] = {key: of.reduceat(column, starts) for key, column in value.items()}
    return replace(tiles, **cut)
