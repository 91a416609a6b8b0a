"""Law 1 on small random networks, where set-ups, latencies and prefetches are much of the time, on every mapped chip.

Both readings follow one schedule by one rule, so that what is left between them is rounding to ticks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from random import Random

import pytest
import torch
from torch import nn
from torch.nn import functional

import sim
from sim.hardware.chip import Costing
from sim.hardware.load import list_hardware
from sim.workload.graph import Graph

ROUNDING = 1e-6
NETWORKS = 4
"""Random ones of each kind."""
FEWER = 5
"""Of all networks, where einsums are mapped over several borders, which takes longer."""
CHIPS = [name for name in list_hardware() if sim.load_hardware(name).main_unit.costing is Costing.MAPPED]


class Block(nn.Module):
    """A transformer block with a residual around each half."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, width = x.shape
        q, k, v = (t.reshape(b, n, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))
        return x + self.down(functional.gelu(self.up(x)))


class Convolutions(nn.Module):
    """Convolutions, some depthwise, a residual, pooling and a classifier."""

    def __init__(self, channels: int, kernel: int, layers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        groups = [channels if layer % 2 else 1 for layer in range(layers)]
        same = [nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=g) for g in groups]
        self.middle = nn.Sequential(*(part for conv in same for part in (conv, nn.ReLU())))
        self.last, self.head = nn.Conv2d(channels, channels, 1), nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first(x))
        return self.head(functional.relu(x + self.last(self.middle(x))).mean((2, 3)))


def transformer(batch: int, tokens: int, width: int, heads: int, layers: int = 1) -> Graph:
    return sim.trace(nn.Sequential(*(Block(width, heads) for _ in range(layers))), (torch.zeros(batch, tokens, width),))


def random_networks() -> Iterator[Graph]:
    chance = Random(0)
    pick = chance.choice
    for _ in range(NETWORKS):
        heads = pick([1, 2, 4])
        yield transformer(pick([1, 2, 4]), pick([7, 16, 64]), heads * pick([8, 16, 32]), heads, pick([1, 1, 2]))
        widths = [pick([8, 33, 64, 100, 256]) for _ in range(chance.randint(2, 5))]
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.GELU())]
        yield sim.trace(nn.Sequential(*layers), (torch.zeros(pick([1, 16, 64]), widths[0]),))
        convolutions = Convolutions(pick([4, 8, 16]), pick([1, 3]), chance.randint(1, 3))
        yield sim.trace(convolutions, (torch.zeros(pick([1, 2]), 3, *[pick([8, 14])] * 2),))


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    # The first two: a residual that keeps the home port busy, an attention behind a softmax that hides nothing.
    return [transformer(2, 64, 64, 1), transformer(1, 16, 32, 1), *random_networks()]


@pytest.mark.parametrize("name", CHIPS)
def test_the_simulation_is_the_estimate(graphs: list[Graph], name: str) -> None:
    chip = sim.load_hardware(name)
    for graph in graphs if len(chip.main_unit.memories) == 1 else graphs[:FEWER]:
        found, run = (read(graph, chip, calibration="none") for read in (sim.estimate, sim.simulate))
        assert found.roofline_latency_s <= min(found.latency_s, run.latency_s)
        assert run.contended_s == 0
        assert run.latency_s == pytest.approx(found.latency_s, rel=ROUNDING)
