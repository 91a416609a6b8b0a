"""Fit the waiting constants of a 16x16 Gemmini on measured rows, and score them on layers left out.

    python benchmarks/fit_gemmini.py --data FOLDER

FOLDER holds `gemmini_firesim/dev.csv` (default: the environment variable DOVETAIL_DATA). The fit
minimises the mean absolute log ratio, plus 0.05 x its mean square, plus a pull of every constant
towards a round value of its physics (`ANCHORS`): with a third of the rows bound by memory and only
six by stores, the data alone pins some constants weakly. The usable share of the cache is taken from
a grid, because the counts depend on it. Scores are printed in sample, leaving one layer out
(everything refitted, the share included) and, reported only, for the machine's own tiler, cold.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.stats import spearmanr

from sim.baseline.gemmini import (
    MEASURED,
    MEASURED_OWN,
    RANKS,
    constants_file,
    own_tile_loops,
    tile_loops,
)
from sim.cost.waiting import (
    TileCounts,
    WaitingConstants,
    WaitingMachine,
    count_tiles,
    load_waiting,
    stack_counts,
    waiting_cost,
)
from sim.errors import CalibrationError

ANCHORS = {
    "pair_latency_cycles": 56.0,  # three passes of 16 rows (preload, rows in, columns out) and 8 of control
    "request_cycles": 6.0,  # about 100 cycles of a shared cache / 16 requests in flight
    "line_cycles": 20.0,  # about 320 cycles of DRAM behind two caches / 16 requests in flight
    "store_row_cycles": 4.0,  # about 64 cycles of a write and its answer / 16 writes in flight
    "exposed_share": 0.7,  # 1 would be wholly serial
    "overlap_leak": 0.05,  # 0 would be perfect overlap
}
"""Round values of the physics, estimated; the fit is pulled towards them."""
PULL = 0.05
"""Weight of the squared log distance from an anchor."""
SHARES = (0.5, 0.625, 0.75, 0.875, 1.0)
"""Ways of an eight-way cache that the layer may use."""


@dataclass(frozen=True)
class Rows:
    """Counts per cache share, and measured cycles."""

    counts: Mapping[float, TileCounts]
    cycles: np.ndarray

    def take(self, mask: np.ndarray) -> Rows:
        picked = {
            share: TileCounts(**{name: getattr(c, name)[mask] for name in c.__dataclass_fields__})
            for share, c in self.counts.items()
        }
        return Rows(counts=picked, cycles=self.cycles[mask])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def prepare(rows: Sequence[Mapping[str, str]], machine: WaitingMachine, *, own: bool = False) -> Rows:
    """Count every mapping once per cache share."""
    loops = [own_tile_loops(row) if own else tile_loops(row) for row in rows]
    return Rows(
        counts={
            share: stack_counts([count_tiles(one, machine, usable_cache_share=share, warm=not own) for one in loops])
            for share in SHARES
        },
        cycles=np.array([float(row[MEASURED_OWN if own else MEASURED]) for row in rows]),
    )


def constants(vector: np.ndarray, share: float) -> WaitingConstants:
    return WaitingConstants(**dict(zip(ANCHORS, np.exp(vector), strict=True)), usable_cache_share=share)


def fit(rows: Rows, machine: WaitingMachine, start: np.ndarray, shares=SHARES) -> tuple[np.ndarray, float]:
    """The best (log constants, share); Nelder-Mead per share, deterministic."""
    anchor = np.log(list(ANCHORS.values()))

    def loss(vector: np.ndarray, share: float) -> float:
        try:
            now = constants(vector, share)
        except CalibrationError:
            # out of the physical range
            return 1e3
        ratio = np.log(waiting_cost(rows.counts[share], machine, now).cycles / rows.cycles)
        return np.abs(ratio).mean() + 0.05 * (ratio**2).mean() + PULL * ((vector - anchor) ** 2).sum()

    runs = []
    for share in shares:
        found = minimize(
            loss, start, args=(share,), method="Nelder-Mead", options={"maxiter": 500, "xatol": 1e-3, "fatol": 1e-6}
        )
        runs.append((found.fun, found.x, share))
    _, vector, share = min(runs, key=lambda run: run[0])
    return vector, share


def score(label: str, predicted: np.ndarray, measured: np.ndarray) -> str:
    error = np.abs(predicted / measured - 1)
    return (
        f"{label}: rows {len(error)}, mean {error.mean():.4f}, median {np.median(error):.4f}, "
        f"p90 {np.percentile(error, 90):.4f}, within 10 % {(error <= 0.1).mean():.3f}, "
        f"Spearman {spearmanr(predicted, measured)[0]:.4f}, bias {(predicted / measured - 1).mean():+.4f}"
    )


def leave_layers_out(rows: Rows, layers: Sequence[tuple], machine: WaitingMachine, start: np.ndarray):
    """Predictions of each row by constants fitted without its layer, and those constants."""
    names = sorted(set(layers))
    index = np.array([names.index(layer) for layer in layers])
    predicted, fitted = np.zeros(len(layers)), []
    for one in range(len(names)):
        vector, share = fit(rows.take(index != one), machine, start)
        held = rows.take(index == one).counts[share]
        predicted[index == one] = waiting_cost(held, machine, constants(vector, share)).cycles
        fitted.append([*np.exp(vector), share])
    return predicted, np.array(fitted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("DOVETAIL_DATA"), required=False)
    options = parser.parse_args()
    if options.data is None:
        parser.error("name the data folder with --data or DOVETAIL_DATA")
    machine, _ = load_waiting(constants_file())
    table = read(Path(options.data) / "gemmini_firesim" / "dev.csv")
    layers = [tuple(row[key] for key in (*RANKS, "Hstride")) for row in table]
    rows, own = prepare(table, machine), prepare(table, machine, own=True)
    vector, share = fit(rows, machine, np.log(list(ANCHORS.values())))
    best = constants(vector, share)
    for name, value in asdict(best).items():
        print(f"  {name}: {value:.4g}")
    print(score("in sample", waiting_cost(rows.counts[share], machine, best).cycles, rows.cycles))
    predicted, fitted = leave_layers_out(rows, layers, machine, vector)
    print(score(f"leaving one of {len(set(layers))} layers out", predicted, rows.cycles))
    print("  spread over the refits:", ", ".join(f"{x:.3g}" for x in fitted.std(axis=0)))
    print(score("own tiler, cold (reported only)", waiting_cost(own.counts[share], machine, best).cycles, own.cycles))


if __name__ == "__main__":
    main()
