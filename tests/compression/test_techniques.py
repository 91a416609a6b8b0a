"""Quantisation, smoothing, KV cache, sensitivity and distillation on small networks."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from sim.compression.distillation import distil, soft_loss
from sim.compression.fakequant import Grid, fake_quantise_weight
from sim.compression.prune import prune_channels
from sim.compression.quantisation import quantise, quantise_aware_training, quantise_kv_cache, weight_only
from sim.compression.sensitivities import Sensitivity, allocate, mixed_precision, sensitivity
from sim.compression.smoothing import smooth
from sim.compression.sparsify import sparsify_nm, sparsify_unstructured
from sim.compression.training import train
from sim.errors import ConfigError, WorkloadError

INT8 = Grid(granularity="channel")


def test_static_ranges_are_those_of_the_calibration_set():
    """Inputs in [-1, 3]: asymmetric int8 scale 4/255; 3.9 clips to 3."""
    layer = nn.Sequential(nn.Linear(2, 2, bias=False))
    layer[0].weight.data = torch.eye(2)
    made = quantise(
        layer, weights=INT8, activations=Grid(symmetric=False), calibration=torch.tensor([[-1.0, 3.0], [0.0, 1.0]])
    ).module
    got = made(torch.tensor([[3.9, -1.0]])).detach()
    assert torch.allclose(got, torch.tensor([[3.0, -1.0]]), atol=4 / 255)
    assert got[0, 0] <= 3.01


@pytest.mark.parametrize("low", [-99, 0])
def test_a_static_range_covers_the_stated_share_of_the_magnitudes(low):
    """Whole numbers from -99 or 0 to 99, each once: of 199 values 180 are 90 % and the next (179.1), up to 90 or -90 in
    size, since 181 lie in [-90, 90]; of 100 values 90, up to 89."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False))
    x = torch.arange(low, 100.0)[:, None]
    made = quantise(net, weights=INT8, activations=Grid(symmetric=False), calibration=x, percentile=90.0)
    (hook,) = made.module[0]._forward_pre_hooks.values()
    inside = int(((x >= hook.low) & (x <= hook.high)).sum())
    assert (hook.low.item(), hook.high.item()) == ((-90, 90) if low else (0, 89))
    assert inside == (181 if low else 90)


def test_static_needs_data_and_groups_must_divide(net):
    with pytest.raises(ConfigError, match="need a calibration set"):
        quantise(net, weights=INT8, activations=Grid())
    made = weight_only(net, group=16)
    assert made.report.treated == ("2",)
    assert made.report.untreated["0"] == "row of 8 weights is not whole groups of 16"
    assert made.annotations["2.weight"].bits == 4 + 20 / 16
    assert made.annotations["2:input"].dtype == "bf16"


def test_skipped_layers_are_left_alone(net):
    made = quantise(net, weights=Grid(dtype="int2"), skip=("2",))
    assert torch.equal(made.module[2].weight, net[2].weight)
    assert made.report.untreated["2"] == "skipped by the recipe"


def test_smoothing_changes_no_output_before_rounding_and_evens_the_inputs(build_gpt):
    model, (tokens,) = build_gpt(width=16, depth=1, context=8)
    with torch.no_grad():
        model.blocks[0].norm1.weight[3] = 50.0  # an outlier channel
    before = model.eval()(tokens).detach()
    treat = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    notes = smooth(model, treat, tokens, alpha=0.5)
    assert torch.allclose(model(tokens), before, atol=1e-4)
    assert model.blocks[0].norm1.weight[3] < 50.0
    assert any(n.startswith("smoothing: blocks.0.norm1 -> blocks.0.attention.q") for n in notes)


class PostNorm(nn.Module):
    """A norm behind the addition, as in the first transformers: the next addition reads it too."""

    def __init__(self, read: str) -> None:
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)
        self.read = read

    def forward(self, x):
        y = self.norm(x)
        match self.read:
            case "an addition":
                return y + self.fc(y)
            case "the output":
                return y, self.fc(y)
            case "a linear layer that reads something else too":
                return self.fc(y) * self.fc(x)
            case _:
                return self.fc(y)


@pytest.mark.parametrize(
    ("read", "left"),
    [
        ("an addition", "add"),
        ("the output", "the network's output"),
        ("a linear layer that reads something else too", "what fc reads elsewhere"),
        ("one linear layer", None),
    ],
)
def test_smoothing_leaves_alone_a_norm_that_others_read_too(read, left):
    torch.manual_seed(0)
    model, x = PostNorm(read).eval(), torch.randn(32, 8)
    with torch.no_grad():
        model.norm.weight[3] = 20.0
        before = model(x)
        (note,) = smooth(model, {"fc": model.fc}, x, alpha=0.5)
        torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    if left is None:
        assert note == "smoothing: norm -> fc"
        assert model.norm.weight[3] < 20.0
    else:
        assert left in note
        assert model.norm.weight[3] == 20.0


def test_kv_cache_rounds_keys_and_values_only(build_gpt):
    model, (tokens,) = build_gpt(width=16, depth=2, context=8)
    made = quantise_kv_cache(model, dtype="int4")
    assert made.report.treated == tuple(f"blocks.{i}.attention.{c}" for i, c in product(range(2), "kv"))
    assert made.annotations["kv_cache"].bits == 4
    keys = []
    made.module.blocks[0].attention.k.register_forward_hook(lambda _m, _a, out: keys.append(out))
    made.module(tokens)
    assert all(len(set(row.tolist())) <= 16 for row in keys[0][0])  # 4 bits: at most 16 values a token


