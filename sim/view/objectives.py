"""Names, units and scales of a search's objectives on axes and colour bars."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from sim.view.unit_axis import label_of, set_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.cm import ScalarMappable

    from sim.codesign.found import Found

WIDE = 8
"""Largest over smallest value from which on an axis is logarithmic."""
DECADES = 1000
"""Below this a logarithmic axis has ticks at 1, 2 and 5."""
LABEL_LETTERS = 50
"""Letters of an axis' label in a line; a quality's metric can be long."""
COLOURS = "viridis"

UNITS = {
    "latency": "s", "energy": "J", "edp": "J s", "area": "mm2", "power": "W", "peak_power": "W", "die_cost": "USD",
    "throughput": "1/s", "goodput": "1/s",
}  # fmt: skip


def name_of(objective: str, metric: str = "") -> str:
    """The objective, or what a quality measures."""
    return f"quality ({metric})" if objective == "quality" and metric not in ("", objective) else objective


def label(objective: str, metric: str = "") -> str:
    """The objective with its base unit, or what a quality measures."""
    return label_of(name_of(objective, metric), UNITS.get(objective, ""))


def wide(values: Sequence[float]) -> bool:
    """Whether the values want a logarithmic axis."""
    return bool(values) and 0 < WIDE * min(values) < max(values)


def objective_axis(axis: Axis, found: Found, k: int, values: Sequence[float]) -> None:
    """Label, unit, ticks and direction of the `k`-th objective; the axis already is logarithmic where it is `wide`."""
    log = wide(values)
    if log:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) < DECADES * min(values) else (1,)))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(8, steps=(1, 2, 5, 10)))
    name = name_of(found.objectives[k], found.quality_metric)
    better = ", smaller is better" if found.signs[k] > 0 else ", larger is better"
    unit = UNITS.get(found.objectives[k], "").replace("mm2", "mm²")
    set_unit(axis, name, unit, values, log=log, more=better)
    axis.set_label_text(fill(axis.get_label_text(), LABEL_LETTERS))


def norm_of(values: Sequence[float]) -> Normalize:
    """Values to colours, logarithmic where an axis would be."""
    return (LogNorm if wide(values) else Normalize)(min(values), max(values))


def colour_bar(ax: Axes, drawn: ScalarMappable, found: Found, k: int, values: Sequence[float]) -> None:
    """The key of a colour that shows the `k`-th objective."""
    bar = ax.figure.colorbar(drawn, ax=ax, fraction=0.05, pad=0.02)
    objective_axis(bar.ax.yaxis, found, k, values)
