"""Candidate tiles of one rank class (M, N, K or B), with what the search needs to know of each.

Time, traffic and footprint of an even mapping depend on the tiles of a class only through few
numbers, each of which is better when smaller: trips, tile extent, and the sum over tiles of the
array's folds (or streamed cycles). So per rank the Pareto set of those over *all* integers loses
nothing for the bound that the search uses; it has about 2 sqrt(extent) members. Lists depend on
extents and array sides only, never on a capacity or a core count: more hardware can only add
feasible candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial, reduce
from itertools import permutations, product
from math import prod
from typing import Any

import numpy as np

from sim.errors import MappingError
from sim.hardware.chip import Dataflow, Folds, Preload, Skew
from sim.mapping.array_job import gemm_view
from sim.mapping.arrays import BINDINGS, ceil_div, fold_cycles
from sim.mapping.machine import ArrayShape
from sim.mapping.problem import ROLES, Problem
from sim.workload.graph import Axis, OperandRole

Box = tuple[np.ndarray, Mapping[str, np.ndarray]]
"""How many tiles of a tiling, and their extents per rank."""
_FIELDS = {flow: {b.rows: "rows", b.cols: "cols", b.stream: "stream"} for flow, b in BINDINGS.items()}
"""Dataflow -> class -> where the array has it."""
EXHAUSTIVE = 48
"""Classes with at most this many tile combinations are listed in full, with all integers."""


@dataclass(frozen=True, kw_only=True)
class ClassTiles:
    """Tilings of the ranks of one class; all arrays have one entry per tiling.

    `tiles[rank]`, `trips` (over all ranks), `first[role]`, `last[role]` (of one instance), `total[role]` and
    `slid[role]`: this class's factor of the operand's elements in the first tile, in the last tile,
    summed over tiles, and summed when a sliding window keeps its overlap. `folds` is the sum over
    tiles of the array's folds on this class's side; `streamed` and `once` are the sums of the two
    parts of `fold_cycles` where the array streams this class. `partial`: a tile's results leave the
    array as partial sums (of one instance).
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
    last_folds: np.ndarray
    """As `folds`, `streamed` and `once`, of the last tile alone."""
    last_streamed: np.ndarray
    last_once: np.ndarray
    passes: np.ndarray
    """Times that arrays take the whole of an operand which does not depend on the class, all arrays together."""
    partial: np.ndarray

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

    @staticmethod
    def join(lists: Sequence[ClassTiles]) -> ClassTiles:
        """Tilings of several problems one after the other; a rank that some do not tile has tiles of 1 there."""
        if len(lists) == 1:
            return lists[0]
        joined: dict[str, Any] = {}
        rest = [np.ones(len(one), dtype=np.int64) for one in lists]
        for name in ClassTiles.__dataclass_fields__:
            values = [getattr(one, name) for one in lists]
            if isinstance(values[0], np.ndarray):
                joined[name] = np.concatenate(values)
            elif isinstance(values[0], dict):
                keys = dict.fromkeys(key for value in values for key in value)
                columns = {key: [v.get(key, one) for v, one in zip(values, rest, strict=True)] for key in keys}
                joined[name] = {key: np.concatenate(column) for key, column in columns.items()}
        return ClassTiles(ranks=tuple(joined["tiles"]), **joined)


def class_tiles(
    problem: Problem, array: ArrayShape, letter: str, parts: Mapping[str, int], arrays: Mapping[str, int] | None = None
) -> ClassTiles:
    """Candidate tilings of a class. `parts[rank]` instances of the memory share a tile of the rank,
    `arrays[rank]` arrays beside each instance share what it holds.

    Lists recur across layers and chips: they are remembered by what they depend on.
    """
    owned, arrays = {role: problem.owned[role][letter] for role in ROLES}, arrays or {}
    ranks = dict.fromkeys([*problem.in_class(letter), *(r for axes in owned.values() for a in axes for r in a.ranks)])
    extent = problem.einsum.ranks
    taken, shared = (tuple(sorted((r, n) for r, n in split.items() if r in ranks)) for split in (parts, arrays))
    shape = (
        tuple((r, extent[r]) for r in ranks),
        tuple(owned.values()),
        problem.window_ranks.intersection(ranks),
        taken,
    )
    key = (letter, shape, problem.reduction_speedup if letter == "K" else 1.0, _seen_by(array, letter), shared)
    found = _LISTS.get(key)
    if found is None:
        if len(_LISTS) > 5000:
            forget()
        _check_axes(problem)
        found = _LISTS[key] = _Lister(problem, array, letter, parts, arrays, owned, shape).tilings()
    return found


