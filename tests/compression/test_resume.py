"""Fine-tuning and distillation go on after a kill -9 and end in the same bytes."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sim.compression.distillation import distil
from sim.compression.fakequant import Grid
from sim.compression.prune import prune_channels
from sim.compression.quantisation import quantise_aware_training
from sim.compression.recipe import apply_recipe, parse_recipe
from sim.compression.sparsify import sparsify_nm
from sim.compression.training import train
from sim.errors import WorkloadError

STEPS = 220
"""A checkpoint is written every 100 steps."""
_TUNE = {"steps": STEPS, "learning_rate": 1e-2}
TECHNIQUES = {
    "qat": lambda net, task, **more: quantise_aware_training(
        net, task, weights=Grid(dtype="int4"), activations=Grid(dtype="int4", symmetric=False), **_TUNE, **more
    ),
    "2:4": lambda net, task, **more: sparsify_nm(net, task=task, **_TUNE, **more),
    "channels": lambda net, task, **more: prune_channels(
        net, (task.calibration(2),), keep=0.5, task=task, **_TUNE, **more
    ),
    "distil": lambda net, task, **more: distil(net, net, task, features={"0": "0"}, **_TUNE, **more),
}

_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from conftest import Quadrant, _net as net
from test_resume import TECHNIQUES
def stop(step, steps, loss):
    if step >= 150:
        os.kill(os.getpid(), signal.SIGKILL)
TECHNIQUES[{name!r}](net(0), Quadrant(), checkpoint=Path({path!r}), progress=stop)
"""


def _digest(module):
    content = hashlib.sha256()
    for tensor in module.state_dict().values():
        content.update(tensor.numpy().tobytes())
    return content.hexdigest()


@pytest.mark.parametrize("name", list(TECHNIQUES))
def test_a_killed_run_ends_as_one_that_was_not(name, tmp_path, make_net, task):
    path = tmp_path / "tuned.pt"
    code = _KILLED.format(tests=str(Path(__file__).parent), name=name, path=str(path))
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert torch.load(path, weights_only=True)["run"]["step"] == 100
    first = []
    resumed = TECHNIQUES[name](make_net(), task, checkpoint=path, progress=lambda step, *_: first.append(step))
    assert first[0] > 100, "the first hundred steps are not done again"
    assert _digest(resumed.module) == _digest(TECHNIQUES[name](make_net(), task).module)
    again = TECHNIQUES[name](make_net(), task, checkpoint=path)
    assert _digest(again.module) == _digest(resumed.module), "a finished run is read back"


def test_a_checkpoint_of_another_start_is_refused(tmp_path, make_net, task):
    path = tmp_path / "tuned.pt"
    TECHNIQUES["2:4"](make_net(), task, checkpoint=path)
    with pytest.raises(WorkloadError, match="is of another run"):
        TECHNIQUES["2:4"](make_net(3), task, checkpoint=path)
    with pytest.raises(WorkloadError, match="is of another"):
        TECHNIQUES["qat"](make_net(), task, checkpoint=path)


@pytest.mark.parametrize("other", [{"activations": Grid(dtype="int8", symmetric=False)}, {"percentile": 99.0}])
def test_a_checkpoint_of_other_activations_is_refused(tmp_path, make_net, task, other):
    """Weights and their grid are the same; the inputs of the layers are rounded to other numbers, or in another
    range."""
    path, weights = tmp_path / "tuned.pt", Grid(dtype="int4")
    given = {"activations": Grid(dtype="int4", symmetric=False), "steps": 4, "learning_rate": 1e-2, "checkpoint": path}
    quantise_aware_training(make_net(), task, weights=weights, **given)
    with pytest.raises(WorkloadError, match="is of another run"):
        quantise_aware_training(make_net(), task, weights=weights, **(given | other))
    quantise_aware_training(make_net(), task, weights=weights, **given)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path, make_net, task):
    path = tmp_path / "float.pt"
    train(make_net(), task, steps=4, checkpoint=path)
    with pytest.raises(WorkloadError, match=r"is of another model.*size mismatch"):
        train(torch.nn.Sequential(torch.nn.Linear(8, 4)), task, steps=4, checkpoint=path)


def test_a_model_in_bf16_has_a_checkpoint_too(tmp_path, make_net, task):
    """numpy has no such numbers: the run that goes on from the file ends in those of the run that wrote it."""

    class Narrow(type(task)):
        def _draw(self, count, seed):
            x, y = super()._draw(count, seed)
            return x.bfloat16(), y

    runs = [
        sparsify_nm(make_net().bfloat16(), task=Narrow(), **_TUNE, checkpoint=tmp_path / "tuned.pt") for _ in range(2)
    ]
    weights = [made.module.state_dict() for made in runs]
    assert all(torch.equal(first, weights[1][name]) for name, first in weights[0].items())


def test_each_step_of_a_recipe_that_trains_has_a_file(tmp_path, make_net, task):
    recipe = parse_recipe(
        "schema: dovetail.recipe/1\nname: both\nsteps:\n"
        "  - {technique: sparsify_nm, steps: 3}\n"
        "  - {technique: quantise_aware_training, steps: 3, activations: {}}\n"
    )
    apply_recipe(make_net(), recipe, example_inputs=(task.calibration(2),), task=task, checkpoint=tmp_path / "model.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.both.0.pt", "model.both.1.pt"]
