"""Parallel coordinates of the designs that none beats: what each is made of, and what it reaches."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from sim.codesign.answer import value_text
from sim.errors import UnitError
from sim.units import Dimension, parse_quantity
from sim.view.objectives import COLOURS, colour_bar, norm_of, wide
from sim.view.palette import GREY, LIGHT_GREY, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sim.codesign.found import Found

NAMED = 8
"""Values of a parameter that are named; of more only the ends."""
LETTERS = 24
"""Letters of a value that are shown."""
LETTER_IN, GAP_IN, END_IN = 0.062, 0.6, 0.05
"""Width of a letter, least distance between the values of two axes, and air beside a value [inch]."""


class Place(NamedTuple):
    """An axis: its name, the texts along it from below, and whether lines leave a gap for them."""

    name: str
    texts: list[str]
    gap: bool


def coordinates(found: Found) -> tuple[list[str], np.ndarray, list[list[str]]]:
    """Axes names, (rows, axes) heights in [0, 1] of the Pareto set, and the ticks of each axis, from below.

    What is the same in all designs, or prints as the same, stands in the middle. Objectives are logarithmic where they
    are `wide`.
    """
    names = list(dict.fromkeys(name for row in found.front for name in row.parameters))
    columns, ticks = [], []
    for name in names:
        texts = [str(row.parameters.get(name, "-")) for row in found.front]
        order = sorted(set(texts), key=_natural)
        columns.append([order.index(t) / (len(order) - 1) if len(order) > 1 else 0.5 for t in texts])
        ticks.append(order)
    for k, objective in enumerate(found.objectives):
        values = np.array([row.values[k] for row in found.front])
        ends = [value_text(objective, float(v)) for v in (values.min(), values.max())]
        same = ends[0] == ends[1]
        log = wide(list(values))
        places = np.log(values) if log else values
        columns.append([0.5] * len(values) if same else list((places - places.min()) / float(np.ptp(places))))
        ticks.append(ends[:1] if same else ends)
        names.append(f"{objective} (log)" if log else objective)
    return names, np.array(columns).T, ticks


def _natural(text: str) -> tuple[float, str]:
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
    """One line per Pareto design over parameters and objectives; its colour is the first objective that differs.

    Lines leave a gap where the values of a parameter are written; an objective's ends are written beyond its axis.
    """
    names, heights, ticks = coordinates(found)
    parameters = len(names) - len(found.objectives)
    places = [
        Place(name, [_short(text) for text in texts], len(texts) <= (NAMED if i < parameters else 1))
        for i, (name, texts) in enumerate(zip(names, ticks, strict=True))
    ]
    texts = [LETTER_IN * max(map(len, p.texts)) + 2 * END_IN for p in places]
    widths = [text if p.gap else 0.0 for p, text in zip(places, texts, strict=True)]
    between = zip(pairwise(widths), pairwise(texts), strict=True)
    steps = [max(sum(pair) / 2 + GAP_IN, sum(whole) / 2) for pair, whole in between]
    xs = np.concatenate([[0.0], np.cumsum(steps)])
    if ax is None:
        ax = Figure(figsize=(max(7.0, float(xs[-1]) + 2.5), 4.8), dpi=150, layout="constrained").subplots()
    shown = next((k for k in range(len(found.objectives)) if len(ticks[parameters + k]) > 1), 0)
    values = [row.values[shown] for row in found.front]
    key = ScalarMappable(norm_of(values), colormaps[COLOURS])
    for line, shade in zip(heights, key.to_rgba(np.array(values)), strict=True):
        corners = [(x + side * width / 2, h) for x, width, h in zip(xs, widths, line, strict=True) for side in (-1, 1)]
        for start in range(1, len(corners) - 1, 2):  # from the right end of a value to the left end of the next
            ax.plot(*zip(*corners[start : start + 2], strict=True), color=shade, alpha=0.8)
    for x, place in zip(xs, places, strict=True):
        _write_axis(ax, float(x), place)
    ax.set_xticks(xs, [literal(name) for name in names], rotation=35, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks([])
    ax.set_xlim(xs[0] - max(widths[0] / 2, 0.2), xs[-1] + 0.45)
    ax.set_ylim(-0.08, 1.08)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    if min(values) < max(values):
        colour_bar(ax, key, found, shown, values)
    return ax


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"


def _write_axis(ax: Axes, x: float, place: Place) -> None:
    if place.gap:
        for i, text in enumerate(place.texts):
            height = i / (len(place.texts) - 1) if len(place.texts) > 1 else 0.5
            ax.text(x, height, literal(text), fontsize=8, ha="center", va="center")
        return
    ax.plot([x, x], [0, 1], color=LIGHT_GREY, linewidth=0.9, zorder=0)
    ends = [(0.0, place.texts[0], "top", -4), (1.0, place.texts[-1], "bottom", 4)]
    for height, text, va, rise in ends:
        ax.annotate(literal(text), (x, height), xytext=(0, rise), textcoords="offset points", fontsize=8, ha="center",
                    va=va, color=GREY)  # fmt: skip
