"""Depthwise convolutions where a processor beside the array takes them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import sim
from sim.cost.depthwise import is_depthwise
from sim.errors import ConfigError
from sim.results import Term
from sim.workload.graph import EinsumOp


def traced(module: nn.Module, *shape: int):
    with torch.device("meta"):
        return sim.trace(module.eval(), (torch.zeros(shape),))


def products(graph):
    return [op for op in graph.ops if isinstance(op, EinsumOp)]


class Scores(nn.Module):
    def forward(self, x):
        return x @ x.transpose(-1, -2)


@pytest.mark.parametrize(
    ("module", "shape", "is_one"),
    [
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), (2, 32, 10, 10), True),
        (nn.Conv2d(32, 64, 3, stride=2, groups=32), (1, 32, 11, 11), True),  # two results of each channel
        (nn.Conv1d(16, 16, 5, groups=16), (1, 16, 20), True),
        (nn.Conv2d(32, 32, 3, groups=16), (1, 32, 10, 10), False),  # sums over two channels
        (nn.Conv2d(32, 32, 3), (1, 32, 10, 10), False),
        (nn.Conv2d(1, 8, 3), (1, 1, 10, 10), False),  # one channel in: nothing apart from a plain convolution
        (nn.Linear(32, 32), (4, 32), False),
        (Scores(), (4, 8, 16, 1), False),  # an outer product of activations
    ],
)  # fmt: skip
def test_what_a_depthwise_convolution_is(module, shape, is_one):
    graph = traced(module, *shape)
    assert [is_depthwise(op, graph) for op in products(graph)] == [is_one]


def layer():
    return traced(nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU()), 1, 32, 150, 150)


def chip(**changes):
    return sim.load_hardware("orin-dla", {key.replace("__", "."): value for key, value in changes.items()})


def test_time_by_hand():
    """32 channels x 150 x 150 x 9 taps at 64 MACs a cycle: 101,250 cycles; the lanes' 720,000 comparisons and sums
    with a bias pass behind them."""
    found = sim.estimate(layer(), chip(), calibration="none", precision="int8")
    (op,) = found.ops
    assert op.macs == 32 * 150 * 150 * 9
    assert op.breakdown_s[Term.COMPUTE] * 1.6e9 == pytest.approx(101_250)
    assert op.breakdown_s[Term.VECTOR] == 0.0
    assert sum(op.breakdown_s.values()) == pytest.approx(op.latency_s)
    assert op.bound == "compute"
    assert op.mac_utilization is None
    assert op.cycles_ladder is None


def test_twice_the_rate_is_half_the_compute_and_slow_lanes_come_behind_it():
    fast = sim.estimate(layer(), chip(array__depthwise_macs_per_cycle__int8=128), calibration="none").ops[0]
    assert fast.breakdown_s[Term.COMPUTE] * 1.6e9 == pytest.approx(101_250 / 2)
    slow = sim.estimate(layer(), chip(sdp__lanes=2), calibration="none").ops[0]
    assert slow.bound == "vector"
    assert slow.breakdown_s[Term.COMPUTE] * 1.6e9 == pytest.approx(101_250)
    assert slow.breakdown_s[Term.VECTOR] > 0


def test_simulation_agrees_and_other_layers_stay_on_the_array():
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 64, 1)
    )
    graph = traced(net, 1, 3, 64, 64)
    found = sim.estimate(graph, chip(), calibration="none")
    assert [op.mapping is not None for op in found.ops] == [True, False, True]
    assert found.macs == graph.macs
    assert found.roofline_latency_s <= found.latency_s
    run = sim.simulate(graph, chip(), calibration="none")
    assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)


def test_a_given_mapping_runs_on_the_array():
    unit = chip().main_unit
    alone = replace(unit, hierarchy=(*unit.hierarchy[:-1], replace(unit.array, depthwise_macs_per_cycle={})))
    found = sim.estimate(layer(), replace(chip(), units=(alone,)), calibration="none")
    own = {op.name: op.mapping for op in found.ops}
    given = sim.estimate(layer(), chip(), calibration="none", mapping=own)
    assert given.ops[0].mapping is not None


def test_windows_that_the_array_computes_faster_are_left_to_it():
    """49 taps on 64 rows at two positions a cycle are 98 MACs, 9 taps 18; the processor makes 64 of either."""
    net = nn.Sequential(*(nn.Conv2d(64, 64, k, padding=k // 2, groups=64) for k in (3, 7)))
    found = sim.estimate(traced(net, 1, 64, 56, 56), chip(), calibration="none")
    assert [op.mapping is not None for op in found.ops] == [False, True]
    off = sim.estimate(layer(), chip(array__depthwise_macs_per_cycle__int8=1), calibration="none")
    assert off.ops[0].mapping is not None
    assert off.latency_s > sim.estimate(layer(), chip(), calibration="none").latency_s


def test_narrow_weights_are_widened_before_it():
    wide, narrow = (sim.estimate(layer(), chip(), calibration="none", precision=p).ops[0] for p in ("int8", "w4a8"))
    assert narrow.mapping is None
    assert narrow.breakdown_s[Term.COMPUTE] == wide.breakdown_s[Term.COMPUTE]
    weights = [op.traffic_bytes["DRAM"]["weight"].read for op in (wide, narrow)]
    assert weights[1] < weights[0] == 32 * 9


def test_energy_is_that_of_the_type_whatever_the_order_of_the_file():
    base = chip()
    unit = base.main_unit
    turned = replace(unit.array, macs_per_cycle=dict(reversed(unit.array.macs_per_cycle.items())))
    other = replace(base, units=(replace(unit, hierarchy=(*unit.hierarchy[:-1], turned)),))
    for precision in ("int8", "fp16"):
        one, two = (sim.estimate(layer(), c, calibration="none", precision=precision) for c in (base, other))
        assert one.energy_j == two.energy_j
    costs = [sim.estimate(layer(), base, calibration="none", precision=p).energy_breakdown_j for p in ("int8", "fp16")]
    assert costs[1]["MACs"] > 2 * costs[0]["MACs"]


def test_what_states_none_or_cannot_read_it():
    with pytest.raises(
        ConfigError, match=r"depthwise_macs_per_cycle.bf16: expected a type that the array has: int8, fp16"
    ):
        chip(array__depthwise_macs_per_cycle__bf16=64)
    with pytest.raises(ConfigError, match="read of mapped units, and gpu is costed by gpu_kernels"):
        sim.load_hardware("h100-sxm", {"tensor_core.depthwise_macs_per_cycle.int8": 64})
