"""Which einsums are searched again once a machine has been asked for them and another one, much like it, comes.

A what-if asks some twenty machines that differ in one number. To search each einsum anew on all of
them takes twenty times as long as the estimate, which is minutes where one search takes a second.
The mapping that the first machine found is at hand, and its exact cost on another machine takes no
search: an upper bound of the best, near to it where a rate, a capacity or a clock has changed.

So a budget is spent on new searches, from the longest einsum on: first on machines on which the mapping at hand has
more room or another time, then on the others, of which nothing says that another mapping would be better there. Over
several borders these start from the mapping at hand (`sim.mapping.near`). The rest keep their mappings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from sim.mapping.api import Question, Winners, cost_mapping
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.narrow import LARGE
from sim.mapping.nest import footprint_bytes, nest
from sim.mapping.problem import ROLES
from sim.mapping.winners import Objective

REFINED, CHAIN = 60, 20
"""A candidate that is costed exactly takes about as long as so many only listed and bounded (12 and 0.2 us); one of a
search over several borders, most of which are costed quickly, a third of that."""
ALIKE = 1e-3
"""Times closer than this share are alike."""
NEAR = 0.3
"""What a search over several borders takes that starts from the mapping at hand, as a share of a wide one."""
DESIGN = 0.1
"""What a further design adds to the time in which candidates are listed and bounded for the first, as a share."""


@dataclass
class Again:
    """The first answers of what machines of one kind are asked, and what may be spent on searching them again."""

    left: float = inf
    """Candidates that may be searched of einsums that an earlier machine was asked for; more is put here as other
    machines come, and what is forced (see `choose`) may leave a debt."""
    first: dict[tuple, First] = field(default_factory=dict)
    """What the first machine was answered, whatever its numbers."""
    kept: set[tuple] = field(default_factory=set)
    """Of these, what another machine did not search again, or not far from the mapping at hand."""

    def answered(self, question: Question, won: Winners) -> None:
        """A search was made: the first machine that asks gives the mappings that others may keep."""
        self.left -= _work(won, len(question.machine))
        for place in (*_places(question), _anywhere(question)):
            self.first.setdefault(place, First(won, _room(question)[0]))

    def demand(self, designs: int) -> float:
        """What it would take to search all that the first machine was asked anew on so many designs, in a unit of its
        own."""
        return sum(one.work(designs) for one in {id(one.won): one for one in self.first.values()}.values())

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
        asked = {key: (fresh[key], first) for key, first in known.items() if first is not None}
        if sum(_work(first.won, len(question.machine)) for question, first in asked.values()) <= self.left:
            return dict(fresh), {}
        kept = self._kept(asked)
        searched = {}
        for key, question in fresh.items():
            at_hand = known[key] or self.first.get(_anywhere(question))
            question = replace(question, near=None if at_hand is None else at_hand.near)
            if key in kept or question.near:
                self.kept.add(_shape(question))
            if key not in kept:
                searched[key] = question
            elif not kept[key].fits.all():
                searched[key] = question.on(~kept[key].fits)
        return searched, kept

    def _kept(self, asked: Mapping[tuple, tuple[Question, First]]) -> dict[tuple, Kept]:
        """Which of the mappings at hand are kept, and where."""
        costed = {key: Kept.of(*pair) for key, pair in asked.items()}
        left = self.left - sum(asked[key][1].work(int((~one.fits).sum())) for key, one in costed.items())
        keep = {key: one.fits.copy() for key, one in costed.items()}
        order = sorted(asked, key=lambda key: -costed[key].cycles)
        for pressing in (True, False):
            for key in order:
                question, first = asked[key]
                other = first.other(question, costed[key])
                wanted = keep[key] & (other if pressing else ~other)
                so_far = int((~keep[key]).sum())
                work = first.work(so_far + int(wanted.sum())) - first.work(so_far)
                if wanted.any() and work <= left:
                    keep[key] &= ~wanted
                    left -= work
        return {key: costed[key].on(some) for key, some in keep.items() if some.any()}


@dataclass(frozen=True, slots=True)
class First:
    """What the first machine was answered, and the bytes that it has for tiles, (levels,)."""

    won: Winners
    room_bytes: np.ndarray

    @property
    def cycles(self) -> float:
        """Of its mapping; inf where nothing fits."""
        return inf if self.won.row[0] < 0 else float(self.won.cost.time[int(self.won.row[0])])

    @property
    def near(self) -> LoopNest | None:
        """The mapping from which a search over several borders starts; None where over one."""
        return self.won.mappings[int(self.won.row[0])] if _several(self.won) and self.won.row[0] >= 0 else None

    def work(self, designs: int) -> float:
        """What it takes to search on so many designs again."""
        return _work(self.won, designs) * (NEAR if self.near else 1.0)

    def other(self, question: Question, kept: Kept) -> np.ndarray:
        """(D,) the designs on which the mapping, kept, has more room than on the first machine or another time (all
        where more than time counts)."""
        if question.objective is not Objective.LATENCY or self.cycles == inf:
            return np.ones(len(question.machine), dtype=bool)
        more: np.ndarray = np.any(_room(question) > self.room_bytes, axis=1)
        time = np.full(len(more), self.cycles)
        if kept.won is not None:
            time[kept.fits] = kept.won.cost.time[kept.won.row]
        return more | (np.abs(time - self.cycles) > ALIKE * self.cycles)


@dataclass(frozen=True, slots=True)
class Kept:
    """The mapping at hand, costed on the designs (D,) on which it fits; None where it fits none."""

    won: Winners | None
    fits: np.ndarray

    @staticmethod
    def of(question: Question, first: First) -> Kept:
        fits = _fits(question, first.won)
        return Kept(_kept(question.on(fits), first.won) if fits.any() else None, fits)

    @property
    def cycles(self) -> float:
        """The most on any design; 0 where it fits none."""
        return 0.0 if self.won is None else float(self.won.cost.time.max())

    def on(self, designs: np.ndarray) -> Kept:
        """For some of these designs, (D,)."""
        assert self.won is not None
        return Kept(self.won.on(np.flatnonzero(designs[self.fits])), designs)

    def beside(self, searched: Winners) -> Winners:
        """With what was found for the others."""
        assert self.won is not None
        return self.won.beside(searched, self.fits)


def _work(won: Winners, designs: int) -> float:
    """What such a search takes, in candidates that are listed and bounded once."""
    if not designs:
        return 0.0
    if won.candidates - won.refined > LARGE:  # most of such a space is left out, for each design anew
        return 2.0 * LARGE * designs
    if _several(won):
        return CHAIN * float(won.refined) * designs
    return won.candidates * (1 + DESIGN * (designs - 1)) + REFINED * won.refined * designs


def _several(won: Winners) -> bool:
    """Whether the search was one over several borders: all that it counts are chains that it costed."""
    return won.candidates == won.refined


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


def _anywhere(question: Question) -> tuple:
    """What two questions share that differ in where tensors lie too."""
    shape = _shape(question)
    return (*shape[:3], "wherever its tensors lie")


def _room(question: Question) -> np.ndarray:
    """(D, levels) bytes for tiles."""
    reserved = 0.0 if question.reserved_bytes is None else question.reserved_bytes
    return question.machine.capacity_bytes - reserved


def _fits(question: Question, first: Winners) -> np.ndarray:
    """(D,) whether the tiles of the first machine's mapping have room beside what stays, at this question's widths."""
    row, machine = int(first.row[0]), question.machine
    if row < 0:
        return np.zeros(len(machine), dtype=bool)
    room = _room(question)
    loops = nest(first.mappings[row], question.problem, machine, dict(question.homes))
    held = footprint_bytes(loops, question.problem, machine)
    need = {level: sum(float(part.max()) for part in parts.values()) for level, parts in held.items()}
    return np.all([room[:, level] >= size for level, size in need.items()] or [room[:, 0] > 0], axis=0)


def _kept(question: Question, first: Winners) -> Winners:
    """The cost of the first machine's mapping."""
    return cost_mapping(first.mappings[int(first.row[0])], question.problem, question.machine, question.homes)
