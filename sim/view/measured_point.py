"""A measured network beside its roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.view import palette
from sim.view.points import measured_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sim.cost.roofline import Roofline


def measured_point(bound: Roofline, measured_s: float, *, ax: Axes, label: str = "measured") -> Axes:
    """A star on any axes of FLOP/byte and FLOP/s, at `measured_place`. The axes grow to hold it.

    `figures.roofline(..., measured_s=...)` draws it into a roofline, with every label clear of it.
    """
    intensity, rate = measured_place(bound, measured_s)
    draw_star(ax, intensity, rate)
    ax.annotate(f"{label}, {measured_s * 1e3:.3g} ms", (intensity, rate), xytext=(9, -4), textcoords="offset points",
                fontsize=8.5, zorder=6)  # fmt: skip
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, rate / 2), max(high, rate * 2))
    left, right = ax.get_xlim()
    ax.set_xlim(min(left, intensity / 2), max(right, intensity * 2))
    return ax


def draw_star(ax: Axes, x: float, y: float) -> None:
    ax.scatter([x], [y], marker="*", s=STAR_PT**2, color=palette.ORANGE, edgecolors=palette.BLACK, zorder=6)


STAR_PT = 15.0
"""Width of the star [pt]."""
