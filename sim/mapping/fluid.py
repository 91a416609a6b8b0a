"""A quick cost of mappings over several memories, to rank thousands of them before a few are costed exactly.

Fluid: every border is summed over all its jobs before anything is compared. With double buffers

    T_b = first loads + last stores + max(T_{b+1}, busy time of each port without them)

and moves are added to T_{b+1} where there is no second buffer. Traffic follows the loops of all borders
one after the other: an operand is moved again for every trip of the loops that it does not depend on
and that stand outside its innermost walked rank; a window slides over the innermost relevant loop of a
border. Ragged tiles count at their mean size. It is close to the recurrence and not a bound of it, in single
precision; whether a mapping fits is exact up to that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from sim.mapping.array_job import array_accesses, array_time
from sim.mapping.machine import Machine
from sim.mapping.nest import accumulates_outside
from sim.mapping.problem import INPUT, OUTPUT, ROLES, WEIGHT, Problem
from sim.mapping.search import fixed_class, innermost, routes, split_options
from sim.mapping.winners import Objective, valued
from sim.workload.graph import OperandRole

READ, WRITE = 0, 1
SINGLE_BELOW = 1 << 24
"""Extents of ranks up to which single precision counts them; it is as good for ranking, and half the memory traffic."""
Parts = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Chains:
    """n mappings over B borders of R tiled ranks; mappings lie along the last axis, so that a rank's numbers are one
    row. `tiles` (B, R, n): what a border leaves of each rank, before instances share it (whole numbers, as floats
    divide faster); `place` (B, R, n): where each rank's loop stands, 0 outermost; `parts` (B, n): which way to use
    the fan-outs."""

    tiles: np.ndarray
    place: np.ndarray
    parts: np.ndarray

    def __len__(self) -> int:
        return self.parts.shape[1]

    def take(self, rows: np.ndarray) -> Chains:
        return Chains(*(np.take(part, rows, axis=-1) for part in (self.tiles, self.place, self.parts)))

    @staticmethod
    def join(some: Sequence[Chains]) -> Chains:
        return Chains(*(np.concatenate([getattr(c, n) for c in some], axis=-1) for n in ("tiles", "place", "parts")))


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search makes least of."""

    measure: Objective | None
    """None: the time as if nothing overlapped."""
    fixed: bool = False
    """Only loop orders of the array's dataflow (see `fixed_class`)."""


