"""What the evaluator hands around: states of jobs, their costs, and the table of a border's steps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

import numpy as np

from sim.mapping.machine import Machine
from sim.mapping.nest import Nest
from sim.mapping.problem import ROLES, Problem
from sim.workload.graph import OperandRole

ROLE_INDEX = {role: i for i, role in enumerate(ROLES)}
READ, WRITE = 0, 1


@dataclass(slots=True)
class State:
    """A batch of jobs at one border: boxes, what stays, whether sums begin or end here."""

    row: np.ndarray
    """Which candidate row each job belongs to."""
    sizes: dict[str, np.ndarray]
    stays_in: dict[OperandRole, np.ndarray]
    """The operand's region is that of the job before."""
    stays_out: np.ndarray
    """The output's region is that of the job after."""
    fresh: np.ndarray
    """No earlier job has summed into this output region."""
    final: np.ndarray
    """The output region is finished when the job ends."""


@dataclass(slots=True)
class Cost:
    """Cycles and bytes of a batch of jobs. `array` = `spatial` + `preload` + `skew`; time =
    array + setup + waiting (the rest)."""

    time: np.ndarray
    port_bytes: np.ndarray
    """(n, ports)"""
    port_moves: np.ndarray
    """(n, ports) transfers that pay the set-up"""
    traffic: np.ndarray
    """(n, levels, operands, read/write) bytes, summed over instances"""
    array: np.ndarray
    spatial: np.ndarray
    preload: np.ndarray
    setup: np.ndarray
    first: np.ndarray = field(default_factory=lambda: np.zeros(1))
    """First load x_0 of the outermost border."""
    drain: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def take(self, rows: np.ndarray) -> Cost:
        """Some of the jobs."""
        return Cost(*(getattr(self, f.name)[rows] for f in fields(self)))


class Elements(NamedTuple):
    """Elements of one move: at one port of the parent and over all its instances, at one port of
    the child and over all its instances. They differ only where a border fans out."""

    parent_port: np.ndarray
    parent: np.ndarray
    child_port: np.ndarray
    child: np.ndarray

    def where(self, moved: np.ndarray) -> Elements:
        if all(e is self.child for e in self):
            return Elements(*(np.where(moved, self.child, 0),) * 4)
        return Elements(*(np.where(moved, e, 0) for e in self))


