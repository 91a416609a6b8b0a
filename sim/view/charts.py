"""Figures of designs and of accuracy: heat map, tornado, front, measured against estimated, validation.

Axes-level, like `sim.view.figures`, which hands them on as `sim.plot`. Each has its data step apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import MaxNLocator

from sim.results import Estimate
from sim.view import given, palette, rows
from sim.view.unit_axis import scale_of, set_unit, ticks_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {"_per_s": "1/s", "_s": "s", "_j": "J", "_w": "W", "_mm2": "mm²", "_bytes": "byte"}
"""Ending of a column's name -> its unit."""


def named(column: str) -> tuple[str, str]:
    """ "latency_s" -> ("latency", "s"); a name without a known unit stays as it is."""
    for ending, unit in UNITS.items():
        if column.endswith(ending):
            return column.removesuffix(ending).replace("_", " "), unit
    return palette.literal(column), ""


def _axes(ax: Axes | None, size: tuple[float, float] = (7.0, 4.6)) -> Axes:
    return Figure(figsize=size, dpi=150, layout="constrained").subplots() if ax is None else ax


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)


def grid_of(table: Any, x: str, y: str, value: str) -> tuple[list[Any], list[Any], list[list[float]]]:
    """(values of x, values of y, value[y][x]) in the order of the table; nan where no row is.

    Raises: ValueError: two rows for one place, because a third column varies.
    """
    across, up = list(dict.fromkeys(table[x])), list(dict.fromkeys(table[y]))
    cells = [[nan] * len(across) for _ in up]
    taken = set()
    for a, b, number in zip(table[x], table[y], table[value], strict=True):
        place = (up.index(b), across.index(a))
        if place in taken:
            raise ValueError(f"{x}={a}, {y}={b} has several rows: fix what else varies before drawing")
        taken.add(place)
        cells[place[0]][place[1]] = nan if number is None else float(number)
    return across, up, cells


CELLS = 64
"""Largest grid whose cells have their values written in them."""


def heat_map(table: Any, x: str, y: str, *, value: str = "latency_s", ax: Axes | None = None) -> Axes:
    """A sweep over two keys as colours, with their values in a grid of up to `CELLS` and contours in a larger one;
    `table` is what `sim.sweep` returns."""
    given.columns(table, (x, y, value), of="heat_map")
    across, up, cells = grid_of(table, x, y, value)
    ax = _axes(ax)
    image = ax.imshow(cells, origin="lower", aspect="auto", cmap="cividis")
    name, unit = named(value)
    values = [v for row in cells for v in row if isfinite(v)]
    ticks = ticks_of(unit, scale_of(unit, values)[0])
    if len(across) * len(up) <= CELLS:
        low, high = image.get_clim()
        half = ((low or 0.0) + (high or 0.0)) / 2
        for row, line in enumerate(cells):
            for column, cell in enumerate(line):
                if isfinite(cell):
                    ax.text(column, row, ticks(float(f"{cell:.3g}"), None), ha="center", va="center", fontsize=8,
                            color="white" if cell <= half else "black")  # fmt: skip
    elif len(across) > 1 and len(up) > 1 and values:
        lines = ax.contour(cells, levels=6, colors="white", linewidths=0.9)
        texts = ax.clabel(lines, fontsize=7.5, fmt=ticks.__call__)
        for drawn in (lines, *texts):
            drawn.set_path_effects([Stroke(linewidth=2.0, foreground="black", alpha=0.6), Normal()])
    bar = ax.figure.colorbar(image, ax=ax)
    set_unit(bar.ax.yaxis, name, unit, values)
    slanted = sum(len(str(v)) for v in across) > 60
    ax.set_xticks(range(len(across)), [palette.literal(v) for v in across], rotation=30 if slanted else 0,
                  ha="right" if slanted else "center")  # fmt: skip
    ax.set_yticks(range(len(up)), [palette.literal(v) for v in up])
    ax.set_xlabel(palette.literal(x))
    ax.set_ylabel(palette.literal(y))
    return ax


