"""The timeline drawn: one row per track, one bar per slice; and what each memory holds meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from sim.events.ticks import TICKS_PER_S
from sim.events.timeline import Timeline
from sim.results import Estimate
from sim.view import given
from sim.view.palette import BLACK, BLUE, CYCLE, GREEN, GREY, ORANGE, SKY, VERMILION, YELLOW, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CATEGORY = {
    "compute": BLUE, "load": ORANGE, "store": VERMILION, "inner": SKY, "prefetch": YELLOW, "setup": GREY,
    "latency": GREY, "host": GREEN,
}  # fmt: skip

BARS = 20_000
"""Bars drawn at most; later ones are left out and the title says so."""

Steps = list[tuple[float, float]]
"""(from this second on, bytes)"""


class Bar(NamedTuple):
    """One bar: row number from the top, seconds."""

    row: int
    start_s: float
    length_s: float
    colour: str
    label: str


def bars(timeline: Timeline) -> tuple[list[str], list[Bar]]:
    """(row names, bars). Groups are coloured by stream (copies alike), tiles by what they do."""
    rows = list(timeline.tracks)
    place = {track: i for i, track in enumerate(rows)}
    streams = list(dict.fromkeys(s.stream.partition("[")[0] for s in timeline.slices))
    drawn = []
    for s in timeline.slices[:BARS]:
        stream = s.stream.partition("[")[0]
        colour = _CATEGORY.get(s.category) or CYCLE[streams.index(stream) % len(CYCLE)]
        label = stream if s.category == "group" else s.category
        drawn.append(Bar(place[s.track], s.start_s, s.end_s - s.start_s, colour, label))
    return rows, drawn


def _axes(ax: Axes | None, height_in: float) -> Axes:
    return Figure(figsize=(9.0, height_in), dpi=150, layout="constrained").subplots() if ax is None else ax


def timeline(timeline: Timeline, *, ax: Axes | None = None, **bar_kwargs: Any) -> Axes:
    """Gantt chart; x: time, y: unit instances and their engines, first on top."""
    given.first(timeline, Timeline, "a timeline, such as `sim.simulate(...).timeline`", of="timeline")
    rows, drawn = bars(timeline)
    ax = _axes(ax, 1.2 + 0.4 * max(1, len(rows)))
    scale, unit = _scale(max((b.start_s + b.length_s for b in drawn), default=0.0))
    labels: set[str] = set()
    spans_of: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for b in drawn:
        spans_of.setdefault((b.colour, b.label, b.row), []).append((b.start_s * scale, b.length_s * scale))
    for (colour, label, row), spans in spans_of.items():
        named = {} if label in labels else {"label": literal(label)}
        labels.add(label)
        style = {"facecolors": colour, "linewidth": 0, **named, **bar_kwargs}
        ax.broken_barh(spans, (row - 0.4, 0.8), **style)
    for instant in timeline.instants:
        at = instant.at / TICKS_PER_S * scale
        ax.plot(at, rows.index(instant.track) - 0.45, marker="v", color=BLACK, markersize=5)
    ax.set_yticks(range(len(rows)), [literal(row) for row in rows], fontsize=8.5)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(f"time [{unit}]")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    left_out = timeline.dropped + max(0, len(timeline.slices) - BARS)
    if left_out:
        ax.set_title(f"the first {len(drawn):,} slices; {left_out:,} more not drawn", fontsize="small")
    if labels:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5)
    return ax


def held(result: Estimate | Timeline) -> tuple[dict[str, Steps], float]:
    """(memory -> steps of the bytes that it holds, end [s]).

    Of an estimate: the tensors and tiles that lie in it while each op runs, in the order of the network;
    of a timeline: its counters.
    """
    if isinstance(result, Timeline):
        found: dict[str, Steps] = {
            name.removesuffix(" bytes"): [(at / TICKS_PER_S, value) for at, value in steps]
            for name, steps in result.counters.items()
        }
        return found, result.end_s
    steps: dict[str, Steps] = {}
    start = 0.0
    for op in result.ops:
        for memory, size in op.held_bytes.items():
            steps.setdefault(memory, []).append((start, size))
        start += op.latency_s
    return steps, start


def memory(
    result: Estimate | Timeline, *, capacities_bytes: Mapping[str, float] | None = None, ax: Axes | None = None
) -> Axes:
    """Bytes held over time, a curve a memory, on a logarithmic axis; `capacities_bytes` are drawn as limits.

    Raises: ValueError: the result does not say what its memories hold.
    """
    due = "an estimate (sim.estimate), or a timeline such as `sim.simulate(...).timeline`"
    given.first(result, (Estimate, Timeline), due, of="memory")
    curves, end_s = held(result)
    if not curves:
        raise ValueError("this result does not say what its memories hold over time")
    ax = _axes(ax, 3.4)
    scale, unit = _scale(end_s)
    for colour, (name, steps) in zip(CYCLE, curves.items(), strict=False):
        times = [at * scale for at, _ in steps] + [end_s * scale]
        sizes = [size for _, size in steps] + [steps[-1][1]]
        ax.step(times, sizes, where="post", color=colour, linewidth=1.4, label=name)
        limit = (capacities_bytes or {}).get(name)
        if limit is not None:
            ax.axhline(limit, color=colour, linewidth=0.9, linestyle=(0, (4, 3)), label=f"{name}, capacity")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(EngFormatter(unit="B"))
    ax.set_xlim(0, end_s * scale)
    ax.set_xlabel(f"time [{unit}]")
    ax.set_ylabel("bytes held")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8.5)
    return ax


def _scale(seconds: float) -> tuple[float, str]:
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return factor, unit
    return 1e9, "ns"