def test_quantisation_aware_training_lands_on_the_grid_and_recovers(net, task):
    """int2 weights: training with rounding in the loop beats rounding after training (400 steps)."""
    model = train(net, task, steps=200)
    grid = Grid(dtype="int2", granularity="channel")
    rounded = quantise(model, weights=grid)
    aware = quantise_aware_training(model, task, weights=grid, activations=None, steps=200, learning_rate=1e-2)
    weight = aware.module[0].weight
    assert torch.allclose(fake_quantise_weight(weight, grid), weight, rtol=1e-5)
    assert task.evaluate(aware.module).value > task.evaluate(rounded.module).value


def test_sensitivity_restores_the_model_and_equals_quantising_one_layer(net, task):
    """Each loss is that of quantising this layer alone. Bytes of layer 0 (128 weights): int2 32, int8 128,
    2:4 of fp32 128 x (32 / 2 + 1) / 8 = 272."""
    model = train(net, task, steps=100)
    rows = sensitivity(model, task.evaluate, choices=("int2", "int8", "2:4"))
    assert [(r.layer, r.choice) for r in rows] == list(product(("0", "2"), ("int2", "int8", "2:4")))
    loss = {(r.layer, r.choice): r.loss for r in rows}
    assert abs(loss["0", "int8"]) <= abs(loss["0", "int2"]) + 0.5
    by_hand = quantise(model, weights=Grid(dtype="int2", granularity="channel"), skip=("2",)).module
    assert loss["0", "int2"] == pytest.approx(task.evaluate(model).value - task.evaluate(by_hand).value)
    assert {r.choice: r.weight_bytes for r in rows if r.layer == "0"} == {"int2": 32, "int8": 128, "2:4": 272}


@given(
    losses=st.lists(st.lists(st.integers(-2, 20), min_size=3, max_size=3), min_size=1, max_size=4),
    budget=st.integers(4, 40),
)
@settings(max_examples=80, deadline=None)
def test_allocation_equals_brute_force(losses, budget):
    """Every assignment of three choices of 2, 4 and 8 bytes to up to four layers."""
    sizes = (2, 4, 8)
    rows = [
        Sensitivity(layer=str(i), choice=str(c), loss=loss, weight_bytes=sizes[c])
        for i, layer in enumerate(losses)
        for c, loss in enumerate(layer)
    ]

    def total(picks):
        return sum(max(losses[i][c], 0) for i, c in enumerate(picks))

    fits = [p for p in product(range(3), repeat=len(losses)) if sum(sizes[c] for c in p) <= budget]
    if not fits:
        with pytest.raises(ConfigError, match="the smallest choices need"):
            allocate(rows, budget_bytes=budget)
        return
    got = [int(c) for c in allocate(rows, budget_bytes=budget).values()]
    assert sum(sizes[c] for c in got) <= budget
    assert total(got) == min(total(p) for p in fits)


def test_mixed_precision_stays_within_its_budget(net, task):
    model = train(net, task, steps=50)
    made = mixed_precision(model, task.evaluate, mean_bits=6)
    bits = sum(made.module.get_submodule(n).weight.numel() * (4 if d == "int4" else 8)
               for n, d in made.report.details["allocation"].items())  # fmt: skip
    assert bits <= 6 * (8 * 16 + 16 * 4)


def test_soft_loss_by_hand():
    """Equal logits: 0. Teacher (ln 3, 0) at T = 1 means (3/4, 1/4) against (1/2, 1/2):
    KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.13081."""
    x = torch.tensor([[0.3, -1.0]])
    assert soft_loss(x, x, 3.0).abs() < 1e-7
    teacher = torch.tensor([[1.0986123, 0.0]])
    assert soft_loss(torch.zeros(1, 2), teacher, 1.0).item() == pytest.approx(0.13081, abs=1e-5)


def test_distillation_moves_the_student_to_the_teacher(net, make_net, task):
    teacher = train(net, task, steps=200)
    student = make_net(7)
    made = distil(student, teacher, task, steps=200, learning_rate=1e-2, features={"1": "1"}).module
    x = task.calibration(500)
    with torch.no_grad():
        far, near = (soft_loss(m(x), teacher(x), 2.0).item() for m in (student, made))
    assert near < 0.1 * far
    assert not made._forward_hooks
    with pytest.raises(ConfigError, match='teacher has no layer "11"'):
        distil(student, teacher, task, steps=1, learning_rate=1e-2, features={"1": "11"})


def test_a_weight_that_is_computed_at_every_call_is_left_alone(task):
    """Whatever is written to it is gone at the next call."""
    net = nn.Sequential(weight_norm(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 4))
    steps = (
        quantise(net, weights=Grid(dtype="int4"), activations=Grid(), dynamic=True),
        quantise_aware_training(net, task, weights=Grid(), activations=None, steps=2, learning_rate=1e-3),
        sparsify_nm(net, task=task, steps=2),
        sparsify_unstructured(net, density=0.5, task=task, steps=2),
    )
    for made in steps:
        assert made.report.treated == ("2",)
        assert "computed at every call" in made.report.untreated["0"]
    cut = prune_channels(net, torch.zeros(1, 8), keep=0.5).report
    assert not cut.treated
    assert "computed at every call" in cut.untreated["0"]


def test_a_model_that_torch_cannot_copy_is_refused_with_the_remedy():
    net = nn.Sequential(prune.l1_unstructured(nn.Linear(8, 16), "weight", 0.5))
    with pytest.raises(WorkloadError, match=r"prune\.remove"):
        quantise(net, weights=Grid())
    prune.remove(net[0], "weight")
    assert quantise(net, weights=Grid()).report.treated == ("0",)
