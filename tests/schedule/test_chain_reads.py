"""What layers of a chain read beside the rows that come in; what groups pass on, in their cost and their bound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import sim
from sim.schedule.prepare import prepare
from sim.schedule.slices import Slicing
from sim.schedule.slicings import chain_slicings, chains
from sim.workload.graph import Graph
from sim.workload.precision import parse_precision


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


def ways_of(graph: Graph) -> list[Slicing]:
    """Ways to cut all chains, were nothing kept on chip."""
    ready = prepare(graph, parse_precision("int8"))
    nowhere = dict.fromkeys((t.storage or key for key, t in ready.tensors.items()), np.array([False]))
    return [way for growing in chains(ready, nowhere) for chain in growing for way in chain_slicings(chain, ready)]


def gram(a, b, x):
    made = a(x)
    return made @ made.transpose(0, 1)


IMAGE = torch.zeros(1, 8, 48, 48)
WHOLE = {
    "a product with its own transpose": (gram, torch.zeros(512, 64)),
    "columns for rows": (lambda a, b, x: b(a(x).transpose(0, 1)), torch.zeros(64, 64)),
    "a transposed residual": (lambda a, b, x: b(made := a(x)) + made.transpose(2, 3), IMAGE),
}
"""What needs all that the first layer made before its first row."""


@pytest.mark.parametrize("name", WHOLE)
def test_what_needs_more_than_its_rows_is_not_cut(name: str) -> None:
    made, inputs = WHOLE[name]
    graph = graph_of(made, inputs)
    assert not ways_of(graph)
    chip = sim.load_hardware("edge-npu", {"SRAM.capacity": "16 KiB"})
    assert not any(op.fused for op in sim.estimate(graph, chip).ops)


def test_reshapes_between_layers_change_no_rows() -> None:
    """(4, 128, 64) and (512, 64) hold the same rows of 64 bytes; the residual is what comes in, under another shape."""
    graph = graph_of(lambda a, b, x: b(a(x).reshape(512, 64)) + x.reshape(512, 64), torch.zeros(4, 128, 64))
    way = ways_of(graph)[-1]
    assert (way.count, list(way.load_inner.values())) == (512, [64])


def test_every_slice_needs_all_of_a_second_operand() -> None:
    """[1024, 64] x [64, 64] x [64, 256]: the last is no weight, and is loaded once, whole, all the same; so is a bias
    for every element of a row, one image's of two and one of a channel."""
    way = ways_of(graph_of(lambda a, b, x, z: a(x) @ z, torch.zeros(1024, 64), torch.zeros(64, 256)))[-1]
    assert sorted(way.load_outer.values()) == [64, 64 * 64, 64 * 256]
    assert list(way.load_inner.values()) == [64]
    for shape in ((1, 8, 48, 48), (1, 8, 1, 1)):
        way = ways_of(
            graph_of(lambda a, b, x, z: b(functional.relu(a(x))) + z, torch.zeros(2, 8, 48, 48), torch.zeros(shape))
        )[-1]
        assert sorted(way.load_outer.values()) == sorted([8, 8, 8 * 8 * 9, 8 * 8 * 9, int(np.prod(shape))])
        assert list(way.load_inner.values()) == [8 * 48]


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
