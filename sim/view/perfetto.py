"""A timeline as Chrome trace JSON, which ui.perfetto.dev and chrome://tracing open.

Format: "Trace Event Format" (Google, 2016): complete events "X" with `ts` and `dur` in microseconds,
instants "i", counters "C", flows "s" to "f" where a job goes on at another unit, and metadata "M" that
names processes and threads. One process per unit instance, one thread per track of it. Jobs from release
to end are nestable asynchronous events "b" to "e" of a process of their own, a row (or several, where they
overlap) per stream. Readers count whole nanoseconds, so begins and ends are rounded to them: what was apart
does not overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sim.events.result import JobResult
from sim.events.ticks import TICKS_PER_S
from sim.events.timeline import Slice, Timeline

_TICKS_PER_NS = TICKS_PER_S // 10**9
_THREADS = 100
"""Threads are numbered from here in each process: one of the process's own number is its "main thread"."""


def chrome_trace(timeline: Timeline, jobs: Iterable[JobResult] = ()) -> dict[str, object]:
    """The trace as a JSON-able document, with the jobs as rows of their own where they are given."""
    places = _places(timeline)
    events: list[dict[str, object]] = _names(places)
    for s in timeline.slices:
        pid, tid = places[s.track]
        begin, end = _ns(s.start), _ns(s.end)
        events.append(
            {
                "name": s.name, "cat": s.category, "ph": "X", "pid": pid, "tid": tid,
                "ts": begin / 1000, "dur": (end - begin) / 1000, "args": {"stream": s.stream, "job": s.job},
            }
        )  # fmt: skip
    for number, (before, after) in enumerate(_moves(timeline)):
        for mark, s, at in ({"ph": "s"}, before, _ns(before.start)), ({"ph": "f", "bp": "e"}, after, _ns(after.start)):
            pid, tid = places[s.track]
            what = {"name": s.stream, "cat": "job", "id": number}
            events.append({**what, **mark, "pid": pid, "tid": tid, "ts": at / 1000})
    for instant in timeline.instants:
        pid, tid = places[instant.track]
        events.append({"name": instant.name, "ph": "i", "s": "t", "pid": pid, "tid": tid, "ts": _ns(instant.at) / 1000})
    for name, steps in timeline.counters.items():
        of = name.replace(" bytes", "", 1)  # the reader adds the unit
        events += [
            {"name": of, "ph": "C", "pid": 0, "tid": 0, "ts": _ns(at) / 1000, "args": {"bytes": value}}
            for at, value in steps
        ]
    events += _jobs(jobs, 1 + max((pid for pid, _ in places.values()), default=0))
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"slices": len(timeline.slices), "slices_dropped": timeline.dropped},
    }


def _ns(tick: int) -> int:
    return (tick + _TICKS_PER_NS // 2) // _TICKS_PER_NS


def _jobs(jobs: Iterable[JobResult], pid: int) -> Iterator[dict[str, object]]:
    """Each job from its release, so that what it waits for shows, to its end."""
    for at, job in enumerate(jobs):
        if at == 0:
            yield {"name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": {"name": "jobs"}}
        what = {"name": job.stream, "cat": "stream", "id": f"{job.stream} {job.number}", "pid": pid, "tid": 0}
        told = {"job": job.number, "missed": job.missed or "no"}
        yield {**what, "ph": "b", "ts": round(job.release_s * 1e9) / 1000, "args": told}
        yield {**what, "ph": "e", "ts": round(job.finish_s * 1e9) / 1000}


def _moves(timeline: Timeline) -> Iterator[tuple[Slice, Slice]]:
    """(last group on one unit instance, first on another) of each job, one after the other in time."""
    last: dict[tuple[str, int], Slice] = {}
    for s in timeline.slices:
        if s.category != "group":
            continue
        before = last.get((s.stream, s.job))
        if before is not None and before.track != s.track and before.end <= s.start:
            yield before, s
        last[s.stream, s.job] = s


def _places(timeline: Timeline) -> dict[str, tuple[int, int]]:
    """track -> (process, thread): "NPU[0].dma" is thread "dma" of process "NPU[0]"."""
    processes: dict[str, int] = {}
    threads: dict[str, int] = {}
    places = {}
    for track in timeline.tracks:
        process = track.partition(".")[0]
        pid = processes.setdefault(process, len(processes) + 1)
        threads[process] = threads.get(process, 0) + 1
        places[track] = (pid, _THREADS * pid + threads[process])
    return places


def _names(places: dict[str, tuple[int, int]]) -> list[dict[str, object]]:
    events: list[dict[str, object]] = [
        {"name": "process_name", "ph": "M", "pid": 0, "tid": 0, "args": {"name": "memory"}}
    ]
    for track, (pid, tid) in places.items():
        process, _, thread = track.partition(".")
        if tid == _THREADS * pid + 1:
            events.append({"name": "process_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": process}})
        name = {"name": thread or "groups"}
        events.append({"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": name})
    return events
