"""Figures of results: `sim.plot`. Axes-level functions that take a result and return the Axes.

Data step first (`sim.view.points`, `sim.view.rows`), then drawing. Nothing here shows, saves or
changes global settings: `sim.plot.roofline(estimate).figure.savefig("roofline.png")` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan2, cos, degrees, log2, sin, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from sim.cost.roofline import Roofline
from sim.results import Estimate, Term
from sim.view import given, palette, rows
from sim.view.charts import heat_map, measured_against_estimated, pareto, tornado, validation
from sim.view.held_out import held_out
from sim.view.labels import HALO, Place, Room, outline_of, place_labels
from sim.view.points import WHY_ABOVE, Point, Roof, RooflineView, view_of
from sim.view.timeline import memory, timeline
from sim.view.unit_axis import set_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "breakdown",
    "heat_map",
    "held_out",
    "measured_against_estimated",
    "memory",
    "pareto",
    "roofline",
    "roofline_grid",
    "timeline",
    "tornado",
    "validation",
]


def __dir__() -> list[str]:
    """The figures alone: what `sim.plot.<Tab>` completes."""
    return list(__all__)


LABELS = 8
"""How many of the heaviest ops carry their name."""
_SMALLEST, _LARGEST = 14.0, 620.0
"""Marker areas [pt^2] of an op without time and of one that takes all of it."""
STAR_PT = 15.0
"""Width of the star of a measured network [pt]."""


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    figure = Figure(figsize=size, dpi=150)
    found: Axes = figure.add_axes((0.09, 0.2, 0.885, 0.7))
    return found


def roofline(
    result: Estimate | Roofline,
    *,
    measured_s: float | None = None,
    measured_label: str = "measured",
    ax: Axes | None = None,
) -> Axes:
    """Log-log roofline; x: operational intensity [FLOP/byte], y: throughput [FLOP/s].

    Operations are those under the roof that an op stands under: 2 a MAC, or vector ops where there are none.
    Each disc is an op (or several equal ones): area is its share of the time, colour its kind. Of
    an `Estimate` the discs stand at what is achieved, of a `Roofline` at what is attainable. An op
    that moves (almost) all its bytes on chip is hollow and stands at its intensity over that memory; one
    beyond the axes is an arrow at the edge. A star is the whole network at its measured time, if that is given.
    """
    given.bound_or_estimate(result, of="roofline")
    view = view_of(result, measured_s, measured_label)
    ax = _axes(ax, (9.0, 6.2))
    _frame(ax, view)
    room = Room(ax)
    _draw_ceilings(ax, view, room)
    _draw_points(ax, view, room)
    _draw_legend(ax, view)
    _label_ceilings(ax, view, room)
    heaviest = sorted(view.points, key=lambda point: -point.share)[:LABELS]
    labels = [(*_inside(ax, p)[:2], p.label) for p in heaviest]
    place_labels(ax, [view.measured, *labels] if view.measured else labels, room)
    return ax


def roofline_grid(
    results: Sequence[Estimate | Roofline], *, measured_s: Sequence[float] = (), measured_labels: Sequence[str] = ()
) -> Figure:
    """One roofline per chip on equal scales, side by side (two in a row); measured times and labels in its order, or
    none."""
    results = given.several(results, of="roofline_grid")
    for result in results:
        given.bound_or_estimate(result, of="roofline_grid")
    times_s: list[float | None] = [*measured_s] or [None] * len(results)
    names = [*measured_labels] or ["measured"] * len(results)
    columns = min(2, len(results))
    lines = -(-len(results) // columns)
    figure = Figure(figsize=(9.0 * columns, 6.2 * lines), dpi=150)
    grid = figure.subplots(lines, columns, squeeze=False)
    figure.subplots_adjust(left=0.09 / columns, right=1 - 0.03 / columns, top=1 - 0.1 / lines, bottom=0.2 / lines,
                           hspace=0.45, wspace=0.12)  # fmt: skip
    views = [view_of(*each) for each in zip(results, times_s, names, strict=True)]
    left, right = min(v.x_limits[0] for v in views), max(v.x_limits[1] for v in views)
    low, high = min(v.y_limits[0] for v in views), max(v.y_limits[1] for v in views)
    for result, time_s, name, ax in zip(results, times_s, names, grid.flat, strict=False):
        ax.set_xlim(left, right)
        ax.set_ylim(low, high)
        roofline(result, measured_s=time_s, measured_label=name, ax=ax)
    for ax in grid.flat[len(results) :]:
        ax.remove()
    return figure


def _frame(ax: Axes, view: RooflineView) -> None:
    fresh = not ax.get_autoscalex_on()
    limits = (ax.get_xlim(), ax.get_ylim()) if fresh else (view.x_limits, view.y_limits)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(*limits[0])
    ax.set_ylim(*limits[1])
    ax.xaxis.set_major_locator(LogLocator(base=10))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x < 10_000 else f"{x / 1000:g}k"))
    ax.yaxis.set_major_formatter(EngFormatter())
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.grid(visible=True, which="major", color=palette.LIGHT_GREY, linewidth=0.5)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_xlabel("operational intensity [FLOP/byte]")
    ax.set_ylabel("throughput [FLOP/s]")
    ax.set_title(palette.literal(view.title), loc="left", fontsize=11, fontweight="bold", pad=18)
    ax.text(
        0, 1.015, palette.literal(view.subtitle), transform=ax.transAxes, fontsize=8.5, color=palette.GREY, va="bottom"
    )


def _draw_ceilings(ax: Axes, view: RooflineView, room: Room) -> None:
    """Roofs in black, slanted memories and flat compute; the running precision is the bold one."""
    left, right = ax.get_xlim()
    bottom, _ = ax.get_ylim()

    def line(xs: Sequence[float], ys: Sequence[float], **style: Any) -> None:
        ax.plot(xs, ys, **style)
        room.take_line(xs, ys)

    for roof in view.roofs:
        corner = roof.peak_flop_per_s / roof.bandwidth_bytes_per_s
        xs = [min(left, corner), corner, *([max(right, corner)] if roof.home else [])]
        ys = [min(x * roof.bandwidth_bytes_per_s, roof.peak_flop_per_s) for x in xs]
        if roof.home:
            line(xs, ys, color=palette.BLACK, linewidth=1.6, zorder=2)
            if left < corner < right:
                below = [bottom, roof.peak_flop_per_s]
                line([corner, corner], below, color=palette.GREY, linewidth=0.8, linestyle=":", zorder=2)
        else:
            line(xs, ys, color=palette.GREY, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
    for _, rate, running in view.flats:
        if not running:
            line([left, right], [rate, rate], color=palette.GREY, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)


def _label_ceilings(ax: Axes, view: RooflineView, room: Room) -> None:
    """Names of the running peak, the memories, the other ceilings and the ridge, each where nothing crosses it."""
    bottom, top = ax.get_ylim()
    corner = min((r.peak_flop_per_s / r.bandwidth_bytes_per_s for r in view.roofs if r.home), default=0.0)
    for label, rate, running in sorted(view.flats, key=lambda flat: not flat[2]):
        if running:
            _flat_label(ax, room, label, rate, start=corner, fontsize=8, color=palette.BLACK)
            for roof in view.roofs:
                _memory_label(ax, room, roof, min(top, roof.peak_flop_per_s))
        else:
            _flat_label(ax, room, label, rate, start=0.0, fontsize=7.5, color=palette.GREY)
    left, right = ax.get_xlim()
    if left < corner < right:
        note = ax.annotate(f"ridge {rows.intensity_text(corner)} FLOP/byte", (corner, bottom), xytext=(3, 4), zorder=6,
                           fontsize=7.5,
                           textcoords="offset points", color=palette.GREY, path_effects=HALO)  # fmt: skip
        sides = ((3, "left"), (-3, "right"))
        room.first_free(
            note, [Place((corner, bottom), (dx, dy), ha, "baseline") for dy in _RIDGE_RISES for dx, ha in sides]
        )


_RIDGE_RISES = (4, 14, 24, 40, 60, 90)
"""Distances [pt] from the lower edge at which the ridge may be named."""
_FLAT_RISES = (3, 6, 9)
"""Distances [pt] of a ceiling's name from its line; the others clear discs that stand at the line."""
_FLAT_PLACES = tuple(1 - k / 24 for k in range(24))
"""Where along the axes a ceiling's name may end, the first choice first."""
_SLANT_PLACES = (0.08, 0.3, 0.5, 0.02, 0.2, 0.4, 0.6, 0.7, 0.8)
"""Where along the visible slant a memory's name may begin, the first choice first."""


