"""A lower bound of every even mapping over one border, for whole grids of candidates at once.

A candidate is a tile per rank; its bound holds for every loop order. With double buffers its
time is at least

    first load + max(array cycles, busy time of each port without both ends) + last store

(the fluid form of the recurrence: the maximum of sums is at most the sum of maxima). Traffic is
closed form: an operand is loaded once per trip of the loops that it does not depend on, unless
the innermost class (M, N, K or B) is the one it does not depend on (the least over these classes
is taken port by port); a sliding window keeps its overlap unless
reduction loops run inside it. Everything factors by class: what an operand moves is an array over
three of the four classes times the trips of the fourth, so that a grid of M x N x K x B tilings
costs a few dozen array operations, and a further design of equal structure a handful.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from sim.hardware.chip import Dataflow
from sim.mapping.arrays import BINDINGS
from sim.mapping.dims import class_tiles, thinned
from sim.mapping.machine import Machine
from sim.mapping.problem import INPUT, OUTPUT, WEIGHT, Problem
from sim.workload.graph import OperandRole

CLASSES = "MNKB"
MOST_TILINGS = 250_000
"""Tilings of a grid; larger problems (tens of thousands of columns) are thinned to it."""
AXIS = {letter: i for i, letter in enumerate(CLASSES)}
ONE, NOTHING = np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1))
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

    A candidate is a tiling; its number is its position in an array of shape (M, N, K, B). Arrays
    here have that shape, or broadcast to it.
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
        self.lists = thinned(full, MOST_TILINGS)
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

    def of(self, letter: str, name: str) -> np.ndarray:
        """A number of one class's list, along its axis."""
        return self._along(letter, getattr(self.lists[letter], name))

    @staticmethod
    def _along(letter: str, values: np.ndarray) -> np.ndarray:
        return values.reshape(tuple(-1 if c == letter else 1 for c in CLASSES))

    def _elements(self, role: OperandRole, which: str) -> np.ndarray:
        """Elements of an operand: the product of its classes' factors (1 for the foreign class)."""
        product = np.ones((1, 1, 1, 1))
        for c in CLASSES:
            if c != FOREIGN[role]:
                product = product * self._along(c, getattr(self.lists[c], which)[role])
        return product

    @cached_property
    def trips(self) -> Mapping[str, np.ndarray]:
        return {c: self.of(c, "trips") for c in CLASSES}

    # What lies in the memory ---------------------------------------------------------------------
    def footprint_bytes(self) -> np.ndarray:
        """Bytes in the border's memory, second copies included: (tilings,)."""
        total = np.zeros((1, 1, 1, 1))
        for role in sorted(self.route.stored):
            width: np.ndarray | float = self.problem.bits[role]
            if role is OUTPUT:
                width = np.where(self._partial(), self.problem.accumulate_bits, self.problem.bits[OUTPUT])
            total = total + self._elements(role, "first") * (width * (self.route.copies / 8))
        return self.flat(total)

    def weight_tile_bytes(self) -> np.ndarray:
        """Bytes of the first weight tile of an instance, (tilings,); 0 where weights pass by."""
        if WEIGHT not in self.route.stored:
            return np.zeros(self.tilings)
        return self.flat(self._elements(WEIGHT, "first") * (self.problem.bits[WEIGHT] / 8))

    def flat(self, values: np.ndarray) -> np.ndarray:
        """One number a tiling, (tilings,)."""
        if values.shape == self.shape:
            return values.reshape(-1)
        out = np.empty(self.shape, dtype=values.dtype)
        out[...] = values
        return out.reshape(-1)

    def _partial(self) -> np.ndarray:
        """The output tile holds partial sums at some time."""
        partial = self.trips["K"] > 1
        outside = self.machine.array.dataflow in ("weight_stationary", "input_stationary")
        if outside and self.route.innermost[OUTPUT] == self.route.level:
            partial = partial | (self.of("K", "depth") > self.machine.array.rows)
        return partial

    # Time of the array -----------------------------------------------------------------------------
    def cycles(self) -> np.ndarray:
        """Array cycles summed over all tiles (of the largest instance)."""
        rows, cols, stream = BINDINGS[Dataflow(self.machine.array.dataflow)]
        folds = self.of(rows, "folds") * self.of(cols, "folds") * self.of("B", "folds")
        cycles = folds * self.of(stream, "streamed")
        once = self.of(stream, "once")
        if not once.any():
            return cycles
        return cycles + (self.trips[rows] * self.trips[cols] * self.trips["B"]) * once

    def fed(self) -> dict[tuple[int, int], np.ndarray]:
        """What the array itself takes and gives over the whole einsum: (level, direction) -> bytes."""
        problem, array, innermost = self.problem, self.machine.array, self.route.innermost
        if array.dataflow == Dataflow.ROW_STATIONARY or self.spread:
            return {}  # a bound may leave them out
        whole = problem.whole
        extent = {c: float(prod(int(whole[r]) for r in problem.in_class(c))) for c in CLASSES}
        macs = extent["M"] * extent["N"] * extent["K"] * extent["B"]
        binding = BINDINGS[Dataflow(array.dataflow)]

        def passes(letter: str) -> np.ndarray:
            return self.of(letter, "folds") if letter in (binding.rows, binding.cols) else self.trips[letter]

        out = extent["M"] * extent["N"] * extent["B"]
        wide, narrow = problem.accumulate_bits / 8, problem.bits[OUTPUT] / 8
        fed: dict[tuple[int, int], np.ndarray] = {}
        for key, moved in (
            ((innermost[INPUT], 0), passes("N") * (macs / extent["N"] * problem.bits[INPUT] / 8)),
            ((innermost[WEIGHT], 0), passes("M") * (macs / extent["M"] * problem.bits[WEIGHT] / 8)),
            ((innermost[OUTPUT], 1), out * ((passes("K") - 1) * wide + narrow)),
            ((innermost[OUTPUT], 0), out * (passes("K") - 1) * wide),
        ):
            fed[key] = fed[key] + moved if key in fed else moved
        return fed

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
            found[role] = {c: outside if c != foreign else of(role, ONE, c) for c in self.letters}
            if role is INPUT and self.problem.window_ranks and "K" in self.letters:
                found[role]["K"] = of(role, self.trips[foreign], "K")
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
            return self._slid(again, letter) * width, NOTHING
        return (self._elements(role, "total") * width) * again, NOTHING

    def _transfers(self, role: OperandRole, again: np.ndarray, letter: str) -> tuple[np.ndarray, np.ndarray]:
        if role is INPUT and self.problem.window_ranks and self._hollow:
            return ONE, NOTHING  # a slide may bring nothing new
        tiles = ONE
        for c in CLASSES:
            if c != FOREIGN[role]:
                tiles = tiles * self.trips[c]
        return (tiles * (again - 1), tiles * again) if role is OUTPUT else (tiles * again, NOTHING)

    def _slid(self, again: np.ndarray, letter: str) -> np.ndarray:
        """Input elements of a sliding window; reduction loops inside leave nothing to slide over."""
        slid = self._elements(INPUT, "slid")
        if again is not ONE:
            slid = slid + self._elements(INPUT, "slid_again") * (again - 1)
        if letter != "K":
            return slid
        return np.where(self.trips["K"] > 1, self._elements(INPUT, "total") * again, slid)

    @cached_property
    def _hollow(self) -> bool:
        """A window overlaps the whole of some short axis, so that a slide may move nothing."""
        problem = self.problem
        for axis in problem.axes[INPUT]:
            window = 1 + sum((int(problem.einsum.ranks[r]) - 1) * c for r, c in axis.terms if r in problem.window_ranks)
            stride = min((c for r, c in axis.terms if r not in problem.window_ranks), default=window)
            if len(axis.terms) > 1 and axis.size <= window - stride:
                return True
        return False

    def ends(self, wiring: Wiring) -> tuple[End, End]:
        """The first load and the last store on a port."""
        first, last = (End(NOTHING, 0) for _ in range(2))
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
            if amount is not NOTHING:
                # Instances of the memory have ports of their own.
                parts.append(amount / self.instances if inner and table is self.moved else amount)
        return parts

    def least(self, wiring: Wiring, table: Table) -> np.ndarray:
        """The least over the innermost classes of what a port moves, (tilings,).

        A class without a loop has the numbers of the other classes or larger ones: only where an operand's
        foreign class is not walked do two classes move the same. So it need not be left out.
        """
        least: np.ndarray | None = None
        for letter in self.letters:
            total = NOTHING
            for part in sorted(self.served(wiring, letter, table), key=np.size):
                total = total + part
            least = total if least is None else np.minimum(least, total)
        assert least is not None
        return self.flat(least)

    def picked(self, values: np.ndarray, at: tuple[np.ndarray, ...]) -> np.ndarray:
        """Numbers of single tilings, `at` being their indices along M, N, K and B."""
        found = values[tuple(index if n > 1 else 0 for index, n in zip(at, values.shape, strict=True))]
        return found if found.ndim else np.full(len(at[0]), found)

    def energies(self, read: np.ndarray, write: np.ndarray) -> np.ndarray:
        """Memory energy of the bound's traffic for one design: J/byte per level -> (tilings,)."""
        route, child = self.route, self.route.level
        fixed = sum(((read, write)[way][level] * moved for (level, way), moved in self.fed().items()), NOTHING)
        best: np.ndarray | None = None
        for letter in self.letters:
            energy = fixed
            for role, by_letter in self.moved.items():
                (loads, stores), parent = by_letter[letter], route.parent[role]
                energy = energy + loads * (read[parent] + write[child])
                if role is OUTPUT:
                    energy = energy + stores * (write[parent] + read[child])
            best = energy if best is None else np.minimum(best, energy)
        assert best is not None
        return self.flat(best)


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


