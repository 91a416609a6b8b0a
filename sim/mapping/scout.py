"""Which candidates a heat has to look at: those in blocks that may hold the best of some design.

A block that promises much is looked into: its most promising candidate, as slow as any design of a band of clocks may
be, is costed exactly on all of them. No design needs a block that is bounded above that: first as fast as any of its
band may be, then on its own clock.
"""

from __future__ import annotations

import numpy as np

from sim.mapping.blocks import ROUNDED, Blocks
from sim.mapping.rivals import Entrants, Rivals
from sim.mapping.scan import ROUNDING, Cells, Clock, together
from sim.mapping.settle import CLASS_COUNT
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
        never = np.full((len(reached[band]), 1), -np.inf)  # the limit of what fits no cell
        limits = np.append(reached[band] * ((1 + NEAR) * (1 + ROUNDED)), never, axis=1)
        good = np.flatnonzero(bound <= limits.max(axis=0)[least])
        if len(limits) > 1:
            times = blocks.parts.take(good).time(*together([rivals.clocks[c] for c in rivals.bands[band]]))
            good = good[(times <= limits[:, least[good]] * (1 + ROUNDING)).any(axis=0)]
        some[good] = True
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
    """Per band, the value that some candidate reaches on each of its clocks in each cell, (clocks, cells); inf where
    none is known."""
    looked = np.concatenate(list(scouts.values()))
    if not len(looked):  # no block fits a room whole
        return {number: np.full((len(rivals.bands[number]), len(cells)), np.inf) for number in scouts}
    band = np.repeat(list(scouts), [len(some) for some in scouts.values()])
    slow = {number: rivals.corner(rivals.bands[number], max) for number in scouts}
    numbers = _numbers([slow[number] for number in scouts], [len(some) for some in scouts.values()])
    positions, owner = blocks.positions(looked)
    parts = rivals.pool.bounds.of_terms(list(rivals.pool.bounds.of_grids(positions)))
    times = parts.time(list(1.0 / numbers.rates[owner].T), numbers.setup[owner], numbers.latency[owner])
    order = np.lexsort((times, owner))
    positions = positions[order[np.flatnonzero(np.diff(owner[order], prepend=-1))]]  # the best of each block
    keys = positions * CLASS_COUNT + np.argmin(rivals.pool.class_times(numbers, positions), axis=0)
    rivals.settled.add(ascending(keys))
    found = {}
    for number in scouts:
        mine, rows = np.flatnonzero(band == number), rivals.rows[rivals.bands[number]]
        own = np.full((len(rows), len(cells)), np.inf)
        own[:, most[looked[mine]]] = _exact(rivals, keys[mine], space[looked[mine]], rows)
        found[number] = cells.sofar(own)
    return found


def _numbers(clocks: list[Clock], counts: list[int]) -> Numbers:
    """Each clock so many times."""
    pace, setup, latency = (np.repeat(np.array(column), counts, axis=0) for column in zip(*clocks, strict=True))
    with np.errstate(divide="ignore"):  # endless rates
        return Numbers(1.0 / pace, setup, latency)


def _exact(rivals: Rivals, keys: np.ndarray, space: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The objective of known keys on rows of the machine, (rows, keys), each in its best order."""
    pairs = rivals.settled.pairs(keys)
    count, own = len(pairs.key), np.tile(pairs.key, len(rows))
    row, every = np.repeat(rows, count), pairs.take(np.tile(np.arange(count), len(rows)))
    time = rivals.settled.times(rivals.rated(every.table, every.row, row)) + rivals.machine.latency_cycles[row]
    out = np.full((len(rows), len(keys)), np.inf)
    np.minimum.at(out, (np.repeat(np.arange(len(rows)), count), own), rivals.values(time, every, row, space[own]))
    return out


__all__ = ["NEAR", "wanted"]
