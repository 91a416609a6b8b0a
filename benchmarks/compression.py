"""What each technique costs in quality, over seeds, with paired bootstrap intervals.

    python benchmarks/compression.py -o results [--seeds 5] [--train-steps 3000] [--tune-steps 600]

Trains the cluttered-digits CNN once per seed (checkpointed, so a killed run goes on), applies
every technique to it, and prints loss against the float model in percentage points of accuracy,
mean [95 % interval]. One process, one thread; per-seed accuracies stay in the output folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import torch

from sim.compression.distillation import distil
from sim.compression.fakequant import Grid
from sim.compression.prune import prune_channels
from sim.compression.quantisation import quantise, quantise_aware_training
from sim.compression.sparsify import sparsify_nm, sparsify_unstructured
from sim.compression.statistics import Interval, paired_bootstrap
from sim.compression.tasks.digits import DigitsTask
from sim.compression.training import train, trained

STUDENT = {"width": 4}
"""A third of the width; trained for half the steps, alone or taught."""
INT8 = {"weights": Grid(granularity="channel"), "activations": Grid(symmetric=False)}
INT4 = {"weights": Grid(dtype="int4"), "activations": Grid(dtype="int4", symmetric=False)}
TUNE_RATE = 3e-3
"""Peak learning rate of fine-tuning; chosen on seed 0, which is therefore not among the seeds."""

COMPARISONS = {
    "int8 PTQ": ("float", "int8 PTQ"),
    "fp8 PTQ": ("float", "fp8 PTQ"),
    "int4 PTQ": ("float", "int4 PTQ"),
    "int4 QAT": ("float", "int4 QAT"),
    "int4 QAT over PTQ (gain)": ("int4 QAT", "int4 PTQ"),
    "2:4 one-shot": ("float", "2:4 one-shot"),
    "2:4 fine-tuned": ("float", "2:4 fine-tuned"),
    "30 % dense, fine-tuned": ("float", "30 % dense, fine-tuned"),
    "half the channels, fine-tuned": ("float", "half the channels, fine-tuned"),
    "distilled student over student (gain)": ("student distilled", "student alone"),
    "with features over logits (gain)": ("student distilled with features", "student distilled"),
}
"""Row -> (reference, compared): the difference is accuracy of the first minus that of the second."""


def load_build(name: str) -> Callable:
    path = Path(__file__).resolve().parent.parent / "workloads" / f"{name}.py"
    spec = spec_from_file_location(f"workloads_{name}", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


def variants(float_model, build, task, options, seed):
    """Name -> a function that makes the variant's module."""
    tune = {"task": task, "steps": options.tune_steps, "learning_rate": TUNE_RATE, "seed": seed}
    calibration = task.calibration(256)
    example = (calibration[:1],)

    def student():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(**STUDENT)[0]

    def taught(features):
        rate = task.learning_rate
        return distil(student(), float_model, task, steps=options.train_steps // 2, learning_rate=rate, seed=seed,
                      features=features).module  # fmt: skip

    fp8 = {"weights": Grid(dtype="fp8_e4m3", granularity="channel"), "activations": Grid(dtype="fp8_e4m3")}
    return {
        "int8 PTQ": lambda: quantise(float_model, **INT8, calibration=calibration).module,
        "fp8 PTQ": lambda: quantise(float_model, **fp8, calibration=calibration).module,
        "int4 PTQ": lambda: quantise(float_model, **INT4, calibration=calibration).module,
        "int4 QAT": lambda: quantise_aware_training(float_model, **INT4, **tune).module,
        "2:4 one-shot": lambda: sparsify_nm(float_model).module,
        "2:4 fine-tuned": lambda: sparsify_nm(float_model, **tune).module,
        "30 % dense, fine-tuned": lambda: sparsify_unstructured(float_model, density=0.3, **tune).module,
        "half the channels, fine-tuned": lambda: prune_channels(float_model, example, keep=0.5, **tune).module,
        "student alone": lambda: train(student(), task, steps=options.train_steps // 2, seed=seed),
        "student distilled": partial(taught, {}),
        "student distilled with features": partial(taught, {"body": "body"}),
    }


def run_seed(seed: int, task: DigitsTask, build: Callable, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Per-image rightness (0 or 100) of every variant of one seed; finished ones are read back."""
    checkpoint = options.output / f"float-{seed}.pt"
    model = trained(task, lambda: build()[0], steps=options.train_steps, seed=seed, checkpoint=checkpoint)
    found = {}
    for name, make in {"float": lambda: model, **variants(model, build, task, options, seed)}.items():
        path = options.output / f"{seed}-{name.replace(' ', '_').replace(':', '-')}.npy"
        if not path.exists():
            start = time.process_time()
            np.save(path, task.evaluate(make()).per_example.numpy())
            print(f"seed {seed}: {name:32s} {np.load(path).mean():6.2f} %  {time.process_time() - start:5.1f} s CPU",
                  file=sys.stderr, flush=True)  # fmt: skip
        found[name] = np.load(path)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train-steps", type=int, default=3000)
    parser.add_argument("--tune-steps", type=int, default=600)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    task, build = DigitsTask(), load_build("digits_cnn")
    runs = [run_seed(seed, task, build, options) for seed in range(1, options.seeds + 1)]
    accuracy = np.array([run["float"].mean() for run in runs])
    print(f"float accuracy {accuracy.mean():.2f} % (seeds {accuracy.min():.2f} to {accuracy.max():.2f})")
    for row, (reference, compared) in COMPARISONS.items():
        interval = paired_bootstrap(np.stack([run[reference] - run[compared] for run in runs]))
        print(f"{row:40s} {show(interval)}")


def show(interval: Interval) -> str:
    return f"{interval.mean:+6.2f} [{interval.low:+.2f}, {interval.high:+.2f}] points over {interval.seeds} seeds"


if __name__ == "__main__":
    main()
