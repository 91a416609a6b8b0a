"""Loops of a model that end when the data say so: `while error > limit:`.

A run without data answers each test alike, so such a loop would never end. A question in the test of a `while` counts
its rounds; a line that asks without end elsewhere (`while True: ... if done: break`) is an error.
"""

from __future__ import annotations

import ast
import linecache
from collections import Counter
from functools import lru_cache
from types import CodeType, FrameType

from sim.errors import TraceError
from sim.workload.trace.source import user_frame, user_line

MOST_ASKED = 20_000
"""Questions of one place in one call of its function before it counts as endless."""

Place = tuple[int, int]
"""A line, and a column in it."""


class _Loop:
    """One run of a loop: how often each question of its test was asked, and which were since it is over."""

    def __init__(self, frame: FrameType) -> None:
        self.frame = frame
        self.counts: Counter[Place] = Counter()
        self.over: set[Place] | None = None


class Loops:
    """Counts the rounds of each loop in one call of its function."""

    def __init__(self) -> None:
        self._loops: dict[tuple[str, Place], _Loop] = {}
        self._last: tuple[_Loop, Place] | None = None

    def asked(self) -> tuple[int, bool] | None:
        """(rounds done, whether the question is negated) where the user's running line is the test of a `while`, else
        None.

        Raises: TraceError: a place that has asked `MOST_ASKED` times.
        """
        frame = user_frame()
        if frame is None:
            return None
        found = _asking(frame)
        test, place, negated = found or ((frame.f_lineno, 0), (frame.f_lineno, 0), False)
        where = (frame.f_code.co_filename, test)
        loop = self._loops.get(where)
        if loop is None or loop.frame is not frame or (loop.over is not None and place in loop.over):
            loop = self._loops[where] = _Loop(frame)  # another call of the function, or the test of another run
        loop.counts[place] += 1
        if loop.over is not None:
            loop.over.add(place)
        self._last = loop, place
        if loop.counts[place] > MOST_ASKED:
            raise TraceError(
                f"{user_line()}: asked {MOST_ASKED:,} times for a value in one call: a loop that ends when the data "
                f'say so never ends without them; state this line\'s answer: DataPolicy(at={{"{user_line()}": ...}})'
            )
        return (max(loop.counts.values()) - 1, negated) if found else None

    def over(self) -> None:
        """The loop just asked about ends: a question of its test that comes again begins another."""
        if self._last and self._last[0].over is None:
            self._last[0].over = {self._last[1]}


def _asking(frame: FrameType) -> tuple[Place, Place, bool] | None:
    """Where the test of the running `while` begins, where the truth that it asks for stands, and whether behind `not`;
    None where no test asks."""
    line = frame.f_lineno
    tests = [test for test in _tests(frame.f_code) if test.lineno <= line <= (test.end_lineno or line)]
    first, last, start, end = list(frame.f_code.co_positions())[frame.f_lasti // 2] if tests else (None,) * 4
    if first is None or last is None or start is None or end is None:
        return None
    begin, close = (first, start), (last, end)
    for test in tests:
        if _holds(test, begin, close):
            nots = [n.operand for n in ast.walk(test) if isinstance(n, ast.UnaryOp) and isinstance(n.op, ast.Not)]
            return (test.lineno, test.col_offset), begin, sum(_holds(n, begin, close) for n in nots) % 2 == 1
    return None


@lru_cache(maxsize=256)
def _tests(code: CodeType) -> tuple[ast.expr, ...]:
    """The tests of the `while` loops in the file of a function; none where there is no source."""
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except SyntaxError:
        return ()
    return tuple(node.test for node in ast.walk(tree) if isinstance(node, ast.While))


def _holds(node: ast.expr, begin: Place, close: Place) -> bool:
    end = (node.end_lineno or 0, node.end_col_offset or 0)
    return (node.lineno, node.col_offset) <= begin and close <= end


__all__ = ["MOST_ASKED", "Loops"]
