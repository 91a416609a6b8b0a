"""The timeline as figure data and as a Chrome trace."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

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
    assert named == {(1, 1): "groups", (1, 2): "dma", (2, 1): "groups"}
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert processes == {0: "memory", 1: "NPU[0]", 2: "CPU[0]"}
    assert {(e["pid"], e["tid"]) for e in complete} <= set(named)
    assert document["otherData"]["slices_dropped"] == 3


def test_slices_of_a_track_do_not_overlap_in_the_trace():
    ends: dict[tuple[int, int], float] = {}
    for e in (e for e in chrome_trace(TIMELINE)["traceEvents"] if e["ph"] == "X"):
        assert e["ts"] >= ends.get((e["pid"], e["tid"]), 0)
        ends[e["pid"], e["tid"]] = e["ts"] + e["dur"]


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
    assert ax.get_ylabel() == "held [byte]"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SRAM", "SRAM, capacity"]
    with pytest.raises(ValueError, match="does not say"):
        memory(estimate)
