"""The timeline as figure data and as a Chrome trace."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest

import sim
from sim.events.result import JobResult
from sim.events.timeline import Instant, Slice, Timeline
from sim.results import Estimate
from sim.view.perfetto import chrome_trace
from sim.view.timeline import bars, held, memory, timeline

US = 10**9
TIMELINE = Timeline(
    (
        Slice("NPU[0]", "conv1", 0, 5 * US, "group", "camera[0]", 0),
        Slice("NPU[0].dma", "conv1", 0, 2 * US, "load", "camera[0]", 0),
        Slice("NPU[0]", "conv1", 5 * US, 9 * US, "group", "camera[1]", 0),
        Slice("CPU[0]", "crop", 1 * US, 2 * US, "group", "planner", 0),
    ),
    (Instant("NPU[0]", "camera: deadline missed", 9 * US),),
    {"DRAM bytes": ((0, 10.0), (9 * US, 0.0))},
    dropped=3,
)


def test_trace_structure():
    """Every event has what the format asks for; times are microseconds; names are given once per track."""
    document = json.loads(json.dumps(chrome_trace(TIMELINE)))
    events = document["traceEvents"]
    needed = {"X": {"ts", "dur", "name", "cat"}, "C": {"ts", "args"}, "i": {"ts", "s"}, "M": {"args"}}
    for event in events:
        assert {"ph", "pid", "tid"} | needed[event["ph"]] <= set(event)
    complete = [e for e in events if e["ph"] == "X"]
    assert [(e["ts"], e["dur"]) for e in complete] == [(0, 5), (0, 2), (5, 4), (1, 1)]
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert named == {(1, 101): "groups", (1, 102): "dma", (2, 201): "groups"}
    assert [(e["name"], e["args"]) for e in events if e["ph"] == "C"] == [
        ("DRAM", {"bytes": 10.0}), ("DRAM", {"bytes": 0.0})
    ]  # fmt: skip
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert processes == {0: "memory", 1: "NPU[0]", 2: "CPU[0]"}
    assert {(e["pid"], e["tid"]) for e in complete} <= set(named)
    assert document["otherData"]["slices_dropped"] == 3


def ns(us: float) -> int:
    """As Perfetto's importer counts; what is no whole number of nanoseconds would be cut."""
    assert us * 1000 == pytest.approx(round(us * 1000), abs=1e-6)
    return round(us * 1000)


def test_a_run_as_a_trace_keeps_the_rules_of_the_format():
    """Every tile of a network and a scenario's jobs: slices of a thread neither overlap nor nest, all are in a
    named thread of a named process, counters go forward in time, every flow begins and ends once, in a slice."""
    chip = sim.load_hardware("tesla-fsd-npu")
    run = sim.simulate(sim.load_workload("digits_cnn"), chip, expand=True)
    events = json.loads(json.dumps(chrome_trace(run.timeline)))["traceEvents"]
    assert {e["cat"] for e in events if e["ph"] == "X"} >= {"group", "compute", "load", "store"}
    _check(events)
    _check(chrome_trace(TIMELINE)["traceEvents"])


def _check(events: list[dict]) -> None:
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    processes = {e["pid"] for e in events if e["name"] == "process_name"}
    assert {pid for pid, _ in threads} <= processes
    spans: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for e in (e for e in events if e["ph"] == "X"):
        spans.setdefault((e["pid"], e["tid"]), []).append((ns(e["ts"]), ns(e["ts"]) + ns(e["dur"])))
    assert set(spans) <= threads
    for track in spans.values():
        assert all(end <= begin for (_, end), (begin, _) in pairwise(sorted(track)))
    for name in {e["name"] for e in events if e["ph"] == "C"}:
        times = [e["ts"] for e in events if e["ph"] == "C" and e["name"] == name]
        assert times == sorted(times)
    for mark in "sf":
        ids = [e["id"] for e in events if e["ph"] == mark]
        assert sorted(ids) == list(range(len(ids)))
        for e in (e for e in events if e["ph"] == mark):
            assert any(begin <= ns(e["ts"]) < end for begin, end in spans[e["pid"], e["tid"]])


