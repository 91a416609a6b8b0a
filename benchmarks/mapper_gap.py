"""What the mapper's limits cost: listed tiles against all integers, the beam against a far wider one.

    python benchmarks/mapper_gap.py [--cases 12] [--seed 0] [--hw eyeriss ...] [--workload resnet18]

One memory: the per-rank lists of `dims` against every integer tile of every rank. Two memories and
more, on random machines, on small problems all of whose mappings can be costed, and with `--hw` on the
layers of a network: the beam of `nested` against `WIDE`. Prints the worst and the mean of
(ours / better one) - 1.
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

import sim  # noqa: E402
from sim.mapping import dims  # noqa: E402
from sim.mapping.beam import Effort  # noqa: E402
from sim.mapping.machine import machine  # noqa: E402
from sim.mapping.mapper import map_problem  # noqa: E402
from sim.mapping.nested import map_nested  # noqa: E402
from sim.mapping.problem import ROLES, Problem  # noqa: E402
from sim.workload.graph import EinsumOp  # noqa: E402

HOME = dict.fromkeys(ROLES, 0)
WIDE = Effort(width=512, rounds=60, pairs=12_000, starts=4_000, patience=8)


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
    dims.forget()
    with mock.patch.object(dims, "EXHAUSTIVE", 10**6):
        every = map_problem(p, m, HOME)
    dims.forget()
    return _gap(ours, every)


def beam_against_wide(rng: random.Random, memories: int) -> float:
    p, m = case(rng, memories, 60)
    return _gap(map_nested(p, m, HOME), map_nested(p, m, HOME, effort=WIDE))


def beam_against_all(rng: random.Random, memories: int) -> float:
    """Small problems, which the mapper would enumerate."""
    p, m = case(rng, memories, 5)
    return _gap(map_nested(p, m, HOME, all_below=0), map_nested(p, m, HOME, all_below=10**9, most=None))


def layers(hardware: str, workload: str) -> None:
    """Every distinct layer of a network on a chip."""
    chip = sim.load_hardware(hardware)
    unit = chip.main_unit
    m = machine([chip], next(iter(unit.array.macs_per_cycle)))
    ops = [op.einsum for op in sim.load_workload(workload).ops if isinstance(op, EinsumOp)]
    distinct = {(*e.ranks.items(), *(o.projection for o in e.operands)): e for e in ops}
    ours_cycles = wide_cycles = 0.0
    for einsum in distinct.values():
        p = Problem(einsum=einsum, bits=dict.fromkeys(ROLES, 8.0), accumulate_bits=unit.array.accumulate_bits)
        start = time.process_time()
        ours = map_nested(p, m, HOME)
        middle = time.process_time()
        wide = map_nested(p, m, HOME, effort=WIDE)
        seconds = f"{middle - start:.2f} and {time.process_time() - middle:.2f} CPU s"
        extents = "x".join(str(n) for n in einsum.ranks.values() if n > 1)
        print(f"  {hardware} {extents:24}{ours.cost.time[0]:>14,.0f}{_gap(ours, wide):>9.2%}  {seconds}", flush=True)
        ours_cycles += float(ours.cost.time[0])
        wide_cycles += float(min(ours.cost.time[0], wide.cost.time[0]))
    print(f"{hardware} {workload}, {len(distinct)} distinct layers: {ours_cycles / wide_cycles - 1:.2%} in the sum")


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
    parser.add_argument("--hw", action="append", default=[])
    parser.add_argument("--workload", default="resnet18")
    arguments = parser.parse_args()
    for hardware in arguments.hw:
        layers(hardware, arguments.workload)
    if arguments.hw:
        return
    kinds = (
        ("one memory on chip, lists against all integers", lists_against_integers),
        ("two memories on chip, beam against all mappings", lambda rng: beam_against_all(rng, 2)),
        ("two memories on chip, beam against a wide one", lambda rng: beam_against_wide(rng, 2)),
        ("three memories on chip, beam against a wide one", lambda rng: beam_against_wide(rng, 3)),
    )
    for what, measure in kinds:
        start = time.process_time()
        gaps = [measure(random.Random(arguments.seed + i)) for i in range(arguments.cases)]
        print(f"{what:50} {len(gaps)} cases, {sum(g > 1e-9 for g in gaps)} worse, mean {np.mean(gaps):.3%}, "
              f"worst {max(gaps):.2%}, {time.process_time() - start:.0f} CPU s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
