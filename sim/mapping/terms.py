"""What a lower bound of even mappings is made of: numbers of whole grids of candidates, or of chosen ones.

A candidate is a tile per rank. All numbers factor by class (M, N, K or B): what an operand moves is an
array over three of the four classes times the trips of the fourth, so that a grid of M x N x K x B
tilings costs a few dozen array operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from operator import add, mul

import numpy as np

from sim.hardware.chip import Dataflow, Folds
from sim.mapping.arrays import BINDINGS
from sim.mapping.dims import ClassTiles, class_tiles, thinned
from sim.mapping.machine import Machine
from sim.mapping.parts import End
from sim.mapping.problem import INPUT, OUTPUT, WEIGHT, Family, Problem, Stack
from sim.workload.graph import OperandRole

CLASSES = "MNKB"
MOST_TILINGS = 250_000
"""Tilings of a grid; larger problems (tens of thousands of columns) are thinned to it."""
AXIS = {letter: i for i, letter in enumerate(CLASSES)}
FOREIGN = {INPUT: "N", WEIGHT: "M", OUTPUT: "K"}
"""The class on which an operand does not depend."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """Where operands are stored at a border (None: they pass by), and what the array reads from."""

    level: int
    parent: Mapping[OperandRole, int]
    stored: frozenset[OperandRole]
    innermost: Mapping[OperandRole, int]
    copies: int


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a bound needs of D designs: rates (D, ports) bytes/cycle, set-up and latency (D,) cycles."""

    rates: np.ndarray
    setup: np.ndarray
    latency: np.ndarray


Table = Mapping[OperandRole, Mapping[str, tuple[np.ndarray, np.ndarray]]]
"""Stored operand -> innermost class -> (into the memory, out of it)."""


class Grid:
    """All even candidates of one problem on one machine structure, over one border.

    A candidate is a tiling; its number is its position in an array of shape (M, N, K, B).
    """

    def __init__(
        self,
        problem: Problem,
        machine: Machine,
        route: Route,
        parts: Mapping[str, int],
        instances: int = 1,
        arrays: Mapping[str, int] | None = None,
    ) -> None:
        """`parts[rank]`: instances of the border's memory that share a tile of the rank; `instances`:
        all of them; `arrays[rank]`: arrays beside each that share what it holds."""
        self.problem, self.machine, self.route, self.instances = problem, machine, route, instances
        self.spread = bool(parts or arrays)
        full = {letter: class_tiles(problem, machine.array, letter, parts, arrays) for letter in CLASSES}
        # Where no tile is stored, cutting saves nothing: the array only begins anew.
        self.lists = thinned(full, MOST_TILINGS) if route.stored else {c: _whole(full[c]) for c in CLASSES}
        self.shape = tuple(len(self.lists[letter]) for letter in CLASSES)
        self.letters = tuple(c for c in CLASSES if c == "M" or len(self.lists[c]) > 1)
        """Classes whose loops can be innermost; M also stands for no loop at all."""

    @property
    def tilings(self) -> int:
        return int(np.prod(self.shape))

    def tiling(self, number: int) -> dict[str, int]:
        """Tile of every tiled rank of a candidate."""
        index = np.unravel_index(int(number), self.shape)
        tiles: dict[str, int] = {}
        for c, position in zip(CLASSES, index, strict=True):
            tiles |= {rank: int(values[position]) for rank, values in self.lists[c].tiles.items()}
        return tiles


def _whole(tiles: ClassTiles) -> ClassTiles:
    """The tiling of one tile."""
    return tiles.take(np.flatnonzero(tiles.trips == 1)[:1])


class Several:
    """Grids of one route that use fan-outs alike, as one whose lists stand one after the other."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        first = grids[0]
        self.machine, self.route, self.spread, self.instances = (
            first.machine,
            first.route,
            first.spread,
            first.instances,
        )
        self.letters = tuple(c for c in CLASSES if any(c in grid.letters for grid in grids))
        self.lists = {c: ClassTiles.join([grid.lists[c] for grid in grids]) for c in CLASSES}
        self.shapes = np.array([grid.shape for grid in grids]).T
        """(classes, grids)"""
        self.starts = np.cumsum(self.shapes, axis=1) - self.shapes
        """(classes, grids) where each grid's lists begin"""
        problems = {id(grid.problem): grid.problem for grid in grids}
        self.family = Family(tuple(problems.values()))
        self.problem_of = np.array([list(problems).index(id(grid.problem)) for grid in grids])

    def with_lists(self, lists: Mapping[str, ClassTiles], starts: np.ndarray) -> Several:
        """The grids with other lists, those of each grid from `starts` (classes, grids) on."""
        made = copy(self)
        made.lists, made.starts = dict(lists), starts
        return made

    def terms(self, number: np.ndarray, at: np.ndarray) -> Terms:
        """Of chosen candidates: their grids, and (classes, n) their places in those grids' lists."""
        problem = Stack.of(self.family, self.problem_of[number])
        return Terms(self, problem, tuple(at + self.starts[:, number]))


