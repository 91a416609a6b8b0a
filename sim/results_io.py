"""Estimates as JSON documents and tidy tables: `from_dict(to_dict(x)) == x`.

An infeasible network has no latency and no terms of it: infinite in Python, null in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from math import inf, isfinite
from pathlib import Path
from typing import Any

from sim._version import __version__
from sim.documents import Document, Reader, check_schema, count, plain, read_documents
from sim.errors import ResultError
from sim.results import ESTIMATE_SCHEMA, Estimate, OpEstimate, Saved, Stage, Steady, Term, Traffic, WhatIf

_DERIVED = ("throughput_per_s", "below_datasheet_roofline", "flops")
"""Written for the reader of the file, computed again when it is loaded."""


def to_dict(estimate: Estimate) -> Document:
    """The `dovetail.estimate/1` document of one network on one chip, in JSON's own types."""
    feasible = isfinite(estimate.latency_s)
    interval = estimate.latency_interval_s
    return plain(
        {
            "schema": ESTIMATE_SCHEMA,
            "version": __version__,
            "workload": estimate.workload,
            "batch": estimate.batch,
            "hardware": estimate.hardware,
            "precision": estimate.precision,
            "objective": estimate.objective,
            "map_space": estimate.map_space,
            "buffering": estimate.buffering,
            "calibration": estimate.calibration,
            "latency_s": estimate.latency_s,
            "latency_interval_s": interval,
            "throughput_per_s": estimate.throughput_per_s if feasible else None,
            "cycles": estimate.cycles,
            "roofline_latency_s": estimate.roofline_latency_s,
            "below_datasheet_roofline": bool(estimate.below_datasheet_roofline),
            "macs": estimate.macs,
            "effective_macs": count(float(estimate.effective_macs)),
            "vector_ops": estimate.vector_ops,
            "flops": estimate.flops,
            "mac_utilization": estimate.mac_utilization,
            "energy_j": estimate.energy_j,
            "energy_breakdown_j": estimate.energy_breakdown_j,
            "power_w": estimate.power_w,
            "area_mm2": estimate.area_mm2,
            "area_breakdown_mm2": estimate.area_breakdown_mm2,
            "die_cost": estimate.die_cost,
            "peak_memory_bytes": estimate.peak_memory_bytes,
            "traffic_bytes": {level: _traffic(t) for level, t in estimate.traffic_bytes.items()},
            "breakdown_s": estimate.breakdown_s,
            "ops": [_op_to_dict(op) for op in estimate.ops],
            "what_if": [
                {"resource": w.resource, "factor": w.factor, "latency_s": w.latency_s} for w in estimate.what_if
            ],
            "saved": _saved(estimate.saved),
            "steady": None if estimate.steady is None else _steady(estimate.steady),
            "roofline": estimate.roofline,
            "infeasible": estimate.infeasible,
            "unsupported": estimate.unsupported,
            "notes": estimate.notes,
        }
    )


def _traffic(traffic: Traffic) -> Document:
    return {"read": traffic.read, "write": traffic.write}


def _op_to_dict(op: OpEstimate) -> Document:
    traffic = {
        level: {operand: _traffic(t) for operand, t in operands.items()} for level, operands in op.traffic_bytes.items()
    }
    plainly = {name: getattr(op, name) for name in OpEstimate.__dataclass_fields__}
    return plainly | {"traffic_bytes": traffic, "saved": _saved(op.saved)}


def _saved(saved: Saved | None) -> Document | None:
    if saved is None:
        return None
    return {
        "latency_s": saved.latency_s,
        "traffic_bytes": {level: _traffic(t) for level, t in saved.traffic_bytes.items()},
    }


def _steady(steady: Steady) -> Document:
    stages = [{name: getattr(stage, name) for name in Stage.__dataclass_fields__} for stage in steady.stages]
    return {name: getattr(steady, name) for name in Steady.__dataclass_fields__} | {"stages": stages}


