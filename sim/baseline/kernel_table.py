"""Tables of measured rows as files: read into columns, and refused at the first value that cannot be.

A layout says per column what its values are (`Column`), and what the values of one row owe each
other (`Law`). All rows are judged at once; the error names the file, the line and the value.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.errors import CalibrationError

Rows = Mapping[str, np.ndarray]
"""column -> values (float where every value is a number, else text)"""

LARGEST = 2.0**31 - 1
"""No size of a kernel is beyond it: what the libraries index with."""


@dataclass(frozen=True, slots=True)
class Column:
    """What the values of one column are."""

    expected: str
    """In words, as an error gives it."""
    accepts: Callable[[np.ndarray], np.ndarray]
    """values -> true where allowed; where a number is wanted, text comes as nan"""
    text: bool = False


@dataclass(frozen=True, slots=True)
class Law:
    """What the values of one row owe each other, in columns whose values are allowed one by one."""

    columns: tuple[str, ...]
    expected: str
    holds: Callable[[Rows], np.ndarray]


def whole(least: int) -> Column:
    """Whole numbers from `least` on."""
    return Column(
        f"a whole number from {least} to {LARGEST:.0f}",
        lambda v: (v >= least) & (v <= LARGEST) & (v == np.floor(v)),
    )


POSITIVE = Column("a number above 0", lambda v: (v > 0) & np.isfinite(v))
"""A measurement."""


def one_of(names: Iterable[str]) -> Column:
    """Text: one of these names."""
    known = list(names)
    return Column("one of " + ", ".join(known), lambda v: np.isin(v, known), text=True)


def check_rows(path: str | Path, rows: Rows, columns: Mapping[str, Column], laws: Sequence[Law] = ()) -> None:
    """Judge every row. Raises CalibrationError: the first line with a value that its column or a law does not allow."""
    for name, column in columns.items():
        values = rows[name].astype(str) if column.text else _numbers(rows[name])
        _refuse(path, rows, (name,), column.accepts(values), column.expected)
    for law in laws:
        _refuse(path, rows, law.columns, law.holds(rows), law.expected)


def _refuse(path: str | Path, rows: Rows, names: Sequence[str], good: np.ndarray, expected: str) -> None:
    bad = np.flatnonzero(~good)
    if bad.size:
        values = " and ".join(f"{name} is {_shown(rows[name][bad[0]])}" for name in names)
        more = f" ({bad.size} such lines)" if bad.size > 1 else ""
        line = _lines(path)[1 + bad[0]][0]
        raise CalibrationError(f"{path}: line {line}: {values}, expected {expected}{more}")


def _numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return values
    found = np.full(len(values), np.nan)
    for index, value in enumerate(values):
        with suppress(ValueError):
            found[index] = float(value)
    return found


def _shown(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else f'"{value}"'


def _lines(path: str | Path) -> list[tuple[int, list[str]]]:
    """(number of the line, its values without the blanks around them) of every line but blank ones."""
    content = Path(path).read_bytes()
    try:
        table = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        lines = [(table.line_num, [value.strip() for value in row]) for row in table]
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CalibrationError(
            f"{path}: line {line}: byte {content[error.start]:#04x} is not UTF-8, expected a CSV saved as UTF-8"
        ) from error
    except csv.Error as error:
        raise CalibrationError(f"{path}: not a CSV: {error}") from error
    return [(number, row) for number, row in lines if row not in ([], [""])]


def read_rows(path: str | Path) -> Rows:
    """Read a CSV into columns. Raises CalibrationError: no rows, no such text, or a row of another length."""
    table = _lines(path)
    if len(table) < 2:
        raise CalibrationError(f"{path}: no rows")
    (first, header), rows = table[0], table[1:]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise CalibrationError(f"{path}: line {first}: column {sorted(twice)[0]} stands twice")
    for number, row in rows:
        if len(row) != len(header):
            raise CalibrationError(f"{path}: line {number} has {len(row)} values, expected {len(header)}")
    columns = {}
    for name, values in zip(header, zip(*(row for _, row in rows), strict=True), strict=True):
        try:
            columns[name] = np.asarray(values, dtype=float)
        except ValueError:
            columns[name] = np.asarray(values)
    return columns
