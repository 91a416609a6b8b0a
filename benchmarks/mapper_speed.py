"""How fast mapping, estimating and sweeping are: medians of CPU time on one core.

    python benchmarks/mapper_speed.py [--repeats 5]

A candidate is a tiling with the class of its innermost loop, over three memories: DRAM, SRAM and the
array's registers. Each has its own cost under the rule by which the search ranks all of them (fluid: the
longest of the sums instead of the sum of the longest): footprint, traffic and transfers of every operand
with the overlap of sliding windows, array cycles with remainders, ports, set-up, both ends; timed in
single precision, as the search makes them, and compared in double. A sample is
costed again one by one, every loop order of it, from the steps that the evaluator walks: the least of a
class must equal its cost. Its recurrence, which decides between the best, may be longer, never shorter.
Networks are traced once; their times hold mapping and everything else of an estimate, from empty caches.
A process is timed by the clock too (its what-ifs run on all cores), the rest in CPU time alone.
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
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import sim  # noqa: E402
from sim.mapping import dims  # noqa: E402
from sim.mapping.evaluate import Rows, evaluate_rows, step_table  # noqa: E402
from sim.mapping.machine import machine  # noqa: E402
from sim.mapping.nest import footprint_bytes, nest  # noqa: E402
from sim.mapping.problem import OUTPUT, ROLES, Problem  # noqa: E402
from sim.mapping.scan import clocks  # noqa: E402
from sim.mapping.search import Choice, Pool, SingleBorder  # noqa: E402
from sim.mapping.terms import CLASSES, Terms  # noqa: E402
from sim.schedule import network  # noqa: E402
from sim.schedule.choice import Way, Ways  # noqa: E402
from sim.schedule.residency import Keep  # noqa: E402
from sim.workload.graph import EinsumOp  # noqa: E402

DRAM = 0
"""Number of its port."""
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
    dims.forget()


def first_answer(graph: object, chip: object, repeats: int) -> float:
    return median(lambda: sim.estimate(graph, chip, calibration="none"), repeats, forget)


def at_home(way: Ways, *, given: bool = False) -> Way:
    """A network with every tensor at home and no layers fused, as a schedule without residency has it."""
    return way(Keep.NOTHING, None)


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
    (clock,) = clocks(made.rates, made.setup_cycles, made.latency_cycles)

    def costed(dtype: type[np.floating]) -> tuple[np.ndarray, np.ndarray]:
        """From the lists to (cycles (classes, tilings), also of classes without a loop; footprints (tilings,))."""
        pool = Pool(SingleBorder(p, made, space.homes))
        ((_, grid),) = pool.grids
        terms = Terms(grid, p, dtype=dtype)
        times = [terms.flat(pool.bounds.of_class(terms, letter).time(*clock)) for letter in terms.letters]
        return np.stack(times), terms.flat(terms.footprint_bytes())

    times, footprint = costed(np.float64)  # (the first time makes the lists, which are remembered)
    seconds = median(lambda: costed(np.float32), repeats)
    pool = Pool(space)
    letters = pool.grids[0][1].letters
    walked = np.stack([pool.bounds.walked(letter, np.arange(len(pool))) for letter in letters])
    number = int(walked.sum() + (~walked.any(axis=0)).sum())  # a single tile counts once
    sample, equal, ratios = random.Random(0).sample(range(len(pool)), 300), [], []
    for position in sample:
        for row, letter in enumerate(letters):
            orders = pool.choices(position, CLASSES.index(letter))  # none where the class is not walked
            if orders:
                one_by_one = [recosted(p, space, choice) for choice in orders]
                fluid, exact, used = (min(costs) for costs in zip(*one_by_one, strict=True))
                equal.append(bool(np.allclose([times[row, position], footprint[position]], [fluid, used], rtol=1e-12)))
                ratios.append(float(times[row, position]) / exact)
    found = f"equal in {sum(equal)} of {len(equal)}; recurrence 1 to {1 / min(ratios):.2f} times it"
    if max(ratios) > 1 + 1e-9:
        raise SystemExit(f"a candidate costs {max(ratios)} of its recurrence")
    return number / seconds, number, found


def recosted(p: Problem, space: SingleBorder, choice: Choice) -> tuple[float, float, float]:
    """(fluid cycles, cycles of the recurrence, footprint) of one loop order, from the steps that the evaluator walks.

    Fluid: first load, then the most of the array's cycles and every port's, then the last store. A port that does not
    feed the array has nothing to load while the last tile is computed, and at most a tile of results to store.
    """
    made, nested = space.machine, nest(space.mapping(choice), p, space.machine, space.homes)
    rows = Rows(nest=nested, problem=p, machine=made, rates=made.rates, setup=made.setup_cycles,
                latency=made.latency_cycles)  # fmt: skip
    table, (rates,), (setup,), (latency,) = step_table(rows), made.rates, made.setup_cycles, made.latency_cycles
    busy = table.weight @ (table.busy.bytes / rates + table.busy.transfers * setup)
    ends = [(moves.bytes / rates + moves.transfers * setup).max() for moves in (table.first, table.last)]
    tile = {r: int(np.ravel(n)[0]) for r, n in (p.whole | nested.tiles[0]).items()}
    summed = any(tile[r] < p.whole[r] for r in p.reduction)
    results = p.elements(OUTPUT, tile) * (p.accumulate_bits if summed else p.bits[OUTPUT]) / 8
    busy[DRAM] += max(0.0, table.run[-1] - results / rates[DRAM] - setup)
    fluid = ends[0] + max(table.weight @ table.run, busy.max()) + ends[1] + latency
    used = sum(float(np.max(b)) for b in footprint_bytes(nested, p, made)[space.route.level].values())
    return float(fluid), float(evaluate_rows(rows).time[0]), used


def process(arguments: list[str], repeats: int) -> tuple[float, float]:
    """Medians of a whole process: seconds by the clock, user + system seconds of all its copies. Its modules are
    compiled as an installed package's are."""
    import resource

    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    clock, cpu = [], []
    for _ in range(repeats + 1):  # the first one compiles
        start, before = time.monotonic(), spent()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=compiled)
        clock.append(time.monotonic() - start)
        cpu.append(spent() - before)
    return statistics.median(clock[1:]), statistics.median(cpu[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rate, count, sampled = candidates(repeats)
    say(f"candidates a second ({count:,}, strided convolution)", f"{rate / 1e6:.1f} M", ">= 20 M")
    say("  a sample costed one by one", sampled, "")
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
    for name, target in (("resnet50", "<= 1.0 s by the clock"), ("resnet18", "<= 1.5 s of CPU time")):
        command = ["-m", "sim", "estimate", name, "--hw", "tesla-fsd-npu"]
        clock_s, cpu_s = process(command, repeats)
        say(f"`dovetail {' '.join(command[2:])}`", f"{clock_s:.2f} s", f"{target}; {cpu_s:.2f} s of CPU time")
    graph = sim.load_workload("resnet50")

    def swept() -> float:
        return median(lambda: sim.sweep(graph, systolic, SWEEP, calibration="none"), repeats, forget)

    with mock.patch.object(network, "best_kept", at_home):
        say("resnet50, 1,000 designs (5 x 5 x 10 x 4), all at home", f"{swept():.2f} s", "<= 1 s")
    say("  with fusion and residency: more schedules are costed", f"{swept():.2f} s", "<= 5 s")


def say(what: str, ours: str, target: str) -> None:
    print(f"{what:58}{ours:>12}   {target}", flush=True)


if __name__ == "__main__":
    main()
