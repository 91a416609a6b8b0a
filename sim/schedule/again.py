"""Which einsums are searched again once a machine has been asked for them and another one, much like it, comes.

A what-if asks some twenty machines that differ in one number. To search each einsum anew on all of
them takes twenty times as long as the estimate, which is minutes where one search takes a second.
The mapping that the first machine found is at hand, and its exact cost on another machine takes no
search: an upper bound of the best, near to it where a rate, a capacity or a clock has changed.

So a budget is spent on new searches, from the longest einsum on; the rest keep their mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from sim.mapping.api import Question, Winners, cost_mapping
from sim.mapping.narrow import LARGE
from sim.mapping.nest import footprint_bytes, nest
from sim.mapping.problem import ROLES

REFINED = 60
"""A candidate that is costed exactly takes about as long as so many only listed and bounded (12 and 0.2 us)."""
DESIGN = 0.1
"""What a further design adds to the time in which candidates are listed and bounded for the first, as a share."""


@dataclass
class Again:
    """The first answers of what machines of one kind are asked, and what may be spent on searching them again."""

    left: float = inf
    """Candidates that may be searched of einsums that an earlier machine was asked for; more is put here as other
    machines come, and what is forced (see `choose`) may leave a debt."""
    first: dict[tuple, Winners] = field(default_factory=dict)
    """What the first machine was answered, whatever its numbers."""
    kept: set[tuple] = field(default_factory=set)
    """Of these, what another machine did not search again."""

    def answered(self, question: Question, won: Winners) -> None:
        """A search was made: the first machine that asks gives the mappings that others may keep."""
        self.left -= _work(won, len(question.machine))
        for place in _places(question):
            self.first.setdefault(place, won)

    def choose(self, fresh: Mapping[tuple, Question]) -> tuple[dict[tuple, Question], dict[tuple, Kept]]:
        """(the questions to search within the budget, what is known of them and of the others: the mapping at hand).

        What no machine was asked before is searched whatever the budget is, and on machines on which it no longer
        fits so is what one was asked for.
        """
        if self.left == inf:
            return dict(fresh), {}
        known = {
            key: next((self.first[place] for place in _places(question) if place in self.first), None)
            for key, question in fresh.items()
        }
        searched: dict[tuple, Question] = {}
        answers: dict[tuple, Kept] = {}
        left = self.left
        for key in sorted(fresh, key=lambda key: -_cycles(known[key])):
            question, first = fresh[key], known[key]
            if first is not None:
                work = _work(first, len(question.machine))
                fits = _fits(question, first)
                if work > left and fits.any():
                    answers[key] = Kept(_kept(question.on(fits), first), fits)
                    self.kept.add(_shape(question))
                    if fits.all():
                        continue
                    question, work = question.on(~fits), _work(first, int((~fits).sum()))
                left -= work
            searched[key] = question
        return searched, answers


@dataclass(frozen=True, slots=True)
class Kept:
    """The mapping at hand, costed on the designs (D,) on which it fits."""

    won: Winners
    fits: np.ndarray

    def beside(self, searched: Winners) -> Winners:
        """With what was found for the others."""
        return self.won.beside(searched, self.fits)


def _work(won: Winners, designs: int) -> float:
    """What such a search takes, in candidates that are listed and bounded once."""
    if won.candidates - won.refined > LARGE:  # most of such a space is left out, for each design anew
        return 2.0 * LARGE * designs
    return won.candidates * (1 + DESIGN * (designs - 1)) + REFINED * won.refined * designs


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


def _fits(question: Question, first: Winners) -> np.ndarray:
    """(D,) whether the tiles of the first machine's mapping have room beside what stays, at this question's widths."""
    row, machine = int(first.row[0]), question.machine
    if row < 0:
        return np.zeros(len(machine), dtype=bool)
    reserved = 0.0 if question.reserved_bytes is None else question.reserved_bytes
    room = machine.capacity_bytes - reserved
    loops = nest(first.mappings[row], question.problem, machine, dict(question.homes))
    held = footprint_bytes(loops, question.problem, machine)
    need = {level: sum(float(part.max()) for part in parts.values()) for level, parts in held.items()}
    return np.all([room[:, level] >= size for level, size in need.items()] or [room[:, 0] > 0], axis=0)


def _kept(question: Question, first: Winners) -> Winners:
    """The cost of the first machine's mapping."""
    return cost_mapping(first.mappings[int(first.row[0])], question.problem, question.machine, question.homes)
