"""What a design cannot be better than, for thousands of chips at once and without a mapping.

The network's roofline over compute and the home memory, and the energy that follows from it. Vector
work, on-chip memories and all waiting are left out, so that the bounds are loose but never above
`estimate`: they only ever exclude.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from sim.codesign.checks import physical_metrics
from sim.cost.ceilings import bandwidths, compute_type, macs_per_s
from sim.cost.compulsory import footprint
from sim.hardware.chip import Chip
from sim.hardware.designs import Designs
from sim.hardware.physical import idle_power_w, memory_energy_j_per_byte
from sim.workload.graph import EinsumOp, Graph, OperandRole, Role
from sim.workload.precision import Precision


class ChipBounds:
    """What the bounds need of some chips, gathered once for all models; (n,) arrays in order of the designs."""

    def __init__(self, designs: Designs, moved: dict[tuple, tuple[float, float]] | None = None) -> None:
        """`moved`: what other chips of the same kind found out of models, and are told of."""
        self.designs = designs
        chip = designs.chip
        outer = {chip.main_unit.home, chip.main_unit.vector.name, *(link.name for link in chip.links)}
        self._inside = [p for p in designs.choices if p.partition(".")[0] not in outer and not _storage(chip, p)]
        self._rates: dict[tuple[str, str | None], np.ndarray] = {}
        self._moved = {} if moved is None else moved

    @cached_property
    def metrics(self) -> dict[str, np.ndarray]:
        """area [mm2], peak_power [W], die_cost [USD] (`physical_metrics`)."""
        return physical_metrics(self.designs)

    def macs_per_s(self, compute: str) -> np.ndarray:
        """Peak rate of a compute type. Raises: PrecisionError: the array has none."""
        return self._rate(compute, None, lambda chip: macs_per_s(chip.main_unit, compute, chip=chip.name))

    def gain(self, pattern: str | None, density: float) -> np.ndarray:
        """By how much fewer MACs an operand's pattern or zeros leave to do."""

        def of(chip: Chip) -> float:
            array = chip.main_unit.array
            if pattern is not None and pattern in array.weight_sparsity:
                return array.weight_sparsity[pattern]
            return 1.0 / density if array.skips_zeros else 1.0

        return self._rate(f"{density!r}", pattern or "", of)

    def _rate(self, name: str, pattern: str | None, value: Callable[[Chip], float]) -> np.ndarray:
        if (name, pattern) not in self._rates:
            self._rates[name, pattern] = _gather(self.designs, value, self._inside)
        return self._rates[name, pattern]

    def moved_bytes(self, graph: Graph, precision: Precision) -> tuple[float, float]:
        """Compulsory (read, written) bytes of the home memory."""
        chip = self.designs.chip
        key = graph.hash, precision.name, chip.main_unit.home
        if key not in self._moved:
            self._moved[key] = footprint(graph, chip, chip.main_unit, precision, {}).compulsory_bytes()
        return self._moved[key]

    @cached_property
    def ports(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """(read, write [byte/s], one port for both) of the home memory."""
        chip, choices = self.designs.chip, self.designs.choices
        home = chip.main_unit.home
        moving = [p for p in choices if p == "clock" or p.endswith(".clock") or _bandwidth_of(p, home)]
        read, write = (
            _gather(self.designs, lambda one, way=way: bandwidths(one, one.main_unit)[home][way], moving)  # type: ignore[misc]
            for way in (0, 1)
        )
        return read, write, bandwidths(chip, chip.main_unit)[home][2]

    @cached_property
    def joules_per_byte(self) -> tuple[np.ndarray, np.ndarray]:
        home = self.designs.chip.main_unit.home
        read, write = (
            np.asarray(memory_energy_j_per_byte(self.designs, home, way), dtype=float) for way in ("read", "write")
        )
        return read, write

    @cached_property
    def idle_w(self) -> np.ndarray:
        return np.nan_to_num(np.asarray(idle_power_w(self.designs), dtype=float), nan=0.0)


def lower_bounds(
    graph: Graph, designs: Designs, precision: Precision, chips: ChipBounds | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(latency_s, energy_j), each (n,), that no mapping on these chips goes below.

    Energy is compulsory traffic of the home memory and idle power over the latency bound; NaN where
    the chip's energies are unknown. `chips` are the designs' own, for use with further models.
    """
    chips = chips or ChipBounds(designs)
    read, write = chips.moved_bytes(graph, precision)
    computing = np.zeros(len(designs))
    for (kind, pattern, density), macs in _work(graph, precision).items():
        computing = computing + macs / chips.gain(pattern, density) / chips.macs_per_s(kind)
    out, back, shared = chips.ports
    times = read / out, write / back
    latency = np.maximum(computing, sum(times) if shared else np.maximum(*times))
    per_read, per_write = chips.joules_per_byte
    return latency, read * per_read + write * per_write + chips.idle_w * latency


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