class Terms:
    """What the bound needs of candidates: of all of a grid, as arrays that broadcast to (M, N, K, B), or of
    chosen ones, (n,), given their indices along M, N, K and B."""

    def __init__(
        self,
        grid: Grid | Several,
        problem: Problem,
        at: tuple[np.ndarray, ...] | None = None,
        dtype: type[np.floating] = np.float64,
    ) -> None:
        self.grid, self.at, self.dtype = grid, at, dtype
        self.problem, self.machine, self.route, self.letters = problem, grid.machine, grid.route, grid.letters
        self.one, self.nothing = self.along("M", np.ones(1)), self.along("M", np.zeros(1))
        self._ends: dict[Wiring, tuple[End, End]] = {}

    def of(self, letter: str, name: str) -> np.ndarray:
        """A number of one class's list."""
        return self.along(letter, getattr(self.grid.lists[letter], name))

    def along(self, letter: str, values: np.ndarray) -> np.ndarray:
        """An array over one class's list, for the candidates."""
        if self.at is None:
            return values.astype(self.dtype, copy=False).reshape(tuple(-1 if c == letter else 1 for c in CLASSES))
        return values[self.at[AXIS[letter]] if len(values) > 1 else [0]]

    def _elements(self, role: OperandRole, which: str) -> np.ndarray:
        """Elements of an operand: the product of its classes' factors (1 for the foreign class)."""
        lists = self.grid.lists
        factors = [self.along(c, getattr(lists[c], which)[role]) for c in CLASSES if c != FOREIGN[role]]
        return reduce(mul, sorted(factors, key=np.size), self.one)

    def flat(self, values: np.ndarray) -> np.ndarray:
        """One number a candidate."""
        shape = self.at[0].shape if self.at is not None else tuple(len(self.grid.lists[c]) for c in CLASSES)
        if values.shape == shape:
            return values.reshape(-1)
        out = np.empty(shape, dtype=values.dtype)
        out[...] = values
        return out.reshape(-1)

    @cached_property
    def trips(self) -> Mapping[str, np.ndarray]:
        return {c: self.of(c, "trips") for c in CLASSES}

    # What lies in the memory ---------------------------------------------------------------------
    def footprint_bytes(self) -> np.ndarray:
        """Bytes in the border's memory, second copies included: one number a candidate."""
        total = self.nothing
        for role in sorted(self.route.stored):
            width: np.ndarray | float = self.problem.bits[role]
            if role is OUTPUT:
                width = np.where(self._partial(), self.problem.accumulate_bits, self.problem.bits[OUTPUT])
            total = total + self._elements(role, "first") * (width * (self.route.copies / 8))
        return total

    def weight_tile_bytes(self) -> np.ndarray:
        """Bytes of the first weight tile of an instance; 0 where weights pass by."""
        stored = WEIGHT in self.route.stored
        return self._elements(WEIGHT, "first") * (self.problem.bits[WEIGHT] / 8) if stored else self.nothing

    def _partial(self) -> np.ndarray:
        """The output tile holds partial sums at some time."""
        partial = self.trips["K"] > 1
        inside = self.route.innermost[OUTPUT] == self.route.level
        return partial | (self.of("K", "partial") > 0) if inside else partial

    # Time of the array -----------------------------------------------------------------------------
    def cycles(self) -> np.ndarray:
        """Array cycles summed over all tiles (of the largest instance)."""
        rows, cols, stream = BINDINGS[Dataflow(self.machine.array.dataflow)]
        folds = self.of(rows, "folds") * self.of(cols, "folds") * self.of("B", "folds")
        cycles = folds * self.of(stream, "streamed")
        once = self.of(stream, "once")
        if once.any():
            cycles = cycles + (self.trips[rows] * self.trips[cols] * self.trips["B"]) * once
        drained = self._drained()
        if drained is None:
            return cycles
        return cycles + drained if self.machine.array.folds == Folds.SERIAL else np.maximum(cycles, drained)

    def last_cycles(self) -> np.ndarray:
        """Array cycles of the last tile, while which nothing is loaded."""
        rows, cols, stream = BINDINGS[Dataflow(self.machine.array.dataflow)]
        folds = self.of(rows, "last_folds") * self.of(cols, "last_folds") * self.of("B", "last_folds")
        return folds * self.of(stream, "last_streamed") + self.of(stream, "last_once")

    def late_bytes(self) -> np.ndarray:
        """The most that a port moves of results while the last tile is computed."""
        wide = np.where(self.trips["K"] > 1, self.problem.accumulate_bits / 8, self.problem.bits[OUTPUT] / 8)
        return self._elements(OUTPUT, "wave_first") * wide.astype(self.dtype, copy=False)

    def _drained(self) -> np.ndarray | None:
        """Least cycles of the port through which results leave; None without one, or where instances share them."""
        array, rate = self.machine.array, self.machine.array.drain_bytes_per_cycle
        if not rate or self.grid.spread or array.dataflow != Dataflow.OUTPUT_STATIONARY:
            return None
        results = prod(self.problem.whole[r] for r in self.problem.ranks if r not in self.problem.reduction)
        return self.trips["K"] * (results * (array.accumulate_bits / 8) / rate)

    @cached_property
    def fed(self) -> dict[tuple[int, int], np.ndarray]:
        """What the arrays themselves take and give over the whole einsum: (level, direction) -> bytes."""
        problem, array, innermost = self.problem, self.machine.array, self.route.innermost
        if array.dataflow == Dataflow.ROW_STATIONARY or self.grid.instances > 1:
            return {}  # a bound may leave them out
        whole = problem.whole
        extent = {c: prod((whole[r] for r in problem.in_class(c)), start=np.ones((), self.dtype)) for c in CLASSES}
        extent = {c: np.asarray(size, self.dtype) for c, size in extent.items()}
        macs = extent["M"] * extent["N"] * extent["K"] * extent["B"]
        passes = {letter: self.of(letter, "passes") for letter in "MNK"}
        out = extent["M"] * extent["N"] * extent["B"]
        wide, narrow = problem.accumulate_bits / 8, problem.bits[OUTPUT] / 8
        fed: dict[tuple[int, int], np.ndarray] = {}
        for key, moved in (
            ((innermost[INPUT], 0), passes["N"] * (macs / extent["N"] * problem.bits[INPUT] / 8)),
            ((innermost[WEIGHT], 0), passes["M"] * (macs / extent["M"] * problem.bits[WEIGHT] / 8)),
            ((innermost[OUTPUT], 1), out * ((passes["K"] - 1) * wide + narrow)),
            ((innermost[OUTPUT], 0), out * (passes["K"] - 1) * wide),
        ):
            fed[key] = fed[key] + moved if key in fed else moved
        return fed

    @cached_property
    def fed_by_port(self) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        for (number, way), moved in self.fed.items():
            level = self.machine.levels[number]
            port = level.write_port if way else level.read_port
            found[port] = found[port] + moved if port in found else moved
        return found

    # Moves over the border -------------------------------------------------------------------------
    def _by_class(self, of: Callable[[OperandRole, np.ndarray, str], tuple[np.ndarray, np.ndarray]]) -> Table:
        """`of(role, passes, class)` for every stored operand and innermost class.

        All tiles of an operand pass once per trip of its foreign class, but once only if that is
        innermost. (Where an operand has no loop of its own left it never leaves either; then the
        innermost class can only be the foreign one, which is the case of one trip.)
        """
        found: dict[OperandRole, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        for role in sorted(self.route.stored):
            foreign = FOREIGN[role]
            outside = of(role, self.trips[foreign], "")
            found[role] = {c: outside if c != foreign else of(role, self.one, c) for c in self.letters}
            if role is INPUT and self.problem.window_ranks:
                found[role] |= {c: of(role, self.trips[foreign], c) for c in "KB" if c in self.letters}
        return found

    @cached_property
    def moved(self) -> Table:
        """Bytes."""
        return self._by_class(self._bytes)

    @cached_property
    def count(self) -> Table:
        """Transfers."""
        return self._by_class(self._transfers)

    def _bytes(self, role: OperandRole, again: np.ndarray, letter: str) -> tuple[np.ndarray, np.ndarray]:
        problem = self.problem
        if role is OUTPUT:
            whole = self._elements(role, "total")
            partial = (whole * (problem.accumulate_bits / 8)) * (again - 1)
            return partial, partial + whole * (problem.bits[OUTPUT] / 8)
        width = problem.bits[role] / 8
        if role is INPUT and problem.window_ranks:
            return self._slid(again, letter) * width, self.nothing
        return (self._elements(role, "total") * width) * again, self.nothing

    def _transfers(self, role: OperandRole, again: np.ndarray, letter: str) -> tuple[np.ndarray, np.ndarray]:
        tiles = self.one
        for c in CLASSES:
            if c != FOREIGN[role]:
                tiles = tiles * self.trips[c]
        if role is OUTPUT:
            return tiles * (again - 1), tiles * again
        if role is INPUT and self.problem.window_ranks and self._hollow.any():
            return np.where(self._hollow, self.one, tiles * again), self.nothing  # a slide may bring nothing new
        return tiles * again, self.nothing

    def _slid(self, again: np.ndarray, letter: str) -> np.ndarray:
        """Input elements of a sliding window; loops inside that lead to other channels leave nothing to slide over."""
        slid = self._elements(INPUT, "slid")
        if again is not self.one:
            slid = slid + self._elements(INPUT, "slid_again") * (again - 1)
        if letter not in ("K", "B"):
            return slid
        return np.where(self.trips[letter] > 1, self._elements(INPUT, "total") * again, slid)

    @cached_property
    def _hollow(self) -> np.ndarray:
        """Whether a window overlaps the whole of some short axis, so that a slide may move nothing."""
        problem, hollow = self.problem, np.zeros(1, dtype=bool)
        for axis in problem.axes[INPUT]:
            window = 1 + sum((problem.whole[r] - 1) * c for r, c in axis.terms if r in problem.window_ranks)
            strides = [np.asarray(c) for r, c in axis.terms if r not in problem.window_ranks]
            if len(axis.terms) > 1:
                hollow = hollow | (axis.size <= window - reduce(np.minimum, strides or [np.asarray(window)]))
        return hollow

    def ends(self, wiring: Wiring) -> tuple[End, End]:
        """The first load and the last store on a port."""
        if wiring not in self._ends:
            self._ends[wiring] = self._both_ends(wiring)
        return self._ends[wiring]

    def _both_ends(self, wiring: Wiring) -> tuple[End, End]:
        first, last = (End(self.nothing, 0) for _ in range(2))
        for role, way, inner in wiring:
            wave, width = "" if inner else "wave_", self.problem.bits[role] / 8
            if role is OUTPUT and way == "out":
                last = End(last.bytes + self._elements(role, f"{wave}last") * width, last.count + 1)
            elif role is not OUTPUT:
                first = End(first.bytes + self._elements(role, f"{wave}first") * width, first.count + 1)
        return first, last

    def served(self, wiring: Wiring, letter: str, table: Table) -> list[np.ndarray]:
        """What a port moves of each operand with `letter` innermost, both ends included."""
        parts = []
        for role, way, inner in wiring:
            amount = table[role][letter][way == "out"]
            if amount is not self.nothing:
                # Instances of the memory have ports of their own.
                parts.append(amount / self.grid.instances if inner and table is self.moved else amount)
        return parts

    def least(self, wiring: Wiring, table: Table) -> np.ndarray:
        """The least over the innermost classes of what a port moves.

        A class without a loop has the numbers of the other classes or larger ones: only where an operand's
        foreign class is not walked do two classes move the same. So it need not be left out.
        """
        return reduce(np.minimum, (self.total(wiring, letter, table) for letter in self.letters))

    def total(self, wiring: Wiring, letter: str, table: Table) -> np.ndarray:
        """All that a port moves with `letter` innermost."""
        return reduce(add, sorted(self.served(wiring, letter, table), key=np.size), self.nothing)

    def least_between(self, wiring: Wiring, name: str) -> np.ndarray:
        """The least of it over the innermost classes."""
        return self.between(wiring, self.least(wiring, getattr(self, name)), name)

    def between(self, wiring: Wiring, total: np.ndarray, name: str) -> np.ndarray:
        """What is left of all bytes ("moved") or transfers ("count") of a port without both ends."""
        first, last = self.ends(wiring)
        return total - (first.bytes + last.bytes if name == "moved" else first.count + last.count)

    def energies(self, read: np.ndarray, write: np.ndarray) -> np.ndarray:
        """Memory energy of the bound's traffic for one design: J/byte per level."""
        route, child = self.route, self.route.level
        fixed = sum(((read, write)[way][level] * moved for (level, way), moved in self.fed.items()), self.nothing)

        def energy(letter: str) -> np.ndarray:
            total = fixed
            for role, by_letter in self.moved.items():
                (loads, stores), parent = by_letter[letter], route.parent[role]
                total = total + loads * (read[parent] + write[child])
                if role is OUTPUT:
                    total = total + stores * (write[parent] + read[child])
            return total

        return reduce(np.minimum, map(energy, self.letters))


Wiring = tuple[tuple[OperandRole, str, bool], ...]
"""(operand, way, whether the port is the inner memory's) of what a port serves."""


def wirings(machine: Machine, route: Route, apart: bool) -> list[Wiring]:
    """What each port of the machine serves at the border; `apart`: its inner ports differ from its outer ones."""
    wired: list[list[tuple[OperandRole, str, bool]]] = [[] for _ in machine.ports]
    for role in sorted(route.stored):
        parent, child = machine.levels[route.parent[role]], machine.levels[route.level]
        wired[parent.read_port].append((role, "in", False))
        wired[child.write_port].append((role, "in", apart))
        if role is OUTPUT:
            wired[parent.write_port].append((role, "out", False))
            wired[child.read_port].append((role, "out", apart))
    return [tuple(sorted(listed)) for listed in wired]