@dataclass(frozen=True, slots=True)
class End:
    """The first load or the last store on one port."""

    bytes: np.ndarray
    count: int


class Bounds:
    """The bound's terms of T tilings (those of some grids of one route, one grid after the other), for any
    design of the structure; arrays (T,).

    `wire`: number of what a port serves, one for all ports that serve the same (None: nothing); `least`,
    `first`, `last`: bytes between the ends (the least over the innermost classes) and at the ends, per such
    number; `fed`: what the array itself moves through each port (None: nothing).
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        one = grids[0]
        self.grids, self.double = grids, one.route.copies == 2
        self.starts = np.cumsum([0] + [grid.tilings for grid in grids])
        apart = any(grid.spread or grid.instances > 1 for grid in grids)
        wired = wirings(one.machine, one.route, apart)
        self.kinds = list(dict.fromkeys(wiring for wiring in wired if wiring))
        self.wire = tuple(self.kinds.index(wiring) if wiring else None for wiring in wired)
        self.cycles = _chain([grid.flat(grid.cycles()) for grid in grids])
        self.fed = _fed(grids)
        ends = [[grid.ends(kind) for grid in grids] for kind in self.kinds]
        self.first, self.last = (
            [
                End(_chain([g.flat(e[i].bytes) for g, e in zip(grids, end, strict=True)]), end[0][i].count)
                for end in ends
            ]
            for i in (0, 1)
        )
        self.least = [self._least(kind, "moved") - (f.bytes + z.bytes)
                      for kind, f, z in zip(self.kinds, self.first, self.last, strict=True)]  # fmt: skip

    @cached_property
    def least_count(self) -> list[np.ndarray]:
        """As `least`, of transfers."""
        return [self._least(kind, "count") - (f.count + z.count)
                for kind, f, z in zip(self.kinds, self.first, self.last, strict=True)]  # fmt: skip

    def _least(self, kind: Wiring, name: str) -> np.ndarray:
        return _chain([grid.least(kind, getattr(grid, name)) for grid in self.grids])

    def time(self, rates: np.ndarray, setup: float, latency: float) -> np.ndarray:
        """The bound in cycles on one design, (T,), whatever the order of loops."""
        moves = list(zip(self.least, self.least_count if setup else [NOTHING] * len(self.least), strict=True))
        everywhere = slice(None)
        between = self._fluid(moves, self.cycles, [None if f is None else f for f in self.fed], rates, setup)
        return between + (self._ends(everywhere, rates, setup) + latency)

    def class_times(self, numbers: Numbers, chosen: np.ndarray) -> np.ndarray:
        """Bounds per innermost class of n tilings, each on its own design: (4, n); inf where the class has
        no loop (a single tile stands under the first class alone)."""
        out = np.full((len(CLASSES), len(chosen)), np.inf)
        owner = np.searchsorted(self.starts, chosen, side="right") - 1
        ends = self._ends(chosen, numbers.rates.T, numbers.setup) + numbers.latency
        for number in np.flatnonzero(np.bincount(owner)).tolist():
            grid, mine = self.grids[number], np.flatnonzero(owner == number)
            at = np.unravel_index(chosen[mine] - self.starts[number], grid.shape)
            walked = {c: grid.picked(grid.trips[c], at) > 1 for c in grid.letters}
            walked[grid.letters[0]] = walked[grid.letters[0]] | ~np.any(list(walked.values()), axis=0)
            rates, setup, tilings = numbers.rates[mine].T, numbers.setup[mine], chosen[mine]
            fed = [None if f is None else f[tilings] for f in self.fed]
            for letter in grid.letters:
                moves = [self._moves(entry, letter, grid, at, tilings) for entry in range(len(self.kinds))]
                time = self._fluid(moves, self.cycles[tilings], fed, rates, setup)
                out[AXIS[letter], mine] = np.where(walked[letter], time + ends[mine], np.inf)
        return out

    def walked(self, letter: str, chosen: np.ndarray) -> np.ndarray:
        """Whether tilings have loops of a class."""
        owner = np.searchsorted(self.starts, chosen, side="right") - 1
        found = np.zeros(len(chosen), dtype=bool)
        for number in np.flatnonzero(np.bincount(owner)).tolist():
            grid, mine = self.grids[number], np.flatnonzero(owner == number)
            at = np.unravel_index(chosen[mine] - self.starts[number], grid.shape)
            found[mine] = grid.picked(grid.trips[letter], at) > 1
        return found

    def _moves(
        self, entry: int, letter: str, grid: Grid, at: tuple[np.ndarray, ...], tilings: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(bytes, transfers) of single tilings between the ends."""
        first, last, kind = self.first[entry], self.last[entry], self.kinds[entry]
        moved, count = (
            sum((grid.picked(part, at) for part in grid.served(kind, letter, table)), np.zeros(len(tilings)))
            for table in (grid.moved, grid.count)
        )
        return moved - (first.bytes[tilings] + last.bytes[tilings]), count - (first.count + last.count)

    def _fluid(
        self, moves: Sequence[tuple[np.ndarray, np.ndarray]], cycles: np.ndarray, fed: Sequence[np.ndarray | None],
        rates: np.ndarray, setup: np.ndarray | float,
    ) -> np.ndarray:  # fmt: skip
        """Cycles between the ends: the array, or the busiest port beside it; without second buffers moves wait.

        moves: (bytes, transfers) per number of `wire`.
        """
        longest, waiting = cycles, np.zeros(1)
        for rate, entry, own in zip(rates, self.wire, fed, strict=True):
            busy = np.zeros(1) if own is None else own / rate
            if entry is not None:
                moved, count = moves[entry]
                moving = moved / rate + count.reshape(-1) * setup
                if self.double:
                    busy = busy + moving
                else:
                    waiting = np.maximum(waiting, moving)
            longest = np.maximum(longest, busy)
        return longest + waiting

    def _ends(self, chosen: np.ndarray | slice, rates: np.ndarray, setup: np.ndarray | float) -> np.ndarray:
        """Cycles of the first load and the last store: each transfer pays its set-up on its ports."""
        total: np.ndarray = np.zeros(1)
        for end in (self.first, self.last):
            longest: np.ndarray = np.zeros(1)
            for rate, entry in zip(rates, self.wire, strict=True):
                if entry is not None and end[entry].count:
                    longest = np.maximum(longest, end[entry].bytes[chosen] / rate + setup * end[entry].count)
            total = total + longest
        return total


def _fed(grids: Sequence[Grid]) -> tuple[np.ndarray | None, ...]:
    machine = grids[0].machine
    fed: list[np.ndarray | None] = [None for _ in machine.ports]
    parts = [grid.fed() for grid in grids]
    for number, way in dict.fromkeys(key for part in parts for key in part):
        level = machine.levels[number]
        port = level.write_port if way else level.read_port
        amount = _chain([g.flat(part.get((number, way), NOTHING)) for g, part in zip(grids, parts, strict=True)])
        before = fed[port]
        fed[port] = amount if before is None else before + amount
    return tuple(fed)


def _chain(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
