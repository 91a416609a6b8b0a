"""How latency and throughput grow along one knob or chip key of a sweep (batch, context, bandwidth)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from sim.units import base_value, unit_of
from sim.view import palette
from sim.view.charts import _plain, named
from sim.view.comparisons import is_choice
from sim.view.unit_axis import label_of, set_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"
TICKS = 10
"""Values that are named along the axis at most."""
SERIES = (palette.BLUE, palette.VERMILION, palette.GREEN, palette.PURPLE, palette.ORANGE, palette.SKY, palette.BLACK)


def number_of(value: object) -> float | None:
    """The number that a value of a sweep begins with: 4, "4", "34 GB/s"; None where there is none."""
    match = re.match(r"\s*([+-]?\d+\.?\d*(?:[eE][+-]?\d+)?)", str(value))
    return float(match[1]) if match and not isinstance(value, bool) else None


def scaling_axis(columns: Mapping[str, Sequence[Any]]) -> str | None:
    """The varied column with the most numbers, the last of equals; None when nothing numeric varies."""
    varied = [
        name
        for name, values in columns.items()
        if is_choice(name, values) and name != "hardware" and all(number_of(v) is not None for v in values)
    ]
    return max(reversed(varied), key=lambda name: len({str(v) for v in columns[name]}), default=None)


def lines_of(columns: Mapping[str, Sequence[Any]], x: str, value: str) -> dict[str, list[tuple[float, float]]]:
    """Label of all else that varies -> points (x, value) in the order of x; rows without a value are left out."""
    others = [name for name, values in columns.items() if name != x and is_choice(name, values)]
    lines: dict[str, list[tuple[float, float]]] = {}
    for i, at in enumerate(columns[x]):
        found = columns[value][i]
        if found is None or not isfinite(found):
            continue
        label = ", ".join(
            str(columns[name][i]) if name == "hardware" else f"{name}={columns[name][i]}" for name in others
        )
        lines.setdefault(label, []).append((place_of(at), float(found)))
    return {label: sorted(points) for label, points in lines.items()}


def place_of(value: object) -> float:
    """Where a value lies on its axis: a quantity in base units (512 KiB is less than 1 MiB), else its number."""
    found = base_value(value)
    return found if found is not None else number_of(value) or 0.0


def names_of(values: Sequence[object]) -> tuple[dict[float, str], str]:
    """(place -> what stands there, unit of the axis): the unit where all have the same, else each keeps its own."""
    units = {unit_of(str(value)) for value in values}
    shared = units.pop() if len(units) == 1 else ""
    names = {place_of(value): str(value) for value in values}
    if shared or all(unit_of(name) == "" for name in names.values()):
        names = {place: f"{number_of(name) or 0.0:g}" for place, name in names.items()}
    return names, shared


def scaling(columns: Mapping[str, Sequence[Any]], x: str, *, value: str = "latency_s", ax: Axes | None = None) -> Axes:
    """`value` along `x`, one line for each combination of what else varies; `x` logarithmic.

    `columns` as `sim.sweep` gives them (`sweep_io.columns_of`).
    """
    ax = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained").subplots() if ax is None else ax
    lines = lines_of(columns, x, value)
    for (label, points), colour, marker in zip(lines.items(), cycle(SERIES), cycle(MARKERS), strict=False):
        xs, ys = zip(*points, strict=True)
        ax.plot(xs, ys, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
    names, unit = names_of(columns[x])
    every = sorted({at for points in lines.values() for at, _ in points})
    ticks = every[:: ceil(len(every) / TICKS)]
    if ticks[0] > 0:
        ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [names[tick] for tick in ticks])
    values = [at for points in lines.values() for _, at in points]
    _value_axis(ax, values)
    ax.set_xlabel(label_of(palette.literal(x), unit))
    set_unit(ax.yaxis, *named(value), values, log=ax.get_yscale() == "log")
    _plain(ax)
    if len(lines) > 1:
        ax.legend(frameon=False, fontsize=8)
    return ax


def _value_axis(ax: Axes, values: Sequence[float]) -> None:
    """From zero where the values lie within a decade, so that a small change looks small; else logarithmic."""
    if max(values) < 10 * min(values):
        ax.set_ylim(0, 1.08 * max(values))
        return
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_formatter("")


def scaling_figure(columns: Mapping[str, Sequence[Any]], x: str, *, title: str = "") -> Figure:
    """Latency along `x`; for `x` = batch also the throughput, inferences a second."""
    panels = ["latency_s"]
    table = dict(columns)
    if x == "batch":
        table["throughput_per_s"] = [
            None if seconds is None else (number_of(batch) or 0.0) / seconds
            for batch, seconds in zip(columns[x], columns["latency_s"], strict=True)
        ]
        panels.append("throughput_per_s")
    figure = Figure(figsize=(5.2 * len(panels) + 0.6, 4.0), dpi=150, layout="constrained")
    for ax, value in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        scaling(table, x, value=value, ax=ax)
    figure.suptitle(title)
    return figure
