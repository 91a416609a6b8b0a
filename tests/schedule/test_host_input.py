"""Inputs come over the chip's host link: by hand, in both readings, and left out on request."""

import pytest

import sim
from sim.errors import ConfigError
from sim.results import Term

CHIP = "tpu-v1"  # PCIe of 14 GB/s, 1 us


@pytest.fixture(scope="module")
def graph():
    return sim.gemm(256, 512, 1024, dtype="int8")  # one input of 256 x 1,024 bytes


def test_latency_plus_bytes_over_bandwidth(graph):
    chip = sim.load_hardware(CHIP)
    found, resident = (sim.estimate(graph, chip, inputs=where) for where in ("host", "resident"))
    transfer = found.ops[0]
    expected = 1e-6 + 256 * 1024 / 14e9
    assert (transfer.name, transfer.bound) == ("host.input", "link:PCIe")
    assert transfer.latency_s == pytest.approx(expected, rel=1e-12)
    assert found.breakdown_s[Term.COMMUNICATION] == pytest.approx(expected, rel=1e-12)
    assert sum(found.breakdown_s.values()) == pytest.approx(found.latency_s, rel=1e-9)
    # the first weights may load behind it, so that it adds at most its own time
    assert resident.latency_s < found.latency_s <= resident.latency_s + expected * (1 + 1e-12)
    assert any("256 KiB come over PCIe" in note for note in found.notes)
    assert resident.breakdown_s[Term.COMMUNICATION] == 0


def test_simulate_and_sweep_take_it_too(graph):
    chip = sim.load_hardware(CHIP)
    found = sim.estimate(graph, chip)
    run = sim.simulate(graph, chip)
    assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)
    table = sim.sweep(graph, chip, {"PCIe.bandwidth": ["7 GB/s", "14 GB/s"]})
    assert table["latency_s"][1] == found.latency_s
    assert table["latency_s"][0] - table["latency_s"][1] <= 256 * 1024 / 14e9 * (1 + 1e-9)
    assert table["latency_s"][0] > table["latency_s"][1]


def test_a_gpu_and_a_chip_without_a_host_link():
    graph = sim.load_workload("resnet18")
    gpu = sim.estimate(graph, sim.load_hardware("h100-sxm"))
    assert gpu.ops[0].latency_s == pytest.approx(1e-6 + 3 * 224 * 224 * 2 / 64e9)
    low, high = gpu.latency_interval_s
    assert low < gpu.latency_s < high
    assert sim.estimate(graph, sim.load_hardware("edge-npu")).breakdown_s[Term.COMMUNICATION] == 0


def test_inputs_enter_no_faster_than_the_home_memory_takes_them(graph):
    """A port of 1 GB/s, of which 0.8 are reached, behind a link of 14 GB/s: 256 KiB take 327.68 us and the latency."""
    chip = sim.load_hardware(CHIP, {"DRAM.bandwidth": "1 GB/s", "DRAM.efficiency": 0.8})
    found, run = sim.estimate(graph, chip), sim.simulate(graph, chip)
    assert found.ops[0].latency_s == pytest.approx(1e-6 + 256 * 1024 / 0.8e9, rel=1e-12)
    assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)
    moved = found.traffic_bytes["DRAM"]
    assert run.ports["DRAM"].bytes == pytest.approx(moved.read + moved.write, rel=1e-9)
    # of which the data sheet's bound has the bytes over the link alone, wherever it is told
    at_best = sim.roofline(graph, chip).ops[0].roofline_s
    assert found.ops[0].roofline_s == at_best == pytest.approx(256 * 1024 / 14e9, rel=1e-12)


def test_the_bound_has_the_inputs_on_the_link():
    """512 x 512 bytes take 65.536 us over 4 GB/s and their product less than half of it; two readings and a sweep."""
    graph, chip = sim.gemm(512, 512, 512, dtype="int8"), sim.load_hardware(CHIP, {"PCIe.bandwidth": "4 GB/s"})
    bound, found = sim.roofline(graph, chip), sim.estimate(graph, chip)
    assert bound.latency_s == found.roofline_latency_s == 512 * 512 / 4e9 < found.latency_s
    assert (bound.bound, bound.ops[0].name) == ("link:PCIe", "host.input")
    assert sim.simulate(graph, chip).latency_s > bound.latency_s
    table = sim.sweep(graph, chip, {"PCIe.bandwidth": ["2 GB/s", "4 GB/s"]})
    assert list(table["roofline_latency_s"]) == [2 * bound.latency_s, bound.latency_s]
    resident = sim.roofline(graph, chip, inputs="resident")
    assert resident.bound == "memory:DRAM"
    assert resident.latency_s < bound.latency_s / 2
    assert sim.estimate(graph, chip, inputs="resident").roofline_latency_s == resident.latency_s
    row = sim.sweep(graph, chip, {"PCIe.bandwidth": ["4 GB/s"]}, inputs="resident")
    assert row["roofline_latency_s"][0] == resident.latency_s


def test_a_wrong_word_is_refused(graph):
    with pytest.raises(ConfigError, match=r'inputs "hots": expected host or resident\. Did you mean "host"'):
        sim.estimate(graph, sim.load_hardware(CHIP), inputs="hots")
    with pytest.raises(ConfigError, match=r'inputs "hots": expected host or resident\.'):
        sim.roofline(graph, sim.load_hardware(CHIP), inputs="hots")
