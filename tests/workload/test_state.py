"""State that outlives the inference, and what is none: roles of buffers that are bound anew, and of inputs that are
written in place."""

import pytest
import torch
from calls import graph_of
from torch import nn

import sim
from sim.workload.graph import Role


class ConvLSTM(nn.Module):
    """One cell (Shi et al., NeurIPS 2015) that carries its state in buffers, in attributes or in a list."""

    def __init__(self, held: str, channels: int = 8):
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)
        self.held = held
        h, c = torch.zeros(1, channels, 4, 4), torch.zeros(1, channels, 4, 4)
        if held == "buffers":
            self.register_buffer("h", h)
            self.register_buffer("c", c)
        elif held == "attributes":
            self.h, self.c = h, c
        else:
            self.state = [h, c]

    def forward(self, x):
        h, c = self.state if self.held == "list" else (self.h, self.c)
        i, f, g, o = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        if self.held == "list":
            self.state = [h, c]
        else:
            self.h, self.c = h, c
        return h.mean((2, 3))


def bytes_of(graph, role):
    found = {t.storage: t.size_bytes for t in graph.tensors.values() if t.role is role}
    return sum(found.values())


@pytest.mark.parametrize("held", ["buffers", "attributes", "list"])
def test_state_that_a_module_binds_anew(held):
    """h and c of 128 elements are read as a cache and written again; weights are 32 filters of 16 x 9, and biases."""
    graph = sim.trace(ConvLSTM(held), torch.empty(1, 8, 4, 4))
    assert graph.parameters == 32 * 16 * 9 + 32
    assert bytes_of(graph, Role.KV_CACHE) == 2 * 128 * 4
    assert bytes_of(graph, Role.OUTPUT) == 2 * 128 * 4 + 8 * 4


def test_frames_of_a_queue_are_state_and_what_comes_beside_a_constant_is_not():
    """Three frames of 16 elements, of which the oldest leaves unread; a result kept beside a table changes no role."""

    class Queue(nn.Module):
        def __init__(self):
            super().__init__()
            self.frames = [torch.zeros(16) for _ in range(3)]
            self.kept = {"table": torch.zeros(16)}

        def forward(self, x):
            new = x * self.kept["table"]
            self.frames = [*self.frames[1:], new]
            self.kept["new"] = new
            return sum(self.frames).sum()

    graph = sim.trace(Queue(), torch.empty(16))
    assert bytes_of(graph, Role.KV_CACHE) == 2 * 16 * 4
    assert bytes_of(graph, Role.WEIGHT) == 16 * 4
    assert bytes_of(graph, Role.OUTPUT) == (16 + 1) * 4


def test_of_an_object_in_a_module_only_the_attribute_that_is_replaced_is_state():
    """A sampler with a table of 16 elements that it reads, and an average of 4 that it reads and replaces."""

    class Sampler:
        def __init__(self):
            self.table, self.average = torch.zeros(16), torch.zeros(4)

        def step(self, x):
            self.average = self.average * 0.9 + x.sum(-1)
            return x * self.table + self.average[:, None]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.sampler = Sampler()

        def forward(self, x):
            return self.sampler.step(x)

    graph = sim.trace(Model(), torch.empty(4, 16))
    assert bytes_of(graph, Role.WEIGHT) == 16 * 4
    assert bytes_of(graph, Role.KV_CACHE) == 4 * 4
    assert bytes_of(graph, Role.OUTPUT) == (4 * 16 + 4) * 4


def test_a_table_that_is_made_larger_is_no_state():
    """It was not read before: nothing of it is carried from call to call."""

    class Rotary(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.zeros(4, 8))

        def forward(self, x):
            if len(x) > len(self.table):
                self.table = torch.arange(len(x) * 8.0, device=x.device).view(-1, 8).cos()
            return x * self.table[: len(x)]

    graph = sim.trace(Rotary(), torch.empty(16, 8))
    assert not bytes_of(graph, Role.KV_CACHE)
    assert bytes_of(graph, Role.OUTPUT) == 16 * 8 * 4


@pytest.mark.parametrize(
    ("written", "role"),
    [
        (lambda m, x, y: x.sub_(m.mean).div_(58.0) @ y, Role.INPUT),
        (lambda m, x, y: torch.relu_(x) @ y, Role.INPUT),
        (lambda m, x, y: x[:, 2:].add_(x[:, :2]) @ y[:2], Role.INPUT),
        (lambda m, x, y: x.add_(x @ m.weight) @ y, Role.INPUT),
        (lambda m, x, y: x[:1].copy_(y[:, :1].t()) + x, Role.KV_CACHE),
        (lambda m, x, y: x.mul_(0.9).add_(y.t()) @ y, Role.KV_CACHE),
        (
            lambda m, x, y: x.index_copy_(0, torch.zeros(1, dtype=torch.long, device=x.device), y[:, :1].t()),
            Role.KV_CACHE,
        ),
    ],
    ids=["normalised", "clipped", "boxes", "residual", "row", "decayed", "index"],
)
def test_an_input_written_in_place_is_a_cache_where_it_takes_in_another(written, role):
    graph = graph_of(written, torch.empty(4, 4), torch.empty(4, 4), mean=torch.zeros(4), weight=torch.zeros(4, 4))
    assert {t.role for t in graph.tensors.values() if t.storage == "s0"} == {role}


def test_an_image_normalised_in_place_crosses_the_host_link():
    """3 x 224 x 224 elements of bf16 over PCIe at 64 GB/s: 4.7 us."""
    graph = graph_of(lambda m, x: x.sub_(m.mean).relu(), torch.empty(1, 3, 224, 224), mean=torch.zeros(3, 1, 1))
    found = sim.estimate(graph, sim.load_hardware("h100-sxm"))
    assert found.breakdown_s["communication"] > 2 * 3 * 224 * 224 / 64e9


@pytest.mark.parametrize(
    "ends", [lambda m, x: x.relu_(), lambda m, x: x.relu_().view(-1), lambda m, x: x.relu_() and None]
)
def test_an_input_that_becomes_the_result(ends):
    """Returned, returned as a view, or left for the caller: 8 elements come over the host link and 8 are written."""
    graph = graph_of(ends, torch.empty(2, 4))
    (relu,) = [op for op in graph.ops if op.kind == "aten.relu_"]
    assert graph.tensors[relu.inputs[0]].role is Role.INPUT
    found = sim.estimate(graph, sim.load_hardware("h100-sxm"))
    assert {op.name for op in found.ops} >= {"host.input", "relu"}
    assert Role.OUTPUT in {t.role for t in graph.tensors.values()}
