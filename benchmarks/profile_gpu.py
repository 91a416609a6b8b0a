"""Which kernels a network's forward pass launches on this GPU, by the profiler of torch: one line a network.

    PYTHONPATH=. python benchmarks/profile_gpu.py --grid gpu-all -o h200-kernels.jsonl --time-limit 90

For every workload that the grid replays as a graph: its kernels in equal groups of (op, shapes, kernel), each with
its count and the sum of its durations in one eager pass. What a graph adds between kernels is the graph's time less
their sum. Needs torch, NumPy and PyYAML alone; a file that holds a network already is gone on with.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from sim.baseline.device import open_device
from sim.baseline.grid import Point, load_grid
from sim.baseline.record import Mode
from sim.baseline.runner import origin, resolved, set_tf32
from sim.baseline.workloads import build_workload

ROOT = Path(__file__).resolve().parent.parent
METHOD = "torch.profiler around one eager pass after five; durations as CUPTI gives them, gaps left out"


def kernels_of(point: Point, free_bytes: int) -> list[dict[str, object]]:
    """Groups of equal kernels of one pass, in the order of their first launch; durations in microseconds."""
    set_tf32(point.precision == "tf32")
    with torch.inference_mode():
        call = build_workload(
            point.workload_path, point.knobs, precision=point.precision, device="cuda", compiled=False,
            free_bytes=free_bytes,
        )  # fmt: skip
        for _ in range(5):
            call()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], record_shapes=True) as recorded:
            call()
            torch.cuda.synchronize()
    groups: dict[tuple[str, str, str], list[float]] = {}
    for event in sorted(recorded.events(), key=lambda e: e.time_range.start):
        for kernel in event.kernels if event.name.startswith("aten::") else ():  # the profiler's own events repeat some
            groups.setdefault((event.name, json.dumps(event.input_shapes), kernel.name), []).append(kernel.duration)
    return [
        {"op": op, "shapes": json.loads(shapes), "kernel": name[:120], "count": len(times), "us": round(sum(times), 3)}
        for (op, shapes, name), times in groups.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", default="gpu-all")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--commit", help="for a copy without history")
    parser.add_argument("--time-limit", type=float, default=90.0, help="seconds after which no network is begun")
    arguments = parser.parse_args()
    machine, start = open_device("cuda"), time.perf_counter()
    run = origin(machine, command=shlex.join(["python", *sys.argv]), commit=arguments.commit)
    points = load_grid(ROOT / "baselines" / "grids" / f"{arguments.grid}.yaml").points
    held = arguments.output.read_text().splitlines() if arguments.output.exists() else []
    lines = [json.loads(line) for line in held]
    done = {(line["workload"], str(sorted(line["knobs"].items())), line["precision"]) for line in lines}
    for point in map(resolved, points):
        name = (point.workload, str(sorted(point.knobs.items())), point.precision)
        if point.workload is None or point.mode is not Mode.GRAPH or name in done:
            continue
        if time.perf_counter() - start > arguments.time_limit:
            print("time limit reached: run again to go on", file=sys.stderr)
            break
        try:
            kernels = kernels_of(point, machine.free_bytes())
        except Exception as error:  # one network that does not run is no reason to lose the others
            print(f"{point}: skipped, {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
            continue
        finally:
            torch.cuda.empty_cache()
        line = {
            "schema": "dovetail.kernels/1", "device": machine.key, "workload": point.workload,
            "knobs": dict(point.knobs), "precision": point.precision, "kernels": kernels, "env": run.env,
            "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "command": run.command, "commit": run.commit,
            "method": METHOD,
        }  # fmt: skip
        with arguments.output.open("a") as file:
            file.write(json.dumps(line) + "\n")
        total_us, count = sum(k["us"] for k in kernels), sum(k["count"] for k in kernels)
        print(f"{point}: {count} kernels, {total_us:.1f} us", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
