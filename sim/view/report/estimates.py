"""The data step of the report: an estimate as the numbers and words that the page draws."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from sim.results import Estimate, OpEstimate
from sim.view import palette, rows
from sim.view.points import view_of
from sim.view.report.sources import Saved

DIGITS = 6
"""Significant digits of numbers in the page; the saved result keeps them all."""


class Pool:
    """Texts of the page, each stored once; rows refer to them by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        place = self._places.setdefault(text, len(self.texts))
        if place == len(self.texts):
            self.texts.append(text)
        return place


def short(value: float | None) -> float | None:
    """A number with `DIGITS` significant digits; None where there is none."""
    if value is None or not isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def estimate_view(saved: Saved, pool: Pool, apart: str = "") -> dict[str, Any]:
    """One estimate; `ops` is columns, texts as places in the pool. `apart`: what its name needs beside others."""
    estimate = saved.estimate
    return {
        "workload": estimate.workload_name,
        "chip": estimate.hardware_name,
        "apart": apart,
        "verdict": rows.verdict(estimate),
        "feasible": estimate.infeasible is None and isfinite(estimate.latency_s),
        "infeasible_tensors": _tensors(estimate),
        "precision": estimate.precision,
        "batch": estimate.batch,
        "latency_s": short(estimate.latency_s),
        "interval_s": [short(bound) for bound in estimate.latency_interval_s or ()],
        "roofline_s": short(estimate.roofline_latency_s),
        "below_roofline": bool(estimate.below_datasheet_roofline),
        "throughput_per_s": short(estimate.throughput_per_s),
        "mac_utilization": short(estimate.mac_utilization),
        "macs": estimate.macs,
        "energy_j": short(estimate.energy_j),
        "power_w": short(estimate.power_w),
        "area_mm2": short(estimate.area_mm2),
        "calibration": str((estimate.calibration or {}).get("device", "none: data sheet only")),
        "terms": [[rows.TERM_WORDS[t], short(s), palette.TERMS[t]] for t, s in estimate.breakdown_s.items() if s],
        "energy": [
            [rows.component_words(name), short(joules)]
            for name, joules in estimate.energy_breakdown_j.items()
            if joules
        ],
        "memories": [
            [name, short(t.read), short(t.write), short(estimate.peak_memory_bytes.get(name))]
            for name, t in estimate.traffic_bytes.items()
        ],
        "what_if": _what_if(estimate),
        "roofline": _roofline(estimate),
        "ops": _ops(estimate, pool),
        "provenance": _provenance(saved),
        "notes": [
            *map(rows.note_text, estimate.notes),
            *filter(None, [rows.die(estimate) if estimate.infeasible is None else ""]),
            *rows.die_cost_notes(estimate),
            *(f"Without a cost rule, costed as traffic: {op}" for op in estimate.unsupported),
        ],
    }


def _what_if(estimate: Estimate) -> dict[str, Any] | None:
    """Bars of larger resources and of other precisions, and the resources of which more changes nothing."""
    if not estimate.what_if:
        return None
    larger, precisions, unfelt = rows.changes(estimate)
    return {
        "larger": [[c.resource, [[f, short(s)] for f, s in sorted(c.latency_s.items())]] for c in larger],
        "precisions": [[c.resource, short(c.best_s)] for c in precisions],
        "unfelt": unfelt,
    }


def _tensors(estimate: Estimate) -> list[str]:
    tensors = (estimate.infeasible or {}).get("tensors") or ()
    return [str(tensor) for tensor in tensors] if isinstance(tensors, list | tuple) else []


def _roofline(estimate: Estimate) -> dict[str, Any] | None:
    """Where discs, roofs and limits stand; None for a result without its roofline."""
    if not estimate.roofline or estimate.infeasible is not None:
        return None
    view = view_of(estimate)
    return {
        "subtitle": view.caption,
        "points": [[short(p.x), short(p.y), short(p.share), p.kind, p.label, p.on_chip] for p in view.points],
        "roofs": [[r.memory_label, r.bandwidth_bytes_per_s, r.peak_flop_per_s, r.home] for r in view.roofs],
        "flats": [list(flat) for flat in view.flats],
        "x": list(view.x_limits),
        "y": list(view.y_limits),
    }


