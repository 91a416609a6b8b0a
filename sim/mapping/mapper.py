"""The mapper over one border: the best even mapping, for every design of a machine.

Search by a lower bound, decide by the exact recurrence (`race.Search`). The result is the optimum over the
listed candidates and all their loop orders, because the bound never exceeds the exact value (a law in the tests).

Designs share all that does not depend on their numbers: the terms of the bound, and the step tables
of candidates (`settle.Settled`). What is refined for a design depends on its own numbers alone, so
that a sweep finds for each design what a search of its own would find, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.mapping.machine import Machine
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.narrow import LARGE, search_narrowed
from sim.mapping.problem import ROLES, Problem
from sim.mapping.race import Search
from sim.mapping.search import SingleBorder
from sim.mapping.winners import Objective, Winners
from sim.workload.graph import OperandRole

TOGETHER = 2_000_000
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
    """What `map_problem` is asked. `near`: a mapping from which a search over several borders may start (`near`)."""

    problem: Problem
    machine: Machine
    homes: Mapping[OperandRole, int]
    objective: Objective = Objective.LATENCY
    reserved_bytes: np.ndarray | None = None
    fixed: bool = False
    near: LoopNest | None = None

    @property
    def form(self) -> tuple:
        """Equal for questions that differ in the numbers of their designs alone."""
        p, m = self.problem, self.machine
        axes = tuple(p.axes[role] for role in ROLES)
        numbers = (tuple(p.einsum.ranks.items()), tuple(p.bits.items()), p.accumulate_bits, p.reduction_speedup)
        return (*numbers, axes, m.levels, m.ports, m.array, tuple(self.homes.items()), self.objective, self.fixed)

    def on(self, designs: np.ndarray) -> Question:
        """The question for some of the designs."""
        reserved = None if self.reserved_bytes is None else self.reserved_bytes[designs]
        return replace(self, machine=self.machine.take(designs), reserved_bytes=reserved)

    def room(self, level: int) -> np.ndarray:
        """(D,) bytes for tiles in a memory."""
        room = self.machine.capacity_bytes[:, level]
        return room if self.reserved_bytes is None else room - self.reserved_bytes[:, level]


class _Asked:
    """Questions of one form: the space of all their designs."""

    def __init__(self, numbers: list[int], questions: Sequence[Question]) -> None:
        first = questions[0]
        machine = Machine.together([question.machine for question in questions]).awake(first.homes)
        self.numbers, self.objective = numbers, first.objective
        self.space = SingleBorder(first.problem, machine, first.homes, first.fixed)
        rooms = [question.room(self.space.route.level) for question in questions]
        self.room, self.ends = np.concatenate(rooms), np.cumsum(list(map(len, rooms)))
        self.kind = (self.space.kind, first.objective, first.fixed)


def map_problems(asked: Sequence[Question]) -> Iterator[Winners]:
    """As `map_problem` for many, in order; those whose spaces are of one kind are searched together."""
    same: dict[tuple, list[int]] = {}
    for number, question in enumerate(asked):
        same.setdefault(question.form, []).append(number)
    alike: dict[tuple, list[_Asked]] = {}
    won: dict[int, Winners] = {}
    for numbers in same.values():
        one = _Asked(numbers, [asked[number] for number in numbers])
        if one.objective is Objective.LATENCY and one.space.candidates > LARGE:
            won |= zip(numbers, search_narrowed(one.space, one.room).split(one.ends), strict=True)
        else:
            alike.setdefault(one.kind, []).append(one)
    for members in alike.values():
        for some in _packed(members):
            found = Search([one.space for one in some], some[0].objective, [one.room for one in some]).run()
            for one, winners in zip(some, found, strict=True):
                won |= zip(one.numbers, winners.split(one.ends), strict=True)
    yield from (won[number] for number in range(len(asked)))


def _packed(members: Sequence[_Asked]) -> Iterator[list[_Asked]]:
    """Spaces to search together: about `TOGETHER` candidates, or one space."""
    some: list[_Asked] = []
    size = 0
    for member in members:
        if some and size + member.space.candidates > TOGETHER:
            yield some
            some, size = [], 0
        some.append(member)
        size += member.space.candidates
    yield some
