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
