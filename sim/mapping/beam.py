"""A beam search over chains of tiles, orders and splits, by the quick cost of `fluid`.

The beam starts from chains that differ as much as they can (everything cut to one, nothing cut, random
cuts) and keeps the best after each round. A round makes every neighbour: the tile of one rank at one
border (another trip count, a multiple of the array's side, inner tiles clipped or scaled with it), one
loop moved innermost or outermost, another split; and a sample of neighbours of neighbours, which trade
one rank's room for another's. The draw is seeded: the same question has the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.mapping.fluid import Aim, Chains, Fluid


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How far a search goes."""

    width: int = 32
    """Chains kept after a round."""
    rounds: int = 24
    pairs: int = 1500
    """Neighbours of neighbours in a round."""
    starts: int = 200
    """Random chains at the start."""
    patience: int = 2
    """Rounds without gain after which it ends."""

    @property
    def aside(self) -> Effort:
        """Of a search beside the main one."""
        return replace(self, width=self.width * 3 // 8, pairs=self.pairs // 3, patience=1)


GAIN = 1e-3
"""Share by which a round must better the best."""
EQUAL = 2
"""Chains of one value that are kept: they differ in what does not matter, and many would leave no room for others."""


def best_chains(fluid: Fluid, effort: Effort, aims: Sequence[Aim]) -> tuple[list[Chains], int]:
    """(the best chains by each aim, best first; chains costed). Every aim keeps the effort's width, of all that any
    aim's chains lead to."""
    draw = np.random.default_rng(0)
    held = np.array([aim.fixed for aim in aims])
    some = starts(fluid, effort.starts, draw)
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
                near = Chains.join(list(neighbours(fluid, beam.take(mine))))
                far = near.take(draw.integers(len(near), size=effort.pairs))
                around.append(canonical(fluid, Chains.join([near, changed(fluid, far, draw)]), fixed=fixed))
        near = _distinct(Chains.join(around))
        costed += len(near)
        made, value = Chains.join([beam, near]), np.concatenate([value, fluid.by(aims, near)], axis=1)
        kept, rows = _kept(value, effort.width)
        beam, value, fresh = made.take(rows), value[:, rows], np.flatnonzero(rows >= len(beam))
        least = value.min(axis=1, initial=np.inf)
        still = 0 if (least < seen * (1 - GAIN)).any() else still + 1
        seen = np.minimum(seen, least)
        if still >= effort.patience:
            break
    return [beam.take(_best(own, effort.width)) for own in value], costed


def _kept(value: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(aim, kept chain) -> whether the aim keeps it; rows of the chains that some aim keeps, (aims, n)."""
    best = [_best(own, width) for own in value]
    rows = np.array(list(dict.fromkeys(np.concatenate(best).tolist())), dtype=np.int64)
    return np.stack([np.isin(rows, own) for own in best]), rows


def _best(value: np.ndarray, most: int) -> np.ndarray:
    """Rows of the best `most` that fit, no more than `EQUAL` of one value."""
    rows = np.flatnonzero(np.isfinite(value))
    rows = rows[np.argsort(value[rows], kind="stable")]
    first = np.flatnonzero(np.diff(value[rows], prepend=-np.inf) > value[rows] * 1e-9)
    place = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
    return rows[place < EQUAL][:most]


def _distinct(chains: Chains) -> Chains:
    """Chains that differ, by a hash of their numbers."""
    n, borders, ranks = chains.tiles.shape
    weights = np.random.default_rng(1).integers(1, 2**62, size=2 * borders * ranks + chains.parts.shape[1])
    flat = (chains.tiles.reshape(n, -1), chains.order.reshape(n, -1), chains.parts)
    hashed = np.zeros(n, dtype=np.int64)
    with np.errstate(over="ignore"):
        for part, some in zip(flat, np.split(weights, [borders * ranks, 2 * borders * ranks]), strict=True):
            hashed += part @ some
    return chains.take(np.sort(np.unique(hashed, return_index=True)[1]))


def canonical(fluid: Fluid, chains: Chains, *, fixed: bool) -> Chains:
    """Tiles no larger than what they cut; loops of one trip outermost, in the order of the ranks. `fixed`: of the loops
    that go on with the array's dataflow the innermost inside all others."""
    tiles, order = chains.tiles.copy(), chains.order
    size = np.broadcast_to(fluid.extent, tiles[:, 0].shape)
    walked = np.empty(tiles.shape, dtype=bool)
    for b in range(tiles.shape[1]):
        tiles[:, b] = np.minimum(tiles[:, b], size)
        walked[:, b] = tiles[:, b] < size
        share = fluid.shares[b]
        size = tiles[:, b] if len(share) == 1 and (share == 1).all() else -(-tiles[:, b] // share[chains.parts[:, b]])
    if fixed:
        order = _obeying(order, walked & fluid.held)
    # (np.take along rows of a flat table is faster than np.take_along_axis)
    row = np.arange(0, order.size, order.shape[2]).reshape(*order.shape[:2], 1)
    moving = walked.take(order + row)
    at = np.where(moving, moving.cumsum(axis=2), (~walked).cumsum(axis=2).take(order + row)) - 1
    at += np.where(moving, (~walked).sum(axis=2, keepdims=True), 0)
    placed = np.empty_like(order)
    np.put(placed, at + row, order)
    return Chains(tiles, placed, chains.parts)


def _obeying(order: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Orders with the last of the ranks `held` (by number) innermost, where there is one."""
    ranks = order.shape[2]
    mine = np.take_along_axis(held, order, axis=2)
    last = ranks - 1 - np.argmax(mine[..., ::-1], axis=2)[..., None]  # (where there is none, the last: as it is)
    place = np.arange(ranks)
    at = np.where(place < last, place, np.minimum(place + 1, ranks - 1))
    return np.take_along_axis(order, np.where(place == ranks - 1, last, at), axis=2)


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
    order = np.argsort(draw.random(shape), axis=2)
    parts = np.stack([draw.integers(len(options), size=shape[0]) for options in fluid.options], axis=1)
    return Chains(tiles, order, parts)


def neighbours(fluid: Fluid, chains: Chains) -> Iterator[Chains]:
    """Every change of one thing."""
    n, borders, ranks = chains.tiles.shape
    for b in range(borders):
        for r in range(ranks):
            rank = np.full(n, r)
            ways = _ways(fluid, chains, b, rank)
            yield _retiled(chains, b, rank, ways)
            if b + 1 < borders:
                yield _retiled(chains, b, rank, ways, scaled=True)
            yield _moved(chains, b, rank, to=ranks - 1)
            yield _moved(chains, b, rank, to=0)
        for option in range(len(fluid.options[b])) if len(fluid.options[b]) > 1 else ():
            parts = chains.parts.copy()
            parts[:, b] = option
            yield Chains(chains.tiles, chains.order, parts)


def changed(fluid: Fluid, chains: Chains, draw: np.random.Generator) -> Chains:
    """Each chain with one more random change of a tile."""
    n, borders, ranks = chains.tiles.shape
    made = []
    at = draw.integers(borders, size=n)
    for b in range(borders):
        some = chains.take(np.flatnonzero(at == b))
        rank = draw.integers(ranks, size=len(some))
        ways = _ways(fluid, some, b, rank)
        move = draw.integers(len(ways), size=len(some))
        made.append(_retiled(some, b, rank, ways[move, np.arange(len(some))][None]))
    return Chains.join(made)


def _ways(fluid: Fluid, chains: Chains, b: int, rank: np.ndarray) -> np.ndarray:
    """Other tiles of a rank of each chain at border b, (ways, n): more and fewer trips, one, the whole,
    and the next multiples of the array's sides."""
    rows = np.arange(len(chains))
    outside = fluid.extent[rank]
    if b:
        outside = chains.tiles[rows, b - 1, rank]
        outside = -(-outside // fluid.shares[b - 1][chains.parts[:, b - 1], rank])
    tile = chains.tiles[rows, b, rank]
    trips = -(-outside // tile)
    counts = np.stack([trips + 1, trips - 1, trips * 2, trips // 2, trips * 4, trips // 4])
    cut = -(-outside // np.minimum(np.maximum(counts, 1), outside))
    array = fluid.machine.array
    beside = [
        t for side in (array.rows, array.cols) for t in ((tile // side + 1) * side, -(-tile // side) * side - side)
    ]
    ways = np.concatenate([cut, np.stack([np.ones_like(tile), outside, *beside])])
    return np.minimum(np.maximum(ways, 1), outside)


def _retiled(chains: Chains, b: int, rank: np.ndarray, ways: np.ndarray, *, scaled: bool = False) -> Chains:
    """Chains with the tile of a rank each at border b replaced in every way that changes it; `scaled`:
    the tiles inside change in proportion."""
    rows = np.arange(len(chains))
    old = chains.tiles[rows, b, rank]
    way, row = np.nonzero(ways != old)
    new, tiles = ways[way, row], chains.tiles[row]
    count = np.arange(len(row))
    tiles[count, b, rank[row]] = new
    if scaled:
        for inside in range(b + 1, tiles.shape[1]):
            grown = -(-tiles[count, inside, rank[row]] * new // old[row])
            tiles[count, inside, rank[row]] = np.maximum(grown, 1)
    return Chains(tiles, chains.order[row], chains.parts[row])


def _moved(chains: Chains, b: int, rank: np.ndarray, *, to: int) -> Chains:
    """Chains with the loop of a rank at border b moved innermost or outermost."""
    order = chains.order[:, b]
    rest = order[order != rank[:, None]].reshape(len(order), -1)
    moved = np.insert(rest, to, rank, axis=1)
    changed_ = chains.order.copy()
    changed_[:, b] = moved
    return Chains(chains.tiles, changed_, chains.parts)
