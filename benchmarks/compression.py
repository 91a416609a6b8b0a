"""What each technique costs in quality, over seeds, with paired bootstrap intervals.

    nice python benchmarks/compression.py -o runs [--task digits|text|both] [--seeds 5] [--report FILE.json]

Trains the task's model once per seed (checkpointed, so a killed run goes on), applies every technique
to it and prints the loss against the float model, mean [95 % interval], in the metric's unit. One
process, one thread. Per-example results stay in the output folder; `--report` writes the summary as
data (`compression.json` beside this file is the last of five seeds).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import torch

from sim.compression.distillation import distil
from sim.compression.fakequant import Grid
from sim.compression.prune import prune_channels
from sim.compression.quantisation import quantise, quantise_aware_training, quantise_kv_cache, weight_only
from sim.compression.sensitivities import mixed_precision
from sim.compression.sparsify import sparsify_nm, sparsify_unstructured
from sim.compression.statistics import Interval, paired_bootstrap
from sim.compression.tasks.digits import DigitsTask
from sim.compression.tasks.text import TextTask
from sim.compression.training import Task, train, trained

INT8 = {"weights": Grid(granularity="channel"), "activations": Grid(symmetric=False)}
INT4 = {"weights": Grid(dtype="int4"), "activations": Grid(dtype="int4", symmetric=False)}
FP8 = {"weights": Grid(dtype="fp8_e4m3", granularity="channel"), "activations": Grid(dtype="fp8_e4m3")}
TOKEN = Grid(symmetric=False)
"""int8 activations with a range per token, found at run time."""
SENSITIVITY_EXAMPLES = 1000

Maker = Callable[[], torch.nn.Module]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A task, its model, and how long things are trained."""

    task: Task
    workload: str
    train_steps: int
    tune_steps: int
    tune_rate: float
    """Peak learning rate of fine-tuning; chosen on seed 0, which is therefore not among the seeds."""
    student: Mapping[str, int]
    """Knobs of the student, trained for half the steps, alone or taught."""
    teaching: Mapping[str, float]
    """Temperature and soft weight of distillation; chosen on the validation split of seeds 100 and 101."""
    hints: Mapping[str, str]
    """Layers whose features the student learns."""
    contrasts: Mapping[str, Mapping[str, float]]
    """Row -> weight of each variant's quality; losses are `_lost`, gains `_gained`."""

    def build(self, **knobs: int) -> torch.nn.Module:
        path = Path(__file__).resolve().parent.parent / "workloads" / f"{self.workload}.py"
        spec = spec_from_file_location(f"workloads_{self.workload}", path)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.build(**knobs)[0]


def _lost(variant: str) -> dict[str, float]:
    return {"float": 1.0, variant: -1.0}


def _gained(variant: str, over: str) -> dict[str, float]:
    return {variant: 1.0, over: -1.0}


QAT_OVER_HALF = {"int4 QAT": 1.0, "float": -0.5, "int4 PTQ": -0.5}
"""(QAT - PTQ) - (float - PTQ) / 2: above 0 where training recovers more than half of the loss."""
COMMON = (
    "int8 PTQ", "int8 dynamic", "fp8 PTQ", "int4 PTQ", "int4 QAT", "mixed int4/int8, 5 bits", "2:4 one-shot",
    "2:4 fine-tuned",
)  # fmt: skip
DISTILLED = {
    "distilled student over student (gain)": _gained("student distilled", "student alone"),
    "with features over logits (gain)": _gained("student distilled with features", "student distilled"),
}


def digits(options: argparse.Namespace) -> Subject:
    pruned = ("30 % dense, fine-tuned", "half the channels, fine-tuned")
    rows = {name: _lost(name) for name in (*COMMON, *pruned)}
    return Subject(
        task=DigitsTask(), workload="digits_cnn", train_steps=options.train_steps or 1500,
        tune_steps=options.tune_steps or 300, tune_rate=3e-3, student={"width": 4}, hints={"body": "body"},
        teaching={"temperature": 4.0, "soft_weight": 0.7},
        contrasts=rows | {"int4 QAT recovers more than half by": QAT_OVER_HALF} | DISTILLED,
    )  # fmt: skip


def text(options: argparse.Namespace) -> Subject:
    own = ("W4A16, groups of 32", "int8 smoothed", "KV cache int8", "KV cache int4", "KV cache fp8")
    rows = {name: _lost(name) for name in (*COMMON, *own)}
    return Subject(
        task=TextTask(), workload="byte_gpt", train_steps=options.train_steps or 600,
        tune_steps=options.tune_steps or 150, tune_rate=1e-3, student={"width": 32, "depth": 1},
        hints={"norm": "norm"}, teaching={"temperature": 1.0, "soft_weight": 0.9},
        contrasts=rows | {"int4 QAT recovers more than half by": QAT_OVER_HALF} | DISTILLED,
    )  # fmt: skip


