"""A lower bound of every even mapping over one border, for whole grids of candidates at once.

A candidate is a tile per rank; its bound holds for every loop order. With double buffers its
time is at least

    first load + max(array cycles, busy time of each port without both ends) + last store

(the fluid form of the recurrence: the maximum of sums is at most the sum of maxima). Traffic is
closed form: an operand is loaded once per trip of the loops that it does not depend on, unless
the innermost class (M, N, K or B) is the one it does not depend on (the least over these classes
is taken port by port); a sliding window keeps its overlap unless
reduction loops run inside it. Everything factors by class, so a grid of M x N x K x B tilings costs
a few dozen array operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sim.mapping.arrays import BINDINGS, Dataflow
from sim.mapping.dims import ClassTiles, class_tiles, thinned
from sim.mapping.machine import Machine
from sim.mapping.problem import INPUT, OUTPUT, WEIGHT, Problem
from sim.workload.graph import OperandRole

CLASSES = "MNKB"
MOST_TILINGS = 250_000
"""Tilings of a grid; larger problems (tens of thousands of columns) are thinned to it."""
AXIS = {letter: i for i, letter in enumerate(CLASSES)}


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


class Grid:
    """All even candidates of one problem on one machine structure, over one border.

    A candidate is a tiling; its number is its position in an array of shape (M, N, K, B).
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
        self.hollow = self._hollow()

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

    def blocks(self, most: int) -> Iterator[tuple[tuple[slice, ...], _View]]:
        """Views of at most about `most` tilings, so that a block's arrays stay in the cache."""
        longest = max(range(4), key=lambda a: self.shape[a])
        step = max(1, most * self.shape[longest] // self.tilings)
        for start in range(0, self.shape[longest], step):
            cut = {longest: slice(start, min(start + step, self.shape[longest]))}
            yield tuple(cut.get(a, slice(None)) for a in range(4)), _View(self.lists, cut)

    def footprint_bytes(self) -> np.ndarray:
        """Bytes in the border's memory, second copies included: (tilings,)."""
        return np.broadcast_to(self._footprint(_View(self.lists, {})), self.shape).ravel()

    def times(self, numbers: Numbers, most: int = 16_384) -> np.ndarray:
        """The bound in cycles, (D, tilings): the least over the innermost classes, port by port."""
        designs = len(numbers.rates)
        out = np.empty((designs, *self.shape))
        outer = {self.machine.levels[parent].read_port for parent in self.route.parent.values()}
        outer |= {self.machine.levels[parent].write_port for parent in self.route.parent.values()}
        inner = [p for p in range(len(self.machine.ports)) if p not in outer]
        once = [p for p in inner if (numbers.rates[:, p] == numbers.rates[0, p]).all()]
        own = [p for p in range(len(self.machine.ports)) if p not in once]
        for place, view in self.blocks(most):
            first, last = self._ends_bytes(view)
            fed = self._fed_ports(view)
            moved, count = self._least_between(view, first, last)
            target = out[(slice(None), *place)]
            self._fill(target, self._cycles(view), _Ports(moved, count, fed, first, last), numbers, once, own, outer)
        return out.reshape(designs, -1)

    def class_times(self, numbers: Numbers, candidates: np.ndarray) -> np.ndarray:
        """Bounds per innermost class of n candidates, each on its own design: (4, n); inf where the
        class has no loop (a single tile stands under the first class alone)."""
        view = _View(self.lists, index=np.stack(np.unravel_index(candidates, self.shape)))
        n = len(candidates)
        cycles, fed = np.broadcast_to(self._cycles(view), n), self._fed_ports(view)
        first, last = self._ends_bytes(view)
        double = self.route.copies == 2
        out = np.full((len(CLASSES), n), np.inf)
        trips = {c: np.broadcast_to(view.trips[c], n) for c in CLASSES}
        single = np.prod([trips[c] for c in CLASSES], axis=0) == 1
        for letter in self.letters:
            moved, count = self._between(view, letter, first, last)
            ports = _Ports(moved, count, fed, first, last)
            time = cycles.astype(float)
            for p in range(len(moved)):
                busy = (moved[p] + fed[p] if double else fed[p]) / numbers.rates[:, p]
                time = np.maximum(time, busy + count[p] * numbers.setup if double else busy)
            if not double:
                time = time + np.max(
                    [m / numbers.rates[:, p] + count[p] * numbers.setup for p, m in enumerate(moved)], axis=0
                )
            time = time + ports.ends(numbers, slice(None)) + numbers.latency
            alone = single & (letter == self.letters[0])
            out[AXIS[letter]] = np.where((trips[letter] > 1) | alone, time, np.inf)
        return out

    def _fill(
        self,
        out: np.ndarray,
        cycles: np.ndarray,
        ports: _Ports,
        numbers: Numbers,
        once: list[int],
        own: list[int],
        outer: set[int],
    ) -> None:
        """The bound of one block for every design: what ports with equal rates bind is done once.

        Set-ups are counted at the outer ports alone, which every transfer uses, so that the bound of
        a design does not depend on the designs beside it.
        """
        double = self.route.copies == 2
        base = np.array(np.broadcast_to(cycles, out.shape[1:]), dtype=float)
        for p in once:
            self._serve(base, ports, p, numbers.rates[0, p], 0.0, double)
        for d in range(len(out)):
            target = out[d]
            target[...] = base
            for p in own:
                self._serve(target, ports, p, numbers.rates[d, p], numbers.setup[d] if p in outer else 0.0, double)
            if not double:
                target += self._waiting(ports, numbers, d)
            target += ports.ends(numbers, d) + numbers.latency[d]

    @staticmethod
    def _serve(target: np.ndarray, ports: _Ports, p: int, rate: float, setup: float, double: bool) -> None:
        """target = max(target, busy time of a port): with moves if they are double-buffered."""
        busy = (ports.moved[p] + ports.fed[p]) / rate if double else ports.fed[p] / rate
        if double and setup and ports.count[p].any():
            busy = busy + ports.count[p] * setup
        np.maximum(target, busy, out=target)

    @staticmethod
    def _waiting(ports: _Ports, numbers: Numbers, d: int) -> np.ndarray:
        """Moves without second buffers, which nothing hides."""
        waiting: np.ndarray = np.zeros(1)
        for p, moved in enumerate(ports.moved):
            waiting = np.maximum(waiting, moved / numbers.rates[d, p] + ports.count[p] * numbers.setup[d])
        return waiting

    def _least_between(
        self, view: _View, first: list[tuple[np.ndarray, int]], last: list[tuple[np.ndarray, int]]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(bytes, transfers) per port between the ends, the least over the innermost classes."""
        moved, count = self._between(view, self.letters[0], first, last)
        for letter in self.letters[1:]:
            # A class without a loop cannot be innermost; its numbers are then never the least but
            # where all are equal, because an operand is moved again by the classes that have loops.
            other, times = self._between(view, letter, first, last)
            moved = [np.minimum(a, b) for a, b in zip(moved, other, strict=True)]
            count = [np.minimum(a, b) for a, b in zip(count, times, strict=True)]
        return moved, count

    def energies(self, read: np.ndarray, write: np.ndarray) -> np.ndarray:
        """Memory energy of the bound's traffic for one design: J/byte per level -> (tilings,)."""
        view = _View(self.lists, {})
        fed = self._fed(view)
        best: np.ndarray | None = None
        for letter in self.letters:
            traffic = self._traffic(view, letter, fed)
            energy = sum(r * a + w * b for r, w, (a, b) in zip(read, write, traffic, strict=True))
            best = energy if best is None else np.minimum(best, energy)
        assert best is not None
        return np.broadcast_to(best, self.shape).ravel()

    # One block -----------------------------------------------------------------------------------
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

    def _ends_bytes(self, view: _View) -> tuple[list[tuple[np.ndarray, int]], list[tuple[np.ndarray, int]]]:
        """(bytes, transfers) of the first load and of the last store, per port."""
        first: list[tuple[np.ndarray, int]] = [(np.zeros(1), 0) for _ in self.machine.ports]
        last = list(first)
        levels, route = self.machine.levels, self.route
        for role in sorted(route.stored):
            parent, child = levels[route.parent[role]], levels[route.level]
            end, target = ("last", last) if role is OUTPUT else ("first", first)
            ports = (parent.write_port, child.read_port) if role is OUTPUT else (parent.read_port, child.write_port)
            for port, which in zip(ports, (f"wave_{end}", end), strict=True):
                moved = self._elements(view, role, which) * (self.problem.bits[role] / 8)
                target[port] = (target[port][0] + moved, target[port][1] + 1)
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
        again_in = (
            view.folds["N"] / extent["N"] if "N" in (binding.rows, binding.cols) else view.trips["N"] / extent["N"]
        )
        again_w = (
            view.folds["M"] / extent["M"] if "M" in (binding.rows, binding.cols) else view.trips["M"] / extent["M"]
        )
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

    def _traffic(self, view: _View, letter: str, fed: Mapping[tuple[int, int], np.ndarray]) -> list[list[np.ndarray]]:
        """[bytes read, bytes written] per memory with `letter` innermost."""
        route = self.route
        traffic: list[list[np.ndarray]] = [[np.zeros(1), np.zeros(1)] for _ in self.machine.levels]
        for role in sorted(route.stored):
            loads, stores = self._loads_and_stores(view, role, letter)
            parent, child = route.parent[role], route.level
            traffic[parent][0] = traffic[parent][0] + loads
            traffic[child][1] = traffic[child][1] + loads
            if role is OUTPUT:
                traffic[parent][1] = traffic[parent][1] + stores
                traffic[child][0] = traffic[child][0] + stores
        for (level, direction), moved in fed.items():
            traffic[level][direction] = traffic[level][direction] + moved
        return traffic

    def _fed_ports(self, view: _View) -> list[np.ndarray]:
        """Bytes per port that the array itself takes and gives."""
        fed = [np.zeros(1) for _ in self.machine.ports]
        for (number, direction), moved in self._fed(view).items():
            level = self.machine.levels[number]
            port = level.write_port if direction else level.read_port
            fed[port] = fed[port] + moved
        return fed

    def _between(
        self, view: _View, letter: str, first: list[tuple[np.ndarray, int]], last: list[tuple[np.ndarray, int]]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(bytes, transfers) per port between the first load and the last store."""
        route, levels = self.route, self.machine.levels
        moved = [-(a + b) for (a, _), (b, _) in zip(first, last, strict=True)]
        count = [np.full(1, -float(a + b)) for (_, a), (_, b) in zip(first, last, strict=True)]
        for role in sorted(route.stored):
            parent, child = levels[route.parent[role]], levels[route.level]
            loads, stores = self._loads_and_stores(view, role, letter)
            arrivals, departures = self._transfers(view, role, letter)
            # Instances of the memory have ports of their own.
            for port, amount, times in (
                (parent.read_port, loads, arrivals),
                (child.write_port, loads / self.instances, arrivals),
                (parent.write_port, stores, departures),
                (child.read_port, stores / self.instances, departures),
            ):
                moved[port] = moved[port] + amount
                count[port] = count[port] + times
        return moved, count

    def _transfers(self, view: _View, role: OperandRole, letter: str) -> tuple[np.ndarray, np.ndarray]:
        """How often a tile of the operand arrives and leaves."""
        foreign = {INPUT: "N", WEIGHT: "M", OUTPUT: "K"}[role]
        again = np.ones(1) if letter == foreign else view.trips[foreign]
        tiles = self._product([view.trips[c] for c in CLASSES if c != foreign])
        if role is OUTPUT:
            return tiles * (again - 1), tiles * again
        if role is INPUT and self.hollow:
            return np.ones(1), np.zeros(1)  # a slide may bring nothing new
        return tiles * again, np.zeros(1)

    def _hollow(self) -> bool:
        """A window overlaps the whole of some short axis, so that a slide may move nothing."""
        problem = self.problem
        for axis in problem.axes[INPUT]:
            window = 1 + sum((int(problem.einsum.ranks[r]) - 1) * c for r, c in axis.terms if r in problem.window_ranks)
            stride = min((c for r, c in axis.terms if r not in problem.window_ranks), default=window)
            if len(axis.terms) > 1 and axis.size <= window - stride:
                return True
        return False

    def _loads_and_stores(self, view: _View, role: OperandRole, letter: str) -> tuple[np.ndarray, np.ndarray]:
        """Bytes of an operand over the border, in and out, with `letter` innermost.

        (Where an operand has no loop of its own left it never leaves either; then the innermost
        class can only be the one that it does not depend on, which is the case `again` = 1.)
        """
        problem = self.problem
        foreign = {INPUT: "N", WEIGHT: "M", OUTPUT: "K"}[role]
        again = np.ones(1) if letter == foreign else view.trips[foreign]
        whole = self._elements(view, role, "total")
        if role is OUTPUT:
            partial = whole * ((again - 1) * (problem.accumulate_bits / 8))
            return partial, partial + whole * (problem.bits[OUTPUT] / 8)
        if role is INPUT and problem.window_ranks:
            slid = self._elements(view, role, "slid") + self._elements(view, role, "slid_again") * (again - 1)
            jumps = view.trips["K"] > 1  # reduction loops inside leave nothing to slide over
            loads = np.where(jumps, whole * again, slid) if letter == "K" else slid
            return loads * (problem.bits[role] / 8), np.zeros(1)
        return whole * (again * (problem.bits[role] / 8)), np.zeros(1)


FACTORS = ("first", "last", "wave_first", "wave_last", "total", "slid", "slid_again")


@dataclass(frozen=True, slots=True)
class _Ports:
    """Per port: bytes and transfers between the ends, bytes of the array, and both ends."""

    moved: list[np.ndarray]
    count: list[np.ndarray]
    fed: list[np.ndarray]
    first: list[tuple[np.ndarray, int]]
    last: list[tuple[np.ndarray, int]]

    def ends(self, numbers: Numbers, d: int | slice) -> np.ndarray:
        """Cycles of the first load and the last store: each transfer pays its set-up on its ports."""
        total: np.ndarray = np.zeros(1)
        for end in (self.first, self.last):
            longest: np.ndarray = np.zeros(1)
            for port, (amount, count) in enumerate(end):
                if count:
                    longest = np.maximum(longest, amount / numbers.rates[d, port] + numbers.setup[d] * count)
            total = total + longest
        return total


class _View:
    """The class lists reshaped to broadcast against each other, cut to a block."""

    def __init__(
        self, lists: Mapping[str, ClassTiles], cut: Mapping[int, slice] | None = None, index: np.ndarray | None = None
    ) -> None:
        """A block of the grid, or with `index` (4, n) the tilings at n points."""
        self.trips, self.folds, self.streamed, self.once, self.depth = ({} for _ in range(5))
        self.first, self.last, self.wave_first, self.wave_last, self.total, self.slid, self.slid_again = (
            {} for _ in FACTORS
        )
        for letter in CLASSES:
            axis, tiles = AXIS[letter], lists[letter]
            shape = (-1,) if index is not None else tuple(-1 if a == axis else 1 for a in range(4))
            part = index[axis] if index is not None else (cut or {}).get(axis, slice(None))
            for name in ("trips", "folds", "streamed", "once", "depth"):
                getattr(self, name)[letter] = getattr(tiles, name)[part].reshape(shape)
            for name in FACTORS:
                getattr(self, name)[letter] = {
                    role: values[part].reshape(shape) for role, values in getattr(tiles, name).items()
                }