class Fluid:
    """The cost of chains of one problem on one design.

    Args: room: bytes free per level; energy: J/byte read and written per level, J/MAC.
    """

    def __init__(
        self,
        problem: Problem,
        machine: Machine,
        homes: Mapping[OperandRole, int],
        *,
        design: int,
        room: np.ndarray,
        objective: Objective,
        fixed: bool,
        reduced: bool = True,
    ) -> None:
        """`fixed`: chains that leave the array's dataflow have no value; `reduced`: whether arrays beside each other
        may share a reduction."""
        self.problem, self.machine, self.room = problem, machine, room
        self.objective, self.fixed = objective, fixed
        self.rates, self.setup = machine.rates[design].tolist(), float(machine.setup_cycles[design])
        self.latency = float(machine.latency_cycles[design])
        self.energy: tuple[list[float], list[float]] = (
            machine.read_energy_j_per_byte[design].tolist(), machine.write_energy_j_per_byte[design].tolist(),
        )  # fmt: skip
        self.idle_j_per_cycle = float(machine.idle_j_per_cycle[design])
        self.mac_j = float(machine.mac_energy_j[design]) * problem.macs / problem.reduction_speedup
        self.routes = routes(machine, homes)
        self.innermost = innermost(machine, homes)
        self.ranks = problem.tiled_ranks
        extents = [problem.einsum.ranks[r] for r in self.ranks]
        self.real: np.dtype[Any] = np.dtype("f4" if max(extents, default=1) < SINGLE_BELOW else "f8")
        self.extent = np.array(extents, dtype=self.real)
        self.relevant = {role: self._rows(problem.relevant[role]) for role in ROLES}
        self.others = {role: self._rows(set(self.ranks) - problem.relevant[role]) for role in ROLES}
        self.reduced = self._rows(problem.reduction)
        self.held = self._rows([r for r in self.ranks if problem.rank_class[r] == fixed_class(machine)])
        """Ranks of which the array's dataflow has one innermost where any of them is walked."""
        last = len(self.routes) - 1
        self._offer([self._options(level, b == last, reduced) for b, (level, _, _) in enumerate(self.routes)])

    def _rows(self, ranks: Collection[str]) -> list[int]:
        return [row for row, rank in enumerate(self.ranks) if rank in ranks]

    def _options(self, level: int, last: bool, reduced: bool) -> list[Parts]:
        inside = len(self.machine.levels)
        ways = [
            [
                tuple((r, n, at) for r, n in way.items())
                for way in split_options(self.machine, self.problem, at, reduced)
            ]
            for at in ([level, inside] if last else [level])
        ]
        return [sum(combination, ()) for combination in product(*ways)]

    def _offer(self, options: list[list[Parts]]) -> None:
        self.options = options
        self.shares = [self._shares(ways, level) for ways, (level, _, _) in zip(options, self.routes, strict=True)]
        self.arrays = self._shares(options[-1], len(self.machine.levels))

    def offering(self, ways: Sequence[Parts | None]) -> Fluid:
        """As this, with one more way to use the fan-outs at each border, where one is given that is not there yet."""
        other = copy(self)
        other._offer(
            [mine if way is None or way in mine else [*mine, way] for mine, way in zip(self.options, ways, strict=True)]
        )
        return other

    def _shares(self, options: list[Parts], level: int) -> np.ndarray:
        """Instances of a level that share each rank: (R, options)."""
        table = np.ones((len(self.ranks), len(options)), dtype=self.real)
        for column, option in enumerate(options):
            for rank, count, at in option:
                if at == level:
                    table[self.ranks.index(rank), column] = count
        return table

    def adopted(self, chains: Chains, other: Fluid) -> Chains:
        """Chains of another fluid, whose ways to use the fan-outs are among these."""
        numbers = [
            np.array([mine.index(way) for way in ways]) for mine, ways in zip(self.options, other.options, strict=True)
        ]
        parts = [number[chains.parts[b]] for b, number in enumerate(numbers)]
        return Chains(chains.tiles, chains.place, np.stack(parts))

    def filling(self, chains: Chains, b: np.ndarray, rank: np.ndarray) -> np.ndarray:
        """About the largest tile of a rank at border b with which each chain fits in the memory there, (n,)."""
        problem, levels, column = self.problem, self.machine.levels, np.arange(len(chains))
        share = np.ones(chains.tiles.shape[1:])
        for border, shares in enumerate(self.shares):
            share = np.where(b == border, np.take(shares, chains.parts[border], axis=1), share)
        size = np.ceil(chains.tiles[b, :, column].T / share)
        bytes_each = np.zeros((len(self.routes), len(ROLES)))
        for border, (level, stored, _) in enumerate(self.routes):
            for place, role in enumerate(ROLES):
                bits = problem.accumulate_bits if role is OUTPUT else problem.bits[role]
                bytes_each[border, place] = (role in stored) * bits / 8 * (2 if levels[level].double_buffered else 1)

        def used(own: np.ndarray | float) -> np.ndarray:
            one = size.copy()
            one[rank, column] = own
            sizes: dict[str, np.ndarray] = {r: np.asarray(n) for r, n in problem.einsum.ranks.items()}
            sizes |= dict(zip(self.ranks, one, strict=True))
            return np.sum([bytes_each[b, i] * problem.elements(role, sizes) for i, role in enumerate(ROLES)], axis=0)

        least, two = used(1.0), used(2.0)
        room = np.array([self.room[level] for level, _, _ in self.routes])[b]
        whole = self.extent[rank]
        more = np.minimum(np.maximum(room - least, 0.0) / np.maximum(two - least, 1e-9), whole)
        return (1 + np.floor(more)) * share[rank, column]

    def values(self, chains: Chains) -> np.ndarray:
        """What the objective asks for, inf where a memory overflows or an order is not in the space: (n,)."""
        return self.by((Aim(self.objective, fixed=self.fixed),), chains)[0]

    def by(self, aims: Sequence[Aim], chains: Chains) -> np.ndarray:
        """What each aim makes least of, inf where a memory overflows or an order is not in its space: (aims, n)."""
        books = _Books(self, chains)
        time = books.time()
        found = np.stack([self._measured(books, aim.measure, time) for aim in aims])
        held = np.array([aim.fixed for aim in aims])[:, None]
        return np.where(books.fits & (books.obeys | ~held), found, np.inf)

    def _measured(self, books: _Books, measure: Objective | None, time: np.ndarray) -> np.ndarray:
        if measure is None:
            return books.serial()
        if measure is Objective.LATENCY:
            return time
        return valued(measure, time, books.energy() + self.mac_j, self.idle_j_per_cycle)


