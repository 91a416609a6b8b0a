"""Weights that are widened before they are multiplied take the lanes' energy, as they take their time."""

from __future__ import annotations

import pytest
import torch

import sim
from sim.hardware.physical import vector_energy_j


@pytest.mark.parametrize(
    ("chip", "precision", "lanes"),
    [("edge-npu", "w4a16", "simd"), ("tesla-fsd-npu", "w4a8", "simd"), ("v100-pcie-32gb", "w4a16", None)],
)
def test_each_widened_weight_is_a_conversion_and_a_product(chip: str, precision: str, lanes: str | None):
    """4,096 x 4,096 weights that come once; a GPU whose array has the mixed rate widens none."""
    machine = sim.load_hardware(chip)
    graph = sim.trace(torch.nn.Linear(4096, 4096, bias=False), (torch.zeros(16, 4096),))
    found = sim.estimate(graph, machine, precision=precision, inputs="resident")
    assert sum(found.energy_breakdown_j.values()) == pytest.approx(found.energy_j)
    one = 0.0 if lanes is None else sum(vector_energy_j(machine, lanes, name) for name in ("convert", "mul"))
    assert found.energy_breakdown_j["vector"] == pytest.approx(4096 * 4096 * one)


def test_a_gpu_without_the_mixed_rate_widens_too():
    """Stated: 1 pJ a conversion and 2 pJ a product make 3 pJ a weight."""
    machine = sim.load_hardware("t4").set("cuda_core.energy.convert", "1 pJ").set("cuda_core.energy.mul", "2 pJ")
    graph = sim.trace(torch.nn.Linear(4096, 4096, bias=False), (torch.zeros(16, 4096),))
    found = sim.estimate(graph, machine, precision="w4a8", inputs="resident")
    assert found.energy_breakdown_j["vector"] == pytest.approx(4096 * 4096 * 3e-12)
