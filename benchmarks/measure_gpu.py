"""Measure a grid on this machine with torch, NumPy and PyYAML alone.

    PYTHONPATH=. python benchmarks/measure_gpu.py --grid gpu-all --device cuda -o h200.jsonl --time-limit 460

The same as `dovetail measure gpu-all --device cuda`, for machines that have no more than torch. The order of
the grid is the order of worth; a killed or limited run goes on when it is started again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from sim.baseline.device import open_device
from sim.baseline.grid import load_grid
from sim.baseline.runner import measure_points, origin, prepare_process
from sim.errors import DovetailError

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", default="gpu-all", help="name in baselines/grids/ or a YAML path")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int)
    parser.add_argument("-o", "--output", type=Path, help="default: baselines/<device>.jsonl")
    parser.add_argument("--time-limit", type=float, default=460.0, help="seconds after which no point is begun")
    parser.add_argument("--commit", help="for a copy without history")
    parser.add_argument("--only", help="only points of which the text contains this")
    arguments = parser.parse_args()
    try:
        named = ROOT / "baselines" / "grids" / f"{arguments.grid}.yaml"
        grid = load_grid(named if named.exists() else Path(arguments.grid))
        machine = open_device(arguments.device, arguments.threads)
        prepare_process(machine)
        points = [p for p in grid.points if not arguments.only or arguments.only in str(p)]
        outcome = measure_points(
            points, machine=machine, output=arguments.output or ROOT / "baselines" / f"{machine.key}.jsonl",
            run=origin(machine, command=shlex.join(["python", *sys.argv]), commit=arguments.commit),
            progress=lambda line: print(line, file=sys.stderr, flush=True), time_limit_s=arguments.time_limit,
        )  # fmt: skip
    except DovetailError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    noisy = sum(r.noisy for r in outcome.records)
    print(
        f"{len(outcome.records)} records ({noisy} too noisy), {len(outcome.skipped)} skipped, "
        f"{outcome.already} already there, {outcome.left} left"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
