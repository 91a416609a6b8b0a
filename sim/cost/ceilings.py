"""What a unit can do at best: the data sheet's rates of its array, vector lanes and memories.

Rates are aggregated over all instances (fan-outs multiply) and know nothing of efficiency,
latency or waiting: they are the ceilings of the roofline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from sim.errors import ConfigError, PrecisionError
from sim.hardware.chip import Chip, Fanout, Memory, Unit, VectorUnit
from sim.workload.graph import Primitive

_WIDE = {"8": "int8", "16": "bf16", "32": "fp32"}
"""Activation width of a mixed type -> the type that it runs as on an array without mixed rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """A horizontal (compute, vector) or slanted (memory) line of the roofline.

    `rate` is FLOP/s for "compute", primitives/s for "vector" and byte/s for "memory"; `name` is the
    precision, the vector unit or the memory.
    """

    kind: str
    name: str
    rate: float


def instances(unit: Unit) -> dict[str, int]:
    """Level name -> number of instances in the unit: the product of the fan-outs around it."""
    count, table = 1, {}
    for level in unit.hierarchy:
        if isinstance(level, Fanout):
            count *= level.count
        else:
            table[level.name] = count
    return table


def macs_per_s(unit: Unit, compute: str, *, chip: str) -> float:
    """Peak MAC/s of the unit's arrays for a compute type: rows x cols x rate x instances x clock.

    A mixed type such as w4a16 that the array lacks runs at its activations' type, weights widened
    first. Raises: PrecisionError: neither is there.
    """
    array = unit.array
    wide = _WIDE.get(compute.rpartition("a")[2], compute)
    for name in (compute, wide):
        if name in array.macs_per_cycle:
            cells = array.rows * array.cols * instances(unit)[array.name]
            return cells * array.macs_per_cycle[name] * unit.clock_hz
    raise PrecisionError(
        f"{chip}: {array.name} has no rate for {compute}; it has {', '.join(array.macs_per_cycle)}; "
        f"choose --precision {next(iter(array.macs_per_cycle))}"
    )


def primitive_s(vector: VectorUnit, primitive: Primitive, *, clock_hz: float, chip: str) -> float:
    """Seconds of one primitive on all lanes of the unit, through `fallback` where it has no rate.

    Raises: ConfigError: neither a rate nor a fallback.
    """
    rate = vector.rates.get(primitive.value)
    if rate:
        return 1.0 / (vector.lanes * rate * clock_hz)
    parts: Mapping[str, float] | None = vector.fallback.get(primitive.value)
    if not parts:
        raise ConfigError(
            f"{chip}: vector unit {vector.name} has no rate for {primitive.value}, and no fallback says how it is "
            f"made; it has {', '.join(vector.rates)}"
        )
    return sum(
        count * primitive_s(vector, Primitive(part), clock_hz=clock_hz, chip=chip) for part, count in parts.items()
    )


def bandwidths(chip: Chip, unit: Unit) -> dict[str, tuple[float, float, bool]]:
    """Memory -> (read, write [byte/s], one port for both), all instances together."""
    count = instances(unit)
    found: dict[str, tuple[float, float, bool]] = {}
    levels = (chip.memory(unit.home), *(level for level in unit.hierarchy if isinstance(level, Memory)))
    for memory in levels:
        n = count.get(memory.name, 1)
        read, write = (n * rate.at(unit.clock_hz) * unit.clock_hz for rate in (memory.read, memory.write))
        found[memory.name] = (read, write, memory.shared_port)
    return found


def memory_s(bandwidth: tuple[float, float, bool], *, read_bytes: float, write_bytes: float) -> float:
    """Seconds that the traffic keeps a memory's port busy; two ports work at the same time."""
    read, write, shared = bandwidth
    times = (read_bytes / read, write_bytes / write)
    return sum(times) if shared else max(times)


def ceilings(chip: Chip, unit: Unit) -> tuple[Ceiling, ...]:
    """Every finite ceiling: compute per type, vector additions, and each memory's read rate."""
    lines = [
        Ceiling(kind="compute", name=t, rate=2 * macs_per_s(unit, t, chip=chip.name)) for t in unit.array.macs_per_cycle
    ]
    if rate := unit.vector.rates.get(Primitive.ADD.value):
        lines.append(Ceiling(kind="vector", name=unit.vector.name, rate=unit.vector.lanes * rate * unit.clock_hz))
    for name, (read, _, _) in bandwidths(chip, unit).items():
        if read < inf:
            lines.append(Ceiling(kind="memory", name=name, rate=read))
    return tuple(lines)
