"""A unit's memories, ports and array as plain numbers, for a set of equal-shaped designs.

`Machine` holds what the evaluator needs and nothing else. Designs that differ only in capacity,
bandwidth, latency or clock share one machine: their numbers are rows of arrays. What changes the
candidates (array sides, dataflow, fan-outs, which memory holds what) is `structure`, and
`group_by_structure` splits a list of chips accordingly. Time is counted in cycles of the unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.errors import PrecisionError
from sim.hardware.chip import Array, Chip, Fanout, Memory, Unit
from sim.hardware.designs import Designs
from sim.hardware.physical import idle_power_w, mac_energy_j, memory_energy_j_per_byte
from sim.workload.graph import OperandRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A memory as the mapper sees it. `fanout` counts the instances of everything from here inward
    relative to the level outside; `fanout_name` is None for 1."""

    name: str
    holds: frozenset[OperandRole]
    double_buffered: bool
    read_port: int
    write_port: int
    fanout: int = 1
    fanout_name: str | None = None
    multicast: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayShape:
    """The array with the rate of one compute type resolved."""

    rows: int
    cols: int
    dataflow: str
    skew: str
    folds: str
    preload: str
    macs_per_cell: float
    accumulate_bits: int
    drain_bytes_per_cycle: float | None
    fanout: int = 1
    """Arrays per innermost memory instance; the innermost loop nest runs on one of them."""
    fanout_name: str | None = None


_NUMBERS = ("rates", "capacity_bytes", "clock_hz", "latency_cycles", "setup_cycles", "read_energy_j_per_byte",
            "write_energy_j_per_byte", "mac_energy_j", "idle_j_per_cycle")  # fmt: skip
"""What a machine has of each design."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Levels from the home memory inward (level 0 is the home), one array, D designs.

    rates: bytes per cycle and port, shape (D, ports); capacity_bytes: (D, levels);
    clock_hz, latency_cycles, setup_cycles: (D,).
    """

    levels: tuple[Level, ...]
    ports: tuple[str, ...]
    array: ArrayShape
    rates: np.ndarray
    capacity_bytes: np.ndarray
    clock_hz: np.ndarray
    latency_cycles: np.ndarray
    setup_cycles: np.ndarray
    read_energy_j_per_byte: np.ndarray
    """(D, levels); nan where the chip states none"""
    write_energy_j_per_byte: np.ndarray
    mac_energy_j: np.ndarray
    idle_j_per_cycle: np.ndarray
    """(D,) idle power of the whole chip; 0 where it is not known"""

    def __len__(self) -> int:
        return len(self.clock_hz)

    def take(self, designs: np.ndarray) -> Machine:
        """The machine of some of the designs."""
        return replace(self, **{name: getattr(self, name)[designs] for name in _NUMBERS})

    @staticmethod
    def together(machines: Sequence[Machine]) -> Machine:
        """The designs of machines of one structure, one after the other."""
        first = machines[0]
        if len(machines) == 1:
            return first
        numbers = {name: np.concatenate([getattr(m, name) for m in machines]) for name in _NUMBERS}
        return replace(first, **numbers)  # type: ignore[arg-type]

    def awake(self, homes: Mapping[OperandRole, int]) -> Machine:
        """The machine as an einsum with these homes sees it: no latency if nothing is read at home."""
        if any(homes[role] == 0 for role in (OperandRole.INPUT, OperandRole.WEIGHT)):
            return self
        return replace(self, latency_cycles=np.zeros_like(self.latency_cycles))

    def level(self, name: str) -> int:
        return next(i for i, level in enumerate(self.levels) if level.name == name)


def array_rate(array: Array, compute: str, *, chip: str) -> float:
    """MACs per cell and cycle for a compute type.

    Raises: PrecisionError: the array lacks it; names what it has.
    """
    if compute in array.macs_per_cycle:
        return array.macs_per_cycle[compute]
    raise PrecisionError(
        f"{chip}: {array.name} has no rate for {compute}; it has {', '.join(array.macs_per_cycle)}; "
        f"choose --precision {next(iter(array.macs_per_cycle))}"
    )


def array_shape(array: Array, compute: str, *, chip: str) -> ArrayShape:
    """One array by itself, at the rate of a compute type. Raises: PrecisionError: it has none."""
    return ArrayShape(
        rows=array.rows,
        cols=array.cols,
        dataflow=array.dataflow,
        skew=array.skew,
        folds=array.folds,
        preload=array.preload,
        macs_per_cell=array_rate(array, compute, chip=chip),
        accumulate_bits=array.accumulate_bits,
        drain_bytes_per_cycle=array.drain_bytes_per_cycle,
    )


def structure(chip: Chip, unit: Unit) -> tuple:
    """What decides how a unit is costed and its candidate mappings; equal for chips that share a machine."""
    home = chip.memory(unit.home)
    levels: list[tuple] = [(home.name, home.shared_port)]
    for level in unit.hierarchy:
        if isinstance(level, Memory):
            levels.append((level.name, level.shared_port, level.holds, level.double_buffered, level.residency))
        elif isinstance(level, Fanout):
            levels.append((level.name, level.count, level.multicast))
        else:
            a = level
            levels.append((a.name, a.rows, a.cols, a.dataflow, a.skew, a.folds, a.preload, a.accumulate_bits))
            levels.append((a.drain_bytes_per_cycle, tuple(sorted(a.macs_per_cycle.items()))))
            levels.append(
                (tuple(sorted(a.weight_sparsity.items())), a.sparse_min_channels, a.sparse_pass_bytes, a.skips_zeros)
            )
            levels.append(tuple(sorted(a.depthwise_macs_per_cycle.items())))
    made = tuple((name, tuple(sorted(parts.items()))) for name, parts in sorted(unit.vector.fallback.items()))
    lanes = (unit.vector.lanes, tuple(sorted(unit.vector.rates.items())), made)
    return (unit.name, unit.count, unit.costing, unit.buffering, tuple(levels), lanes, chip.system)


