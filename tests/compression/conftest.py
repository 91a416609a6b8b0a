"""Builders of the bundled workloads that have a task, and a small task without files."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from sim.compression.training import Score

WORKLOADS = Path(__file__).resolve().parents[2] / "workloads"


def _build(name):
    spec = spec_from_file_location(f"bundled_{name}", WORKLOADS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


@pytest.fixture(scope="session")
def build_cnn():
    return _build("digits_cnn")


@pytest.fixture(scope="session")
def build_gpt():
    return _build("byte_gpt")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Quadrant:
    """Which of four classes a point of 8 features belongs to: the signs of its first two."""

    name, workload, steps, learning_rate = "quadrant", "none", 100, 1e-2

    def batch(self, *, seed, step):
        return self._draw(64, seed * 10_000 + step)

    def _draw(self, count, seed):
        x = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
        return x, (x[:, 0] > 0).long() * 2 + (x[:, 1] > 0).long()

    def loss(self, output, target):
        return functional.cross_entropy(output, target)

    def calibration(self, count):
        return self._draw(count, 999_983)[0]

    def evaluate(self, module, *, limit=None, part="test"):
        x, y = self._draw(limit or 1000, 999_979 if part == "test" else 999_961)
        with torch.no_grad():
            right = 100.0 * (module(x).argmax(1) == y).float()
        return Score(metric="accuracy %", value=right.mean().item(), per_example=right, higher_is_better=True)


@pytest.fixture
def task():
    return Quadrant()


def _net(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))


@pytest.fixture
def net():
    return _net()


@pytest.fixture
def make_net():
    return _net