def _flat_label(ax: Axes, room: Room, label: str, rate: float, *, start: float, **style: Any) -> None:
    """A level ceiling's name above or below it, as far right as there is room; not left of `start`, where it begins."""
    left, right = ax.get_xlim()
    note = ax.annotate(label, (right, rate), xytext=(0, 0), textcoords="offset points", zorder=6, path_effects=HALO,
                       **style)  # fmt: skip
    width = float(np.ptp(outline_of(note, room.renderer)[:, 0]))
    least = start * (right / left) ** (width / room.inside.width)
    ends = [left * (right / left) ** part for part in _FLAT_PLACES]
    ends = [end for end in ends if end >= least] or [right]
    sides = [(sign * rise, va) for rise in _FLAT_RISES for sign, va in ((1, "bottom"), (-1, "top"))]
    nearest, further = sides[:2], sides[2:]
    room.first_free(
        note,
        [Place((end, rate), (-3, dy), "right", va) for some in (nearest, further) for end in ends for dy, va in some],
    )


def _memory_label(ax: Axes, room: Room, roof: Roof, top_flop_per_s: float) -> None:
    """The memory's name along its slant, near the left end of what is visible of it."""
    left, _ = ax.get_xlim()
    bottom, _ = ax.get_ylim()
    rate = roof.bandwidth_bytes_per_s
    start = max(left, bottom / rate)
    (x0, y0), (x1, y1) = ax.transData.transform([(start, start * rate), (2 * start, 2 * start * rate)])
    angle = atan2(y1 - y0, x1 - x0)
    note = ax.annotate(roof.memory_label, (start, start * rate), xytext=(0, 0), textcoords="offset points", zorder=6,
                       rotation=degrees(angle), rotation_mode="anchor", fontsize=7.5, color=palette.BLACK,
                       path_effects=HALO)  # fmt: skip
    over = (-3 * sin(angle), 3 * cos(angle))
    sides = ((over, "bottom"), ((-over[0], -over[1]), "top"))
    along = [start * (top_flop_per_s / rate / start) ** part for part in _SLANT_PLACES]
    room.first_free(note, [Place((x, x * rate), at, "left", va) for at, va in sides for x in along])


