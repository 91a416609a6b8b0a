"""Hill climbing over chains of choices: what a listed search over several memories missed.

From a mapping over all borders, one thing is changed at a time: the tile of one rank at one border
(every smallest tile of a trip count), where that rank's loop stands, or the order of a border's loops.
All neighbours are costed exactly together; the best one is the next start, until none is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import permutations

import numpy as np

from sim.mapping.problem import Problem
from sim.mapping.search import Choice

STEPS = 16
"""Moves at most."""

Choices = tuple[Choice, ...]


@lru_cache(maxsize=4096)
def trip_tiles(extent: int) -> np.ndarray:
    """All tile sizes 1..extent that are the smallest for their trip count, ascending."""
    n = np.arange(1, extent + 1)
    return np.unique(-(-extent // n))


def climb(
    problem: Problem, start: Choices, value: float, costs: Callable[[Sequence[Choices]], np.ndarray]
) -> tuple[Choices, float, int]:
    """(choices, value, mappings costed) at a local optimum; `costs` gives inf where nothing fits."""
    costed = 0
    for _ in range(STEPS):
        around = list(dict.fromkeys(neighbours(problem, start)))
        if not around:
            break
        values = costs(around)
        costed += len(around)
        best = int(np.argmin(values))
        if values[best] >= value * (1 - 1e-9):
            break
        start, value = around[best], float(values[best])
    return start, value, costed


def neighbours(problem: Problem, chain: Choices) -> Iterator[Choices]:
    """Chains that differ in one tile, one loop's place or one order; only even ones are changed."""
    extent = {r: int(problem.einsum.ranks[r]) for r in problem.ranks}
    for depth, choice in enumerate(chain):
        if choice.depths:
            return
        for rank in problem.tiled_ranks:
            for tile in trip_tiles(extent[rank]).tolist():
                for changed in _cut(choice, rank, tile, extent[rank]):
                    yield _fitted(problem, (*chain[:depth], changed, *chain[depth + 1 :]))
        tiles = dict(zip(choice.order, choice.tiles, strict=True))
        if 1 < len(choice.order) <= 4:
            for order in permutations(choice.order):
                moved = replace(choice, order=order, tiles=tuple(tiles[r] for r in order))
                yield (*chain[:depth], moved, *chain[depth + 1 :])
        extent = _inside(extent, choice)


def _cut(choice: Choice, rank: str, tile: int, extent: int) -> Iterator[Choice]:
    """The choice with another tile of a rank: its loop in place, or anywhere if it had none."""
    rest = [(r, t) for r, t in zip(choice.order, choice.tiles, strict=True) if r != rank]
    places = [choice.order.index(rank)] if rank in choice.order else range(len(rest) + 1)
    if tile >= extent:
        places = places[:1]
    for place in places:
        made = rest if tile >= extent else [*rest[:place], (rank, tile), *rest[place:]]
        yield replace(choice, order=tuple(r for r, _ in made), tiles=tuple(t for _, t in made))


def _inside(extent: dict[str, int], choice: Choice) -> dict[str, int]:
    """Extents of one whole tile job."""
    inner = extent | dict(zip(choice.order, choice.tiles, strict=True))
    for rank, count, _ in choice.parts:
        inner[rank] = -(-inner[rank] // count)
    return inner


def _fitted(problem: Problem, chain: Choices) -> Choices:
    """The chain with inner loops dropped where the tile outside is no larger than theirs."""
    extent = {r: int(problem.einsum.ranks[r]) for r in problem.ranks}
    fitted = []
    for choice in chain:
        kept = [(r, t) for r, t in zip(choice.order, choice.tiles, strict=True) if t < extent[r]]
        fitted.append(replace(choice, order=tuple(r for r, _ in kept), tiles=tuple(t for _, t in kept)))
        extent = _inside(extent, fitted[-1])
    return tuple(fitted)
