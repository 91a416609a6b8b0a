"""How fast the simulator is, against its targets. CPU time of this process, one run each.

    python benchmarks/events.py            schedules made here: a network of the size of ResNet-50
    python benchmarks/events.py --real     the bundled workloads and chips
    python benchmarks/events.py --table llm-serving-h100
                                           steps between the points of a serving table against their own schedules

Targets: ResNet-50 on the FSD NPU folded <= 50 ms, expanded <= 10 s, same finish; one minute of
autopilot <= 60 s with the network summary; 10,000 requests to a language model <= 60 s.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from sim.events.experiment import default_builder, run_scenario
from sim.events.run import Stream, alone_s, run
from sim.events.scenario import Requests, load_scenario
from sim.events.serving import Cache, StepTable, serve
from sim.events.serving_scenario import draw_requests, size_cache, step_tables, traced_footprint
from sim.hardware.chip import Chip, Memory
from sim.hardware.load import load_hardware
from sim.schedule.plan import Group, Schedule, Steps


def timed(title: str, target_s: float, work: Callable[[], object]) -> object:
    begun = time.process_time()
    result = work()
    took = time.process_time() - begun
    print(f"{title:58s} {took:9.3f} s   target {target_s:g} s   {'met' if took <= target_s else 'MISSED'}")
    return result


def network(*, groups: int, steps: int, seconds: float, unit: str = "npu", seed: int = 0) -> Schedule:
    """A chain of `groups` nests of `steps` steps in three classes, half bound by memory, `seconds` in all."""
    rng = np.random.default_rng(seed)
    each_s = seconds / groups / steps
    made = []
    for at in range(groups):
        compute = each_s * (1.0 if at % 2 else 0.6)
        load = 64e9 * each_s * (0.5 if at % 2 else 1.0) * rng.uniform(0.9, 1.1, 3)
        repeat = np.array([1, steps - 2, 1])
        made.append(
            Group(
                name=f"layer{at}", ops=(f"layer{at}",), unit=unit, kind="einsum",
                deps=(at - 1,) if at else (), launch_s=1e-6, latency_s=0.0,
                steps=Steps(
                    repeat=repeat, compute_s=np.full(3, compute), first_load_bytes={"DRAM": float(load[0])},
                    next_load_bytes={"DRAM": load}, store_bytes={"DRAM": 0.1 * load}, inner_bytes={},
                    last_store_bytes={"DRAM": float(0.1 * load[0])}, setup_s=50e-9,
                ),
            )
        )  # fmt: skip
    return Schedule(
        groups=tuple(made), ports={"DRAM": 64e9}, peaks_bytes={"DRAM": 60e6}, clock_hz={}, units={"npu": 2, "cpu": 12}
    )


def both_grains(title: str, schedule: Schedule) -> None:
    run([Stream(name="warm", schedule=schedule)], record=0)
    folded = timed(f"{title} folded", 0.05, lambda: run([Stream(name="a", schedule=schedule)], record=0))
    expanded = timed(
        f"{title} expanded", 10, lambda: run([Stream(name="a", schedule=schedule)], grain="expand", record=0)
    )
    error = folded.latency_s / expanded.latency_s - 1
    print(f"    events {folded.events:,} against {expanded.events:,}; finish differs by {error:.1e}")


def autopilot(chip: Chip, build: Callable) -> None:
    minute = load_scenario("autopilot").model_copy(update={"length": 60.0, "replications": 1})
    coarse = timed("one minute of autopilot, summary", 60, lambda: run_scenario(minute, chip, build=build, record=0))
    short = minute.model_copy(update={"length": 2.0})
    fine = {g: run_scenario(short, chip, build=build, grain=g, record=0) for g in ("folded", "summary")}
    print(f"    {len(coarse.first.jobs):,} jobs, {coarse.first.events:,} events; against the fine grain over 2 s:")
    for name, stream in fine["folded"].streams.items():
        other = fine["summary"].streams[name]
        shares = [getattr(other, q) / getattr(stream, q) - 1 for q in ("latency_mean_s", "latency_p99_s")]
        print(f"    {name}: mean latency {shares[0]:+.2%}, p99 {shares[1]:+.2%}")


def serving() -> None:
    prompts = (128, 512, 1024, 4096)
    batches, contexts = (1, 4, 16, 64), (128, 1024, 4096)
    table = StepTable(
        batches=batches, contexts=contexts, prompts=prompts,
        decode_table=np.array([[5e-3 + 5e-5 * b + 1e-8 * b * c for c in contexts] for b in batches]),
        prefill_table=np.array([5e-3 + 2e-5 * n for n in prompts]),
    )  # fmt: skip
    spec = Requests(
        count=10_000, arrivals={"kind": "poisson", "rate": "12 Hz"}, prompt_tokens=512, prompt_sigma=0.8,
        output_tokens=200, output_sigma=0.7,
    )  # fmt: skip
    cache = Cache(pages=25_000, page_tokens=16, bytes_per_token=131_072)
    done = timed(
        "10,000 requests to a language model", 60,
        lambda: serve(draw_requests(spec, 0), table, cache, max_batch=64, prefill_chunk=512),
    )  # fmt: skip
    print(f"    {done.steps:,} steps, mean batch {done.mean_batch:.1f}, {done.preemptions} preemptions")


def between(name: str) -> None:
    """How far interpolated steps of a serving scenario lie from schedules made for them."""
    scenario = load_scenario(name)
    spec, chip = scenario.serving, load_hardware(scenario.hardware)
    cache = size_cache(spec, chip, traced_footprint(spec, spec.precision))
    table, _ = step_tables(spec, chip, default_builder, cache)
    points = [("decode", b, c) for b, c in ((2, 512), (8, 2048), (32, 300), (32, 1500), (40, 700), (48, 600))]
    for phase, batch, context in points + [("prefill", 1, n) for n in (200, 384, 700, 1500, 2500, 3500)]:
        knobs = {**spec.knobs, "phase": phase, "batch": batch, "context": context}
        own = alone_s(default_builder(spec.workload, knobs, spec.precision, chip))
        found = table.decode(batch, context) if phase == "decode" else table.prefill(context)
        print(
            f"{phase:8} batch {batch:3} context {context:5}: {own * 1e3:8.3f} ms, interpolated {found / own - 1:+.2%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", action="store_true", help="bundled workloads and chips instead of made schedules")
    parser.add_argument("--table", metavar="SCENARIO", help="a serving scenario")
    options = parser.parse_args()
    if options.table:
        between(options.table)
        return
    if options.real:
        chip, cache = load_hardware("tesla-fsd"), {}

        def build(workload, knobs, precision, chip):
            key = (workload, tuple(sorted(knobs.items())), precision)
            if key not in cache:
                cache[key] = default_builder(workload, knobs, precision, chip)
            return cache[key]

        both_grains("ResNet-50 on the FSD NPU", build("resnet50", {}, None, chip))
    else:
        chip = Chip(
            name="two NPUs", title="", clock_hz=2e9, default_precision="int8", memories=(Memory(name="DRAM"),), units=()
        )

        def build(workload, knobs, precision, chip):
            seconds = {"resnet50": 2.5e-3, "driving": 27e-3, "decoder": 0.6e-3}[workload]
            return network(groups=196 if workload == "driving" else 54, steps=200, seconds=seconds, seed=len(workload))

        both_grains("a network of 54 groups and 10,800 steps", build("resnet50", {}, None, chip))
    autopilot(chip, build)
    serving()


if __name__ == "__main__":
    main()
