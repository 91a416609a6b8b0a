"""A chip in words: what the loader understood, its peaks, and where its numbers come from."""

from __future__ import annotations

from collections import Counter
from math import isinf

from sim.hardware.chip import Array, Chip, Costing, Fanout, Link, Memory, Rate, System, Unit
from sim.hardware.dump import chip_hash
from sim.hardware.money import die_cost, die_cost_words
from sim.hardware.physical import chip_area_mm2, peak_power_w
from sim.hardware.schema import SOURCE_WORDS
from sim.units import Dimension, format_quantity
from sim.workload.graph import OperandRole


def peak_macs_per_s(unit: Unit, dtype: str) -> float:
    """Dense MACs per second of all copies of a unit in a compute dtype [1/s]; 1 MAC = 2 FLOP.

    Raises: KeyError: the array has no such rate.
    """
    cells = unit.array.rows * unit.array.cols * unit.count
    for level in unit.hierarchy:
        if isinstance(level, Fanout):
            cells *= level.count
    return cells * unit.array.macs_per_cycle[dtype] * unit.clock_hz


def describe(chip: Chip) -> list[str]:
    """Lines for people."""
    clock = format_quantity(chip.clock_hz, Dimension.FREQUENCY)
    lines = [
        f"{chip.name}: {chip.title}",
        f"  clock {clock}, {chip.default_precision} by default, hash {chip_hash(chip)}",
    ]
    lines += [f"  {_memory(memory)}" for memory in chip.memories]
    for unit in chip.units:
        lines.append(f"  {unit.name} x {unit.count} on {unit.home}, costed as {unit.costing.value}")
        lines += [f"    {_level(level)}" for level in unit.hierarchy]
        peaks = (f"{dtype} {2e-12 * peak_macs_per_s(unit, dtype):.4g}" for dtype in unit.array.macs_per_cycle)
        copies = f" of all {unit.count}" if unit.count > 1 else ""
        lines.append(f"    peak TOPS{copies} (1 MAC = 2 operations): {', '.join(peaks)}")
        lines.append(f"    {unit.vector.name}: {unit.vector.lanes} lanes")
        if unread := uncosted(chip, unit):
            lines.append(f"    stated, and in no cost of its ops: {', '.join(unread)}")
    lines += [f"  {_link(link, chip)}" for link in chip.links]
    lines += [f"  {_system(chip.system)}"] if chip.system is not None else []
    area, power = chip_area_mm2(chip), peak_power_w(chip)
    physical = [] if area is None or isinf(area) else [f"area {area:.4g} mm2"]
    physical += [] if power is None or isinf(power) else [f"power at full rate {power:.4g} W"]
    if physical:
        lines.append(f"  {', '.join(physical)}")
    lines.append(f"  {die_cost_words(die_cost(chip))}")
    words = Counter(_kind(source) for source in chip.provenance.values())
    lines.append("  numbers: " + ", ".join(f"{count} {word}" for word, count in words.most_common()))
    return lines + [f"  note: {note}" for note in chip.notes]


def uncosted(chip: Chip, unit: Unit) -> list[str]:
    """What a file states of the parts and transfers of a unit, and its costing does not read.

    A mapped unit waits for the latency of its home memory, of others where `outstanding` and `request` make it a rate.
    The other costings have times of their own for what a transfer waits for. What is held where is asked on chip only:
    everything lies at home, and the caches of GPUs and CPUs may hold anything. Nothing runs in a type without a rate.
    """
    mapped, found = unit.costing is Costing.MAPPED, []
    for memory in (chip.memory(unit.home), *unit.memories):
        bound = mapped and bool(memory.latency_s and memory.outstanding and memory.request_bytes)
        placed = memory.name != unit.home and (mapped or unit.costing is Costing.ROOFLINE)
        read = {
            "latency": bound or (mapped and memory.name == unit.home),
            "efficiency": mapped,
            "outstanding": bound,
            "request": bound,
            "burst": False,
            "double_buffered": placed and mapped,
            "residency": placed,
            "holds": placed,
        }
        stated = {
            "latency": memory.latency_s,
            "efficiency": memory.efficiency != 1,
            "outstanding": memory.outstanding,
            "request": memory.request_bytes,
            "burst": memory.burst_bytes,
            "double_buffered": not memory.double_buffered,
            "residency": not memory.residency,
            "holds": len(memory.holds) < len(OperandRole),
        }
        found += [f"{memory.name}.{key}" for key, used in read.items() if stated[key] and not used]
    array = unit.array
    found += [f"{array.name}.mac_energy.{dtype}" for dtype in array.mac_energy_j if dtype not in array.macs_per_cycle]
    fanouts = [level for level in unit.hierarchy if isinstance(level, Fanout)]
    found += [f"{fanout.name}.multicast" for fanout in fanouts if not fanout.multicast and not mapped]
    return found + ([f"{unit.name}.dma_setup"] if unit.dma_setup_s and not mapped else [])


def _kind(source: str) -> str:
    word = source.partition(":")[0].strip()
    return word if word in SOURCE_WORDS else "sourced"


def _rate(rate: Rate) -> str:
    if rate.per_s is not None:
        return format_quantity(rate.per_s, Dimension.RATE)
    return f"{rate.per_cycle:g} B/cycle"


def _memory(memory: Memory) -> str:
    moved = _rate(memory.read) if memory.shared_port else f"reads {_rate(memory.read)}, writes {_rate(memory.write)}"
    holds = "" if len(memory.holds) == 3 else f", holds {' and '.join(sorted(memory.holds))}"
    return f"{memory.name}: {memory.kind}, {format_quantity(memory.capacity_bytes, Dimension.SIZE)}, {moved}{holds}"


def _link(link: Link, chip: Chip) -> str:
    """A link and what crosses it: of one that nothing does, only area and power are told."""
    crosses = ["inputs come over it"] if link.name == chip.host_link else []
    crosses += ["between the chips"] if chip.system is not None and link.name == chip.system.link else []
    use = " and ".join(crosses) or "in area and power alone: no cost counts what crosses it"
    return f"{link.name}: {' - '.join(link.ends)}, {_rate(link.bandwidth)}, {use}"


def _system(system: System) -> str:
    stages = f", in {system.pipeline} stages" if system.pipeline > 1 else ""
    return f"{system.chips} of these chips, {system.topology} over {system.link}{stages}; peaks, area and power of one"


def _level(level: Memory | Fanout | Array) -> str:
    if isinstance(level, Memory):
        return _memory(level)
    if isinstance(level, Fanout):
        return f"{level.name} x {level.count}{', multicast' if level.multicast else ''}"
    return (
        f"{level.name}: {level.rows} x {level.cols}, {level.dataflow.value}, {level.accumulate_bits}-bit accumulators"
    )
