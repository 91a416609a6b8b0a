"""Potentials: forces are the gradient of an energy, taken while the model runs."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import sim
from sim.workload.graph import Primitive, VectorOp
from sim.workload.summary import unsupported
from sim.workload.trace import trace

ATOMS, PAIRS, WIDTH, RADIAL = 20, 50, 16, 8


class Potential(nn.Module):
    """Messages along pairs, weighted by their distance, summed at atoms; `mixed` works on the sums."""

    def __init__(self, act, mixed):
        super().__init__()
        self.kinds = nn.Embedding(10, WIDTH)
        self.filters, self.atoms, self.energy = nn.Linear(RADIAL, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.act, self.mixed = act, mixed

    def forward(self, kinds, places, pairs):
        with torch.enable_grad():
            places = places.detach().requires_grad_(True)
            h = self.kinds(kinds)
            far = (places[pairs[0]] - places[pairs[1]]).norm(dim=-1)
            weights = self.act(self.filters(torch.exp(-((far[:, None] - torch.linspace(0, 5, RADIAL)) ** 2))))
            h = self.mixed(torch.zeros_like(h).index_add(0, pairs[1], h[pairs[0]] * weights))
            energy = self.energy(self.act(self.atoms(h))).sum()
            return energy, -torch.autograd.grad(energy, places)[0]


def potential(act=torch.tanh, mixed=lambda h: h):
    indices = {"dtype": torch.int64}
    inputs = (torch.empty(ATOMS, **indices), torch.empty(ATOMS, 3), torch.empty(2, PAIRS, **indices))
    return trace(Potential(act, mixed), inputs)


@pytest.mark.parametrize("act", ["tanh", "silu", "softplus", "sigmoid", "relu", "gelu", "elu", "leaky_relu", "mish"])
def test_forces_cost_the_products_once_more(act):
    """Each product's transpose brings the gradient back; weights have none."""
    graph = potential(getattr(functional, act))
    assert graph.macs == 2 * (PAIRS * RADIAL * WIDTH + ATOMS * WIDTH * WIDTH + ATOMS * WIDTH)
    assert not unsupported(graph)
    assert sim.estimate(graph, sim.load_hardware("edge-npu")).latency_s > 0


@pytest.mark.parametrize(
    "mixed",
    [
        nn.LayerNorm(WIDTH),
        lambda h: h.softmax(-1),
        lambda h: h.log_softmax(-1),
        lambda h: torch.cat((h[:, :8], h[:, 8:] * 2), 1) + h[:, :1],
        lambda h: h + torch.cdist(h, h).sum(-1, keepdim=True),
    ],
    ids=["norm", "softmax", "log softmax", "parts", "distances"],
)
def test_what_lies_between_brings_the_gradient_back(mixed):
    assert not unsupported(potential(mixed=mixed))


def test_the_gradient_of_tanh_by_hand():
    """g (1 - y^2): an fma and a product an element, of the filters of pairs and of the atoms."""
    back = [op for op in potential() if isinstance(op, VectorOp) and op.kind == "aten.tanh_backward"]
    counts = [n * WIDTH for n in (ATOMS, PAIRS)]
    assert [dict(op.primitives) for op in back] == [{Primitive.FMA: n, Primitive.MUL: n} for n in counts]


@pytest.mark.parametrize(("layer", "size"), [(nn.Conv2d, 6), (nn.ConvTranspose2d, 8)])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("asked", ["input", "weight", "all"])
def test_the_gradients_of_a_convolution(layer, size, asked, groups):
    """6 -> 4 channels, 3 x 3 window, at 6 x 6 places (results, or what a transposed one scatters): 7,776 MACs an image,
    half with two groups, and as many for each gradient of a factor; the bias adds up what comes back."""

    class Guided(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer(6, 4, 3, groups=groups)

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                self.layer.requires_grad_(asked != "input")
                y = self.layer(x)
                found = {"input": [x], "weight": [self.layer.weight], "all": [x, *self.layer.parameters()]}[asked]
                return torch.autograd.grad(y.sum(), found)

    at = 8 if layer is nn.Conv2d else 6
    graph = trace(Guided(), (torch.empty(2, 6, at, at),))
    assert graph.macs == 2 * 6 * 4 * 9 * 36 // groups * (3 if asked == "all" else 2)
    assert not unsupported(graph)
    sums = [
        op for op in graph if isinstance(op, VectorOp) and {*op.primitives} == {Primitive.ADD} and "back" in op.kind
    ]
    assert [dict(op.primitives) for op in sums] == [{Primitive.ADD: 2 * 4 * size * size}] * (asked == "all")
    assert sim.estimate(graph, sim.load_hardware("edge-npu")).latency_s > 0
