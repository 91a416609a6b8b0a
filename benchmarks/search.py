"""Joint search against its alternatives on enumerable spaces, by hypervolume in log objectives.

The spaces lie in `search-space.yaml` and `search-vision-space.yaml`, each fixed before its runs. All strategies settle
the same number of model-chip pairs, get their costs from the same sweep, and are judged under the same reference
points: the nadir of the union (the worst of each objective on the front of all points) plus 10 % of its range, and
the worst of each objective over the whole space plus 10 %, a box in which all strategies differ less.
Run: `python benchmarks/search.py --seeds 20 --space search-vision-space -o search-vision.json`.
"""

from __future__ import annotations

import argparse
import json
import pickle
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
        seen = set()
        for combination in product(*(p.values or () for p in space.coarse)):
            assignment = dict(zip(names, combination, strict=True))
            if space.key(assignment) in seen:  # differs only in what does not count
                continue
            seen.add(space.key(assignment))
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
        self.front = non_dominated(self.values)
        self.references = {"nadir": nadir(self.values[self.front]), "worst point": nadir(self.values)}

    def share(self, values: np.ndarray) -> np.ndarray:
        """Hypervolume of some points over that of all, under each reference point."""
        front = self.values[self.front]
        return np.array([hypervolume(values, r) / hypervolume(front, r) for r in self.references.values()])


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
    columns |= {"edp": table["latency_s"] * table["energy_j"], "area": costing.chips(assignment).metrics["area"]}
    return np.stack([scenario.sign(name) * columns[name] for name in scenario.objectives], axis=1)


def strategies(whole: Whole, budget: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
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
    chosen = {
        "random": some(np.arange(len(whole.values))),
        "hardware only": some(np.flatnonzero(whole.model == start)),
        "model only": some(on_base),
        "sequential": np.concatenate([some(on_base), rng.permutation(chips_of)[:rest]]),
    }
    return {name: whole.share(whole.values[rows]) for name, rows in chosen.items()}


def joint(
    name: str, whole: Whole, remembered: Remembered, budget: int, seed: int, **sampler: Any
) -> tuple[np.ndarray, float, float]:
    """(shares of the hypervolume, seconds in all, of which in evaluations).

    `budget` counts the pairs that are handed to `estimate`, as for the others; looking at a roofline is free.
    """
    document = read_yaml(HERE / f"{name}.yaml")
    inside = overlay(document, {"budget": {"trials": 10 * budget, "pairs": budget}, "sampler": sampler})
    space = build_space(inside, where=f"{name}.yaml", folder=HERE)
    started = time.process_time()
    found = run_study(space, trials=None, timeout_s=None, storage=None, workers=1, seed=seed,
                      output=None, progress=None, sweep=remembered)  # fmt: skip
    share = whole.share(logarithmic(found.minimised(found.feasible)))
    return share, time.process_time() - started, found.spent["estimates"] + found.spent["bounds"]


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean and half width of its 95 % interval (normal)."""
    half = 1.96 * np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"mean": round(float(np.mean(values)), 4), "half_width": round(float(half), 4)}


def gain(joint: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """By how much the mean of joint search lies above another's, with the 95 % interval of 4,000 resamplings of
    the seeds; and where an infinite budget would end."""
    rows = np.random.default_rng(0).integers(len(joint), size=(4000, len(joint)))
    low, high = np.quantile(joint[rows].mean(axis=1) / other[rows].mean(axis=1) - 1.0, (0.025, 0.975))
    return {
        "mean": round(float(joint.mean() / other.mean() - 1.0), 4), "low": round(float(low), 4),
        "high": round(float(high), 4), "most": round(float(1.0 / other.mean() - 1.0), 4),
    }  # fmt: skip


def compared(
    name: str, whole: Whole, remembered: Remembered, budget: int, seeds: int, *, unguided: bool
) -> dict[str, Any]:
    """Intervals of every strategy, and of joint search over each other one seed by seed."""
    results: dict[str, list[np.ndarray]] = {}
    seconds = np.zeros(2)
    for seed in range(seeds):
        share, total, inside = joint(name, whole, remembered, budget, seed)
        seconds += (total, inside)
        results.setdefault("joint", []).append(share)
        if unguided:
            results.setdefault("joint, unguided", []).append(joint(name, whole, remembered, budget, seed, screen=0)[0])
        for other, value in strategies(whole, budget, np.random.default_rng(seed)).items():
            results.setdefault(other, []).append(value)
    table = {strategy: np.array(values) for strategy, values in results.items()}
    return {
        "pairs": budget, "seeds": seeds, "cpu_s_a_run": round(seconds[0] / seeds, 2),
        "share_outside_evaluations": round(1 - seconds[1] / seconds[0], 3),
        "share_of_the_true_hypervolume": {
            reference: {strategy: interval(values[:, k]) for strategy, values in table.items()}
            for k, reference in enumerate(whole.references)
        },
        "joint_over": {
            reference: {
                strategy: gain(table["joint"][:, k], values[:, k])
                for strategy, values in table.items() if strategy != "joint"
            }
            for k, reference in enumerate(whole.references)
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="search-space", choices=("search-space", "search-vision-space"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="shares of the space")
    parser.add_argument("--unguided", action="store_true", help="joint search without its guide too")
    parser.add_argument("--costs", type=Path, help="file in which the costs of all points are kept for the next run")
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the results")
    arguments = parser.parse_args()
    remembered = Remembered()
    if arguments.costs and arguments.costs.exists():
        remembered.known = pickle.loads(arguments.costs.read_bytes())
    space = build_space(read_yaml(HERE / f"{arguments.space}.yaml"), where=f"{arguments.space}.yaml", folder=HERE)
    whole = Whole(space, remembered)
    if arguments.costs and remembered.calls:
        arguments.costs.write_bytes(pickle.dumps(remembered.known))
    found = {
        "space": arguments.space, "points": len(whole.values), "models": len(whole.models),
        "on_the_true_front": int(whole.front.sum()), "models_on_it": len(set(whole.model[whole.front])),
        "chips_on_it": len(set(whole.chip[whole.front])),
        "costed_a_cpu_s": round(remembered.calls / remembered.seconds, 1) if remembered.calls else None,
        "budgets": [],
    }  # fmt: skip
    for part in arguments.budgets:
        budget = int(part * len(whole.values))
        found["budgets"].append(
            compared(arguments.space, whole, remembered, budget, arguments.seeds, unguided=arguments.unguided)
        )
    text = json.dumps(found, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
