"""The `uneven` map space: every operand stays in a memory at a loop depth of its own.

Over the borders of one memory the space holds every order of the walked ranks (one loop a rank),
every integer tile, and every place of each operand's store between those loops; at least one store
stands inside all of them, and a rank that is split over instances of the memory is not walked inside
the split. Each store between loops ends an atomic job, as everywhere. Stores that all stand inside all
loops are the even mappings, so the best uneven mapping is never worse than the best even one. Memories
side by side, each with operands of its own, are searched as one border too: their tiles move together.

Problems with at most `ALL` mappings are enumerated, which is exact. For larger ones the candidate
tiles are the lists of `dims` and the classes M, N, K and B keep their ranks together; candidates are
sorted by a lower bound and the best `REFINED` are costed exactly. Several memories are searched
border by border (`sim.mapping.nested`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import permutations, product
from math import factorial, prod

import numpy as np

from sim.mapping.evaluate import Rows, evaluate_rows, step_table
from sim.mapping.machine import Machine
from sim.mapping.mapper import map_problem
from sim.mapping.nest import Nest, footprint_bytes, nest
from sim.mapping.nested import map_nested
from sim.mapping.problem import Problem
from sim.mapping.search import Choice, SideBySide, SingleBorder, needs_rates, routes, side_by_side
from sim.mapping.steps import join
from sim.mapping.terms import Numbers
from sim.mapping.uneven_bound import UnevenBound
from sim.mapping.winners import Objective, Winners, dynamic_energy, first_bytes, tile_bytes, valued
from sim.workload.graph import OperandRole

ALL = 60_000
"""Mappings over one border that are all costed."""
ALL_NESTED = 12
"""Iteration-space volume (windows left out) below which several memories are enumerated."""
REFINED = 4_096
"""Candidates of larger problems that are costed exactly at most."""
ROUNDS = (64, 448)
"""Candidates of the first rounds; what the bound leaves comes after."""
NESTED_LOOKS = (10, 6, 4)
"""Candidates kept per border from the outside in, with several memories."""


def map_uneven(
    problem: Problem,
    machine: Machine,
    homes: Mapping[OperandRole, int],
    *,
    objective: Objective = Objective.LATENCY,
    reserved_bytes: np.ndarray | None = None,
) -> Winners:
    """Best uneven mapping found for each design; never worse than the best even one.

    Args: homes: operand -> level in which it lies; reserved_bytes: (D, levels) taken by tensors
        that stay on chip.
    """
    machine = machine.awake(homes)
    borders = len(routes(machine, homes))
    if borders > 1:
        even = map_nested(problem, machine, homes, objective=objective, reserved_bytes=reserved_bytes)
        other = map_nested(
            problem,
            machine,
            homes,
            objective=objective,
            reserved_bytes=reserved_bytes,
            lister=_nested_choices,
            all_below=ALL_NESTED,
            looks=NESTED_LOOKS,
        )
        best = _better(even, other, machine, objective)
        if not side_by_side(machine, homes):
            return best
        return _single(SideBySide(problem, machine, homes), best, objective, reserved_bytes)
    mapper = map_nested if needs_rates(machine, homes) else map_problem
    even = mapper(problem, machine, homes, objective=objective, reserved_bytes=reserved_bytes)
    if not borders:
        return even
    return _single(SingleBorder(problem, machine, homes, rated=True), even, objective, reserved_bytes)


def _single(space: SingleBorder, known: Winners, objective: Objective, reserved_bytes: np.ndarray | None) -> Winners:
    """The better of what is known and the best uneven mapping over one border."""
    search, machine = _Border(space, objective), space.machine
    room = machine.capacity_bytes - (0.0 if reserved_bytes is None else reserved_bytes)
    values = known.values(objective, machine.idle_j_per_cycle)
    found = [search.design(d, room[d], float(values[d])) for d in range(len(machine))]
    return _better(known, search.winners(found, known), machine, objective)


def _better(even: Winners, other: Winners, machine: Machine, objective: Objective) -> Winners:
    """For each design the better of two winners, the first where they are equal."""
    take = other.values(objective, machine.idle_j_per_cycle) < even.values(objective, machine.idle_j_per_cycle)
    rows = np.where(take, other.row + len(even.cost.time), even.row)
    used = sorted({int(r) for r in rows if r >= 0})
    first = len(even.cost.time)

    def pick(name: str) -> tuple:
        return tuple(getattr(even, name)[r] if r < first else getattr(other, name)[r - first] for r in used)

    costs = [(even.cost if r < first else other.cost, r if r < first else r - first) for r in used]
    return replace(
        even,
        row=np.array([used.index(int(r)) if r >= 0 else -1 for r in rows]),
        cost=join([c.take(np.array([r])) for c, r in costs]),
        tables=pick("tables"),
        first_bytes=np.array(pick("first_bytes")).reshape(len(used), even.first_bytes.shape[1]),
        mappings=pick("mappings"),
        energy_j=np.where(take, other.energy_j, even.energy_j),
        first_weight_bytes=pick("first_weight_bytes"),
        footprint_bytes=pick("footprint_bytes"),
        level_bytes=pick("level_bytes"),
        need_bytes=min(even.need_bytes, other.need_bytes),
        candidates=even.candidates + other.candidates,
        refined=even.refined + other.refined,
        proven_gap=other.proven_gap,
    )


# The space over one border ------------------------------------------------------------------------
def all_choices(space: SingleBorder) -> Iterator[Choice]:
    """Every mapping of the space over one border."""
    sizes = {r: int(n) for r, n in space.problem.einsum.ranks.items()}
    ranks = space.problem.tiled_ranks
    for option in space.options:
        for tiles in product(*[range(1, sizes[r] + 1) for r in ranks]):
            tile = dict(zip(ranks, tiles, strict=True))
            for order in permutations([r for r in ranks if tile[r] < sizes[r]]):
                cut = tuple(tile[r] for r in order)
                for depths in _depths(space, order, option):
                    yield Choice(order, cut, option, depths)


def _depths(space: SingleBorder, order: tuple[str, ...], option: tuple) -> Iterator[tuple[int, ...]]:
    """Every place of the stores for an order of loops."""
    n = len(order)
    split = {rank for rank, _, level in option if level == space.route.level}
    first = max((i + 1 for i, rank in enumerate(order) if rank in split), default=0)
    for depths in product(range(first, n + 1), repeat=len(space.route.stored)):
        if max(depths) == n:
            yield depths


def count_choices(space: SingleBorder) -> float:
    """At most how many mappings the space has (a split of ranks allows fewer places)."""
    sizes = [int(space.problem.einsum.ranks[r]) for r in space.problem.tiled_ranks]
    stores, total = len(space.route.stored), 0.0
    for walked in product((False, True), repeat=len(sizes)):
        n = sum(walked)
        tilings = prod(float(s - 1) for s, w in zip(sizes, walked, strict=True) if w)
        total += tilings * factorial(n) * ((n + 1) ** stores - n**stores)
    return total * len(space.options)


def _nested_choices(space: SingleBorder, numbers: Numbers, room: float, looks: int | None) -> Iterator[Choice]:
    """Choices of one border among several (`nested.Lister`)."""
    if looks is None:
        yield from all_choices(space)
        return
    bound = UnevenBound(space, numbers, room)
    for candidate in bound.best(np.inf, looks):
        yield from bound.choices(candidate, all_places=False)


# The search over one border -----------------------------------------------------------------------
class _Border:
    """The search over one memory's borders, design by design."""

    def __init__(self, space: SingleBorder, objective: Objective) -> None:
        self.space, self.objective = space, objective
        self.every = list(all_choices(space)) if count_choices(space) <= ALL else None
        self.costed = 0
        self.listed = len(self.every or ())

    def design(self, d: int, room: np.ndarray, best: float) -> Choice | None:
        """The best choice below `best` for design d."""
        won: Choice | None = None
        for bounded, choices in self._batches(d, room, best):
            if bounded >= best:
                break
            value, choice = self._least(choices, d, room)
            if value < best:
                best, won = value, choice
        return won

    def _batches(self, d: int, room: np.ndarray, best: float) -> Iterator[tuple[float, list[Choice]]]:
        """(lower bound of the batch, choices)."""
        if self.every is not None:
            yield -np.inf, self.every
            return
        machine = self.space.machine
        numbers = Numbers(machine.rates[[d]], machine.setup_cycles[[d]], machine.latency_cycles[[d]])
        energy = (machine.read_energy_j_per_byte[d], machine.write_energy_j_per_byte[d], float(machine.mac_energy_j[d]),
                  float(machine.idle_j_per_cycle[d]))  # fmt: skip
        bound = UnevenBound(self.space, numbers, room, self.objective, energy)
        found = bound.best(best, REFINED)
        self.listed += bound.candidates
        start = 0
        for size in (*ROUNDS, REFINED):
            some = found[start : start + size]
            if some:
                yield some[0].value, [c for candidate in some for c in bound.choices(candidate, all_places=True)]
            start += size

    def _rows(self, made: Nest, d: int, count: int) -> Rows:
        machine = self.space.machine
        return Rows(
            nest=made,
            problem=self.space.problem,
            machine=machine,
            rates=np.repeat(machine.rates[[d]], count, axis=0),
            setup=np.repeat(machine.setup_cycles[[d]], count),
            latency=np.repeat(machine.latency_cycles[[d]], count),
        )

    def _least(self, choices: list[Choice], d: int, room: np.ndarray) -> tuple[float, Choice | None]:
        """The least exact value among choices that fit."""
        space, best, won = self.space, np.inf, None
        for members, made in space.nests(choices):
            fits = np.ones(members.shape, dtype=bool)
            for level, held in footprint_bytes(made, space.problem, space.machine).items():
                fits &= sum(held.values(), np.zeros(1)) <= room[level]
            if not fits.any():
                continue
            self.costed += len(members)
            cost = evaluate_rows(self._rows(made, d, len(members)))
            energy = dynamic_energy(space.machine, space.problem, cost.traffic, np.full(len(members), d))
            value = valued(self.objective, cost.time, energy, float(space.machine.idle_j_per_cycle[d]))
            value = np.where(fits, value, np.inf)
            i = int(np.argmin(value))
            if value[i] < best:
                best, won = float(value[i]), choices[members[i]]
        return best, won

    def winners(self, found: list[Choice | None], even: Winners) -> Winners:
        """Winners of the designs that have a choice, in the form of the even ones."""
        space, made = self.space, [(d, c) for d, c in enumerate(found) if c is not None]
        costs, tables, mappings, energy = [], [], [], np.full(len(found), np.nan)
        for d, choice in made:
            mapping = space.mapping(choice)
            rows = self._rows(nest(mapping, space.problem, space.machine, space.homes), d, 1)
            costs.append(evaluate_rows(rows))
            tables.append(step_table(rows))
            mappings.append(mapping)
            energy[d] = dynamic_energy(space.machine, space.problem, costs[-1].traffic, np.array([d]))[0]
        tiles = [tile_bytes(m, space.problem, space.machine, space.homes) for m in mappings]
        position = {d: i for i, (d, _) in enumerate(made)}
        return Winners(
            row=np.array([position.get(d, -1) for d in range(len(found))]),
            cost=join(costs),
            tables=tuple(tables),
            first_bytes=first_bytes(tables, space.machine),
            mappings=tuple(mappings),
            energy_j=energy,
            first_weight_bytes=tuple(first for first, _, _ in tiles),
            footprint_bytes=tuple(used for _, used, _ in tiles),
            level_bytes=tuple(inside for _, _, inside in tiles),
            need_bytes=even.need_bytes,
            candidates=self.listed,
            refined=self.costed,
            proven_gap=0.0 if self.every is not None else float("nan"),
            latency_cycles=self.space.machine.latency_cycles,
        )
