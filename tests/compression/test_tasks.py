"""Tasks are the same everywhere, learnable, and survive a kill."""

import hashlib

import numpy as np
import pytest
import torch

import sim
from sim.codesign.space import build_space
from sim.compression.distillation import distil
from sim.compression.quality import trained as judge
from sim.compression.study import run_study
from sim.compression.tasks import load_task
from sim.compression.tasks.digits import DigitsTask, generate, sources
from sim.compression.tasks.text import TextTask, corpus, corpus_hash
from sim.compression.training import schedule, train, trained
from sim.errors import ConfigError, DovetailError, TraceError, WorkloadError


def digest(images):
    return hashlib.sha256(images.pixels.tobytes() + images.labels.tobytes()).hexdigest()[:16]


def test_generator_gives_the_same_bytes_for_a_seed():
    """Regression: the first hash was taken when the generator was fixed; a change makes old results void."""
    assert digest(generate("train", 300, 0)) == "a99aa104b7bb8e7d"
    generate.cache_clear()
    assert digest(generate("train", 300, 0)) == "a99aa104b7bb8e7d"
    assert len({digest(generate(part, 300, seed)) for part in ("train", "test") for seed in (0, 1)}) == 4


def test_training_and_test_digits_are_disjoint():
    train_ink, test_ink = sources("train")[0], sources("test")[0]
    assert len(train_ink) + len(test_ink) == 1797
    seen = {digit.tobytes() for digit in train_ink}
    assert sum(digit.tobytes() in seen for digit in test_ink) == 0


def test_images_are_balanced_and_use_the_range():
    images = generate("test", 2000, 0)
    counts = np.bincount(images.labels, minlength=10)
    assert counts.min() > 140  # 200 expected, standard deviation 13.4
    assert images.pixels.min() == 0
    assert images.pixels.max() == 255


def test_default_sizes():
    task = DigitsTask()
    assert task.test_images >= 10_000
    assert isinstance(load_task("digits_cnn"), DigitsTask)
    assert load_task("resnet50") is None
    assert load_task("byte_gpt", {"context": 32}).context == 32


def test_batches_cover_each_epoch_once():
    task = DigitsTask(train_images=256, test_images=100)
    labels = torch.cat([task.batch(seed=3, step=i)[1] for i in range(4)])
    assert torch.equal(
        labels.bincount(minlength=10), torch.from_numpy(generate("train", 256, 0).labels).bincount(minlength=10)
    )
    assert not torch.equal(task.batch(seed=3, step=0)[1], task.batch(seed=3, step=4)[1])


def test_corpus_is_hashed_and_split():
    task = TextTask(context=16)
    assert task.name == f"text-{hashlib.sha256(corpus().tobytes()).hexdigest()[:16]}"
    assert task.name.endswith(corpus_hash())
    assert len(corpus()) > 300_000
    inputs, targets = task.batch(seed=0, step=0)
    assert inputs.shape == (32, 16)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_an_untrained_byte_model_needs_about_eight_bits_and_learns(build_gpt):
    """Uniform over 256 bytes is 8 bits; a few steps bring it below the 5.1 bits of the byte histogram."""
    task = TextTask(context=32, batch_size=16)
    model = trained(task, lambda: build_gpt(width=32, depth=1, context=32)[0], steps=0)
    assert 7.5 < task.evaluate(model, limit=50).value < 9.0
    share = np.bincount(corpus(), minlength=256) / len(corpus())
    histogram_bits = -(share[share > 0] * np.log2(share[share > 0])).sum()
    train(model, task, steps=150)
    assert task.evaluate(model, limit=200).value < histogram_bits


def test_the_image_task_is_learnable(build_cnn):
    """Ten classes: 100 steps on 1,000 images beat chance (10 %) by far."""
    task = DigitsTask(train_images=1000, test_images=500)
    model = trained(task, lambda: build_cnn(width=8)[0], steps=100, seed=0)
    assert task.evaluate(model).value > 25


def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, make_net, task):
    whole = train(make_net(), task, steps=40)
    path = tmp_path / "run.pt"

    class KilledError(Exception):
        pass

    def kill(step, _steps, _loss):
        if step >= 24:
            raise KilledError

    with pytest.raises(KilledError):
        train(make_net(), task, steps=40, checkpoint=path, checkpoint_every=10, progress=kill)
    resumed = train(make_net(9), task, steps=40, checkpoint=path, checkpoint_every=10)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    assert not list(tmp_path.glob("*.partial"))


