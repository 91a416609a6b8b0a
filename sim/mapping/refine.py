"""Chains by their exact cost: the best of a beam, and what their neighbours lead to.

The quick cost of `fluid` finds the valleys, but errs by some percent, and a beam keeps what it errs on. So all of a
beam is costed exactly, at once, and the best of it descend: each round makes the neighbours of the best that had none
yet, costs the most promising ones exactly and keeps the best of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.mapping.beam import best_rows, canonical, distinct, hashed, neighbours, traded
from sim.mapping.evaluate import Rows, evaluate_rows
from sim.mapping.fluid import Chains, Fluid
from sim.mapping.machine import Machine
from sim.mapping.nest import Border, Nest, footprint_bytes, spread
from sim.mapping.problem import Problem
from sim.mapping.search import Choice, SingleBorder, innermost
from sim.mapping.winners import Objective, dynamic_energy, valued
from sim.workload.graph import OperandRole

GAIN = 1e-4
"""Share by which a round must better the best."""
TRADES = 400
"""Tried in a round beside the neighbours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """How far chains descend."""

    kept: int = 24
    """Chains after a round,"""
    spread: int = 8
    """of which so many show their neighbours in it."""
    costed: int = 96
    """Neighbours costed exactly in a round."""
    rounds: int = 20
    patience: int = 2
    """Rounds without gain after which it ends."""

    def times(self, share: float) -> Descent:
        """Another width."""
        kept, wide, costed = (max(1, round(n * share)) for n in (self.kept, self.spread, self.costed))
        return replace(self, kept=kept, spread=wide, costed=costed)


@dataclass(frozen=True, slots=True)
class Pool:
    """Chains of a fluid with their exact values and energies, best first."""

    chains: Chains
    value: np.ndarray
    energy: np.ndarray
    quick: np.ndarray
    """Value / quick value."""

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: np.ndarray) -> Pool:
        return Pool(self.chains.take(rows), self.value[rows], self.energy[rows], self.quick[rows])

    def join(self, other: Pool) -> Pool:
        parts = (np.concatenate([getattr(self, n), getattr(other, n)]) for n in ("value", "energy", "quick"))
        return Pool(Chains.join([self.chains, other.chains]), *parts)


@dataclass(slots=True)
class Exact:
    """Exact costs of chains on one design of a machine."""

    problem: Problem
    machine: Machine
    homes: Mapping[OperandRole, int]
    objective: Objective
    spaces: Sequence[SingleBorder]
    """Of the borders, with nothing cut."""
    design: int
    room: np.ndarray
    count: int = 0
    """Chains costed, quickly or exactly."""

    def best(self, fluid: Fluid, chains: Chains, descent: Descent) -> Pool:
        """The best that chains lead to, best first."""
        if not len(chains):
            return Pool(chains, *np.zeros((3, 0)))
        chains = distinct(canonical(fluid, chains, fixed=fluid.fixed))
        pool, tried = self._pool(fluid, chains, fluid.values(chains)), np.sort(hashed(chains))
        pool = pool.take(best_rows(pool.value, descent.kept))
        fresh = np.ones(len(pool), dtype=bool)
        still, draw = 0, np.random.default_rng(0)
        for _ in range(descent.rounds):
            rows = np.flatnonzero(fresh)[: descent.spread]
            if not len(rows) or still >= descent.patience:
                break
            fresh[rows] = False
            found = self._near(fluid, pool.take(rows), tried, descent.costed, draw)
            tried = np.union1d(tried, hashed(found.chains))
            least = pool.value[0]
            pool, fresh = pool.join(found), np.concatenate([fresh, np.ones(len(found), dtype=bool)])
            rows = best_rows(pool.value, descent.kept)
            pool, fresh = pool.take(rows), fresh[rows]
            still = 0 if pool.value[0] < least * (1 - GAIN) else still + 1
        return pool

    def _near(self, fluid: Fluid, pool: Pool, tried: np.ndarray, most: int, draw: np.random.Generator) -> Pool:
        """The most promising neighbours that were not tried: those quickest if the quick cost errs on them as on the
        chain that they come from."""
        near, parent = neighbours(fluid, pool.chains)
        some = draw.integers(len(pool), size=TRADES)
        near, parent = Chains.join([near, traded(fluid, pool.chains.take(some), draw)]), np.concatenate([parent, some])
        near = canonical(fluid, near, fixed=fluid.fixed)
        code, first = np.unique(hashed(near), return_index=True)
        rows = np.sort(first[~np.isin(code, tried)])
        near, parent = near.take(rows), parent[rows]
        quick = fluid.values(near)
        self.count += len(near)
        guess = quick * pool.quick[parent]
        rows = np.argsort(guess, kind="stable")[:most]
        rows = rows[np.isfinite(guess[rows])]
        return self._pool(fluid, near.take(rows), quick[rows])

    def _pool(self, fluid: Fluid, chains: Chains, quick: np.ndarray) -> Pool:
        value, energy = np.full(len(chains), np.inf), np.full(len(chains), np.nan)
        _, which = np.unique(chains.parts, axis=1, return_inverse=True)
        for way in range(int(which.max(initial=-1)) + 1):
            rows = np.flatnonzero(which.ravel() == way)
            value[rows], energy[rows] = self._costs(fluid, chains.take(rows))
        self.count += len(chains)
        return Pool(chains, value, energy, value / quick)

    def _costs(self, fluid: Fluid, chains: Chains) -> tuple[np.ndarray, np.ndarray]:
        """(value, inf where a memory overflows; energy) of chains that use the fan-outs in one way."""
        count, design = len(chains), np.full(len(chains), self.design)
        nest = self._nest(fluid, chains)
        fits = np.ones(count, dtype=bool)
        for level, operands in footprint_bytes(nest, self.problem, self.machine).items():
            fits &= sum(operands.values(), np.zeros(count)) <= self.room[level]
        cost = evaluate_rows(rows_of(nest, self.problem, self.machine, self.design, count))
        energy = dynamic_energy(self.machine, self.problem, cost.traffic, design)
        value = valued(self.objective, cost.time, energy, float(self.machine.idle_j_per_cycle[self.design]))
        return np.where(fits, value, np.inf), energy

    def _nest(self, fluid: Fluid, chains: Chains) -> Nest:
        """One nest, in which each chain has an order of its own."""
        borders: list[Border] = []
        tables: list[dict[str, np.ndarray]] = []
        names, count = tuple(fluid.ranks), len(chains)
        extent = {r: np.full(count, int(n)) for r, n in self.problem.einsum.ranks.items()}
        for b, space in enumerate(self.spaces):
            way = Choice(names, (1,) * len(names), fluid.options[b][int(chains.parts[b, 0])])
            made, cuts = space.borders(way, chains.tiles[b].T.astype(np.int64), extent)
            borders += [replace(made[0], order=chains.place[b].T.astype(np.int64)), *made[1:]]
            tables += cuts
            for cut in cuts:
                extent |= {key.removesuffix(spread("")): values for key, values in cut.items()}
        return Nest(tuple(borders), tuple(tables), innermost(self.machine, self.homes))


def rows_of(nest: Nest, problem: Problem, machine: Machine, design: int, count: int) -> Rows:
    """Rows of one design."""
    return Rows(
        nest=nest,
        problem=problem,
        machine=machine,
        rates=np.repeat(machine.rates[[design]], count, axis=0),
        setup=np.repeat(machine.setup_cycles[[design]], count),
        latency=np.repeat(machine.latency_cycles[[design]], count),
    )
