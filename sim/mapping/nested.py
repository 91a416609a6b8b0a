"""The mapper over several memory borders: the best tiles outside, and for each the best inside.

Each border is bounded as if the array lay directly inside it; the best candidates by bound are
expanded inwards on the problem of one whole tile job, and every combination is costed exactly.
Small problems are expanded without a limit, which makes the result the optimum of the even space;
beyond `ALL_BELOW` the number of candidates per border is limited to `LOOKS` and the result is the
best of those (its gap is measured in `benchmarks/mapper_gap.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product as cross

import numpy as np

from sim.mapping.bound import Numbers
from sim.mapping.evaluate import Rows, evaluate_rows, step_table
from sim.mapping.machine import Machine
from sim.mapping.mapper import Objective, Winners, dynamic_energy, join, outer_tiles
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import Border, Nest, footprint_bytes
from sim.mapping.problem import Problem
from sim.mapping.search import Choice, Pool, SingleBorder, innermost
from sim.workload.graph import OperandRole

ALL_BELOW = 64
"""Iteration-space volume (windows left out) up to which every candidate is expanded."""
LOOKS = (24, 10, 6)
"""Candidates kept per border from the outside in, for larger problems."""

Chain = tuple[tuple[SingleBorder, Choice], ...]


def map_nested(
    problem: Problem,
    machine: Machine,
    homes: Mapping[OperandRole, int],
    *,
    objective: Objective = Objective.LATENCY,
    reserved_bytes: np.ndarray | None = None,
) -> Winners:
    """Best even mapping found for each design of a machine with two or more memory borders."""
    machine = machine.awake(homes)
    room = machine.capacity_bytes - (0.0 if reserved_bytes is None else reserved_bytes)
    volume = float(np.prod([problem.einsum.ranks[r] for r in problem.tiled_ranks] or [1]))
    looks = None if volume <= ALL_BELOW else LOOKS
    found = [_map_design(problem, machine, dict(homes), d, room[d], objective, looks) for d in range(len(machine))]
    best = [f for f in found if f[0] is not None]
    rows = np.cumsum([f[0] is not None for f in found]) - 1
    cost = join([f[0][1] for f in best])
    energy = np.full(len(machine), np.nan)
    for d, f in enumerate(found):
        if f[0] is not None:
            energy[d] = f[0][0]
    outer = [outer_tiles(f[0][3], problem, machine, homes) for f in best]
    return Winners(
        row=np.where([f[0] is not None for f in found], rows, -1),
        cost=cost,
        tables=tuple(f[0][2] for f in best),
        mappings=tuple(f[0][3] for f in best),
        energy_j=energy,
        first_weight_bytes=tuple(f for f, _ in outer),
        footprint_bytes=tuple(f for _, f in outer),
        need_bytes=min((f[1] for f in found), default=0.0),
        proven_gap=float("nan") if looks else 0.0,
        latency_cycles=machine.latency_cycles,
        candidates=sum(f[2] for f in found),
        refined=sum(f[2] for f in found),
    )


def _map_design(problem, machine, homes, d, room, objective, looks):
    """(winner or None, least footprint over capacity seen, candidates) of one design."""
    numbers = Numbers(machine.rates[[d]], machine.setup_cycles[[d]], machine.latency_cycles[[d]])
    chains = list(_chains(problem, machine, homes, numbers, room, looks))
    groups: dict[tuple, list[Chain]] = {}
    for chain in chains:
        groups.setdefault(tuple((c.order, c.parts) for _, c in chain), []).append(chain)
    best, least = None, np.inf
    for members in groups.values():
        nest = _nest(members, problem, machine, homes)
        fits = np.ones(len(members), dtype=bool)
        for level, operands in footprint_bytes(nest, problem, machine).items():
            used = sum(operands.values(), np.zeros(len(members)))
            fits &= used <= room[level]
            least = min(least, float(used.min()))
        rows = _rows(nest, problem, machine, d, len(members))
        cost = evaluate_rows(rows)
        energy = dynamic_energy(machine, problem, cost.traffic, np.full(len(members), d))
        value = {Objective.LATENCY: cost.time, Objective.ENERGY: energy, Objective.EDP: energy * cost.time}[objective]
        value = np.where(fits, value, np.inf)
        i = int(np.argmin(value))
        if np.isfinite(value[i]) and (best is None or value[i] < best[0]):
            best = (float(value[i]), float(energy[i]), members[i])
    if best is None:
        return None, least, len(chains)
    nest = _nest([best[2]], problem, machine, homes)
    rows = _rows(nest, problem, machine, d, 1)
    return (best[1], evaluate_rows(rows), step_table(rows), _mapping(best[2])), least, len(chains)


def _chains(
    problem: Problem,
    machine: Machine,
    homes: dict[OperandRole, int],
    numbers: Numbers,
    room: np.ndarray,
    looks: tuple[int, ...] | None,
) -> Iterator[Chain]:
    """Choices for all borders, best bounds first, the inner ones on the problem of a whole tile."""
    space = SingleBorder(problem, machine, homes)
    pool = Pool(space)
    bound = pool.times(numbers)[0]
    bound[pool.footprint > room[space.route.level]] = np.inf
    count = len(bound) if looks is None else min(looks[0], len(bound))
    positions = np.argpartition(bound, count - 1)[:count] if count < len(bound) else np.arange(len(bound))
    positions = positions[np.isfinite(bound[positions])]
    inside: dict[tuple, list[Chain]] = {}
    for position in positions[np.argsort(bound[positions], kind="stable")]:
        for choice in pool.choices(int(position)):
            if space.last:
                yield ((space, choice),)
                continue
            inner, inner_homes = space.inside(choice)
            key = tuple(inner.einsum.ranks.items())
            if key not in inside:
                inside[key] = list(_chains(inner, machine, inner_homes, numbers, room, looks and looks[1:]))
            for (head,), rest in cross([((space, choice),)], inside[key]):
                yield (head, *rest)


def _nest(chains: list[Chain], problem: Problem, machine: Machine, homes: Mapping[OperandRole, int]) -> Nest:
    """One nest for chains that share the orders and parts of every border."""
    borders: list[Border] = []
    tables: list[dict[str, np.ndarray]] = []
    for depth, (_, first) in enumerate(chains[0]):
        for position, chain in enumerate(chains):
            space, choice = chain[depth]
            made, cuts = space.borders(first.order, first.parts, np.array([choice.tiles]).reshape(1, len(first.order)))
            if position == 0:
                borders += made
                columns: list[dict[str, list[np.ndarray]]] = [{key: [] for key in cut} for cut in cuts]
            for column, cut in zip(columns, cuts, strict=True):
                for key, value in cut.items():
                    column[key].append(value)
        tables += [{key: np.concatenate(values) for key, values in column.items()} for column in columns]
    return Nest(tuple(borders), tuple(tables), innermost(machine, homes))


def _rows(nest: Nest, problem: Problem, machine: Machine, d: int, count: int) -> Rows:
    return Rows(
        nest=nest,
        problem=problem,
        machine=machine,
        rates=np.repeat(machine.rates[[d]], count, axis=0),
        setup=np.repeat(machine.setup_cycles[[d]], count),
        latency=np.repeat(machine.latency_cycles[[d]], count),
    )


def _mapping(chain: Chain) -> LoopNest:
    return LoopNest(nodes=tuple(node for space, choice in chain for node in space.mapping(choice).nodes))