def test_a_checkpoint_of_another_run_is_refused(tmp_path, make_net, task):
    path = tmp_path / "run.pt"
    train(make_net(), task, steps=4, checkpoint=path)
    with pytest.raises(WorkloadError, match="is of another run"):
        train(make_net(), task, steps=5, checkpoint=path)


def test_a_diverging_run_stops_with_a_message(make_net, task):
    model = make_net()
    model[0].weight.data.fill_(float("nan"))
    with pytest.raises(WorkloadError, match="lower the learning rate"):
        train(model, task, steps=3)


def test_schedule_by_hand():
    """100 steps: ten of warm-up (1/10 ... 1), then a cosine: 1 at step 10, 1/2 at step 55, near 0 at the end."""
    assert [schedule(s, 100) for s in (0, 9, 10)] == pytest.approx([0.1, 1.0, 1.0])
    assert schedule(55, 100) == pytest.approx(0.5)
    assert 0 < schedule(99, 100) < 1e-3


def test_progress_is_called_about_twenty_times(make_net, task):
    seen = []
    train(make_net(), task, steps=100, progress=lambda step, steps, loss: seen.append((step, steps)))
    assert seen == [(s, 100) for s in range(5, 101, 5)]


TASK_FILE = """
import torch
from torch import nn
from torch.nn import functional


def build(batch: int = 1, width: int = 8):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)), (torch.zeros(batch, 4),)


def task(width: int):
    from sim.compression import TensorTask

    def part(seed, count):
        x = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
        return x, (x.sum(1) > 0).long()

    return TensorTask(
        name=f"signs-{width}",
        data={"train": part(0, 256), "validation": part(1, 100), "test": part(2, 200)},
        criterion=functional.cross_entropy,
        score=lambda output, label: 100.0 * (output.argmax(1) == label),
        metric="accuracy %",
        higher_is_better=True,
        steps=60,
        learning_rate=0.02,
    )
"""


@pytest.fixture
def own(tmp_path):
    def write(text=TASK_FILE):
        path = tmp_path / "own.py"
        path.write_text(text)
        return str(path)

    return write


def test_a_workloads_own_task_is_trained_compressed_and_searched(own, tmp_path):
    study = run_study(own(), ["int8-ptq"], hardware=["edge-npu"], knobs={"width": 16})
    assert study.quality.value > 90
    assert study.quality.source == "task signs-16, 200 test examples"
    assert study.results[0].quality.value > 90
    space = {
        "schema": "dovetail.search/1", "name": "own", "workloads": [{"workload": own(), "knobs": {}}],
        "compression": {"recipe": ["int8-ptq"]}, "chip": "edge-npu", "objectives": ["quality", "latency"],
        "budget": {"trials": 2}, "quality": {"method": "train", "metric": "accuracy %", "steps": 60, "examples": 100},
    }  # fmt: skip
    space["workloads"][0]["knobs"]["width"] = {"choices": [8, 16]}
    found = sim.search(build_space(space, folder=tmp_path))
    assert all(row.values[0] > 80 for row in found.front)


def test_a_task_is_of_its_file_not_of_its_name(tmp_path):
    """A file called digits_cnn.py that brings no task has none."""
    path = tmp_path / "digits_cnn.py"
    path.write_text(TASK_FILE.partition("def task")[0])
    assert load_task(str(path)) is None


TASK_FORMS = {
    "keywords": (
        "def task(width: int):",
        "def task(width, *others, **knobs):\n    assert knobs['batch'] == 1",
    ),
    "all": ("def task(width: int):", "def task(**knobs):\n    width = knobs['width']"),
    "partial": ("def task(width: int):", "def made(width, scale):"),
    "class": ("def task(width: int):", "def made(width, scale):"),
}


@pytest.mark.parametrize("form", TASK_FORMS)
def test_whatever_can_be_called_serves_as_a_task(own, form):
    old, new = TASK_FORMS[form]
    more = {"partial": "\n\nimport functools\n\ntask = functools.partial(made, scale=2)\n",
            "class": "\n\nclass task:\n    def __new__(cls, width):\n        return made(width, 2)\n"}  # fmt: skip
    task = load_task(own(TASK_FILE.replace(old, new) + more.get(form, "")), {"width": 16})
    assert task is not None
    assert task.name == "signs-16"


