"""Loads of weights that stay on chip for several ops: groups of their own, which run ahead like any weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sim.results import Term
from sim.schedule.asking import machine_of
from sim.schedule.groups import GroupCost
from sim.workload.graph import MovementOp

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

LOAD = "load"
"""Kind of the op of a load; its name is that of the first user with `SUFFIX`."""
SUFFIX = ".weights"


def with_loads(groups: list[GroupCost], coster: _Coster) -> list[GroupCost]:
    """The groups with a load before the first user of each weight that stays, on the designs that keep it."""
    if not coster.residency.loads:
        return groups
    position = {op.name: at for at, op in enumerate(coster.graph.ops)}
    found = []
    for group in groups:
        for name in (group.name, *group.fused):
            wanted = coster.residency.loads.get(position.get(name, -1), {})
            # Designs may keep different ones of them: each set is a load of its own.
            for keeping, sizes in _sets(wanted, coster):
                runs = keeping if group.runs is None else keeping & group.runs
                if runs.any():
                    found.append(_load(name, sizes, runs, position[name], coster))
        found.append(group)
    return found


def _sets(wanted: Mapping[str, float], coster: _Coster) -> list[tuple[np.ndarray, dict[str, float]]]:
    """(designs, the weights that they keep) for each different choice."""
    if not wanted:
        return []
    table = np.stack([coster.residency.stays[storage] for storage in wanted])
    sets = []
    for choice in sorted(set(map(tuple, table.T.tolist()))):
        if any(choice):
            designs = (np.array(choice) == table.T).all(axis=1)
            sets.append((designs, {s: b for (s, b), kept in zip(wanted.items(), choice, strict=True) if kept}))
    return sets


def _load(user: str, sizes: Mapping[str, float], runs: np.ndarray, position: int, coster: _Coster) -> GroupCost:
    """One transfer from home into the resident memory."""
    full, n, size = (
        machine_of(coster, next(iter(coster.unit.array.macs_per_cycle))),
        len(coster.chips),
        sum(sizes.values()),
    )
    level, clock, zero = full.level(coster.residency.memory or ""), full.clock_hz, np.zeros(n)
    home, near = full.levels[0], full.levels[level]
    moving = np.maximum(size / full.rates[:, home.read_port], size / full.rates[:, near.write_port])
    time = moving + full.setup_cycles + full.latency_cycles
    energy = {
        home.name: size * full.read_energy_j_per_byte[:, 0],
        near.name: size * full.write_energy_j_per_byte[:, level],
    }
    lead = next(op for op in coster.graph.ops if op.name == user)
    op = MovementOp(
        name=user + SUFFIX, kind=LOAD, inputs=(), outputs=(), read_bytes={}, write_bytes={}, module=lead.module,
        source=lead.source,
    )  # fmt: skip
    return GroupCost(
        op=op,
        name=op.name,
        launch_s=zero,
        time_s=time / clock,
        terms_s={Term.EXPOSED_MEMORY: (time - full.setup_cycles) / clock, Term.DMA_SETUP: full.setup_cycles / clock},
        traffic_bytes={home.name: {"weight": (zero + size, zero)}, near.name: {"weight": (zero, zero + size)}},
        home_busy_s=time / clock,
        prefetch_s=time / clock,
        first_weight_bytes=zero + size,
        first_weight_s=moving / clock,
        footprint_bytes=zero,
        held_bytes=coster.residency.held_bytes[:, position] - size,
        capacity_bytes=full.capacity_bytes[:, level],
        energy_j=sum(energy.values(), start=zero),
        energy_parts_j=energy,
        cycles=time,
        machine=full,
        bound=(f"memory:{home.name}",) * n,
        resources_s={f"memory:{home.name}": moving / clock},
        runs=None if runs.all() else runs,
    )


__all__ = ["LOAD", "SUFFIX", "with_loads"]
