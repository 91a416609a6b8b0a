"""A `Chip` back to the document and text that it loads from, and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml

from sim.hardware.chip import Array, Buffering, Chip, Costing, Fanout, Level, Memory, Rate, Unit, VectorUnit
from sim.hardware.schema import CHIP_SCHEMA
from sim.units import Dimension, format_exact
from sim.workload.graph import OperandRole

D = Dimension


def rate_text(rate: Rate) -> str:
    """ "68 GB/s" or "384 B/cycle", exact."""
    if rate.per_s is not None:
        return format_exact(rate.per_s, D.RATE)
    assert rate.per_cycle is not None
    return format_exact(rate.per_cycle, D.CYCLE_RATE)


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) and abs(value) < 2**53 else value


def _table(values: Mapping[str, float]) -> dict[str, float | int]:
    return {key: _plain(value) for key, value in values.items()}


def _energies(values: Mapping[str, float]) -> dict[str, str]:
    return {key: format_exact(value, D.ENERGY) for key, value in values.items()}


def _optional(value: float | None, dimension: Dimension) -> str | None:
    return None if value is None else format_exact(value, dimension)


def _memory(m: Memory) -> dict[str, Any]:
    bandwidth = {"bandwidth": rate_text(m.read)} if m.shared_port else {
        "read_bandwidth": rate_text(m.read), "write_bandwidth": rate_text(m.write),
    }  # fmt: skip
    return {
        "capacity": format_exact(m.capacity_bytes, D.SIZE), **bandwidth,
        "latency": format_exact(m.latency_s, D.TIME), "efficiency": m.efficiency,
        "burst": _optional(m.burst_bytes, D.SIZE), "outstanding": m.outstanding,
        "request": _optional(m.request_bytes, D.SIZE), "double_buffered": m.double_buffered,
        "residency": m.residency,
        "read_energy": _optional(m.read_energy_j_per_byte, D.ENERGY_PER_BYTE),
        "write_energy": _optional(m.write_energy_j_per_byte, D.ENERGY_PER_BYTE),
        "kind": m.kind, "holds": [role.value for role in OperandRole if role in m.holds],
    }  # fmt: skip


def _array(a: Array) -> dict[str, Any]:
    return {
        "rows": a.rows, "cols": a.cols, "dataflow": a.dataflow.value, "skew": a.skew.value, "folds": a.folds.value,
        "preload": a.preload.value, "macs_per_cycle": _table(a.macs_per_cycle),
        "accumulate": f"{a.accumulate_bits} bit",
        "weight_sparsity": _table(a.weight_sparsity), "sparse_min_channels": a.sparse_min_channels,
        "sparse_pass": _optional(a.sparse_pass_bytes, D.SIZE),
        "skips_zeros": a.skips_zeros, "depthwise_macs_per_cycle": _table(a.depthwise_macs_per_cycle),
        "drain_bandwidth": _optional(a.drain_bytes_per_cycle, D.CYCLE_RATE), "mac_energy": _energies(a.mac_energy_j),
    }  # fmt: skip


def _vector(v: VectorUnit) -> dict[str, Any]:
    fallback = {name: _table(parts) for name, parts in v.fallback.items()}
    return {"lanes": v.lanes, "rates": _table(v.rates), "fallback": fallback, "energy": _energies(v.energy_j)}


_ALWAYS = frozenset(
    {"kind", "holds", "dataflow", "skew", "folds", "preload", "accumulate", "multicast"}
    | {"topology", "link", "pipeline"}
)


class _Writer:
    """Writes what the provenance says was stated, and the names that need no source."""

    def __init__(self, chip: Chip) -> None:
        self.by_prefix: dict[str, dict[str, str]] = {}
        for path, source in chip.provenance.items():
            prefix, _, name = path.partition(".")
            if name:
                self.by_prefix.setdefault(prefix, {})[name] = source

    def part(self, prefix: str, values: Mapping[str, Any], only: frozenset[str] | None = None) -> dict[str, Any]:
        """`values` under `prefix`: the stated ones and those in _ALWAYS, with their sources."""
        table = self.by_prefix.get(prefix, {})
        sources = {key: text for key, text in table.items() if key.split(".")[0] in values}
        stated = {key.split(".")[0] for key in sources}
        result = {key: value for key, value in values.items() if key in stated or key in _ALWAYS}
        return {**result, "source": sources} if sources else result

    def level(self, level: Level) -> dict[str, Any]:
        if isinstance(level, Memory):
            return {"memory": self.named(level.name, _memory(level))}
        if isinstance(level, Fanout):
            return {"fanout": self.named(level.name, {"count": level.count, "multicast": level.multicast})}
        return {"array": self.named(level.name, _array(level))}

    def named(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": name, **self.part(name, values)}

    def unit(self, unit: Unit) -> dict[str, Any]:
        overheads = {
            "launch": format_exact(unit.launch_s, D.TIME),
            "dma_setup": format_exact(unit.dma_setup_s, D.TIME),
        }
        values = {"count": unit.count, "clock": format_exact(unit.clock_hz, D.FREQUENCY), "options": _options(unit)}
        written = self.part(unit.name, overheads)
        return {
            "name": unit.name, "home": unit.home,
            **({"costing": unit.costing.value} if unit.costing is not Costing.MAPPED else {}),
            **({"buffering": unit.buffering.value} if unit.buffering is not Buffering.ATOMIC else {}),
            **self.part(unit.name, values),
            "hierarchy": [self.level(level) for level in unit.hierarchy],
            "vector": self.named(unit.vector.name, _vector(unit.vector)),
            **({"overheads": written} if written else {}),
        }  # fmt: skip


def _options(unit: Unit) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in unit.options.items()}


def to_document(chip: Chip) -> dict[str, Any]:
    """The chip as the mapping that a chip file holds; nothing is extended any more."""
    write = _Writer(chip)
    t, s = chip.technology, chip.system
    document: dict[str, Any] = {
        "schema": CHIP_SCHEMA, "name": chip.name, "title": chip.title, "sources": dict(chip.sources),
        "notes": list(chip.notes), "clock": format_exact(chip.clock_hz, D.FREQUENCY),
        "source": {"clock": chip.provenance["clock"]}, "default_precision": chip.default_precision,
        "technology": write.part("technology", {
            "node": _optional(t.node_nm, D.NODE), "max_clock": _optional(t.max_clock_hz, D.FREQUENCY),
            "area": _optional(t.area_mm2, D.AREA), "power": _optional(t.power_w, D.POWER),
            "idle_power": _optional(t.idle_power_w, D.POWER), "voltage": _optional(t.voltage_v, D.VOLTAGE),
            "dies": t.dies, "area_fit": t.area_fit, "power_fit": t.power_fit, "idle_power_fit": t.idle_power_fit,
        }),
        "memories": [write.named(m.name, _memory(m)) for m in chip.memories],
        "units": [write.unit(unit) for unit in chip.units],
        "links": [{"name": k.name, "ends": list(k.ends), **write.part(k.name, {
            "bandwidth": rate_text(k.bandwidth), "latency": format_exact(k.latency_s, D.TIME),
            "energy": _optional(k.energy_j_per_byte, D.ENERGY_PER_BYTE),
        })} for k in chip.links],
        "dma_engines": [
            {"name": e.name, "units": list(e.units), **write.part(e.name, {"count": e.count})} for e in chip.dma_engines
        ],
        "algorithms": list(chip.algorithms), "host_link": chip.host_link, "calibration": chip.calibration,
        "overrides": dict(chip.overrides),
    }  # fmt: skip
    if s is not None:
        document["system"] = write.part("system", {
            "chips": s.chips, "topology": s.topology, "link": s.link, "ports": s.ports, "pipeline": s.pipeline,
        })  # fmt: skip
    return {key: value for key, value in document.items() if value not in (None, {}, [])}


def dump(chip: Chip) -> str:
    """YAML text of the chip; `sim.hardware.load.loads` gives the same chip back."""
    return yaml.dump(to_document(chip), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(float, lambda d, value: d.represent_scalar("tag:yaml.org,2002:float", repr(value)))


_WORDS = frozenset({"name", "title", "sources", "provenance", "notes", "overrides"})


def chip_hash(chip: Chip) -> str:
    """Hash of all that a result can depend on, 16 hex digits; the chip's name and words are left out.

    Two files that describe the same machine have the same hash, however they came to it.
    """
    facts = {f.name: getattr(chip, f.name) for f in fields(chip) if f.name not in _WORDS}
    return hashlib.sha256(json.dumps(_canonical(facts), sort_keys=True).encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    """Plain JSON of nested dataclasses, sets and maps; numbers by value, so that 1 is 1.0."""
    if is_dataclass(value):
        return {f.name: _canonical(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(_canonical(item) for item in value)
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    return float(value)
