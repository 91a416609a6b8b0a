"""Joint search against its alternatives on one enumerable space, by hypervolume in log objectives.

The space lies in `search-space.yaml`. All strategies settle the same number of model-chip pairs, get
their costs from the same sweep, and are judged under the same reference point: the worst of each
objective over the whole space, plus 10 % of the range. Run: `python benchmarks/search.py --seeds 20`.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sim.codesign.choice import ModelChoice
from sim.codesign.found import logarithmic
from sim.codesign.pareto import hypervolume, nadir, non_dominated
from sim.codesign.scenario import Costing
from sim.codesign.schema import overlay
from sim.codesign.space import Space, build_space
from sim.codesign.study.run import run_study
from sim.hardware.designs import Designs
from sim.hardware.load import read_yaml
from sim.sweeping import sweep

HERE = Path(__file__).parent
Columns = dict[str, np.ndarray]


class Remembered:
    """`sim.sweep` that costs every point once; strategies and seeds share it."""

    def __init__(self) -> None:
        self.known: dict[tuple, tuple[float, float, bool, str]] = {}
        self.calls = 0
        self.seconds = 0.0

    def __call__(self, workload: Any, chip: Any, chip_grid: Designs, *, precisions: Any, **options: Any) -> Columns:
        keys = [(workload.hash, precisions[0], *sorted(point.items())) for point in _points(chip, chip_grid)]
        missing = [i for i, key in enumerate(keys) if key not in self.known]
        if missing:
            rows = np.array(missing)
            indices = {path: index[rows] for path, index in chip_grid.indices.items()}
            part = Designs(chip, chip_grid.choices, indices, len(rows))
            started = time.process_time()
            table = sweep(workload, chip, part, precisions=precisions, **options)
            self.seconds += time.process_time() - started
            self.calls += len(rows)
            for j, i in enumerate(missing):
                names = ("latency_s", "energy_j", "infeasible", "reason")
                self.known[keys[i]] = tuple(table[name][j] for name in names)
        values = [self.known[key] for key in keys]
        names = ("latency_s", "energy_j", "infeasible", "reason")
        return {name: np.array([v[k] for v in values]) for k, name in enumerate(names)}


def _points(chip: Any, designs: Designs) -> list[dict[str, str]]:
    fixed = {path: str(text).strip("'") for path, text in chip.overrides.items()}
    return [
        fixed | {path: str(options[int(designs.indices[path][i])]) for path, options in designs.choices.items()}
        for i in range(len(designs))
    ]


class Whole:
    """Every point of the space: parameters and log objectives."""

    def __init__(self, space: Space, remembered: Remembered) -> None:
        costing = Costing(space, sweep=remembered)
        names = [p.name for p in space.coarse]
        self.models: list[ModelChoice] = []
        self.model, self.chip, values = [], [], []
        chips: dict[tuple, int] = {}
        for combination in product(*(p.values or () for p in space.coarse)):
            assignment = dict(zip(names, combination, strict=True))
            choice, designs = space.choice(assignment), costing.designs(assignment)
            table = _full(costing, assignment)
            if choice not in self.models:
                self.models.append(choice)
            for i, point in enumerate(_points(designs.chip, designs)):
                self.model.append(self.models.index(choice))
                self.chip.append(chips.setdefault(tuple(sorted(point.items())), len(chips)))
                values.append(table[i])
        self.model, self.chip = np.array(self.model), np.array(self.chip)
        self.values = logarithmic(np.array(values))
        self.reference = nadir(self.values)
        self.volume = hypervolume(self.values, self.reference)

    def share(self, rows: np.ndarray) -> float:
        """Hypervolume of some points over that of all."""
        return hypervolume(self.values[rows], self.reference) / self.volume


def _full(costing: Costing, assignment: dict[str, Any]) -> np.ndarray:
    """Objectives of every chip of the inner grid, nothing pruned."""
    designs, choice, scenario = costing.designs(assignment), costing.space.choice(assignment), costing.scenario
    assert costing.sweep is not None
    table = costing.sweep(
        choice.graphs()[0], designs.chip, designs, precisions=[choice.precision],
        objective=scenario.mapping_for, map_space=scenario.map_space,
    )  # fmt: skip
    quality = np.full(len(designs), scenario.quality(choice).value)
    columns = {"latency": table["latency_s"], "energy": table["energy_j"], "quality": quality}
    return np.stack([scenario.sign(name) * columns[name] for name in scenario.objectives], axis=1)


def strategies(whole: Whole, budget: int, rng: np.random.Generator) -> dict[str, float]:
    """Shares of the true hypervolume that the alternatives to joint search reach with `budget` pairs."""
    n_models, n_chips = whole.model.max() + 1, whole.chip.max() + 1
    base = int(rng.integers(n_chips))
    on_base = np.flatnonzero(whole.chip == base)
    start = int(rng.integers(n_models))
    scores = whole.values[on_base]
    span = np.ptp(scores, axis=0) + 1e-12
    front = on_base[non_dominated(scores)]
    best = front[np.argmin(((whole.values[front] - scores.min(axis=0)) / span).sum(axis=1))]

    def some(rows: np.ndarray) -> np.ndarray:
        return rng.permutation(rows)[:budget]

    chips_of = np.flatnonzero(whole.model == whole.model[best])
    rest = max(0, budget - len(on_base))
    return {
        "random": whole.share(some(np.arange(len(whole.values)))),
        "hardware only": whole.share(some(np.flatnonzero(whole.model == start))),
        "model only": whole.share(some(on_base)),
        "sequential": whole.share(np.concatenate([some(on_base), rng.permutation(chips_of)[:rest]])),
    }


def joint(
    document: dict, whole: Whole, remembered: Remembered, budget: int, seed: int, **sampler: Any
) -> tuple[float, float, float]:
    """(share of the hypervolume, seconds in all, of which in evaluations).

    `budget` counts the pairs that are handed to `estimate`, as for the others; looking at a roofline is free.
    """
    inside = overlay(document, {"budget": {"trials": 10 * budget, "pairs": budget}, "sampler": sampler})
    space = build_space(inside, where="search-space.yaml", folder=HERE)
    started = time.process_time()
    found = run_study(space, trials=None, timeout_s=None, storage=None, workers=1, seed=seed,
                      output=None, progress=None, sweep=remembered)  # fmt: skip
    values = logarithmic(found.minimised(found.feasible))
    share = hypervolume(values, whole.reference) / whole.volume
    return share, time.process_time() - started, found.spent["estimates"] + found.spent["bounds"]


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (normal)."""
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), float(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="shares of the space")
    arguments = parser.parse_args()
    remembered = Remembered()
    document = read_yaml(HERE / "search-space.yaml")
    space = build_space(document, where="search-space.yaml", folder=HERE)
    whole = Whole(space, remembered)
    print(f"{len(whole.values)} points, {remembered.calls / remembered.seconds:.0f} costed a CPU second, true front "
          f"{int(non_dominated(whole.values).sum())} points")  # fmt: skip
    for part in arguments.budgets:
        budget = int(part * len(whole.values))
        results: dict[str, list[float]] = {}
        seconds = np.zeros(2)
        for seed in range(arguments.seeds):
            share, total, inside = joint(document, whole, remembered, budget, seed)
            seconds += (total, inside)
            results.setdefault("joint", []).append(share)
            unguided = joint(document, whole, remembered, budget, seed, screen=0)
            results.setdefault("joint, unguided", []).append(unguided[0])
            for name, value in strategies(whole, budget, np.random.default_rng(seed)).items():
                results.setdefault(name, []).append(value)
        print(f"budget {budget} pairs ({part:.0%}), {arguments.seeds} seeds; outside evaluations "
              f"{1 - seconds[1] / seconds[0]:.0%} of {seconds[0]:.1f} CPU s")  # fmt: skip
        for name, values in results.items():
            mean, half = interval(values)
            print(f"  {name:14s} {mean:.3f} +- {half:.3f} of the true hypervolume")


if __name__ == "__main__":
    main()
