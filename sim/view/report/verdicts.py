"""One paragraph in words for each result of a report: what a reader should take away."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from sim.documents import Document
from sim.view import rows, scenarios
from sim.view.report.sources import Table

_BEST = {
    "latency_s": (min, "The fastest takes", rows.time_text),
    "energy_j": (min, "The most frugal takes", rows.energy_text),
    "quality": (max, "The best quality is", "{:.4g}".format),
    "area_mm2": (min, "The smallest has", "{:.3g} mm²".format),
}
"""Column -> what is best in it, in words."""


_SETTINGS = frozenset({"hardware", "workload", "precision", "sparsity", "batch", "recipe"})
"""Columns beside the keys of chips and knobs (which have a dot) that say what was chosen."""
_UNITS = {"1/s": "per_s", "USD": "cost", "J s": "edp"}


def bare(name: str) -> str:
    """ "energy [J]", as a search writes it, -> "energy_j"."""
    quantity, bracket, unit = name.rstrip("]").partition(" [")
    return f"{quantity}_{_UNITS.get(unit, unit.lower())}" if bracket else name


def name_of(document: Document) -> str:
    """ "resnet50 on tesla-fsd-npu", or the scenario and its chip."""
    workload = str(document.get("scenario") or (document.get("workload") or {}).get("name") or "")
    chip = str((document.get("hardware") or {}).get("name", ""))
    return " on ".join(part for part in (workload, chip) if part) or "simulation"


def simulation(document: Document) -> str:
    """How long it took or how many deadlines were missed, what was busiest, what others cost."""
    if scenarios.serves(document):
        return _served(document)
    streams: Mapping[str, Any] = document["streams"]
    timed = {name: stream for name, stream in streams.items() if stream.get("deadline_s")}
    words = f"{name_of(document)}, event by event"
    if refused := document.get("infeasible"):
        return f"{words}, is infeasible: {refused['reason']}"
    if timed:
        missed = {name: stream["miss_rate"] for name, stream in timed.items() if stream.get("miss_rate")}
        told = ", ".join(f"{name} misses {rows.share_text(rate)} of its deadlines" for name, rate in missed.items())
        words += f": {told or 'every deadline is met'}"
        worst = max(timed, key=lambda name: (timed[name].get("latency_max_s") or 0) / timed[name]["deadline_s"])
        slowest, limit = timed[worst].get("latency_max_s") or 0.0, timed[worst]["deadline_s"]
        words += f"; {worst} comes nearest, its slowest job takes {rows.time_text(slowest)} of {rows.time_text(limit)}."
    else:
        words += f", takes {rows.time_text(document['latency_s'])}."
    used = {**document["units"], **document["ports"]}
    busiest = max(used, key=lambda name: used[name].get("utilization") or 0.0, default=None)
    if busiest is not None:
        words += f" {busiest} is busiest, {rows.share_text(used[busiest].get('utilization'))} of the time."
    slowed = document.get("contended_s")
    return words + (f" Transfers lost {rows.time_text(slowed)} to each other." if slowed else "")


def _served(document: Document) -> str:
    """The times that a user sees, what missed them, and how much of the machine is asked for."""
    told = [
        f"{name} {rows.time_text(mean)} (p99 {rows.time_text(p99)})"
        for name, mean, _, _, p99, _ in scenarios.request_times(document)
        if mean is not None
    ]
    found = scenarios.served(document)
    return (
        f"{name_of(document)}, event by event, in the mean: {', '.join(told)}. {found['requests']} requests, "
        f"{found['tokens a second']} tokens a second; deadlines missed: {found['missed']}. Requests ask for "
        f"{found['offered load']} of a full batch."
    )


def table(found: Table) -> str:
    """The best design of each familiar column, with what was chosen for it."""
    columns = found.columns
    count = len(next(iter(columns.values()), []))
    chosen = [name for name, values in columns.items() if len(set(map(str, values))) > 1]
    named = [name for name in columns if "." in name or name in _SETTINGS]
    settings = [name for name in named if name in chosen]
    alike = [name for name in named if name not in chosen and count and columns[name][0]]
    same = ", ".join(f"{name} {columns[name][0]}" for name in alike)
    told = [f"{found.name} holds {count} designs{f', all with {same}' if same else ''}."]
    for name in chosen:
        if (column := bare(name)) not in _BEST:
            continue
        pick, title, text = _BEST[column]
        pick = {1: max, -1: min}.get(found.better.get(name, 0), pick)
        known = [(value, -i) for i, value in enumerate(map(_number, columns[name])) if value is not None]
        if known:
            best, place = pick(known)
            words = ", ".join(f"{key} {columns[key][-place]}" for key in settings)
            told.append(f"{title} {text(best)}{f' ({words})' if words else ''}.")
    return " ".join(told)


def _number(value: Any) -> float | None:
    """None where a cell is empty, text or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if isfinite(number) else None


def study(document: Document) -> str:
    """How far a search went."""
    where = f" ({document['folder']})" if document.get("folder") else ""
    none = "" if (document.get("counts") or {"accepted": 1}).get("accepted") else " No design meets all limits."
    return (
        f"{document['space']}{where}: {document['trials']} trials settled {document['points']} model-chip pairs, "
        f"{document['costed']} of them by a full estimate.{none}"
    )


def validation(document: Document) -> str:
    """Gates first, then what only informs."""
    checks = document.get("checks")
    if checks is None:
        return ""
    failed = [str(check["id"]) for check in checks if check["verdict"] == "fail"]
    passed = sum(check["verdict"] == "pass" for check in checks)
    words = f"{passed} of {len(checks)} checks pass, {len(checks) - passed - len(failed)} inform without a gate"
    return words + (f"; {len(failed)} fail: {', '.join(failed)}." if failed else " and none fails.")
