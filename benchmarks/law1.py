"""Law 1 on every bundled workload and chip: roofline <= estimate, roofline <= simulate, and both agree.

    python benchmarks/law1.py [--workload NAME ...] [--hw NAME ...] [--limit SECONDS] [-o ROWS.jsonl]

Each pair runs in its own process, so that one that takes too long (`--limit`, CPU seconds) or too
much memory is a row of the table and not the end of it. With `-o` every row is appended to a file
as it is known, and pairs that the file holds are not run again. Exits with 1 where the law fails. A
network that does not fit a chip, or a precision that it lacks, is shown and is no failure; nor is a
pair that was stopped, which shows nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import sim
from sim.errors import DovetailError
from sim.resources import data_dir

AGREE = 0.02
MEMORY_BYTES = 6 * 2**30
NAMES = ("roofline", "estimate", "simulate")

Row = dict[str, object]


def one(workload: str, hardware: str) -> Row:
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


def verdict(row: Row) -> str:
    """ok, refused, stopped, or FAIL and what of the law."""
    if "refused" in row:
        return "refused"
    if "error" in row:
        return "stopped" if "stopped by" in str(row["error"]) else "FAIL: crashed"
    roofline, estimate, simulate = (float(row[f"{k}_s"]) for k in ("roofline", "estimate", "simulate"))  # type: ignore[arg-type]
    if roofline > min(estimate, simulate):
        return "FAIL: below the roofline"
    if row["contended_s"] == 0 and abs(simulate / estimate - 1) > AGREE:
        return "FAIL: they disagree"
    return "ok"


def read(path: Path | None) -> dict[tuple[object, object], Row]:
    """The rows of an earlier run, by pair."""
    if path is None or not path.exists():
        return {}
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return {(row["workload"], row["chip"]): row for row in rows}


def child(workload: str, hardware: str, limit_s: int) -> Row:
    """One pair in a process of its own."""

    def bounds() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    words = [sys.executable, __file__, "--one", workload, hardware]
    done = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=bounds)
    if done.returncode == 0:
        return json.loads(done.stdout)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode < 0:
        return {"error": f"stopped by signal {-done.returncode}: over {limit_s} s CPU"}
    return {"error": last}


def line(row: Row) -> str:
    """One row of the table."""
    head = f"{row['workload']:16} {row['chip']:20}"
    said = verdict(row)
    if "simulate_s" not in row:
        return f"{head} {said}: {str(row.get('refused') or row['error'])[:110]}"
    times = [float(row[f"{k}_s"]) for k in NAMES]  # type: ignore[arg-type]
    cpu = "/".join(f"{s:.2f}" for s in row["cpu_s"])  # type: ignore[attr-defined]
    return f"{head} {' '.join(f'{t:10.3e}' for t in times)} {times[2] / times[1] - 1:+9.3%} {cpu:>11}  {said}"


def summary(rows: list[Row]) -> str:
    """How many of each verdict, and the pairs in which the rungs lie furthest apart."""
    count = Counter(verdict(row).split(":")[0] for row in rows)
    ran = [row for row in rows if "simulate_s" in row]
    apart = sorted(ran, key=lambda row: -abs(row["simulate_s"] / row["estimate_s"] - 1))  # type: ignore[operator]
    close = sorted(ran, key=lambda row: min(row["estimate_s"], row["simulate_s"]) / row["roofline_s"])  # type: ignore[operator, type-var]
    words = [", ".join(f"{n} {kind}" for kind, n in count.most_common()) + f", of {len(rows)} pairs"]
    words += ["furthest apart:", *map(line, apart[:5]), "nearest to the roofline:", *map(line, close[:5])]
    return "\n".join(words)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", action="append")
    parser.add_argument("--hw", action="append")
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("-o", type=Path, help="rows so far: appended to, and not run again")
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
    pairs = [(workload, chip) for workload in workloads for chip in chips]
    known = read(words.o)
    print(f"{'workload':16} {'chip':20} {' '.join(f'{n:>10}' for n in NAMES)} {'sim/est-1':>9} {'CPU s':>11}  verdict")
    rows: list[Row] = []
    for at, pair in enumerate(pairs, 1):
        row = known.get(pair)
        if row is None:
            row = {"workload": pair[0], "chip": pair[1], **child(*pair, words.limit)}
            if words.o:
                with words.o.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        rows.append(row)
        print(f"{at:4}/{len(pairs)} {line(row)}", flush=True)
    print(summary(rows))
    return 1 if any(verdict(row).startswith("FAIL") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