def from_dict(document: Any, *, where: str = "result") -> Estimate:
    """Read a `dovetail.estimate/1` document.

    Raises: ResultError: another schema, a missing or unknown key, a value of the wrong type.
    """
    check_schema(document, where=where, expected=(ESTIMATE_SCHEMA,))
    top = Reader(document, where)
    for key in ("schema", "version", *_DERIVED):
        top.raw(key)
    workload, hardware = top.child("workload"), top.child("hardware")
    interval = top.raw("latency_interval_s")
    estimate = Estimate(
        workload_name=workload.text("name"),
        knobs={key: tuple(v) if isinstance(v, list) else v for key, v in workload.mapping("knobs").items()},
        graph_hash=workload.text("graph_hash"),
        batch=top.integer("batch"),
        hardware_name=hardware.text("name"),
        hardware_hash=hardware.text("hash"),
        overrides=hardware.mapping("overrides"),
        precision=top.text("precision"),
        objective=top.text("objective"),
        map_space=top.text("map_space"),
        buffering=top.text("buffering"),
        calibration=None if top.raw("calibration") is None else top.mapping("calibration"),
        latency_s=top.number("latency_s", null=inf),
        latency_interval_s=None if interval is None else _pair(interval, f"{where}: latency_interval_s"),
        cycles=top.number("cycles", null=inf),
        roofline_latency_s=top.number("roofline_latency_s", null=inf),
        macs=top.integer("macs"),
        effective_macs=top.number("effective_macs"),
        vector_ops=top.integer("vector_ops"),
        mac_utilization=top.optional("mac_utilization"),
        energy_j=top.optional("energy_j"),
        energy_breakdown_j=top.numbers("energy_breakdown_j"),
        power_w=top.optional("power_w"),
        area_mm2=top.optional("area_mm2"),
        area_breakdown_mm2=_later(top, "area_breakdown_mm2", top.numbers),
        die_cost=_later(top, "die_cost", top.mapping),
        peak_memory_bytes=top.numbers("peak_memory_bytes"),
        traffic_bytes=top.each("traffic_bytes", _read_traffic),
        breakdown_s=_read_breakdown(top.child("breakdown_s")),
        ops=tuple(_read_op(op) for op in top.children("ops")),
        what_if=tuple(_read_what_if(entry) for entry in top.children("what_if")),
        saved=_read_saved(top),
        steady=_read_steady(top),
        roofline=top.mapping("roofline"),
        infeasible=None if top.raw("infeasible") is None else top.mapping("infeasible"),
        unsupported=tuple(top.items("unsupported")),
        notes=tuple(top.items("notes")),
    )
    for reader in (top, workload, hardware):
        reader.done()
    if not estimate.latency_s > 0:
        raise ResultError(f"{where}: `latency_s` is {estimate.latency_s:g}, expected a time above 0")
    return estimate