class Moves(NamedTuple):
    """Transfers per port: bytes and how many pay the set-up, each (.., ports)."""

    bytes: np.ndarray
    transfers: np.ndarray

    @classmethod
    def none(cls, shape: tuple[int, ...], ports: int) -> Moves:
        """Nothing moved yet. A port's numbers lie together in memory, because they are added port by port."""
        return cls(*(np.moveaxis(np.zeros((ports, *shape)), 0, -1) for _ in range(2)))

    def take(self, rows: np.ndarray) -> Moves:
        """Those of some rows."""
        return Moves(self.bytes[rows], self.transfers[rows])

    def cycles(self, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """Busy time (.., ports) for rates (.., ports) in bytes per cycle and setup (.., 1) in cycles."""
        return self.bytes / rates + self.transfers * setup


def busiest(cycles: np.ndarray) -> np.ndarray:
    """The largest over the last axis, which is short: (.., ports) -> (..)."""
    most = cycles[..., 0]
    for port in range(1, cycles.shape[-1]):
        most = np.maximum(most, cycles[..., port])
    return most


@dataclass(frozen=True, slots=True)
class StepTable:
    """The steps of a batch of jobs by class: how often, what each moves and runs. Arrays (n, classes).

    Only `run` (the child's time) depends on rates, and not even that where the child is the array.
    """

    weight: np.ndarray
    busy: Moves
    """(n, classes, ports): moves of double-buffered stores, and what the child itself moves."""
    single: Moves | None
    """Moves of stores without a second buffer, which nothing hides; None where there are none."""
    first: Moves
    """(n, ports): before the first step."""
    last: Moves
    run: np.ndarray
    array: np.ndarray
    spatial: np.ndarray
    preload: np.ndarray
    setup: np.ndarray
    """Set-ups inside the child."""
    moving: np.ndarray
    """Whether a tile of this border moves beside the step."""
    traffic: np.ndarray
    """(n, levels, operands, read/write) bytes of all steps; no rate enters."""

    def take(self, rows: np.ndarray) -> StepTable:
        """The table of some rows, repeated and reordered at will."""
        single = None if self.single is None else self.single.take(rows)
        names = ("weight", "run", "array", "spatial", "preload", "setup", "moving", "traffic")
        return StepTable(
            busy=self.busy.take(rows),
            single=single,
            first=self.first.take(rows),
            last=self.last.take(rows),
            **{name: getattr(self, name)[rows] for name in names},
        )

    def _clock(self, rates: np.ndarray, setup: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(x_0, steps, y_n) cycles: (n,), (n, classes), (n,)."""
        x, y = (busiest(ends.cycles(rates, setup[:, None])) for ends in (self.first, self.last))
        rate, pause = rates[:, None, :], setup[:, None, None]
        step = np.maximum(self.run, busiest(self.busy.cycles(rate, pause)))
        if self.single is not None:
            step = step + busiest(self.single.cycles(rate, pause))
        return x, step, y

    def time(self, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """The recurrence, cycles (n,), for rates (n, ports) in bytes per cycle and setup (n,) cycles."""
        x, step, y = self._clock(rates, setup)
        return x + self._total(step) + y

    def times(self, rows: np.ndarray, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """As `time` for some rows, each on rates (len(rows), ports) and a setup of its own."""
        few = replace(
            self,
            weight=self.weight[rows],
            busy=self.busy.take(rows),
            single=None if self.single is None else self.single.take(rows),
            first=self.first.take(rows),
            last=self.last.take(rows),
            run=self.run[rows],
        )
        return few.time(rates, setup)

    def cost(self, rates: np.ndarray, setup: np.ndarray) -> Cost:
        """The recurrence and everything that it adds up."""
        x, step, y = self._clock(rates, setup)
        own = (self.busy,) if self.single is None else (self.busy, self.single)
        setup_now = np.minimum(step - self.run, np.where(self.moving, setup[:, None], 0.0))
        ends = setup * ((x > 0).astype(float) + (y > 0))
        total = self._total
        return Cost(
            time=x + total(step) + y,
            port_bytes=self.first.bytes + self.last.bytes + sum(total(m.bytes) for m in own),
            port_moves=self.first.transfers + self.last.transfers + sum(total(m.transfers) for m in own),
            traffic=self.traffic,
            array=total(self.array),
            spatial=total(self.spatial),
            preload=total(self.preload),
            setup=total(self.setup + setup_now) + np.minimum(ends, x + y),
            first=x,
            drain=y,
        )

    def _total(self, values: np.ndarray) -> np.ndarray:
        return weighted_sum(self.weight, values)


def weighted_sum(weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum over the classes, (n, classes, ..) -> (n, ..), one after the other.

    Classes that a row does not have weigh nothing, so that the sum of a row does not depend, to the
    last bit, on the rows beside it (which pairwise summation would not give).
    """
    weight = weight.reshape(weight.shape + (1,) * (values.ndim - 2))
    return np.add.accumulate(weight * values, axis=1)[:, -1] if values.shape[1] > 1 else (weight * values)[:, 0]


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows are: their nest (tiles are arrays over rows) on their designs' numbers."""

    nest: Nest
    problem: Problem
    machine: Machine
    rates: np.ndarray
    """(rows, ports) bytes per cycle"""
    setup: np.ndarray
    """(rows,) cycles per transfer"""
    latency: np.ndarray
    """(rows,) cycles before the first load of the whole einsum"""
