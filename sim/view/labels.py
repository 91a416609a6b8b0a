"""Placing labels where no line, disc or other label crosses them."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, radians, sin
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import Normal, Stroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from sim.view import palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RADII = (12, 20, 30, 44, 60, 80, 100)
"""Distances [pt] from the point that are tried in turn, each in `_DIRECTIONS` directions."""
_DIRECTIONS = 16
_SIDES = 12
"""Corners of the polygon that stands for a disc."""
HALO = [Stroke(linewidth=2.2, foreground="white"), Normal()]
"""A white rim, so that a text is read where a line runs behind it."""


def renderer_of(ax: Axes) -> Any:
    """What measures texts: the figure's own, or Agg's where its canvas has none yet."""
    figure: Any = ax.get_figure(root=True)
    canvas = figure.canvas if hasattr(figure.canvas, "get_renderer") else FigureCanvasAgg(figure)
    return canvas.get_renderer()


def apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two convex outlines, (corners, 2) each, share no point; a line has two corners.

    Convex sets are apart when the normal of one of their edges separates them.
    """
    for shape in (one, other):
        edges = np.roll(shape, -1, axis=0) - shape
        normals = np.stack([-edges[:, 1], edges[:, 0]])
        first, second = one @ normals, other @ normals
        if ((first.max(axis=0) < second.min(axis=0)) | (second.max(axis=0) < first.min(axis=0))).any():
            return True
    return False


class Place(NamedTuple):
    """Where a note may stand: its point in data coordinates, the offset [pt] from it, and how it is aligned there."""

    xy: tuple[float, float]
    offset: tuple[float, float]
    ha: str
    va: str


class Room:
    """What is taken on the axes, in pixels. Set the limits of the axes first: texts keep their place in pixels."""

    def __init__(self, ax: Axes) -> None:
        self.renderer = renderer_of(ax)
        self.pixels_per_pt = ax.figure.dpi / 72
        self.inside = ax.get_window_extent(self.renderer)
        self._ax = ax
        self._taken: dict[str, list[np.ndarray]] = {"line": [], "disc": [], "text": [], "leader": []}

    def take_line(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """A line through points in data coordinates."""
        corners = self._ax.transData.transform(np.column_stack([xs, ys]))
        self._taken["line"] += [corners[i : i + 2] for i in range(len(corners) - 1)]

    def take_disc(self, x: float, y: float, radius_pt: float) -> None:
        turns = np.arange(_SIDES) * 2 * pi / _SIDES
        ring = np.stack([np.cos(turns), np.sin(turns)], axis=1) * radius_pt * self.pixels_per_pt
        self._taken["disc"].append(self._ax.transData.transform((x, y)) + ring)

    def take_text(self, outline: np.ndarray) -> None:
        self._taken["text"].append(outline)

    def take_leader(self, start: np.ndarray, end: np.ndarray) -> None:
        self._taken["leader"].append(np.array([start, end]))

    def taken(self, kind: str) -> Sequence[np.ndarray]:
        return self._taken[kind]

    def free(self, outline: np.ndarray, kinds: Sequence[str] = ("line", "disc", "text", "leader")) -> bool:
        """Whether nothing taken of these kinds meets the outline."""
        low, high = outline.min(axis=0), outline.max(axis=0)
        return not any(
            (other.min(axis=0) <= high).all() and (other.max(axis=0) >= low).all() and not apart(outline, other)
            for kind in kinds
            for other in self._taken[kind]
        )

    def holds(self, outline: np.ndarray) -> bool:
        """Whether the outline lies inside the axes."""
        (left, low), (right, high) = outline.min(axis=0), outline.max(axis=0)
        box = self.inside
        return bool(box.x0 < left and right < box.x1 and box.y0 < low and high < box.y1)

    def first_free(self, note: Annotation, places: Sequence[Place]) -> bool:
        """Set the note to the first of `places` where nothing crosses it, else to one where no text does: its rim keeps
        it legible over a line. False, and the note is gone, where there is none."""
        for kinds in (("line", "disc", "text", "leader"), ("disc", "text"), ("text",)):
            for place in places:
                note.xy = place.xy
                note.set(position=place.offset, ha=place.ha, va=place.va)
                outline = outline_of(note, self.renderer)
                if self.holds(outline) and self.free(outline, kinds):
                    self.take_text(outline)
                    return True
        note.remove()
        return False


def place_labels(ax: Axes, labels: Sequence[tuple[float, float, str]], room: Room) -> None:
    """Write each (x, y, text) beside its point, in the order given, with a thin leader.

    A position is taken when the text lies inside the axes and nothing in `room` crosses it or its leader, but for lines
    under a leader; a second round lets leaders run over discs. A label that finds no position is left out.
    """
    for x, y, text in labels:
        note = ax.annotate(
            palette.literal(text), (x, y), xytext=(0, 0), textcoords="offset points", fontsize=7.5, ha="center",
            va="center", zorder=6, path_effects=HALO,
            arrowprops={"arrowstyle": "-", "color": palette.GREY, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip
        point = ax.transData.transform((x, y))
        size = text_box(note, room.renderer)
        place = _free_place(point, size, room)
        if place is None:
            note.remove()
            continue
        note.set_position(place)
        room.take_text(outline_of(note, room.renderer))
        room.take_leader(point, point + np.array(place) * room.pixels_per_pt)


def _free_place(point: np.ndarray, size: Bbox, room: Room) -> tuple[float, float] | None:
    """Offset [pt] of the middle of a text of that size from its point."""
    half = np.array([size.width, size.height]) / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    for leader_avoids in (("disc", "text"), ("text",)):
        for radius in _RADII:
            for k in range(_DIRECTIONS):
                angle = 2 * pi * k / _DIRECTIONS + pi / 8
                place = (cos(angle) * (radius + half[0] / room.pixels_per_pt), sin(angle) * radius)
                middle = point + np.array(place) * room.pixels_per_pt
                outline = middle + corners
                if room.holds(outline) and room.free(outline) and _clear(point, middle, room, leader_avoids):
                    return place
    return None


def _clear(point: np.ndarray, middle: np.ndarray, room: Room, kinds: Sequence[str]) -> bool:
    """Whether the leader meets nothing, but for what its point lies in."""
    way = np.array([point, middle])
    dot = np.array([point, point + 0.5])
    return all(
        apart(way, other) or not apart(dot, other)
        for kind in kinds
        for other in room.taken(kind)
    )  # fmt: skip


def text_box(note: Any, renderer: Any) -> Bbox:
    """The text alone (an annotation's own extent includes its leader), with a little air."""
    note.update_positions(renderer)
    return Bbox.from_extents(*Text.get_window_extent(note, renderer).padded(2).extents)


def outline_of(note: Annotation, renderer: Any) -> np.ndarray:
    """The four corners of the text alone, turned as it is (about its anchor), with a little air."""
    angle = note.get_rotation()
    note.set_rotation(0)
    box = text_box(note, renderer)
    anchor = note.get_transform().transform(note.get_unitless_position())
    note.set_rotation(angle)
    corners = np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])
    c, s = cos(radians(angle)), sin(radians(angle))
    return np.asarray(anchor + (corners - anchor) @ np.array([[c, s], [-s, c]]))
