"""Tasks are the same everywhere, learnable, and survive a kill."""

import hashlib

import numpy as np
import pytest
import torch

from sim.compression.tasks import TASKS, load_task
from sim.compression.tasks.digits import DigitsTask, generate, sources
from sim.compression.tasks.text import TextTask, corpus, corpus_hash
from sim.compression.training import schedule, train, trained
from sim.errors import WorkloadError


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
    assert set(TASKS) == {"digits_cnn", "byte_gpt"}
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