def _area(share: float) -> float:
    return _SMALLEST + (_LARGEST - _SMALLEST) * share


def _inside(ax: Axes, point: Point) -> tuple[float, float, str]:
    """(x, y, marker) of a point: at the edge, as an arrow, where it lies beyond the axes."""
    left, right = ax.get_xlim()
    low, high = ax.get_ylim()
    air, rise = (right / left) ** 0.012, (high / low) ** 0.015
    x, y = min(max(point.x, left * air), right / air), max(point.y, low * rise)
    return x, y, ">" if point.x > right else "<" if point.x < left else "v" if point.y < low else "o"


def _draw_points(ax: Axes, view: RooflineView, room: Room) -> None:
    for point in sorted(view.points, key=lambda p: -p.share):
        colour = palette.KINDS[point.kind]
        x, y, marker = _inside(ax, point)
        ax.scatter([x], [y], s=_area(point.share), color="none" if point.on_chip else colour, marker=marker,
                   edgecolors=colour if point.on_chip else "white", linewidths=1.0 if point.on_chip else 0.6,
                   alpha=0.9, zorder=4)  # fmt: skip
        room.take_disc(x, y, sqrt(_area(point.share)) / 2)
    if view.measured:
        x, y = view.measured[:2]
        ax.scatter([x], [y], marker="*", s=STAR_PT**2, color=palette.ORANGE, edgecolors=palette.BLACK, zorder=6)
        room.take_disc(x, y, STAR_PT / 2)


