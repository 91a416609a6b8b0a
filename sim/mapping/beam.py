"""A beam search over chains of tiles, orders and splits, by the quick cost of `fluid`.

The beam starts from chains that differ as much as they can (everything cut to one, nothing cut, random
cuts) and keeps the best after each round. A round makes every neighbour: the tile of one rank at one
border (another trip count, a multiple of the array's side, inner tiles clipped or scaled with it), one
loop moved innermost or outermost, another split; a sample of neighbours of neighbours; and one of trades,
which give one rank's room in the memories to another. Where memories are full nothing else leads from
one good shape of tiles to the next. The draw is seeded: the same question has the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.mapping.fluid import Aim, Chains, Fluid


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How far a search goes."""

    width: int = 96
    """Chains kept after a round."""
    rounds: int = 24
    pairs: int = 1000
    """Neighbours of neighbours in a round."""
    trades: int = 2000
    """In a round: they count most (of 60 random layers on Eyeriss the mean distance from the best that any search found
    is 1.8 % without them)."""
    starts: int = 200
    """Random chains at the start."""
    patience: int = 4
    """Rounds without gain after which it ends."""

    @property
    def aside(self) -> Effort:
        """Of a search beside the main one."""
        return replace(self, width=self.width * 3 // 8, pairs=self.pairs // 3, trades=self.trades // 2, patience=1)


GAIN = 1e-3
"""Share by which a round must better the best."""
SAME, FILLED, SCALED = 0.75, 0.3, 0.8
"""Shares of the trades at one border, of those that fill the memory, and of changes that inner tiles follow."""
EQUAL = 2
"""Chains of one value that are kept: they differ in what does not matter, and many would leave no room for others."""
ALIKE = 1e-6
"""Values closer than this share are one: they are sums in single precision."""


def best_chains(
    fluid: Fluid, effort: Effort, aims: Sequence[Aim], seeds: Chains | None = None
) -> tuple[list[Chains], int]:
    """(the best chains by each aim, best first; chains costed). Every aim keeps the effort's width, of all that any
    aim's chains lead to. `seeds`: chains to start from, instead of some as different as they can be."""
    draw = np.random.default_rng(0)
    held = np.array([aim.fixed for aim in aims])
    some = starts(fluid, effort.starts, draw) if seeds is None else seeds
    made = Chains.join([canonical(fluid, some, fixed=fixed) for fixed in sorted(set(held.tolist()))])
    value, costed = fluid.by(aims, made), len(made)
    kept, rows = _kept(value, effort.width)
    beam, value, fresh = made.take(rows), value[:, rows], np.arange(len(rows))
    seen, still = np.full(len(aims), np.inf), 0
    for _ in range(effort.rounds):
        if not len(fresh):
            break
        around = []
        for fixed in sorted(set(held.tolist())):
            mine = fresh[kept[held == fixed][:, fresh].any(axis=0)]
            if len(mine):
                near, _ = neighbours(fluid, beam.take(mine))
                far = near.take(draw.integers(len(near), size=effort.pairs))
                swapped = traded(fluid, beam.take(mine[draw.integers(len(mine), size=effort.trades)]), draw)
                around.append(canonical(fluid, Chains.join([near, changed(fluid, far, draw), swapped]), fixed=fixed))
        near = distinct(Chains.join(around))
        costed += len(near)
        made, value = Chains.join([beam, near]), np.concatenate([value, fluid.by(aims, near)], axis=1)
        kept, rows = _kept(value, effort.width)
        beam, value, fresh = made.take(rows), value[:, rows], np.flatnonzero(rows >= len(beam))
        least = value.min(axis=1, initial=np.inf)
        still = 0 if (least < seen * (1 - GAIN)).any() else still + 1
        seen = np.minimum(seen, least)
        if still >= effort.patience:
            break
    return [beam.take(best_rows(own, effort.width)) for own in value], costed


def _kept(value: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(aim, kept chain) -> whether the aim keeps it; rows of the chains that some aim keeps, (aims, n)."""
    best = [best_rows(own, width) for own in value]
    rows = np.array(list(dict.fromkeys(np.concatenate(best).tolist())), dtype=np.int64)
    return np.stack([np.isin(rows, own) for own in best]), rows


def best_rows(value: np.ndarray, most: int) -> np.ndarray:
    """Rows of the best `most` that fit, no more than `EQUAL` of one value."""
    some = 4 * EQUAL * most
    if len(value) > 2 * some:  # (sorting all of them takes longer than what follows)
        few = np.flatnonzero(value <= np.partition(value, some)[some])
        rows = few[_best(value[few])]
        if len(rows) >= most:
            return rows[:most]
    return _best(value)[:most]


def _best(value: np.ndarray) -> np.ndarray:
    rows = np.flatnonzero(np.isfinite(value))
    rows = rows[np.argsort(value[rows], kind="stable")]
    first = np.flatnonzero(np.diff(value[rows], prepend=-np.inf) > value[rows] * ALIKE)
    place = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
    return rows[place < EQUAL]


def hashed(chains: Chains) -> np.ndarray:
    """A number of each chain, (n,): equal for equal ones."""
    n = len(chains)
    rows = [row for part in (chains.tiles, chains.place) for border in part for row in border] + [*chains.parts]
    weights = np.random.default_rng(1).integers(1, 2**62, size=len(rows))
    number = np.zeros(n, dtype=np.int64)
    with np.errstate(over="ignore"):
        for row, weight in zip(rows, weights, strict=True):
            number += row.astype(np.int64) * weight
    return number


def distinct(chains: Chains) -> Chains:
    """Chains that differ, the first of equal ones."""
    number = hashed(chains)
    order = np.argsort(number)
    starts = np.flatnonzero(np.diff(number[order], prepend=number[order[:1]] - 1))
    return chains.take(np.sort(np.minimum.reduceat(order, starts)))


def canonical(fluid: Fluid, chains: Chains, *, fixed: bool) -> Chains:
    """Tiles no larger than what they cut; loops of one trip outermost, in the order of the ranks. `fixed`: of the loops
    that go on with the array's dataflow the innermost inside all others."""
    tiles, place = chains.tiles.copy(), np.empty_like(chains.place)
    ranks = len(fluid.ranks)
    unmoved = np.arange(ranks, dtype=np.int8)[:, None]
    size = np.broadcast_to(fluid.extent[:, None], tiles[0].shape)
    for b, shares in enumerate(fluid.shares):
        np.minimum(tiles[b], size, out=tiles[b])
        walked = tiles[b] < size
        size = tiles[b] if (shares == 1).all() else np.ceil(tiles[b] / np.take(shares, chains.parts[b], axis=1))
        own = _obeying(chains.place[b], walked, fluid.held) if fixed else chains.place[b]
        wish = np.where(walked, own + np.int8(ranks), unmoved)
        for row, one in enumerate(wish):
            (wish < one).sum(axis=0, dtype=np.int8, out=place[b, row])
    return Chains(tiles, place, chains.parts)


def _obeying(place: np.ndarray, walked: np.ndarray, held: list[int]) -> np.ndarray:
    """Places with the last walked rank of `held` (by number) innermost, where there is one."""
    last = np.where(walked[held], place[held], np.int8(-1)).max(axis=0, initial=-1)
    moved = np.where(place == last, np.int8(len(place) - 1), place - (place > last))
    return np.where(last < 0, place, moved)


def starts(fluid: Fluid, count: int, draw: np.random.Generator) -> Chains:
    """Everything whole, everything cut to one inside some border, and random cuts."""
    borders, ranks = len(fluid.routes), len(fluid.ranks)
    shape = (count + borders + 1, borders, ranks)
    tiles = np.broadcast_to(fluid.extent, shape).copy()
    for b in range(borders):
        tiles[b, b:] = 1
    share = np.sort(draw.random((count, borders, ranks)), axis=1)[:, ::-1]
    share = np.where(draw.random(share.shape) < 0.3, 1.0, share)
    tiles[borders + 1 :] = np.ceil(fluid.extent ** np.minimum.accumulate(share, axis=1))
    place = np.argsort(np.argsort(draw.random(shape), axis=2), axis=2).astype(np.int8)
    parts = np.stack([draw.integers(len(options), size=shape[0]) for options in fluid.options])
    tiles, place = (np.ascontiguousarray(part.transpose(1, 2, 0)) for part in (tiles, place))
    return Chains(tiles, place, parts)


def neighbours(fluid: Fluid, chains: Chains) -> tuple[Chains, np.ndarray]:
    """(every change of one thing: a tile, alone or with those inside in proportion; the place of a loop; a split; which
    of the chains each comes from)."""
    borders, ranks, count = chains.tiles.shape
    ways = np.sort(_ways(fluid, chains.tiles, _outside(fluid, chains)), axis=0)
    other = ways != chains.tiles
    other[1:] &= ways[1:] != ways[:-1]
    way, b, rank, column = np.nonzero(other)
    new, outer = ways[way, b, rank, column], np.flatnonzero(b + 1 < borders)
    made = [
        _retiled(chains, b, rank, column, new),
        _retiled(chains, b[outer], rank[outer], column[outer], new[outer], scaled=np.ones(len(outer), dtype=bool)),
    ]
    places = [(border, row) for border in range(borders) for row in range(ranks)]
    made += [_moved(chains, *place, innermost=innermost) for place in places for innermost in (True, False)]
    for border, options in enumerate(fluid.options):
        for option in range(len(options)) if len(options) > 1 else ():
            parts = chains.parts.copy()
            parts[border] = option
            made.append(Chains(chains.tiles, chains.place, parts))
    others = np.tile(np.arange(count), len(made) - 2)
    return Chains.join(made), np.concatenate([column, column[outer], others])


def changed(fluid: Fluid, chains: Chains, draw: np.random.Generator) -> Chains:
    """Each chain with one random change of a tile."""
    borders, ranks, n = chains.tiles.shape
    at, rank = (np.asarray(draw.integers(most, size=n)) for most in (borders, ranks))
    column = np.arange(n)
    outside = _outside(fluid, chains)[at, rank, column]
    ways = _ways(fluid, chains.tiles[at, rank, column], outside)
    return _retiled(chains, at, rank, column, ways[draw.integers(len(ways), size=n), column])


def traded(fluid: Fluid, chains: Chains, draw: np.random.Generator) -> Chains:
    """Each chain with the tile of one random rank changed and then that of another, at the same border or elsewhere:
    to any of its ways, or so that it fills the memory."""
    borders, ranks, n = chains.tiles.shape
    column = np.arange(n)
    at = np.asarray(draw.integers(borders, size=n))
    one = np.asarray(draw.integers(ranks, size=n))
    other = (one + draw.integers(1, max(ranks, 2), size=n)) % ranks
    elsewhere = np.where(draw.random(n) < SAME, at, draw.integers(borders, size=n))
    for b, rank in ((at, one), (elsewhere, other)):
        outside = _outside(fluid, chains)[b, rank, column]
        ways = _ways(fluid, chains.tiles[b, rank, column], outside)
        new = ways[draw.integers(len(ways), size=n), column]
        if rank is other:
            filled = np.clip(fluid.filling(chains, b, rank), 1, outside)
            new = np.where(draw.random(n) < FILLED, filled, new)
        chains = _retiled(chains, b, rank, column, new, scaled=draw.random(n) < SCALED)
    return chains


def _outside(fluid: Fluid, chains: Chains) -> np.ndarray:
    """What each border cuts of each rank, (B, R, n)."""
    outside = np.empty_like(chains.tiles)
    outside[0] = fluid.extent[:, None]
    for b in range(1, len(outside)):
        outside[b] = np.ceil(chains.tiles[b - 1] / np.take(fluid.shares[b - 1], chains.parts[b - 1], axis=1))
    return outside


def _ways(fluid: Fluid, tile: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Other tiles of ranks, each a row before `tile`'s own axes: more and fewer trips, one, the whole, and the next
    multiples of the array's sides."""
    trips = np.ceil(outside / tile)
    counts = np.stack([trips + 1, trips - 1, trips * 2, np.floor(trips / 2), trips * 4, np.floor(trips / 4)])
    cut = np.ceil(outside / np.minimum(np.maximum(counts, 1), outside))
    array = fluid.machine.array
    beside = [
        t
        for side in (array.rows, array.cols)
        for t in ((np.floor(tile / side) + 1) * side, np.ceil(tile / side) * side - side)
    ]
    ways = np.concatenate([cut, np.stack([np.ones_like(tile), outside, *beside])])
    return np.minimum(np.maximum(ways, 1), outside)


def _retiled(
    chains: Chains,
    b: np.ndarray,
    rank: np.ndarray,
    column: np.ndarray,
    new: np.ndarray,
    *,
    scaled: np.ndarray | bool = False,
) -> Chains:
    """Chains (by column), each with another tile of a rank at border b; `scaled`: where the tiles inside change in
    proportion."""
    made, count = chains.take(column), np.arange(len(column))
    old = made.tiles[b, rank, count]
    made.tiles[b, rank, count] = new
    for inside in range(1, len(made.tiles)) if np.any(scaled) else ():
        some = np.flatnonzero((b < inside) & scaled)
        at = (inside, rank[some], some)
        made.tiles[at] = np.maximum(np.ceil(made.tiles[at] * new[some] / old[some]), 1)
    return made


def _moved(chains: Chains, b: int, rank: int, *, innermost: bool) -> Chains:
    """Chains with the loop of a rank at border b moved innermost or outermost."""
    place = chains.place.copy()
    at, own = place[b], chains.place[b, rank]
    if innermost:
        at -= at > own
    else:
        at += at < own
    at[rank] = len(at) - 1 if innermost else 0
    return Chains(chains.tiles, place, chains.parts)
