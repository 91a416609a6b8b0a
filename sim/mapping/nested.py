"""The mapper over several memory borders: the best tiles outside, and for each the best inside.

Each border is bounded as if the array lay directly inside it; the best candidates by bound are
expanded inwards on the problem of one whole tile job, and every combination is costed exactly.
Small problems are expanded without a limit, which makes the result the optimum of the even space;
beyond `ALL_BELOW` the number of candidates per border is limited to `LOOKS` and the result is where
hill climbing from the best of those ends (`benchmarks/mapper_gap.py` measures its gap).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.mapping.bound import Numbers
from sim.mapping.climb import Choices, climb
from sim.mapping.evaluate import Rows, evaluate_rows, step_table
from sim.mapping.machine import Machine
from sim.mapping.mapper import Objective, Winners, dynamic_energy, join, outer_tiles
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import Border, Nest, footprint_bytes, spread
from sim.mapping.problem import Problem
from sim.mapping.search import Choice, Pool, SingleBorder, innermost
from sim.workload.graph import OperandRole

ALL_BELOW = 64
"""Iteration-space volume (windows left out) up to which every candidate is expanded."""
LOOKS = (12, 4, 2)
"""Candidates kept per border from the outside in, for larger problems; one further in."""
AT_ONCE = 16_384
"""Mappings costed together (memory against speed)."""

Chain = tuple[tuple[SingleBorder, Choice], ...]
Lister = Callable[[SingleBorder, Numbers, float, int | None], Iterable[Choice]]
"""Choices of one border on one design (numbers, room in bytes), at most so many candidates, best bounds first."""


def even_choices(space: SingleBorder, numbers: Numbers, room: float, looks: int | None) -> Iterator[Choice]:
    """Every order of the even candidates with the least bounds."""
    pool = Pool(space)
    bound = pool.times(numbers)[0]
    bound[pool.footprint > room] = np.inf
    count = len(bound) if looks is None else min(looks, len(bound))
    positions = np.argpartition(bound, count - 1)[:count] if count < len(bound) else np.arange(len(bound))
    positions = positions[np.isfinite(bound[positions])]
    for position in positions[np.argsort(bound[positions], kind="stable")]:
        yield from pool.choices(int(position))


def map_nested(
    problem: Problem,
    machine: Machine,
    homes: Mapping[OperandRole, int],
    *,
    objective: Objective = Objective.LATENCY,
    reserved_bytes: np.ndarray | None = None,
    fixed: bool = False,
    lister: Lister = even_choices,
    all_below: int = ALL_BELOW,
    looks: tuple[int, ...] = LOOKS,
) -> Winners:
    """Best mapping found for each design of a machine with two or more memory borders.

    Args: fixed: only loop orders of the array's dataflow; lister: the choices at each border;
        all_below, looks: how far the search goes (module constants).
    """
    machine = machine.awake(homes)
    room = machine.capacity_bytes - (0.0 if reserved_bytes is None else reserved_bytes)
    volume = float(np.prod([problem.einsum.ranks[r] for r in problem.tiled_ranks] or [1]))
    search = _Search(problem, machine, dict(homes), objective, fixed, lister, None if volume <= all_below else looks)
    found = [search.design(d, room[d]) for d in range(len(machine))]
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
        proven_gap=float("nan") if search.looks else 0.0,
        latency_cycles=machine.latency_cycles,
        candidates=sum(f[2] for f in found),
        refined=sum(f[2] for f in found),
    )


@dataclass(frozen=True, slots=True)
class _Search:
    problem: Problem
    machine: Machine
    homes: dict[OperandRole, int]
    objective: Objective
    fixed: bool
    lister: Lister
    looks: tuple[int, ...] | None

    def design(self, d: int, room: np.ndarray) -> tuple[tuple | None, float, int]:
        """(winner: (energy, cost, table, mapping) or None, least footprint seen, candidates) of one design."""
        machine, problem = self.machine, self.problem
        numbers = Numbers(machine.rates[[d]], machine.setup_cycles[[d]], machine.latency_cycles[[d]])
        groups: dict[tuple, list[Chain]] = {}
        count = 0
        for chain in self.chains(problem, self.homes, numbers, room, self.looks, {}):
            groups.setdefault(tuple(c.shape for _, c in chain), []).append(chain)
            count += 1
        best, least = None, np.inf
        for members in groups.values():
            for start in range(0, len(members), AT_ONCE):
                some = members[start : start + AT_ONCE]
                value, energy, used = self._exact(some, d, room)
                least = min(least, used)
                i = int(np.argmin(value))
                if np.isfinite(value[i]) and (best is None or value[i] < best[0]):
                    best = (float(value[i]), float(energy[i]), some[i])
        if best is None:
            return None, least, count
        if self.looks is not None:
            best, more = self._climbed(best, d, room)
            count += more
        rows = _rows(_nest([best[2]], problem, machine, self.homes), problem, machine, d, 1)
        return (best[1], evaluate_rows(rows), step_table(rows), _mapping(best[2])), least, count

    def _climbed(self, best: tuple[float, float, Chain], d: int, room: np.ndarray) -> tuple[tuple, int]:
        """The best chain after hill climbing, and how many mappings that costed."""
        spaces = [space for space, _ in best[2]]

        def costs(around: Sequence[Choices]) -> np.ndarray:
            values = np.full(len(around), np.inf)
            groups: dict[tuple, list[int]] = {}
            for position, choices in enumerate(around):
                if all(space.allows(c) for space, c in zip(spaces, choices, strict=True)):
                    groups.setdefault(tuple(c.shape for c in choices), []).append(position)
            for members in groups.values():
                chains = [tuple(zip(spaces, around[i], strict=True)) for i in members]
                values[members] = self._exact(chains, d, room)[0]
            return values

        choices, value, costed = climb(self.problem, tuple(c for _, c in best[2]), best[0], costs)
        chain, problem, homes = [], self.problem, self.homes
        for choice in choices:
            space = SingleBorder(problem, self.machine, homes, self.fixed, rated=True)
            chain.append((space, choice))
            problem, homes = space.inside(choice)
        energy = self._exact([tuple(chain)], d, room)[1]
        return (value, float(energy[0]), tuple(chain)), costed

    def _exact(self, chains: list[Chain], d: int, room: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """(value, inf where a memory overflows; energy; least footprint) of chains of one shape."""
        nest = _nest(chains, self.problem, self.machine, self.homes)
        fits, least = np.ones(len(chains), dtype=bool), np.inf
        for level, operands in footprint_bytes(nest, self.problem, self.machine).items():
            used = sum(operands.values(), np.zeros(len(chains)))
            fits &= used <= room[level]
            least = min(least, float(used.min()))
        cost = evaluate_rows(_rows(nest, self.problem, self.machine, d, len(chains)))
        energy = dynamic_energy(self.machine, self.problem, cost.traffic, np.full(len(chains), d))
        by = {Objective.LATENCY: cost.time, Objective.ENERGY: energy, Objective.EDP: energy * cost.time}
        return np.where(fits, by[self.objective], np.inf), energy, least

    def chains(
        self,
        problem: Problem,
        homes: dict[OperandRole, int],
        numbers: Numbers,
        room: np.ndarray,
        looks: tuple[int, ...] | None,
        known: dict[tuple, list[Chain]],
    ) -> Iterator[Chain]:
        """Choices for all borders, the inner ones on the problem of a whole tile."""
        space = SingleBorder(problem, self.machine, homes, self.fixed, rated=True)
        for choice in self.lister(space, numbers, float(room[space.route.level]), looks and looks[0]):
            if space.last:
                yield ((space, choice),)
                continue
            inner, inner_homes = space.inside(choice)
            key = (space.route.level, *inner.einsum.ranks.items())
            if key not in known:
                known[key] = list(self.chains(inner, inner_homes, numbers, room, looks and (looks[1:] or (1,)), known))
            for rest in known[key]:
                yield ((space, choice), *rest)


def _nest(chains: list[Chain], problem: Problem, machine: Machine, homes: Mapping[OperandRole, int]) -> Nest:
    """One nest for chains whose choices have equal shapes at every border."""
    borders: list[Border] = []
    tables: list[dict[str, np.ndarray]] = []
    extent = {r: np.full(len(chains), int(n)) for r, n in problem.einsum.ranks.items()}
    for depth, (space, first) in enumerate(chains[0]):
        tiles = np.array([chain[depth][1].tiles for chain in chains]).reshape(len(chains), len(first.order))
        made, cuts = space.borders(first, tiles, extent)
        borders += made
        tables += cuts
        for cut in cuts:
            extent |= {key.removesuffix(spread("")): values for key, values in cut.items()}
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