def _draw_legend(ax: Axes, view: RooflineView) -> None:
    """Kinds with their share of the time, then the scale of the areas; below the axis."""
    totals: dict[str, float] = {}
    for point in view.points:
        totals[point.kind] = totals.get(point.kind, 0.0) + point.share
    handles, names = [], []
    for kind, share in sorted(totals.items(), key=lambda item: -item[1]):
        handles.append(ax.scatter([], [], s=36, color=palette.KINDS[kind]))
        names.append(f"{kind}, {rows.share_text(share)} of the time")
    if any(p.on_chip for p in view.points):
        handles.append(ax.scatter([], [], s=36, color="none", edgecolors=palette.GREY))
        names.append("hollow: (almost) all bytes on chip")
    if view.above:
        handles.append(ax.scatter([], [], s=0))
        names.append(WHY_ABOVE)
    beyond = sum(p.share for p in view.points if _inside(ax, p)[2] != "o")
    if beyond:
        handles.append(ax.scatter([], [], s=36, color=palette.GREY, marker=">"))
        names.append(f"beyond the axes, {rows.share_text(beyond)} of the time")
    largest = max((p.share for p in view.points), default=0.0)
    step = min(0.25, 2.0 ** round(log2(largest))) if largest else 0.0
    for share in sorted({step, step / 8}) if step else ():
        handles.append(ax.scatter([], [], s=_area(share), color=palette.LIGHT_GREY))
        names.append(f"area: {rows.share_text(share)} of the time")
    ax.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=3, fontsize=8, frameon=False,
              columnspacing=2.5)  # fmt: skip


def breakdown(result: Estimate | Sequence[Estimate], *, ax: Axes | None = None) -> Axes:
    """Latency by term, one stacked bar per result; x: time [s]. Bars end at the latency."""
    estimates = [result] if isinstance(result, Estimate) else given.several(result, of="breakdown")
    for estimate in estimates:
        given.estimate(estimate, of="breakdown")
    if ax is None:
        height_in = 1.6 + 0.6 * len(estimates)
        ax = Figure(figsize=(9.0, height_in), dpi=150).add_axes((0.2, 0.6 / height_in, 0.77, 1 - 1.45 / height_in))
    longest = max(e.latency_s for e in estimates)
    used = [t for t in rows.TERM_WORDS if any(e.breakdown_s[t] for e in estimates)]
    for position, estimate in enumerate(estimates):
        _stack(ax, position, estimate, used, longest)
    for term in used:
        ax.barh(0, 0, color=palette.TERMS[term], label=rows.TERM_WORDS[term])
    ax.plot([], [], color=palette.BLACK, linewidth=1.2, label="data sheet's roofline")
    ax.set_yticks(
        range(len(estimates)),
        [
            palette.literal("\n".join(filter(None, (e.workload_name, e.hardware_name, what.strip()))))
            for e, what in zip(estimates, rows.told_apart(estimates), strict=True)
        ],
        fontsize=8.5,
    )
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * longest)
    set_unit(ax.xaxis, "latency", "s", [longest])
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    handles, names = ax.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: names[i] == "data sheet's roofline")
    ax.legend([handles[i] for i in order], [names[i] for i in order], ncols=4, loc="lower left", frameon=False,
              bbox_to_anchor=(0, 1.0), fontsize=8)  # fmt: skip
    return ax


def _stack(ax: Axes, position: int, estimate: Estimate, used: Sequence[Term], longest: float) -> None:
    start = 0.0
    for term in used:
        seconds = estimate.breakdown_s[term]
        ax.barh(position, seconds, left=start, height=0.6, color=palette.TERMS[term], edgecolor="white", linewidth=0.6)
        if seconds > 0.06 * longest:
            share = rows.share_text(seconds / estimate.latency_s)
            ax.text(start + seconds / 2, position, share, ha="center", va="center", fontsize=8, color="white")
        start += seconds
    ax.text(start + 0.01 * longest, position, rows.time_text(estimate.latency_s), va="center", fontsize=8.5)
    ends = [position - 0.38, position + 0.38]
    ax.plot([estimate.roofline_latency_s] * 2, ends, color=palette.BLACK, linewidth=1.2)
