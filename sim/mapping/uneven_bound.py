"""A lower bound of uneven mappings over one memory's borders, and the candidates with the least of it.

A candidate is a tile per rank, an order of the classes M, N, K and B, and per stored operand how many
of its own classes' loops stand outside its store. What it moves is closed form: an operand's tile is
whole in the classes inside its store, and it is moved again for every trip of a foreign class outside
its innermost own loop. Its time is at least

    latency + max(array cycles + first loads + last store, busy time of each port)

(with single buffers: array cycles + the longest busy time). Neither exceeds the exact recurrence: a
step is never shorter than the job in it or than what its ports move.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import NamedTuple

import numpy as np

from sim.hardware.chip import Dataflow
from sim.mapping.arrays import BINDINGS
from sim.mapping.problem import INPUT, OUTPUT, ROLES, WEIGHT
from sim.mapping.search import Choice, SingleBorder
from sim.mapping.terms import CLASSES, Grid, Numbers
from sim.mapping.winners import Objective, valued
from sim.workload.graph import OperandRole

FOREIGN = {INPUT: "N", WEIGHT: "M", OUTPUT: "K"}
BLOCK = 32_768
"""Tilings bounded at once."""


class Candidate(NamedTuple):
    """`value` is the bound; `cut[i]` counts the own classes outside the store of the i-th stored operand."""

    value: float
    option: int
    tiling: int
    order: tuple[str, ...]
    cut: tuple[int, ...]


class _Moved(NamedTuple):
    """One operand, stored inside some of its classes: bytes, arrays over the tilings of a block."""

    footprint: np.ndarray
    first: np.ndarray
    last: np.ndarray
    loads: np.ndarray
    stores: np.ndarray
    real: np.ndarray | bool
    """The innermost class outside the store has more than one trip (otherwise another candidate is the same)."""


class UnevenBound:
    """Bounds of one problem on one design.

    `room`: bytes free, per level of the machine or of the one memory; `energy`: J/byte per level read
    and written, J/MAC, J/cycle of idle power.
    """

    def __init__(
        self,
        space: SingleBorder,
        numbers: Numbers,
        room: np.ndarray | float,
        objective: Objective = Objective.LATENCY,
        energy: tuple[np.ndarray, np.ndarray, float, float] | None = None,
    ) -> None:
        self.space, self.room, self.objective, self.energy = space, room, objective, energy
        self.rates, self.setup, self.latency = numbers.rates[0], float(numbers.setup[0]), float(numbers.latency[0])
        self.problem, self.route, self.machine = space.problem, space.route, space.machine
        self.grids = list(space.grids)
        self.stored = [r for r in ROLES if r in self.route.stored]
        self.candidates = 0
        """Bounded so far."""

    def best(self, below: float, most: int) -> list[Candidate]:
        """The `most` candidates of least bound under `below`, ascending."""
        found: list[Candidate] = []
        for option, (_, grid) in enumerate(self.grids):
            for start in range(0, grid.tilings, BLOCK):
                block = _Block(grid, np.arange(start, min(start + BLOCK, grid.tilings)))
                found += self._block(option, block, below, most)
                if len(found) > 4 * most:
                    found = sorted(found)[:most]
                    below = min(below, found[-1].value)
        return sorted(found)[:most]

    def choices(self, candidate: Candidate, *, all_places: bool) -> Iterator[Choice]:
        """The mappings that a candidate stands for: stores may stand inside foreign loops too.

        all_places: every such place; otherwise the outermost and the innermost ones only.
        """
        option, grid = self.grids[candidate.option]
        tiles = grid.tiling(candidate.tiling)
        sizes = self.problem.einsum.ranks
        order = tuple(r for c in candidate.order for r in grid.lists[c].ranks if tiles[r] < sizes[r])
        letter = {r: self.problem.rank_class[r] for r in order}
        split = {rank for rank, _, level in option if level == self.route.level}
        least = max((i + 1 for i, rank in enumerate(order) if rank in split), default=0)
        spans = []
        for role, count in zip(self.stored, candidate.cut, strict=True):
            own = [c for c in candidate.order if c != FOREIGN[role]][:count]
            low = max((i + 1 for i, r in enumerate(order) if letter[r] in own), default=0)
            high = next((i for i in range(low, len(order)) if letter[order[i]] != FOREIGN[role]), len(order))
            if max(low, least) > high:
                return
            spans.append(range(max(low, least), high + 1))
        places = product(*spans) if all_places else {tuple(s[0] for s in spans), tuple(s[-1] for s in spans)}
        for depths in sorted(places):
            if max(depths) == len(order):
                yield Choice(order, tuple(tiles[r] for r in order), option, depths)

    # Bounds --------------------------------------------------------------------------------------
    def _block(self, option: int, block: _Block, below: float, most: int) -> list[Candidate]:
        cycles = self._cycles(block)
        if self.objective is Objective.LATENCY:
            keep = cycles + self.latency < below
            block, cycles = block.take(keep), cycles[keep]
        if not len(cycles):
            return []
        found: list[Candidate] = []
        letters = [c for c in CLASSES if len(block.grid.lists[c]) > 1]
        for order in permutations(letters):
            ways = [self._ways(block, role, order) for role in self.stored]
            for cut in product(*[range(len(w)) for w in ways]):
                value = self._value(block, cycles, [w[c] for w, c in zip(ways, cut, strict=True)])
                self.candidates += len(value)
                near = np.flatnonzero(value < below)
                if len(near) > most:
                    near = near[np.argpartition(value[near], most - 1)[:most]]
                found += [Candidate(float(value[i]), option, int(block.tiling[i]), order, cut) for i in near]
            if len(found) > 4 * most:
                found = sorted(found)[:most]
                below = min(below, found[-1].value)
        return found

    def _cycles(self, block: _Block) -> np.ndarray:
        binding = BINDINGS[Dataflow(self.machine.array.dataflow)]
        rows, cols, stream = binding
        folds = block.folds[rows] * block.folds[cols] * block.folds["B"]
        jobs = block.trips[rows] * block.trips[cols] * block.trips["B"]
        return folds * block.streamed[stream] + jobs * block.once[stream]

    def _ways(self, block: _Block, role: OperandRole, order: tuple[str, ...]) -> list[_Moved]:
        own = [c for c in order if c != FOREIGN[role]]
        return [self._moved(block, role, order, own[:count]) for count in range(len(own) + 1)]

    def _moved(self, block: _Block, role: OperandRole, order: tuple[str, ...], cut: list[str]) -> _Moved:
        """Bytes of an operand that is cut by the classes `cut`, the last of them innermost."""
        problem, width = self.problem, self.problem.bits[role] / 8
        tile, first, last, slid, again_, total = (np.ones(1) for _ in range(6))
        # A store inside the split begins with the tile of one instance, not with that of a wave.
        ends = ("first", "last") if block.grid.instances > 1 else ("wave_first", "wave_last")
        for c in CLASSES:
            name, whole = (c, role), c not in cut
            tile = tile * (block.whole["first", *name] if whole else block.factor["first", *name])
            first = first * (block.whole[ends[0], *name] if whole else block.factor[ends[0], *name])
            last = last * (block.whole[ends[1], *name] if whole else block.factor[ends[1], *name])
            slid = slid * (block.whole["slid", *name] if whole else block.factor["slid", *name])
            again_ = again_ * (block.whole["slid", *name] if whole else block.factor["slid_again", *name])
            total = total * (block.whole["slid", *name] if whole else block.factor["total", *name])
        foreign, again = FOREIGN[role], np.ones(1)
        if cut and foreign in order and order.index(foreign) < order.index(cut[-1]):
            again = block.trips[foreign]
        real = True if not cut else block.trips[cut[-1]] > 1
        copies = self.route.copies
        if role is OUTPUT:
            wide = problem.accumulate_bits / 8
            held = np.where(self._partial(block), wide, width)
            loads = total * (again - 1) * wide
            return _Moved(tile * held * copies, np.zeros(1), last * width, loads, loads + total * width, real)
        loads = slid + (again - 1) * again_
        if role is INPUT and cut and cut[-1] == "K" and len(cut) > 1:
            loads = np.where(block.trips["K"] > 1, total * again, loads)  # nothing is left to slide over
        return _Moved(tile * width * copies, first * width, np.zeros(1), loads * width, np.zeros(1), real)

    def _partial(self, block: _Block) -> np.ndarray:
        partial = block.trips["K"] > 1
        inside = self.route.innermost[OUTPUT] == self.space.at.get(OUTPUT)
        return partial | block.partial["K"] if inside else partial

    def _value(self, block: _Block, cycles: np.ndarray, parts: list[_Moved]) -> np.ndarray:
        levels, route = self.machine.levels, self.route
        busy, first, last = ([np.zeros(1) for _ in self.machine.ports] for _ in range(3))
        joules: np.ndarray = np.zeros(1)
        instances = block.grid.instances
        for role, moved in zip(self.stored, parts, strict=True):
            parent, child = levels[route.parent[role]], levels[self.space.at[role]]
            for port, amount, share in (
                (parent.read_port, moved.loads, 1),
                (child.write_port, moved.loads, instances),
                (parent.write_port, moved.stores, 1),
                (child.read_port, moved.stores, instances),
            ):
                busy[port] = busy[port] + amount / (share * self.rates[port])
            for port, amount, target, share in (
                (parent.read_port, moved.first, first, 1),
                (child.write_port, moved.first, first, instances),
                (parent.write_port, moved.last, last, 1),
                (child.read_port, moved.last, last, instances),
            ):
                target[port] = target[port] + amount / (share * self.rates[port])
            if self.energy:
                read, write, *_ = self.energy
                joules = joules + moved.loads * (read[route.parent[role]] + write[self.space.at[role]])
                joules = joules + moved.stores * (write[route.parent[role]] + read[self.space.at[role]])
        longest = _longest(busy)
        if route.copies == 2:
            time = self.latency + np.maximum(cycles + _longest(first) + _longest(last), longest)
        else:
            # Behind the split an instance waits for its own moves alone; together they still bind the port.
            outer = {
                port
                for r in self.stored
                for port in (levels[route.parent[r]].read_port, levels[route.parent[r]].write_port)
            }
            waits = _longest([b / instances if p in outer else b for p, b in enumerate(busy)])
            time = self.latency + np.maximum(cycles + waits, longest)
        value = time
        if self.objective is not Objective.LATENCY and self.energy:
            spent = joules + self.energy[2] * self.problem.macs / self.problem.reduction_speedup
            value = valued(self.objective, time, spent, self.energy[3])
        used: dict[int, np.ndarray] = {}
        fits = np.ones(1, dtype=bool)
        for role, moved in zip(self.stored, parts, strict=True):
            used[self.space.at[role]] = used.get(self.space.at[role], np.zeros(1)) + moved.footprint
            fits = fits & moved.real
        for level, held in used.items():
            fits = fits & (held <= (self.room[level] if isinstance(self.room, np.ndarray) else self.room))
        return np.where(fits, value, np.inf)


def _longest(ports: list[np.ndarray]) -> np.ndarray:
    longest = ports[0]
    for busy in ports[1:]:
        longest = np.maximum(longest, busy)
    return longest


FACTORS = ("first", "last", "wave_first", "wave_last", "total", "slid", "slid_again")


class _Block:
    """Per-class numbers of some tilings of a grid, one entry a tiling; `whole` those of an uncut class."""

    def __init__(self, grid: Grid, tiling: np.ndarray) -> None:
        self.grid, self.tiling = grid, tiling
        index = dict(zip(CLASSES, np.unravel_index(tiling, grid.shape), strict=True))
        self.trips, self.folds, self.streamed, self.once, self.partial = (
            {c: np.asarray(getattr(grid.lists[c], name)[index[c]]) for c in CLASSES}
            for name in ("trips", "folds", "streamed", "once", "partial")
        )
        self.factor: dict[tuple, np.ndarray] = {}
        self.whole: dict[tuple, float] = {}
        for name, c, role in product(FACTORS, CLASSES, ROLES):
            values = getattr(grid.lists[c], name)[role]
            self.factor[name, c, role] = values[index[c]]
            self.whole[name, c, role] = float(values[int(np.argmin(grid.lists[c].trips))])

    def take(self, keep: np.ndarray) -> _Block:
        return _Block(self.grid, self.tiling[keep])
