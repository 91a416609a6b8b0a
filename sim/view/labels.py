"""Placing labels so that they cover neither each other nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from sim.view import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RADII = (12, 20, 30, 44, 60, 80)
"""Distances [pt] from the point that are tried in turn, each in `_DIRECTIONS` directions."""
_DIRECTIONS = 16
HALO = [Stroke(linewidth=2.2, foreground="white"), Normal()]
"""A white rim, so that a text is read where a line runs behind it."""


def renderer_of(ax: Axes) -> Any:
    """What measures texts: the figure's own, or Agg's where its canvas has none yet."""
    figure: Any = ax.get_figure(root=True)
    canvas = figure.canvas if hasattr(figure.canvas, "get_renderer") else FigureCanvasAgg(figure)
    return canvas.get_renderer()


def place_labels(
    ax: Axes,
    labels: Sequence[tuple[float, float, str]],
    points: Sequence[tuple[float, float, float]],
    obstacles: Sequence[Any],
) -> None:
    """Write each (x, y, text) beside its point, in the order given, with a thin leader.

    `points` are (x, y, radius [pt]). A position is taken when the text lies inside the axes and
    covers no point, no earlier label and no obstacle (other texts, the legend); a label that finds
    none is left out.
    """
    renderer = renderer_of(ax)
    legend = ax.get_legend()
    taken = [item.get_window_extent(renderer) for item in (*obstacles, *([legend] if legend else []))]
    scale = ax.figure.dpi / 72
    discs = [(*ax.transData.transform((x, y)), radius * scale) for x, y, radius in points]
    inside = ax.get_window_extent(renderer)
    for x, y, text in labels:
        note = ax.annotate(
            palette.literal(text), (x, y), xytext=(0, 0), textcoords="offset points", fontsize=7.5, ha="center",
            va="center", zorder=6, path_effects=HALO,
            arrowprops={"arrowstyle": "-", "color": palette.GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip
        box = _free_position(note, renderer, taken, discs, inside)
        if box is None:
            note.remove()
        else:
            taken.append(box)


def _free_position(note: Any, renderer: Any, taken: Sequence[Bbox], discs: Sequence[Any], inside: Bbox) -> Bbox | None:
    size = note.get_window_extent(renderer)
    half = size.width * 72 / note.figure.dpi / 2
    for radius in _RADII:
        for k in range(_DIRECTIONS):
            angle = 2 * pi * k / _DIRECTIONS + pi / 8
            note.set_position((cos(angle) * (radius + half), sin(angle) * radius))
            box = text_box(note, renderer)
            free = (
                inside.x0 < box.x0 and box.x1 < inside.x1 and inside.y0 < box.y0 and box.y1 < inside.y1
                and not any(box.overlaps(other) for other in taken)
                and not any(box.x0 - r < px < box.x1 + r and box.y0 - r < py < box.y1 + r for px, py, r in discs)
            )  # fmt: skip
            if free:
                return box
    return None


def text_box(note: Any, renderer: Any) -> Bbox:
    """The text alone (an annotation's own extent includes its leader), with a little air."""
    note.update_positions(renderer)
    return Bbox.from_extents(*Text.get_window_extent(note, renderer).padded(2).extents)
