"""Law 1: the roofline bounds both readings of a schedule, and both agree where nothing is contended."""

from __future__ import annotations

import pytest

import sim
from sim.cost.roofline import roofline as graph_roofline
from sim.schedule.network import Options, cost_network
from sim.workload.graph import Graph
from sim.workload.precision import parse_precision

AGREE = 0.02
CHIPS = {
    "systolic": ("mlp", "conv2d", "gemm", "digits_cnn", "byte_gpt", "mobilenet_v2"),
    "tesla-fsd-npu": ("mlp", "conv2d", "gemm", "digits_cnn", "byte_gpt", "mobilenet_v2"),
    "edge-npu": ("mlp", "conv2d", "gemm", "digits_cnn", "byte_gpt"),
    "tpu-v1": ("mlp", "conv2d", "gemm", "digits_cnn", "byte_gpt"),
    "gemmini-16": ("mlp", "conv2d"),
    "nvdla-small": ("mlp", "gemm"),
    "h100-sxm": ("mlp", "digits_cnn", "byte_gpt", "mobilenet_v2"),
    "epyc-zen4": ("mlp", "byte_gpt"),
    "xeon-icx": ("mlp",),  # its weights fit the caches
    "tesla-fsd": ("mlp",),  # a link to the host
    "tpu-v6e": ("mlp", "gemm"),
    "tpu-v4i": ("lstm",),  # weights come from a second memory on chip, behind too little to hide it
    "tesla-dojo-d1": ("digits_cnn", "byte_gpt"),  # loads that set-ups dominate
}
"""A small part of `benchmarks/matrix.py`, which runs every workload on every chip."""
WORKLOADS = {
    "mlp": {},
    "conv2d": {"size": 28, "in_channels": 32, "out_channels": 48},
    "gemm": {"m": 96, "n": 80, "k": 200},
    "digits_cnn": {},
    "byte_gpt": {},
    "mobilenet_v2": {},
    "lstm": {"context": 6},
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return {name: sim.load_workload(name, **knobs) for name, knobs in WORKLOADS.items()}


PAIRS = [(chip, name) for chip, names in CHIPS.items() for name in names]


@pytest.mark.parametrize(("chip_name", "workload"), PAIRS)
def test_roofline_estimate_and_simulate(graphs: dict[str, Graph], chip_name: str, workload: str) -> None:
    graph, chip = graphs[workload], sim.load_hardware(chip_name)
    found = sim.estimate(graph, chip, calibration="none")
    run = sim.simulate(graph, chip, calibration="none")
    assert 0 < found.roofline_latency_s <= found.latency_s
    assert found.roofline_latency_s <= run.latency_s
    assert run.contended_s == 0
    assert run.latency_s == pytest.approx(found.latency_s, rel=AGREE)
    assert (run.energy_j is None) == (found.energy_j is None)
    assert run.energy_j == (None if found.energy_j is None else pytest.approx(found.energy_j, rel=AGREE))


@pytest.mark.parametrize("workload", ["digits_cnn", "byte_gpt"])
@pytest.mark.parametrize("chip_name", ["systolic", "tesla-fsd-npu", "tpu-v1"])
def test_every_op_respects_its_own_bounds(graphs: dict[str, Graph], chip_name: str, workload: str) -> None:
    """An op's latency is its increment of the makespan, at least the time of its array, its lanes and
    its ports on chip. Its bytes at home may have moved while the op before computed: what prefetch
    hid counts there."""
    chip = sim.load_hardware(chip_name)
    network = cost_network(
        graphs[workload], [chip], parse_precision(chip.default_precision), Options(inputs="resident")
    )
    points = {point.name: point for point in graph_roofline(network.graph, chip).ops}
    home = f"memory:{network.unit.home}"
    for group, increment, hidden in zip(network.groups, network.increments_s, network.hidden_s, strict=True):
        bound = points[group.name].resource_s
        assert max((s for name, s in bound.items() if name != home), default=0.0) <= increment[0] * (1 + 1e-12)
        own = bound.get(home, 0.0) if network.residency.memory is None else group.home_busy_s[0]
        assert own <= (increment + hidden)[0] * (1 + 1e-9)
