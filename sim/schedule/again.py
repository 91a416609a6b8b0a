"""Which einsums are searched again once a machine has been asked for them and another one, much like it, comes.

A what-if asks some twenty machines that differ in one number. To search each einsum anew on all of
them takes twenty times as long as the estimate, which is minutes where one search takes a second.
The mapping that the first machine found is at hand, and its exact cost on another machine takes no
search: an upper bound of the best, near to it where a rate, a capacity or a clock has changed.

So a budget is spent on new searches, from the longest einsum on; the rest keep their mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import DovetailError
from sim.mapping.api import Question, Winners, cost_mapping
from sim.mapping.problem import ROLES

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

REFINED = 40
"""A candidate that is costed exactly takes about as long as so many that are only bounded (15 and 0.35 us)."""


def remember(question: Question, won: Winners, coster: _Coster) -> None:
    """The first machine that is asked gives the mappings that others may keep."""
    for place in _places(question):
        coster.shared.first.setdefault(place, won)


def worth_searching(fresh: Mapping[tuple, Question], coster: _Coster) -> dict[tuple, Question]:
    """The questions to search, within the budget; the others are answered with the mapping at hand.

    What no machine was asked before, or what no longer fits, is searched whatever the budget is.
    """
    left, chosen = coster.options.again, {}
    first_of = coster.shared.first
    known = {
        key: next((first_of[place] for place in _places(question) if place in first_of), None)
        for key, question in fresh.items()
    }
    for key in sorted(fresh, key=lambda key: -_cycles(known[key])):
        question, first = fresh[key], known[key]
        if first is not None:
            left -= len(question.machine) * (first.candidates + REFINED * first.refined)
            if left < 0 and (won := _kept(question, first)) is not None:
                coster.shared.maps[key] = won
                coster.shared.kept.add(_shape(question))
                continue
        chosen[key] = question
    return chosen


def _shape(question: Question) -> tuple:
    """What two questions share that differ only in the numbers of their machines."""
    p, m = question.problem, question.machine
    return (
        *(tuple(p.einsum.ranks.items()), tuple(p.axes[role] for role in ROLES), p.reduction_speedup),
        *(tuple(question.homes.items()), tuple(level.name for level in m.levels)),
    )


def _places(question: Question) -> tuple[tuple, ...]:
    """Under which answers are found again: with equal widths and room if there is one, else whatever these are."""
    shape, reserved = _shape(question), question.reserved_bytes
    room = b"" if reserved is None else reserved[0].tobytes()
    return (*shape, tuple(question.problem.bits.items()), room), shape


def _cycles(won: Winners | None) -> float:
    return float("inf") if won is None or won.row[0] < 0 else float(won.cost.time[int(won.row[0])])


def _kept(question: Question, first: Winners) -> Winners | None:
    """The cost of the first machine's mapping; None where it had none, or where it does not fit."""
    row = int(first.row[0])
    if row < 0:
        return None
    try:
        won = cost_mapping(first.mappings[row], question.problem, question.machine, question.homes)
    except DovetailError:
        return None
    reserved = question.reserved_bytes
    if reserved is not None:  # beside what stays in the outermost memory on chip
        room = np.where(reserved > 0, question.machine.capacity_bytes - reserved, np.inf)
        if (room < won.footprint_bytes[0]).any():
            return None
    return won
