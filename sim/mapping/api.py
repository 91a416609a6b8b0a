"""One door to the mapper: the best mapping of a space, or the cost of a given one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.errors import MappingError
from sim.mapping.evaluate import Cost, Rows, StepTable, evaluate_rows, step_table
from sim.mapping.machine import Machine
from sim.mapping.mapper import Objective, Winners, dynamic_energy, map_problem, outer_tiles
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import check_capacity, footprint_bytes, nest
from sim.mapping.nested import map_nested
from sim.mapping.problem import Problem
from sim.mapping.search import needs_rates
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
    if space not in SPACES:
        raise MappingError(f'map space "{space}" is unknown: expected one of {", ".join(SPACES)}')
    if space == "uneven":
        from sim.mapping.uneven import map_uneven

        return map_uneven(problem, machine, homes, objective=objective, reserved_bytes=reserved_bytes)
    mapper = map_nested if needs_rates(machine, homes) else map_problem
    fixed = space == "fixed_dataflow"
    return mapper(problem, machine, homes, objective=objective, reserved_bytes=reserved_bytes, fixed=fixed)


def cost_mapping(
    mapping: LoopNest, problem: Problem, machine: Machine, homes: Mapping[OperandRole, int], reserved_bytes: float = 0.0
) -> Winners:
    """Cost of one given mapping on every design.

    Raises: MappingError: it does not fit the einsum or the machine; InfeasibleError: a memory overflows.
    """
    machine = machine.awake(homes)
    made = nest(mapping, problem, machine, dict(homes))
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
    weight, used = outer_tiles(mapping, problem, machine, homes)
    return Winners(
        row=np.arange(designs),
        cost=cost,
        tables=tuple(table.take(np.array([d])) for d in range(designs)),
        mappings=(mapping,) * designs,
        energy_j=dynamic_energy(machine, problem, cost.traffic, np.arange(designs)),
        first_weight_bytes=(weight,) * designs,
        footprint_bytes=(used,) * designs,
        need_bytes=0.0,
        proven_gap=0.0,
        latency_cycles=machine.latency_cycles,
        candidates=1,
        refined=1,
    )


__all__ = ["SPACES", "Cost", "Objective", "StepTable", "Winners", "cost_mapping", "footprint_bytes", "map_einsum"]
