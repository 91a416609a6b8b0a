"""What a design cannot be better than, for thousands of chips at once and without a mapping.

The network's roofline over compute and the home memory, and the energy that follows from it. Vector
work, on-chip memories and all waiting are left out, so that the bounds are loose but never above
`estimate`: they only ever exclude.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.cost.ceilings import bandwidths, compute_type, macs_per_s, memory_s
from sim.cost.compulsory import footprint
from sim.hardware.chip import Chip
from sim.hardware.designs import Designs
from sim.hardware.physical import idle_power_w, memory_energy_j_per_byte
from sim.workload.graph import EinsumOp, Graph, OperandRole, Role
from sim.workload.precision import Precision


def lower_bounds(graph: Graph, designs: Designs, precision: Precision) -> tuple[np.ndarray, np.ndarray]:
    """(latency_s, energy_j), each (n,), that no mapping on these chips goes below.

    Energy is compulsory traffic of the home memory and idle power over the latency bound; NaN where
    the chip's energies are unknown.
    """
    chip = designs.chip
    unit, home = chip.main_unit, chip.main_unit.home
    work = _work(graph, precision)
    read, write = footprint(graph, chip, unit, precision, {}).compulsory_bytes()

    def compute_s(one: Chip) -> float:
        array = one.main_unit.array
        total = 0.0
        for (kind, pattern, density), macs in work.items():
            if pattern is not None and pattern in array.weight_sparsity:
                macs = macs / array.weight_sparsity[pattern]
            elif array.skips_zeros:
                macs = macs * density
            total += macs / macs_per_s(one.main_unit, kind, chip=one.name)
        return total

    def moving_s(one: Chip) -> float:
        return memory_s(bandwidths(one, one.main_unit)[home], read_bytes=read, write_bytes=write)

    outer = {home, *(link.name for link in chip.links)}
    inside = [p for p in designs.choices if p.partition(".")[0] not in outer and not _storage(chip, p)]
    moving = [p for p in designs.choices if p == "clock" or p.endswith(".clock") or _bandwidth_of(p, home)]
    latency = np.maximum(_gather(designs, compute_s, inside), _gather(designs, moving_s, moving))
    per_read, per_write = (
        np.asarray(memory_energy_j_per_byte(designs, home, way), dtype=float) for way in ("read", "write")
    )
    idle = np.asarray(idle_power_w(designs), dtype=float)
    moved = read * per_read + write * per_write
    return latency, np.broadcast_to(moved + np.where(np.isnan(idle), 0.0, idle) * latency, (len(designs),))


def _work(graph: Graph, precision: Precision) -> dict[tuple[str, str | None, float], float]:
    """(compute type, pattern, density) -> MACs."""
    found: dict[tuple[str, str | None, float], float] = {}
    for op in graph.ops:
        if isinstance(op, EinsumOp):
            factors = [graph.tensors[o.tensor] for o in op.einsum.operands if o.role is not OperandRole.OUTPUT]
            weights = [t for t in factors if t.role is Role.WEIGHT]
            pattern = next((t.pattern for t in weights if t.pattern is not None), None)
            density = float(np.prod([t.density for t in factors]))
            key = (compute_type(precision, learned=bool(weights)), pattern, density)
            found[key] = found.get(key, 0.0) + op.einsum.macs
    return found


def _storage(chip: Chip, path: str) -> bool:
    """Paths of on-chip memories and of the technology say nothing of the rate of MACs."""
    name = path.partition(".")[0]
    return name == "technology" or any(name == m.name for m in chip.main_unit.memories)


def _bandwidth_of(path: str, memory: str) -> bool:
    return path.partition(".")[0] == memory and "bandwidth" in path


def _gather(designs: Designs, value: Callable[[Chip], float], paths: list[str]) -> np.ndarray:
    return np.asarray(designs.gather(value, paths), dtype=float)
