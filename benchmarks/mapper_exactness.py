"""Law 7 at length: the mapper against brute force over the same map space, on random small problems.

    python benchmarks/mapper_exactness.py [--cases 520] [--seed 0]

Prints per map space and number of memories how many cases agree, how many have an optimum that
divisor tiles miss, and the worst gap. Exits with 1 if a case differs or fewer than a fifth of all
are out of reach of divisors.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "mapping")]

from exhaustive import check  # noqa: E402

KINDS = (("even", 1, 0.40, 400), ("even", 2, 0.15, 40), ("even", 3, 0.05, 9), ("uneven", 1, 0.2, 120),
         ("uneven", 2, 0.05, 9), ("fixed_dataflow", 1, 0.10, 400), ("fixed_dataflow", 2, 0.05, 40))  # fmt: skip
"""(space, memories on chip, share of the cases, largest iteration space)"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=520)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    total = ragged_total = wrong_total = 0
    print(
        f"{'space':16}{'memories':>9}{'cases':>7}{'equal':>7}{'ragged':>8}{'mappings':>10}{'worst gap':>11}{'CPU s':>8}"
    )
    for number, (space, memories, share, largest) in enumerate(KINDS):
        start, ratios, ragged, mappings = time.process_time(), [], 0, 0
        for i in range(round(share * arguments.cases)):
            seed = arguments.seed + number * 100_000 + i
            ratio, beyond, count = check(seed, space, memories, largest)
            ratios.append(ratio)
            ragged += beyond
            mappings += count
            if abs(ratio - 1) > 1e-9:
                print(f"  seed {seed}: {ratio:.9f} of the optimum", file=sys.stderr)
        wrong = sum(abs(r - 1) > 1e-9 for r in ratios)
        print(f"{space:16}{memories + 1:>9}{len(ratios):>7}{len(ratios) - wrong:>7}{ragged:>8}{mappings:>10}"
              f"{max(ratios) - 1:>10.2%} {time.process_time() - start:>7.1f}", flush=True)  # fmt: skip
        total, ragged_total, wrong_total = total + len(ratios), ragged_total + ragged, wrong_total + wrong
    print(f"{total} cases, {wrong_total} differ, {ragged_total} ({ragged_total / total:.0%}) beyond divisor tiles")
    return 1 if wrong_total or ragged_total < total / 5 else 0


if __name__ == "__main__":
    sys.exit(main())
