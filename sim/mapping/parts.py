"""A lower bound of candidates in parts that designs share: a further design costs a handful of array operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class End:
    """The first load or the last store on one port."""

    bytes: np.ndarray
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The bound in parts, which designs share; arrays (n,).

    `wire`: per port the number of what it serves, one for all ports that serve the same (None: nothing);
    `moved`, `first`, `last`: bytes between the ends and at the ends, per such number; `fed`: what the array itself
    moves through each port (None: nothing); `count`: transfers between the ends, asked for where they pause;
    `tail`: array cycles of the last tile, in which a port moves at most `late` bytes: one tile of results, where
    it moves any (`gives`, per such number).
    """

    wire: tuple[int | None, ...]
    double: bool
    cycles: np.ndarray
    tail: np.ndarray
    fed: Sequence[np.ndarray | None]
    moved: Sequence[np.ndarray]
    late: np.ndarray | None
    gives: Sequence[bool]
    first: Sequence[End]
    last: Sequence[End]
    count: Callable[[], Sequence[np.ndarray]]

    def take(self, some: np.ndarray | slice) -> Parts:
        """Of some of the candidates (arrays of one entry stand for all)."""

        def of(values: np.ndarray) -> np.ndarray:
            return values[some] if len(values) > 1 else values

        count = self.count
        return Parts(
            wire=self.wire,
            double=self.double,
            cycles=of(self.cycles),
            tail=of(self.tail),
            late=None if self.late is None else of(self.late),
            gives=self.gives,
            fed=[None if fed is None else of(fed) for fed in self.fed],
            moved=list(map(of, self.moved)),
            first=[End(of(end.bytes), end.count) for end in self.first],
            last=[End(of(end.bytes), end.count) for end in self.last],
            count=lambda: list(map(of, count())),
        )

    def time(self, pace: Sequence[Any], setup: Any, latency: Any) -> np.ndarray:
        """The bound in cycles, (n,), for cycles per byte and port, per transfer, and before the first load:
        numbers, or arrays (n,). Without second buffers moves wait for the array."""
        slowest = [_most([pace[p] for p, e in enumerate(self.wire) if e == entry]) for entry in range(len(self.moved))]
        paused = [count * setup for count in self.count()] if np.any(setup) else [0.0] * len(self.moved)
        moving = [moved * p + pause for moved, p, pause in zip(self.moved, slowest, paused, strict=True)]
        time = self.cycles
        if self.double:
            for entry in dict.fromkeys(e for e, fed in zip(self.wire, self.fed, strict=True) if fed is None):
                if entry is not None:
                    time = np.maximum(time, moving[entry] + self._alone(entry, slowest[entry], setup))
        for port, (entry, fed) in enumerate(zip(self.wire, self.fed, strict=True)):
            if fed is not None:
                busy = fed * pace[port]
                if self.double and entry is not None:
                    busy = busy + (self.moved[entry] * pace[port] + paused[entry])
                time = np.maximum(time, busy)
        ends = [_waits(end, slowest, setup) for end in (self.first, self.last)]
        for waits in ([] if self.double else moving, *ends):
            if waits:
                time = time + reduce(np.maximum, waits)
        return time + latency

    def _alone(self, entry: int, pace: Any, setup: Any) -> np.ndarray:
        """Cycles of the last tile in which a port with second buffers has nothing to move."""
        if not self.gives[entry]:
            return self.tail
        return np.maximum(self.tail - (self.late * pace + setup), 0.0)


def _most(values: Sequence[Any]) -> Any:
    """The largest, number by number where they are arrays."""
    return max(values) if isinstance(values[0], float) else reduce(np.maximum, values)


def _waits(ends: Sequence[End], pace: Sequence[Any], setup: Any) -> list[np.ndarray]:
    """Cycles of the first load or the last store on the ports that take part."""
    return [end.bytes * p + setup * end.count for end, p in zip(ends, pace, strict=True) if end.count]