def _ops(estimate: Estimate, pool: Pool) -> dict[str, Any]:
    """Columns, one value an op, in the order of the network; `traffic` and `held` have one column a memory."""
    ops = estimate.ops
    memories = list(estimate.traffic_bytes)
    terms = [term for term, seconds in estimate.breakdown_s.items() if seconds]
    return {
        "name": [pool(op.name) for op in ops],
        "kind": [pool(rows.kind_of(op)) for op in ops],
        "module": [pool(op.module) for op in ops],
        "bound": [pool(rows.bound_text(op.bound)) for op in ops],
        "detail": [pool(_detail(op)) for op in ops],
        "latency_s": [short(op.latency_s) for op in ops],
        "roofline_s": [short(op.roofline_s) for op in ops],
        "mac_utilization": [short(op.mac_utilization) for op in ops],
        "energy_j": [short(op.energy_j) for op in ops],
        "macs": [op.macs for op in ops],
        "terms": [[short(op.breakdown_s[term]) for op in ops] for term in terms],
        "traffic": [[short(rows.traffic_bytes(op, memory)) for op in ops] for memory in memories],
        "held": [[short(op.held_bytes.get(memory)) for op in ops] for memory in memories],
    }


def _detail(op: OpEstimate) -> str:
    """Further lines on an op: kind, place in the source, stored types, tiles, what was fused."""
    lines = [op.kind, op.source and f"from {op.source}", op.precision and f"stored as {op.precision}"]
    if op.mapping is not None:
        lines.append(f"{op.mapping.get('dataflow', 'dataflow not given')}, tiles {rows.tile_text(op.mapping)}")
    if op.fused:
        lines.append("with " + ", ".join(op.fused))
    return "\n".join(line for line in lines if line)


def _provenance(saved: Saved) -> list[list[str]]:
    """[what, text] lines: everything that the numbers rest on."""
    estimate = saved.estimate
    calibration = estimate.calibration
    lines = {
        "file": saved.where,
        "written by": f"Dovetail {saved.version}",
        "workload": f"{estimate.workload_name} ({_pairs(estimate.knobs)}), graph {estimate.graph_hash}",
        "chip": f"{estimate.hardware_name}, {estimate.hardware_hash}",
        "changes of the chip": _pairs(estimate.overrides),
        "precision": estimate.precision,
        "objective": f"{estimate.objective}, best of the {estimate.map_space} mappings, {estimate.buffering} buffering",
        "calibration": _calibration(calibration) if calibration else "none: data sheet only",
        "interval": _interval(estimate),
        **{f"source {key}": text for key, text in _chip_sources(estimate).items()},
    }
    return [[what, text] for what, text in lines.items() if text]


def _calibration(found: Mapping[str, Any]) -> str:
    """Where and when it was fitted, and how far it was off on what it had not seen."""
    words = f"{found.get('device')}, {found.get('date')}"
    if found.get("transferred"):
        words += ", transferred from another device"
    errors = {key: e for key, e in (found.get("error") or {}).items() if isinstance(e, int | float)}
    if errors:
        words += "; held-out error " + ", ".join(f"{key} {rows.share_text(e)}" for key, e in errors.items())
    origins = found.get("origin") or {}
    return words + "".join(f"; {key} from {origin}" for key, origin in origins.items())


def _interval(estimate: Estimate) -> str:
    if estimate.latency_interval_s is None:
        return "none: nothing is known of the error on this chip"
    low, high = estimate.latency_interval_s
    return f"{rows.time_text(low)} to {rows.time_text(high)}"


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _chip_sources(estimate: Estimate) -> Mapping[str, str]:
    """The sources of the bundled chip of this name, if it is still the chip of the result."""
    from sim.errors import DovetailError
    from sim.hardware.dump import chip_hash
    from sim.hardware.load import list_hardware, load_hardware

    if estimate.hardware_name not in list_hardware():
        return {}
    try:
        chip = load_hardware(estimate.hardware_name, dict(estimate.overrides))
    except DovetailError:
        return {}
    return {key: str(text) for key, text in chip.sources.items()} if chip_hash(chip) == estimate.hardware_hash else {}
