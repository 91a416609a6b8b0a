"""What may be fetched before the op before is done."""

import pytest
import torch
from torch import nn

import sim
from sim.schedule.network import Options, cost_network
from sim.workload.precision import parse_precision


class Scores(nn.Module):
    """A product by weights, and one of the same shape by what was just made."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(256, 256, bias=False)

    def forward(self, x, q):
        return q @ self.key(x)


@pytest.mark.parametrize("hardware", ["systolic", "tpu-v4i", "tesla-fsd-npu"])
def test_only_what_is_there_is_fetched_ahead(hardware):
    with torch.device("meta"):
        graph = sim.trace(Scores().eval(), (torch.zeros(256, 256), torch.zeros(256, 256)))
    chip = sim.load_hardware(hardware)
    network = cost_network(graph, [chip], parse_precision(chip.default_precision), Options())
    by_weights, by_made = (group for group in network.groups if group.macs)
    assert by_weights.prefetch_s[0] > 0
    assert by_made.prefetch_s[0] == by_made.first_weight_bytes[0] == 0


@pytest.mark.parametrize("stays", [True, False])
def test_weights_come_ahead_where_they_fit(stays):
    """Also in a memory that keeps no tensors between ops: there a full one was taken for endless."""
    graph, capacity = sim.load_workload("resnet18"), 262144
    chip = sim.load_hardware("systolic", {"SRAM.residency": stays, "SRAM.capacity": f"{capacity} B"})
    network = cost_network(graph, [chip], parse_precision(chip.default_precision), Options(objective="latency"))
    before, seen = 0.0, set()
    for group, ahead in zip(network.groups, network.prefetches, strict=True):
        fits = before + group.first_weight_bytes[0] + group.held_bytes[0] <= capacity
        assert ahead[0] == fits
        before = group.footprint_bytes[0]
        seen.add(bool(fits))
    assert seen == {True, False}
