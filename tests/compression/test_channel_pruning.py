"""The pruned model equals the dense one whose pruned channels are never read."""

import copy

import pytest
import torch
from torch import nn

from sim.compression.channels import channel_sets
from sim.compression.fakequant import Grid
from sim.compression.prune import columns, cut, prune_channels, strongest
from sim.compression.quantisation import quantise
from sim.errors import ConfigError, WorkloadError


def shaken(module, seed=0):
    """Statistics and scales away from their initial values, so that a wrong cut shows."""
    g = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=g) + 0.2)
    return module.eval()


def silence(module, item, index):
    """The dense counterpart of `cut`: zero the columns that read channels outside `index`."""
    gone = torch.ones(item.size, dtype=torch.bool).index_fill_(0, index, False).nonzero().flatten()
    with torch.no_grad():
        for name, repeat in item.readers.items():
            module.get_submodule(name).weight[:, columns(gone, repeat)] = 0


def both_ways(module, inputs, keep):
    pruned, dense = copy.deepcopy(module), copy.deepcopy(module)
    for item in channel_sets(module, inputs):
        if item.frozen is None:
            index = strongest(module, item, max(1, round(item.size * keep)))
            cut(pruned, item, index)
            silence(dense, item, index)
    return pruned, dense


class DepthwiseFlatten(nn.Module):
    """A depth-wise stage, then a flattened map into a linear layer: the two awkward cases."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.d = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.n = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6 * 16, 5)

    def forward(self, x):
        x = torch.relu(self.n(self.d(self.a(x))))
        return self.fc(torch.flatten(self.b(x), 1))


@pytest.mark.parametrize("keep", [0.25, 0.5, 0.75])
def test_residual_network_equals_dense_with_zeros(build_cnn, keep):
    model, _ = build_cnn(width=8, blocks=2)
    inputs = (torch.randn(2, 1, 24, 24),)
    pruned, dense = both_ways(shaken(model), inputs, keep)
    with torch.no_grad():
        assert torch.allclose(pruned(*inputs), dense(*inputs), atol=1e-5)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in dense.parameters())


def test_depthwise_and_flatten_equal_dense_with_zeros():
    inputs = (torch.randn(2, 3, 4, 4),)
    pruned, dense = both_ways(shaken(DepthwiseFlatten()), inputs, 0.5)
    with torch.no_grad():
        assert torch.allclose(pruned(*inputs), dense(*inputs), atol=1e-5)
    assert (pruned.d.groups, pruned.fc.in_features) == (4, 3 * 16)


def test_transformer_loses_hidden_channels_only(build_gpt):
    """LayerNorm and attention heads couple channels, so only the hidden layers of the MLPs shrink."""
    model, inputs = build_gpt(width=16, depth=2, context=8)
    out = prune_channels(model.eval(), inputs, keep=0.5, multiple=8)
    assert out.report.treated == ("blocks.0.up", "blocks.1.up")
    assert out.module.blocks[0].down.in_features == 32
    assert "read by" in out.report.untreated["blocks.0.attention.q"]
    pruned, dense = both_ways(model, inputs, 0.5)
    with torch.no_grad():
        assert torch.allclose(pruned(*inputs), dense(*inputs), atol=1e-5)


def test_residual_streams_are_one_set(build_cnn):
    """One stage, one block: the stem and the block's second convolution share their channels."""
    model, inputs = build_cnn(width=8, stages=1)
    sets = channel_sets(model.eval(), inputs)
    assert [s.producers for s in sets] == [["stem", "body.0.conv2"], ["body.0.conv1"], ["head"]]
    assert sets[0].readers == {"body.0.conv1": 1, "head": 1}
    assert sets[2].frozen == "read by the network's output"


def test_strongest_by_hand():
    """Rows of norms 3, 1, 2: the best two are channels 0 and 2."""
    model = nn.Sequential(nn.Linear(1, 3, bias=False), nn.Linear(3, 1))
    model[0].weight.data = torch.tensor([[3.0], [1.0], [2.0]])
    item = channel_sets(model, (torch.zeros(1, 1),))[0]
    assert strongest(model, item, 2).tolist() == [0, 2]