def variants(model: torch.nn.Module, subject: Subject, seed: int) -> dict[str, Maker]:
    """Name -> a function that makes the variant's module; each starts from the trained float model."""
    task = subject.task
    tune = {"task": task, "steps": subject.tune_steps, "learning_rate": subject.tune_rate, "seed": seed}
    calibration = task.calibration(256)
    half = {"steps": subject.train_steps // 2, "seed": seed, "learning_rate": task.learning_rate}

    def student() -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return subject.build(**subject.student)

    def taught(hints: Mapping[str, str]) -> torch.nn.Module:
        return distil(student(), model, task, features=hints, **subject.teaching, **half).module

    def ptq(grids: Mapping[str, Grid], **more: object) -> torch.nn.Module:
        return quantise(model, **grids, calibration=calibration, **more).module

    judge = partial(task.evaluate, limit=SENSITIVITY_EXAMPLES, part="validation")
    made: dict[str, Maker] = {
        "int8 PTQ": lambda: ptq(INT8),
        "int8 dynamic": lambda: ptq(INT8, dynamic=True),
        "fp8 PTQ": lambda: ptq(FP8),
        "int4 PTQ": lambda: ptq(INT4),
        "int4 QAT": lambda: quantise_aware_training(model, **INT4, **tune).module,
        "mixed int4/int8, 5 bits": lambda: mixed_precision(model, judge, mean_bits=5, activations=TOKEN).module,
        "2:4 one-shot": lambda: sparsify_nm(model).module,
        "2:4 fine-tuned": lambda: sparsify_nm(model, **tune).module,
        "student alone": lambda: train(student(), task, **half),
        "student distilled": partial(taught, {}),
        "student distilled with features": partial(taught, subject.hints),
    }
    if subject.workload == "digits_cnn":
        return made | {
            "30 % dense, fine-tuned": lambda: sparsify_unstructured(model, density=0.3, **tune).module,
            "half the channels, fine-tuned": lambda: prune_channels(model, (calibration[:1],), keep=0.5, **tune).module,
        }
    return made | {
        "W4A16, groups of 32": lambda: weight_only(model).module,
        "int8 smoothed": lambda: ptq(INT8, smoothing=0.5),
        "KV cache int8": lambda: quantise_kv_cache(model).module,
        "KV cache int4": lambda: quantise_kv_cache(model, dtype="int4").module,
        "KV cache fp8": lambda: quantise_kv_cache(model, dtype="fp8_e4m3").module,
    }


def run_seed(seed: int, subject: Subject, folder: Path) -> dict[str, np.ndarray]:
    """Per-example quality of every variant of one seed; finished ones are read back."""

    def progress(step: int, steps: int, loss: float) -> None:
        print(f"seed {seed}: training, step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    model = trained(
        subject.task, subject.build, steps=subject.train_steps, seed=seed, checkpoint=folder / f"float-{seed}.pt",
        progress=progress,
    )  # fmt: skip
    found = {}
    for name, make in {"float": lambda: model, **variants(model, subject, seed)}.items():
        path = folder / f"{seed}-{name.replace(' ', '_').replace(':', '-').replace('/', '-')}.npy"
        if not path.exists():
            start = time.process_time()
            np.save(path, subject.task.evaluate(make()).per_example.numpy())
            seconds = time.process_time() - start
            print(
                f"seed {seed}: {name:34s} {np.load(path).mean():7.3f}  {seconds:5.1f} s CPU",
                file=sys.stderr,
                flush=True,
            )
        found[name] = np.load(path)
    return found


def summary(subject: Subject, runs: list[dict[str, np.ndarray]]) -> dict[str, object]:
    """Means per seed and the contrasts with their intervals: losses and gains in the metric's unit."""
    score = subject.task.evaluate(subject.build(), limit=10)
    sign = 1.0 if score.higher_is_better else -1.0

    def interval(weights: Mapping[str, float]) -> Interval:
        return paired_bootstrap(np.stack([sum(sign * w * run[v] for v, w in weights.items()) for run in runs]))

    return {
        "task": subject.task.name,
        "workload": subject.workload,
        "metric": score.metric,
        "higher_is_better": score.higher_is_better,
        "protocol": {
            "seeds": len(runs), "train_steps": subject.train_steps, "tune_steps": subject.tune_steps,
            "tune_rate": subject.tune_rate, "student": dict(subject.student), "teaching": dict(subject.teaching),
            "test_examples": len(runs[0]["float"]),
        },
        "quality_per_seed": {name: [round(float(run[name].mean()), 4) for run in runs] for name in runs[0]},
        "contrasts": {row: asdict(interval(weights)) for row, weights in subject.contrasts.items()},
    }  # fmt: skip


def show(found: Mapping[str, object]) -> None:
    quality = np.array(found["quality_per_seed"]["float"])
    print(
        f"{found['task']}: float {found['metric']} {quality.mean():.2f}"
        f" (seeds {quality.min():.2f} to {quality.max():.2f})"
    )
    for row, i in found["contrasts"].items():
        print(f"  {row:42s} {i['mean']:+7.3f} [{i['low']:+.3f}, {i['high']:+.3f}] over {i['seeds']} seeds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder of checkpoints and per-example results"
    )
    parser.add_argument("--task", choices=("digits", "text", "both"), default="both")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train-steps", type=int, help="default: 1500 digits, 600 text")
    parser.add_argument("--tune-steps", type=int, help="default: 300 digits, 150 text")
    parser.add_argument("--report", type=Path, help="JSON file for the summary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = {"digits": digits, "text": text}
    subjects = {name: make(options) for name, make in made.items() if options.task in (name, "both")}
    runs: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in subjects}
    for seed in range(1, options.seeds + 1):
        for name, subject in subjects.items():
            runs[name].append(run_seed(seed, subject, options.output / name))
    found = [summary(subject, runs[name]) for name, subject in subjects.items()]
    for each in found:
        show(each)
    if options.report:
        meta = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
        document = {"schema": "dovetail.compression_benchmark/1", "versions": meta, "tasks": found}
        options.report.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
