"""The waiting model against measured Gemmini rows, where the data folder is present."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from sim.baseline.checks.check import Check, Rule, group
from sim.baseline.gemmini import MEASURED, constants_file, cost_rows
from sim.cost.waiting import load_waiting

LEFT_OUT_NOTE = (
    "constants fitted anew without the layer; the structure and the values that the fit is pulled to were chosen with "
    "all layers in sight"
)
SOURCE = "ucb-bar/dosa a7a32393, FireSim cycles (rows not part of the package)"


def data_folder() -> Path | None:
    """Measured rows that are not part of the package: the folder that the environment variable DOVETAIL_DATA names."""
    named = os.environ.get("DOVETAIL_DATA")
    return Path(named) if named and Path(named).is_dir() else None


@cache
def _rows() -> list[dict[str, str]] | None:
    folder = data_folder()
    path = folder / "gemmini_firesim" / "dev.csv" if folder else None
    if path is None or not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@cache
def _in_sample() -> np.ndarray | None:
    """Cycles by the constants that ship."""
    rows = _rows()
    return None if rows is None else cost_rows(rows).cycles


@cache
def _left_out() -> np.ndarray | None:
    """Cycles of each layer by constants fitted without it; takes some seconds."""
    from sim.baseline.waiting_fit import count_rows, leave_layers_out

    rows = _rows()
    if rows is None:
        return None
    machine, _ = load_waiting(constants_file())
    return leave_layers_out(count_rows(rows, machine), machine)[0]


Statistic = Callable[[np.ndarray, np.ndarray], float]


def _measure(predict: Callable[[], np.ndarray | None], read: Statistic) -> float | None:
    rows, predicted = _rows(), predict()
    if rows is None or predicted is None:
        return None
    return float(read(predicted, np.array([float(row[MEASURED]) for row in rows])))


def _error(p: np.ndarray, m: np.ndarray) -> np.ndarray:
    return np.abs(p / m - 1)


TARGETS: tuple[tuple[str, float, Rule, Statistic], ...] = (
    ("mean-error", 0.07, Rule.AT_MOST, lambda p, m: _error(p, m).mean()),
    ("median-error", 0.05, Rule.AT_MOST, lambda p, m: np.median(_error(p, m))),
    ("p90-error", 0.19, Rule.AT_MOST, lambda p, m: np.percentile(_error(p, m), 90)),
    ("within-10-percent", 0.70, Rule.AT_LEAST, lambda p, m: (_error(p, m) <= 0.1).mean()),
    ("spearman", 0.985, Rule.AT_LEAST, lambda p, m: spearmanr(p, m)[0]),
)


@group("gemmini")
def gemmini() -> Iterator[Check]:
    """With each layer left out of the fit that predicts it, in sample with the constants that ship, and a bound."""
    row = partial(Check, source=SOURCE, tolerance=0.0, gate=True, needs_data=True)
    for part, words, predict, note in (
        ("left-out.", "layers left out, ", _left_out, LEFT_OUT_NOTE),
        ("", "", _in_sample, "in sample"),
    ):
        for label, target, rule, read in TARGETS:
            yield row(
                id=f"gemmini.{part}{label}",
                quantity=f"Gemmini RTL, waiting model, {words}{label}",
                unit="fraction",
                theirs=target,
                compute=partial(_measure, predict, read),
                rule=rule,
                note=f"theirs is the target; {note}",
            )
    yield row(
        id="gemmini.array-bound",
        quantity="Gemmini RTL, nominal array cycles over measured, largest",
        unit="ratio",
        theirs=1.0,
        compute=partial(_measure, _array_cycles, lambda p, m: (p / m).max()),
        rule=Rule.AT_MOST,
    )


def _array_cycles() -> np.ndarray | None:
    """The array alone, nothing fitted."""
    rows = _rows()
    return None if rows is None else cost_rows(rows).terms["array"]
