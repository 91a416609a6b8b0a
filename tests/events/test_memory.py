"""Memory over time: what streams hold all the time, and what their jobs hold, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nests import NS, group, schedule, steps

from sim.events.run import Stream, run

STEP = steps(repeat=[1], compute=[100 * NS])


def network():
    """Weights of 10; two groups of 100 ns that hold 10 + 5 and 10 + 2 in DRAM, and 7 and 3 in SRAM."""
    groups = [
        replace(group(STEP, name="g0"), held_bytes={"DRAM": 15.0, "SRAM": 7.0}),
        replace(group(STEP, name="g1", deps=(0,)), held_bytes={"DRAM": 12.0, "SRAM": 3.0}),
    ]
    return replace(schedule(*groups), lasting_bytes={"DRAM": 10.0})


def steps_of(result, counter):
    """(ns, value)."""
    return [(at // 10**6, value) for at, value in result.timeline.counters[counter]]


def test_one_job():
    result = run([Stream(name="a", schedule=network(), arrivals_s=(50 * NS,))], shared={"DRAM"})
    assert steps_of(result, "DRAM bytes") == [(0, 0.0), (50, 15.0), (150, 12.0), (250, 10.0)]
    assert steps_of(result, "NPU[0].SRAM bytes: a") == [(0, 0.0), (50, 7.0), (150, 3.0), (250, 0.0)]
    assert result.peak_memory_bytes["DRAM"] == 15
    assert result.streams["a"].peak_memory_bytes == {"DRAM": 15, "NPU[0].SRAM": 7}


def test_a_job_goes_on_from_chip_to_chip():
    """Weights of 10 on one chip and 20 on the next, whatever runs: the job adds 5 on the first for 100 ns, then 2."""
    groups = [
        replace(group(STEP, name="g0"), held_bytes={"DRAM": 15.0}, pinned=True),
        replace(group(STEP, name="g1", deps=(0,), instance=1), held_bytes={"DRAM": 22.0}, pinned=True),
    ]
    weights = {"NPU[0].DRAM": 10.0, "NPU[1].DRAM": 20.0}
    chips = replace(schedule(*groups), lasting_bytes=weights, stages=2)
    result = run([Stream(name="a", schedule=chips, arrivals_s=(50 * NS,))], shared={"DRAM"})
    assert steps_of(result, "NPU[0].DRAM bytes") == [(0, 0.0), (50, 15.0), (150, 10.0)]
    assert steps_of(result, "NPU[1].DRAM bytes") == [(0, 0.0), (50, 20.0), (150, 22.0), (250, 20.0)]
    assert result.peak_memory_bytes == {"NPU[0].DRAM": 15, "NPU[1].DRAM": 22}


@pytest.mark.parametrize("record", [0, 1000])
def test_copies_share_weights_and_a_preempted_job_holds_on(record):
    """a[1] arrives while a[0] runs its first group, waits for it, and both then hold memory: 10 + 2 + 5 in DRAM
    (FIFO: a[0]'s second group runs first, but a[1] holds nothing before it starts), so the most is 10 + 5."""
    copies = [Stream(name=f"a[{i}]", schedule=network(), arrivals_s=(i * 50 * NS,), priority=i) for i in range(2)]
    fifo = run(copies, shared={"DRAM"}, record=record)
    assert fifo.peak_memory_bytes["DRAM"] == 15
    urgent = run(copies, shared={"DRAM"}, policy="priority", record=record)
    assert urgent.peak_memory_bytes["DRAM"] == 10 + 5 + 5
    assert urgent.streams["a[0]"].peak_memory_bytes["NPU[0].SRAM"] == 7 + 7
