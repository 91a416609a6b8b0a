"""Simulated time: an integer number of ticks of one femtosecond.

A cycle of 2 GHz is 500,000 ticks; a minute is 6e16, beyond what a double holds exactly, which is
why the simulator counts in Python integers and turns them into seconds only in results. Durations
are rounded once, where work is compiled; sums of them are exact.
"""

from __future__ import annotations

import numpy as np
import simpy

TICKS_PER_S = 10**15
"""One tick is 1 fs: a step of a microsecond is rounded by at most 5e-10 of its length."""
LONGEST_S = 9_000.0
"""The longest group: its ticks are arrays of 64-bit integers, which end at 9,223 s. Sums over groups have no end."""


def to_ticks(seconds: float) -> int:
    """Nearest tick.

    >>> to_ticks(1e-9)
    1000000
    """
    return round(seconds * TICKS_PER_S)


def to_tick_array(seconds: np.ndarray) -> np.ndarray:
    """Nearest ticks of an array of seconds (int64: up to `LONGEST_S`)."""
    return np.rint(np.asarray(seconds, dtype=float) * TICKS_PER_S).astype(np.int64)


def to_seconds(ticks: int) -> float:
    """Ticks as seconds."""
    return ticks / TICKS_PER_S


RELEASE, CHOOSE, ADVANCE = 2, 3, 4
"""Order within a tick, behind all that ends at it (SimPy's own 0 and 1): jobs arrive and find free what is, units
choose among all that has come, and folded work goes on."""


class Clock(simpy.Environment):
    """Simulated time in ticks, which may move on without an event as long as none lies before."""

    _now: int

    def after_all(self, order: int, delay: int = 0) -> simpy.Event:
        """Happens `delay` ticks from now, behind what else happens there and is of no higher `order`."""
        event = self.event()
        event._ok, event._value = True, None
        self.schedule(event, order, delay)
        return event

    def __init__(self) -> None:
        super().__init__(initial_time=0)

    def skip(self, to: int) -> None:
        """Moves on to `to`, which must lie before the next event."""
        assert self._now <= to < self.peek(), "an event would be left behind"
        self._now = to
