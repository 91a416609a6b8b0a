"""Work of many ops as arrays: one column a field, made from rows, and back and forth as one table of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

W = TypeVar("W")


def from_rows(
    family: type[W], rows: Sequence[Mapping[str, float]], *, index: Sequence[str], missing: Mapping[str, float]
) -> W:
    """`family` of arrays from one mapping per op; what a row leaves out is its value in `missing`, or 0. Columns of
    `index` are whole numbers."""
    names = [f.name for f in fields(family)]  # type: ignore[arg-type]
    table = [[row.get(name, missing.get(name, 0.0)) for name in names] for row in rows]
    return from_table(family, np.array(table, dtype=float).reshape(len(rows), len(names)), index=index)


def from_table(family: type[W], table: np.ndarray, *, index: Sequence[str]) -> W:
    """`family` from (ops, fields)."""
    names = [f.name for f in fields(family)]  # type: ignore[arg-type]
    return family(**{n: table[:, i].astype(int if n in index else float) for i, n in enumerate(names)})


def to_table(work: Any) -> np.ndarray:
    """(ops, fields): the inverse of `from_table`."""
    return np.stack([getattr(work, f.name).astype(float) for f in fields(work)], axis=1)
