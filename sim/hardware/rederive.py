"""What follows from an override for the numbers that hold at the file's own design only.

Stated area and power become fit factors of the model; stated energies scale with capacity, node and
supply; a stated supply moves along the V-f curve with the clock and with the nominal one of the node,
unless an override states it. Without a node nothing can be
scaled: stated area and power are dropped, and so is the energy of a memory that changed its size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from sim.hardware import technology as tech
from sim.hardware import technology_data as data
from sim.hardware.chip import Array, Chip, Level, Memory, Unit, VectorUnit
from sim.hardware.designs import Designs
from sim.hardware.physical import model_area_mm2, model_idle_w, model_power_w
from sim.hardware.supply import fastest_clock_hz, supply_share

_SILICON = {"area": ("mm2", model_area_mm2), "power": ("w", model_power_w), "idle_power": ("w", model_idle_w)}
"""What a file may state of the whole chip -> (suffix of the field, what models it)."""


def rederive(old: Chip, new: Chip, path: str) -> Chip:
    """`new` (= `old` with `path` set) with what the file stated brought to the new design."""
    new = _fitted(old, new, [field for field in _SILICON if _stated(old, field) is not None])
    voltage = _moved_voltage(old, new, path)
    new = replace(new, technology=replace(new.technology, voltage_v=voltage))
    return _Energies(old, new, path).scaled()


def inherited(base: Chip, chip: Chip, *, stated: Collection[str]) -> Chip:
    """`chip`, whose file extends that of `base` and itself says `stated` of its technology, with what `base` states of
    its own silicon brought to that of the chip; as it stands where the model tells no difference, or has no node."""
    fields = [field for field in _SILICON if not {field, f"{field}_fit"} & set(stated)]
    fields = [f for f in fields if _stated(base, f) is None or abs(_modelled(chip, f) - _modelled(base, f)) > 0]
    return _fitted(base, chip, fields)


def _stated(chip: Chip, field: str) -> float | None:
    return getattr(chip.technology, f"{field}_{_SILICON[field][0]}")


def _modelled(chip: Chip, field: str) -> float:
    """NaN without a node."""
    if field not in chip.memo:
        chip.memo[field] = float(_SILICON[field][1](Designs(chip))[0])
    return chip.memo[field]


def _fitted(old: Chip, new: Chip, fields: Iterable[str]) -> Chip:
    """`new`, to which the model, times its fit to what `old` states or its own fit, gives these fields."""
    provenance = dict(new.provenance)
    changes: dict[str, Any] = {}
    for field in fields:
        value, fit = _stated(old, field), f"{field}_fit"
        if value is None:
            changes[fit] = getattr(old.technology, fit)
            sources = [old.provenance[f"technology.{fit}"]] if changes[fit] is not None else []
        else:
            changes[fit] = None if old.technology.node_nm is None else value / _modelled(old, field)
            why = f"derived: stated over modelled {field}; {old.provenance[f'technology.{field}']}"
            sources = [why] if changes[fit] is not None else []
        changes[f"{field}_{_SILICON[field][0]}"] = None
        provenance.pop(f"technology.{field}", None)
        provenance |= {f"technology.{fit}": source for source in sources}
    return replace(new, technology=replace(new.technology, **changes), provenance=dict(sorted(provenance.items())))


def _moved_voltage(old: Chip, new: Chip, path: str) -> float | None:
    """The supply that the file states, moved along the V-f curve when the fastest clock changed, with the node's
    nominal one when the node did. One that an override states stays, whatever is overridden after it."""
    stated, limit = new.technology.voltage_v, new.technology.max_clock_hz
    if stated is None or "technology.voltage" in new.overrides:
        return stated
    if path.rpartition(".")[2] == "clock" and limit is not None:
        clocks = [float(fastest_clock_hz(Designs(chip))[0]) for chip in (old, new)]
        before, after = tech.voltage_share(clock_hz=clocks, max_clock_hz=limit)
    elif path == "technology.node" and None not in (nodes := (old.technology.node_nm, new.technology.node_nm)):
        before, after = tech.nominal_voltage_v(node_nm=list(nodes))  # type: ignore[arg-type]
    else:
        return stated
    return float(stated * after / before) if before != after else stated


def _supply(chip: Chip) -> float:
    if "supply" not in chip.memo:
        chip.memo["supply"] = float(supply_share(Designs(chip))[0])
    return chip.memo["supply"]


class _Energies:
    """Scales the stated energies of one override."""

    def __init__(self, old: Chip, new: Chip, path: str) -> None:
        self.old, self.new, self.path = old, new, path
        self.nodes = (old.technology.node_nm, new.technology.node_nm)
        self.square = 1.0
        if None not in self.nodes:
            before, after = _supply(old), _supply(new)
            self.square = (after / before) ** 2

    def scaled(self) -> Chip:
        if None in self.nodes and not self.path.endswith(".capacity"):
            return self.new
        memories = tuple(self._memory(memory) for memory in self.new.memories)
        return replace(self.new, memories=memories, units=tuple(self._unit(unit) for unit in self.new.units))

    def _unit(self, unit: Unit) -> Unit:
        hierarchy = tuple(self._level(level) for level in unit.hierarchy)
        return replace(unit, hierarchy=hierarchy, vector=self._vector(unit.vector))

    def _level(self, level: Level) -> Level:
        if isinstance(level, Memory):
            return self._memory(level)
        return self._array(level) if isinstance(level, Array) else level

    def _memory(self, memory: Memory) -> Memory:
        stated = (memory.read_energy_j_per_byte, memory.write_energy_j_per_byte)
        if stated == (None, None) or memory.kind in data.DRAM_PJ_PER_BIT:
            return memory
        before = self.old.component(memory.name)
        assert isinstance(before, Memory)
        factor = self._access(before.capacity_bytes, memory.capacity_bytes)
        read, write = (
            energy if energy is None or self.path == f"{memory.name}.{which}_energy" else None if factor is None
            else energy * factor
            for energy, which in zip(stated, ("read", "write"), strict=True)
        )  # fmt: skip
        return replace(memory, read_energy_j_per_byte=read, write_energy_j_per_byte=write)

    def _access(self, before: float, after: float) -> float | None:
        """Energy of an access after over before; None where the model cannot say."""
        if before == after and self.nodes[0] == self.nodes[1]:
            return self.square
        if None in self.nodes or float("inf") in (before, after):
            return None
        old, new = tech.sram_energy_j_per_byte(capacity_bytes=[before, after], node_nm=list(self.nodes))  # type: ignore[arg-type]
        return float(new / old * self.square)

    def _array(self, array: Array) -> Array:
        if not array.mac_energy_j or None in self.nodes:
            return array
        energies = {
            dtype: energy if self.path == f"{array.name}.mac_energy.{dtype}" or self.path == f"{array.name}.mac_energy"
            else energy * self._ratio(tech.mac_energy_j(dtype=dtype, node_nm=list(self.nodes)))  # type: ignore[arg-type]
            for dtype, energy in array.mac_energy_j.items()
        }  # fmt: skip
        return replace(array, mac_energy_j=energies)

    def _vector(self, vector: VectorUnit) -> VectorUnit:
        if not vector.energy_j or None in self.nodes:
            return vector
        energies = {
            name: energy if self.path in (f"{vector.name}.energy.{name}", f"{vector.name}.energy")
            else energy * self._ratio(tech.primitive_energy_j(primitive=name, node_nm=list(self.nodes)))  # type: ignore[arg-type]
            for name, energy in vector.energy_j.items()
        }  # fmt: skip
        return replace(vector, energy_j=energies)

    def _ratio(self, energies: Any) -> float:
        return float(energies[1] / energies[0] * self.square)
