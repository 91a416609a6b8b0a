"""A sweep's table as columns of plain values, and as a file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sim.documents import count, plain
from sim.errors import ConfigError, why

ENDINGS = (".csv", ".parquet")
COUNTS = ("macs", "effective_macs", "vector_ops", "flops")
"""Columns of whole numbers, which a table holds as floats because rows without an answer are nan."""


class Table(Protocol):
    """What `sim.sweep` returns: named columns of one length."""

    @property
    def columns(self) -> Sequence[str]: ...

    def __getitem__(self, name: str) -> Any: ...


def columns_of(names: Sequence[str], tables: Sequence[Table]) -> dict[str, list[Any]]:
    """The rows of several chips below each other; the first column names the chip as it was asked for."""
    found: dict[str, list[Any]] = {"hardware": []}
    for name, table in zip(names, tables, strict=True):
        columns = {column: list(plain(table[column])) for column in table.columns}
        columns |= {column: [count(n) for n in columns[column]] for column in COUNTS if column in columns}
        rows = len(next(iter(columns.values()), []))
        before = len(found["hardware"])
        found["hardware"] += [name] * rows
        for column, values in columns.items():
            if column != "hardware":
                found.setdefault(column, [None] * before).extend(values)
        for values in found.values():
            values.extend([None] * (before + rows - len(values)))
    return found


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns as .csv, or as .parquet where pyarrow is installed.

    Raises: ConfigError: another ending, no pyarrow, a place that cannot be written.
    """
    try:
        if path.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(zip(*columns.values(), strict=True))
        elif path.suffix == ".parquet":
            _write_parquet(path, columns)
        else:
            raise ConfigError(f"-o {path}: expected a file ending in {' or '.join(ENDINGS)}")
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {why(error)}") from error


def _write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    if find_spec("pyarrow") is None:
        raise ConfigError(
            f'-o {path}: Parquet needs pyarrow: pip install "dovetail-sim[parquet]"; a .csv file needs nothing'
        )
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
