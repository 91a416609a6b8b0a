"""What is bundled and what a chip or a workload is made of, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.cost.ceilings import bandwidths, instances, macs_per_s
from sim.hardware.chip import Chip, Costing, Fanout, Memory, Unit
from sim.hardware.designs import Designs
from sim.hardware.money import die_cost, die_cost_words
from sim.hardware.physical import (
    area_parts_mm2,
    chip_area_mm2,
    model_area_mm2,
    model_power_w,
    peak_power_parts_w,
    peak_power_w,
)
from sim.hardware.technology_data import DRAM_PJ_PER_BIT
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
    parts += _silicon(found)
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


def _silicon(found: Chip) -> list[RenderableType]:
    """Area and power at full rate by component, and what a die costs; sums are the totals of the file or the model."""
    designs = Designs(found)
    totals = [float(total(designs)[0]) for total in (chip_area_mm2, peak_power_w)]
    areas, powers = area_parts_mm2(designs), peak_power_parts_w(designs)
    texts: list[RenderableType] = []
    if areas or powers:
        heads = (words("component", at_least=16), number("area"), number("share", drop=2), number("power"),
                 number("share", drop=1))  # fmt: skip
        lines = [
            [name, *_part(name, areas, totals[0], rows.area_text), *_part(name, powers, totals[1], rows.power_text)]
            for name in dict.fromkeys((*areas, *powers))
        ]
        lines.append(["total", rows.area_text(totals[0]), "", rows.power_text(totals[1]), ""])
        texts.append(fitted("Area, and power at full rate", heads, lines, styles=[*[""] * (len(lines) - 1), "bold"]))
    told = [
        _total_text("Area", rows.area_text, totals[0], found.technology.area_mm2, model_area_mm2(designs)),
        _total_text("Power", rows.power_text, totals[1], found.technology.power_w, model_power_w(designs)),
    ]
    outside = ", ".join(memory.name for memory in found.memories if memory.kind in DRAM_PJ_PER_BIT)
    if areas and outside:
        told.append(f"Of {outside} the area is the interface on the die, the power its own.")
    cost = die_cost(designs)
    told.append(die_cost_words(cost) + (f"; assumed: {cost['assumes']}." if cost["assumes"] else "."))
    return [*texts, Text("\n".join(filter(None, told))), Text()]


def _part(name: str, parts: Mapping[str, float], total: float, text: Callable[[float], str]) -> tuple[str, str]:
    """(value, share) of a component."""
    return (text(parts[name]), rows.share_text(parts[name] / total)) if name in parts else ("-", "")


def _total_text(
    what: str, text: Callable[[float], str], total: float, stated: float | None, modelled: np.ndarray
) -> str:
    """Where a total comes from, and how far the model of the components is from it."""
    model = float(modelled[0])
    if not isfinite(total):
        return f"{what}: unknown, the file states neither it nor a node that gives it."
    if stated is None:
        fit = "" if abs(total / model - 1) < 1e-9 else f", scaled by {total / model:.3g} to what its file states"
        return f"{what} as modelled from the components of the file{fit}."
    if not isfinite(model):
        return f"{what} as stated, {text(stated)}; no node gives its parts."
    scale = f"{stated / model:.3g}"
    return f"{what} as stated, {text(stated)}; its parts are modelled, {text(model)} in all, and scaled by {scale}."


def _rate(rate: float) -> str:
    return rows.count_text(rate, "B/s") if isfinite(rate) else "endless"


def _peaks(found: Chip, unit: Unit) -> Table:
    array = unit.array
    shape = f"{array.name}: {array.rows} x {array.cols}, {array.dataflow.value.replace('_', ' ')}"
    copies = f"; rates of one of {unit.count}" if unit.count > 1 else ""
    table = plain_table(f"{shape}; {unit.vector.lanes} vector lanes{copies}", "precision", "MAC/s", "FLOP/s")
    for precision in array.macs_per_cycle:
        rate = macs_per_s(unit, precision, chip=found.name)
        table.add_row(precision, rows.count_text(rate, "MAC/s"), rows.count_text(2 * rate, "FLOP/s"))
    for precision, beside in array.depthwise_macs_per_cycle.items():
        rate = beside * instances(unit)[array.name] * unit.clock_hz
        name = f"{precision}, depthwise processor"
        table.add_row(name, rows.count_text(rate, "MAC/s"), rows.count_text(2 * rate, "FLOP/s"))
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
