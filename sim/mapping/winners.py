"""What the mapper answers: the winners of every design, and what their mappings take and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np

from sim.mapping.evaluate import Cost, StepTable
from sim.mapping.machine import Machine
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import footprint_bytes, nest
from sim.mapping.problem import WEIGHT, Problem
from sim.mapping.steps import join
from sim.workload.graph import OperandRole


class Objective(StrEnum):
    LATENCY = "latency"
    ENERGY = "energy"
    EDP = "edp"


def valued(
    objective: Objective, time: np.ndarray, dynamic: np.ndarray, idle_j_per_cycle: np.ndarray | float
) -> np.ndarray:
    """What an objective makes least of: cycles; joules, those of idle power over the cycles included; or cycles x
    joules. (Without idle power the least energy is any schedule that moves least, however slow.)"""
    if objective is Objective.LATENCY:
        return time
    energy = dynamic + idle_j_per_cycle * time if np.any(idle_j_per_cycle) else dynamic  # (time may be endless)
    return energy if objective is Objective.ENERGY else energy * time


@dataclass(frozen=True, kw_only=True)
class Winners:
    """The best mapping of an einsum for each of D designs.

    `row[d]` is the row of `cost` and `table` for design d, -1 where nothing fits; `energy_j` is
    dynamic (memories and MACs), nan where the chip states no energies; `need_bytes` is the least
    footprint of any candidate, for the message where nothing fits (0 where something fits every design).
    """

    row: np.ndarray
    cost: Cost
    tables: Sequence[StepTable]
    first_bytes: np.ndarray
    """(rows, ports) bytes of the very first load."""
    mappings: Sequence[LoopNest]
    energy_j: np.ndarray
    first_weight_bytes: Sequence[float] | np.ndarray
    """Per row: the weight part of the very first load."""
    footprint_bytes: Sequence[float] | np.ndarray
    """Per row: bytes of the outermost memory on chip, second copies included."""
    level_bytes: Sequence[Mapping[int, float]]
    """Per row: level -> bytes of tiles, of every memory on chip, second copies included."""
    need_bytes: float
    need_level: int | None = None
    """The memory in which `need_bytes` are missing, where several might be it."""
    proven_gap: float
    """Largest share by which an optimum of the space may be better than the mapping found; 0 where
    proven optimal over the candidates, nan where nothing is proven."""
    latency_cycles: np.ndarray
    """(D,) latency of the home memory that the times hold (0 where nothing is read there)."""
    candidates: int
    """Of the space."""
    refined: int
    """That were costed exactly."""

    def on(self, designs: slice | np.ndarray) -> Winners:
        """The winners of some designs; rows are shared."""
        return replace(
            self, row=self.row[designs], energy_j=self.energy_j[designs], latency_cycles=self.latency_cycles[designs]
        )

    def split(self, ends: np.ndarray) -> list[Winners]:
        """The winners of groups of designs, one after the other; rows are shared."""
        if len(ends) == 1:
            return [self]
        return [self.on(slice(*edges)) for edges in pairwise([0, *ends.tolist()])]

    def values(self, objective: Objective, idle_j_per_cycle: np.ndarray) -> np.ndarray:
        """(D,) what the objective makes least of; inf where nothing fits."""
        out = np.full(len(self.row), np.inf)
        some = np.flatnonzero(self.row >= 0)
        time = self.cost.time[self.row[some]]
        out[some] = valued(objective, time, self.energy_j[some], idle_j_per_cycle[some])
        return out

    def beside(self, other: Winners, mine: np.ndarray) -> Winners:
        """The winners of designs of which these have those of `mine` (D,) and `other` has the rest, each in order."""

        def scattered(name: str) -> np.ndarray:
            out = np.empty(len(mine), dtype=getattr(self, name).dtype)
            out[mine], out[~mine] = getattr(self, name), getattr(other, name)
            return out

        row = np.empty(len(mine), dtype=np.int64)
        row[mine], row[~mine] = self.row, np.where(other.row < 0, -1, other.row + len(self.tables))
        names = ("tables", "mappings", "first_weight_bytes", "footprint_bytes", "level_bytes")
        lists: dict[str, Any] = {name: [*getattr(self, name), *getattr(other, name)] for name in names}
        return replace(
            other,
            row=row,
            cost=join([self.cost, other.cost]) if len(other.tables) else self.cost,
            first_bytes=np.concatenate([self.first_bytes, other.first_bytes]),
            energy_j=scattered("energy_j"),
            latency_cycles=scattered("latency_cycles"),
            proven_gap=np.nan,
            **lists,
        )

    @staticmethod
    def of_designs(each: Sequence[Winners], number: np.ndarray) -> Winners:
        """The winners of D designs; design d has those that `each[number[d]]` holds of one design."""
        if len(each) == len(number) == 1:
            return each[0]
        some = [one for one in each if len(one.tables)]
        row = np.where([len(one.tables) > 0 for one in each], np.cumsum([len(one.tables) for one in each]) - 1, -1)
        return Winners(
            row=row[number],
            cost=join([one.cost for one in some]),
            tables=[table for one in some for table in one.tables],
            first_bytes=np.concatenate([one.first_bytes for one in each]),
            mappings=[mapping for one in some for mapping in one.mappings],
            energy_j=np.concatenate([one.energy_j for one in each])[number],
            first_weight_bytes=[value for one in some for value in one.first_weight_bytes],
            footprint_bytes=[value for one in some for value in one.footprint_bytes],
            level_bytes=[levels for one in some for levels in one.level_bytes],
            need_bytes=max(one.need_bytes for one in each),
            proven_gap=max(one.proven_gap for one in each),
            latency_cycles=np.concatenate([one.latency_cycles for one in each])[number],
            candidates=each[0].candidates,
            refined=sum(one.refined for one in each),
        )


class Lazy(Sequence):
    """A sequence whose items are made when they are asked for, equal ones once."""

    def __init__(self, keys: Sequence, make: Callable) -> None:
        self.keys, self.make = list(keys), make
        self.made: dict = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index):
        key = self.keys[index]
        if key not in self.made:
            self.made[key] = self.make(key)
        return self.made[key]


def first_bytes(tables: Sequence[StepTable], machine: Machine) -> np.ndarray:
    """(rows, ports) bytes of the very first load of single jobs."""
    return np.concatenate([np.zeros((0, len(machine.ports))), *(table.first.bytes for table in tables)])


def tile_bytes(
    mapping: LoopNest, problem: Problem, machine: Machine, homes: Mapping[OperandRole, int]
) -> tuple[float, float, dict[int, float]]:
    """(weight bytes of the very first load, bytes in the outermost memory on chip, level -> bytes) of a mapping."""
    made = nest(mapping, problem, machine, dict(homes))
    footprints = footprint_bytes(made, problem, machine)
    used = {level: float(sum(float(b[0]) for b in operands.values())) for level, operands in sorted(footprints.items())}
    level = min(used, default=0)
    outermost = used.get(level, 0.0)
    weight = footprints.get(level, {}).get(WEIGHT)
    copies = 2 if machine.levels[level].double_buffered else 1
    return 0.0 if weight is None else float(weight[0]) / copies, outermost, used


def dynamic_energy(machine: Machine, problem: Problem, traffic: np.ndarray, designs: np.ndarray) -> np.ndarray:
    """Energy of memories and MACs in J: traffic (n, levels, operands, read/write) on designs (n,)."""
    return energy_of(machine, problem.macs, problem.reduction_speedup, traffic, designs)


def energy_of(
    machine: Machine, macs: float | np.ndarray, speedup: float | np.ndarray, traffic: np.ndarray, designs: np.ndarray
) -> np.ndarray:
    """As `dynamic_energy`, of jobs of `macs` MACs whose reductions are shorter by `speedup`."""
    moved = traffic.sum(axis=2)
    read, write = machine.read_energy_j_per_byte[designs], machine.write_energy_j_per_byte[designs]
    memories = (moved[..., 0] * read + moved[..., 1] * write).sum(axis=1)
    return memories + machine.mac_energy_j[designs] * macs / speedup
