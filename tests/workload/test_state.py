"""State that outlives the inference, and what is none: roles of buffers that are bound anew."""

import pytest
import torch
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
