"""Energy x delay under a floor of quality: the guided joint search against random search at 1,000 evaluations.

The space lies in `search-edp-space.yaml`, fixed before any run. Random search draws (network, precision,
chip) uniformly and knows the quality of each before it costs it; with `--all` pairs that miss the floor
count as evaluations, otherwise only pairs that meet it do. Its best of N is found without costing all N:
pairs are costed in order of their roofline bound until the bound passes the best, which changes nothing in
the result. The search may cost as many pairs; it says how many it did.

Run: `python benchmarks/search_edp.py --seeds 20`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

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


class Chips:
    """All chips of the space, and their bounds for every network."""

    def __init__(self, space: Space) -> None:
        self.designs = Designs.grid(space.chip, {p.name: p.values or () for p in space.parameters if p.side == "chip"})
        self.bounds = ChipBounds(self.designs)

    def edp(self, choice: ModelChoice) -> np.ndarray:
        """Lower bounds of energy x delay [J s] on every chip."""
        latency, energy = lower_bounds(choice.graphs()[0], self.designs, parse_precision(choice.precision), self.bounds)
        return latency * energy

    def costed(self, choice: ModelChoice, place: int) -> float:
        table = sweep(choice.graphs()[0], self.designs.chip, self.designs.take(np.array([place])),
                      precisions=[choice.precision])  # fmt: skip
        return float(np.nan_to_num(table["latency_s"] * table["energy_j"], nan=np.inf)[0])


def random_best(space: Space, costing: Costing, chips: Chips, pairs: int, seed: int, *, count_all: bool) -> float:
    """The smallest EDP [J s] among `pairs` random ones that meet the floor."""
    rng = np.random.default_rng(seed)
    floor = costing.scenario.quality_min
    assert floor is not None
    drawn: list[tuple[float, ModelChoice, int]] = []
    looked = 0
    while looked < pairs:
        choice, place = space.choice(space.draw(rng)), int(rng.integers(len(chips.designs)))
        good = costing.scenario.quality(choice).value >= floor
        looked += good or count_all
        if good:
            drawn.append((float(chips.edp(choice)[place]), choice, place))
    best = np.inf
    for bound, choice, place in sorted(drawn, key=lambda one: one[0]):
        if bound >= best:
            break
        best = min(best, chips.costed(choice, place))
    return best


def searched_best(space: Space, seed: int) -> tuple[float, int]:
    """(the smallest EDP [J s] that the search finds, pairs that it costed)."""
    found = run_study(
        space, trials=None, timeout_s=None, storage=None, workers=1, seed=seed, output=None, progress=None
    )
    return found.front[0].values[0], found.costed


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean and its 95 % interval (normal, of logarithms)."""
    logs = np.log(ratios)
    half = 1.96 * logs.std(ddof=1) / np.sqrt(len(logs)) if len(logs) > 1 else np.nan
    return float(np.exp(logs.mean())), float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--all", action="store_true", help="pairs that miss the floor count as evaluations of random")
    arguments = parser.parse_args()
    space = build_space(read_yaml(HERE / "search-edp-space.yaml"), where="search-edp-space.yaml", folder=HERE)
    costing, chips, pairs = Costing(space), Chips(space), space.spec.budget.pairs
    assert pairs is not None
    ratios = []
    for seed in range(arguments.seeds):
        random = random_best(space, costing, chips, pairs, seed, count_all=arguments.all)
        best, costed = searched_best(space, seed)
        ratios.append(random / best)
        print(f"seed {seed}: random {random:.4g} J s, search {best:.4g} J s with {costed} pairs costed, "
              f"{random / best:.2f} times", flush=True)  # fmt: skip
    mean, low, high = interval(np.array(ratios))
    print(f"random search's EDP over the search's, {len(ratios)} seeds: {mean:.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