def forget() -> None:
    """Empty what is remembered of lists."""
    _LISTS.clear()
    _FACTORS.clear()


@cache
def _seen_by(array: ArrayShape, letter: str) -> ArrayShape:
    """The array as lists of a class depend on it: a class that lies along one side does not see the other."""
    along = _FIELDS[Dataflow(array.dataflow)].get(letter)
    if along == "stream" or array.dataflow == Dataflow.ROW_STATIONARY:
        return array
    return replace(array, rows=array.rows if along == "rows" else 0, cols=array.cols if along == "cols" else 0)


def _check_axes(problem: Problem) -> None:
    """Factors by class exist only where no axis mixes tiled ranks of two classes."""
    for role in ROLES:
        for axis in problem.axes[role]:
            classes = {problem.rank_class[r] for r in axis.ranks if r in problem.tiled_ranks}
            if len(classes) > 1:
                raise MappingError(
                    f"an axis of the {role.value} mixes ranks {', '.join(axis.ranks)} of different classes"
                )


_LISTS: dict[tuple, ClassTiles] = {}
_FACTORS: dict[tuple, dict[str, dict[OperandRole, np.ndarray]]] = {}
"""Of tables of tiles, whatever the array."""


class _Lister:
    def __init__(
        self, problem: Problem, array: ArrayShape, letter: str, parts: Mapping[str, int],
        arrays: Mapping[str, int], owned: Mapping[OperandRole, tuple[Axis, ...]], shape: tuple,
    ) -> None:  # fmt: skip
        """`shape`: all that the tiles' factors depend on."""
        self.shape = shape
        self.problem, self.array, self.letter, self.owned = problem, array, letter, owned
        self.ranks = tuple(r for r in problem.in_class(letter) if r in problem.tiled_ranks)
        self.parts, self.arrays = ({r: n for r, n in split.items() if r in self.ranks} for split in (parts, arrays))
        self.extent = {r: int(problem.einsum.ranks[r]) for r in problem.ranks}
        self.whole = {r: np.asarray(n) for r, n in self.extent.items()}
        self.field = _FIELDS[Dataflow(array.dataflow)].get(letter)

    def tilings(self) -> ClassTiles:
        sizes = [self.extent[r] for r in self.ranks]
        if not self.ranks:
            return self._describe(np.ones((1, 0), dtype=np.int64), self._split)
        if int(np.prod(sizes, dtype=float)) <= EXHAUSTIVE:
            grid = np.array(list(product(*(range(1, n + 1) for n in sizes))), dtype=np.int64)
            return self._describe(grid, self._split)
        # The uncut end of a chain is the start of the one outside it.
        chains = [self._chain(i)[: -1 if i else None] for i in reversed(range(len(self.ranks)))]
        cut = np.repeat(np.arange(len(chains))[::-1], [len(chain) for chain in chains])
        return self._describe(np.concatenate(chains), partial(self._cut_at, position=cut))

    def _chain(self, position: int) -> np.ndarray:
        """Tilings that cut rank `position`, keep the ranks inside it whole and those outside at 1:
        contiguous runs of the class's elements."""
        extent = self.extent[self.ranks[position]]
        table = np.ones((extent, len(self.ranks)), dtype=np.int64)
        table[:, position] = np.arange(1, extent + 1)
        for inside in range(position + 1, len(self.ranks)):
            table[:, inside] = self.extent[self.ranks[inside]]
        tiles = dict(zip(self.ranks, table.T, strict=True))
        folds, streamed, _, *_ = self._array_sums(self._cut_at(table, position=np.full(extent, position)), tiles)
        work = streamed if self.field == "stream" else folds
        trips = -(-extent // table[:, position])
        # Rows grow with the tile; within one trip count keep a larger tile only for less work.
        group = np.cumsum(np.concatenate([[0], np.diff(trips) != 0]))
        reset = work - group * (work.max() + 1.0)  # each group lies below all groups before it
        keep = np.concatenate([[True], reset[1:] < np.minimum.accumulate(reset)[:-1]])
        keep |= np.concatenate([[True], np.diff(trips) != 0])
        return table[keep]

    # Sums over the tiles of a tiling: [(how many, box)] -------------------------------------------
    def _cut_at(self, table: np.ndarray, position: np.ndarray) -> list[Box]:
        """Boxes of a chain's tilings: only the rank at `position` has a remainder."""
        row = np.arange(len(table))
        whole = np.array([self.extent[r] for r in self.ranks], dtype=np.int64)
        trips = -(-whole // table)
        tiles = dict(zip(self.ranks, table.T, strict=True))
        many = trips[row, position]
        rest = table.copy()
        rest[row, position] = whole[position] - (many - 1) * table[row, position]
        others = trips.prod(axis=1, dtype=float) / many
        return [(others * (many - 1), tiles), (others, dict(zip(self.ranks, rest.T, strict=True)))]

    def _split(self, table: np.ndarray) -> list[Box]:
        """Boxes of any tilings: combinations of whole and remainder per rank."""
        boxes: list[Box] = [(np.ones(len(table)), {})]
        for column, rank in enumerate(self.ranks):
            tile = table[:, column]
            trips = -(-self.extent[rank] // tile)
            rest = self.extent[rank] - (trips - 1) * tile
            boxes = [
                grown
                for count, box in boxes
                for grown in ((count * (trips - 1), {**box, rank: tile}), (count, {**box, rank: rest}))
            ]
        return boxes

    def _shared(self, box: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The largest part of a box in one instance of the memory."""
        return {r: -(-size // self.parts.get(r, 1)) for r, size in box.items()} if self.parts else box

    def _run(self, box: Mapping[str, np.ndarray], tiles: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The largest part of a box on one array: a remainder is cut as whole tiles are."""
        held = self._shared(box)
        if not self.arrays:
            return held
        whole = self._shared(tiles)
        return {**held, **{r: np.minimum(-(-whole[r] // n), held[r]) for r, n in self.arrays.items()}}

    def _passes_of(self, box: Mapping[str, np.ndarray], tiles: Mapping[str, np.ndarray]) -> np.ndarray:
        """Folds along this class's side (one where it is streamed) of a box, on all arrays that share it."""
        parts: list[Box] = [(np.ones(1), dict(box))]
        for rank, arrays in self.arrays.items():
            part = -(-tiles[rank] // arrays)
            whole = -(-box[rank] // part) - 1
            rest = box[rank] - whole * part
            parts = [
                grown
                for count, one in parts
                for grown in ((count * whole, {**one, rank: np.minimum(part, box[rank])}), (count, {**one, rank: rest}))
            ]
        folds = (count * (1.0 if self.field == "stream" else self._array_view(one)) for count, one in parts)
        return np.asarray(sum(folds))

    def _array_sums(self, boxes: list[Box], tiles: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """(folds, per-fold cycles, once cycles) of the largest instance, summed over tiles; then those of the last."""
        length = len(boxes[0][0])
        nothing = np.zeros(length)
        if self.field != "stream":
            folds = [np.broadcast_to(self._array_view(self._run(box, tiles)), length) for _, box in boxes]
            total = sum(count * f for (count, _), f in zip(boxes, folds, strict=True))
            return np.asarray(total), nothing, nothing, folds[-1].astype(float), nothing, nothing
        both = [
            fold_cycles(np.broadcast_to(self._array_view(self._run(box, tiles)), length), **self.fold_arguments)
            for _, box in boxes
        ]
        streamed, once = (
            np.asarray(sum(count * part for (count, _), part in zip(boxes, parts, strict=True)))
            for parts in zip(*both, strict=True)
        )
        return nothing, streamed, once, nothing, *(part.astype(float) for part in both[-1])

    def _array_view(self, box: Mapping[str, np.ndarray]) -> np.ndarray:
        """What the array makes of a tile on this class's side: folds, or streamed cycles (see `gemm_view`)."""
        array = self.array
        if array.dataflow == Dataflow.ROW_STATIONARY:
            whole = self.problem.window_ranks
            one = {r: np.asarray(n if r in whole and self.letter == "K" else 1) for r, n in self.extent.items()}
            return np.asarray(gemm_view(self.problem, array, one | dict(box))[self.field or "B"])
        extent = self._extent(box)
        if self.field == "stream":
            return np.ceil(extent / array.macs_per_cell)
        return ceil_div(extent, {"rows": array.rows, "cols": array.cols}.get(self.field or "", 1))

    def _partial(self, box: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whether the array folds the reduction of a tile on its rows, or arrays beside each other share it."""
        if self.letter != "K":
            return np.zeros(1, dtype=bool)
        held = self._shared(box)
        shared = [np.asarray(held[r]) > 1 for r in self.arrays]
        folded = self._extent(self._run(box, box)) > self.array.rows
        if self.array.dataflow not in (Dataflow.WEIGHT_STATIONARY, Dataflow.INPUT_STATIONARY):
            folded = np.zeros_like(folded)
        return reduce(np.logical_or, shared, folded)

    def _extent(self, box: Mapping[str, np.ndarray]) -> np.ndarray:
        """Executed extent of the class in a tile; windows are whole."""
        extent: np.ndarray = np.ones(1, dtype=np.int64)
        for rank in self.problem.in_class(self.letter):
            extent = extent * box.get(rank, self.extent[rank])
        speedup = self.problem.reduction_speedup if self.letter == "K" else 1.0
        return extent if speedup == 1 else np.ceil(extent / speedup)

    # This class's factors of an operand's elements ------------------------------------------------
    def _factor(self, axes: Sequence[Axis], box: Mapping[str, np.ndarray], length: int) -> np.ndarray:
        sizes = self.whole | dict(box)
        factor = np.ones(length)
        for axis in axes:
            factor = factor * self.problem.axis_extent(axis, sizes)
        return factor

    def _passes(
        self, axes: tuple[Axis, ...], tiles: Mapping[str, np.ndarray], rest: Mapping[str, np.ndarray], length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Elements that a window loads in one pass over the class's tiles, and at least in each pass after it.

        Of every rank three numbers: `size`, the sum of its tiles' extents; `kept`, what tiles share with those before
        them; `wrap`, what the last shares with the first (all, where there is one tile). Where rank k advances, those
        outside it stay and those inside it wrap, so that a pass loads the product of the sizes less the sum over k of
        prod(sizes outside) kept_k prod(wraps inside). A loop on which the operand does not depend does least harm
        just outside the innermost loop that is walked, w: what w's wrap shares stays, for every tile of the others.
        Each is the least over the orders (ranks that do not slide stand best outside).
        """
        if any(len(set(self.ranks).intersection(axis.ranks)) > 1 for axis in axes):  # a bound: the union, less one tile
            union = self._factor(axes, {}, length)
            return union, np.maximum(0, union - self._factor(axes, tiles, length))
        own = {rank: [axis for axis in axes if rank in axis.ranks] for rank in self.ranks}
        along = {rank: self._along(rank, own[rank], tiles[rank], rest[rank], length) for rank in self.ranks}
        size, kept, wrap = ({rank: numbers[i] for rank, numbers in along.items()} for i in range(3))
        sliding = [rank for rank in self.ranks if any(len(axis.terms) > 1 for axis in own[rank])]
        fixed = self._factor([axis for axis in axes if not set(self.ranks).intersection(axis.ranks)], {}, length)
        whole = prod((size[rank] for rank in self.ranks if rank not in sliding), start=fixed)
        every = prod((size[rank] for rank in sliding), start=whole)
        once = every
        for order in permutations(sliding):
            shared = np.zeros(length)
            for place, rank in enumerate(order):
                outside = prod((size[r] for r in order[:place]), start=whole)
                shared = shared + prod((wrap[r] for r in order[place + 1 :]), start=outside * kept[rank])
            once = np.minimum(once, every - shared)
        again = np.where(sum(tiles[r] < self.extent[r] for r in self.ranks), every, 0.0)
        for rank in self.ranks:
            others = prod((size[r] for r in self.ranks if r != rank), start=fixed)
            slides = others * (size[rank] - kept[rank] - wrap[rank])
            again = np.where(tiles[rank] < self.extent[rank], np.minimum(again, slides), again)
        return once, again

    def _along(
        self, rank: str, axes: list[Axis], tile: np.ndarray, rest: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(size, kept, wrap) of a rank's tiles on the axes that move with it."""
        trips = -(-self.extent[rank] // tile)
        full, still = self.whole, dict.fromkeys(self.extent, np.zeros((), dtype=np.int64))

        def extent(box: np.ndarray) -> np.ndarray:
            return self._factor(axes, {rank: box}, length)

        def shared(old: np.ndarray, new: np.ndarray, shift: np.ndarray) -> np.ndarray:
            return prod(
                (
                    self.problem.axis_overlap(a, full | {rank: old}, full | {rank: new}, still | {rank: shift})
                    for a in axes
                ),
                start=np.ones(length),
            )

        size = (trips - 1) * extent(tile) + extent(rest)
        kept = np.maximum(trips - 2, 0) * shared(tile, tile, tile) + (trips > 1) * shared(tile, rest, tile)
        wrap = np.where(trips > 1, shared(rest, tile, (1 - trips) * tile), size)
        return size, kept, wrap

    def _describe(self, table: np.ndarray, split: Callable[[np.ndarray], list[Box]]) -> ClassTiles:
        length = len(table)
        tiles = {r: table[:, c] for c, r in enumerate(self.ranks)}
        trips = {r: -(-self.extent[r] // tile) for r, tile in tiles.items()}
        rest = {r: self.extent[r] - (trips[r] - 1) * tile for r, tile in tiles.items()}
        boxes, walked = split(table), np.prod([*trips.values(), np.ones(length)], axis=0)
        folds, streamed, once, last_folds, last_streamed, last_once = self._array_sums(boxes, tiles)
        passes = walked if self.field == "stream" else folds
        if self.arrays:
            passes = np.asarray(sum(count * self._passes_of(box, tiles) for count, box in boxes))
        # Arrays differ in what they make of tiles; the tiles often are the same.
        shared = (*self.shape, table.tobytes())
        if shared not in _FACTORS:
            factors: dict[str, dict[OperandRole, np.ndarray]] = {name: {} for name in FACTORS}
            for role in ROLES:
                for name, values in self._factors(role, tiles, rest, boxes, length).items():
                    factors[name][role] = values
            _FACTORS[shared] = factors
        return ClassTiles(
            ranks=self.ranks,
            tiles=tiles,
            trips=walked,
            folds=folds,
            streamed=streamed,
            once=once,
            last_folds=last_folds,
            last_streamed=last_streamed,
            last_once=last_once,
            passes=passes,
            partial=np.broadcast_to(self._partial(tiles), length),
            **_FACTORS[shared],
        )

    def _factors(
        self, role: OperandRole, tiles: Mapping[str, np.ndarray], rest: Mapping[str, np.ndarray], boxes: list[Box],
        length: int,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        axes = self.owned[role]
        if not axes:  # an operand that does not depend on the class has one element of it
            return dict.fromkeys(FACTORS, np.ones(length))
        first, last = (self._factor(axes, box, length) for box in (tiles, rest))
        found = {"wave_first": first, "wave_last": last, "first": first, "last": last}
        if self.parts:
            found["first"], found["last"] = (self._factor(axes, self._shared(box), length) for box in (tiles, rest))
        whole = self._factor(axes, {}, length)
        if all(len(axis.terms) == 1 for axis in axes):  # tiles are apart
            return found | dict.fromkeys(("total", "slid", "slid_again"), whole)
        total = np.asarray(sum(count * self._factor(axes, box, length) for count, box in boxes))
        once, again = self._passes(axes, tiles, rest, length)
        return found | {"total": total, "slid": once, "slid_again": again}

    @cached_property
    def fold_arguments(self) -> dict:
        """The keyword arguments of `fold_cycles` for the array."""
        array = self.array
        return {
            "rows": array.rows,
            "cols": array.cols,
            "dataflow": Dataflow(array.dataflow),
            "preload": Preload(array.preload),
            "folds": Folds(array.folds),
            "skew": Skew(array.skew),
            # A drain port is bound apart (`Terms.cycles`): its work depends on other classes too.
            "drain_cycles": 0 if array.drain_bytes_per_cycle else None,
        }


FACTORS = ("first", "last", "wave_first", "wave_last", "total", "slid", "slid_again")


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
