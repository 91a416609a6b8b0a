"""The timeline drawn: one row per track, one bar per slice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sim.events.timeline import Timeline
from sim.view.palette import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, YELLOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CATEGORY = {
    "compute": BLUE, "load": ORANGE, "store": VERMILION, "inner": SKY, "prefetch": YELLOW, "setup": GREY,
    "latency": GREY, "host": GREEN,
}  # fmt: skip
_STREAMS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY, YELLOW)

BARS = 20_000
"""Bars drawn at most; later ones are left out and the title says so."""


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
        colour = _CATEGORY.get(s.category) or _STREAMS[streams.index(stream) % len(_STREAMS)]
        label = stream if s.category == "group" else s.category
        drawn.append(Bar(place[s.track], s.start_s, s.end_s - s.start_s, colour, label))
    return rows, drawn


def timeline(timeline: Timeline, *, ax: Axes | None = None, **bar_kwargs: Any) -> Axes:
    """Gantt chart; x: time, y: unit instances and their engines, first on top."""
    import matplotlib.pyplot as plt

    rows, drawn = bars(timeline)
    if ax is None:
        _, ax = plt.subplots(figsize=(10, 1.2 + 0.4 * max(1, len(rows))), layout="constrained")
    scale, unit = _scale(max((b.start_s + b.length_s for b in drawn), default=0.0))
    labels: set[str] = set()
    spans_of: dict[tuple[str, str, int], list[tuple[float, float]]] = {}
    for b in drawn:
        spans_of.setdefault((b.colour, b.label, b.row), []).append((b.start_s * scale, b.length_s * scale))
    for (colour, label, row), spans in spans_of.items():
        named = {} if label in labels else {"label": label}
        labels.add(label)
        ax.broken_barh(spans, (row - 0.4, 0.8), **{"facecolors": colour, "linewidth": 0, **named, **bar_kwargs})
    for instant in timeline.instants:
        ax.plot(instant.at / 1e15 * scale, rows.index(instant.track) - 0.45, marker="v", color="black", markersize=5)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(f"time [{unit}]")
    left_out = timeline.dropped + max(0, len(timeline.slices) - BARS)
    if left_out:
        ax.set_title(f"the first {len(drawn):,} slices; {left_out:,} more not drawn", fontsize="small")
    if labels:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    return ax


def _scale(seconds: float) -> tuple[float, str]:
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return factor, unit
    return 1e9, "ns"
