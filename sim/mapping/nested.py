"""The mapper over several memory borders.

Small problems (`ALL_BELOW`, `CHAINS`) are expanded border by border, each candidate inwards on the problem of one
whole tile job, and every combination is costed exactly: the result is the optimum of the space. Beyond that
beam searches by a quick cost (`beam`, `fluid`) find even chains, the same whatever the objective; all of these are
costed exactly, and the best descend by exact costs (`refine`). `benchmarks/mapper_gap.py` measures how far that is from
a search many times as wide, `benchmarks/law5.py` how often more of a resource is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from sim.mapping.beam import Effort, best_chains, canonical
from sim.mapping.evaluate import evaluate_rows, step_table
from sim.mapping.fluid import Aim, Chains, Fluid
from sim.mapping.machine import Machine
from sim.mapping.mapping import Loop, Store
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.near import NEAR, seeds
from sim.mapping.nest import Border, Nest, footprint_bytes, spread
from sim.mapping.problem import Problem
from sim.mapping.refine import Descent, Exact, rows_of
from sim.mapping.search import Choice, Pool, SingleBorder, innermost
from sim.mapping.steps import join
from sim.mapping.terms import Numbers
from sim.mapping.winners import Objective, Winners, dynamic_energy, first_bytes, tile_bytes, valued
from sim.workload.graph import OperandRole

ALL_BELOW = 512
"""Iteration-space volume (windows left out) up to which every candidate is expanded,"""
CHAINS = 20_000
"""if the combinations are no more than so many."""
AT_ONCE = 16_384
"""Mappings costed together (memory against speed)."""

DESCENT = Descent().times(NEAR.width / Effort().width)
"""How far chains descend that start from a mapping at hand."""

ASIDE = (Aim(None), Aim(Objective.LATENCY, fixed=True), Aim(None, fixed=True))
"""What the beam beside the main one looks for."""

Chain = tuple[tuple[SingleBorder, Choice], ...]
Found = tuple[float, float, Chain]
"""(value, energy, chain)"""
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
    most: int | None = CHAINS,
    looks: tuple[int, ...] | None = None,
    effort: Effort | None = None,
    near: LoopNest | None = None,
) -> Winners:
    """Best mapping found for each design of a machine with two or more memory borders.

    Args: fixed: only loop orders of the array's dataflow; lister: the choices at each border;
        all_below: iteration-space volume up to which all choices are expanded, if they make no more than `most`
        chains (None: however many); looks: candidates per border beyond that (None: a beam search of `effort`, even
        chains only); near: a mapping from which a beam search starts, and does not go far unless nothing near it fits.
    """
    machine = machine.awake(homes)
    room = machine.capacity_bytes - (0.0 if reserved_bytes is None else reserved_bytes)
    volume = float(np.prod([problem.einsum.ranks[r] for r in problem.tiled_ranks] or [1]))
    search = _Search(
        problem, machine, dict(homes), objective, fixed, lister, most if volume <= all_below else 0, looks,
        effort or Effort(), near,
    )  # fmt: skip
    found = [search.design(d, room[d]) for d in range(len(machine))]
    won = {d: f[0] for d, f in enumerate(found) if f[0] is not None}
    row, energy = np.full(len(machine), -1), np.full(len(machine), np.nan)
    row[list(won)], energy[list(won)] = np.arange(len(won)), [one[0] for one in won.values()]
    best = list(won.values())
    tiles = [tile_bytes(one[3], problem, machine, homes) for one in best]
    return Winners(
        row=row,
        cost=join([one[1] for one in best]),
        tables=tuple(one[2] for one in best),
        first_bytes=first_bytes([one[2] for one in best], machine),
        mappings=tuple(one[3] for one in best),
        energy_j=energy,
        first_weight_bytes=tuple(first for first, _, _ in tiles),
        footprint_bytes=tuple(used for _, used, _ in tiles),
        level_bytes=tuple(inside for _, _, inside in tiles),
        need_bytes=min((f[1][0] for f in found), default=0.0),
        need_level=next((f[1][1] for f in found if f[0] is None), None),
        proven_gap=0.0 if all(f[3] for f in found) else float("nan"),
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
    most: int | None
    """Chains up to which all are costed."""
    looks: tuple[int, ...] | None
    effort: Effort
    near: LoopNest | None

    def design(self, d: int, room: np.ndarray) -> tuple[tuple | None, tuple[float, int], int, bool]:
        """(winner: (energy, cost, table, mapping) or None, least footprint and its level, candidates, whether they
        are all)."""
        machine, problem = self.machine, self.problem
        chains = self._listed(d, room, None, self.most)
        every = chains is not None
        if chains is None and self.looks:
            chains = self._listed(d, room, self.looks, None)
        if chains is not None:
            best, count = self._best(chains, d, room), len(chains)
        else:
            best, count = self._nearby(d, room, self.near) if self.near else (None, 0)
            if best is None:
                best, count = self._beam(d, room, self.effort)
        if best is None:
            return None, self._least(room), count, every
        rows = rows_of(_nest([best[2]], problem, machine, self.homes), problem, machine, d, 1)
        return (best[1], evaluate_rows(rows), step_table(rows), self.mapping(best[2])), (np.inf, 0), count, every

    def _listed(self, d: int, room: np.ndarray, looks: tuple[int, ...] | None, most: int | None) -> list[Chain] | None:
        """All chains that are looked at; None where they are more than `most`."""
        if most == 0:
            return None
        numbers = Numbers(
            *(a[[d]] for a in (self.machine.rates, self.machine.setup_cycles, self.machine.latency_cycles))
        )
        enough = None if most is None else most + 1
        found = list(islice(self.chains(self.problem, self.homes, numbers, room, looks, {}, enough), enough))
        return None if enough is not None and len(found) == enough else found

    def _best(self, chains: list[Chain], d: int, room: np.ndarray) -> Found | None:
        """The best chain that fits."""
        groups: dict[tuple, list[Chain]] = {}
        for chain in chains:
            groups.setdefault(tuple(c.shape for _, c in chain), []).append(chain)
        best = None
        for members in groups.values():
            for start in range(0, len(members), AT_ONCE):
                some = members[start : start + AT_ONCE]
                value, energy = self._exact(some, d, room)
                i = int(np.argmin(value))
                if np.isfinite(value[i]) and (best is None or value[i] < best[0]):
                    best = (float(value[i]), float(energy[i]), some[i])
        return best

    def _beam(self, d: int, room: np.ndarray, effort: Effort) -> tuple[Found | None, int]:
        """(best chain, chains costed) that the chains of two beam searches lead to by exact costs.

        A beam that looks for the fastest may end in a valley that others avoid. So one beside it looks for what moves
        little, hidden or not, and in the array's dataflow. What they find does not depend on the question. The best
        in the dataflow is offered where any order may win, and to an energy the fastest and what moves the least
        joules, so that more freedom is never worse, nor an objective by its own measure.
        """
        fluid = self._fluid(d, room)
        aside, count = best_chains(fluid, effort.aside, ASIDE)
        held, free = (
            Chains.join([chains for aim, chains in zip(ASIDE, aside, strict=True) if aim.fixed is fixed])
            for fixed in (True, False)
        )
        if not self.fixed:
            (main,), more = best_chains(fluid, effort, (Aim(Objective.LATENCY),))
            free, count = Chains.join([main, free]), count + more
        descent = Descent().times(effort.width / Effort().width)
        found: list[Chains] = []
        found_held: list[Chains] = []
        best: Found | None = None
        for search in self._in_turn():
            best, pool, more = search._descend(d, room, held, found_held, descent.times(1 / 4), fixed=True)
            found_held.append(pool)
            count += more
            if not self.fixed:
                best, pool, more = search._descend(d, room, free, found + found_held, descent)
                found.append(pool)
                count += more
        return best, count

    def _nearby(self, d: int, room: np.ndarray, near: LoopNest) -> tuple[Found | None, int]:
        """(best chain, chains costed) that a mapping leads to, which is among them as it is if it fits."""
        fluid, aim = self._fluid(d, room, fixed=self.fixed, reduced=True), Aim(Objective.LATENCY, fixed=self.fixed)
        fluid, some = seeds(fluid, near)
        some = canonical(fluid, some, fixed=self.fixed)
        some = some.take(np.flatnonzero(np.isfinite(fluid.by((aim,), some)[0])))
        (beam,), count = best_chains(fluid, NEAR, (aim,), some)
        best: Found | None = None
        found = [some.take(np.arange(min(len(some), NEAR.width))), beam]
        for search in self._in_turn():
            best, pool, more = search._led(fluid, search._costs(d, room), Chains.join(found), DESCENT)
            found.append(pool)
            count += more
        return best, count

    def _in_turn(self) -> list[_Search]:
        """By which measures chains descend, the objective's own last."""
        fastest = replace(self, objective=Objective.LATENCY)
        if self.objective is Objective.LATENCY:
            return [fastest]
        unhurried = replace(self.machine, idle_j_per_cycle=np.zeros_like(self.machine.idle_j_per_cycle))
        return [fastest, replace(self, objective=Objective.ENERGY, machine=unhurried), self]

    def _descend(
        self, d: int, room: np.ndarray, beam: Chains, known: list[Chains], descent: Descent, fixed: bool = False
    ) -> tuple[Found | None, Chains, int]:
        """(the best that the chains of a beam and known ones lead to, all that are kept, chains costed); the ways in
        which arrays share a reduction come last."""
        narrow, wide = (self._fluid(d, room, fixed=fixed, reduced=reduced) for reduced in (False, True))
        exact = self._costs(d, room)
        if wide.options != narrow.options:
            beam = exact.best(narrow, beam, descent).chains
        return self._led(wide, exact, Chains.join([wide.adopted(beam, narrow), *known]), descent)

    def _led(self, fluid: Fluid, exact: Exact, chains: Chains, descent: Descent) -> tuple[Found | None, Chains, int]:
        """(the best that chains lead to, all that are kept, chains costed)."""
        pool = exact.best(fluid, chains, descent)
        best: Found | None = None
        if len(pool):
            best = (float(pool.value[0]), float(pool.energy[0]), self._chain(fluid, exact.spaces, pool.chains, 0))
        return best, pool.chains, exact.count

    def _costs(self, d: int, room: np.ndarray) -> Exact:
        spaces = [space for space, _ in self._whole()]
        return Exact(self.problem, self.machine, self.homes, self.objective, spaces, d, room)

    def _fluid(self, d: int, room: np.ndarray, *, fixed: bool = False, reduced: bool = False) -> Fluid:
        """`reduced`: whether arrays share reductions. In a beam those ways would take the room of others."""
        return Fluid(
            self.problem, self.machine, self.homes,
            design=d, room=room, objective=self.objective, fixed=fixed, reduced=reduced,
        )  # fmt: skip

    def _least(self, room: np.ndarray) -> tuple[float, int]:
        """(bytes, level): what the smallest tiles need in the memory that they overflow most."""
        whole = self._whole()
        ranks = self.problem.tiled_ranks
        chain = ((whole[0][0], Choice(ranks, (1,) * len(ranks))), *whole[1:])
        held = footprint_bytes(_nest([chain], self.problem, self.machine, self.homes), self.problem, self.machine)
        need = {level: float(sum(float(b[0]) for b in operands.values())) for level, operands in held.items()}
        level = max(need, key=lambda at: need[at] / max(float(room[at]), 1e-9))
        return need[level], level

    def _whole(self) -> Chain:
        """The spaces of all borders with nothing cut."""
        chain: list[tuple[SingleBorder, Choice]] = []
        problem, homes = self.problem, self.homes
        while True:
            space = SingleBorder(problem, self.machine, homes, self.fixed, rated=True)
            chain.append((space, Choice((), ())))
            if space.last:
                return tuple(chain)
            problem, homes = space.inside(chain[-1][1])

    def _chain(self, fluid: Fluid, spaces: Sequence[SingleBorder], chains: Chains, i: int) -> Chain:
        """One of `chains` as choices; the spaces stand for their memories alone."""
        made, size = [], fluid.extent
        for b, space in enumerate(spaces):
            tile, part = chains.tiles[b, :, i], int(chains.parts[b, i])
            order = [r for r in np.argsort(chains.place[b, :, i]).tolist() if tile[r] < size[r]]
            names = tuple(fluid.ranks[r] for r in order)
            made.append((space, Choice(names, tuple(int(tile[r]) for r in order), fluid.options[b][part])))
            size = np.ceil(tile / fluid.shares[b][:, part])
        return tuple(made)

    def mapping(self, chain: Chain) -> LoopNest:
        """The choices as a loop nest, each on the problem of the tile job outside."""
        nodes: list[Loop | Store] = []
        problem, homes = self.problem, self.homes
        for _, choice in chain:
            space = SingleBorder(problem, self.machine, homes, self.fixed, rated=True)
            nodes += space.mapping(choice).nodes
            problem, homes = space.inside(choice)
        return LoopNest(nodes=tuple(nodes))

    def _exact(self, chains: list[Chain], d: int, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(value, inf where a memory overflows; energy) of chains of one shape."""
        nest = _nest(chains, self.problem, self.machine, self.homes)
        fits = np.ones(len(chains), dtype=bool)
        for level, operands in footprint_bytes(nest, self.problem, self.machine).items():
            fits &= sum(operands.values(), np.zeros(len(chains))) <= room[level]
        cost = evaluate_rows(rows_of(nest, self.problem, self.machine, d, len(chains)))
        energy = dynamic_energy(self.machine, self.problem, cost.traffic, np.full(len(chains), d))
        value = valued(self.objective, cost.time, energy, float(self.machine.idle_j_per_cycle[d]))
        return np.where(fits, value, np.inf), energy

    def chains(
        self,
        problem: Problem,
        homes: dict[OperandRole, int],
        numbers: Numbers,
        room: np.ndarray,
        looks: tuple[int, ...] | None,
        known: dict[tuple, list[Chain]],
        enough: int | None,
    ) -> Iterator[Chain]:
        """Choices for all borders, the inner ones on the problem of a whole tile, no more than `enough` of each."""
        space = SingleBorder(problem, self.machine, homes, self.fixed, rated=True)
        for choice in self.lister(space, numbers, float(room[space.route.level]), looks[0] if looks else None):
            if space.last:
                yield ((space, choice),)
                continue
            inner, inner_homes = space.inside(choice)
            key = (space.route.level, *inner.einsum.ranks.items())
            if key not in known:
                chains = self.chains(inner, inner_homes, numbers, room, looks and (looks[1:] or (1,)), known, enough)
                known[key] = list(islice(chains, enough))
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