def savings(estimate: Estimate) -> list[tuple[str, float]]:
    """(resource and factor, relative change of the latency) of the what-if entries, largest first."""
    found = [
        (f"{entry.resource} × {entry.factor:g}", entry.latency_s / estimate.latency_s - 1) for entry in estimate.what_if
    ]
    return sorted(found, key=lambda row: -abs(row[1]))


def tornado(estimate: Estimate, *, limit: int = 12, ax: Axes | None = None) -> Axes:
    """What a change of each resource does to the latency; x: relative change.

    Raises: ValueError: the estimate has no what-if entries.
    """
    given.estimate(estimate, of="tornado")
    found = savings(estimate)[:limit]
    if not found:
        raise ValueError("this estimate has no what-if entries to draw")
    ax = _axes(ax, (7.0, 1.2 + 0.36 * len(found)))
    for place, (name, change) in enumerate(found):
        ax.barh(place, 100 * change, color=palette.BLUE if change <= 0 else palette.VERMILION, height=0.62)
        side, room = ("left", 6) if change <= 0 else ("right", -6)
        ax.annotate(palette.literal(name), (0, place), xytext=(room, 0), textcoords="offset points", va="center",
                    ha=side, fontsize=8.5)  # fmt: skip
    widest = max(abs(100 * change) for _, change in found) or 1.0
    ax.set_xlim(-1.15 * widest, 1.15 * widest)
    ax.axvline(0, color=palette.BLACK, linewidth=1.0)
    ax.set_yticks([])
    ax.invert_yaxis()
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel(f"change of the latency of {rows.time_text(estimate.latency_s)} [%]")
    return ax


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that none beats in both (smaller is better), by x; ties are kept."""
    order = sorted(range(len(points)), key=lambda i: points[i])
    kept: list[int] = []
    least = inf
    for i in order:
        if points[i][1] < least or (kept and points[i] == points[kept[-1]]):
            kept.append(i)
            least = points[i][1]
    return kept


def pareto(
    table: Any,
    x: str = "latency_s",
    y: str = "energy_j",
    *,
    marks: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Every design and the front of those that none beats in both columns (smaller is better).

    `marks` are further named points, such as a measured baseline.
    Raises: ValueError: no row has both numbers.
    """
    given.columns(table, (x, y), of="pareto")
    pairs = zip(table[x], table[y], strict=True)
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    points = [(float(a), float(b)) for a, b in known if isfinite(a) and isfinite(b)]
    if not points:
        raise ValueError(f"no design has both {x} and {y}")
    ax = _axes(ax)
    best = [points[i] for i in front(points)]
    xs, ys = zip(*points, strict=True)
    ax.scatter(xs, ys, s=14, color=palette.BLUE, alpha=0.35, linewidths=0, label="designs")
    ax.step(*zip(*best, strict=True), where="post", color=palette.VERMILION, linewidth=1.2, marker="o", markersize=5,
            label=f"beaten by none ({len(best)})")  # fmt: skip
    for name, (a, b) in (marks or {}).items():
        ax.plot(a, b, marker="D", color=palette.BLACK, linestyle="none")
        ax.annotate(palette.literal(name), (a, b), xytext=(6, 4), textcoords="offset points", fontsize=8.5)
    ax.xaxis.set_major_locator(MaxNLocator(7, steps=(1, 2, 5, 10)))
    for axis, column, values in ((ax.xaxis, x, xs), (ax.yaxis, y, ys)):
        set_unit(axis, *named(column), values)
    ax.legend(frameon=False, fontsize=8.5)
    _plain(ax)
    return ax


