"""Figures of a search: frontier with baselines, parallel coordinates, importance, hypervolume."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from matplotlib import colormaps
from matplotlib.figure import Figure

from sim.codesign.answer import value_text
from sim.codesign.importance import levels
from sim.view.labels import Room, place_labels
from sim.view.objectives import COLOURS, colour_bar, label, norm_of, objective_axis, wide
from sim.view.palette import BLACK, BLUE, CYCLE, GREY, LIGHT_GREY, ORANGE, VERMILION, literal
from sim.view.parallel import coordinates, parallel_coordinates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sim.codesign.found import Baseline, Found, Row

__all__ = [
    "coordinates",
    "frontier",
    "hypervolume_history",
    "importance",
    "label",
    "parallel_coordinates",
    "write_figures",
]

FAR = 10.0
"""A baseline further than this factor from all designs is named beside the figure: drawn, it would squeeze them."""


def _axes(ax: Axes | None, size: tuple[float, float] = (7, 4.8)) -> Axes:
    if ax is not None:
        return ax
    return Figure(figsize=size, dpi=150, layout="constrained").subplots()


def frontier(found: Found, *, x: int = 0, y: int = 1, ax: Axes | None = None) -> Axes:
    """Two objectives of every feasible design, the Pareto set on top, known designs and baselines named.

    With more than two objectives the Pareto set is that of all of them; the first of the others is its colour. A
    baseline that lies `FAR` off is in the key only, with its values.
    """
    ax = _axes(ax)
    best = {row.number for row in found.front}
    beaten = tuple(row for row in found.feasible if row.number not in best)
    known = tuple(row for row in found.rows if row.known)
    colours = _Colours(found, next((k for k in range(len(found.objectives)) if k not in (x, y)), None))
    near = [point for point in found.baselines if not _is_far(found, point, (x, y))]
    for rows, style, name in (
        (beaten, {"color": LIGHT_GREY, "s": 12}, "feasible, beaten"),
        (found.front, {"s": 26, **colours.of(found.front)}, f"Pareto set{_seen(found, x, y, colours)}"),
        (known, {"s": 45, "marker": "D", **colours.of(known, ORANGE)}, "known designs"),
    ):
        if rows:
            across, up = ([row.values[k] for row in rows] for k in (x, y))
            ax.scatter(across, up, label=name, **style)
    for point in near:
        _draw_baseline(ax, point, (x, y))
    for axis, k, set_scale in ((ax.xaxis, x, ax.set_xscale), (ax.yaxis, y, ax.set_yscale)):
        values = [row.values[k] for row in found.feasible]
        values += [v for v in (point.values[k] for point in near) if v is not None]
        if wide(values):
            set_scale("log")
        objective_axis(axis, found, k, values)
    for point in found.baselines:
        if point not in near:
            texts = [value_text(found.objectives[k], v) for k, v in enumerate(point.values) if v is not None]
            ax.scatter([], [], color=VERMILION, marker="*", s=90,
                       label=f"{literal(point.name)}: {', '.join(texts)}, beyond the axes")  # fmt: skip
    if found.feasible:
        _legend_above(ax, colours)
    colours.key(ax)
    _plain(ax)
    _name_points(ax, found, known, near, (x, y))
    return ax


def _legend_above(ax: Axes, colours: _Colours) -> None:
    """Outside the data, where no marker of it reads as a design; one line if it is short."""
    handles, names = ax.get_legend_handles_labels()
    if colours.shown:  # a key of no value
        plain = ax.scatter([], [], s=26, color=LIGHT_GREY, edgecolors=BLACK, linewidths=0.4)
        handles = [plain if name.startswith("Pareto set") else h for h, name in zip(handles, names, strict=True)]
    short = sum(map(len, names)) < LEGEND_LETTERS
    ax.legend(handles, names, frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(-0.01, 1.0),
              ncols=len(names) if short else 1, borderaxespad=0.2, handletextpad=0.3, columnspacing=1.5)  # fmt: skip


LEGEND_LETTERS = 60
"""Letters that a line of the legend holds."""


class _Colours:
    """The colour of a design says its `k`-th objective, where there is one and it differs."""

    def __init__(self, found: Found, k: int | None) -> None:
        self.found, self.k = found, k
        rows = (*found.front, *(row for row in found.rows if row.known))
        self.values = [] if k is None else [row.values[k] for row in rows if isfinite(row.values[k])]
        self.shown = len(set(self.values)) > 1
        self._drawn: Any = None
        if self.shown:
            from matplotlib.cm import ScalarMappable

            self._drawn = ScalarMappable(norm_of(self.values), colormaps[COLOURS])

    def of(self, rows: tuple[Row, ...], edge: str | None = None) -> dict[str, Any]:
        """Style of a scatter of these rows; `edge` is the colour of their rim, or theirs where no objective is."""
        if not self.shown or self.k is None:
            return {"color": edge or BLUE}
        here = [row.values[self.k] for row in rows]
        return {"color": self._drawn.to_rgba(here), "edgecolors": edge or BLACK, "linewidths": 1.5 if edge else 0.4}

    def key(self, ax: Axes) -> None:
        if self.shown and self.k is not None:
            colour_bar(ax, self._drawn, self.found, self.k, self.values)


def _seen(found: Found, x: int, y: int, colours: _Colours) -> str:
    """ " of energy, quality, area (colour)": what the set is best in, and how the figure shows it."""
    if len(found.objectives) < 3:
        return ""
    words = []
    for k, objective in enumerate(found.objectives):
        how = "" if k in (x, y) else " (not shown)"
        if k == colours.k and colours.values:
            how = " (colour)" if colours.shown else f" ({value_text(objective, colours.values[0])} in all)"
        words.append(objective + how)
    return f" of {', '.join(words)}"


def _is_far(found: Found, point: Baseline, axes: tuple[int, int]) -> bool:
    for k in axes:
        value, here = point.values[k], [row.values[k] for row in found.feasible]
        if value is not None and here and min(here) > 0 and not min(here) / FAR <= value <= max(here) * FAR:
            return True
    return False


def _draw_baseline(ax: Axes, point: Baseline, axes: tuple[int, int]) -> None:
    """A star, or a line at what it reached where its record says nothing of the other axis."""
    here = (point.values[axes[0]], point.values[axes[1]])
    if here[0] is not None and here[1] is not None:
        ax.scatter(here[0], here[1], color=VERMILION, marker="*", s=90)
    elif here[0] is not None:
        ax.axvline(here[0], color=VERMILION, linewidth=1.0, linestyle="--")
        ax.annotate(literal(point.name), (here[0], 0.02), xycoords=("data", "axes fraction"), xytext=(-4, 0),
                    textcoords="offset points", rotation=90, fontsize=8, ha="right", color=VERMILION)  # fmt: skip
    elif here[1] is not None:
        ax.axhline(here[1], color=VERMILION, linewidth=1.0, linestyle="--")
        ax.annotate(literal(point.name), (0.02, here[1]), xycoords=("axes fraction", "data"), xytext=(0, 4),
                    textcoords="offset points", fontsize=8, color=VERMILION)  # fmt: skip


def _name_points(ax: Axes, found: Found, known: tuple[Row, ...], near: list[Baseline], axes: tuple[int, int]) -> None:
    """Names of known designs and baselines, where no point is."""
    labels = [(row.values[axes[0]], row.values[axes[1]], str(row.known)) for row in known]
    for point in near:
        here = (point.values[axes[0]], point.values[axes[1]])
        if here[0] is not None and here[1] is not None:
            labels.append((here[0], here[1], point.name))
    labels = [item for item in labels if isfinite(item[0]) and isfinite(item[1])]
    if not labels:
        return
    figure: Any = ax.get_figure(root=True)
    figure.draw_without_rendering()  # the layout settles where the axes are
    room = Room(ax)
    for row in found.feasible:
        room.take_disc(row.values[axes[0]], row.values[axes[1]], 3)
    for across, up, _ in labels:
        room.take_disc(across, up, 4)
    place_labels(ax, labels, room)


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)


def importance(found: Found, *, ax: Axes | None = None) -> Axes:
    """Share of the variance of each objective's logarithm that a parameter explains in a joint fit of all.

    The title says on how many pairs it rests; the key what all parameters together explain.
    """
    shares = found.importance()
    counts = levels(found.settings)
    names = [name for name, count in counts.items() if count > 1]
    names.sort(key=lambda name: -max(by_name[name] for by_name in shares.values()))
    ax = _axes(ax, (8.6, 2.2 + 0.4 * len(names)))
    height = 0.8 / max(1, len(shares))
    for i, (objective, by_name) in enumerate(shares.items()):
        places = [k + (i - (len(shares) - 1) / 2) * height for k in range(len(names))]
        name = f"{objective}, in sum {sum(by_name.values()):.2f}"
        ax.barh(places, [by_name[n] for n in names], height, label=name, color=CYCLE[i % len(CYCLE)])
    ax.set_yticks(range(len(names)), [literal(name) for name in names], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the variance of log(objective), additive effects fitted jointly;\n"
                  "what parameters explain alike is split between them", fontsize=9)  # fmt: skip
    pairs, effects = len(found.feasible), sum(count - 1 for count in counts.values())
    title = f"{pairs} feasible pairs, each trial's best and no random sample; {effects} effects fitted"
    if pairs < ENOUGH * effects:
        title += f"\nfewer than {ENOUGH} pairs an effect: a fit to chance is likely"
    fixed = [name for name, count in counts.items() if count == 1]
    if fixed:
        title += "\n" + fill(f"of one value in all pairs, so without a share: {literal(', '.join(fixed))}", 100)
    ax.set_title(title, fontsize=8.5, color=GREY, loc="left")
    ax.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _plain(ax)
    return ax


ENOUGH = 3
"""Pairs for each fitted effect below which the figure warns."""


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
