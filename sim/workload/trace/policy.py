"""Answers to questions about data that a run without data cannot see.

`item()`, `bool()`, `nonzero()` and boolean masks ask for values. The policy answers, and every
answer is noted in the graph with the user's line, so that a reader knows what was assumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Span = tuple[float, float]
"""Where a part of the whole begins and ends, in [0, 1]: parts one after the other sum to it in whole numbers too."""
ROUNDING = 1e-6
"""Sums of shares that miss a whole number of elements by less reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPolicy:
    """What the tracer assumes about data.

    `number` answers item(), int() and float(); `truth` answers bool(). A mask keeps the fraction
    that its making tells (a one-hot of E classes: 1/E, so tokens x k / E per expert), otherwise
    `fraction` (1.0: the worst case); at least one element unless the fraction is 0. Where the model
    asks who chose an expert, by its number or by a class of a one-hot, the choices are dealt out:
    one token that chooses two of eight experts meets two, and a list of those met has two. `at`
    overrides an answer by source line, e.g. {"moe.py:41": 37}. `shares` states the load of experts:
    expert i of len(shares) gets shares[i] of all choices.
    """

    number: float = 1
    truth: bool = True
    fraction: float = 1.0
    at: Mapping[str, int | float | bool] = field(default_factory=dict)
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction must be in [0, 1], got {self.fraction}")
        if self.shares and (min(self.shares) < 0 or abs(sum(self.shares) - 1) > 1e-6):
            raise ValueError(f"shares must be at least 0 and sum to 1, got {self.shares}")
        object.__setattr__(self, "at", MappingProxyType(dict(self.at)))

    def scalar(self, kind: type, source: str) -> int | float | bool:
        """Answer for one value of `kind` (bool, int or float) asked at `source`."""
        default = self.truth if kind is bool else self.number
        return kind(self.at.get(source, default))

    def share(self, classes: float, which: object) -> float | Span:
        """Part of all choices among `classes` that falls on number `which`: its span of them, all numbers in order."""
        if not (isinstance(which, int) and 0 <= which < classes):
            return 1 / classes
        if len(self.shares) != classes:
            return which / classes, (which + 1) / classes
        return sum(self.shares[:which]), sum(self.shares[: which + 1])

    def count(self, elements: int, known: float | Span | None, source: str) -> int:
        """How many of `elements` a mask keeps; `known` is what its making tells."""
        if source in self.at:
            return min(int(self.at[source]), elements)
        if isinstance(known, tuple):
            first, last = (int(elements * edge + ROUNDING) for edge in known)
            return min(last - first, elements)
        fraction = self.fraction if known is None else known
        kept = round(elements * fraction)
        return max(kept, 1) if elements and fraction else kept


SHOWN = 3
"""Notes of one question at one line that are told one by one."""


def condensed(notes: Iterable[str]) -> tuple[str, ...]:
    """Notes that differ in their numbers alone (a loop that asks again and again): the first, and how many more."""
    kinds: dict[str, list[str]] = {}
    for note in notes:
        place, _, question = note.partition(": ")
        kinds.setdefault(f"{place}: {re.sub(r'[0-9.]+', '#', question)}", []).append(note)
    out: list[str] = []
    for same in kinds.values():
        last = same[-1].partition(": ")[2]
        more = f"; {len(same) - 1} more like it from this line, the last: {last}"
        out += same if len(same) <= SHOWN else [same[0] + more]
    return tuple(out)
