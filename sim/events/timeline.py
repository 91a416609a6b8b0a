"""The Timeline: who did what when. One object for the figure, the Perfetto trace and the tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.events.ticks import TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Slice:
    """`name` occupied `track` from `start` to `end` (ticks)."""

    track: str
    name: str
    start: int
    end: int
    category: str = "group"
    """ "group", "compute", "load", "store", "inner", "setup", "latency", "prefetch" or "host"."""
    stream: str = ""
    job: int = 0

    @property
    def start_s(self) -> float:
        return self.start / TICKS_PER_S

    @property
    def end_s(self) -> float:
        return self.end / TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Instant:
    """Something that happened at one moment: an arrival, a deadline missed."""

    track: str
    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Slices and instants in order of recording, and counters as (tick, value) steps."""

    slices: tuple[Slice, ...] = ()
    instants: tuple[Instant, ...] = ()
    counters: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    dropped: int = 0
    """Slices beyond the recording limit, counted and not kept."""

    @property
    def tracks(self) -> tuple[str, ...]:
        """Track names: units in order of first appearance, the instances of each by number."""
        names = dict.fromkeys([s.track for s in self.slices] + [i.track for i in self.instants])
        units = list(dict.fromkeys(name.partition("[")[0] for name in names))
        return tuple(sorted(names, key=lambda name: (units.index(name.partition("[")[0]), _instance(name))))

    @property
    def end_s(self) -> float:
        ends = [s.end for s in self.slices] + [at for steps in self.counters.values() for at, _ in steps]
        return max(ends, default=0) / TICKS_PER_S


def _instance(track: str) -> int:
    """2 of "npu[2].dma"; 0 where nothing is numbered."""
    number = track.partition("[")[2].partition("]")[0]
    return int(number) if number.isdigit() else 0


class Recorder:
    """Collects a timeline, at most `limit` slices of it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.slices: list[Slice] = []
        self.instants: list[Instant] = []
        self.counters: dict[str, list[tuple[int, float]]] = {}
        self.peaks: dict[str, float] = {}
        """Highest value of each counter, whatever is kept of its steps."""
        self._values: dict[str, float] = {}
        self.dropped = 0

    def slice(self, track: str, name: str, start: int, end: int, category: str, stream: str, job: int) -> None:
        if end <= start:
            return
        if len(self.slices) < self.limit:
            self.slices.append(Slice(track, name, start, end, category, stream, job))
        else:
            self.dropped += 1

    def instant(self, track: str, name: str, at: int) -> None:
        if len(self.instants) < self.limit:
            self.instants.append(Instant(track, name, at))

    def add(self, counter: str, at: int, change: float) -> None:
        value = self._values[counter] = self._values.get(counter, 0.0) + change
        if value > self.peaks.get(counter, 0.0):
            self.peaks[counter] = value
        steps = self.counters.setdefault(counter, [(0, 0.0)] if self.limit else [])
        if steps and steps[-1][0] == at:
            steps[-1] = (at, value)
        elif len(steps) < self.limit:
            steps.append((at, value))

    def timeline(self) -> Timeline:
        return Timeline(
            tuple(self.slices),
            tuple(self.instants),
            {name: tuple(steps) for name, steps in self.counters.items()},
            self.dropped,
        )
