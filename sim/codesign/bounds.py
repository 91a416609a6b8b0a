"""What a design cannot be better than, for thousands of chips at once and without a mapping.

The network's roofline over array, vector unit and home memory, and the energy of the work that no mapping saves. On-
chip memories and all waiting are left out, so that the bounds are loose but never above `estimate`: they only exclude.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sim.codesign.checks import physical_metrics
from sim.cost.ceilings import bandwidths, macs_per_s, primitive_s
from sim.cost.compulsory import footprint
from sim.cost.depthwise import is_depthwise
from sim.cost.flash import op_share
from sim.cost.roofline import cached_bytes, rate_type
from sim.cost.vector import primitives
from sim.errors import InfeasibleError, WorkloadError
from sim.hardware.chip import Chip, Costing, Unit
from sim.hardware.designs import Designs
from sim.hardware.physical import idle_power_w, mac_energy_j, memory_energy_j_per_byte, vector_energy_j
from sim.schedule.prepare import Manner, prepare
from sim.workload.graph import EinsumOp, Graph, OperandRole, Primitive, Role, ViewOp
from sim.workload.precision import Precision


@dataclass(frozen=True)
class Demand:
    """What a graph at a precision asks of any chip of one kind, or of each chip of a system."""

    read_bytes: float
    write_bytes: float
    macs: Mapping[tuple[str, str | None, float], float]
    """(compute type, pattern, density) -> MACs"""
    primitives: Mapping[Primitive, float]


class ChipBounds:
    """What the bounds need of some chips, gathered once for all models; (n,) arrays in order of the designs."""

    def __init__(self, designs: Designs, demands: dict[tuple, Demand] | None = None) -> None:
        """`demands`: what other chips of the same kind found out of models, and are told of."""
        self.designs = designs
        chip = self.chip
        outer = {chip.main_unit.home, chip.main_unit.vector.name, *(link.name for link in chip.links)}
        self._inside = [p for p in designs.choices if p.partition(".")[0] not in outer and not _storage(chip, p)]
        self._rates: dict[tuple[str, Any], np.ndarray] = {}
        self._demands = {} if demands is None else demands

    @cached_property
    def chip(self) -> Chip:
        """One of the designs, which state what the chip that they vary may not: a further type of an array."""
        return self.designs.changed(tuple((path, int(index[0])) for path, index in self.designs.indices.items()))

    @cached_property
    def parts(self) -> list[tuple[np.ndarray, ChipBounds]]:
        """(rows, their bounds) of the designs that ask the same of a graph."""
        paths = [*self._inside, *(p for p in self.designs.choices if p.endswith(".residency"))]
        numbers: dict[tuple, int] = {}
        found = self.designs.gather(lambda chip: numbers.setdefault(_kind(chip), len(numbers)), paths)
        if len(numbers) == 1:
            return [(np.arange(len(self.designs)), self)]
        rows = [np.flatnonzero(found == number) for number in numbers.values()]
        return [(some, ChipBounds(self.designs.take(some), self._demands)) for some in rows]

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
        return self._kept((name, pattern), lambda: _gather(self.designs, value, self._inside))

    def primitive_s(self, primitive: Primitive) -> np.ndarray:
        """Seconds of one primitive on all lanes."""
        vector = self.chip.main_unit.vector.name
        moving = [p for p in self.designs.choices if p.endswith("clock") or p.partition(".")[0] == vector]

        def of(chip: Chip) -> float:
            unit = chip.main_unit
            return primitive_s(unit.vector, primitive, clock_hz=unit.clock_hz, chip=chip.name)

        return self._kept(("s", primitive), lambda: _gather(self.designs, of, moving))

    def mac_energy_j(self, compute: str) -> np.ndarray:
        array = self.chip.main_unit.array.name
        return self._kept(("mac", compute), lambda: mac_energy_j(self.designs, array, compute))

    def primitive_energy_j(self, primitive: Primitive) -> np.ndarray:
        vector = self.chip.main_unit.vector.name
        return self._kept(("j", primitive), lambda: vector_energy_j(self.designs, vector, primitive.value))

    def _kept(self, key: tuple[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in self._rates:
            self._rates[key] = np.asarray(make(), dtype=float)
        return self._rates[key]

    def demand(self, graph: Graph, precision: Precision) -> Demand:
        """Raises: InfeasibleError: the graph does not split over the chips of the system."""
        chip = self.chip
        key = graph.hash, precision.name, _kind(chip)
        if key not in self._demands:
            # (Work that is folded into weights before a network runs is not done, nor are they read.)
            try:
                runs = prepare(graph, precision, chip.system, manner=Manner.of(chip.main_unit))
            except WorkloadError as error:
                if chip.system is None:
                    raise
                raise InfeasibleError(f"networks that do not split over the chips: {error}") from error
            read, write = footprint(runs, chip, chip.main_unit, precision, {}).compulsory_bytes()
            macs, ones = _work(runs, chip.main_unit, precision)
            self._demands[key] = Demand(read, write, macs, ones)
        return self._demands[key]

    @cached_property
    def ports(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """(read, write [byte/s], one port for both) of the home memory."""
        chip, choices = self.chip, self.designs.choices
        home = chip.main_unit.home
        moving = [p for p in choices if p == "clock" or p.endswith(".clock") or _bandwidth_of(p, home)]
        read, write = (
            _gather(self.designs, lambda one, way=way: bandwidths(one, one.main_unit)[home][way], moving)  # type: ignore[misc]
            for way in (0, 1)
        )
        return read, write, bandwidths(chip, chip.main_unit)[home][2]

    @cached_property
    def cached_bytes(self) -> np.ndarray | float:
        """What a CPU's caches may hold from the inference before (see `sim.cost.roofline.cached_bytes`)."""
        if self.chip.main_unit.costing is not Costing.CPU:
            return 0.0
        return _gather(self.designs, lambda one: cached_bytes(one.main_unit), list(self.designs.choices))

    @cached_property
    def joules_per_byte(self) -> tuple[np.ndarray, np.ndarray]:
        home = self.chip.main_unit.home
        read, write = (
            np.asarray(memory_energy_j_per_byte(self.designs, home, way), dtype=float) for way in ("read", "write")
        )
        return read, write

    @cached_property
    def idle_w(self) -> np.ndarray:
        """Of all chips of a design."""
        return np.nan_to_num(self.designs.system_chips * np.asarray(idle_power_w(self.designs), dtype=float), nan=0.0)


