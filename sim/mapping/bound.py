"""A lower bound of every even mapping over one border, for whole grids of candidates at once.

A candidate is a tile per rank and the class (M, N, K or B) of the innermost loop. With double
buffers its time is at least

    first load + max(array cycles, busy time of each port without both ends) + last store

(the fluid form of the recurrence: the maximum of sums is at most the sum of maxima). Traffic is
closed form: an operand is loaded once per trip of the loops that it does not depend on, unless
the innermost class is the one it does not depend on; a sliding window keeps its overlap unless
reduction loops run inside it. Everything factors by class, so a grid of M x N x K x B tilings costs
a few dozen array operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sim.mapping.arrays import BINDINGS, Dataflow
from sim.mapping.dims import ClassTiles, class_tiles
from sim.mapping.machine import Machine
from sim.mapping.problem import INPUT, OUTPUT, WEIGHT, Problem
from sim.workload.graph import OperandRole

CLASSES = "MNKB"
AXIS = {letter: i for i, letter in enumerate(CLASSES)}


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where operands are stored at a border (None: they pass by), and what the array reads from."""

    level: int
    parent: Mapping[OperandRole, int]
    stored: frozenset[OperandRole]
    innermost: Mapping[OperandRole, int]
    copies: int


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """A block of candidates, flat: every array has one entry per (innermost class, tiling).

    cycles: array cycles; first, middle, last: bytes per port (rows) and candidate; moves: transfers
    in the middle; footprint_bytes: in the border's memory, second copies included; which: innermost
    class; index: position in the four class lists.
    """

    cycles: np.ndarray
    first: np.ndarray
    middle: np.ndarray
    last: np.ndarray
    moves: np.ndarray
    footprint_bytes: np.ndarray
    traffic_bytes: np.ndarray
    """(levels, 2, candidates) read and written bytes per memory"""
    loading: frozenset[int]
    """Ports that every step's load uses."""
    which: np.ndarray
    index: np.ndarray
    """(4, candidates)"""

    def __len__(self) -> int:
        return len(self.cycles)

    def time(self, rates: np.ndarray, setup: float, latency: float) -> np.ndarray:
        """The bound in cycles for one design: rates (ports,) bytes per cycle."""
        inverse = 1.0 / rates
        middle = self.cycles + 0.0
        for port, scale in enumerate(inverse):
            busy = self.middle[port] * scale
            if setup and port in self.loading:
                busy = busy + self.moves * setup
            np.maximum(middle, busy, out=middle)
        return latency + _ends(self.first, inverse, setup) + middle + _ends(self.last, inverse, setup)


def _ends(moved: np.ndarray, inverse: np.ndarray, setup: float) -> np.ndarray:
    longest = np.zeros(moved.shape[1])
    for port, scale in enumerate(inverse):
        if scale > 0.0:
            np.maximum(longest, moved[port] * scale, out=longest)
    return longest + setup * (longest > 0)


