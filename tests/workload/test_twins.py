"""Hooks and functions that a module holds: they run on the copy that is traced, and leave the model as it was."""

import torch
from torch import nn

import sim


class Features(nn.Module):
    """Two convolutions of which hooks keep the results; the head reads the second."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3))
        self.head = nn.Linear(32, 10)
        self.kept = {}
        for name in ("0", "2"):
            self.net.get_submodule(name).register_forward_hook(self._keep(name))

    def _keep(self, name):
        def hook(module, inputs, output):
            self.kept[name] = output

        return hook

    def forward(self, image):
        self.net(image)
        return self.head(self.kept["2"].mean((2, 3))), self.kept["0"]


def test_hooks_that_keep_features():
    """30^2 x 16 x 27 and 28^2 x 32 x 144 MACs, then 32 x 10."""
    model = Features()
    graph = sim.trace(model, torch.empty(1, 3, 32, 32))
    assert graph.macs == 30**2 * 16 * 27 + 28**2 * 32 * 144 + 320
    assert not model.kept


def test_functions_over_the_module_read_its_own_weights():
    """In a lambda, in one within another, and as a default."""

    class Held(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(8, 4))
            inner = lambda x: torch.nn.functional.linear(x, self.weight)  # noqa: E731
            self.project = lambda x: inner(x).relu()
            self.back = lambda x, own=self: x @ own.weight

        def forward(self, x):
            return self.back(self.project(x))

    graph = sim.trace(Held(), torch.empty(2, 4))
    assert graph.macs == 2 * 2 * 4 * 8
    assert graph.parameters == 32
    assert {t.name for t in graph.tensors.values() if t.role == "weight"} <= {"weight", ""}


def test_functions_share_the_variables_that_they_close_over():
    """A hook sets what the forward reads; both, and a function that calls itself, run on the copy."""

    def network():
        net = nn.Module()
        net.body, net.head = nn.Linear(8, 8), nn.Linear(8, 4)
        kept = None

        def keep(module, inputs, output, *, owner=net):
            nonlocal kept
            kept = owner.head(output)

        def forward(x, times=2):
            net.stages[0](x)
            return forward(kept @ net.head.weight, times - 1) if times > 1 else kept

        net.body.register_forward_hook(keep)
        net.forward, net.stages = forward, [lambda x: net.body(x)]
        return net

    net = network()
    assert net(torch.ones(2, 8)).shape == (2, 4)
    graph = sim.trace(net, torch.empty(2, 8))
    assert graph.macs == 2 * (2 * (64 + 32)) + 2 * 32
    assert graph.parameters == 64 + 8 + 32 + 4
    assert {op.module for op in graph.ops} == {"body", "head", ""}