def test_a_layer_used_twice_is_left_alone():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(self.a(self.a(x)))

    out = prune_channels(Shared(), (torch.zeros(1, 4),), keep=0.5)
    assert not out.report.treated
    assert "called 2 times" in out.report.untreated["a"]


def test_what_cannot_be_done_is_said(net):
    with pytest.raises(ConfigError, match="share in"):
        prune_channels(net, (torch.zeros(1, 8),), keep=0)
    with pytest.raises(ConfigError, match="prune channels first"):
        prune_channels(quantise(net, weights=Grid()), (torch.zeros(1, 8),), keep=0.5)

    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(WorkloadError, match=r"cannot be traced by torch\.fx"):
        prune_channels(Branch(), (torch.zeros(1),), keep=0.5)


def test_every_layer_that_stays_is_named_with_its_reason():
    """Of six layers one is pruned and one passes its channels on."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, groups=2),
        nn.Flatten(2), nn.Conv1d(8, 4, 1), nn.LayerNorm(16),
    )  # fmt: skip
    report = prune_channels(net, (torch.zeros(1, 3, 4, 4),), keep=0.5).report
    assert report.treated == ("0",)
    assert report.untreated == {
        "3": "read by grouped convolution 4", "4": "grouped convolution", "6": "channels of a Conv1d are not followed",
        "7": "LayerNorm has no treatment",
    }  # fmt: skip


class Several(nn.Module):
    """Images as `*images`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(images[0]) + self.first(images[1])))


def test_inputs_in_a_row_are_one_argument_each():
    one, other = channel_sets(Several().eval(), (torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)))
    assert {one.size, other.size} == {8, 4}


class ByWidth(nn.Module):
    """A linear layer behind a convolution reads the width of the map, not its channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.b(torch.relu(self.a(x))))


class Tokens(nn.Module):
    """Channels last, all tokens in one row: one channel's columns lie 4 apart."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.b(torch.relu(self.a(x))).flatten(1))


class NormOverTokens(nn.Module):
    """Batch norm of [batch, tokens, channels] normalises tokens."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm, self.fc = nn.Linear(6, 8), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.norm(self.b(torch.relu(self.a(x)))))


class PoolOverTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(2, 3)

    def forward(self, x):
        return self.fc(nn.functional.max_pool2d(self.b(torch.relu(self.a(x))), 2))


@pytest.mark.parametrize(
    ("model", "shape", "why"),
    [
        (ByWidth(), (2, 3, 8, 8), "read by fc along another axis"),
        (Tokens(), (2, 4, 6), "read by flatten"),
        (NormOverTokens(), (2, 4, 6), "read by BatchNorm1d norm"),
        (PoolOverTokens(), (2, 4, 6), "read by max_pool2d"),
    ],
)
def test_channels_that_lie_on_another_axis_stay(model, shape, why):
    """Only a's channels go: everything that reads b's takes its axes for something else."""
    inputs = (torch.randn(shape),)
    pruned, dense = both_ways(model.eval(), inputs, 0.5)
    torch.testing.assert_close(pruned(*inputs), dense(*inputs))
    made = prune_channels(model, inputs, keep=0.5)
    assert made.report.treated == ("a",)
    assert made.report.untreated["b"] == why


def test_a_flattening_module_is_as_the_function():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 2))
    inputs = (torch.randn(2, 1, 8, 8),)
    pruned, dense = both_ways(model, inputs, 0.5)
    torch.testing.assert_close(pruned(*inputs), dense(*inputs))
    assert pruned[3].in_features == 4 * 9


class TiedHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.a, self.b, self.head = (
            nn.Embedding(32, 8),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
            nn.Linear(8, 32),
        )
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.b(torch.relu(self.a(self.words(x)))))


def test_a_weight_that_two_layers_share_stays_shared():
    """Cutting b's channels would cut the head's columns and give the embedding a copy of its own: a larger model."""
    model, inputs = TiedHead(), (torch.zeros(1, 4, dtype=torch.long),)
    made = prune_channels(model, inputs, keep=0.5)
    assert made.report.treated == ("a",)
    assert made.report.untreated["b"] == "head shares a weight with words"
    assert made.module.head.weight is made.module.words.weight
