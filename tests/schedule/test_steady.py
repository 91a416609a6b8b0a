"""A stream of inferences: weights that stay on chip, copies and pipelines of units, by hand and against events."""

from __future__ import annotations

import pytest
import torch
from chains import chain, products

import sim
from sim.events.run import Stream, run
from sim.events.simulate import simulate
from sim.results_io import from_dict, to_dict
from sim.schedule.build import schedule, to_schedule
from sim.schedule.loads import LOAD
from sim.schedule.network import Options, cost_network
from sim.steady import arrangement, balanced_cuts
from sim.workload.precision import parse_precision

WIDTH = 3200
"""A weight of 10.24 MB: two of them fit the 32 MiB of an NPU, four do not."""


def stream_of(graph, chip, cuts):
    options = Options(cuts=cuts, inputs="resident")
    return cost_network(graph, [chip], parse_precision(chip.default_precision), options)


def test_a_pipeline_keeps_what_one_unit_cannot():
    """Four equal layers on the two NPUs of `tesla-fsd`: each keeps two of the weights; DRAM carries the input, what
    passes from one to the other (written and read) and the output: 4 x 96 x 3,200 bytes an inference."""
    chip, graph = sim.load_hardware("tesla-fsd"), products(96, (WIDTH,) * 5)
    found = sim.estimate(graph, chip, what_if=True, inputs="resident")
    steady = found.steady
    assert steady is not None
    assert (steady.copies, [(s.first, s.last) for s in steady.stages]) == (
        1,
        [("layer0", "layer1"), ("layer2", "layer3")],
    )
    assert [stage.weights_on_chip_bytes for stage in steady.stages] == [2 * WIDTH**2] * 2
    assert steady.bound.startswith("stage:")
    assert steady.interval_s == max(stage.latency_s for stage in steady.stages)
    assert steady.throughput_per_s == 1 / steady.interval_s
    assert steady.latency_s == pytest.approx(sum(stage.latency_s for stage in steady.stages), rel=1e-12)
    # one inference alone waits for its weights: 41 MB over 57.8 GB/s
    assert found.latency_s > 4 * WIDTH**2 / 57.8e9 > steady.latency_s
    stream = stream_of(graph, chip, (2,))
    moved = [group.traffic_bytes["DRAM"] for group in stream.groups]
    assert sum(float(r[0] + w[0]) for table in moved for r, w in table.values()) == 4 * 96 * WIDTH
    assert any("pipeline of 2 stages on 2 x npu, 39.1 MiB of weights stay" in note for note in found.notes)
    assert from_dict(to_dict(found)) == found


def test_copies_where_all_weights_fit():
    """Two layers: each NPU keeps both weights and takes every second inference."""
    chip, graph = sim.load_hardware("tesla-fsd"), products(96, (WIDTH,) * 3)
    steady = sim.estimate(graph, chip, what_if=True, inputs="resident").steady
    assert (steady.copies, len(steady.stages)) == (2, 1)
    assert steady.interval_s == pytest.approx(steady.latency_s / 2, rel=1e-12)


def test_a_stream_is_no_slower_than_its_inferences_one_by_one():
    """Also where keeping a stage's weights, or only looking for them first, leaves its activations a worse choice."""
    found = sim.estimate("regnet", "edge-npu", what_if=True, inputs="resident", calibration="none")
    assert found.steady.interval_s <= found.latency_s * (1 + 1e-9)
    assert found.steady.throughput_per_s == pytest.approx(1 / found.steady.interval_s)


def test_units_share_the_home_memory():
    """Weights that fit nowhere come from DRAM for each inference: more units cannot be faster than it."""
    chip = sim.load_hardware("tesla-fsd", {"SRAM.capacity": "4 MiB"})
    graph = products(8, (WIDTH,) * 5)
    steady = sim.estimate(graph, chip, what_if=True, inputs="resident").steady
    assert steady.bound == "memory:DRAM"
    assert steady.interval_s >= 4 * WIDTH**2 / 57.8e9
    assert all(stage.weights_on_chip_bytes == 0 for stage in steady.stages)


@pytest.mark.parametrize(("workload", "hardware"), [("digits_cnn", "edge-npu"), ("byte_gpt", "tesla-fsd")])
def test_the_stream_runs_as_costed(workload, hardware):
    """The event simulator takes the same time for the stages; a stream is never slower than inferences in turn."""
    graph, chip = sim.load_workload(workload), sim.load_hardware(hardware)
    one = cost_network(graph, [chip], parse_precision(chip.default_precision), Options(inputs="resident"))
    for stages in (1, 2):
        cuts = balanced_cuts(one, stages)
        assert len(cuts) == stages - 1
        stream = stream_of(graph, chip, cuts)
        found = arrangement(stream.of(0), cuts, 1)
        assert simulate(to_schedule(stream, 0), chip).latency_s == pytest.approx(found.latency_s, rel=0.02)
        assert found.interval_s <= one.latency_s[0] * (1 + 1e-9)