def group_by_structure(chips: Sequence[Chip], unit_index: int = 0) -> list[list[int]]:
    """Positions of chips that can share a machine, in order of first appearance."""
    groups: dict[tuple, list[int]] = {}
    for position, chip in enumerate(chips):
        groups.setdefault(structure(chip, chip.units[unit_index]), []).append(position)
    return list(groups.values())


@dataclass(frozen=True, slots=True)
class Energies:
    """J/byte per level (D, levels), J/MAC (D,), nan where unknown; W of idle power (D,), 0 where unknown."""

    read: np.ndarray
    write: np.ndarray
    mac: np.ndarray
    idle_w: np.ndarray


def energies(subject: Chip | Designs, unit: Unit, compute: str) -> Energies:
    """Energy per action of a unit's memories and array, stated or from the node."""
    names = [unit.home, *(m.name for m in unit.memories)]

    def column(value: object) -> np.ndarray:
        return np.atleast_1d(np.asarray(np.nan if value is None else value, dtype=float))

    read, write = (
        np.stack([column(memory_energy_j_per_byte(subject, n, way)) for n in names], axis=1)
        for way in ("read", "write")
    )
    idle = np.nan_to_num(column(idle_power_w(subject)), nan=0.0)
    return Energies(read, write, column(mac_energy_j(subject, unit.array.name, compute)), idle)


def machine(chips: Sequence[Chip], compute: str, unit_index: int = 0, energy: Energies | None = None) -> Machine:
    """The shared machine of chips of one structure, for one compute type.

    Without `energy` the energies are unknown. Raises: PrecisionError: the array has no rate for `compute`.
    """
    first = chips[0]
    unit = first.units[unit_index]
    memories: list[list[Memory]] = [[c.memory(c.units[unit_index].home) for c in chips]]
    memories += [list(group) for group in zip(*(c.units[unit_index].memories for c in chips), strict=True)]
    levels, ports = _levels(unit, memories[0][0])
    clock = np.array([c.units[unit_index].clock_hz for c in chips])
    rates = np.empty((len(chips), len(ports)))
    for level, column in zip(levels, memories, strict=True):
        for d, memory in enumerate(column):
            rates[d, level.read_port], rates[d, level.write_port] = memory.reached(clock[d])
    units = [c.units[unit_index] for c in chips]
    return Machine(
        levels=levels,
        ports=ports,
        array=replace(array_shape(unit.array, compute, chip=first.name), **_array_fanout(unit)),
        rates=rates,
        capacity_bytes=np.array([[m.capacity_bytes for m in column] for column in memories]).T,
        clock_hz=clock,
        latency_cycles=np.array([m.latency_s for m in memories[0]]) * clock,
        setup_cycles=np.array([u.dma_setup_s for u in units]) * clock,
        read_energy_j_per_byte=energy.read if energy else np.full((len(chips), len(levels)), np.nan),
        write_energy_j_per_byte=energy.write if energy else np.full((len(chips), len(levels)), np.nan),
        mac_energy_j=energy.mac if energy else np.full(len(chips), np.nan),
        idle_j_per_cycle=energy.idle_w / clock if energy else np.zeros(len(chips)),
    )


def _levels(unit: Unit, home: Memory) -> tuple[tuple[Level, ...], tuple[str, ...]]:
    ports: list[str] = []
    levels: list[Level] = []
    pending: list[Fanout] = []
    for item in (home, *unit.hierarchy):
        if isinstance(item, Fanout):
            pending.append(item)
        elif isinstance(item, Memory):
            names = (item.name, item.name) if item.shared_port else (f"{item.name}.read", f"{item.name}.write")
            ports.extend(dict.fromkeys(names))
            levels.append(
                Level(
                    name=item.name,
                    holds=item.holds,
                    double_buffered=item.double_buffered,
                    read_port=ports.index(names[0]),
                    write_port=ports.index(names[1]),
                    **_fanout(pending),
                )
            )
            pending = []
    return tuple(levels), tuple(ports)


def _fanout(pending: list[Fanout]) -> dict:
    """Nested fan-outs without a memory between them act as one."""
    if not pending:
        return {}
    count = int(np.prod([f.count for f in pending]))
    return {
        "fanout": count,
        "fanout_name": pending[0].name,
        "multicast": all(f.multicast for f in pending),
    }


def _array_fanout(unit: Unit) -> dict:
    """Fan-outs between the innermost memory and the array."""
    pending: list[Fanout] = []
    for item in unit.hierarchy:
        pending = [] if isinstance(item, Memory) else [*pending, item] if isinstance(item, Fanout) else pending
    found = _fanout(pending)
    found.pop("multicast", None)
    return found
