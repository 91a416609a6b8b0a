"""Loops of a model that end when the data say so: `while error > limit:`.

A run without data answers each test alike, so such a loop would never end. A test on a `while` line counts
its rounds; a line that asks without end elsewhere (`while True: ... if done: break`) is an error.
"""

from __future__ import annotations

import linecache
import re
from types import FrameType

from sim.errors import TraceError
from sim.workload.trace.source import user_frame, user_line

MOST_ASKED = 20_000
"""Questions of one line in one call of its function before it counts as endless."""

_WHILE = re.compile(r"\s*while\s+(not\b)?")


class Loops:
    """Counts the questions of one line in one call of its function."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int], tuple[FrameType, int]] = {}
        self._line = ("", 0)

    def asked(self) -> tuple[int, bool] | None:
        """(rounds done, whether the test is negated) where the user's running line is a `while`, else None.

        Raises: TraceError: a line that has asked `MOST_ASKED` times.
        """
        frame = user_frame()
        if frame is None:
            return None
        self._line = line = (frame.f_code.co_filename, frame.f_lineno)
        before, count = self._asked.get(line, (None, 0))
        count = count if before is frame else 0  # another call of the function: another loop
        self._asked[line] = (frame, count + 1)
        if count >= MOST_ASKED:
            raise TraceError(
                f"{user_line()}: asked {MOST_ASKED:,} times for a value in one call: a loop that ends when the data "
                f'say so never ends without them; state this line\'s answer: DataPolicy(at={{"{user_line()}": ...}})'
            )
        found = _WHILE.match(linecache.getline(*line))
        return (count, found.group(1) is not None) if found else None

    def over(self) -> None:
        """The loop just asked about ends: its next test begins another."""
        self._asked.pop(self._line, None)


__all__ = ["MOST_ASKED", "Loops"]
