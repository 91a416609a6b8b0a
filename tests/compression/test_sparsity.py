"""Masks are exactly N:M, fine-tuning keeps them, and what does not divide is named."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sim.compression.annotations import annotate
from sim.compression.fakequant import Grid, fake_quantise_weight
from sim.compression.model import as_compressed, weight_bytes
from sim.compression.quantisation import quantise, quantise_aware_training
from sim.compression.sparsify import nm_mask, sparsify_nm, sparsify_unstructured
from sim.compression.training import held
from sim.errors import ConfigError
from sim.workload.trace.run import trace


@given(
    seed=st.integers(0, 2**31), pattern=st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8), (3, 5)]),
    groups=st.integers(1, 5), kernel=st.sampled_from([(), (3,), (3, 3)]),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_masks_are_exactly_n_of_m_and_keep_the_largest(seed, pattern, groups, kernel):
    n, m = pattern
    weight = torch.randn(3, groups * m, *kernel, generator=torch.Generator().manual_seed(seed))
    mask = nm_mask(weight, n, m)
    split = (mask.movedim(1, -1).reshape(-1, m), weight.abs().movedim(1, -1).reshape(-1, m))
    assert (split[0].sum(1) == n).all()
    for kept, size in zip(*split, strict=True):
        assert size[kept].min() >= size[~kept].max()


def test_a_group_of_equal_weights_still_keeps_exactly_n():
    assert nm_mask(torch.zeros(2, 8), 2, 4).int().tolist() == [[1, 1, 0, 0, 1, 1, 0, 0]] * 2


def test_hand_made_mask():
    assert nm_mask(torch.tensor([[1.0, -3.0, 2.0, 0.5]]), 2, 4).tolist() == [[False, True, True, False]]


def test_layers_that_do_not_divide_are_named_and_left_alone():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4))
    out = sparsify_nm(model)
    assert out.report.treated == ("2",)
    assert out.report.untreated == {
        "0": "6 input channels are not whole groups of 4",
        "1": "LayerNorm has no treatment",
    }
    assert torch.equal(out.module[0].weight, model[0].weight)
    with pytest.raises(ConfigError, match="6 input channels are not whole groups of 4"):
        nm_mask(model[0].weight, 2, 4)


def test_fine_tuning_quantisation_and_qat_keep_the_mask(net, task):
    sparse = sparsify_nm(net, task=task, steps=10, learning_rate=1e-2)
    mask = sparse.masks["2.weight"]
    assert (sparse.module[2].weight[~mask] == 0).all()
    assert not torch.equal(sparse.module[2].weight, net[2].weight * mask)  # it did learn
    grid = Grid(dtype="int4", granularity="channel")
    both = quantise(sparse, weights=grid)
    aware = quantise_aware_training(
        sparse, task, weights=grid, activations=Grid(symmetric=False), steps=5, learning_rate=1e-2
    )
    for made in (both, aware):
        assert (made.module[2].weight[~mask] == 0).all()
        note = made.annotations["2.weight"]
        assert (note.dtype, note.bits, note.density, note.pattern) == ("int4", 4.0, 0.5, "2:4")
    weight = aware.module[2].weight
    assert torch.allclose(fake_quantise_weight(weight, grid), weight, rtol=1e-5)


def test_unstructured_keeps_the_asked_share_over_all_layers(net):
    out = sparsify_unstructured(net, density=0.3)
    total = sum(m.numel() for m in out.masks.values())
    assert sum(int(m.sum()) for m in out.masks.values()) == round(0.3 * total)
    note = out.annotations["0.weight"]
    assert note.pattern == "unstructured"
    assert note.density == pytest.approx(out.masks["0.weight"].float().mean().item())


def test_a_layer_that_loses_all_its_weights_still_has_a_cost():
    """Uniform weights have no outliers, normal ones do: 2 % over both layers take all of the head's 512."""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 2))
    nn.init.normal_(model[0].weight, generator=torch.Generator().manual_seed(0))
    nn.init.uniform_(model[2].weight, -1, 1, generator=torch.Generator().manual_seed(0))
    made = sparsify_unstructured(model, density=0.02)
    assert not made.module[2].weight.any()
    assert made.annotations["2.weight"].density == 1 / 512
    marked = annotate(trace(made.plain(), (torch.zeros(1, 64),)), made.annotations)
    head = next(t for t in marked.tensors.values() if t.name == "2.weight")
    assert head.size_bytes == (32 + 512) // 8  # one weight, and a bit of position for each


def test_stored_bytes_by_hand():
    """Linear 8 x 4 in int8 at 2:4: 32 weights x (8 bits / 2 + 1 metadata) / 8 = 20 bytes; bias 4 x 4 = 16."""
    out = quantise(sparsify_nm(nn.Linear(8, 4)), weights=Grid(granularity="channel"))
    assert weight_bytes(out.module, out.annotations) == 36
    assert weight_bytes(nn.Linear(8, 4), {}) == 144


@pytest.mark.parametrize(("n", "m"), [(0, 4), (4, 4), (5, 4)])
def test_impossible_patterns(net, n, m):
    with pytest.raises(ConfigError, match="0 < N < M"):
        sparsify_nm(net, n=n, m=m)


def test_fine_tuning_without_data_and_a_bad_density(net):
    with pytest.raises(ConfigError, match="need a task"):
        sparsify_nm(net, steps=5)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        sparsify_unstructured(net, density=1.5)


def test_the_argument_is_never_changed(net):
    before = [p.clone() for p in net.parameters()]
    sparsify_nm(as_compressed(net))
    quantise(net, weights=Grid(dtype="int2"))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


class _Tied(nn.Module):
    """The head reads the embedding's weight, and so does a second linear layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.head, self.other = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False), nn.Linear(8, 16)
        self.head.weight = self.other.weight = self.embed.weight

    def forward(self, i):
        return self.head(self.embed(i)) + self.other(self.embed(i))


def test_whoever_shares_a_weight_sees_it_masked_while_it_is_trained():
    """Else the embedding would learn from weights that are zeros afterwards; the three stay one weight."""
    made = quantise(sparsify_nm(_Tied()), weights=Grid(dtype="int8", granularity="channel"))
    with held(made.module, made.masks, made.grids):
        with torch.no_grad():
            made.module.embed.parametrizations.weight.original.add_(1.0)
        for layer in (made.module.embed, made.module.head, made.module.other):
            assert (layer.weight.unflatten(-1, (-1, 4)) != 0).sum(-1).le(2).all()
        assert len([p for p in made.module.parameters() if p.dim() == 2]) == 1
    assert made.module.embed.weight is made.module.head.weight is made.module.other.weight
    assert (made.module.head.weight.unflatten(-1, (-1, 4)) != 0).sum(-1).le(2).all()