def _later(top: Reader, key: str, read: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """A key that documents of earlier versions lack."""
    return read(key) if key in top.data else {}


def _pair(value: Any, where: str) -> tuple[float, float]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return (value[0], value[1])
    raise ResultError(f"{where}: expected two numbers, got {json.dumps(value)[:60]}")


def _read_traffic(reader: Reader) -> Traffic:
    traffic = Traffic(read=reader.number("read"), write=reader.number("write"))
    reader.done()
    return traffic


def _read_breakdown(reader: Reader) -> dict[Term, float]:
    terms = {term: reader.number(term.value, null=inf) for term in Term}
    reader.done()
    return terms


def _read_what_if(reader: Reader) -> WhatIf:
    entry = WhatIf(
        resource=reader.text("resource"), factor=reader.number("factor"), latency_s=reader.number("latency_s")
    )
    reader.done()
    return entry


def _read_op(reader: Reader) -> OpEstimate:
    op = OpEstimate(
        name=reader.text("name"),
        kind=reader.text("kind"),
        module=reader.text("module"),
        source=reader.text("source"),
        macs=reader.integer("macs"),
        vector_ops=reader.integer("vector_ops"),
        latency_s=reader.number("latency_s", null=inf),
        roofline_s=reader.number("roofline_s", null=inf),
        cycles=reader.number("cycles", null=inf),
        bound=reader.text("bound"),
        mac_utilization=reader.optional("mac_utilization"),
        cycles_ladder=None if reader.raw("cycles_ladder") is None else reader.numbers("cycles_ladder"),
        traffic_bytes=reader.each(
            "traffic_bytes", lambda level: {n: _read_traffic(level.child(n)) for n in level.data}
        ),
        energy_j=reader.optional("energy_j"),
        breakdown_s=_read_breakdown(reader.child("breakdown_s")),
        mapping=None if reader.raw("mapping") is None else reader.mapping("mapping"),
        fused=tuple(reader.items("fused")),
        homes=reader.mapping("homes"),
        held_bytes=reader.numbers("held_bytes") if "held_bytes" in reader.data else {},
        saved=_read_saved(reader),
        precision=reader.text("precision") if "precision" in reader.data else "",
    )
    reader.done()
    return op


def _read_saved(reader: Reader) -> Saved | None:
    """What a network or an op saves; documents from before the key have none."""
    if "saved" not in reader.data or reader.raw("saved") is None:
        return None
    inner = reader.child("saved")
    saved = Saved(latency_s=inner.number("latency_s"), traffic_bytes=inner.each("traffic_bytes", _read_traffic))
    inner.done()
    return saved


def _read_steady(reader: Reader) -> Steady | None:
    """The stream of inferences; documents from before the key have none."""
    if "steady" not in reader.data or reader.raw("steady") is None:
        return None
    inner = reader.child("steady")
    numbers = ("interval_s", "latency_s", "throughput_per_s")
    steady = Steady(
        **{name: inner.number(name) for name in numbers},
        copies=inner.integer("copies"),
        stages=tuple(_read_stage(stage) for stage in inner.children("stages")),
        bound=inner.text("bound"),
    )
    inner.done()
    return steady


def _read_stage(reader: Reader) -> Stage:
    stage = Stage(
        first=reader.text("first"),
        last=reader.text("last"),
        latency_s=reader.number("latency_s"),
        weights_on_chip_bytes=reader.number("weights_on_chip_bytes"),
    )
    reader.done()
    return stage


def load_results(path: str | Path) -> list[Estimate]:
    """Every estimate of a saved file. Raises: ResultError, as `read_documents` and `from_dict`."""
    return [from_dict(d, where=str(path)) for d in read_documents(path, expected=(ESTIMATE_SCHEMA,))]


def load_result(path: str | Path) -> Estimate:
    """The one estimate of a saved file. Raises: ResultError, also where the file holds several."""
    results = load_results(path)
    if len(results) > 1:
        names = ", ".join(result.hardware_name for result in results)
        raise ResultError(f"{path}: holds {len(results)} results ({names}), expected one; use load_results")
    return results[0]


COLUMNS = ("op", "kind", "module", "bound", "quantity", "term", "memory", "operand", "direction", "value")
"""Columns of `to_frame`. `quantity` carries the unit of `value`; what does not apply is None."""

_SCALARS = ("macs", "vector_ops", "latency_s", "roofline_s", "cycles", "mac_utilization", "energy_j")


def to_frame(estimate: Estimate) -> Any:
    """One row per op and number: scalars, latency terms, traffic per memory, operand and direction.

    Returns: a pandas DataFrame where pandas is installed, else a dict of equally long lists; both
    give a column by `frame["value"]`. Ops sum to the network within each quantity that is a cost.
    """
    rows = [row for op in estimate.ops for row in _rows(op)]
    return framed({name: [row.get(name) for row in rows] for name in COLUMNS})


def framed(columns: dict[str, list[Any]]) -> Any:
    """A pandas DataFrame of these columns where pandas is installed, else the columns."""
    if find_spec("pandas") is None:
        return columns
    import pandas as pd

    return pd.DataFrame(columns)


def _rows(op: OpEstimate) -> list[dict[str, Any]]:
    base = {"op": op.name, "kind": op.kind, "module": op.module, "bound": op.bound}
    rows = [base | {"quantity": name, "value": getattr(op, name)} for name in _SCALARS]
    rows += [base | {"quantity": "breakdown_s", "term": t.value, "value": s} for t, s in op.breakdown_s.items()]
    for memory, operands in op.traffic_bytes.items():
        for operand, traffic in operands.items():
            for direction in ("read", "write"):
                place = {"memory": memory, "operand": operand, "direction": direction}
                rows.append(base | place | {"quantity": "traffic_bytes", "value": getattr(traffic, direction)})
    return rows
