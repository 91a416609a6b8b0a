"""Law 5 over several memory borders, where a beam searches: random layers, one resource of a chip grown.

    python benchmarks/law5.py [--cases 80] [--seed 0] [--hw eyeriss ...] [--log FILE.jsonl]

Every case is a product or a convolution on a chip and on the same chip with more capacity or bandwidth of one
memory (`FACTORS`). Prints the share of the layers that the larger chip runs slower, the median and the worst of
these, and how long a mapping takes. `--log` keeps the cycles of every case and tells how far the mean layer is
from the best that any run with the same log found: the mapping of the smaller chip counts, since it is one of the
larger chip too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import sim  # noqa: E402
from sim.mapping.machine import Machine, machine  # noqa: E402
from sim.mapping.nested import map_nested  # noqa: E402
from sim.mapping.problem import ROLES, Problem  # noqa: E402
from sim.mapping.search import routes  # noqa: E402
from sim.workload.graph import EinsumOp  # noqa: E402

HOME = dict.fromkeys(ROLES, 0)
CHIPS = ("eyeriss", "gemmini-16", "nvdla-small", "nvdla-full", "tpu-v1", "tpu-v4i")
FACTORS = (1.2, 1.5, 2.0, 2.0, 4.0)
"""Of the resource that grows."""


def layer(rng: random.Random) -> sim.workload.graph.Graph:
    """A product or a convolution, of sizes from small to those of ResNet."""
    size = lambda low, high: round(2 ** rng.uniform(np.log2(low), np.log2(high)))  # noqa: E731
    if rng.random() < 0.5:
        return sim.gemm(size(8, 1024), size(8, 1024), size(8, 1024))
    window = rng.choice([1, 3, 3, 5])
    return sim.conv2d(
        size(3, 512), size(8, 512), size(7, 112), window, stride=rng.choice([1, 1, 2]), padding=window // 2
    )


def grown(m: Machine, rng: random.Random) -> tuple[Machine, str]:
    """The machine with more of one resource."""
    factor = rng.choice(FACTORS)
    level = rng.choice([0, *(at for at, _, _ in routes(m, HOME))])
    if level and rng.random() < 0.7:
        capacity = m.capacity_bytes.copy()
        capacity[:, level] *= factor
        return replace(m, capacity_bytes=capacity), f"{m.levels[level].name}.capacity x {factor}"
    rates = m.rates.copy()
    rates[:, sorted({m.levels[level].read_port, m.levels[level].write_port})] *= factor
    return replace(m, rates=rates), f"{m.levels[level].name}.bandwidth x {factor}"


def cases(seed: int, count: int, chips: list[str]) -> Iterator[tuple[str, str, Problem, Machine, Machine]]:
    """(chip, what grows, problem, machine, machine with more)."""
    known = {}
    for name in chips:
        chip = sim.load_hardware(name)
        unit = chip.main_unit
        compute, array = next(iter(unit.array.macs_per_cycle)), unit.array
        known[name] = machine([chip], compute), 16.0 if "16" in compute else 8.0, array.accumulate_bits
    for i in range(seed, seed + count):
        rng = random.Random(i)
        name = chips[i % len(chips)]
        m, bits, wide = known[name]
        einsum = next(op for op in layer(rng).ops if isinstance(op, EinsumOp)).einsum
        more, what = grown(m, rng)
        p = Problem(einsum=einsum, bits=dict.fromkeys(ROLES, bits), accumulate_bits=max(wide, int(bits)))
        yield name, what, p, m, more


def cycles(p: Problem, m: Machine, **options) -> tuple[float, float]:
    """(cycles of the mapping found, CPU seconds it took)."""
    start = time.process_time()
    found = map_nested(p, m, HOME, **options)
    spent = time.process_time() - start
    return (float(found.cost.time[found.row[0]]) if found.row[0] >= 0 else np.inf), spent


class Log:
    """The least cycles that any run found, in a JSON Lines file if there is one."""

    def __init__(self, path: str | None) -> None:
        self.file = Path(path) if path else None
        self.best: dict[str, float] = {}
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file and self.file.exists() else []:
            row = json.loads(line)
            self.best[row["case"]] = min(row["cycles"], self.best.get(row["case"], np.inf))

    def add(self, case: str, found: float) -> None:
        self.best[case] = min(found, self.best.get(case, np.inf))
        if self.file and np.isfinite(found):
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"case": case, "cycles": found}) + "\n")


def report(rows: list[tuple[str, float, float, float]], log: Log) -> None:
    """rows: (case, cycles, cycles with more, CPU seconds of both)."""
    slower = [more / less - 1 for _, less, more, _ in rows if more > less * (1 + 1e-9)]
    gaps = [found / log.best[f"{case}/{way}"] - 1 for case, *both, _ in rows for way, found in enumerate(both)
            if np.isfinite(found)]  # fmt: skip
    bad = f"median {statistics.median(slower):.1%}, worst {max(slower):.1%}" if slower else "none"
    spent = statistics.mean(row[3] for row in rows) / 2
    far = f"{np.mean(gaps):.2%} in the mean, {max(gaps):.1%} at most, {sum(g > 0.05 for g in gaps)} above 5 %"
    print(f"{len(rows)} layers, {len(slower)} slower with more ({bad}); {spent:.2f} CPU s a mapping; from the "
          f"best known of {len(gaps)} {far}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hw", action="append", default=[])
    parser.add_argument("--log")
    arguments = parser.parse_args()
    log, chips = Log(arguments.log), arguments.hw or list(CHIPS)
    rows: list[tuple[str, float, float, float]] = []
    of_chip: dict[str, list] = {}
    for number, (name, what, p, m, more) in enumerate(cases(arguments.seed, arguments.cases, chips), arguments.seed):
        (less_cycles, less_s), (more_cycles, more_s) = cycles(p, m), cycles(p, more)
        case = f"{','.join(chips)}/{number}"
        log.add(f"{case}/0", less_cycles)
        log.add(f"{case}/1", min(less_cycles, more_cycles))
        rows.append((case, less_cycles, more_cycles, less_s + more_s))
        of_chip.setdefault(name, []).append(rows[-1])
        if more_cycles > less_cycles * (1 + 1e-9):
            extents = "x".join(str(n) for n in p.einsum.ranks.values() if n > 1)
            print(f"  {case} {extents}, {what}: {less_cycles:,.0f} -> {more_cycles:,.0f} cycles "
                  f"(+{more_cycles / less_cycles - 1:.1%})", flush=True)  # fmt: skip
    for name, some in of_chip.items() if len(of_chip) > 1 else ():
        print(f"{name}: ", end="")
        report(some, log)
    report(rows, log)


if __name__ == "__main__":
    main()
