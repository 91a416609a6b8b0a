"""Progress of a command on stderr: what runs, the share that is done, the time left."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Self

from sim.cli import common

PATIENCE_S = 2.0
"""A command that takes no longer says nothing."""


def time_left(share: float, elapsed_s: float) -> str:
    """ "12 s, about 24 s left" for a third done in 12 s; without a share, the time that has passed."""
    passed = _words(elapsed_s)
    return f"{passed}, about {_words(elapsed_s * (1 - share) / share)} left" if 0 < share < 1 else passed


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Progress:
    """A line that appears after `PATIENCE_S` and goes when the command is done.

    Silent with --quiet and where stderr is no terminal. Call it with the share (0 to 1) of the current
    step; `step` begins the next of `steps`.
    """

    def __init__(self, words: str, *, steps: int = 1) -> None:
        self._words, self._steps, self._done, self._share = words, steps, 0, 0.0
        self._begun = time.monotonic()
        self._said = ""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if not common.settings.quiet and sys.stderr.isatty():
            self._thread = threading.Thread(target=self._draw, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def __call__(self, share: float, what: str = "") -> None:
        """`what`, where it is new, begins a stage with a clock of its own."""
        if what and what != self._words:
            self._words, self._steps, self._done, self._begun = what, 1, 0, time.monotonic()
        self._share = share

    def tell(self, words: str, share: float) -> None:
        """The share of the current step, in new words."""
        self._words, self._share = words, share

    def step(self, words: str) -> None:
        """The step before is done; `words` say what runs now."""
        self._words, self._share, self._done = words, 0.0, self._done + 1

    def log(self, line: str) -> None:
        """A line that says all itself: in place on a terminal, one after the other in a log."""
        self._said = line
        if self._thread is None:
            common.say(line)

    def traced(self, ops: int) -> None:
        """What a long trace tells: nobody knows how many ops there will be."""
        self._words = f"{self._words.partition(': ')[0]}: {ops:,} ops"

    @property
    def share(self) -> float:
        """Of all steps, taken to be equally long."""
        return min(1.0, (self._done + self._share) / self._steps)

    def line(self) -> str:
        if self._said:
            return self._said
        done = f"{self.share:.0%}, " if self.share else ""
        return f"{self._words}: {done}{time_left(self.share, time.monotonic() - self._begun)}"

    def _draw(self) -> None:
        if self._over.wait(PATIENCE_S):
            return
        from rich.live import Live
        from rich.text import Text

        out: Any = common.console(stderr=True)
        with Live(console=out, transient=True, auto_refresh=False) as live:
            while not self._over.wait(0.25):
                live.update(Text(self.line(), style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)
