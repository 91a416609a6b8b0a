"""`validate`: every check in one table, or a file of measured rows scored."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from sim.baseline.checks import CheckResult, all_checks
from sim.baseline.gemmini import COLUMNS, MEASURED, predict_rows
from sim.errors import ResultError

SCHEMA = "dovetail.validate/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """All rows of the table."""

    results: tuple[CheckResult, ...]

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """Rows whose gate does not hold; the command then returns 1."""
        return tuple(row for row in self.results if row.verdict == "fail")

    @property
    def summary(self) -> dict[str, int]:
        """Rows per verdict, and rows for which we have no number."""
        counts = {verdict: sum(row.verdict == verdict for row in self.results) for verdict in ("pass", "fail", "info")}
        return {"checks": len(self.results), **counts, "without_number": sum(r.ours is None for r in self.results)}

    def to_dict(self, version: str) -> dict[str, object]:
        """The `dovetail.validate/1` document."""
        rows = [row.to_dict() for row in self.results]
        return {"schema": SCHEMA, "version": version, "checks": rows, "summary": self.summary}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far predictions are from measured rows; errors are fractions of the measured value."""

    rows: int
    mean_error: float
    median_error: float
    p90_error: float
    bias: float
    spearman: float | None
    within_10_percent: float

    def to_dict(self, version: str) -> dict[str, object]:
        """The `dovetail.validate/1` document of a scored file."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {"schema": SCHEMA, "version": version, **values}


def score(predicted: np.ndarray, measured: np.ndarray) -> Score:
    """Compare two arrays of positive numbers.

    Raises: ResultError: no rows, different lengths, a value that is not positive and finite.
    """
    if predicted.shape != measured.shape or not len(measured):
        raise ResultError(f"cannot score {len(predicted)} predictions against {len(measured)} measured rows")
    both = np.concatenate([predicted, measured])
    if not np.isfinite(both).all() or (both <= 0).any():
        raise ResultError("cannot score: a prediction or a measured value is not a positive number")
    ratio = predicted / measured
    error = np.abs(ratio - 1)
    rank = spearmanr(predicted, measured)[0] if len(measured) > 2 else None
    return Score(
        rows=len(error),
        mean_error=float(error.mean()),
        median_error=float(np.median(error)),
        p90_error=float(np.percentile(error, 90)),
        bias=float((ratio - 1).mean()),
        spearman=None if rank is None or np.isnan(rank) else float(rank),
        within_10_percent=float((error <= 0.1).mean()),
    )


Rows = Sequence[Mapping[str, str]]
RowScorer = Callable[[Rows], Score]


def score_gemmini(rows: Rows) -> Score:
    """Score Gemmini rows (columns of `sim.baseline.gemmini`) with the constants that ship."""
    return score(predict_rows(rows), np.array([_positive(row, MEASURED) for row in rows]))


def _positive(row: Mapping[str, str], column: str) -> float:
    try:
        return float(row[column])
    except (KeyError, ValueError) as error:
        raise ResultError(f"row lacks a number in column {column}: {dict(row)}") from error


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file.

    Raises: ResultError: not there, or without rows.
    """
    if not path.is_file():
        raise ResultError(f"{path}: no such file; expected a CSV of measured rows")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ResultError(f"{path}: no rows")
    return rows


def is_gemmini(columns: Sequence[str]) -> bool:
    """Whether a file's columns are those of Gemmini rows."""
    return {*COLUMNS, MEASURED} <= set(columns)


def validate(only: str | None = None) -> Validation:
    """Run every check; `only` names one check or one group.

    Raises: ResultError: `only` names neither.
    """
    return Validation(results=tuple(check.run() for check in all_checks(only)))
