"""Cycles of a systolic array against SCALE-Sim v3 (Raj et al., ISPASS 2025): closed forms and runs.

SCALE-Sim's report is one cycle lower per layer (it gives the index of the last cycle); the column of
`baselines/published/scalesim-v3.csv` has the one in it.
"""

import csv
import math
import random
from pathlib import Path

import numpy as np
import pytest

import sim
from sim.mapping.arrays import array_cycles

ROWS = Path(__file__).resolve().parents[2] / "baselines" / "published" / "scalesim-v3.csv"
NAMES = {"os": "output_stationary", "ws": "weight_stationary", "is": "input_stationary"}
HOLDS = {"os": ("m", "n", "k", 1), "ws": ("k", "n", "m", 2), "is": ("k", "m", "n", 2)}
"""What rows and columns hold, what streams, and how often the rows are crossed (held operands load first)."""


def closed_form(shape, rows, cols, dataflow):
    """Folds x (stream + crossings x rows + cols - 2), every fold serial."""
    down, across, stream, crossings = HOLDS[dataflow]
    folds = math.ceil(shape[down] / rows) * math.ceil(shape[across] / cols)
    return folds * (shape[stream] + crossings * rows + cols - 2)


def test_random_gemms():
    """10,000 random GEMMs on random arrays, three dataflows each."""
    rng = random.Random(1)
    extent, side = lambda: round(10 ** rng.uniform(0, 4.3)), lambda: rng.randint(1, 256)
    draws = [(extent(), extent(), extent(), side(), side()) for _ in range(10_000)]
    m, n, k, rows, cols = map(list, zip(*draws, strict=True))
    for short, dataflow in NAMES.items():
        ours = array_cycles(*map(np.array, (m, n, k)), rows=np.array(rows), cols=np.array(cols), dataflow=dataflow)
        theirs = [closed_form({"m": a, "n": b, "k": c}, r, s, short) for a, b, c, r, s in draws]
        np.testing.assert_array_equal(ours, theirs)


def published():
    with ROWS.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", published(), ids=lambda r: "x".join(list(r.values())[:6]))
def test_estimate_gives_the_published_cycles(row):
    """`estimate` with endless bandwidth and SRAM, exposed preload, serial folds, one dataflow fixed."""
    chip = sim.load_hardware(
        "systolic",
        {
            "array.rows": row["rows"], "array.cols": row["cols"], "array.dataflow": NAMES[row["dataflow"]],
            "array.preload": "exposed", "array.folds": "serial", "SRAM.capacity": "1e9 GiB",
            "SRAM.bandwidth": "1e12 GB/s", "DRAM.bandwidth": "1e12 GB/s",
        },
    )  # fmt: skip
    graph = sim.gemm(int(row["m"]), int(row["n"]), int(row["k"]), dtype="int8")
    ladder = sim.estimate(graph, chip, map_space="fixed_dataflow", calibration="none").ops[0].cycles_ladder
    assert ladder["compute"] == int(row["compute_cycles"])