@dataclass(slots=True)
class _Step:
    """One border, summed over all its jobs: port -> bytes and transfers moved, of them at both ends."""

    moved: np.ndarray
    """(ports, n) cycles"""
    ends: list[np.ndarray]
    """[first loads, last stores], each (ports, n) cycles"""
    double: bool


class _Books:
    def __init__(self, fluid: Fluid, chains: Chains) -> None:
        self.fluid, self.chains, self.n = fluid, chains, len(chains)
        n, ranks, real = self.n, len(fluid.ranks), fluid.real
        self.size = np.broadcast_to(fluid.extent[:, None], (ranks, n))
        """Largest extents of a job."""
        self.mean = self.size
        """Mean extents of a job (of its slowest instance)."""
        self.count = self.full = np.ones((ranks, n), dtype=real)
        """Pieces of each rank so far; of them those of the largest extent."""
        self.rest = np.ones((ranks, n), dtype=real)
        """Mean extent of the others."""
        self.again = {role: np.ones(n, dtype=real) for role in ROLES}
        self.idle = {role: np.ones(n, dtype=real) for role in ROLES}
        """Trips so far of loops on which the operand does not depend."""
        self.instances = np.ones((len(fluid.machine.levels) + 1, n), dtype=real)
        self.moved_j = np.zeros(n, dtype=real)
        self.obeys = np.ones(n, dtype=bool)
        self.used = {level: np.zeros(n, dtype=real) for level, _, _ in fluid.routes}
        self.partial = np.zeros(n, dtype=bool)
        self.sums: tuple[int, np.ndarray] | None = None
        self.steps = [self._border(b) for b in range(len(fluid.routes))]
        self._array()
        self.fits = np.all([used <= fluid.room[level] for level, used in self.used.items()], axis=0)

    # One border ----------------------------------------------------------------------------------
    def _border(self, b: int) -> _Step:
        fluid, chains = self.fluid, self.chains
        level, stored, parents = fluid.routes[b]
        outer_mean, outer_count = self.mean, self.count
        tile = np.minimum(chains.tiles[b], self.size)
        walked = tile < self.size
        self._cut(tile)
        trips = self.count / outer_count
        self.partial = self.partial | walked[fluid.reduced].any(axis=0)
        place = chains.place[b]
        inner = self._loops(place, trips, walked)
        self._obey(place, walked)
        mean = outer_mean / trips
        alone = len(fluid.options[b]) == 1
        split = np.take(fluid.shares[b], chains.parts[b], axis=1)
        share = np.ceil(tile / split)
        self.size, self.mean, self.rest = share, mean * (share / tile), self.rest * (share / tile)
        self.instances[level] = split.prod(axis=0)
        step = _Step(
            np.zeros((len(fluid.machine.ports), self.n), dtype=fluid.real),
            [np.zeros((len(fluid.machine.ports), self.n), dtype=fluid.real) for _ in range(2)],
            fluid.machine.levels[level].double_buffered,
        )
        jobs = outer_count.prod(axis=0)
        for role in sorted(stored):
            self._hold(level, role)
            loads = self.again[role] * self.count[fluid.relevant[role]].prod(axis=0)
            covers = ~walked[fluid.relevant[role]].any(axis=0)
            innermost = place == inner[role]
            whole = self._elements(role, mean, outer_mean, trips, innermost)
            one = whole if alone else self._elements(role, self.mean, outer_mean, trips, innermost)
            exposed = np.where(covers, 1.0, np.minimum(jobs / loads, 1.0))
            self._move(step, role, (level, parents[role]), (whole, one), loads, exposed)
        return step

    def _cut(self, tile: np.ndarray) -> None:
        """Count the pieces of a border: a job of the largest extent and one of the others leave each a rest."""
        others = self.count - self.full
        of_full, of_rest = np.floor(self.size / tile), np.floor(self.rest / tile + 1e-5)
        left, left_rest = self.size - of_full * tile, np.maximum(self.rest - of_rest * tile, 0.0)
        full = self.full * of_full + others * of_rest
        rests = self.full * (left > 0) + others * (left_rest > 1e-3)
        self.rest = (self.full * left + others * left_rest) / np.maximum(rests, 1.0)
        self.full, self.count = full, full + rests

    def _loops(self, place: np.ndarray, trips: np.ndarray, moving: np.ndarray) -> dict[OperandRole, np.ndarray]:
        """Take in the loops of a border; the place of each operand's innermost loop of several trips, or -1."""
        fluid, inner = self.fluid, {}
        for role in ROLES:
            mine, others = fluid.relevant[role], fluid.others[role]
            at = inner[role] = np.where(moving[mine], place[mine], np.int8(-1)).max(axis=0, initial=-1)
            outside = np.where(place[others] < at, trips[others], 1.0).prod(axis=0)
            self.again[role] = np.where(at < 0, self.again[role], self.idle[role] * outside)
            self.idle[role] = self.idle[role] * trips[others].prod(axis=0)
        return inner

    def _obey(self, place: np.ndarray, walked: np.ndarray) -> None:
        """Whether the innermost loop is one that the array's dataflow has there, if any of those is walked."""
        at = np.where(walked, place, np.int8(-1))
        own = at[self.fluid.held].max(axis=0, initial=-1)
        self.obeys &= (own < 0) | (own == at.max(axis=0))

    def _elements(
        self, role: OperandRole, mean: np.ndarray, outer: np.ndarray, trips: np.ndarray, innermost: np.ndarray
    ) -> np.ndarray:
        """Mean elements of one load; along the innermost relevant loop a window brings only what is new."""
        problem, ranks = self.fluid.problem, self.fluid.ranks
        elements = np.ones(self.n, dtype=self.fluid.real)
        for axis in problem.axes[role]:
            if len(axis.terms) == 1:
                rank = axis.terms[0][0]
                if rank in ranks:
                    elements = elements * mean[ranks.index(rank)]
                else:
                    elements = elements * min(problem.einsum.ranks[rank], axis.size)
                continue
            window = 1 + sum((problem.einsum.ranks[r] - 1) * c for r, c in axis.terms if r in problem.window_ranks)
            box: np.ndarray = np.full(self.n, float(window), dtype=self.fluid.real)
            whole = box
            slides = np.zeros(self.n, dtype=bool)
            pieces = np.ones(self.n, dtype=self.fluid.real)
            for rank, stride in axis.terms:
                if rank in ranks:
                    column = ranks.index(rank)
                    box = box + (mean[column] - 1) * np.minimum(stride, box)
                    whole = whole + (outer[column] - 1) * np.minimum(stride, whole)
                    slides |= innermost[column]
                    pieces = pieces * trips[column]
            box, whole = np.minimum(box, axis.size), np.minimum(whole, axis.size)
            elements = elements * np.where(slides, np.minimum(whole / pieces, box), box)
        return elements

    def _hold(self, level: int, role: OperandRole) -> None:
        """Bytes in the memory: exact, as `nest.footprint_bytes`."""
        fluid = self.fluid
        sizes = self._sizes(self.size)
        held = fluid.problem.elements(role, sizes) * (2 if fluid.machine.levels[level].double_buffered else 1) / 8
        if role is OUTPUT:
            self._close_sums(self.partial)
            self.sums = (level, np.broadcast_to(held, self.n))
        else:
            self.used[level] = self.used[level] + held * fluid.problem.bits[role]

    def _close_sums(self, wide: np.ndarray) -> None:
        if self.sums is not None:
            level, held = self.sums
            problem = self.fluid.problem
            self.used[level] = self.used[level] + held * np.where(wide, problem.accumulate_bits, problem.bits[OUTPUT])

    def _sizes(self, size: np.ndarray) -> dict[str, np.ndarray]:
        fluid = self.fluid
        sizes: dict[str, np.ndarray] = {r: np.asarray(n) for r, n in fluid.problem.einsum.ranks.items()}
        return sizes | dict(zip(fluid.ranks, size, strict=True))

    def _move(
        self,
        step: _Step,
        role: OperandRole,
        levels: tuple[int, int],
        elements: tuple[np.ndarray, np.ndarray],
        loads: np.ndarray,
        exposed: np.ndarray,
    ) -> None:
        """Book an operand's moves. elements: of a load for all instances and for one; exposed: share of
        the loads that nothing hides."""
        fluid, (level, parent) = self.fluid, levels
        machine, problem = fluid.machine, fluid.problem
        child_level, parent_level = machine.levels[level], machine.levels[parent]
        whole, one = elements
        here = self.instances[level]
        outer = whole if child_level.multicast or role is OUTPUT else np.maximum(one * here, whole)
        between = self.instances[parent + 1 : level].prod(axis=0)
        above, all_ = self.instances[: parent + 1].prod(axis=0), self.instances[: level + 1].prod(axis=0)

        def book(port: int, bytes_each: np.ndarray, count: np.ndarray, way: int) -> None:
            cycles = count * (bytes_each / fluid.rates[port] + fluid.setup * (bytes_each > 0))
            step.moved[port] += cycles
            step.ends[way][port] += cycles * exposed

        reads, writes = fluid.energy
        if role is OUTPUT:
            again = self.again[OUTPUT]
            wide, narrow = problem.accumulate_bits / 8, problem.bits[OUTPUT] / 8
            back = (again - 1) / again  # share of the visits that find a partial sum outside
            ways = [(wide * back, False), ((wide * (again - 1) + narrow) / again, True)]
        else:
            ways = [(np.full(self.n, problem.bits[role] / 8, dtype=fluid.real), False)]
        for width, out in ways:
            up = parent_level.write_port if out else parent_level.read_port
            down = child_level.read_port if out else child_level.write_port
            book(up, outer * width, loads * between, int(out))
            book(down, one * width, loads, int(out))
            if fluid.objective is not Objective.LATENCY:
                first, second = (writes[parent], reads[level]) if out else (reads[parent], writes[level])
                self.moved_j += loads * width * (outer * between * above * first + one * all_ * second)

    # The array -----------------------------------------------------------------------------------
    def _array(self) -> None:
        fluid, problem, machine = self.fluid, self.fluid.problem, self.fluid.machine
        split = np.take(fluid.arrays, self.chains.parts[-1], axis=1)
        side_by_side = split.prod(axis=0)
        share = np.ceil(self.size / split)
        mean = np.ceil(self.mean * (share / self.size) - 1e-4).astype(np.int64)
        sizes = self._sizes(mean)
        jobs = self.count.prod(axis=0)
        cycles, _, _ = array_time(problem, machine.array, sizes)
        self.run = jobs * cycles
        accesses = array_accesses(problem, machine.array, sizes)
        self.fed = np.zeros((len(machine.ports), self.n), dtype=fluid.real)
        shared = (share < self.size)[fluid.reduced].any(axis=0)
        self._close_sums(self.partial | shared | accumulates_outside(problem, machine, self._sizes(self.size)))
        wide, narrow = problem.accumulate_bits / 8, problem.bits[OUTPUT] / 8
        once = 1 / (self.count * split)[fluid.reduced].prod(axis=0)
        passes, out = accesses["passes"], accesses["output"]
        for role, way, moved in (
            (INPUT, READ, accesses["input"] * problem.bits[INPUT] / 8),
            (WEIGHT, READ, accesses["weight"] * problem.bits[WEIGHT] / 8),
            (OUTPUT, WRITE, out * ((passes - 1) * wide + once * narrow + (1 - once) * wide)),
            (OUTPUT, READ, out * wide * (passes - once)),
        ):
            level = fluid.innermost[role]
            port = machine.levels[level].write_port if way == WRITE else machine.levels[level].read_port
            inside = self.instances[level + 1 :].prod(axis=0) * side_by_side
            self.fed[port] += jobs * moved * inside / fluid.rates[port]
            if fluid.objective is not Objective.LATENCY:
                joules = fluid.energy[way][level] * self.instances.prod(axis=0) * side_by_side
                self.moved_j += jobs * moved * joules

    # Sums ----------------------------------------------------------------------------------------
    def time(self) -> np.ndarray:
        """Cycles, from the array outwards."""
        time, busy = np.broadcast_to(self.run, self.n), self.fed
        for step in reversed(self.steps):
            first, last = (ends.max(axis=0) for ends in step.ends)
            between = step.moved - step.ends[0] - step.ends[1]
            if step.double:
                time = first + last + np.maximum(time, (busy + between).max(axis=0))
            else:
                time = first + last + np.maximum(time, busy.max(axis=0)) + between.max(axis=0)
            busy = busy + step.moved
        return time + self.fluid.latency

    def serial(self) -> np.ndarray:
        """Cycles of the array and of every port one after the other: what moves less is less, hidden or not."""
        return self.run + self.fed.sum(axis=0) + sum(step.moved.sum(axis=0) for step in self.steps)

    def energy(self) -> np.ndarray:
        """Dynamic energy of the memories, J."""
        return self.moved_j
