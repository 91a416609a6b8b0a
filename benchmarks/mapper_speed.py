"""How fast mapping, estimating and sweeping are: medians of CPU time on one core.

    python benchmarks/mapper_speed.py [--repeats 5]

Candidates a second are full bounds of time (traffic of every operand, footprint, array cycles with
remainders, ports, both ends) over three memories: DRAM, SRAM and the array's registers, in single
precision as the search makes them. A candidate is a tiling with the class of its innermost loop; the
bounds of a tiling's classes are made one by one and the least is kept. A sample of
the tilings is costed one by one with the exact evaluator: traffic and footprint must be equal
where the bound claims them (one loop per class), the time never less than the bound. Networks are
traced once; their times hold mapping and everything else of an estimate, from empty caches.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import sim  # noqa: E402
from sim.mapping import dims  # noqa: E402
from sim.mapping.evaluate import Rows, evaluate_rows  # noqa: E402
from sim.mapping.machine import machine  # noqa: E402
from sim.mapping.nest import footprint_bytes, nest  # noqa: E402
from sim.mapping.problem import ROLES, Problem  # noqa: E402
from sim.mapping.scan import Scan, clocks  # noqa: E402
from sim.mapping.search import Pool, SingleBorder  # noqa: E402
from sim.mapping.terms import Numbers  # noqa: E402
from sim.workload.graph import EinsumOp  # noqa: E402

SWEEP = {
    "array.rows": [16, 32, 64, 96, 128],
    "SRAM.capacity": ["512 KiB", "1 MiB", "4 MiB", "8 MiB", "32 MiB"],
    "DRAM.bandwidth": [f"{g} GB/s" for g in (8, 12, 17, 24, 34, 48, 68, 96, 136, 192)],
    "clock": ["0.5 GHz", "1 GHz", "1.5 GHz", "2 GHz"],
}


def median(run: Callable[[], object], repeats: int, before: Callable[[], object] = lambda: None) -> float:
    """Median CPU seconds of `run`; `before` is not timed."""
    times = []
    for _ in range(repeats):
        before()
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def forget() -> None:
    """Empty the candidate lists, as in a fresh process."""
    dims._LISTS.clear()


def first_answer(graph: object, chip: object, repeats: int) -> float:
    return median(lambda: sim.estimate(graph, chip, calibration="none"), repeats, forget)


def layer() -> tuple[Problem, SingleBorder]:
    """A 3x3 convolution of stride 2 with 512 channels on 15x15 pixels (none padded), on the systolic template."""
    graph = sim.conv2d(512, 512, 15, 3, stride=2)
    einsum = next(op for op in graph.ops if isinstance(op, EinsumOp)).einsum
    chip = sim.load_hardware("systolic")
    made = machine([chip], "int8")
    p = Problem(einsum=einsum, bits=dict.fromkeys(ROLES, 8.0), accumulate_bits=32)
    return p, SingleBorder(p, made, dict.fromkeys(ROLES, 0))


def candidates(repeats: int) -> tuple[float, int, str]:
    """(candidates a second, candidates, what the sample showed)."""
    p, space = layer()
    made = space.machine
    numbers = Numbers(made.rates, made.setup_cycles, made.latency_cycles)
    pool = Pool(space)
    (clock,) = clocks(made.rates, made.setup_cycles, made.latency_cycles)

    def bound() -> np.ndarray:
        """From the candidate lists to the times."""
        fresh = Pool(SingleBorder(p, made, space.homes))
        return Scan(fresh, np.zeros(1, dtype=int), made.capacity_bytes[:, space.route.level]).everywhere(clock)

    seconds = median(bound, repeats)
    bounds = pool.times(numbers)[0]
    moved = pool.energies(np.array([1.0, 0.0]), np.array([1.0, 0.0]))  # 1 J a byte: DRAM traffic
    finite = np.flatnonzero(np.isfinite(bounds)).tolist()
    sample, equal, ratios = random.Random(0).sample(finite, 300), 0, []
    for position in sample:
        exact, traffic, used = np.inf, np.inf, 0.0
        for choice in pool.choices(position):  # every loop order of the tiling
            nested = nest(space.mapping(choice), p, made, space.homes)
            rows = Rows(nest=nested, problem=p, machine=made, rates=made.rates, setup=made.setup_cycles,
                        latency=made.latency_cycles)  # fmt: skip
            cost = evaluate_rows(rows)
            used = sum(float(np.max(b)) for b in footprint_bytes(nested, p, made).get(space.route.level, {}).values())
            exact, traffic = min(exact, float(cost.time[0])), min(traffic, float(cost.traffic[0, 0].sum()))
        # Where a pass over a sliding window is repeated, what its wrap still holds is bounded, not counted.
        walked = [p.rank_class[r] for r in choice.order]
        counted = "M" not in walked or ("N" not in walked and walked.count("M") < 2)
        agree = np.isclose(used, pool.footprint[position]) and bounds[position] <= exact * (1 + 1e-9)
        if (
            not agree
            or (counted and not np.isclose(traffic, moved[position]))
            or moved[position] > traffic * (1 + 1e-9)
        ):
            raise SystemExit(f"candidate {choice}: {bounds[position]} {exact}, {used}, {traffic} {moved[position]}")
        equal += bool(np.isclose(traffic, moved[position]))
        ratios.append(float(bounds[position]) / exact)
    found = f"traffic equal in {equal} of {len(sample)}, time {min(ratios):.3f} to {max(ratios):.3f} of exact"
    classes = len(pool.grids[0][1].letters)
    return len(pool) * classes / seconds, len(pool) * classes, found


def process(arguments: list[str], repeats: int) -> float:
    """Median user + system seconds of a whole process, its modules compiled as an installed package's are."""
    import resource

    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(repeats + 1):  # the first one compiles
        start = spent()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=compiled)
        times.append(spent() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rate, count, sampled = candidates(repeats)
    say(f"candidates a second ({count:,}, strided convolution)", f"{rate / 1e6:.1f} M", ">= 20 M")
    say("  of them costed one by one", sampled, "")
    npu, systolic = sim.load_hardware("tesla-fsd-npu"), sim.load_hardware("systolic")
    for name, target in (("resnet18", 0.11), ("resnet50", 0.1), ("vit", 0.2)):
        graph = sim.load_workload(name)
        for chip in (npu, systolic):
            seconds = first_answer(graph, chip, repeats)
            say(f"{name} on {chip.name}, first answer", f"{seconds:.3f} s", f"<= {target} s")
    llama = sim.Workload("llama", {"size": "70b", "phase": "decode"})
    import torch  # noqa: F401

    say("llama 70B decode, trace", f"{median(lambda: llama.graph(cache=False), 1):.2f} s", "<= 5 s")
    big, decode = sim.load_hardware("tpu-v5e", {"DRAM.capacity": "160 GiB"}), llama.graph()
    say("llama 70B decode on tpu-v5e with 160 GiB, estimate", f"{first_answer(decode, big, repeats):.2f} s", "<= 1 s")
    for name, target in (("resnet50", 1.0), ("resnet18", 1.5)):
        command = ["-m", "sim", "estimate", name, "--hw", "tesla-fsd-npu"]
        say(f"`dovetail {' '.join(command[2:])}`", f"{process(command, repeats):.2f} s", f"<= {target} s")
    graph = sim.load_workload("resnet50")
    swept = median(lambda: sim.sweep(graph, systolic, SWEEP, calibration="none"), max(1, repeats // 2), forget)
    say("resnet50, 1,000 designs (5 x 5 x 10 x 4)", f"{swept:.2f} s", "<= 1 s")


def say(what: str, ours: str, target: str) -> None:
    print(f"{what:58}{ours:>12}   {target}", flush=True)


if __name__ == "__main__":
    main()
