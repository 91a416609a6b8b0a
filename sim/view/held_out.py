"""Measured against estimated, held out: ops by class, networks by model with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from sim.view import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)
FINE_TICKS = (0.5, 0.8, 1.0, 1.25, 2.0)
"""Ratios on the axis; the fine ones where it spans less than WIDE."""
WIDE = 8.0


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


def held_out(points: Sequence[Point], *, networks: bool = True, ax: Axes | None = None) -> Axes:
    """One row a group, one dot a record at measured / estimated; a bar is its 90 % interval, over the estimate.

    `networks` chooses whole networks by model, or ops by class. A measured time outside its interval is red.
    """
    chosen = [p for p in points if p.network is networks]
    groups = sorted({p.group for p in chosen})
    if ax is None:
        height = 1.2 + 0.36 * len(groups)
        ax = Figure(figsize=(7.0, height), dpi=150).add_axes((0.2, 0.62 / height, 0.77, 1 - 1.0 / height))
    for row, group in enumerate(groups):
        inside = sorted((p for p in chosen if p.group == group), key=lambda p: p.estimated_s)
        for place, point in enumerate(inside):
            y = row + 0.7 * ((place + 0.5) / len(inside) - 0.5)
            _dot(ax, point, y)
    ax.axvline(1.0, color=palette.BLACK, linewidth=0.9)
    ax.set_xscale("log")
    left, right = ax.get_xlim()
    ticks = [tick for tick in (TICKS if right / left > WIDE else FINE_TICKS) if left <= tick <= right]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_yticks(range(len(groups)), groups, fontsize=8.5)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel("measured / estimated" + (", bars: 90 % intervals" if networks else ""))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def _dot(ax: Axes, point: Point, y: float) -> None:
    ratio, colour = point.measured_s / point.estimated_s, palette.BLUE
    if point.interval_s is not None:
        low, high = (end / point.estimated_s for end in point.interval_s)
        ax.plot([low, high], [y, y], color=palette.LIGHT_GREY, linewidth=2.2, solid_capstyle="butt", zorder=1)
        colour = palette.BLUE if low <= ratio <= high else palette.VERMILION
    ax.plot([ratio], [y], marker="o", markersize=3.4, color=colour, linestyle="none", zorder=3)
