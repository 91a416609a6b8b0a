"""Fit the waiting constants of a 16x16 Gemmini on measured rows, and score them on layers left out.

    python benchmarks/fit_gemmini.py --data FOLDER

FOLDER holds `gemmini_firesim/dev.csv` (default: the environment variable DOVETAIL_DATA). What is fitted, and
how, says `sim.baseline.waiting_fit`. Scores are printed in sample, leaving one layer out and, reported
only, for the machine's own tiler, cold.
"""

from __future__ import annotations

import argparse
import csv
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from sim.baseline.gemmini import constants_file
from sim.baseline.waiting_fit import constants, count_rows, fit, leave_layers_out
from sim.cost.waiting import load_waiting, waiting_cost


def score(label: str, predicted: np.ndarray, measured: np.ndarray) -> str:
    error = np.abs(predicted / measured - 1)
    return (
        f"{label}: rows {len(error)}, mean {error.mean():.4f}, median {np.median(error):.4f}, "
        f"p90 {np.percentile(error, 90):.4f}, within 10 % {(error <= 0.1).mean():.3f}, "
        f"Spearman {spearmanr(predicted, measured)[0]:.4f}, bias {(predicted / measured - 1).mean():+.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("DOVETAIL_DATA"), required=False)
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the data folder with --data or DOVETAIL_DATA")
    machine, _ = load_waiting(constants_file())
    with (Path(options.data) / "gemmini_firesim" / "dev.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    rows, own = count_rows(table, machine), count_rows(table, machine, own=True)
    vector, share = fit(rows, machine)
    best = constants(vector, share)
    for name, value in asdict(best).items():
        print(f"  {name}: {value:.4g}")
    print(score("in sample", waiting_cost(rows.counts[share], machine, best).cycles, rows.cycles))
    predicted, fitted = leave_layers_out(rows, machine)
    print(score(f"leaving one of {len(fitted)} layers out", predicted, rows.cycles))
    print("  spread over the refits:", ", ".join(f"{x:.3g}" for x in fitted.std(axis=0)))
    print(score("own tiler, cold (reported only)", waiting_cost(own.counts[share], machine, best).cycles, own.cycles))


if __name__ == "__main__":
    main()
