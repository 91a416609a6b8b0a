"""The public door: a schedule alone, its options and its document."""

from __future__ import annotations

import json

import pytest
from nests import NS, group, random_schedule, schedule, steps

import sim
from sim.errors import ConfigError, InfeasibleError
from sim.events.simulate import simulate


def test_folded_and_expanded_agree_and_count_events():
    """100 steps of max(30, 20 + 5) = 30 after a first load of 20 and before a last store of 5: 3025 ns."""
    work = steps(repeat=[100], compute=[30 * NS], load=[20], store=[5], first=20, last=5)
    one = schedule(group(work, energy_j=2e-6), peaks={"DRAM": 64.0})
    folded, expanded = simulate(one), simulate(one, expand=True)
    assert folded.latency_s == expanded.latency_s == pytest.approx(3025e-9)
    assert folded.events < 20
    assert expanded.events > 400
    assert folded.energy_j == 2e-6
    assert folded.peak_memory_bytes == {"DRAM": 64.0}
    assert folded.ports["DRAM"].bytes == expanded.ports["DRAM"].bytes == pytest.approx(2525)
    assert folded.utilisation["NPU[0]"] == 1.0


def test_document():
    import numpy as np

    result = simulate(random_schedule(np.random.default_rng(0), groups=3))
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["schema"] == "dovetail.simulate/1"
    assert [op["name"] for op in document["ops"]] == ["g0", "g1", "g2"]
    assert sum(op["latency_s"] for op in document["ops"]) == pytest.approx(document["latency_s"])
    unknown = ("precision", "objective", "map_space", "buffering", "calibration", "estimate_latency_s", "batch")
    assert all(document[key] is None for key in unknown)
    assert document["workload"] == {"name": None, "knobs": None, "graph_hash": None}
    assert document["hardware"] == {"name": None, "hash": None, "overrides": {}}


SHARED = ("workload", "batch", "hardware", "precision", "objective", "map_space", "buffering", "calibration",
          "peak_memory_bytes")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes"),
    [("systolic", {"array.rows": 16}), ("h100-sxm", {}), ("xeon-emr-2c", {}), ("gemmini-16", {})],
)
def test_a_run_states_what_its_estimate_states(name, changes):
    """All that 2.4 wants stated, equal to the estimate's document; the estimate itself is beside it. Two items are
    in one job, so that the throughput is twice the jobs a second; the chips with memories inside the one in which
    tensors stay say what these hold too."""
    graph, chip = sim.load_workload("mlp", batch=2), sim.load_hardware(name, changes)
    result, found = sim.simulate(graph, chip), sim.estimate(graph, chip)
    run = result.to_dict()
    assert (result.workload, result.hardware) == (found.workload, found.hardware)
    told = json.loads(json.dumps(found.to_dict()))
    assert {key: json.loads(json.dumps(run[key])) for key in SHARED} == {key: told[key] for key in SHARED}
    assert run["estimate_latency_s"] == found.latency_s
    assert run["throughput_per_s"] == pytest.approx(found.throughput_per_s, rel=0.02)
    assert run["hardware"]["hash"]
    assert run["hardware"]["overrides"].keys() == changes.keys()


def test_a_run_states_what_it_was_asked():
    graph, chip = sim.load_workload("mlp"), sim.load_hardware("h100-sxm")
    run = sim.simulate(graph, chip, objective="edp", map_space="uneven", calibration="none", precision="int8")
    assert (run.objective, run.map_space, run.calibration, run.precision) == ("edp", "uneven", None, "int8")
    with pytest.raises(TypeError, match="unknown"):
        sim.simulate(graph, chip, unknown=1)


def test_options_belong_to_graphs():
    one = schedule(group(steps(repeat=[1], compute=[NS])))
    with pytest.raises(ConfigError, match="precision cannot change it"):
        simulate(one, precision="int8")
    with pytest.raises(ConfigError, match="a graph needs a chip"):
        simulate(object())


def test_what_ticks_cannot_count_is_refused():
    """An op of 512 x 512 x 512 on 64 MACs takes 2,097,152 cycles at least: 2,097 s at 1 kHz, and at 100 Hz 20,972 s.

    That is beyond the ticks of a 64-bit integer, which end at 9,223 s.
    """
    graph = sim.gemm(512, 512, 512)
    slow = sim.load_hardware("nvdla-small", {"clock": "1 kHz"})
    assert 2_097 < simulate(graph, slow).latency_s == pytest.approx(sim.estimate(graph, slow).latency_s, rel=0.02)
    for clock in ("100 Hz", "1 Hz"):
        chip = sim.load_hardware("nvdla-small", {"clock": clock})
        assert sim.estimate(graph, chip).latency_s > 20_972
        with pytest.raises(InfeasibleError, match=r"takes [\d,]+ s alone on nvdla, .* expected a faster chip"):
            simulate(graph, chip)
