"""Measured against estimated, held out, with intervals: ops by class, networks by model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from sim.view import given, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
FINE_TICKS = (0.5, 0.8, 1.0, 1.25, 2.0)
"""Ratios on the axis; the fine ones where it spans less than WIDE."""
WIDE = 8.0
DOT_ROWS, GAP_ROWS = 0.09, 0.3
"""Height of a record and between two groups, in rows; a group of many records is higher than one row."""
ROW_IN, BELOW_IN, ABOVE_IN = 0.36, 0.62, 0.75
"""Height of a row, and of what stands below and above the axes [in]."""


@runtime_checkable
class Point(Protocol):
    """As `sim.baseline.calibrate.HeldOut`."""

    @property
    def group(self) -> str: ...
    @property
    def network(self) -> bool: ...
    @property
    def measured_s(self) -> float: ...
    @property
    def estimated_s(self) -> float: ...
    @property
    def interval_s(self) -> tuple[float, float] | None: ...


def held_out(points: Sequence[Point], *, networks: bool = True, device: str = "", ax: Axes | None = None) -> Axes:
    """One row a group, one dot a record at measured / estimated; a bar is its 90 % interval, over the estimate.

    `networks` chooses whole networks by model, or ops by class. A measured time outside its interval is orange. The
    title names the device, if it is given. Raises: ConfigError: no records.
    """
    points = given.several(points, of="held_out")
    for point in points:
        due = "records that were left out of a fit, as sim.baseline.calibrate.held_out gives them"
        given.first(point, Point, due, of="held_out")
    chosen = [p for p in points if p.network is networks]
    groups = {name: [p for p in chosen if p.group == name] for name in sorted({p.group for p in chosen})}
    heights = [max(1.0, GAP_ROWS + DOT_ROWS * len(inside)) for inside in groups.values()]
    if ax is None:
        height = BELOW_IN + ABOVE_IN + ROW_IN * sum(heights)
        place = (0.2, BELOW_IN / height, 0.77, 1 - (BELOW_IN + ABOVE_IN) / height)
        ax = Figure(figsize=(7.0, height), dpi=150).add_axes(place)
    centres, top = [], 0.0
    for inside, row in zip(groups.values(), heights, strict=True):
        centres.append(top + row / 2)
        for place_in_row, point in enumerate(sorted(inside, key=lambda p: p.estimated_s)):
            _dot(ax, point, centres[-1] + (row - GAP_ROWS) * ((place_in_row + 0.5) / len(inside) - 0.5))
        top += row
    ax.axvline(1.0, color=palette.BLACK, linewidth=0.9)
    ax.set_xscale("log")
    left, right = ax.get_xlim()
    ticks = [tick for tick in (TICKS if right / left > WIDE else FINE_TICKS) if left <= tick <= right]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_yticks(centres, [palette.literal(name) for name in groups], fontsize=8.5)
    ax.set_ylim(top, 0.0)
    ax.set_xlabel("measured / estimated")
    what = "whole networks, their models left out of the fit" if networks else "ops, their shapes left out of the fit"
    ax.set_title(palette.literal(f"{device}: {what}" if device else what), loc="left", fontsize=9.5, pad=24)
    _legend(ax, any(p.interval_s is not None for p in chosen))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def inside_interval(point: Point) -> bool:
    """Whether the measured time lies in the interval; a point without one is not outside."""
    return point.interval_s is None or point.interval_s[0] <= point.measured_s <= point.interval_s[1]


def _dot(ax: Axes, point: Point, y: float) -> None:
    if point.interval_s is not None:
        low, high = (end / point.estimated_s for end in point.interval_s)
        ax.plot([low, high], [y, y], **_BAR, zorder=1)
    colour = palette.BLUE if inside_interval(point) else palette.VERMILION
    ax.plot([point.measured_s / point.estimated_s], [y], **_MARK, color=colour, zorder=3)


_BAR: dict[str, Any] = {"color": palette.LIGHT_GREY, "linewidth": 2.2, "solid_capstyle": "butt"}
_MARK: dict[str, Any] = {"marker": "o", "markersize": 3.4, "linestyle": "none"}


def _legend(ax: Axes, intervals: bool) -> None:
    """What dots and bars are, above the axes; without intervals there is nothing to tell."""
    if not intervals:
        return
    entries = [
        Line2D([], [], **_MARK, color=palette.BLUE, label="measured, inside its interval"),
        Line2D([], [], **_MARK, color=palette.VERMILION, label="outside its interval"),
        Line2D([], [], **_BAR, label="90 % interval"),
    ]
    ax.legend(handles=entries, frameon=False, fontsize=8.5, ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0))
