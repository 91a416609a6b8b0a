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

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim.mapping.arrays import BINDINGS, Dataflow
from sim.mapping.dims import class_tiles, thinned
from sim.mapping.machine import Machine
from sim.mapping.problem import INPUT, OUTPUT, WEIGHT, Problem
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


@dataclass(frozen=True, slots=True)
class Move:
    """What an operand moves over the border: bytes and transfers in, bytes and transfers out."""

    loads: np.ndarray
    arrivals: np.ndarray
    stores: np.ndarray | float = 0.0
    departures: np.ndarray | float = 0.0


class Grid:
    """All even candidates of one problem on one machine structure, over one border.

    A candidate is a tiling; its number is its position in an array of shape (M, N, K, B). Arrays
    here have that shape, or broadcast to it.
    """

    def __init__(
        self, problem: Problem, machine: Machine, route: Route, parts: Mapping[str, int], instances: int = 1
    ) -> None:
        """`parts[rank]`: instances that share a tile of the rank; `instances`: of the border's memory."""
        self.problem, self.machine, self.route, self.instances = problem, machine, route, instances
        self.parts = dict(parts)
        full = {letter: class_tiles(problem, machine.array, letter, parts) for letter in CLASSES}
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
        if array.dataflow == Dataflow.ROW_STATIONARY or self.parts:
            return {}  # a bound may leave them out
        whole = problem.whole
        extent = {c: float(np.prod([whole[r] for r in problem.in_class(c)] or [1])) for c in CLASSES}
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
    @cached_property
    def moves(self) -> Mapping[OperandRole, Mapping[str, Move]]:
        """Stored operand -> innermost class -> what it moves.

        (Where an operand has no loop of its own left it never leaves either; then the innermost
        class can only be the one that it does not depend on, which is the case of one trip.)
        """
        found: dict[OperandRole, dict[str, Move]] = {}
        for role in sorted(self.route.stored):
            foreign = FOREIGN[role]
            outside = self._move(role, self.trips[foreign], "")
            found[role] = {c: outside if c != foreign else self._move(role, np.ones(1), c) for c in self.letters}
            if role is INPUT and self.problem.window_ranks and "K" in self.letters:
                found[role]["K"] = self._move(role, self.trips[foreign], "K")
        return found

    def _move(self, role: OperandRole, again: np.ndarray, letter: str) -> Move:
        """What an operand moves when all its tiles pass `again` times, `letter` innermost ("": of no matter)."""
        problem = self.problem
        tiles = np.ones(1)
        for c in CLASSES:
            if c != FOREIGN[role] and len(self.lists[c]) > 1:
                tiles = tiles * self.trips[c]
        if role is OUTPUT:
            whole = self._elements(role, "total")
            partial = (whole * (problem.accumulate_bits / 8)) * (again - 1)
            stores = partial + whole * (problem.bits[OUTPUT] / 8)
            return Move(partial, tiles * (again - 1), stores, tiles * again)
        if role is INPUT and problem.window_ranks:
            arrivals = np.ones(1) if self._hollow else tiles * again  # a slide may bring nothing new
            return Move(self._slid(again, letter) * (problem.bits[role] / 8), arrivals)
        return Move((self._elements(role, "total") * (problem.bits[role] / 8)) * again, tiles * again)

    def _slid(self, again: np.ndarray, letter: str) -> np.ndarray:
        """Input elements of a sliding window; reduction loops inside leave nothing to slide over."""
        slid = self._elements(INPUT, "slid")
        if again.size > 1:
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

    def port(self, wiring: Wiring) -> PortTerms:
        """What a port serves that is wired to some operands."""
        moved: dict[str, np.ndarray] = {}
        count: dict[str, np.ndarray] = {}
        first, last = (End(np.zeros((1, 1, 1, 1)), 0) for _ in range(2))
        for role, way, inner in wiring:
            # Instances of the memory have ports of their own.
            share, wave = (self.instances, "") if inner else (1, "wave_")
            for letter, move in self.moves[role].items():
                amount, times = (move.loads, move.arrivals) if way == "in" else (move.stores, move.departures)
                moved[letter] = moved.get(letter, 0.0) + (amount if share == 1 else amount / share)
                count[letter] = count.get(letter, 0.0) + times
            width = self.problem.bits[role] / 8
            if role is OUTPUT and way == "out":
                last = End(last.bytes + self._elements(role, f"{wave}last") * width, last.count + 1)
            elif role is not OUTPUT:
                first = End(first.bytes + self._elements(role, f"{wave}first") * width, first.count + 1)
        ends = self.flat(first.bytes + last.bytes)
        between = {c: self.flat(amount) - ends for c, amount in moved.items()}
        times = {c: self.flat(number) - (first.count + last.count) for c, number in count.items()}
        first, last = (End(self.flat(end.bytes), end.count) for end in (first, last))
        return PortTerms(between, times, first, last)

    def energies(self, read: np.ndarray, write: np.ndarray) -> np.ndarray:
        """Memory energy of the bound's traffic for one design: J/byte per level -> (tilings,)."""
        route, fed = self.route, self.fed()
        fixed = sum(((read, write)[way][level] * moved for (level, way), moved in fed.items()), np.zeros(1))
        best: np.ndarray | None = None
        for letter in self.letters:
            energy = fixed
            for role, by_letter in self.moves.items():
                move, parent, child = by_letter[letter], route.parent[role], route.level
                energy = energy + move.loads * (read[parent] + write[child])
                if role is OUTPUT:
                    energy = energy + move.stores * (write[parent] + read[child])
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


