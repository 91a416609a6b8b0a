"""Systolic array cycles against SCALE-Sim v3, and peak rates against data sheets."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial

from sim.baseline.checks.check import Check, against, group
from sim.baseline.published import fact
from sim.mapping.arrays import array_cycles
from sim.resources import data_dir

_DATAFLOWS = {"os": "output_stationary", "ws": "weight_stationary", "is": "input_stationary"}


def _cycles(row: dict[str, str]) -> float:
    m, n, k, rows, cols = (int(row[key]) for key in ("m", "n", "k", "rows", "cols"))
    return float(array_cycles(m, n, k, rows=rows, cols=cols, dataflow=_DATAFLOWS[row["dataflow"]]))


@group("scale-sim")
def scale_sim() -> Iterator[Check]:
    """Compute cycles of 33 GEMMs, exact: serial folds, exposed preload."""
    path = data_dir("baselines") / "published" / "scalesim-v3.csv"
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            size = f"{row['m']}x{row['n']}x{row['k']} on {row['rows']}x{row['cols']} {row['dataflow']}"
            yield Check(
                id=f"scale-sim.{size.replace(' on ', '.').replace(' ', '.')}",
                source="SCALE-Sim v3, compute cycles of a run",
                quantity=f"array cycles, {size}",
                unit="cycles",
                theirs=float(row["compute_cycles"]),
                tolerance=0.0,
                gate=True,
                compute=partial(_cycles, row),
            )


def _peak(chip: str, precision: str, *, ops_per_mac: int, scale: float) -> float | None:
    """Peak of a bundled chip's main unit from its YAML [scale]; None where the chip is not bundled."""
    from sim.baseline.checks.whole import hardware

    found = hardware(chip)
    if found is None:
        return None
    unit, instances = found.main_unit, 1
    for level in unit.hierarchy:
        instances *= getattr(level, "count", 1)
    array = unit.array
    per_cell = array.macs_per_cycle.get(precision)
    if per_cell is None:
        return None
    return instances * array.rows * array.cols * per_cell * unit.clock_hz * ops_per_mac / scale


@group("peak")
def peaks() -> Iterator[Check]:
    """Peak rates of bundled chips, from array side, instances and clock."""
    for named, chip, quantity, precision, ops, scale in (
        ("tpu-v1", "tpu-v1", "peak_int8", "int8", 2, 1e12),
        ("tesla-fsd-npu", "tesla-fsd-npu", "peak_int8", "int8", 2, 1e12),
        ("eyeriss-v1", "eyeriss", "peak", "int16", 1, 1e9),
        ("a100-sxm", "a100-sxm", "peak_bf16", "bf16", 2, 1e12),
        ("h100-sxm", "h100-sxm", "peak_bf16", "bf16", 2, 1e12),
    ):
        yield against(
            fact(named, quantity),
            partial(_peak, chip, precision, ops_per_mac=ops, scale=scale),
            id=f"peak.{chip}",
            tolerance=0.01,
            note="multiplies the file's array, instances, rate and clock: its entries against each other, no model",
        )
