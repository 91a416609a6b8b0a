"""Tasks beside other work, in forked copies of this process: what they need is there without being sent.

A copy takes one task after the other from those that nobody took, and sends all its results when none is left. What
a copy cannot give, this process makes itself, so that an error is raised where it can be seen.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import struct
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Self, TypeVar

Result = TypeVar("Result")

NUMBER = struct.Struct("=I")
MOST = 16_000
"""Tasks: their numbers lie in a pipe (which holds 64 KiB), from which every process reads the next."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


class Aside(Generic[Result]):
    """Tasks that up to `processes` run, this one included once it asks for the results. Results must pickle.

    Only Linux forks safely beside what numerical libraries start; elsewhere this process runs all of them.
    """

    def __init__(self, tasks: Sequence[Callable[[], Result]], processes: int) -> None:
        self._tasks, self._copies = tasks, []
        copies = min(processes - 1, len(tasks)) if sys.platform == "linux" and len(tasks) <= MOST else 0
        self._next, numbers = os.pipe()
        os.write(numbers, b"".join(map(NUMBER.pack, range(len(tasks) if copies > 0 else 0))))
        os.close(numbers)
        if copies > 0:
            gc.freeze()  # a collection would touch, and so copy, every page that the processes share
        self._copies = [self._fork() for _ in range(copies)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._next)
        if self._copies:
            gc.unfreeze()
        for process, results in self._copies:
            os.close(results)
            os.kill(process, signal.SIGKILL)  # one that has ended is only waited for
            os.waitpid(process, 0)

    def results(self) -> list[Result]:
        """Of all tasks, in order."""
        done = dict(self._take())
        for _, results in self._copies:
            with os.fdopen(os.dup(results), "rb") as sent:
                done |= _received(sent.read())
        return [done[number] if number in done else task() for number, task in enumerate(self._tasks)]

    def _take(self) -> Iterator[tuple[int, Result]]:
        """Run the tasks that nobody took."""
        while sent := os.read(self._next, NUMBER.size):
            (number,) = NUMBER.unpack(sent)
            try:
                yield number, self._tasks[number]()
            except Exception:
                continue

    def _fork(self) -> tuple[int, int]:
        results, sent = os.pipe()
        with warnings.catch_warnings():  # other threads (progress, a library's pool) hold no lock that a task takes
            warnings.simplefilter("ignore", DeprecationWarning)
            process = os.fork()
        if process:
            os.close(sent)
            return process, results
        try:
            with os.fdopen(sent, "wb") as to:
                pickle.dump(dict(self._take()), to)
        finally:
            os._exit(0)


def _received(sent: bytes) -> dict:
    """What a copy sent; nothing if it died."""
    try:
        return dict(pickle.loads(sent))
    except (EOFError, pickle.UnpicklingError):
        return {}


__all__ = ["Aside", "cores"]