class Grid:
    """All even candidates of one problem on one machine structure, over one border."""

    def __init__(self, problem: Problem, machine: Machine, route: Route, parts: Mapping[str, int]) -> None:
        self.problem, self.machine, self.route = problem, machine, route
        self.parts = dict(parts)
        self.lists = {letter: class_tiles(problem, machine.array, letter, parts) for letter in CLASSES}
        self.shape = tuple(len(self.lists[letter]) for letter in CLASSES)

    def __len__(self) -> int:
        """Tilings; each stands for up to four candidates."""
        return int(np.prod(self.shape))

    def blocks(self, most: int = 24_000):  # noqa: ANN201 - generator of Candidates
        """Candidates in blocks that stay in the cache, cut along the longest class list."""
        longest = max(range(4), key=lambda a: self.shape[a])
        step = max(1, most * self.shape[longest] // max(len(self), 1))
        for start in range(0, self.shape[longest], step):
            yield self._block({longest: slice(start, min(start + step, self.shape[longest]))})

    def tiling(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Tile of every tiled rank for candidates given by `Candidates.index` columns."""
        tiles: dict[str, np.ndarray] = {}
        for letter, positions in zip(CLASSES, index, strict=True):
            for rank, values in self.lists[letter].tiles.items():
                tiles[rank] = values[positions]
        return tiles

    # One block -----------------------------------------------------------------------------------
    def _block(self, cut: Mapping[int, slice]) -> Candidates:
        view = _View(self.lists, cut)
        cycles = self._cycles(view)
        shape = np.broadcast_shapes(*(view.trips[c].shape for c in CLASSES))
        index = np.stack([np.broadcast_to(view.position[c], shape).ravel() for c in CLASSES])
        footprint = self._footprint(view)
        first, last = self._ends_bytes(view)
        fed = self._fed(view)
        blocks = []
        for letter in CLASSES:
            valid = np.broadcast_to(self._valid(view, letter), shape).ravel()
            if not valid.any():
                continue
            middle, traffic, moves = self._moved(view, letter, first, last, fed)

            def flat(values: np.ndarray, keep: np.ndarray = valid) -> np.ndarray:
                full = np.broadcast_to(values, shape).ravel()
                return full if keep.all() else full[keep]

            blocks.append(
                Candidates(
                    cycles=flat(cycles),
                    first=np.stack([flat(b) for b in first]),
                    middle=np.stack([flat(b) for b in middle]),
                    last=np.stack([flat(b) for b in last]),
                    moves=flat(moves),
                    footprint_bytes=flat(footprint),
                    traffic_bytes=np.stack([np.stack([flat(t) for t in level]) for level in traffic]),
                    which=np.full(int(valid.sum()), AXIS[letter]),
                    index=index if valid.all() else index[:, valid],
                    loading=self._loading(),
                )
            )
        return concatenate(blocks)

    def _valid(self, view: _View, letter: str) -> np.ndarray:
        """The class has a loop to be innermost, or nothing has (then M stands for no loop at all)."""
        single = np.ones(1, dtype=bool)
        for other in CLASSES:
            single = single & (view.trips[other] == 1)
        return (view.trips[letter] > 1) | (single & (letter == "M"))

    def _cycles(self, view: _View) -> np.ndarray:
        """Array cycles summed over all tiles (of the largest instance)."""
        binding = BINDINGS[Dataflow(self.machine.array.dataflow)]
        rows, cols, stream = binding
        folds = view.folds[rows] * view.folds[cols] * view.folds["B"]
        jobs = view.trips[rows] * view.trips[cols] * view.trips["B"]
        return folds * view.streamed[stream] + jobs * view.once[stream]

    def _product(self, parts: list[np.ndarray]) -> np.ndarray:
        product = parts[0]
        for part in parts[1:]:
            product = product * part
        return product

    def _elements(self, view: _View, role: OperandRole, which: str) -> np.ndarray:
        return self._product([getattr(view, which)[c][role] for c in CLASSES])

    def _footprint(self, view: _View) -> np.ndarray:
        total = np.zeros(1)
        for role in self.route.stored:
            width: np.ndarray | float = self.problem.bits[role]
            if role is OUTPUT:
                width = np.where(self._partial(view), self.problem.accumulate_bits, self.problem.bits[OUTPUT])
            total = total + self._elements(view, role, "first") * width * (self.route.copies / 8)
        return total

    def _partial(self, view: _View) -> np.ndarray:
        """The output tile holds partial sums at some time."""
        partial = view.trips["K"] > 1
        outside = self.machine.array.dataflow in ("weight_stationary", "input_stationary")
        if outside and self.route.innermost[OUTPUT] == self.route.level:
            partial = partial | (view.depth["K"] > self.machine.array.rows)
        return partial

    def _ends_bytes(self, view: _View) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Bytes of the first load and the last store, per port."""
        ports = range(len(self.machine.ports))
        first: list[np.ndarray] = [np.zeros(1) for _ in ports]
        last: list[np.ndarray] = [np.zeros(1) for _ in ports]
        levels, route = self.machine.levels, self.route
        for role in route.stored:
            parent, child = levels[route.parent[role]], levels[route.level]
            moved = self._elements(view, role, "last" if role is OUTPUT else "first") * (self.problem.bits[role] / 8)
            target = last if role is OUTPUT else first
            for port in (parent.write_port, child.read_port) if role is OUTPUT else (parent.read_port, child.write_port):
                target[port] = target[port] + moved
        return first, last

    def _fed(self, view: _View) -> dict[tuple[int, int], np.ndarray]:
        """What the array itself takes and gives over the whole einsum: (level, direction) -> bytes."""
        problem, array, innermost = self.problem, self.machine.array, self.route.innermost
        if array.dataflow == Dataflow.ROW_STATIONARY or self.parts:
            return {}  # a bound may leave them out
        whole = problem.whole
        extent = {c: float(np.prod([whole[r] for r in problem.in_class(c)] or [1])) for c in CLASSES}
        macs = extent["M"] * extent["N"] * extent["K"] * extent["B"]
        binding = BINDINGS[Dataflow(array.dataflow)]
        again_in = view.folds["N"] / extent["N"] if "N" in (binding.rows, binding.cols) else view.trips["N"] / extent["N"]
        again_w = view.folds["M"] / extent["M"] if "M" in (binding.rows, binding.cols) else view.trips["M"] / extent["M"]
        passes = view.folds["K"] if "K" in (binding.rows, binding.cols) else view.trips["K"]
        out = extent["M"] * extent["N"] * extent["B"]
        wide, narrow = problem.accumulate_bits / 8, problem.bits[OUTPUT] / 8
        fed: dict[tuple[int, int], np.ndarray] = {}
        for key, moved in (
            ((innermost[INPUT], 0), macs * again_in * problem.bits[INPUT] / 8),
            ((innermost[WEIGHT], 0), macs * again_w * problem.bits[WEIGHT] / 8),
            ((innermost[OUTPUT], 1), out * ((passes - 1) * wide + narrow)),
            ((innermost[OUTPUT], 0), out * (passes - 1) * wide),
        ):
            fed[key] = fed.get(key, 0.0) + moved
        return fed

    def _moved(
        self, view: _View, letter: str, first: list[np.ndarray], last: list[np.ndarray], fed: Mapping[tuple[int, int], np.ndarray]
    ) -> tuple[list[np.ndarray], list[list[np.ndarray]], np.ndarray]:
        """(bytes per port between first load and last store, bytes per memory and direction, transfers)."""
        route, levels = self.route, self.machine.levels
        traffic: list[list[np.ndarray]] = [[np.zeros(1), np.zeros(1)] for _ in levels]
        for (level, direction), moved in fed.items():
            traffic[level][direction] = traffic[level][direction] + moved
        for role in route.stored:
            loads, stores = self._loads_and_stores(view, role, letter)
            parent, child = route.parent[role], route.level
            traffic[parent][0] = traffic[parent][0] + loads
            traffic[child][1] = traffic[child][1] + loads
            if role is OUTPUT:
                traffic[parent][1] = traffic[parent][1] + stores
                traffic[child][0] = traffic[child][0] + stores
        middle = [-(first[p] + last[p]) for p in range(len(self.machine.ports))]
        for level, (read, write) in zip(levels, traffic, strict=True):
            middle[level.read_port] = middle[level.read_port] + read
            middle[level.write_port] = middle[level.write_port] + write
        return middle, traffic, self._product([view.trips[c] for c in CLASSES]) - 1

    def _loading(self) -> frozenset[int]:
        """Ports that are used in every step: some input or weight changes whenever an index does.

        Not where a window overlaps the whole of a short axis, or where one of the two bypasses.
        """
        problem, route = self.problem, self.route
        if not {INPUT, WEIGHT} <= route.stored:
            return frozenset()
        for axis in problem.axes[INPUT]:
            window = 1 + sum((int(problem.einsum.ranks[r]) - 1) * c for r, c in axis.terms if r in problem.reduction)
            stride = min((c for r, c in axis.terms if r not in problem.reduction), default=window)
            if len(axis.terms) > 1 and axis.size <= window - stride:
                return frozenset()
        levels = self.machine.levels
        parents = {levels[route.parent[role]].read_port for role in (INPUT, WEIGHT)}
        return frozenset({levels[route.level].write_port} | (parents if len(parents) == 1 else set()))

    def _loads_and_stores(self, view: _View, role: OperandRole, letter: str) -> tuple[np.ndarray, np.ndarray]:
        """Bytes of an operand over the border, in and out, with `letter` innermost."""
        problem = self.problem
        foreign = {INPUT: "N", WEIGHT: "M", OUTPUT: "K"}[role]
        alone = np.ones(1, dtype=bool)  # no loop on which the operand depends: it never leaves
        for other in CLASSES:
            if other != foreign:
                alone = alone & (view.trips[other] == 1)
        again = np.ones(1) if letter == foreign else np.where(alone, 1.0, view.trips[foreign])
        if role is OUTPUT:
            whole = self._elements(view, role, "total")
            partial = whole * (again - 1) * (problem.accumulate_bits / 8)
            return partial, partial + whole * (problem.bits[OUTPUT] / 8)
        summed = self._elements(view, role, "total")
        if role is INPUT and problem.window_ranks:
            slides = (view.trips["K"] == 1) if letter == "K" else np.ones(1, dtype=bool)
            summed = np.where(slides, self._elements(view, role, "slid"), summed)
        return summed * again * (problem.bits[role] / 8), np.zeros(1)


class _View:
    """The class lists reshaped to broadcast against each other, cut to a block."""

    def __init__(self, lists: Mapping[str, ClassTiles], cut: Mapping[int, slice]) -> None:
        self.position, self.trips, self.folds, self.streamed, self.once, self.depth = ({} for _ in range(6))
        self.first: dict[str, dict[OperandRole, np.ndarray]] = {}
        self.last: dict[str, dict[OperandRole, np.ndarray]] = {}
        self.total: dict[str, dict[OperandRole, np.ndarray]] = {}
        self.slid: dict[str, dict[OperandRole, np.ndarray]] = {}
        for letter in CLASSES:
            axis, tiles = AXIS[letter], lists[letter]
            shape = tuple(-1 if a == axis else 1 for a in range(4))
            part = cut.get(axis, slice(None))
            self.position[letter] = np.arange(len(tiles))[part].reshape(shape)
            for name in ("trips", "folds", "streamed", "once", "depth"):
                getattr(self, name)[letter] = getattr(tiles, name)[part].reshape(shape)
            for name in ("first", "last", "total", "slid"):
                getattr(self, name)[letter] = {role: values[part].reshape(shape) for role, values in getattr(tiles, name).items()}


def concatenate(blocks: list[Candidates]) -> Candidates:
    """Blocks one after the other."""
    names = ("cycles", "first", "middle", "last", "moves", "footprint_bytes", "traffic_bytes", "which", "index")
    if len(blocks) == 1:
        return blocks[0]
    joined = {name: np.concatenate([getattr(b, name) for b in blocks], axis=-1) for name in names}
    return Candidates(**joined, loading=blocks[0].loading)