def lower_bounds(
    graph: Graph, designs: Designs, precision: Precision, chips: ChipBounds | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(latency_s, energy_j), each (n,), that no mapping on these chips goes below.

    Energy is that of all MACs and vector primitives, of the compulsory traffic of the home memory, and idle power over
    the latency bound; NaN where the chip's energies are unknown. `chips` are the designs' own, for use with further
    models.
    """
    chips = chips or ChipBounds(designs)
    latency, energy = np.empty(len(designs)), np.empty(len(designs))
    for rows, part in chips.parts:
        latency[rows], energy[rows] = _bounds(part.demand(graph, precision), part)
    return latency, energy


def _bounds(demand: Demand, chips: ChipBounds) -> tuple[np.ndarray, np.ndarray]:
    """(latency_s, energy_j) of designs that ask the same; some chips of a system do the same at a time."""
    designs, mapped = chips.designs, chips.chip.main_unit.costing is Costing.MAPPED  # others have energies of their own
    split = chips.chip.system.tensor_parallel if chips.chip.system else 1
    computing, energy = np.zeros(len(designs)), np.zeros(len(designs))
    for (kind, pattern, density), macs in demand.macs.items():
        done = macs / chips.gain(pattern, density)
        computing = computing + done / chips.macs_per_s(kind)
        energy = energy + (done * chips.mac_energy_j(kind) if mapped else 0.0)
    vector = np.zeros(len(designs))
    for primitive, count in demand.primitives.items():
        vector = vector + count * chips.primitive_s(primitive)
        energy = energy + (count * chips.primitive_energy_j(primitive) if mapped else 0.0)
    out, back, shared = chips.ports
    read, write = demand.read_bytes, demand.write_bytes
    kept = np.minimum(read, chips.cached_bytes)
    times = (read - kept) / out, np.maximum(0.0, write - (chips.cached_bytes - kept)) / back
    moving = sum(times) if shared else np.maximum(*times)
    latency = np.maximum(np.maximum(computing, vector), moving)
    per_read, per_write = chips.joules_per_byte
    traffic = read * per_read + write * per_write
    return latency, split * (energy + traffic) + chips.idle_w * latency


def _kind(chip: Chip) -> tuple:
    """What decides what a graph asks of a chip."""
    unit = chip.main_unit
    array = tuple(sorted(unit.array.macs_per_cycle)), bool(unit.array.depthwise_macs_per_cycle)
    return chip.system, unit.home, unit.costing, Manner.of(unit), array


def _work(
    graph: Graph, unit: Unit, precision: Precision
) -> tuple[dict[tuple[str, str | None, float], float], dict[Primitive, float]]:
    """((compute type, pattern, density) -> MACs, primitive -> how many): what the unit does at least."""
    macs: dict[tuple[str, str | None, float], float] = {}
    ones: dict[Primitive, float] = {}
    for op in graph.ops:
        if isinstance(op, ViewOp):
            continue
        share = op_share(op, graph, unit)
        beside = unit.array.depthwise_macs_per_cycle  # (an array of other sides leaves other layers to it)
        if isinstance(op, EinsumOp) and not (beside and is_depthwise(op, graph)):
            factors = [graph.tensors[o.tensor] for o in op.einsum.operands if o.role is not OperandRole.OUTPUT]
            weights = [t for t in factors if t.role is Role.WEIGHT]
            pattern = next((t.pattern for t in weights if t.pattern is not None), None)
            density = float(np.prod([t.density for t in factors]))
            key = (rate_type(op, graph, unit, precision), pattern, density)
            macs[key] = macs.get(key, 0.0) + share * op.einsum.macs
        for primitive, count in primitives(op).items():
            ones[primitive] = ones.get(primitive, 0.0) + share * count
    return macs, ones


def _storage(chip: Chip, path: str) -> bool:
    """Paths of on-chip memories and of the technology say nothing of the rate of MACs."""
    name = path.partition(".")[0]
    return name == "technology" or any(name == m.name for m in chip.main_unit.memories)


def _bandwidth_of(path: str, memory: str) -> bool:
    return path.partition(".")[0] == memory and "bandwidth" in path


def _gather(designs: Designs, value: Callable[[Chip], float], paths: list[str]) -> np.ndarray:
    return np.asarray(designs.gather(value, paths), dtype=float)