def measured_against_estimated(
    pairs: Mapping[str, tuple[float, float]],
    *,
    tolerance: float = 0.1,
    reference: str = "measured",
    ax: Axes | None = None,
) -> Axes:
    """name -> (measured s, estimated s) on equal logarithmic axes, with a band of the tolerance.

    `reference` says what the first number is, where it was not measured.
    Raises: ConfigError: no pairs, or one that is not of two positive times.
    """
    given.pairs(pairs, of="measured_against_estimated")
    ax = _axes(ax, (5.6, 5.2))
    numbers = [value for pair in pairs.values() for value in pair]
    ends = [min(numbers) / 1.6, max(numbers) * 1.6]
    low, high = [(1 - tolerance) * end for end in ends], [(1 + tolerance) * end for end in ends]
    label = f"within {100 * tolerance:g} %"
    ax.fill_between(ends, low, high, color=palette.LIGHT_GREY, alpha=0.6, linewidth=0, label=label)
    ax.plot(ends, ends, color=palette.GREY, linewidth=0.9)
    theirs, ours = zip(*pairs.values(), strict=True)
    ax.scatter(theirs, ours, s=26, color=palette.BLUE, zorder=3)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis, name in ((ax.xaxis, reference), (ax.yaxis, "estimated")):
        set_unit(axis, name, "s", numbers, log=True)
        axis.set_minor_formatter("")
    far = sorted(pairs, key=lambda name: -abs(pairs[name][1] / pairs[name][0] - 1))[:3]
    for name in far:
        if abs(pairs[name][1] / pairs[name][0] - 1) > tolerance:
            ax.annotate(palette.literal(name), pairs[name], xytext=(6, -10), textcoords="offset points", fontsize=8)
    ax.legend(frameon=False, fontsize=8.5, loc="upper left")
    _plain(ax)
    return ax


_LIMITS = ("at_most", "at_least")


def validation_groups(document: Mapping[str, Any]) -> dict[str, list[tuple[float, str]]]:
    """Group of checks -> (relative error, verdict) of those with a number, from `dovetail.validate/1`.

    What is compared with a limit (at most, at least) has no error that means anything and is left out.
    """
    groups: dict[str, list[tuple[float, str]]] = {}
    for check in document["checks"]:
        if check["rel_error"] is not None and check.get("rule") not in _LIMITS:
            groups.setdefault(check["id"].partition(".")[0], []).append((check["rel_error"], check["verdict"]))
    return groups


def validation(document: Mapping[str, Any], *, limit: float = 1.0, ax: Axes | None = None) -> Axes:
    """Every check's error, a line a group; x: relative error, cut at `limit` and then drawn as an arrow."""
    given.checks(document, of="validation")
    groups = validation_groups(document)
    ax = _axes(ax, (7.0, 1.4 + 0.3 * len(groups)))
    colours = {"pass": palette.GREEN, "fail": palette.VERMILION, "info": palette.GREY}
    shown = set()
    for place, checks in enumerate(groups.values()):
        for error, verdict in checks:
            cut = max(-limit, min(limit, error))
            marker = "o" if cut == error else (">" if error > 0 else "<")
            label = None if verdict in shown else verdict
            shown.add(verdict)
            ax.plot(100 * cut, place, marker=marker, color=colours.get(verdict, palette.GREY), alpha=0.7, markersize=5,
                    linestyle="none", label=label)  # fmt: skip
    ax.axvline(0, color=palette.BLACK, linewidth=0.9)
    ax.set_yticks(range(len(groups)), [f"{name} ({len(checks)})" for name, checks in groups.items()], fontsize=8.5)
    ax.invert_yaxis()
    ax.set_xlim(-105 * limit, 105 * limit)
    limits = sum(check.get("rule") in _LIMITS for check in document["checks"])
    left_out = f"; {limits} checks against a limit are not drawn" if limits else ""
    ax.set_xlabel(f"ours against published or measured [%]{left_out}")
    ax.legend(frameon=False, fontsize=8.5, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    _plain(ax)
    return ax
