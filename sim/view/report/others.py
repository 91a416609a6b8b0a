"""The data step of the report for results other than estimates: runs, designs, measurements, checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

from sim.documents import Document, Reader
from sim.results import Estimate
from sim.view import rows, scenarios
from sim.view.report import verdicts
from sim.view.report.estimates import short
from sim.view.report.sources import Table

_SMALLER = ("_s", "_j", "_w", "_mm2", "_bytes", "cycles", "cost", "price", "edp", "loss", "miss_rate", "bits_per_byte")
_LARGER = ("per_s", "utilization", "quality", "accuracy", "goodput", "throughput", "speedup")
SLICES = 20_000
"""Bars of a timeline at most; the page says how many more there were."""


def simulation_view(document: Document) -> dict[str, Any]:
    """A `dovetail.simulate/1` document. Raises: ResultError: a key is missing."""
    if scenarios.serves(document):
        return _serving_view(document)
    top = Reader(document, "simulation")
    ops = [Reader(op, f"simulation: ops[{i}]") for i, op in enumerate(top.items("ops"))]
    ops.sort(key=lambda op: op.number("start_s"))  # (bars are drawn in time, and streams stand one after the other)
    return {
        "title": verdicts.name_of(document),
        "provenance": _run_provenance(document),
        "latency_s": short(top.number("latency_s", null=inf)),
        "infeasible": document.get("infeasible"),
        "estimate_s": short(document.get("estimate_latency_s")),
        "contended_s": short(top.number("contended_s", null=inf)),
        "energy_j": short(document.get("energy_j")),
        "ports": [
            [name, use.get("utilization"), use.get("achieved_bytes_per_s")]
            for name, use in top.mapping("ports").items()
        ],
        "units": [[name, use.get("utilization"), None] for name, use in top.mapping("units").items()],
        "streams": [{"name": name, **values} for name, values in top.mapping("streams").items()],
        "memories": [[name, peak] for name, peak in (document.get("peak_memory_bytes") or {}).items()],
        "timeline": {
            "tracks": sorted({op.text("unit") for op in ops}),
            "start_s": short(ops[0].number("start_s")) if ops else 0.0,
            "slices": [
                [op.text("unit"), op.text("name"), short(op.number("start_s")), short(op.number("latency_s")),
                 op.text("stream")]
                for op in ops[:SLICES]
            ],
            "left_out": max(0, len(ops) - SLICES),
            "counters": [],
        },
        "notes": [str(note) for note in document.get("notes") or ()],
    }  # fmt: skip


def _serving_view(document: Document) -> dict[str, Any]:
    return {
        "title": verdicts.name_of(document),
        "provenance": _run_provenance(document),
        "times": scenarios.request_times(document),
        "facts": [[what, words] for what, words in scenarios.served(document).items()],
        "notes": [str(note) for note in document.get("notes") or ()],
    }


def _run_provenance(document: Document) -> list[list[str]]:
    """[what, text] lines of a simulated run."""
    workload, hardware = document.get("workload") or {}, document.get("hardware") or {}
    lines = {
        "written by": f"Dovetail {document.get('version')}",
        "workload": " ".join(str(workload[key]) for key in ("name", "graph_hash") if workload.get(key)),
        "scenario": document.get("scenario"),
        "chip": " ".join(str(hardware[key]) for key in ("name", "hash") if hardware.get(key)),
        "changes of the chip": _pairs(hardware.get("overrides") or {}),
        "precision": document.get("precision"),
        "objective": _how(document),
        "calibration": _calibrated(document),
        "estimate": _estimate_beside(document),
        "settings": _pairs(document.get("settings") or {}),
        "seed": document.get("seed"),
        "events": document.get("events"),
        "replications": document.get("replications"),
    }
    return [[what, str(text)] for what, text in lines.items() if text not in (None, "")]


def _how(document: Document) -> str | None:
    """Objective, map space and buffering in words; None in documents from before they were stated."""
    if document.get("objective") is None:
        return None
    words = f"{document['objective']}, best of the {document.get('map_space')} mappings"
    return words + (f", {document['buffering']} buffering" if document.get("buffering") else "")


def _calibrated(document: Document) -> str | None:
    """The calibration in words: an object, None with data-sheet constants; text in documents of old versions."""
    found = document.get("calibration")
    if isinstance(found, Mapping):
        return f"{found.get('device')}, {found.get('date')}"
    return str(found) if found else "none: data sheet only" if document.get("objective") else None


def _estimate_beside(document: Document) -> str | None:
    """What `estimate` makes of the same schedule."""
    seconds = document.get("estimate_latency_s")
    return None if seconds is None else rows.time_text(seconds)


def study_view(document: Document) -> list[list[str]]:
    """[what, text] lines of a search: what was searched, how, how far."""
    counts = {str(reason).replace("_", " "): count for reason, count in (document.get("counts") or {}).items()}
    lines = {
        "written by": f"Dovetail {document.get('version')}",
        "space": document.get("space"),
        "folder": document.get("folder"),
        "sampler": f"{document.get('sampler')}, seed {document.get('seed')}",
        "trials": document.get("trials"),
        "model-chip pairs": f"{document.get('points')}, {document.get('costed')} of them costed",
        "CPU time of trials": rows.time_text(sum(map(float, (document.get("spent_cpu_s") or {}).values()))),
        "reasons": "; ".join(f"{count} {reason}" for reason, count in counts.items()),
    }
    return [[what, str(text)] for what, text in lines.items() if text is not None]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def trace_view(name: str, document: Document) -> dict[str, Any]:
    """A timeline that `simulate --trace` wrote: slices per track, counters as steps with their unit, which is
    "bytes" of what a memory holds. Times in s."""
    processes: dict[Any, str] = {}
    threads: dict[Any, str] = {}
    events = [event for event in document["traceEvents"] if isinstance(event, dict)]
    for event in events:
        if event.get("ph") == "M":
            place = threads if event["name"] == "thread_name" else processes
            key = (event["pid"], event["tid"]) if place is threads else event["pid"]
            place[key] = str(event["args"]["name"])
    slices = sorted((event for event in events if event.get("ph") == "X"), key=lambda event: float(event["ts"]))
    counters: dict[tuple[str, str], list[list[float | None]]] = {}
    for event in events:
        if event.get("ph") == "C":
            unit, value = next(iter(event["args"].items()))
            counters.setdefault((str(event["name"]), str(unit)), []).append([short(event["ts"] / 1e6), short(value)])

    def track(event: Mapping[str, Any]) -> str:
        process = processes.get(event["pid"], str(event["pid"]))
        return f"{process} {threads.get((event['pid'], event['tid']), event['tid'])}"

    return {
        "title": name,
        "tracks": sorted({track(event) for event in slices}),
        "start_s": 0.0,  # counters tell what memories hold before the first slice
        "slices": [
            [track(e), str(e["name"]), short(e["ts"] / 1e6), short(e["dur"] / 1e6), _stream(e)] for e in slices[:SLICES]
        ],
        "left_out": max(0, len(slices) - SLICES),
        "counters": [[name, unit, steps] for (name, unit), steps in counters.items()],
    }  # fmt: skip


def _stream(event: Mapping[str, Any]) -> str:
    return str(event.get("args", {}).get("stream", ""))


SEARCH = "search"
"""The column that tells searches apart in one table."""


def together(tables: Sequence[Table]) -> Table | None:
    """The designs of several searches for the same objectives in one table, so that their fronts can be compared;
    None where there are not two such searches."""
    searches = [table for table in tables if table.home and table.better]
    if len(searches) < 2 or any(table.better != searches[0].better for table in searches):
        return None
    names = [name for name in searches[0].columns if all(name in table.columns for table in searches)]
    columns: dict[str, list[Any]] = {SEARCH: []}
    for table in searches:
        columns[SEARCH] += [table.home.rstrip("/")] * len(table.columns[names[0]])
        for name in names:
            columns.setdefault(name, []).extend(table.columns[name])
    return Table(name="All searches together", columns=columns, better=searches[0].better, group=SEARCH)


def table_view(table: Table) -> dict[str, Any]:
    """Designs with, for each column, its numbers and which direction is better (0: neither)."""
    columns = {name: [_cell(value) for value in values] for name, values in table.columns.items()}
    numeric = [
        name
        for name, values in columns.items()
        if any(isinstance(v, float) for v in values) and all(v is None or isinstance(v, float) for v in values)
    ]
    return {
        "name": table.name,
        "home": table.home,
        "group": table.group,
        "columns": columns,
        "numeric": numeric,
        "direction": {name: table.better.get(name, direction(name)) for name in numeric},
        "rows": len(next(iter(columns.values()), [])),
    }


def _cell(value: Any) -> float | str | None:
    """A number, the text as it is, or None where the cell is empty or has no finite value."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return short(number) if isfinite(number) else None