def test_jobs_are_rows_from_release_to_end():
    """Two overlapping jobs of one stream, the second late: a pair of events each, in a process of its own."""
    jobs = [
        JobResult(
            stream="camera", number=i, release_s=i * 1e-6, finish_s=i * 1e-6 + 5e-6, queueing_s=i * 1e-6,
            service_s=4e-6, contention_s=0.0, missed="queueing" if i else None,
        )
        for i in range(2)
    ]  # fmt: skip
    events = chrome_trace(TIMELINE, jobs)["traceEvents"]
    assert events[: len(chrome_trace(TIMELINE)["traceEvents"])] == chrome_trace(TIMELINE)["traceEvents"]
    pairs = [(e["ph"], e["name"], e["id"], e["ts"]) for e in events if e["ph"] in "be"]
    assert pairs == [
        ("b", "camera", "camera 0", 0.0), ("e", "camera", "camera 0", 5.0),
        ("b", "camera", "camera 1", 1.0), ("e", "camera", "camera 1", 6.0),
    ]  # fmt: skip
    (own,) = {e["pid"] for e in events if e["ph"] in "be"}
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names[own] == "jobs"
    assert own not in {e["pid"] for e in events if e["ph"] == "X"}
    assert [e["args"]["missed"] for e in events if e["ph"] == "b"] == ["no", "queueing"]


def test_flows_lead_a_job_from_one_unit_to_the_next():
    """Two parts side by side on two cores, then the network: one arrow, from the part that ends last in the list."""
    slices = (
        Slice("CPU[0]", "crop 0", 0, US, "group", "camera", 0),
        Slice("CPU[1]", "crop 1", 0, US, "group", "camera", 0),
        Slice("NPU[0]", "conv1", 2 * US, 5 * US, "group", "camera", 0),
        Slice("NPU[0]", "conv2", 5 * US, 6 * US, "group", "camera", 0),
        Slice("NPU[1]", "conv1", 2 * US, 5 * US, "group", "camera", 1),
    )
    events = chrome_trace(Timeline(slices))["traceEvents"]
    _check(events)
    flows = [(e["ph"], e["pid"], e["ts"]) for e in events if e["ph"] in "sf"]
    assert flows == [("s", 2, 0.0), ("f", 3, 2.0)]


def test_bars():
    rows, drawn = bars(TIMELINE)
    assert rows == ["NPU[0]", "NPU[0].dma", "CPU[0]"]
    assert [(b.row, b.start_s, b.length_s) for b in drawn] == [
        (0, 0.0, pytest.approx(5e-6)), (1, 0.0, pytest.approx(2e-6)),
        (0, pytest.approx(5e-6), pytest.approx(4e-6)), (2, pytest.approx(1e-6), pytest.approx(1e-6)),
    ]  # fmt: skip
    assert drawn[0].colour == drawn[2].colour != drawn[3].colour


def test_figure_says_units_and_what_is_left_out():
    ax = timeline(TIMELINE)
    assert ax.get_xlabel() == "time [µs]"
    assert "3 more not drawn" in ax.get_title()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["NPU[0]", "NPU[0].dma", "CPU[0]"]


def test_what_memories_hold_over_time(estimate: Estimate) -> None:
    """Counters as seconds; of an estimate each op holds its bytes from the end of the one before."""
    assert held(TIMELINE) == ({"DRAM": [(0.0, 10.0), (pytest.approx(9e-6), 0.0)]}, pytest.approx(9e-6))
    ops = tuple(replace(op, held_bytes={"SRAM": 100.0 * i}) for i, op in enumerate(estimate.ops[:3], start=1))
    curves, end_s = held(replace(estimate, ops=ops))
    starts = [0.0, ops[0].latency_s, ops[0].latency_s + ops[1].latency_s]
    assert curves == {"SRAM": list(zip(starts, (100.0, 200.0, 300.0), strict=True))}
    assert end_s == pytest.approx(sum(op.latency_s for op in ops))
    ax = memory(replace(estimate, ops=ops), capacities_bytes={"SRAM": 1000.0})
    assert ax.get_ylabel() == "bytes held"  # the unit stands at the ticks
    assert ax.yaxis.get_major_formatter().format_ticks([1e6]) == ["1 MB"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SRAM", "SRAM, capacity"]
    with pytest.raises(ValueError, match="does not say"):
        memory(estimate)
