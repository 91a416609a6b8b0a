"""The mapper over one border: the best even mapping, for every design of a machine.

Search by a lower bound, decide by the exact recurrence (`race.Search`). The result is the optimum over the
listed candidates and all their loop orders, because the bound never exceeds the exact value (a law in the tests).

Designs share all that does not depend on their numbers: the terms of the bound, and the step tables
of candidates (`settle.Settled`). What is refined for a design depends on its own numbers alone, so
that a sweep finds for each design what a search of its own would find, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.mapping.machine import Machine
from sim.mapping.problem import Problem
from sim.mapping.race import AT_ONCE, Ask, Asking, Search
from sim.mapping.search import SingleBorder
from sim.mapping.settle import Costs, Keys, Tables, Times
from sim.mapping.winners import Objective, Winners
from sim.workload.graph import OperandRole


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

    def search(self, tables: Tables) -> Search:
        machine = self.machine.awake(self.homes)
        space = SingleBorder(self.problem, machine, self.homes, self.fixed)
        room = machine.capacity_bytes[:, space.route.level]
        if self.reserved_bytes is not None:
            room = room - self.reserved_bytes[:, space.route.level]
        return Search(space, self.objective, room, tables)


def map_problems(asked: Iterable[Question]) -> Iterator[Winners]:
    """As `map_problem` for many, in order: searches go in step, so that what they refine is costed together."""
    tables, running = Tables(), []
    for question in asked:
        search = question.search(tables)
        run = search.run()
        running.append((search, run, _sent(run)))  # begun at once, while its numbers are in the cache
        if sum(search.bounds for search, _, _ in running) > AT_ONCE:
            yield from _in_step(tables, running)
            tables, running = Tables(), []
    yield from _in_step(tables, running)


def _in_step(tables: Tables, running: Sequence[tuple[Search, Asking[Winners], Ask | Winners]]) -> list[Winners]:
    """The winners of searches that ask for rows, times and costs together."""
    asks = dict(enumerate(ask for _, _, ask in running))
    won: dict[int, Winners] = {}
    while asks:
        won |= {number: ask for number, ask in asks.items() if isinstance(ask, Winners)}
        answers: dict[int, Any] = {number: None for number, ask in asks.items() if isinstance(ask, Keys)}
        tables.add((running[number][0].settled, ask.keys) for number, ask in asks.items() if isinstance(ask, Keys))
        for kind, answer_all in ((Times, tables.times), (Costs, tables.costs)):
            alike = {number: ask.rows for number, ask in asks.items() if isinstance(ask, kind)}
            answers |= zip(alike, answer_all(list(alike.values())), strict=True)
        asks = {number: _sent(running[number][1], answer) for number, answer in answers.items()}
    tables.groups.clear()  # they know their searches: candidates would live until the garbage collector comes by
    return [won[number] for number in range(len(running))]


def _sent(run: Asking[Winners], answer: Any = None) -> Ask | Winners:
    """What a search asks next, or found."""
    try:
        return run.send(answer)
    except StopIteration as end:
        found: Winners = end.value
        return found
