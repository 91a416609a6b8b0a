"""Several results in one table: side by side, before and after, and the designs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.results import Estimate
from sim.view import rows
from sim.view.tables import plain_table


def comparison(estimates: Sequence[Estimate]) -> Table:
    """Several results side by side, one column each."""
    table = plain_table("Side by side", "", *(f"{e.workload_name} on {e.hardware_name}" for e in estimates))
    for column in table.columns:
        column.no_wrap, column.overflow = False, "fold"

    def line(name: str, texts: list[str]) -> None:
        table.add_row(name, *(Text(text) for text in texts))

    line("precision", [e.precision for e in estimates])
    line("batch", [str(e.batch) for e in estimates])
    line("latency", [rows.time_text(e.latency_s) for e in estimates])
    line("roofline", [rows.time_text(e.roofline_latency_s) for e in estimates])
    line("throughput", [f"{rows.count_text(e.throughput_per_s)}/s" for e in estimates])
    line("MAC utilisation", [rows.share_text(e.mac_utilization) for e in estimates])
    line("energy", [rows.energy_text(e.energy_j) for e in estimates])
    line("calibration", [str((e.calibration or {}).get("device", "none")) for e in estimates])
    for term, words in rows.TERM_WORDS.items():
        if any(e.breakdown_s[term] for e in estimates):
            line(f"  {words}", [rows.time_text(e.breakdown_s[term]) for e in estimates])
    return table


def difference(before: Estimate, after: Estimate, *, limit: int = 12) -> RenderableType:
    """Two results: the verdict in words, side by side, and the ops whose latency changed most."""
    ratio = after.latency_s / before.latency_s if before.latency_s else inf
    if not (isfinite(before.latency_s) and isfinite(after.latency_s)):
        text = f"{_name(before)}: {rows.time_text(before.latency_s)}; {_name(after)}: {rows.time_text(after.latency_s)}"
    elif ratio == 1:
        text = f"{_name(before)} and {_name(after)} take the same time, {rows.time_text(before.latency_s)}."
    else:
        word = "slower" if ratio > 1 else "faster"
        text = f"{_name(after)} is {max(ratio, 1 / ratio):.3g} times {word} than {_name(before)}."
    table = plain_table("Ops that changed most", "op", "before", "after", "change")
    for name, old, new in _changes(before, after)[:limit]:
        table.add_row(Text(name), _time(old), _time(new), f"{(new or 0.0) - (old or 0.0):+.3g} s")
    parts: list[RenderableType] = [Text(text, style="bold"), Text(), comparison([before, after])]
    return Group(*parts, table) if table.row_count else Group(*parts)


def _name(estimate: Estimate) -> str:
    return f"{estimate.workload_name} on {estimate.hardware_name}"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else rows.time_text(seconds)


def _changes(before: Estimate, after: Estimate) -> list[tuple[str, float | None, float | None]]:
    """(op, latency before, after) of the ops that differ, largest change first; None where absent."""
    old = {op.name: op.latency_s for op in before.ops}
    new = {op.name: op.latency_s for op in after.ops}
    found = [(name, old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)]
    return sorted(found, key=lambda row: -abs((row[2] or 0.0) - (row[1] or 0.0)))


def designs(columns: Mapping[str, Sequence[Any]], *, limit: int) -> Table:
    """The fastest rows of a sweep: what was varied, then latency, energy and utilisation."""
    results = {"latency_s": rows.time_text, "energy_j": rows.energy_text, "mac_utilization": rows.share_text}
    latency = columns["latency_s"]
    order = sorted(range(len(latency)), key=lambda i: inf if latency[i] is None else latency[i])
    varied = [name for name, values in columns.items() if is_choice(name, values)]
    known = [name for name in results if name in columns and any(v is not None for v in columns[name])]
    table = plain_table(f"The fastest of {len(order)} designs", *varied, *known, left=len(varied))
    for i in order[:limit]:
        choices = [Text(str(columns[name][i])) for name in varied]
        numbers = ["infeasible" if columns[n][i] is None else results[n](columns[n][i]) for n in known]
        table.add_row(*choices, *numbers)
    return table


_SCALARS = frozenset(Estimate.__dataclass_fields__) - {"precision", "batch"}


def is_choice(name: str, values: Sequence[Any]) -> bool:
    """A column that the user varied: not a result, and more than one value."""
    derived = name.endswith(("_s", "_j", "_w", "_mm2", "_per_s", "_bytes", "utilization", "hash"))
    return name not in _SCALARS and not derived and len({str(value) for value in values}) > 1
