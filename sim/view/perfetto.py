"""A timeline as Chrome trace JSON, which ui.perfetto.dev and chrome://tracing open.

Format: "Trace Event Format" (Google, 2016): complete events "X" with `ts` and `dur` in microseconds,
instants "i", counters "C", and metadata "M" that names processes and threads. One process per
unit instance, one thread per track of it.
"""

from __future__ import annotations

from sim.events.ticks import TICKS_PER_S
from sim.events.timeline import Timeline

_US = TICKS_PER_S / 1e6


def chrome_trace(timeline: Timeline) -> dict[str, object]:
    """The trace as a JSON-able document."""
    places = _places(timeline)
    events: list[dict[str, object]] = _names(places)
    for s in timeline.slices:
        pid, tid = places[s.track]
        events.append(
            {
                "name": s.name, "cat": s.category, "ph": "X", "pid": pid, "tid": tid,
                "ts": s.start / _US, "dur": (s.end - s.start) / _US, "args": {"stream": s.stream, "job": s.job},
            }
        )  # fmt: skip
    for instant in timeline.instants:
        pid, tid = places[instant.track]
        events.append({"name": instant.name, "ph": "i", "s": "t", "pid": pid, "tid": tid, "ts": instant.at / _US})
    for name, steps in timeline.counters.items():
        events += [
            {"name": name, "ph": "C", "pid": 0, "tid": 0, "ts": at / _US, "args": {"value": value}}
            for at, value in steps
        ]
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"slices": len(timeline.slices), "slices_dropped": timeline.dropped},
    }


def _places(timeline: Timeline) -> dict[str, tuple[int, int]]:
    """track -> (process, thread): "NPU[0].dma" is thread "dma" of process "NPU[0]"."""
    processes: dict[str, int] = {}
    threads: dict[str, int] = {}
    places = {}
    for track in timeline.tracks:
        process = track.partition(".")[0]
        pid = processes.setdefault(process, len(processes) + 1)
        threads[process] = threads.get(process, 0) + 1
        places[track] = (pid, threads[process])
    return places


def _names(places: dict[str, tuple[int, int]]) -> list[dict[str, object]]:
    events: list[dict[str, object]] = [
        {"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": "memory"}}
    ]
    for track, (pid, tid) in places.items():
        process, _, thread = track.partition(".")
        if tid == 1:
            events.append({"name": "process_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": process}})
        name = {"name": thread or "groups"}
        events.append({"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": name})
    return events