@pytest.mark.parametrize("room", ["200 KiB", "320 KiB"])
def test_a_stream_is_at_least_what_repeats_one_inference(room):
    """Ten products whose first result is added to the last: alone, they run with their activations in the second order,
    or in 200 KiB with all tensors at home. On one unit that keeps no weights, the stream repeats just that."""
    graph = chain([sim.gemm(256, 256, 256) for _ in range(10)], residuals={9: "relu0"})
    found = sim.estimate(graph, sim.load_hardware("systolic", {"SRAM.capacity": room}), what_if=True)
    assert found.steady.interval_s == found.steady.latency_s == pytest.approx(found.latency_s, rel=1e-12)
    assert found.steady.stages[0].weights_on_chip_bytes == 0


class Steps(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.step = torch.nn.Linear(256, 256, bias=False)

    def forward(self, x):
        for _ in range(4):
            x = torch.relu(self.step(x))
        return x


def test_weights_that_each_inference_loads_are_not_kept():
    """Four steps that share a weight of 64 KiB in 512 KiB: it stays from the first step to the last, no longer."""
    graph = sim.trace(Steps(), (torch.zeros(64, 256),))
    chip = sim.load_hardware("systolic", {"SRAM.capacity": "512 KiB", "DRAM.bandwidth": "0.2 GB/s"})
    one = cost_network(graph, [chip], parse_precision("int8"), Options(inputs="resident"))
    assert any(group.op.kind == LOAD for group in one.of(0).groups)
    assert [size for table in one.residency.loads.values() for size in table.values()] == [65536]
    assert arrangement(one.of(0), (), 1).stages[0].weights_on_chip_bytes == 0


def test_jobs_pass_through_the_stages_of_chips_one_behind_the_other():
    """With as many under way as there are stages and sends, one ends each slowest stage and its send (which holds the
    chip that waits for it); a job alone takes what an inference does, each stage reading its own home memory."""
    chip = sim.load_hardware("h100-sxm-x8", {"system.pipeline": 4})
    graph = products(4096, (4096,) * 5)
    found = sim.estimate(graph, chip, what_if=True, calibration="none", inputs="resident")
    assert found.steady is not None
    plan = schedule(graph, chip, calibration="none", inputs="resident")
    send = max(op.latency_s for op in found.ops if op.kind == "collective.send")
    slowest = max(stage.latency_s for stage in found.steady.stages)

    def ends(under_way: int) -> list[float]:
        streams = [Stream(name=f"{i}", schedule=plan, closed=True) for i in range(under_way)]
        return sorted(job.finish_s for job in run(streams, length_s=50 * found.latency_s, shared=frozenset()).jobs)

    assert ends(1)[0] == pytest.approx(found.latency_s, rel=1e-6)
    filled = [time for time in ends(12) if time > 10 * found.latency_s]
    apart = (filled[-1] - filled[0]) / (len(filled) - 1)
    assert found.steady.interval_s <= apart * (1 + 1e-6)
    assert apart <= 1.01 * (slowest + send)


def test_each_chip_of_a_pipeline_holds_its_stage():
    """The fullest as much as the estimate says."""
    chip, given = sim.load_hardware("h100-sxm-x8", {"system.pipeline": 4}), {"calibration": "none"}
    graph = products(4096, (4096,) * 5)
    held = sim.simulate(graph, chip, **given).streams["inference"].peak_memory_bytes
    assert sorted(held) == [f"gpu[{stage}].DRAM" for stage in range(4)]
    assert max(held.values()) == sim.estimate(graph, chip, **given).peak_memory_bytes["DRAM"]


def test_stages_of_chips_are_a_pipeline_too():
    """Four equal layers on four stages of two H100: each stage computes one, and sends while it computes the next."""
    chip = sim.load_hardware("h100-sxm-x8", {"system.pipeline": 4})
    found = sim.estimate(products(4096, (4096,) * 5), chip, what_if=True, calibration="none", inputs="resident")
    steady = found.steady
    assert steady is not None
    assert [stage.first.split(".")[0] for stage in steady.stages] == [f"layer{i}" for i in range(4)]
    sends = [op for op in found.ops if op.kind == "collective.send"]
    alone = [op.latency_s for op in found.ops if op not in sends]
    assert len(sends) == 3
    assert steady.latency_s == found.latency_s
    assert sum(alone) <= sum(stage.latency_s for stage in steady.stages) < found.latency_s
    link = max(op.latency_s for op in sends)
    assert steady.interval_s == max(link, *(stage.latency_s for stage in steady.stages))
    assert steady.interval_s < found.latency_s / 2
    assert any("a pipeline of 4 stages on 8 chips" in note for note in found.notes)
    assert from_dict(to_dict(found)) == found
