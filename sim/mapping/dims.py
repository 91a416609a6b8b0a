"""Candidate tiles of one rank class (M, N, K or B), with what the search needs to know of each.

Time, traffic and footprint of an even mapping depend on the tiles of a class only through few
numbers, each of which is better when smaller: trips, tile extent, and the sum over tiles of the
array's folds (or streamed cycles). So per rank the Pareto set of those over *all* integers loses
nothing for the bound that the search uses; it has about 2 sqrt(extent) members. Lists depend on
extents and array sides only, never on a capacity or a core count: more hardware can only add
feasible candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from sim.errors import MappingError
from sim.mapping.array_job import gemm_view
from sim.mapping.arrays import BINDINGS, Dataflow, fold_cycles
from sim.mapping.machine import ArrayShape
from sim.mapping.problem import ROLES, Problem
from sim.workload.graph import OperandRole

EXHAUSTIVE = 48
"""Classes with at most this many tile combinations are listed in full, with all integers."""


@dataclass(frozen=True, kw_only=True)
class ClassTiles:
    """Tilings of the ranks of one class; all arrays have one entry per tiling.

    `tiles[rank]`, `trips` (over all ranks), `first[role]`, `last[role]` (of one instance), `total[role]` and
    `slid[role]`: this class's factor of the operand's elements in the first tile, in the last tile,
    summed over tiles, and summed when a sliding window keeps its overlap. `folds` is the sum over
    tiles of the array's folds on this class's side; `streamed` and `once` are the sums of the two
    parts of `fold_cycles` where the array streams this class. `depth` is the largest executed
    extent of one tile (one instance).
    """

    ranks: tuple[str, ...]
    tiles: Mapping[str, np.ndarray]
    trips: np.ndarray
    first: Mapping[OperandRole, np.ndarray]
    last: Mapping[OperandRole, np.ndarray]
    wave_first: Mapping[OperandRole, np.ndarray]
    """As `first` and `last`, over all instances that share the tile."""
    wave_last: Mapping[OperandRole, np.ndarray]
    total: Mapping[OperandRole, np.ndarray]
    slid: Mapping[OperandRole, np.ndarray]
    slid_again: Mapping[OperandRole, np.ndarray]
    """As `slid`, for a pass that finds the last box of the pass before still there."""
    folds: np.ndarray
    streamed: np.ndarray
    once: np.ndarray
    depth: np.ndarray

    def __len__(self) -> int:
        return len(self.trips)

    def take(self, rows: np.ndarray) -> ClassTiles:
        """Some of the tilings."""
        cut = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                cut[name] = value[rows]
            elif isinstance(value, dict):
                cut[name] = {key: column[rows] for key, column in value.items()}
        return replace(self, **cut)


def class_tiles(problem: Problem, array: ArrayShape, letter: str, parts: Mapping[str, int]) -> ClassTiles:
    """Candidate tilings of a class. `parts[rank]` instances share a tile of the rank.

    Lists recur across layers and chips: they are remembered by what they depend on.
    """
    shape = (
        tuple(problem.einsum.ranks.items()),
        tuple(problem.axes[role] for role in ROLES),
        problem.reduction_speedup,
    )
    key = (letter, shape, array, tuple(sorted(parts.items())))
    if key not in _LISTS:
        if len(_LISTS) > 5000:
            _LISTS.clear()
        _LISTS[key] = _Lister(problem, array, letter, parts).tilings()
    return _LISTS[key]


_LISTS: dict[tuple, ClassTiles] = {}


class _Lister:
    def __init__(self, problem: Problem, array: ArrayShape, letter: str, parts: Mapping[str, int]) -> None:
        self.problem, self.array, self.letter, self.parts = problem, array, letter, parts
        self.extent = {r: int(problem.einsum.ranks[r]) for r in problem.ranks}
        self.ranks = tuple(r for r in problem.in_class(letter) if r in problem.tiled_ranks)
        binding = BINDINGS[Dataflow(array.dataflow)]
        fields = {binding.rows: "rows", binding.cols: "cols", binding.stream: "stream"}
        self.field = fields.get(letter)
        self._check_axes()

    def _check_axes(self) -> None:
        """Factors by class exist only where no axis mixes tiled ranks of two classes."""
        problem = self.problem
        for role in ROLES:
            for axis in problem.axes[role]:
                classes = {problem.rank_class[r] for r in axis.ranks if r in problem.tiled_ranks}
                if len(classes) > 1:
                    raise MappingError(
                        f"an axis of the {role.value} mixes ranks {', '.join(axis.ranks)} of different classes"
                    )

    def tilings(self) -> ClassTiles:
        sizes = [self.extent[r] for r in self.ranks]
        if not self.ranks:
            return self._describe(np.ones((1, 0), dtype=np.int64))
        if int(np.prod(sizes, dtype=float)) <= EXHAUSTIVE:
            grid = np.array(list(product(*(range(1, n + 1) for n in sizes))), dtype=np.int64)
            return self._describe(grid)
        return self._describe(np.unique(np.concatenate([self._chain(i) for i in range(len(self.ranks))]), axis=0))

    def _chain(self, position: int) -> np.ndarray:
        """Tilings that cut rank `position`, keep the ranks inside it whole and those outside at 1:
        contiguous runs of the class's elements."""
        extent = self.extent[self.ranks[position]]
        table = np.ones((extent, len(self.ranks)), dtype=np.int64)
        table[:, position] = np.arange(1, extent + 1)
        for inside in range(position + 1, len(self.ranks)):
            table[:, inside] = self.extent[self.ranks[inside]]
        work = self._work(table)
        trips = -(-extent // table[:, position])
        # Rows grow with the tile; within one trip count keep a larger tile only for less work.
        group = np.cumsum(np.concatenate([[0], np.diff(trips) != 0]))
        reset = work - group * (work.max() + 1.0)  # each group lies below all groups before it
        keep = np.concatenate([[True], reset[1:] < np.minimum.accumulate(reset)[:-1]])
        keep |= np.concatenate([[True], np.diff(trips) != 0])
        return table[keep]

    # Sums over the tiles of a tiling: combinations of whole and remainder per rank ---------------
    def _boxes(self, table: np.ndarray) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        boxes: list[tuple[np.ndarray, dict[str, np.ndarray]]] = [(np.ones(len(table)), {})]
        for column, rank in enumerate(self.ranks):
            tile = table[:, column]
            trips = -(-self.extent[rank] // tile)
            rest = self.extent[rank] - (trips - 1) * tile
            grown = []
            for count, box in boxes:
                grown.append((count * (trips - 1), box | {rank: tile}))
                grown.append((count, box | {rank: rest}))
            boxes = grown
        return boxes

    def _sizes(self, box: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The class's ranks at the box, windows whole, ranks of other classes at 1."""
        whole = self.problem.window_ranks
        return {
            r: box[r] if r in box else np.int64(self.extent[r] if r in whole and self.letter == "K" else 1)
            for r in self.extent
        }

    def _shared(self, box: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The largest instance's part of a box."""
        return {r: -(-size // self.parts.get(r, 1)) for r, size in box.items()}

    def _work(self, table: np.ndarray) -> np.ndarray:
        """Sum over tiles of folds or streamed cycles of the largest instance."""
        described = self._array_sums(table)
        return described[0] if self.field != "stream" else described[1]

    def _array_sums(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(folds, per-fold cycles, once cycles) summed over tiles."""
        folds, streamed, once = (np.zeros(len(table)) for _ in range(3))
        for count, box in self._boxes(table):
            view = gemm_view(self.problem, self.array, self._sizes(self._shared(box)))
            if self.field == "stream":
                stream = np.broadcast_to(view["stream"], len(table))
                per_fold, rest = fold_cycles(stream, **fold_arguments(self.array))
                streamed += count * per_fold
                once += count * rest
            else:
                folds += count * np.broadcast_to(view[self.field or "B"], len(table))
        return folds, streamed, once

    def _factor(self, role: OperandRole, box: Mapping[str, np.ndarray], length: int) -> np.ndarray:
        """This class's factor of an operand's elements: product over the axes that it owns."""
        problem = self.problem
        sizes = {r: box.get(r, np.int64(self.extent[r])) for r in self.extent}
        factor = np.ones(length)
        for axis in problem.axes[role]:
            if self._owns(axis.ranks):
                factor = factor * problem.axis_extent(axis, sizes)
        return factor

    def _total(
        self, role: OperandRole, boxes: list[tuple[np.ndarray, dict[str, np.ndarray]]], length: int
    ) -> np.ndarray:
        """The factor summed over the class's tiles; 1 for an operand that does not depend on it."""
        if not any(self._owns(axis.ranks) for axis in self.problem.axes[role]):
            return np.ones(length)
        return np.asarray(sum(count * self._factor(role, box, length) for count, box in boxes))

    def _again(
        self, role: OperandRole, tiles: Mapping[str, np.ndarray], rest: Mapping[str, np.ndarray], length: int
    ) -> np.ndarray:
        """Least elements that a repeated pass over the class's tiles must load (a wrap may overlap).

        With one walked rank exactly: the union less the overlap of the last box with the first;
        with several at least the union less a whole tile.
        """
        whole = {r: np.full(length, self.extent[r]) for r in self.ranks}
        union = self._factor(role, whole, length)
        windowed = [a for a in self.problem.axes[role] if len(a.terms) > 1 and self._owns(a.ranks)]
        if not windowed:
            return union
        walked = sum((tiles[r] < self.extent[r]).astype(int) for r in self.ranks) if self.ranks else np.zeros(length)
        full = {r: np.full(length, n) for r, n in self.extent.items()}
        shift = {
            r: -(-(-self.extent[r] // tiles[r]) - 1) * tiles[r] if r in tiles else np.zeros(length, dtype=int)
            for r in self.extent
        }
        kept = np.ones(length)
        for axis in self.problem.axes[role]:
            if self._owns(axis.ranks):
                kept = kept * self.problem.axis_overlap(axis, full | dict(rest), full | dict(tiles), shift)
        return np.where(
            walked <= 1,
            union - np.where(walked == 1, kept, 0),
            np.maximum(0, union - self._factor(role, tiles, length)),
        )

    def _owns(self, ranks: tuple[str, ...]) -> bool:
        """An axis belongs to the class of its non-window ranks (of its window, if that is all)."""
        plain = [r for r in ranks if r not in self.problem.window_ranks] or list(ranks)
        return self.problem.rank_class[plain[0]] == self.letter

    def _describe(self, table: np.ndarray) -> ClassTiles:
        length = len(table)
        tiles = {r: table[:, c] for c, r in enumerate(self.ranks)}
        boxes = self._boxes(table)
        whole = {r: np.full(length, self.extent[r]) for r in self.ranks}
        rest = {r: self.extent[r] - (-(-self.extent[r] // t) - 1) * t for r, t in tiles.items()}
        shared = self._shared(tiles)
        total = {role: self._total(role, boxes, length) for role in ROLES}
        folds, streamed, once = self._array_sums(table)
        view = gemm_view(self.problem, self.array, self._sizes(shared))
        return ClassTiles(
            ranks=self.ranks,
            tiles=tiles,
            trips=np.prod([-(-self.extent[r] // t) for r, t in tiles.items()] or [np.ones(length)], axis=0).astype(
                float
            ),
            first={role: self._factor(role, shared, length) for role in ROLES},
            wave_first={role: self._factor(role, tiles, length) for role in ROLES},
            wave_last={role: self._factor(role, rest, length) for role in ROLES},
            last={role: self._factor(role, self._shared(rest), length) for role in ROLES},
            total=total,
            slid_again={role: self._again(role, tiles, rest, length) for role in ROLES},
            slid={role: np.minimum(total[role], self._factor(role, whole, length)) for role in ROLES},
            folds=folds,
            streamed=streamed,
            once=once,
            depth=np.broadcast_to(view[self.letter], length).astype(float),
        )


def thinned(lists: Mapping[str, ClassTiles], most: int) -> dict[str, ClassTiles]:
    """The lists cut so that their product is at most about `most` tilings.

    The longest list is halved again and again: of its tilings, ordered by trips, those nearest to
    equal steps of log(trips) stay, and within one trip count those with the least array work. The
    first and the last always stay. It depends on extents and array sides only.
    """
    kept = dict(lists)
    while np.prod([len(tiles) for tiles in kept.values()], dtype=float) > most:
        letter = max(kept, key=lambda c: len(kept[c]))
        if len(kept[letter]) <= 8:
            break
        kept[letter] = _half(kept[letter])
    return kept


def _half(tiles: ClassTiles) -> ClassTiles:
    order = np.lexsort((tiles.folds + tiles.streamed, tiles.trips))
    place = np.log(tiles.trips[order])
    wanted = np.linspace(place[0], place[-1], max(8, len(tiles) // 2))
    chosen = np.unique(np.clip(np.searchsorted(place, wanted - 1e-12), 0, len(order) - 1))
    return tiles.take(np.sort(order[np.union1d(chosen, [0, len(order) - 1])]))


def fold_arguments(array: ArrayShape) -> dict:
    """The keyword arguments of `fold_cycles` for an array."""
    drain = None
    if array.drain_bytes_per_cycle:
        drain = array.rows * array.cols * array.accumulate_bits / 8 / array.drain_bytes_per_cycle
    return {
        "rows": array.rows,
        "cols": array.cols,
        "dataflow": array.dataflow,
        "preload": array.preload,
        "folds": array.folds,
        "skew": array.skew,
        "drain_cycles": drain,
    }
