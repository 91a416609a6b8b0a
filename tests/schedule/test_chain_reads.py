"""What ops and groups read, in their cost and their bound."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import sim
from sim.workload.graph import Graph


class Net(nn.Module):
    """Two layers of eight channels, or 64 elements, and what is made of them."""

    def __init__(self, made: Callable[..., torch.Tensor], *, products: bool) -> None:
        super().__init__()
        self.made = made
        self.a, self.b = (nn.Linear(64, 64) if products else nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.made(self.a, self.b, *inputs)


def graph_of(made: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Graph:
    return sim.trace(Net(made, products=inputs[0].ndim < 4), inputs)


IMAGE = torch.zeros(1, 8, 48, 48)


def test_an_op_that_adds_another_tensor_is_not_like_one_that_adds_its_input() -> None:
    """Twice one layer, which adds what it reads, then what was before: 8 x 48 x 48 bytes more to read."""

    def made(a, b, x):
        y = a(x) + x
        return a(y) + x

    chip = sim.load_hardware("nvdla-full", {"CBUF.capacity": "16 KiB", "DRAM.bandwidth": "1 GB/s"})
    first, second = (op for op in sim.estimate(graph_of(made, IMAGE), chip).ops if op.macs)
    read = [sum(moved.read for moved in op.traffic_bytes["DRAM"].values()) for op in (first, second)]
    assert read[1] - read[0] == 8 * 48 * 48
    assert second.roofline_s <= second.latency_s


def test_parts_of_one_tensor_are_each_read() -> None:
    """Queries, keys and values are parts of one tensor: where it lies in DRAM each is read once, and the result is
    written, 64 KiB each; where all fits on chip, the bound is the array: 2 x 2 x 1024 x 1024 x 32 MACs, 4,096 a cycle.
    """

    def attention(a, b, x):
        q, k, v = (part.unflatten(-1, (2, 32)).transpose(1, 2) for part in torch.cat([x, x, x], -1).chunk(3, -1))
        return a(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    graph = graph_of(attention, torch.zeros(1, 1024, 64))
    for capacity, bound_s in (("60 KiB", 4 * 65536 / 1e9), ("256 KiB", 32768e-9)):
        design = {"SRAM.capacity": capacity, "DRAM.bandwidth": "1 GB/s", "simd.lanes": "4096"}
        op = next(op for op in sim.estimate(graph, sim.load_hardware("systolic", design)).ops if len(op.fused) == 2)
        assert op.roofline_s == pytest.approx(bound_s, rel=1e-12)
        assert op.roofline_s <= op.latency_s
