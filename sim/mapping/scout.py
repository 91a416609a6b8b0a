"""Which candidates a heat has to look at: those in blocks that may hold the best of some design.

A block that promises much is looked into: its most promising candidate is costed exactly, as slow as any design of a
band of clocks may be. No design of the band needs a block that is bounded, as fast as any may be, above that.
"""

from __future__ import annotations

import numpy as np

from sim.mapping.blocks import ROUNDED, Blocks
from sim.mapping.rivals import Entrants, Rivals
from sim.mapping.scan import Cells, Clock
from sim.mapping.settle import CLASS_COUNT, Rated
from sim.mapping.terms import Numbers
from sim.ordered import ascending

NEAR = 1e-2
"""Share above the least bound within which the first round of a heat looks."""
FEW = 4096
"""Candidates up to which all are looked at."""


def wanted(rivals: Rivals, designs: Entrants, cells: Cells) -> np.ndarray:
    """Numbers of the candidates to look at, ascending: for each design at least all whose bound is not above the value
    of its best, or within `NEAR` of the least bound. `cells`: of the designs."""
    pool = rivals.pool
    if len(pool) <= FEW:
        return np.arange(len(pool))
    blocks, space = pool.blocks, pool.space_of_grid[pool.blocks.grid]
    starts = np.searchsorted(space, np.arange(rivals.spaces + 1))
    least, most = (cells.smallest(starts, needed) for needed in (blocks.footprint, blocks.roof))
    used = np.flatnonzero(np.bincount(rivals.band_of[designs.clock], minlength=len(rivals.bands))).tolist()
    bounds = {
        band: rivals.bounds(blocks.parts.time(*rivals.corner(rivals.bands[band], min)), blocks.least, space, band)
        for band in used
    }
    scouts = _promising(bounds, most, cells)
    reached, some = _reached(rivals, blocks, space, scouts, cells, most), np.zeros(len(blocks), dtype=bool)
    for band, bound in bounds.items():
        limits = reached[band] * ((1 + NEAR) * (1 + ROUNDED))
        some |= bound <= np.append(limits, -np.inf)[least]  # (those that fit no cell have the last)
    return np.sort(blocks.positions(np.flatnonzero(some))[0])


def _promising(bounds: dict[int, np.ndarray], most: np.ndarray, cells: Cells) -> dict[int, np.ndarray]:
    """Per band, the block of least bound of those that fit each cell whole, and none smaller; without those that are no
    better than one that fits a smaller cell."""
    order = np.argsort(most, kind="stable")[np.count_nonzero(most < 0) :]
    cell, first = np.unique(most[order], return_index=True)
    size, found = np.diff(first, append=len(order)), {}
    for band, bound in bounds.items():
        values, own = bound[order], np.full(len(cells), np.inf)
        own[cell] = np.minimum.reduceat(values, first) if len(first) else ()
        good = np.flatnonzero(values <= np.repeat(np.where(own[cell] <= cells.sofar(own)[cell], own[cell], -1.0), size))
        some = good[np.diff(most[order[good]], prepend=-1) > 0]  # one of equals
        found[band] = order[some]
    return found


def _reached(
    rivals: Rivals, blocks: Blocks, space: np.ndarray, scouts: dict[int, np.ndarray], cells: Cells, most: np.ndarray
) -> dict[int, np.ndarray]:
    """Per band, the value that some candidate reaches on all of its clocks in each cell, (cells,); inf where none is
    known."""
    looked = np.concatenate(list(scouts.values()))
    if not len(looked):  # no block fits a room whole
        return {number: np.full(len(cells), np.inf) for number in scouts}
    band = np.repeat(list(scouts), [len(some) for some in scouts.values()])
    slow = {number: rivals.corner(rivals.bands[number], max) for number in scouts}
    numbers = _numbers([slow[number] for number in scouts], [len(some) for some in scouts.values()])
    positions, owner = blocks.positions(looked)
    parts = rivals.pool.bounds.of_terms(list(rivals.pool.bounds.of_grids(positions)))
    times = parts.time(list(1.0 / numbers.rates[owner].T), numbers.setup[owner], numbers.latency[owner])
    order = np.lexsort((times, owner))
    positions = positions[order[np.flatnonzero(np.diff(owner[order], prepend=-1))]]  # the best of each block
    values = _exact(rivals, positions, numbers, space[looked], rivals.rows[[rivals.bands[b][0] for b in band.tolist()]])
    found = {}
    for number in scouts:
        mine, own = band == number, np.full(len(cells), np.inf)
        own[most[looked[mine]]] = values[mine]
        found[number] = cells.sofar(own)
    return found


def _numbers(clocks: list[Clock], counts: list[int]) -> Numbers:
    """Each clock so many times."""
    pace, setup, latency = (np.repeat(np.array(column), counts, axis=0) for column in zip(*clocks, strict=True))
    with np.errstate(divide="ignore"):  # endless rates
        return Numbers(1.0 / pace, setup, latency)


def _exact(rivals: Rivals, positions: np.ndarray, numbers: Numbers, space: np.ndarray, row: np.ndarray) -> np.ndarray:
    """The objective of candidates, (n,), each on rates of its own, in the best order of the most promising innermost
    class; energies are those of a row of the machine."""
    settled = rivals.settled
    keys = positions * CLASS_COUNT + np.argmin(rivals.pool.class_times(numbers, positions), axis=0)
    settled.add(ascending(keys))
    pairs = settled.pairs(keys)
    own = pairs.key
    time = settled.times(Rated(pairs.table, pairs.row, numbers.rates[own], numbers.setup[own])) + numbers.latency[own]
    out = np.full(len(keys), np.inf)
    np.minimum.at(out, own, rivals.values(time, pairs, row[own], space[own]))
    return out


__all__ = ["NEAR", "wanted"]
