"""What is bundled and what a chip or a workload is made of, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.cost.ceilings import bandwidths, instances, macs_per_s
from sim.hardware.chip import Chip, Costing, Fanout, Memory, Unit
from sim.view import rows
from sim.view.fitted import FittedTable, fitted, number, words
from sim.view.tables import plain_table


def names(title: str, entries: Mapping[str, str]) -> Table:
    """Name and one line of description."""
    table = plain_table(title, "name", "what it is", left=2)
    table.columns[1].no_wrap = False
    for name, text in entries.items():
        table.add_row(Text(name), Text(text))
    return table


def chip(found: Chip) -> RenderableType:
    """Memory hierarchy, peaks, sources and what is not verified."""
    head = Text(f"{found.name}: {found.title}", style="bold")
    parts: list[RenderableType] = [head, Text(f"default precision {found.default_precision}"), Text()]
    for unit in found.units:
        parts += [_hierarchy(found, unit), _peaks(found, unit)]
        if unit.costing is Costing.ROOFLINE:
            parts.append(Text(f"{unit.name} is costed as roofline plus launch floor only.", style="yellow"))
    if found.sources:
        parts.append(_lines("Sources", [f"{key}: {text}" for key, text in found.sources.items()]))
    doubtful: dict[str, list[str]] = {}
    for path, text in found.provenance.items():
        if is_doubtful(text):
            doubtful.setdefault(text, []).append(path)
    if doubtful:
        parts.append(_lines("Unverified", [f"{', '.join(paths)}: {text}" for text, paths in doubtful.items()]))
    if found.notes:
        parts.append(_lines("Notes", list(found.notes)))
    return Group(*parts)


def is_doubtful(source: str) -> bool:
    """A number whose source says that it is a guess."""
    return source.lower().startswith(("estimated", "unverified"))


def _lines(title: str, texts: Sequence[str]) -> RenderableType:
    """A heading and one paragraph per text, continued under itself."""
    grid = Table.grid(padding=(0, 0, 0, 2))
    for text in texts:
        grid.add_row("", Text(text))
    return Group(Text(title, style="bold"), grid, Text())


def _hierarchy(found: Chip, unit: Unit) -> FittedTable:
    count = f"{unit.count} x " if unit.count > 1 else ""
    lines: list[tuple[str, ...]] = []
    copies, rates = instances(unit), bandwidths(found, unit)
    for level in (found.memory(unit.home), *unit.hierarchy):
        if isinstance(level, Fanout):
            lines.append((level.name, f"x {level.count}", "", "", "", "multicast" if level.multicast else ""))
        elif isinstance(level, Memory):
            read, write, shared = rates[level.name]
            size = rows.size_text(level.capacity_bytes) if isfinite(level.capacity_bytes) else "endless"
            written = "same port" if shared else _rate(write)
            holds = "" if level.name == unit.home else ", ".join(sorted(level.holds))
            lines.append((level.name, str(copies.get(level.name, 1)), size, _rate(read), written, holds))
    heads = (words("level"), number("instances", drop=2), number("capacity"), number("read"), number("write", drop=1),
             words("holds", drop=3, at_least=21))  # fmt: skip
    return fitted(f"{count}{unit.name} at {unit.clock_hz / 1e9:g} GHz", heads, lines)


def _rate(rate: float) -> str:
    return rows.count_text(rate, "B/s") if isfinite(rate) else "endless"


def _peaks(found: Chip, unit: Unit) -> Table:
    array = unit.array
    shape = f"{array.name}: {array.rows} x {array.cols}, {array.dataflow.value.replace('_', ' ')}"
    table = plain_table(f"{shape}; {unit.vector.lanes} vector lanes", "precision", "MAC/s", "FLOP/s")
    for precision in array.macs_per_cycle:
        rate = macs_per_s(unit, precision, chip=found.name)
        table.add_row(precision, rows.count_text(rate, "MAC/s"), rows.count_text(2 * rate, "FLOP/s"))
    return table


def workload(name: str, doc: str, knobs: Mapping[str, Any], size: tuple[int, int] | None) -> RenderableType:
    """Docstring, knobs with type and default, and parameters and MACs where a trace is cached."""
    table = plain_table("Knobs", "knob", "type", "default", left=3)
    for knob in knobs.values():
        kind = "|".join(map(str, knob.choices)) if knob.choices else knob.kind
        table.add_row(Text(knob.name), Text(kind), Text(repr(knob.default)))
    parts: list[RenderableType] = [Text(name, style="bold"), Text(doc), Text(), table]
    if size is not None:
        parameters, macs = size
        line = f"{rows.count_text(parameters)} parameters, {rows.count_text(macs, 'MAC')} (default knobs)"
        parts.append(Text(line))
    else:
        parts.append(Text("Not traced yet: parameters and MACs are shown once `dovetail trace` has run.", style="dim"))
    return Group(*parts)
