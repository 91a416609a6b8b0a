"""A tiled convolution or matrix product as the machine ran it: sizes, tiles, order of the tile loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from sim.errors import MappingError

RANKS = ("C", "K", "P", "Q", "R", "S")
"""Input channels, output channels, output columns, output rows, kernel columns, kernel rows."""

REDUCTION = ("C", "R", "S")


@dataclass(frozen=True, slots=True, kw_only=True)
class TileLoops:
    """Sizes and tile sizes per rank, and the tile loops that are in `order`, outer to inner.

    A rank with more than one tile must be in `order`. `window` is false for a matrix product
    (P rows, C reduction, K columns): its input has one row of P x C.
    """

    sizes: Mapping[str, int]
    tiles: Mapping[str, int]
    order: tuple[str, ...]
    stride: int = 1
    window: bool = True

    def __post_init__(self) -> None:
        for rank in RANKS:
            if not 1 <= self.tiles[rank] <= self.sizes[rank]:
                raise MappingError(f"rank {rank}: tile {self.tiles[rank]}, expected 1 to {self.sizes[rank]}")
            if self.trips(rank) > 1 and rank not in self.order:
                raise MappingError(f"rank {rank} has {self.trips(rank)} tiles and no loop: order is {self.order}")
        if len(set(self.order)) != len(self.order) or not set(self.order) <= set(RANKS):
            raise MappingError(f"order {self.order} repeats a rank or names one that is not of {RANKS}")

    def trips(self, rank: str) -> int:
        """Tiles along a rank; the last may be a remainder."""
        return ceil(self.sizes[rank] / self.tiles[rank])

    @property
    def tile_count(self) -> int:
        return prod(self.trips(rank) for rank in RANKS)

    @property
    def reduction_trips(self) -> int:
        return prod(self.trips(rank) for rank in REDUCTION)

    @property
    def macs(self) -> int:
        return prod(self.sizes[rank] for rank in RANKS)

    def input_extent(self, tile, kernel):
        """Input pixels along one axis that a tile loads: (t - 1) stride + kernel, with the stride's overhang."""
        return tile * self.stride + kernel - 1 if self.window else tile

    def classes(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Tile sizes per rank, each on its own axis (whole tile, then remainder), and how often each combination runs.

        A rank without a remainder has count 0 for its second class, so that all layers have one shape (2,) * 6.
        """
        sizes, counts = {}, np.ones((1,) * len(RANKS))
        for axis, rank in enumerate(RANKS):
            whole, rest = divmod(self.sizes[rank], self.tiles[rank])
            shape = [1] * len(RANKS)
            shape[axis] = 2
            sizes[rank] = np.array([self.tiles[rank], rest], dtype=float).reshape(shape)
            counts = counts * np.array([whole, 1 if rest else 0], dtype=float).reshape(shape)
        return sizes, counts
