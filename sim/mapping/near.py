"""Chains to start a search over several borders from, made of a mapping that is good on a machine much like this one.

On the other machine the best mapping seldom lies far away: tiles grow where there is more room and shrink where there
is less or elements are wider, and instances share more or less of a rank. So the mapping is tried as it is and with
tiles of half, a quarter and an eighth, one rank or all of them, from any border inwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from sim.mapping.beam import Effort
from sim.mapping.fluid import Chains, Fluid, Parts
from sim.mapping.mapping import Loop, Mapping

NEAR = Effort(width=48, pairs=500, trades=1000, patience=1)
"""How far such a search goes: about a quarter of the time of a wide one. On two memories around four arrays what it
finds is 0.2 to 0.5 % slower in the mean (the mappings at hand 0.4 to 35 %), on Eyeriss 1 to 4 % (7 to 13)."""
SHRUNK = (1.0, 0.5, 0.25, 0.125)
"""Shares of the tiles that are tried."""
WAYS = 64
"""Ways to use the fan-outs that are tried at most, where they are not those of the mapping at hand."""


@dataclass(frozen=True, slots=True)
class _Border:
    """What a border leaves of each rank before instances share it, (R,), where its loops stand, and the parts."""

    tile: np.ndarray
    place: np.ndarray
    shared: tuple[dict[str, int], dict[str, int]]
    """Rank -> what each instance of the memory takes of it, and then each array."""


def seeds(fluid: Fluid, mapping: Mapping) -> tuple[Fluid, Chains]:
    """The mapping as chains of this problem and machine, and with smaller tiles; some may fit nowhere.

    They are chains of the fluid that is handed back: other sizes of fan-outs have other ways to use them, and those of
    the mapping stand among these as long as there are as many instances.
    """
    borders = list(_borders(fluid, mapping))
    own = _own(fluid, borders)
    others = np.empty((len(borders), 0), dtype=int)
    if not all(own):  # fan-outs of other sizes
        fluid = fluid.offering([_way(fluid, b, border) for b, border in enumerate(borders)])
        own, others = _own(fluid, borders), _columns([list(range(len(ways))) for ways in fluid.options])
    if others.shape[1] > WAYS:
        others = others[:, np.linspace(0, others.shape[1] - 1, WAYS).astype(int)]
    parts = np.concatenate([_columns(own), others], axis=1)
    tiles = _shrunk(np.stack([border.tile for border in borders]))
    place = np.stack([border.place for border in borders])[..., None]
    sizes, ways = tiles.shape[-1], parts.shape[1]
    return fluid, Chains(
        np.ascontiguousarray(np.repeat(tiles, ways, axis=-1), dtype=fluid.real),
        np.ascontiguousarray(np.repeat(place, sizes * ways, axis=-1)),
        np.tile(parts, sizes),
    )


def _borders(fluid: Fluid, mapping: Mapping) -> Iterator[_Border]:
    """The loops of the mapping, border by border."""
    levels, ranks = fluid.machine.levels, list(fluid.ranks)
    inside = fluid.machine.array.fanout_name
    loops: dict[str, list[Loop]] = {}
    pending: list[Loop] = []
    arrays: list[Loop] = []
    for node in mapping.nodes:
        if not isinstance(node, Loop):
            loops[node.memory] = loops.get(node.memory, []) + pending
            pending = []
        elif node.spatial and node.fanout == inside:
            arrays.append(node)
        else:
            pending.append(node)
    size = dict(zip(ranks, fluid.extent.tolist(), strict=True))
    for b, (level, _, _) in enumerate(fluid.routes):
        own = loops.get(levels[level].name, [])
        tile = size | {loop.rank: float(loop.tile) for loop in own if not loop.spatial}
        walked = [loop.rank for loop in own if not loop.spatial]
        order = walked + [rank for rank in ranks if rank not in walked]
        shared = {loop.rank: loop.tile for loop in own if loop.spatial}
        size = tile | {rank: float(n) for rank, n in shared.items()}
        last = {loop.rank: loop.tile for loop in arrays} if b == len(fluid.routes) - 1 else {}
        place = np.array([order.index(rank) for rank in ranks], dtype=np.int8)
        yield _Border(np.array([tile[rank] for rank in ranks]), place, (shared, last))


def _columns(choices: list[list[int]]) -> np.ndarray:
    """Every combination of one choice of each border: (B, n)."""
    return np.array(list(product(*choices)), dtype=int).reshape(-1, len(choices)).T


def _own(fluid: Fluid, borders: list[_Border]) -> list[list[int]]:
    """Of each border, which ways to use the fan-outs hand out the parts that the mapping does."""
    return [[k for k, way in enumerate(ways) if _is(fluid, b, way, borders[b])] for b, ways in enumerate(fluid.options)]


def _way(fluid: Fluid, b: int, border: _Border) -> Parts | None:
    """The way in which the mapping uses the fan-outs at border b; None where there are not as many instances."""
    machine, size = fluid.machine, dict(zip(fluid.ranks, border.tile.tolist(), strict=True))
    level, way = fluid.routes[b][0], []
    there = (machine.levels[level].fanout, machine.array.fanout)
    for at, count, shared in zip((level, len(machine.levels)), there, border.shared, strict=True):
        made = [(rank, -(-int(size[rank]) // n), at) for rank, n in shared.items() if n < size[rank]]
        if prod(instances for _, instances, _ in made) > count:
            return None
        way += made
        size |= shared
    return tuple(way)


def _is(fluid: Fluid, b: int, way: tuple[tuple[str, int, int], ...], border: _Border) -> bool:
    """Whether a way to use the fan-outs at border b hands out the parts that the mapping does."""
    size = dict(zip(fluid.ranks, border.tile.tolist(), strict=True))
    level = fluid.routes[b][0]
    for at, shared in zip((level, len(fluid.machine.levels)), border.shared, strict=True):
        made = {rank: -(-int(size[rank]) // count) for rank, count, where in way if where == at}
        if {rank: n for rank, n in made.items() if n < size[rank]} != {r: n for r, n in shared.items() if n < size[r]}:
            return False
        size |= made
    return True


def _shrunk(tiles: np.ndarray) -> np.ndarray:
    """(B, R) tiles as (B, R, n): as they are first, and of one rank or all in smaller shares from a border inwards."""
    borders, ranks = tiles.shape
    made = [tiles]
    for share in SHRUNK[1:]:
        for b in range(borders):
            for rank in (slice(None), *range(ranks)):
                new = tiles.copy()
                new[b:, rank] = np.ceil(new[b:, rank] * share)
                made.append(new)
    return np.stack(made, axis=-1)
