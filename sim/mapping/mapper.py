"""The mapper over one border: the best even mapping, for every design of a machine.

Search by a lower bound, decide by the exact recurrence (`race.Search`). The result is the optimum over the
listed candidates and all their loop orders, because the bound never exceeds the exact value (a law in the tests).

Designs share all that does not depend on their numbers: the terms of the bound, and the step tables
of candidates (`settle.Settled`). What is refined for a design depends on its own numbers alone, so
that a sweep finds for each design what a search of its own would find, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.mapping.machine import Machine
from sim.mapping.problem import Problem
from sim.mapping.race import Search
from sim.mapping.search import SingleBorder
from sim.mapping.winners import Objective, Winners
from sim.workload.graph import OperandRole

TOGETHER = 400_000
"""Candidates of spaces that are searched together: more share their array operations, fewer stay in the cache."""


def map_problem(
    problem: Problem,
    machine: Machine,
    homes: Mapping[OperandRole, int],
    *,
    objective: Objective = Objective.LATENCY,
    reserved_bytes: np.ndarray | None = None,
    fixed: bool = False,
) -> Winners:
    """Best even mapping of a problem on each design of a machine with at most one memory border.

    Args: homes: operand -> level in which it lies; reserved_bytes: (D, levels) taken by tensors
        that stay on chip; fixed: only loop orders of the array's dataflow.
    """
    asked = Question(problem, machine, homes, objective, reserved_bytes, fixed)
    return next(map_problems([asked]))


@dataclass(frozen=True, slots=True)
class Question:
    """What `map_problem` is asked."""

    problem: Problem
    machine: Machine
    homes: Mapping[OperandRole, int]
    objective: Objective = Objective.LATENCY
    reserved_bytes: np.ndarray | None = None
    fixed: bool = False

    def space(self) -> SingleBorder:
        """What may be chosen."""
        return SingleBorder(self.problem, self.machine.awake(self.homes), self.homes, self.fixed)

    def room(self, space: SingleBorder) -> np.ndarray:
        """(D,) bytes for tiles."""
        room = space.machine.capacity_bytes[:, space.route.level]
        return room if self.reserved_bytes is None else room - self.reserved_bytes[:, space.route.level]


def map_problems(asked: Sequence[Question]) -> Iterator[Winners]:
    """As `map_problem` for many, in order; those whose spaces are of one kind are searched together."""
    alike: dict[tuple, list[_Asked]] = {}
    won: dict[int, Winners] = {}
    for number, question in enumerate(asked):
        space = question.space()
        some = alike.setdefault((space.kind, question.objective, question.fixed), [])
        some.append((number, space, question.room(space)))
    for (_, objective, _), members in alike.items():
        for some in _packed(members):
            numbers, spaces, rooms = zip(*some, strict=True)
            won |= zip(numbers, Search(spaces, objective, rooms).run(), strict=True)
    yield from (won[number] for number in range(len(asked)))


_Asked = tuple[int, SingleBorder, np.ndarray]
"""(number of the question, its space, bytes for tiles of its designs)"""


def _packed(members: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """Spaces to search together: about `TOGETHER` candidates, or one space."""
    some: list[_Asked] = []
    size = 0
    for member in members:
        if some and size + member[1].candidates > TOGETHER:
            yield some
            some, size = [], 0
        some.append(member)
        size += member[1].candidates
    yield some
