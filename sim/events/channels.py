"""Shared ports for the expanded simulation: transfers under way, re-solved at every start and end.

Processor sharing by `max_min_speeds`: while the set of transfers stands still each proceeds at a
constant speed, so the next end is arithmetic and costs one timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil
from typing import Protocol, TypeVar

import simpy

from sim.events.fluid import Demand, max_min_speeds
from sim.events.work import Phase
from sim.hardware.chip import DmaEngines

ROUNDING_TICKS = 1e-3
"""Left-over work below a thousandth of a tick is rounding of the speeds, not work."""

_REMEMBERED = 50_000
"""Sets of demands kept before memory is cleared."""

_ALONE = 1.0 - 1e-9


class Sharing:
    """Remembers the speeds of each set of demands: a simulation meets few different ones.

    The speeds do not depend on the order in which the transfers are listed, to the last bit.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Demand, ...], list[float]] = {}

    def speeds(self, demands: tuple[Demand, ...]) -> list[float]:
        known = self._known.get(demands)
        if known is None:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            order = sorted(range(len(demands)), key=lambda i: (demands[i].priority, demands[i].uses))
            in_order = max_min_speeds([demands[i] for i in order])
            speeds = dict(zip(order, in_order, strict=True))
            known = self._known[demands] = [speeds[i] for i in range(len(demands))]
        return known


def ticks_left(work: float, speed: float) -> float:
    """Ticks until `work` is done; infinite at speed 0."""
    return ceil(work / speed - ROUNDING_TICKS) if speed > 0 else float("inf")


class Queued(Protocol):
    """What may have to wait for a DMA engine: asked for at tick `asked` by the unit instance `engine`."""

    asked: int
    engine: str


Q = TypeVar("Q", bound=Queued)


class DmaQueues:
    """DMA engines that several units share: the first `count` that asked move, the others wait.

    A transfer keeps its engine to its end. Those that ask at the same tick are served in the order
    of the names of their unit instances.
    """

    def __init__(self, engines: Iterable[DmaEngines] = ()) -> None:
        self._of_unit = {unit: engines_.name for engines_ in engines for unit in engines_.units}
        self._count = {engines_.name: engines_.count for engines_ in engines}
        self.waited: dict[str, int] = dict.fromkeys(self._count, 0)
        """Ticks that transfers waited for each."""

    def name(self, engine: str) -> str | None:
        """The queue that a unit instance stands in."""
        return self._of_unit.get(engine.partition("[")[0]) if self._of_unit else None

    def wait(self, engine: str, ticks: int) -> None:
        """Counts that a transfer of `engine` waited."""
        self.waited[self._of_unit[engine.partition("[")[0]]] += ticks

    def admitted(self, asking: list[Q], held: Callable[[Q], None]) -> list[Q]:
        """Those that may move now, in the order given; `held` is called with each of the others."""
        if not self._of_unit:
            return asking
        free, waiting = dict(self._count), set()
        for transfer in sorted(asking, key=lambda t: (t.asked, t.engine)):
            name = self.name(transfer.engine)
            if name is None:
                continue
            if free[name]:
                free[name] -= 1
            else:
                waiting.add(id(transfer))
                held(transfer)
        return [t for t in asking if id(t) not in waiting]


class Transfer:
    """One transfer under way; `done` happens when its last byte has arrived."""

    __slots__ = ("asked", "demand", "done", "engine", "phase", "remaining", "speed", "waits")

    def __init__(
        self, phase: Phase, priority: int, done: simpy.Event, remaining: float, engine: str, asked: int
    ) -> None:
        self.phase = phase
        self.engine = engine
        self.asked = asked
        self.waits = False
        self.demand = Demand(phase.uses, priority)
        self.done = done
        self.remaining = remaining
        self.speed = 1.0


class Channels:
    """All ports of the machine."""

    def __init__(self, env: simpy.Environment, queues: DmaQueues | None = None) -> None:
        self.env = env
        self.queues = queues or DmaQueues()
        self.transfers: list[Transfer] = []
        self.contended = 0
        """Ticks in which some transfer ran slower than alone."""
        self.moved: dict[str, float] = {}
        """Bytes per port so far."""
        self._sharing = Sharing()
        self._last = 0
        self._version = 0

    def start(self, phase: Phase, priority: int = 0, remaining: float | None = None, engine: str = "") -> Transfer:
        left = float(phase.ticks) if remaining is None else remaining
        transfer = Transfer(phase, priority, self.env.event(), left, engine, self.env.now)
        self._advance()
        self._end_finished()
        self.transfers.append(transfer)
        self._resolve()
        return transfer

    def cancel(self, transfer: Transfer) -> float:
        """Stops a transfer; returns the ticks of work that are left."""
        self._advance()
        self._end_finished()
        if transfer in self.transfers:
            self.transfers.remove(transfer)
        self._resolve()
        return transfer.remaining

    def _advance(self) -> None:
        elapsed = self.env.now - self._last
        self._last = self.env.now
        if elapsed <= 0:
            return
        if any(t.speed < _ALONE for t in self.transfers):
            self.contended += elapsed
        for transfer in self.transfers:
            if transfer.waits:
                self.queues.wait(transfer.engine, elapsed)
            done = min(transfer.remaining, elapsed * transfer.speed)
            transfer.remaining -= done
            for port, amount in transfer.phase.bytes:
                self.moved[port] = self.moved.get(port, 0.0) + amount * done / transfer.phase.ticks

    def _resolve(self) -> None:
        """New speeds for all, and one timeout for the first end."""
        self._version += 1
        if not self.transfers:
            return
        for transfer in self.transfers:
            transfer.waits = False
        moving = self.queues.admitted(self.transfers, _hold)
        speeds = self._sharing.speeds(tuple(t.demand for t in moving))
        for transfer, speed in zip(moving, speeds, strict=True):
            transfer.speed = speed
        wait = min(ticks_left(t.remaining, t.speed) for t in self.transfers)
        if wait == float("inf"):
            return
        timer = self.env.timeout(max(0, wait))
        version = self._version
        timer.callbacks.append(lambda _: self._fire(version))

    def _fire(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        self._end_finished()
        self._resolve()

    def _end_finished(self) -> None:
        """Ends what has arrived, before a transfer that starts at this very tick can take its port."""
        ended = [t for t in self.transfers if t.remaining <= ROUNDING_TICKS]
        self.transfers = [t for t in self.transfers if t.remaining > ROUNDING_TICKS]
        for transfer in ended:
            transfer.done.succeed()


def _hold(transfer: Transfer) -> None:
    transfer.speed, transfer.waits = 0.0, True
