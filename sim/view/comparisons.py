"""Several results in one table: side by side, before and after, and the designs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.codesign.pareto import non_dominated
from sim.documents import Document, Reader
from sim.errors import ResultError
from sim.results import SIMULATE_SCHEMA, Estimate
from sim.view import rows, scenarios
from sim.view.fitted import FittedTable, Shorten, fitted, number, words
from sim.view.report.verdicts import name_of, simulation
from sim.view.tables import plain_table


def comparison(estimates: Sequence[Estimate]) -> Table:
    """Several results side by side, one column each."""
    table = plain_table("Side by side", "", *labels(estimates))
    for column in table.columns[1:]:
        column.no_wrap, column.overflow = False, "fold"
    table.columns[0].no_wrap = True

    def line(name: str, texts: list[str]) -> None:
        table.add_row(name, *(Text(text) for text in texts))

    line("precision", [e.precision for e in estimates])
    line("batch", [str(e.batch) for e in estimates])
    line("latency", [rows.time_text(e.latency_s) for e in estimates])
    line("roofline", [rows.time_text(e.roofline_latency_s) for e in estimates])
    line(
        "throughput", [f"{rows.count_text(e.throughput_per_s)}/s" if isfinite(e.latency_s) else "-" for e in estimates]
    )
    line("MAC utilisation", [rows.share_text(e.mac_utilization) for e in estimates])
    line("energy", [rows.energy_text(e.energy_j) for e in estimates])
    line("calibration", [str((e.calibration or {}).get("device", "none")) for e in estimates])
    for term, name in rows.TERM_WORDS.items():
        if any(0 < e.breakdown_s[term] < inf for e in estimates):
            line(f"  {name}", [_time(e.breakdown_s[term]) for e in estimates])
    return table


def difference(before: Estimate, after: Estimate, *, limit: int = 12) -> RenderableType:
    """Two results: the verdict in words, side by side, and the ops whose latency changed most."""
    text = _verdict(labels([before, after]), [before.latency_s, after.latency_s])
    lines = []
    told = limit if isfinite(before.latency_s) and isfinite(after.latency_s) else 0
    for name, first, second in _changes(before, after)[:told]:
        lines.append((name, _time(first), _time(second), _more((second or 0.0) - (first or 0.0))))
    parts: list[RenderableType] = [Text(text, style="bold"), Text(), comparison([before, after])]
    heads = (
        words("op", shorten=Shorten.LEFT, at_least=28),
        number("before", drop=1),
        number("after"),
        number("change"),
    )
    return Group(*parts, fitted("Ops that changed most", heads, lines)) if lines else Group(*parts)


def runs(documents: Sequence[Document]) -> RenderableType:
    """Documents of `simulate`, with estimates among them or without: the verdict on two in words, and side by side what
    both rungs tell. Raises: ResultError: a document of trials for a limit, a scenario beside an estimate,
    or a key is missing."""
    if any("trials" in document for document in documents):
        raise ResultError("trials for a limit (--find-limit) have nothing to compare; `dovetail report` shows them")
    if any(document.get("scenario") for document in documents):
        return _scenarios(documents)
    tops = [Reader(document, "simulation") for document in documents]
    latencies = [top.number("latency_s", null=inf) for top in tops]
    rungs = [str(document["schema"]).partition(".")[2].partition("/")[0] for document in documents]
    names = [f"{rung}d {name_of(document)}" for rung, document in zip(rungs, documents, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name} [{i}]" for i, name in enumerate(names, 1)]
    reasons = [(document.get("infeasible") or {}).get("reason") for document in documents]
    told: dict[str, list[str]] = {
        "precision": [str(document.get("precision") or "-") for document in documents],
        "batch": [str(document.get("batch") or "-") for document in documents],
        "latency": [rows.time_text(latency) for latency in latencies],
        "contended": [_time(document.get("contended_s")) for document in documents],
        "energy": [rows.energy_text(document.get("energy_j")) for document in documents],
        "calibration": [str((document.get("calibration") or {}).get("device", "none")) for document in documents],
    }
    table = plain_table("Side by side", "", *names)
    for name, texts in told.items():
        table.add_row(name, *map(Text, texts))
    why = [Text(f"{name}: {reason}") for name, reason in zip(names, reasons, strict=True) if reason]
    verdict = [Text(_verdict(names, latencies), style="bold"), Text()] if len(names) == 2 else []
    return Group(*verdict, table, *why)


def _scenarios(documents: Sequence[Document]) -> RenderableType:
    """What each came to in words, and side by side; how long they were simulated says nothing of them."""
    if any(document["schema"] != SIMULATE_SCHEMA for document in documents):
        raise ResultError("a scenario and an estimate have nothing in common: compare it with what `simulate` wrote")
    names = [name_of(document) for document in documents]
    if len(set(names)) < len(names):
        names = [f"{name} [{i}]" for i, name in enumerate(names, 1)]
    told = [scenarios.facts(document) for document in documents]
    table = plain_table("Side by side", "", *names)
    for what in dict.fromkeys(what for found in told for what in found):
        table.add_row(what, *(Text(found.get(what, "-")) for found in told))
    parts = [part for document in documents for part in (Text(simulation(document)), Text())]
    return Group(*parts, table)


def _verdict(names: Sequence[str], latencies: Sequence[float]) -> str:
    """Which of two is faster, and how much."""
    (old, new), (before, after) = names, latencies
    if not (isfinite(before) and isfinite(after)):
        return f"{old}: {rows.time_text(before)}; {new}: {rows.time_text(after)}"
    ratio = after / before if before else inf
    if ratio == 1:
        return f"{old} and {new} take the same time, {rows.time_text(before)}."
    if (times := f"{max(ratio, 1 / ratio):.3g}") == "1":
        return f"{new} takes the time of {old} within 0.5 %, {rows.time_text(after)}."
    return f"{new} is {times} times {'slower' if ratio > 1 else 'faster'} than {old}."


def labels(estimates: Sequence[Estimate]) -> list[str]:
    """Workload and chip of each; where these are the same, the knobs, changes or precision that differ."""
    told = rows.told_apart(estimates)
    return [f"{e.workload_name} on {e.hardware_name}{what}" for e, what in zip(estimates, told, strict=True)]


def _time(seconds: float | None) -> str:
    return "-" if seconds is None or not isfinite(seconds) else rows.time_text(seconds)


def _more(seconds: float) -> str:
    return ("-" if seconds < 0 else "+") + rows.time_text(abs(seconds))


def _changes(before: Estimate, after: Estimate) -> list[tuple[str, float | None, float | None]]:
    """(op, latency before, after) of the ops that differ, largest change first; None where absent."""
    old = {op.name: op.latency_s for op in before.ops}
    new = {op.name: op.latency_s for op in after.ops}
    found = [(name, old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)]
    return sorted(found, key=lambda row: -abs((row[2] or 0.0) - (row[1] or 0.0)))


def designs(columns: Mapping[str, Sequence[Any]], *, limit: int) -> FittedTable:
    """The fastest rows of a sweep: what was varied, then latency, throughput where batches differ, energy, area where
    chips do, and utilisation. Chips for one work are marked where no other is better in all of time, energy and area.
    """
    results = {
        "latency_s": rows.time_text,
        "throughput_per_s": lambda rate: f"{rows.count_text(rate)}/s",
        "energy_j": rows.energy_text,
        "area_mm2": rows.area_text,
        "mac_utilization": rows.share_text,
    }
    latency = columns["latency_s"]
    order = sorted(range(len(latency)), key=lambda i: inf if latency[i] is None else latency[i])
    varied = [name for name, values in columns.items() if is_choice(name, values)]
    asked = {"throughput_per_s": "batch" in varied, "area_mm2": len({*columns.get("area_mm2", ())} - {None}) > 1}
    shown = [name for name in results if name in columns and asked.get(name, True)]
    known = [name for name in shown if name == "latency_s" or any(v is not None for v in columns[name])]
    best = _unbeaten(columns) if asked["area_mm2"] else []
    lines = []
    for i in order[:limit]:
        choices = [str(columns[name][i]) for name in varied]
        missing = "infeasible" if latency[i] is None else "-"
        numbers = [missing if columns[n][i] is None else results[n](columns[n][i]) for n in known]
        lines.append([*choices, *numbers, *(["*" if best[i] else ""] if best else [])])
    heads = [words(name, at_least=8) for name in varied]
    heads += [number(rows.bare_words(name), drop=i) for i, name in enumerate(known)]
    heads += [words("", at_least=1)] if best else []
    title = "The one design" if len(order) == 1 else f"The fastest of {len(order)} designs"
    if best:
        title += f"; *: one of {sum(best)} that none beats in time, energy and area together"
    return fitted(title, heads, lines)


def _unbeaten(columns: Mapping[str, Sequence[Any]]) -> list[bool]:
    """Rows that no other beats in latency, energy and area; none where rows do different work or lack a number."""
    names = ("latency_s", "energy_j", "area_mm2")
    feasible = [i for i, latency in enumerate(columns["latency_s"]) if latency is not None]
    alike = all(len({columns[name][i] for i in feasible}) == 1 for name in ("macs", "batch") if name in columns)
    if not alike or any(columns.get(name, ()) == () or columns[name][i] is None for i in feasible for name in names):
        return []
    values = np.full((len(columns["latency_s"]), len(names)), np.nan)
    values[feasible] = [[columns[name][i] for name in names] for i in feasible]
    return non_dominated(values).tolist()


_SCALARS = (frozenset(Estimate.__dataclass_fields__) | {"flops", "below_datasheet_roofline"}) - {"precision", "batch"}


def is_choice(name: str, values: Sequence[Any]) -> bool:
    """A column that the user varied: not a result, and more than one value."""
    derived = name.endswith(("_s", "_j", "_w", "_mm2", "_per_s", "_bytes", "utilization", "hash"))
    return name not in _SCALARS and name != "reason" and not derived and len({str(value) for value in values}) > 1
