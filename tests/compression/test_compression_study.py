"""Studies: recipes on a workload, judged and costed; what is wrong shows before anything is trained."""

import pytest

import sim
from sim.compression import study as module
from sim.compression.study import run_study
from sim.errors import ConfigError

WORKLOAD = """
import torch
from torch import nn
def build(batch: int = 1, width: int = 16):
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3))
    return net, (torch.zeros(batch, 3, 12, 12),)
"""


@pytest.fixture
def workload(tmp_path):
    path = tmp_path / "two_layers.py"
    path.write_text(WORKLOAD)
    return str(path)


def _recipe(tmp_path, name, step):
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"schema: dovetail.recipe/1\nname: {name}\nsteps:\n  - {step}\n")
    return str(path)


def test_a_workload_without_a_task_is_costed_and_says_so(tmp_path, workload):
    int8 = _recipe(tmp_path, "int8", "{technique: quantise, weights: {granularity: tensor}}")
    found = run_study(workload, [int8], hardware=["edge-npu", sim.load_hardware("tesla-fsd-npu")])
    assert found.quality is None
    costs = [f"costs on {chip}: data sheet only" for chip in ("edge-npu", "tesla-fsd-npu")]
    assert list(found.notes[:2]) == costs
    assert "has no task" in found.notes[2]
    (result,) = found.results
    edge, fsd = result.benefits
    assert (edge.chip, fsd.chip) == ("edge-npu", "tesla-fsd-npu")
    weights = 3 * 16 * 9 + 16 * 8 * 9
    assert edge.before.weight_bytes - edge.after.weight_bytes == weights, "two bytes before, one after"
    assert found.to_dict()["results"][0]["benefits"][0]["speedup"] == edge.speedup


def test_other_shapes_are_costed_at_the_asked_batch(tmp_path, workload):
    """Half of the 16 channels: half of the MACs of both layers at any batch, so more than one image gains more."""
    prune = _recipe(tmp_path, "prune", "{technique: prune_channels, keep: 0.5}")
    gains = [
        run_study(workload, [prune], hardware=["edge-npu"], knobs={"batch": batch}).results[0].benefits[0]
        for batch in ("1", "64")
    ]
    assert gains[1].before.latency_s > gains[0].before.latency_s
    assert gains[1].speedup > gains[0].speedup > 1


@pytest.mark.parametrize(
    ("step", "knobs", "message"),
    [
        ('{technique: quantise, skip: ["*"]}', {}, r"does nothing.*q, .*: skipped by the recipe$"),
        ("{technique: mixed_precision, mean_bits: 2}", {}, r"mean_bits 2 with choices int4, int8: .*smallest"),
        ("{technique: prune_channels, keep: 0.5}", {"phase": "decode"}, "judged in; leave out -p phase"),
    ],
)
def test_a_bad_recipe_is_found_before_training(tmp_path, monkeypatch, step, knobs, message):
    def refuse(*_args, **_options):
        raise AssertionError("trained")

    monkeypatch.setattr(module, "train", refuse)
    recipe = _recipe(tmp_path, "bad", step)
    with pytest.raises(ConfigError, match=message):
        run_study("byte_gpt", [recipe], hardware=["edge-npu"], knobs={"width": "32", "depth": "1", **knobs})


TWO_INPUTS = """
import torch
from torch import nn
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1)
    def forward(self, image, unused=1.0, mask=None):
        return self.last(torch.relu(self.first(image) + self.second(mask)))
def build(batch: int = 1):
    return Two(), {"mask": torch.zeros(batch, 3, 12, 12), "image": torch.zeros(batch, 3, 12, 12)}
"""


def test_a_model_of_several_inputs_by_name_is_quantised_with_static_ranges_and_pruned(tmp_path):
    """Without a task ranges need shapes alone. By hand: 2 (3 x 16 x 9) + 16 x 8 weights; half of the coupled set of
    16 channels leaves 2 (3 x 8 x 9) + 8 x 8 of them, and 8 + 8 + 8 biases, in two bytes each."""
    path = tmp_path / "two_inputs.py"
    path.write_text(TWO_INPUTS)
    int8 = _recipe(tmp_path, "int8", "{technique: quantise, weights: {granularity: tensor}, activations: {}}")
    prune = _recipe(tmp_path, "prune", "{technique: prune_channels, keep: 0.5}")
    quantised, pruned = (
        found.benefits[0] for found in run_study(str(path), [int8, prune], hardware=["edge-npu"]).results
    )
    weights = 2 * 3 * 16 * 9 + 16 * 8
    assert quantised.before.weight_bytes - quantised.after.weight_bytes == weights
    assert pruned.after.weight_bytes == 2 * (weights // 2 + 3 * 8)
