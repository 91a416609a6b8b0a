"""How far the mapper's limits cost: listed tiles against all integers, few starts against many.

    python benchmarks/mapper_gap.py [--cases 12] [--seed 0]

One memory: the per-rank lists of `dims` against every integer tile of every rank. Two memories and
more: the search with its limits (`nested.LOOKS`, then hill climbing) against one with eight times as
many starts, climbing from there. Prints the worst and the mean of (ours / better one) - 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "mapping")]

from cases import conv, gemm, problem, random_machine  # noqa: E402

from sim.mapping import dims, nested  # noqa: E402
from sim.mapping.mapper import map_problem  # noqa: E402
from sim.mapping.nested import map_nested  # noqa: E402
from sim.mapping.problem import ROLES  # noqa: E402

HOME = dict.fromkeys(ROLES, 0)


def case(rng: random.Random, memories: int, largest: int):
    """A GEMM or convolution with extents up to `largest` on a machine with tight memories."""
    extent = lambda: rng.randint(2, largest)  # noqa: E731
    made = gemm(extent(), extent(), extent()) if rng.random() < 0.6 else conv(k=extent(), c=extent(), p=extent(), r=3)
    p = problem(made)
    m = random_machine(rng, memories=memories, fanouts=False)
    whole = sum(p.size_bytes(r) for r in ROLES)
    for level in range(1, memories + 1):
        m.capacity_bytes[:, level] = rng.choice([0.2, 0.5, 1.0, 3.0]) * whole / level
    return p, m


def lists_against_integers(rng: random.Random) -> float:
    p, m = case(rng, 1, 40)
    ours = map_problem(p, m, HOME)
    dims._LISTS.clear()
    with mock.patch.object(dims, "EXHAUSTIVE", 10**6):
        every = map_problem(p, m, HOME)
    dims._LISTS.clear()
    return _gap(ours, every)


def starts_against_many(rng: random.Random, memories: int) -> float:
    p, m = case(rng, memories, 60)
    ours = map_nested(p, m, HOME)
    wide = map_nested(p, m, HOME, looks=tuple(8 * n for n in nested.LOOKS[:memories]))
    return _gap(ours, wide)


def _gap(ours, better) -> float:
    if better.row[0] < 0:
        return 0.0
    if ours.row[0] < 0:
        return np.inf
    return float(ours.cost.time[0] / better.cost.time[0]) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    kinds = (
        ("one memory on chip, lists against all integers", lists_against_integers),
        ("two memories on chip, limits against 8 times", lambda rng: starts_against_many(rng, 2)),
    )
    for what, measure in kinds:
        start = time.process_time()
        gaps = [measure(random.Random(arguments.seed + i)) for i in range(arguments.cases)]
        print(f"{what:50} {len(gaps)} cases, {sum(g > 1e-9 for g in gaps)} worse, mean {np.mean(gaps):.3%}, "
              f"worst {max(gaps):.2%}, {time.process_time() - start:.0f} CPU s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
