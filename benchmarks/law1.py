"""Law 1 on every bundled workload and chip: roofline <= estimate, roofline <= simulate, and both agree.

    python benchmarks/law1.py [--workload NAME ...] [--hw NAME ...] [--limit SECONDS]

Each pair runs in its own process, so that one that takes too long (`--limit`, CPU seconds) or too
much memory is a row of the table and not the end of it. Exits with 1 where the law fails. A network
that does not fit a chip, or a precision that it lacks, is shown and is no failure.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import sim
from sim.errors import DovetailError
from sim.resources import data_dir

AGREE = 0.02
MEMORY_BYTES = 12 * 2**30


def one(workload: str, hardware: str) -> dict[str, object]:
    """Numbers of one pair, or why there are none."""
    graph, chip = sim.load_workload(workload), sim.load_hardware(hardware)
    start = time.process_time()
    found = sim.estimate(graph, chip, calibration="none")
    middle = time.process_time()
    run = sim.simulate(graph, chip, calibration="none")
    end = time.process_time()
    return {
        "roofline_s": found.roofline_latency_s, "estimate_s": found.latency_s, "simulate_s": run.latency_s,
        "contended_s": run.contended_s, "cpu_s": [middle - start, end - middle],
    }  # fmt: skip


def verdict(row: dict[str, object]) -> str:
    roofline, estimate, simulate = (float(row[f"{k}_s"]) for k in ("roofline", "estimate", "simulate"))  # type: ignore[arg-type]
    if roofline > min(estimate, simulate):
        return "FAIL: below the roofline"
    if row["contended_s"] == 0 and abs(simulate / estimate - 1) > AGREE:
        return "FAIL: they disagree"
    return "ok"


def child(workload: str, hardware: str, limit_s: int) -> dict[str, object]:
    """One pair in a process of its own."""

    def bounds() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    words = [sys.executable, __file__, "--one", workload, hardware]
    done = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=bounds)
    if done.returncode == 0:
        return json.loads(done.stdout)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return {"error": last or f"stopped by signal {-done.returncode}: over {limit_s} s CPU"}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", action="append")
    parser.add_argument("--hw", action="append")
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--one", nargs=2)
    words = parser.parse_args()
    if words.one:
        try:
            print(json.dumps(one(*words.one)))
        except DovetailError as error:
            print(json.dumps({"refused": " ".join(str(error).split())}))
        return 0
    chips = words.hw or sorted(p.stem for p in data_dir("hw_configs").glob("*.yaml"))
    workloads = words.workload or sorted(p.stem for p in data_dir("workloads").glob("[!_]*.py"))
    names = ("roofline", "estimate", "simulate")
    print(f"{'workload':16} {'chip':16} {' '.join(f'{n:>10}' for n in names)} {'sim/est-1':>9} {'CPU s':>11}  verdict")
    failed = 0
    for workload in workloads:
        for chip in chips:
            row = child(workload, chip, words.limit)
            head = f"{workload:16} {chip:16}"
            if "refused" in row or "error" in row:
                failed += "error" in row
                kind = "FAIL" if "error" in row else "refused"
                print(f"{head} {kind}: {str(row.get('refused') or row['error'])[:110]}", flush=True)
                continue
            said = verdict(row)
            failed += said != "ok"
            times = [float(row[f"{k}_s"]) for k in names]  # type: ignore[arg-type]
            cpu = "/".join(f"{s:.2f}" for s in row["cpu_s"])  # type: ignore[attr-defined]
            print(
                f"{head} {' '.join(f'{t:10.3e}' for t in times)} {times[2] / times[1] - 1:+9.2%} {cpu:>11}  {said}",
                flush=True,
            )
    print(f"{failed} failures of {len(workloads) * len(chips)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
