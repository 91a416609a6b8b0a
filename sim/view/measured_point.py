"""A measured network beside its roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.view import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sim.cost.roofline import Roofline


def measured_point(bound: Roofline, measured_s: float, *, ax: Axes, label: str = "measured") -> Axes:
    """A star on the axes of a roofline: the network's operational intensity over its compulsory bytes at the home
    memory [FLOP/byte], and its operations over the measured time [FLOP/s]. The axes grow to hold it."""
    flops = sum(op.flops for op in bound.ops)
    intensity, rate = flops / sum(bound.compulsory_bytes.values()), flops / measured_s
    ax.plot([intensity], [rate], marker="*", markersize=15, color=palette.ORANGE, markeredgecolor=palette.BLACK,
            linestyle="none", zorder=6)  # fmt: skip
    ax.annotate(f"{label}, {measured_s * 1e3:.3g} ms", (intensity, rate), xytext=(9, -4), textcoords="offset points",
                fontsize=8.5, zorder=6)  # fmt: skip
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, rate / 2), max(high, rate * 2))
    left, right = ax.get_xlim()
    ax.set_xlim(min(left, intensity / 2), max(right, intensity * 2))
    return ax
