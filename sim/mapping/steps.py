"""What the evaluator hands around: states of jobs, their costs, and the table of a border's steps."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
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
        return Elements(*(np.where(moved, e, 0) for e in self))


COLUMNS = ("time", "port_bytes", "port_moves", "traffic", "array", "spatial", "preload", "setup")
"""What a job hands to the job outside."""


class Moves(NamedTuple):
    """Transfers per port, [double-buffered stores, single-buffered stores] x (.., ports)."""

    bytes: np.ndarray
    transfers: np.ndarray

    def cycles(self, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """Busy time, [double, single] x (.., ports); rates (.., ports), setup (.., 1)."""
        return self.bytes / rates + self.transfers * setup


@dataclass(frozen=True, slots=True)
class StepTable:
    """The steps of a batch of jobs by class: `weight` (n, classes) and what each moves and runs.

    Only `child.time` depends on rates, and not even that where the child is the array.
    """

    weight: np.ndarray
    moves: Moves
    first: Moves
    last: Moves
    traffic: np.ndarray
    child: Cost

    def take(self, rows: np.ndarray) -> StepTable:
        """The table of some rows, repeated and reordered at will."""
        return StepTable(
            weight=self.weight[rows],
            moves=Moves(*(a[:, rows] for a in self.moves)),
            first=Moves(*(a[:, rows] for a in self.first)),
            last=Moves(*(a[:, rows] for a in self.last)),
            traffic=self.traffic[rows],
            child=Cost(*(getattr(self.child, name)[rows] for name in COLUMNS)),
        )

    def _clock(self, rates: np.ndarray, setup: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(x_0, steps, y_n) cycles: (n,), (n, classes), (n,)."""
        x = self.first.cycles(rates, setup[:, None]).sum(axis=0).max(axis=-1)
        y = self.last.cycles(rates, setup[:, None]).sum(axis=0).max(axis=-1)
        rate, pause = rates[:, None, :], setup[:, None, None]
        busy = self.child.port_bytes / rate + self.child.port_moves * pause
        double, single = self.moves.cycles(rate, pause)
        return x, np.maximum(self.child.time, (busy + double).max(axis=-1)) + single.max(axis=-1), y

    def time(self, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """The recurrence, cycles (n,), for rates (n, ports) in bytes per cycle and setup (n,) cycles."""
        x, step, y = self._clock(rates, setup)
        return x + self._total(step) + y

    def cost(self, rates: np.ndarray, setup: np.ndarray) -> Cost:
        """The recurrence and everything that it adds up."""
        x, step, y = self._clock(rates, setup)
        some = self.moves.transfers.any(axis=(0, -1))
        setup_now = np.minimum(step - self.child.time, np.where(some, setup[:, None], 0.0))
        ends = setup * ((x > 0).astype(float) + (y > 0))
        total, child = self._total, self.child
        return Cost(
            time=x + total(step) + y,
            port_bytes=(self.first.bytes + self.last.bytes).sum(axis=0)
            + total(child.port_bytes + self.moves.bytes.sum(axis=0)),
            port_moves=(self.first.transfers + self.last.transfers).sum(axis=0)
            + total(child.port_moves + self.moves.transfers.sum(axis=0)),
            traffic=self.total_traffic(),
            array=total(child.array),
            spatial=total(child.spatial),
            preload=total(child.preload),
            setup=total(child.setup + setup_now) + np.minimum(ends, x + y),
            first=x,
            drain=y,
        )

    def total_traffic(self) -> np.ndarray:
        """Bytes (n, levels, operands, read/write); no rate enters."""
        return self.traffic + self._total(self.child.traffic)

    def _total(self, values: np.ndarray) -> np.ndarray:
        """Weighted sum over the classes, in one order whatever the number of rows."""
        weight = self.weight.reshape(self.weight.shape + (1,) * (values.ndim - 2))
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