def direction(name: str) -> int:
    """-1 where smaller is better, +1 where larger is, 0 for a column that is no objective."""
    name = verdicts.bare(name)
    if name.endswith(_LARGER) or name.startswith(("quality", "accuracy")):
        return 1
    return -1 if name.endswith(_SMALLER) else 0


def measured_view(records: Sequence[Document], estimates: Sequence[Estimate]) -> list[list[Any]]:
    """[label, measured s, estimated s or None] of the records of whole workloads that an estimate has too.

    A record belongs to an estimate of the same workload, whose knobs agree where both name them,
    and of the same precision. Each estimate gives a line of its own, with its chip in the label.
    """
    lines = []
    for record in records:
        seconds, name = record.get("median_s"), record.get("workload")
        if seconds is None or name is None:
            continue
        knobs = record.get("knobs") or {}
        for estimate in estimates:
            same = all(estimate.knobs.get(key, value) == value for key, value in knobs.items())
            if estimate.workload_name == name and same and estimate.precision == record.get("precision"):
                how = [str(record["mode"])] if record.get("mode") else []
                how += [f"threads={record['threads']}"] if record.get("threads") else []
                label = f"{name} {estimate.precision}, measured on {record.get('device')}"
                label += f" ({', '.join(how)})" if how else ""
                label += f", on {estimate.hardware_name}"
                lines.append([label, short(seconds), short(estimate.latency_s)])
    return lines


def validation_view(document: Document) -> dict[str, Any]:
    """Checks of `dovetail validate --json`, or the score of a measured file."""
    checks = document.get("checks")
    if checks is None:
        return {"score": {key: value for key, value in document.items() if key not in ("schema", "version")}}
    keys = ("id", "source", "quantity", "unit", "ours", "theirs", "rel_error", "tolerance", "gate", "verdict", "rule")
    return {
        "summary": document.get("summary") or {},
        "checks": [[check.get(key) for key in keys] for check in checks],
    }