def test_one_example_has_no_standard_error(own, make_net):
    task = load_task(own(TASK_FILE.replace("part(2, 200)", "part(2, 1)")))
    found = judge(torch.nn.Linear(4, 2), task)
    assert found.standard_error is None
    assert found.source == "task signs-8, 1 test example"


def test_what_a_task_or_a_teacher_raises_is_told(own, tmp_path):
    """In a search, on validation examples, and where distillation looks at the outputs."""
    text = TASK_FILE.replace("100.0 * (output.argmax(1) == label)", "label.missing")
    space = {
        "schema": "dovetail.search/1", "name": "own", "workloads": [{"workload": own(text)}],
        "compression": {"recipe": ["int8-ptq"]}, "chip": "edge-npu", "objectives": ["quality", "latency"],
        "budget": {"trials": 1}, "quality": {"method": "train", "metric": "accuracy %", "steps": 1, "examples": 10},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"quality.method train: task signs-8: AttributeError: .*missing"):
        sim.search(build_space(space, folder=tmp_path))
    task, teacher = load_task(own()), torch.nn.Linear(5, 2)
    with pytest.raises(TraceError, match="distil, task signs-8: RuntimeError: "):
        distil(torch.nn.Linear(4, 2), teacher, task, steps=1, learning_rate=0.1)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("def task(width: int)", "def task(height: int)", "task asks for height: expected knobs of build .batch, width."),
    ("return TensorTask(", "return dict(", "task returned a dict without name, steps"),
    ('"test": part(2, 200)', '"test": (torch.zeros(3, 4), torch.zeros(2))', r'data\["test"\]: .* got 3 and 2'),
    ('"validation": part(1, 100), ', "", r'data\["validation"\]: expected inputs and as many targets, got nothing'),
    ("steps=60", "steps=60, batch_size=512", "batch_size 512 is more than the 256 examples"),
    ("functional.cross_entropy", "lambda o, y: o", r"criterion gave shape \[64, 2\], expected one number"),
    ('"test": part(2, 200)', '"test": (torch.zeros(3, 4), torch.tensor(1))', "got 3 and a tensor without axes"),
    ('"test": part(2, 200)', '"test": ([[1.0] * 4], [1])', r"got a list .no tensor. and a list .no tensor."),
    ('"test": part(2, 200)', '"test": torch.zeros(2, 4)', r'data\["test"\]: .* got 2'),
    ("steps=60", "steps=60, batch_size=0", "batch_size 0 must be at least 1"),
    ("functional.cross_entropy", "lambda o, y: o.detach().sum()", "signs-8: RuntimeError: .*does not require grad"),
    ("functional.cross_entropy", "lambda o, y: 1.0", "criterion gave a float, expected one number"),
    ("100.0 * (output.argmax(1) == label)", "1.0", "score gave a float for 64 examples"),
    ("100.0 * (output.argmax(1) == label)", "output[:, 0] / 0 * 0", r"signs-8: accuracy % is nan, expected a finite"),
    ("def task(width: int):", "task = 3\n\n\ndef unused(width: int):", "task is a int, expected a function"),
    ("functional.cross_entropy", "lambda o, y: functional.nll_loss(o[:3], y)", "signs-8: ValueError: .*batch_size"),
    ("100.0 * (output.argmax(1) == label)", "output", r"score gave shape \[64, 2\] for 64 examples"),
])  # fmt: skip
def test_tasks_refused(own, old, new, message):
    assert old in TASK_FILE
    with pytest.raises(DovetailError, match=message):
        run_study(own(TASK_FILE.replace(old, new)), ["int8-ptq"], train_steps=2)


def test_distillation_needs_logits(own, tmp_path):
    recipe = tmp_path / "student.yaml"
    step = "{technique: distil, student: {width: 4}, steps: 5}"
    recipe.write_text(f"schema: dovetail.recipe/1\nname: student\nsteps: [{step}]\n")
    assert run_study(own(), [str(recipe)], train_steps=5).results[0].quality is not None
    pair = "class Pair(nn.Sequential):\n    def forward(self, x):\n        return super().forward(x), x\n"
    text = TASK_FILE.replace("def build(", f"{pair}\n\ndef build(").replace("return nn.Sequential(", "return Pair(")
    with pytest.raises(ConfigError, match="the teacher gives a tuple and the student a tuple: expected logits"):
        run_study(own(text), [str(recipe)], train_steps=0)
