"""Energy x delay under a floor of quality: the joint search against random search at 1,000 evaluations.

The spaces lie in `search-edp-space.yaml` and `search-edp-wide-space.yaml`, each fixed before any run. Random search
draws (network, precision, chip) uniformly and knows the quality of each before it costs it; with `--all` pairs that
miss the floor count as evaluations, otherwise only pairs that meet it do. Its best of N is found without costing all
N: pairs are costed in order of their roofline bound until the bound passes the best, which changes nothing in the
result. The search may cost as many pairs; it says how many it did, and what random search has after as many.

How large the factor can be is a property of the space: `within` counts random pairs that meet the floor and lie
within three times the best pair that any run found. Where that is more than one in 1,000, random search is expected
to come as near.

Run: `python benchmarks/search_edp.py --seeds 20 --space search-edp-wide-space -o search-edp-wide.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from sim.codesign.bounds import ChipBounds, lower_bounds
from sim.codesign.choice import ModelChoice
from sim.codesign.scenario import Costing
from sim.codesign.space import Space, build_space
from sim.codesign.study.run import run_study
from sim.hardware.designs import Designs
from sim.hardware.load import read_yaml
from sim.sweeping import sweep
from sim.workload.precision import parse_precision

HERE = Path(__file__).parent
SPACES = ("search-edp-space", "search-edp-wide-space")


class Draws:
    """Random pairs that meet the floor, in the order in which they were drawn, with bounds of their EDP [J s]."""

    def __init__(self, space: Space, costing: Costing, pairs: int, seed: int, *, count_all: bool) -> None:
        rng = np.random.default_rng(seed)
        floor = costing.scenario.quality_min
        assert floor is not None
        self.choices: list[ModelChoice] = []
        self.place: list[int] = []
        """How many evaluations random search has made when it comes to a pair."""
        chips: list[dict[str, Any]] = []
        looked = 0
        while looked < pairs:
            drawn = space.draw(rng)
            choice = space.choice(drawn)
            good = costing.scenario.quality(choice).value >= floor
            looked += good or count_all
            if good:
                self.choices.append(choice)
                self.place.append(looked)
                chips.append({p.name: drawn[p.name] for p in space.parameters if p.side == "chip"})
        self.designs = Designs.rows(space.chip, {name: [chip[name] for chip in chips] for name in chips[0]})
        self.bounds = np.empty(len(chips))
        for choice in dict.fromkeys(self.choices):
            mine = np.array([i for i, other in enumerate(self.choices) if other == choice])
            some = self.designs.take(mine)
            precision = parse_precision(choice.precision)
            latency, energy = lower_bounds(choice.graphs()[0], some, precision, ChipBounds(some))
            self.bounds[mine] = latency * energy
        self.known: dict[int, float] = {}

    def edp(self, place: int) -> float:
        """What `estimate` says; infinite where the model does not fit."""
        if place not in self.known:
            choice, one = self.choices[place], self.designs.take(np.array([place]))
            table = sweep(choice.graphs()[0], one.chip, one, precisions=[choice.precision])
            self.known[place] = float(np.nan_to_num(table["latency_s"] * table["energy_j"], nan=np.inf)[0])
        return self.known[place]

    def best(self, pairs: int) -> float:
        """The smallest EDP after so many evaluations."""
        best = np.inf
        for place in np.argsort(self.bounds, kind="stable"):
            if self.bounds[place] >= best:
                break
            if self.place[place] <= pairs:
                best = min(best, self.edp(int(place)))
        return best

    def within(self, limit: float) -> int:
        """Pairs whose EDP is at most `limit`."""
        return sum(self.edp(int(place)) <= limit for place in np.flatnonzero(self.bounds <= limit))


def searched(space: Space, seed: int) -> dict[str, Any]:
    """The smallest EDP that the search finds, where, and what it took."""
    started = time.process_time()
    found = run_study(
        space, trials=None, timeout_s=None, storage=None, workers=1, seed=seed, output=None, progress=None
    )
    best = found.front[0]
    return {"edp_j_s": best.values[0], "pairs": found.costed, "trials": found.trials,
            "cpu_s": round(time.process_time() - started, 1), "parameters": space.active(best.parameters)}  # fmt: skip


def factor(ratios: list[float]) -> dict[str, float]:
    """Geometric mean and its 95 % interval (normal, of logarithms)."""
    logs = np.log(ratios)
    half = 1.96 * logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.nan
    values = {"mean": logs.mean(), "low": logs.mean() - half, "high": logs.mean() + half}
    return {name: round(float(np.exp(value)), 3) for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default=SPACES[0], choices=SPACES)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--all", action="store_true", help="pairs that miss the floor count as evaluations of random")
    parser.add_argument(
        "--count", type=int, default=2, help="seeds whose random pairs are counted within 3x of the best"
    )
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the results")
    arguments = parser.parse_args()
    where = f"{arguments.space}.yaml"
    space = build_space(read_yaml(HERE / where), where=where, folder=HERE)
    costing, pairs = Costing(space), space.spec.budget.pairs
    assert pairs is not None
    draws, rows = [], []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        found = searched(space, seed)
        draw = Draws(space, costing, pairs, seed, count_all=arguments.all)
        found |= {"seed": seed, "random_edp_j_s": draw.best(pairs), "random_with_as_many": draw.best(found["pairs"])}
        found["random_costed"] = len(draw.known)
        rows.append(found)
        if seed - arguments.first < arguments.count:
            draws.append(draw)
        print(
            f"seed {seed}: random {found['random_edp_j_s']:.4g} J s ({found['random_costed']} of {pairs} costed), "
            f"search {found['edp_j_s']:.4g} J s with {found['pairs']} pairs in {found['cpu_s']} CPU s",
            flush=True,
        )
        document = summed(space, rows, draws, arguments.all)
        if arguments.output:
            arguments.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps({name: value for name, value in document.items() if name != "runs"}, indent=1))


def summed(space: Space, rows: list[dict[str, Any]], draws: list[Draws], count_all: bool) -> dict[str, Any]:
    """Factors over all seeds, and how many random pairs come near the best."""
    best = min(row[name] for row in rows for name in ("edp_j_s", "random_edp_j_s"))
    model_sides, chips, _ = space.size()
    return {
        "space": space.where, "model_sides": model_sides, "chips": chips,
        "evaluations_of_random": space.spec.budget.pairs, "below_the_floor_counted": count_all, "seeds": len(rows),
        "best_edp_j_s": best,
        "random_over_search": factor([row["random_edp_j_s"] / row["edp_j_s"] for row in rows]),
        "random_over_search_with_as_many_pairs": factor([row["random_with_as_many"] / row["edp_j_s"] for row in rows]),
        "random_over_best": factor([row["random_edp_j_s"] / best for row in rows]),
        "search_over_best": factor([row["edp_j_s"] / best for row in rows]),
        "random_pairs_that_meet_the_floor": sum(len(draw.choices) for draw in draws),
        "of_these_within_3x_of_the_best": sum(draw.within(3.0 * best) for draw in draws),
        "runs": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
