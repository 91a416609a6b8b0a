"""Who runs next on a unit. A unit decides at group borders, so every policy preempts there only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

from sim.errors import ConfigError, nearest

if TYPE_CHECKING:
    from sim.events.machine import Job, Task

_FAR = 1 << 100
"""A deadline or period for jobs that have none: behind all others."""


class Queue(Protocol):
    """The ready tasks of one unit instance; a task is a group of a job."""

    def add(self, task: Task) -> None:
        """One more is ready."""

    def take(self, now: int) -> tuple[Task | None, int | None]:
        """The task to run now, which leaves the queue; or None and the tick at which to ask again, if any."""


class Policy(Protocol):
    """Chooses among ready tasks."""

    def queue(self) -> Queue:
        """An empty queue, for one unit instance."""


class _Sorted:
    """Tasks whose rank never changes: a heap, so that a long queue costs its logarithm a task."""

    def __init__(self, key: Callable[[Job], int]) -> None:
        self._key = key
        self._heap: list[tuple[int, tuple[int, int, int], int, int, Task]] = []
        self._added = 0

    def add(self, task: Task) -> None:
        self._added += 1
        heappush(self._heap, (self._key(task.job), task.job.age, task.at, self._added, task))

    def take(self, now: int) -> tuple[Task | None, int | None]:
        return (heappop(self._heap)[-1] if self._heap else None), None


class _Asked:
    """Tasks among which a function of the time chooses."""

    def __init__(self, choose: Callable[[list[Task], int], tuple[Task | None, int | None]]) -> None:
        self._choose = choose
        self._ready: list[Task] = []

    def add(self, task: Task) -> None:
        self._ready.append(task)

    def take(self, now: int) -> tuple[Task | None, int | None]:
        task, again = self._choose(self._ready, now) if self._ready else (None, None)
        if task is not None:
            self._ready.remove(task)
        return task, again


@dataclass(frozen=True, slots=True)
class ByKey:
    """Runs the ready task of the smallest key; ties go to the older job."""

    name: str

    def queue(self) -> Queue:
        return _Sorted(self._key)

    def _key(self, job: Job) -> int:
        match self.name:
            case "fifo":
                return 0
            case "priority":
                return -job.priority
            case "earliest_deadline_first":
                return job.deadline if job.deadline is not None else _FAR
            case _:
                return job.period if job.period is not None else _FAR


@dataclass(frozen=True, slots=True)
class TimePartition:
    """A frame of slots that repeats; in a slot only the tasks of its stream run.

    A group starts only when it ends inside its slot if undisturbed, so no stream can delay another;
    what is left of a slot stays idle.
    """

    slots: tuple[tuple[str, int], ...]
    """(stream, ticks); the copies of a stream ("camera[3]") share its slot."""

    def queue(self) -> Queue:
        return _Asked(self._choose)

    def _choose(self, ready: list[Task], now: int) -> tuple[Task | None, int | None]:
        frame = sum(length for _, length in self.slots)
        begin = now - now % frame
        for lap in (begin, begin + frame):
            for stream, length in self.slots:
                end = lap + length
                mine = [t for t in ready if t.job.stream.partition("[")[0] == stream]
                if end > now and mine:
                    task = min(mine, key=lambda t: (t.job.age, t.at))
                    self._check(task, stream)
                    if max(now, lap) + task.alone <= end:
                        return (task, None) if lap <= now else (None, lap)
                lap = end
        return None, begin + frame

    def _check(self, task: Task, stream: str) -> None:
        longest = max(length for name, length in self.slots if name == stream)
        if task.alone > longest:
            raise ConfigError(
                f'policy time_partition: group "{task.name}" of stream "{stream}" takes {task.alone / 1e12:.4g} ms, '
                f"longer than its slot of {longest / 1e12:.4g} ms; lengthen the slot"
            )


POLICIES = ("fifo", "priority", "earliest_deadline_first", "rate_monotonic", "time_partition")


def make_policy(name: str, slots: tuple[tuple[str, int], ...] = ()) -> Policy:
    """The policy called `name`; `slots` belong to time_partition.

    Raises:
        ConfigError: unknown policy, or slots where none belong.
    """
    if name not in POLICIES:
        raise ConfigError(f'unknown policy "{name}"; known: {", ".join(POLICIES)}.{nearest(name, POLICIES)}')
    if (name == "time_partition") != bool(slots):
        raise ConfigError(f"policy {name}: slots are {'needed' if not slots else 'for time_partition only'}")
    return TimePartition(slots) if slots else ByKey(name)
