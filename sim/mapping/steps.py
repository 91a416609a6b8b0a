"""What the evaluator hands around: states of jobs, their costs, and the table of a border's steps."""

from __future__ import annotations

from collections.abc import Sequence
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
    idle: np.ndarray = field(default_factory=lambda: np.zeros(1))
    """Cycles of the outermost border's steps, first load and last store apart, in which no port of home is busy"""

    def take(self, rows: np.ndarray | slice) -> Cost:
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


def columns(shape: tuple[int, ...], inner: tuple[int, ...]) -> np.ndarray:
    """Zeros of shape (*shape, *inner), those of one inner index together in memory: they are added so."""
    return np.zeros((*inner[::-1], *shape[::-1])).T


def taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Entries along the first axis, in the layout of `columns`."""
    return values[rows] if values.ndim == 1 else values.T[..., rows].T


class Moves(NamedTuple):
    """Transfers per port: bytes and how many pay the set-up, each (n, ports)."""

    bytes: np.ndarray
    transfers: np.ndarray

    @classmethod
    def none(cls, length: int, ports: int) -> Moves:
        """Nothing moved yet."""
        return cls(*(columns((length,), (ports,)) for _ in range(2)))

    def take(self, rows: np.ndarray) -> Moves:
        """Those of some rows."""
        return Moves(taken(self.bytes, rows), taken(self.transfers, rows))

    def at(self, ports: list[int]) -> Moves:
        """Those at some ports."""
        return Moves(self.bytes[:, ports], self.transfers[:, ports])

    def busiest(self, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """Busy time of the busiest port, (n,), for rates (n or 1, ports) in bytes per cycle and setup in cycles."""
        most: np.ndarray | None = None
        for port in range(self.bytes.shape[-1]):
            if self.transfers[:, port].any() or self.bytes[:, port].any():
                busy = self.bytes[:, port] / rates[:, port] + self.transfers[:, port] * setup
                most = busy if most is None else np.maximum(most, busy)
        return np.zeros(len(self.bytes)) if most is None else most


@dataclass(frozen=True, slots=True)
class StepTable:
    """The steps of a batch of jobs by class: how often, what each moves and runs.

    Steps of job i are the entries `start[i]` to `start[i + 1]` of arrays (steps,). Only `run` (the
    child's time) depends on rates, and not even that where the child is the array.
    """

    start: np.ndarray
    """(jobs + 1,)"""
    weight: np.ndarray
    busy: Moves
    """(steps, ports): moves of double-buffered stores, and what the child itself moves."""
    single: Moves | None
    """Moves of stores without a second buffer, which nothing hides; None where there are none."""
    first: Moves
    """(jobs, ports): before the first step."""
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
    """(jobs, levels, operands, read/write) bytes of all steps; no rate enters."""
    home: list[int]
    """Ports of the home memory."""

    def __len__(self) -> int:
        return len(self.start) - 1

    def _of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(start, steps) of some jobs."""
        count = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(count)])
        return start, np.arange(start[-1]) + np.repeat(self.start[rows] - start[:-1], count)

    def take(self, rows: np.ndarray) -> StepTable:
        """The table of some jobs, repeated and reordered at will."""
        few, steps = self._timed(rows)
        names = ("array", "spatial", "preload", "setup", "moving")
        return replace(few, traffic=taken(self.traffic, rows), **{name: getattr(self, name)[steps] for name in names})

    def _timed(self, rows: np.ndarray) -> tuple[StepTable, np.ndarray]:
        """(the table of some jobs in all that their time needs, their steps)."""
        start, steps = self._of(rows)
        few = replace(
            self,
            start=start,
            weight=self.weight[steps],
            busy=self.busy.take(steps),
            single=None if self.single is None else self.single.take(steps),
            first=self.first.take(rows),
            last=self.last.take(rows),
            run=self.run[steps],
        )
        return few, steps

    def _job(self) -> np.ndarray:
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def _clock(
        self, job: np.ndarray, rates: np.ndarray, setup: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(x_0, steps, y_n) cycles: (jobs,), (steps,), (jobs,)."""
        x, y = (ends.busiest(rates, setup) for ends in (self.first, self.last))
        rate, pause = taken(rates, job), setup[job]
        step = np.maximum(self.run, self.busy.busiest(rate, pause))
        if self.single is not None:
            step = step + self.single.busiest(rate, pause)
        return x, step, y

    def time(self, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """The recurrence, cycles (jobs,), for rates (jobs, ports) in bytes per cycle and setup (jobs,) cycles."""
        job = self._job()
        x, step, y = self._clock(job, rates, setup)
        return x + summed(job, self.weight * step, len(self)) + y

    def times(self, rows: np.ndarray, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """As `time` for some jobs, each on rates (len(rows), ports) and a setup of its own."""
        return self._timed(rows)[0].time(rates, setup)

    def rest(self, rates: np.ndarray, setup: np.ndarray, ports: list[int]) -> np.ndarray:
        """Cycles (jobs,) of the steps in which none of these ports is busy; moves that nothing hides, first load and
        last store apart."""
        job = self._job()
        rate, pause = taken(rates, job), setup[job]
        step = np.maximum(self.run, self.busy.busiest(rate, pause))
        busy = self.busy.at(ports).busiest(rate[:, ports], pause)
        return summed(job, self.weight * (step - busy), len(self))

    def cost(self, rates: np.ndarray, setup: np.ndarray) -> Cost:
        """The recurrence and everything that it adds up."""
        job = self._job()
        x, step, y = self._clock(job, rates, setup)
        setup_now = np.minimum(step - self.run, np.where(self.moving, setup[job], 0.0))
        ends = setup * ((x > 0).astype(float) + (y > 0))

        def total(values: np.ndarray) -> np.ndarray:
            return weighted(job, self.weight, values, len(self))

        time = x + total(step) + y
        own = Moves(*map(total, self.busy))
        if self.single is not None:
            own = Moves(*(a + total(b) for a, b in zip(own, self.single, strict=True)))
        return Cost(
            time=time,
            port_bytes=self.first.bytes + self.last.bytes + own.bytes,
            port_moves=self.first.transfers + self.last.transfers + own.transfers,
            traffic=self.traffic,
            array=total(self.array),
            spatial=total(self.spatial),
            preload=total(self.preload),
            setup=total(self.setup + setup_now) + np.minimum(ends, x + y),
            first=x,
            idle=self.rest(rates, setup, self.home),
        )


def join(costs: Sequence[Cost]) -> Cost:
    """Costs of single rows as one batch."""
    names = ("time", "port_bytes", "port_moves", "traffic", "array", "spatial", "preload", "setup", "first", "idle")
    if not costs:
        return Cost(*(np.zeros(0) for _ in names))
    return Cost(*(np.concatenate([getattr(c, name) for c in costs]) for name in names))


def summed(job: np.ndarray, values: np.ndarray, jobs: int) -> np.ndarray:
    """Sum over the steps of each job, one after the other: (steps,) -> (jobs,)."""
    return np.bincount(job, weights=values, minlength=jobs)


def weighted(job: np.ndarray, weight: np.ndarray, values: np.ndarray, jobs: int) -> np.ndarray:
    """Sum over the steps of each job, each `weight` times: (steps, ..) -> (jobs, ..)."""
    if values.ndim == 1:
        return summed(job, weight * values, jobs)
    out = columns((jobs,), values.shape[1:])
    for at in np.ndindex(*values.shape[1:]):
        column = values[(slice(None), *at)]
        if column.any():
            out[(slice(None), *at)] = summed(job, weight * column, jobs)
    return out


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
