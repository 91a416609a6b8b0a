"""Law 7 of docs/laws.md at length, on random small problems: `evaluate` against an interpreter that walks the loops,
and the mapper against brute force over the same map space.

    python benchmarks/mapper_exactness.py [--what evaluator|mapper] [--cases 520] [--seed 0] [--log FILE.jsonl]

Prints per map space and number of memories (the home included) how many cases agree, how many have
at least seven ranks, an overlapping window, a fan-out, an optimum that divisor tiles miss, and the
worst gap. With `--log` every case is written as it ends and cases that the file has are not run
again, so that a run can be stopped and taken up later. Exits with 1 if a case differs or fewer than
a fifth of the mapper's cases are out of reach of divisors.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "mapping")]

from agreement import walk_one  # noqa: E402
from exhaustive import check, describe  # noqa: E402

KINDS = (("even", 1, 0.40, 400), ("even", 2, 0.15, 40), ("even", 3, 0.05, 9), ("uneven", 1, 0.2, 120),
         ("uneven", 2, 0.05, 9), ("fixed_dataflow", 1, 0.10, 400), ("fixed_dataflow", 2, 0.05, 40))  # fmt: skip
"""(space, memories on chip, share of the cases, largest iteration space)"""
SAME = 1e-9
FEATURES = ("seven_ranks", "overlap", "fanout", "ragged")


def mapper_cases(seed: int, cases: int, log: Log) -> Iterator[tuple[str, list[dict]]]:
    for number, (space, memories, share, largest) in enumerate(KINDS):
        rows = []
        for i in range(round(share * cases)):
            at = seed + number * 100_000 + i
            rows.append(log.get(f"{space}/{memories}/{at}") or log.add(_mapped(space, memories, at, largest)))
        yield f"{space}, {memories + 1} memories", rows


def _mapped(space: str, memories: int, seed: int, largest: int) -> dict:
    start = time.process_time()
    ratio, ragged, count, (p, m) = check(seed, space, memories, largest)
    found = {"gap": ratio - 1, "ragged": bool(ragged), "mappings": count, "cpu_s": time.process_time() - start}
    return {"case": f"{space}/{memories}/{seed}", **describe(p, m), **found}


def evaluator_cases(seed: int, cases: int, log: Log) -> Iterator[tuple[str, list[dict]]]:
    rows = [log.get(f"evaluate/{at}") or log.add(_walked(at)) for at in range(seed, seed + cases)]
    for memories in sorted({row["memories"] for row in rows}):
        yield f"evaluate, {memories} memories", [row for row in rows if row["memories"] == memories]


def _walked(seed: int) -> dict:
    start = time.process_time()
    (p, m, mapping), gap = walk_one(seed)
    cut = any(hasattr(n, "tile") and p.einsum.ranks[n.rank] % n.tile for n in mapping.nodes)
    found = {"gap": gap, "ragged": cut, "mappings": 1, "cpu_s": time.process_time() - start}
    return {"case": f"evaluate/{seed}", **describe(p, m), **found}


class Log:
    """Cases already run, in a JSON Lines file if there is one."""

    def __init__(self, path: str | None) -> None:
        self.file = Path(path) if path else None
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file and self.file.exists() else []
        self.known = {row["case"]: row for row in map(json.loads, lines)}

    def get(self, case: str) -> dict | None:
        return self.known.get(case)

    def add(self, row: dict) -> dict:
        if abs(row["gap"]) > SAME:
            print(f"  {row['case']}: off by {row['gap']:.3e}", file=sys.stderr, flush=True)
        if self.file:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return row


def report(title: str, rows: list[dict]) -> None:
    equal = sum(abs(row["gap"]) <= SAME for row in rows)
    counts = "".join(f"{sum(row[name] for row in rows):>12}" for name in FEATURES)
    mappings, seconds = sum(row["mappings"] for row in rows), sum(row["cpu_s"] for row in rows)
    worst = max((abs(row["gap"]) for row in rows), default=0.0)
    print(f"{title:28}{len(rows):>6}{equal:>7}{counts}{mappings:>11}{worst:>10.1e}{seconds:>8.1f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=("evaluator", "mapper"), action="append")
    parser.add_argument("--cases", type=int, default=520)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log")
    arguments = parser.parse_args()
    log, fine = Log(arguments.log), True
    head = "".join(f"{name:>12}" for name in FEATURES)
    print(f"{'':28}{'cases':>6}{'equal':>7}{head}{'mappings':>11}{'worst':>10}{'CPU s':>8}")
    for what in arguments.what or ("evaluator", "mapper"):
        every: list[dict] = []
        make = evaluator_cases if what == "evaluator" else mapper_cases
        for title, rows in make(arguments.seed, arguments.cases, log):
            report(title, rows)
            every += rows
        report(f"{what}, all", every)
        fine &= all(abs(row["gap"]) <= SAME for row in every)
        fine &= what == "evaluator" or sum(row["ragged"] for row in every) * 5 >= len(every)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