@dataclass(frozen=True, slots=True)
class PortTerms:
    """Bytes and transfers of T tilings on one port: by innermost class, both ends left out; and the ends."""

    moved: Mapping[str, np.ndarray]
    count: Mapping[str, np.ndarray]
    first: End
    last: End


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bound's terms of T tilings, for any design of the structure; arrays (T,).

    `walked`: innermost class -> whether a tiling has loops of it (a single tile stands under the first
    class alone); `terms`: what a port serves, one entry for all ports that serve the same, of which
    `wire` gives the number for each port (None: it serves nothing); `fed`: what the array itself moves
    through each port (None: nothing).
    """

    double: bool
    cycles: np.ndarray
    walked: Mapping[str, np.ndarray]
    terms: tuple[PortTerms, ...]
    least: tuple[tuple[np.ndarray, np.ndarray], ...]
    """(bytes, transfers) per entry of `terms`: the least over the innermost classes"""
    wire: tuple[int | None, ...]
    fed: tuple[np.ndarray | None, ...]

    def time(self, rates: np.ndarray, setup: float, latency: float) -> np.ndarray:
        """The bound in cycles on one design, (T,), whatever the order of loops."""
        return self._fluid(self.least, slice(None), rates, setup) + (self._ends(slice(None), rates, setup) + latency)

    def class_times(self, numbers: Numbers, chosen: np.ndarray) -> np.ndarray:
        """Bounds per innermost class of n tilings, each on its own design: (4, n); inf where the class has
        no loop."""
        out = np.full((len(CLASSES), len(chosen)), np.inf)
        rates, setup = numbers.rates.T, numbers.setup
        ends = self._ends(chosen, rates, setup) + numbers.latency
        for letter, walked in self.walked.items():
            here = np.flatnonzero(walked[chosen])
            if len(here):
                moves = [(entry.moved[letter], entry.count[letter]) for entry in self.terms]
                time = self._fluid(moves, chosen[here], rates[:, here], setup[here])
                out[AXIS[letter], here] = time + ends[here]
        return out

    def _fluid(self, moves, chosen: np.ndarray | slice, rates: np.ndarray, setup) -> np.ndarray:
        """Cycles between the ends: the array, or the busiest port beside it; without second buffers moves wait.

        moves: (bytes, transfers) per entry of `terms`.
        """
        longest, waiting = self.cycles[chosen], 0.0
        for rate, entry, fed in zip(rates, self.wire, self.fed, strict=True):
            busy = 0.0 if fed is None else fed[chosen] / rate
            if entry is not None:
                moved, count = moves[entry]
                moving = moved[chosen] / rate + count[chosen] * setup
                if self.double:
                    busy = busy + moving
                else:
                    waiting = np.maximum(waiting, moving)
            longest = np.maximum(longest, busy)
        return longest + waiting

    def _ends(self, chosen: np.ndarray | slice, rates: np.ndarray, setup: np.ndarray | float) -> np.ndarray:
        """Cycles of the first load and the last store: each transfer pays its set-up on its ports."""
        total: np.ndarray = np.zeros(1)
        for end in ("first", "last"):
            longest: np.ndarray = np.zeros(1)
            for rate, entry in zip(rates, self.wire, strict=True):
                if entry is not None:
                    moves: End = getattr(self.terms[entry], end)
                    longest = np.maximum(longest, moves.bytes[chosen] / rate + setup * moves.count)
            total = total + longest
        return total


def bounds(grids: list[Grid]) -> Bounds:
    """The terms of all tilings of some grids of one route, one grid after the other."""
    one = grids[0]
    apart = any(grid.parts or grid.instances > 1 for grid in grids)
    wired = wirings(one.machine, one.route, apart)
    kinds = list(dict.fromkeys(wiring for wiring in wired if wiring))
    walked = _join([_walked(grid) for grid in grids])
    terms = []
    for kind in kinds:
        parts = [grid.port(kind) for grid in grids]
        ends = [
            End(_chain([getattr(p, end).bytes for p in parts]), getattr(parts[0], end).count)
            for end in ("first", "last")
        ]
        moved, count = (_join([getattr(p, name) for p in parts]) for name in ("moved", "count"))
        terms.append(PortTerms(moved, count, *ends))
    return Bounds(
        double=one.route.copies == 2,
        cycles=_chain([grid.flat(grid.cycles()) for grid in grids]),
        walked=walked,
        terms=tuple(terms),
        least=tuple((_least(entry.moved), _least(entry.count)) for entry in terms),
        wire=tuple(kinds.index(wiring) if wiring else None for wiring in wired),
        fed=_fed(grids),
    )


def _walked(grid: Grid) -> dict[str, np.ndarray]:
    walked = {c: grid.flat(grid.trips[c] > 1) for c in grid.letters}
    single = ~np.any(list(walked.values()), axis=0)
    return walked | {grid.letters[0]: walked[grid.letters[0]] | single}


def _least(by_class: Mapping[str, np.ndarray]) -> np.ndarray:
    """The least over the classes that can be innermost.

    A class without a loop has the numbers of the other classes or larger ones: only where an operand's
    foreign class is not walked do two classes move the same. So it need not be left out.
    """
    values = list(by_class.values())
    least = values[0]
    for other in values[1:]:
        least = np.minimum(least, other)
    return least


def _fed(grids: list[Grid]) -> tuple[np.ndarray | None, ...]:
    machine = grids[0].machine
    fed: list[np.ndarray | None] = [None for _ in machine.ports]
    parts = [grid.fed() for grid in grids]
    for number, way in dict.fromkeys(key for part in parts for key in part):
        level = machine.levels[number]
        port = level.write_port if way else level.read_port
        none = np.zeros(1)
        amount = _chain([grid.flat(part.get((number, way), none)) for grid, part in zip(grids, parts, strict=True)])
        before = fed[port]
        fed[port] = amount if before is None else before + amount
    return tuple(fed)


def _chain(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _join(parts: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays by class of several grids, which tile the same ranks and so have the same classes."""
    return {letter: _chain([part[letter] for part in parts]) for letter in parts[0]}
