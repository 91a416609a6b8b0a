"""Figures of a search: frontier with baselines, parallel coordinates, importance, hypervolume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from sim.codesign.answer import value_text
from sim.view.charts import formatter
from sim.view.palette import BLUE, CYCLE, GREY, LIGHT_GREY, ORANGE, VERMILION, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sim.codesign.found import Found

WIDE = 8
"""Largest over smallest value from which on an axis is logarithmic."""
DECADES = 1000
"""Below this a logarithmic axis has ticks at 1, 2 and 5."""

UNITS = {
    "latency": "s", "energy": "J", "edp": "J s", "area": "mm2", "power": "W", "peak_power": "W", "die_cost": "USD",
    "throughput": "1/s", "goodput": "1/s",
}  # fmt: skip


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    return Figure(figsize=(7, 4.5), dpi=150, layout="constrained").subplots()


def label(objective: str, metric: str = "") -> str:
    """The objective with its unit, or what a quality measures."""
    if objective == "quality" and metric:
        return f"quality ({metric})"
    return f"{objective} [{UNITS[objective]}]" if objective in UNITS else objective


def frontier(found: Found, *, x: int = 0, y: int = 1, ax: Axes | None = None) -> Axes:
    """Two objectives of every feasible design, the Pareto set on top, known designs and baselines named.

    With more than two objectives the Pareto set is that of all of them, seen in these two.
    """
    ax = _axes(ax)
    best = {row.number for row in found.front}
    beaten = tuple(row for row in found.feasible if row.number not in best)
    known = tuple(row for row in found.rows if row.known)
    for rows, colour, size, marker, name in (
        (beaten, LIGHT_GREY, 12, "o", "feasible, beaten"),
        (found.front, BLUE, 22, "o", "Pareto set"),
        (known, ORANGE, 45, "D", "known designs"),
    ):
        if rows:
            across, up = ([row.values[k] for row in rows] for k in (x, y))
            ax.scatter(across, up, color=colour, s=size, marker=marker, label=name)
    for row in found.rows:
        if row.known:
            ax.annotate(
                literal(row.known),
                (row.values[x], row.values[y]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=8,
            )
    for point in found.baselines:
        here = (point.values[x], point.values[y])
        if here[0] is not None and here[1] is not None:
            ax.scatter(here[0], here[1], color=VERMILION, marker="*", s=90)
            ax.annotate(literal(point.name), (here[0], here[1]), xytext=(4, 4), textcoords="offset points", fontsize=8)
        elif here[0] is not None:  # its record says nothing of the other axis: a line at what it reached
            ax.axvline(here[0], color=VERMILION, linewidth=1.0, linestyle="--")
            ax.annotate(literal(point.name), (here[0], 0.02), xycoords=("data", "axes fraction"), xytext=(-4, 0),
                        textcoords="offset points", rotation=90, fontsize=8, ha="right", color=VERMILION)  # fmt: skip
        elif here[1] is not None:
            ax.axhline(here[1], color=VERMILION, linewidth=1.0, linestyle="--")
            ax.annotate(literal(point.name), (0.02, here[1]), xycoords=("axes fraction", "data"), xytext=(0, 4),
                        textcoords="offset points", fontsize=8, color=VERMILION)  # fmt: skip
    for axis, k, set_scale in ((ax.xaxis, x, ax.set_xscale), (ax.yaxis, y, ax.set_yscale)):
        values = [row.values[k] for row in found.feasible]
        values += [v for v in (point.values[k] for point in found.baselines) if v is not None]
        if values and 0 < WIDE * min(values) < max(values):
            set_scale("log")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < DECADES * min(values) else (1,)))
            axis.set_minor_formatter(NullFormatter())
        elif axis is ax.xaxis:
            axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(formatter(f"{found.objectives[k]}_{UNITS.get(found.objectives[k], '').lower()}"))
        better = "smaller is better" if found.signs[k] > 0 else "larger is better"
        axis.set_label_text(f"{label(found.objectives[k], found.quality_metric)}, {better}")
    if found.feasible:
        ax.legend(frameon=False, fontsize=8.5)
    _plain(ax)
    return ax


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)


def coordinates(found: Found) -> tuple[list[str], np.ndarray, list[list[str]]]:
    """Axes names, (rows, axes) heights in [0, 1] of the Pareto set, and the ticks of each parameter axis."""
    names = list(dict.fromkeys(name for row in found.front for name in row.parameters))
    columns, ticks = [], []
    for name in names:
        texts = [str(row.parameters.get(name, "-")) for row in found.front]
        order = sorted(set(texts), key=_natural)
        columns.append([order.index(t) / max(1, len(order) - 1) for t in texts])
        ticks.append(order)
    for k in range(len(found.objectives)):
        values = np.array([row.values[k] for row in found.front])
        width = float(np.ptp(values)) or 1.0
        columns.append(list((values - values.min()) / width))
        ticks.append([value_text(found.objectives[k], float(v)) for v in (values.min(), values.max())])
    return [*names, *found.objectives], np.array(columns).T, ticks


def _natural(text: str) -> tuple[float, str]:
    from sim.errors import UnitError
    from sim.units import Dimension, parse_quantity

    for dimension in Dimension:
        try:
            return parse_quantity(text, dimension), ""
        except UnitError:
            continue
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text


def parallel_coordinates(found: Found, *, ax: Axes | None = None) -> Axes:
    """One line per Pareto design over parameters and objectives; coloured by the first objective."""
    names, heights, ticks = coordinates(found)
    if ax is None:
        ax = Figure(figsize=(max(7.0, 0.85 * len(names)), 4.5), dpi=150, layout="constrained").subplots()
    from matplotlib import colormaps

    shades = colormaps["viridis"](heights[:, -len(found.objectives)])
    for line, shade in zip(heights, shades, strict=True):
        ax.plot(range(len(names)), line, color=shade, alpha=0.7)
    for place, marks in enumerate(ticks):
        ax.axvline(place, color=LIGHT_GREY, linewidth=0.8, zorder=0)
        for i, text in enumerate(marks):
            ax.text(place, i / max(1, len(marks) - 1), text, fontsize=7, ha="center",
                    bbox={"color": "white", "alpha": 0.7, "pad": 0.5})  # fmt: skip
    ax.set_xticks(range(len(names)), [literal(name) for name in names], rotation=35, ha="right", fontsize=8)
    ax.set_yticks([])
    ax.set_ylim(-0.08, 1.08)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def importance(found: Found, *, ax: Axes | None = None) -> Axes:
    """Share of each objective's variance that a parameter explains alone."""
    ax = _axes(ax)
    shares = found.importance()
    names = list(next(iter(shares.values()), {}))
    height = 0.8 / max(1, len(shares))
    for i, (objective, by_name) in enumerate(shares.items()):
        places = [k + (i - (len(shares) - 1) / 2) * height for k in range(len(names))]
        ax.barh(places, [by_name[n] for n in names], height, label=objective, color=CYCLE[i % len(CYCLE)])
    ax.set_yticks(range(len(names)), [literal(name) for name in names], fontsize=8)
    ax.set_xlabel("share of variance explained by the parameter alone")
    ax.legend(frameon=False, fontsize=8.5)
    _plain(ax)
    return ax


def hypervolume_history(found: Found, *, ax: Axes | None = None) -> Axes:
    """Hypervolume in log objectives over model-chip pairs settled, as a share of the last."""
    ax = _axes(ax)
    settled, volumes = found.history()
    ax.step(settled, volumes, where="post", color=BLUE)
    ax.axhline(1.0, color=GREY, linewidth=0.8)
    ax.set_xlabel("model-chip pairs settled")
    ax.set_ylabel("hypervolume (log objectives) / final")
    _plain(ax)
    return ax


def write_figures(found: Found, folder: Path) -> list[Path]:
    """frontier, parallel coordinates, importance and hypervolume as PNG; none without a Pareto set."""
    if not found.front:
        return []
    drawings = {"parallel": parallel_coordinates(found), "importance": importance(found)}
    if len(found.objectives) > 1:
        drawings["frontier"] = frontier(found)
    if len(found.objectives) <= 4:
        drawings["hypervolume"] = hypervolume_history(found)
    paths = []
    for name, ax in drawings.items():
        path = folder / f"{name}.png"
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths
