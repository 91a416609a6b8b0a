"""Parts of a large space that cannot hold its best mapping, left out before their candidates are bounded.

A search of the most promising blocks of candidates (`blocks`) gives a value that is reached, and what is bounded above
it goes. Of what is left each grid keeps the entries of its lists that some block needs; then come smaller blocks. The
candidates left have the optimum of all of them.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from sim.mapping.blocks import ROUNDED, Blocks, blocks
from sim.mapping.bound import Bounds
from sim.mapping.dims import ClassTiles
from sim.mapping.machine import Machine
from sim.mapping.race import Search
from sim.mapping.search import SingleBorder
from sim.mapping.terms import CLASSES, Grid
from sim.mapping.winners import Objective, Winners

BLOCKS = (4, 8)
"""Blocks of each list in the rounds."""
LOOK = 4000
"""Candidates of the most promising blocks that are searched for a first value."""
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
    known, found = _blocks(space, BLOCKS[0]), {}
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
        some = known if left is space else _blocks(left, pieces)
        some = some.take(np.flatnonzero(some.footprint <= room[0]))
        bound = bounds(some, space.machine)
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


def _blocks(space: SingleBorder, pieces: int) -> Blocks:
    return blocks(Bounds([grid for _, grid in space.grids]), pieces)


def bounds(some: Blocks, machine: Machine) -> np.ndarray:
    """Of blocks, in cycles, on a machine of one design."""
    pace = (1.0 / machine.rates[0]).tolist()
    return some.parts.time(pace, float(machine.setup_cycles[0]), float(machine.latency_cycles[0]))


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


def _cut(grid: Grid, lists: dict[str, ClassTiles]) -> Grid:
    """The grid with other lists; its classes stay, though of one only a single tiling may be left."""
    made = copy(grid)
    made.lists, made.shape = lists, tuple(len(lists[c]) for c in CLASSES)
    return made
