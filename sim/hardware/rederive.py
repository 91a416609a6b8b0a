"""What follows from an override, or in a file that extends another, for numbers that hold at one design only.

Stated area and power become fit factors of the model; stated energies scale with capacity, node and
supply; a stated supply moves along the V-f curve with the clock and with the nominal one of the node,
unless an override states it. Without a node nothing can be
scaled: stated area and power are dropped, and so is the energy of a memory that changed its size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from sim.hardware import technology as tech
from sim.hardware import technology_data as data
from sim.hardware.chip import Array, Chip, Level, Memory, Unit, VectorUnit
from sim.hardware.designs import Designs
from sim.hardware.physical import fit_of, model_area_mm2, model_idle_w, model_power_w
from sim.hardware.supply import fastest_clock_hz, supply_share

_SILICON = {"area": ("mm2", model_area_mm2), "power": ("w", model_power_w), "idle_power": ("w", model_idle_w)}
"""What a file may state of the whole chip -> (suffix of the field, what models it)."""


def rederive(old: Chip, new: Chip, path: str) -> Chip:
    """`new` (= `old` with `path` set) with what the file stated brought to the new design."""
    new = _fitted(old, new, [field for field in _SILICON if _stated(old, field) is not None])
    return _supplied(old, new, {path})


def inherited(base: Chip, chip: Chip, *, stated: Collection[str]) -> Chip:
    """`chip`, whose file extends that of `base` and itself says what lies at the paths of `stated`, with what `base`
    states of its own silicon brought to that of the chip; area and power as they stand where the model tells no
    difference, or has no node."""
    chip = _supplied(base, chip, stated)
    for field in _SILICON:  # area first: what leaks, and so what idles, goes by it
        own = {f"technology.{field}", f"technology.{field}_fit"} & set(stated)
        if not own and (_stated(base, field) is None or abs(_modelled(chip, field) - _modelled(base, field)) > 0):
            chip = _fitted(base, chip, [field])
    return chip


def _supplied(old: Chip, new: Chip, stated: Collection[str]) -> Chip:
    """`new` at the supply that `old` states, and with its energies, brought to the new design."""
    if "technology.voltage" not in stated:
        new = replace(new, technology=replace(new.technology, voltage_v=_moved_voltage(old, new)))
    return _Energies(old, new, {*stated, *new.overrides}).scaled()


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
            changes[fit] = None if old.technology.node_nm is None else fit_of(value, _modelled(old, field))
            why = f"derived: stated over modelled {field}; {old.provenance[f'technology.{field}']}"
            sources = [why] if changes[fit] is not None else []
        changes[f"{field}_{_SILICON[field][0]}"] = None
        provenance.pop(f"technology.{field}", None)
        provenance |= {f"technology.{fit}": source for source in sources}
    return replace(new, technology=replace(new.technology, **changes), provenance=dict(sorted(provenance.items())))


def _moved_voltage(old: Chip, new: Chip) -> float | None:
    """The supply that `old` states, moved along the V-f curve as the fastest clock moves, and with the node's nominal
    one. One that an override states stays, whatever is overridden after it."""
    stated, limit = old.technology.voltage_v, new.technology.max_clock_hz
    if stated is None or "technology.voltage" in new.overrides:
        return new.technology.voltage_v
    clocks = [float(fastest_clock_hz(Designs(chip))[0]) for chip in (old, new)]
    if limit is not None and clocks[0] != clocks[1]:
        before, after = tech.voltage_share(clock_hz=clocks, max_clock_hz=limit)
        stated = float(stated * after / before)
    nodes = (old.technology.node_nm, new.technology.node_nm)
    if None not in nodes and nodes[0] != nodes[1]:
        before, after = tech.nominal_voltage_v(node_nm=list(nodes))  # type: ignore[arg-type]
        stated = float(stated * after / before)
    return stated


def _supply(chip: Chip) -> float:
    if "supply" not in chip.memo:
        chip.memo["supply"] = float(supply_share(Designs(chip))[0])
    return chip.memo["supply"]


class _Energies:
    """Brings the energies that `old` states to `new`, which itself states those at the paths of `stated`: an override
    among them holds for the chip as it is in the end, whatever is set after it."""

    def __init__(self, old: Chip, new: Chip, stated: Collection[str]) -> None:
        self.new, self.stated, self.before = new, stated, dict(old.components())
        self.nodes = (old.technology.node_nm, new.technology.node_nm)
        self.square = 1.0
        if None not in self.nodes:
            before, after = _supply(old), _supply(new)
            self.square = (after / before) ** 2

    def scaled(self) -> Chip:
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
        before = self.before.get(memory.name)
        if not isinstance(before, Memory) or memory.kind in data.DRAM_PJ_PER_BIT:
            return memory
        factor = self._access(before.capacity_bytes, memory.capacity_bytes)
        read, write = (
            own if old is None or f"{memory.name}.{which}_energy" in self.stated else None if factor is None
            else old * factor
            for which, old, own in (
                ("read", before.read_energy_j_per_byte, memory.read_energy_j_per_byte),
                ("write", before.write_energy_j_per_byte, memory.write_energy_j_per_byte),
            )
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
        before = self.before.get(array.name)
        if not isinstance(before, Array) or None in self.nodes:
            return array
        energies = {
            dtype: old * self._ratio(tech.mac_energy_j(dtype=dtype, node_nm=list(self.nodes)))  # type: ignore[arg-type]
            for dtype, old in self._kept(f"{array.name}.mac_energy", before.mac_energy_j)
        }
        return replace(array, mac_energy_j={**array.mac_energy_j, **energies})

    def _vector(self, vector: VectorUnit) -> VectorUnit:
        before = self.before.get(vector.name)
        if not isinstance(before, VectorUnit) or None in self.nodes:
            return vector
        energies = {
            name: old * self._ratio(tech.primitive_energy_j(primitive=name, node_nm=list(self.nodes)))  # type: ignore[arg-type]
            for name, old in self._kept(f"{vector.name}.energy", before.energy_j)
        }
        return replace(vector, energy_j={**vector.energy_j, **energies})

    def _kept(self, path: str, energies: Mapping[str, float]) -> list[tuple[str, float]]:
        """Those that hold for the new chip too, scaled."""
        return [(key, old) for key, old in energies.items() if not {path, f"{path}.{key}"} & set(self.stated)]

    def _ratio(self, energies: Any) -> float:
        return float(energies[1] / energies[0] * self.square)
