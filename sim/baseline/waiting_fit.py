"""Fit waiting constants on measured rows, and predict layers that the fit has not seen.

The fit minimises the mean relative error, which is what is reported, plus a pull of every constant towards a
round value of its physics (`ANCHORS`): with a third of the rows bound by memory and only six by stores, the
data alone pins some constants weakly. The usable share of the cache is taken from a grid,
because the counts depend on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from sim.baseline.gemmini import MEASURED, MEASURED_OWN, own_tile_loops, tile_loops
from sim.cost.waiting import (
    TileCounts,
    WaitingConstants,
    WaitingMachine,
    count_tiles,
    stack_counts,
    waiting_cost,
)
from sim.cost.waiting.tiles import RANKS
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
START = np.log(list(ANCHORS.values()))


@dataclass(frozen=True, slots=True)
class CountedRows:
    """Counts per cache share, measured cycles, and the layer of each row."""

    counts: Mapping[float, TileCounts]
    cycles: np.ndarray
    layers: np.ndarray

    def take(self, mask: np.ndarray) -> CountedRows:
        """The rows where `mask` is true."""
        picked = {
            share: TileCounts(**{name: getattr(c, name)[mask] for name in c.__dataclass_fields__})
            for share, c in self.counts.items()
        }
        return CountedRows(counts=picked, cycles=self.cycles[mask], layers=self.layers[mask])


def count_rows(rows: Sequence[Mapping[str, str]], machine: WaitingMachine, *, own: bool = False) -> CountedRows:
    """Count every mapping once per cache share; `own`: of the machine's own tiler, cold."""
    loops = [own_tile_loops(row) if own else tile_loops(row) for row in rows]
    names = [tuple(row[key] for key in (*RANKS, "Hstride")) for row in rows]
    return CountedRows(
        counts={
            share: stack_counts([count_tiles(one, machine, usable_cache_share=share, warm=not own) for one in loops])
            for share in SHARES
        },
        cycles=np.array([float(row[MEASURED_OWN if own else MEASURED]) for row in rows]),
        layers=np.array([sorted(set(names)).index(name) for name in names]),
    )


def constants(vector: np.ndarray, share: float) -> WaitingConstants:
    """From logarithms in the order of `ANCHORS`, and the usable share of the cache."""
    return WaitingConstants(**dict(zip(ANCHORS, np.exp(vector), strict=True)), usable_cache_share=share)


def fit(rows: CountedRows, machine: WaitingMachine) -> tuple[np.ndarray, float]:
    """The best (log constants, share); Nelder-Mead from the anchors per share, deterministic."""

    def loss(vector: np.ndarray, share: float) -> float:
        try:
            now = constants(vector, share)
        except CalibrationError:
            # out of the physical range
            return 1e3
        error = waiting_cost(rows.counts[share], machine, now).cycles / rows.cycles - 1
        return float(np.abs(error).mean() + PULL * ((vector - START) ** 2).sum())

    runs = []
    for share in SHARES:
        found = minimize(
            loss, START, args=(share,), method="Nelder-Mead", options={"maxiter": 500, "xatol": 1e-3, "fatol": 1e-6}
        )
        runs.append((found.fun, found.x, share))
    _, vector, share = min(runs, key=lambda run: run[0])
    return vector, share


def leave_layers_out(rows: CountedRows, machine: WaitingMachine) -> tuple[np.ndarray, np.ndarray]:
    """Cycles of each row by constants fitted without its layer (everything again, the share included), and those
    constants by layer."""
    predicted, fitted = np.zeros(len(rows.cycles)), []
    for layer in np.unique(rows.layers):
        held = rows.layers == layer
        vector, share = fit(rows.take(~held), machine)
        predicted[held] = waiting_cost(rows.take(held).counts[share], machine, constants(vector, share)).cycles
        fitted.append([*np.exp(vector), share])
    return predicted, np.array(fitted)
