"""One door to the mapper: the best mapping of a space, or the cost of a given one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sim.aside import Aside
from sim.errors import MappingError
from sim.mapping.evaluate import Cost, Rows, StepTable, evaluate_rows, step_table
from sim.mapping.machine import Machine
from sim.mapping.mapper import Question, map_problems
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import check_capacity, check_stores, footprint_bytes, nest
from sim.mapping.nested import map_nested
from sim.mapping.problem import Problem
from sim.mapping.search import needs_rates
from sim.mapping.winners import Lazy, Objective, Winners, dynamic_energy, tile_bytes
from sim.workload.graph import OperandRole

SPACES = ("even", "uneven", "fixed_dataflow")


def map_einsum(
    problem: Problem,
    machine: Machine,
    homes: Mapping[OperandRole, int],
    *,
    objective: Objective = Objective.LATENCY,
    space: str = "even",
    reserved_bytes: np.ndarray | None = None,
) -> Winners:
    """Best mapping of an einsum on every design of a machine.

    Args: homes: operand -> level where it lies; space: one of SPACES; reserved_bytes: (D, levels).
    Raises: MappingError: unknown space.
    """
    return map_einsums([Question(problem, machine, homes, objective, reserved_bytes)], space=space)[0]


def map_einsums(
    questions: Sequence[Question],
    *,
    space: str = "even",
    processes: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Winners]:
    """As `map_einsum` for many, in order; what their searches have in common is done once.

    Args: processes: how many search over several borders or uneven spaces, where each question takes long and shares
        nothing with others (forked copies of this one, see `Aside`); progress: called with the share of the questions
        that others come after.
    """
    if space not in SPACES:
        raise MappingError(f'map space "{space}" is unknown: expected one of {", ".join(SPACES)}')
    single = [space != "uneven" and not needs_rates(q.machine, q.homes) for q in questions]
    lonely = [number for number, one in enumerate(single) if not one]

    def alone(number: int) -> Winners:
        progress(number / len(questions))
        return _alone(questions[number], space)

    with Aside([partial(alone, number) for number in lonely], min(processes, len(lonely))) as aside:
        fixed = space == "fixed_dataflow"
        answers = map_problems([replace(q, fixed=fixed) for q, one in zip(questions, single, strict=True) if one])
        together, apart = list(answers), iter(aside.results())
    shared = iter(together)
    return [next(shared if one else apart) for one in single]


def _alone(question: Question, space: str) -> Winners:
    """The answer over several borders, or of an uneven space."""
    where = (question.problem, question.machine, question.homes)
    if space == "uneven":
        from sim.mapping.uneven import map_uneven

        return map_uneven(*where, objective=question.objective, reserved_bytes=question.reserved_bytes)
    return map_nested(
        *where,
        objective=question.objective,
        reserved_bytes=question.reserved_bytes,
        fixed=space == "fixed_dataflow",
        near=question.near,
    )


def cost_mapping(
    mapping: LoopNest, problem: Problem, machine: Machine, homes: Mapping[OperandRole, int], reserved_bytes: float = 0.0
) -> Winners:
    """Cost of one given mapping on every design.

    Raises: MappingError: it does not fit the einsum or the machine, or leaves out a memory; InfeasibleError: a memory
        overflows.
    """
    machine = machine.awake(homes)
    made = nest(mapping, problem, machine, dict(homes))
    check_stores(made, machine, dict(homes))
    check_capacity(made, problem, machine, reserved_bytes)
    designs = len(machine)
    rows = Rows(
        nest=made,
        problem=problem,
        machine=machine,
        rates=machine.rates,
        setup=machine.setup_cycles,
        latency=machine.latency_cycles,
    )
    cost, table = evaluate_rows(rows), step_table(rows)
    weight, used, inside = tile_bytes(mapping, problem, machine, homes)
    return Winners(
        row=np.arange(designs),
        cost=cost,
        tables=Lazy(range(designs), lambda d: table.take(np.array([d]))),
        first_bytes=table.first.bytes,
        mappings=(mapping,) * designs,
        energy_j=dynamic_energy(machine, problem, cost.traffic, np.arange(designs)),
        first_weight_bytes=(weight,) * designs,
        footprint_bytes=(used,) * designs,
        level_bytes=(inside,) * designs,
        need_bytes=0.0,
        proven_gap=0.0,
        latency_cycles=machine.latency_cycles,
        candidates=1,
        refined=1,
    )


__all__ = [
    "SPACES",
    "Cost",
    "Objective",
    "Question",
    "StepTable",
    "Winners",
    "cost_mapping",
    "footprint_bytes",
    "map_einsum",
    "map_einsums",
]
