"""First arguments of the figures: what belongs there, said where something else is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

from sim.cost.roofline import Roofline
from sim.errors import ConfigError, expect, listed, nearest, shown
from sim.results import Estimate

ESTIMATE = "an estimate, as sim.estimate gives it"


def first(value: object, kind: type | tuple[type, ...], due: str, *, of: str) -> None:
    """Refuse a first argument of another kind. Raises: ConfigError."""
    expect(value, kind, due, where=f"sim.plot.{of}: first argument")


def estimate(value: object, *, of: str) -> None:
    """Raises: ConfigError: no estimate."""
    first(value, Estimate, ESTIMATE, of=of)


def bound_or_estimate(value: object, *, of: str) -> None:
    """Raises: ConfigError: neither an estimate nor a roofline."""
    first(value, (Estimate, Roofline), "an estimate or a roofline, as sim.estimate and sim.roofline give them", of=of)


def several(values: object, *, of: str) -> tuple:
    """A list of results that is not empty. Raises: ConfigError."""
    return listed(values, where=f"sim.plot.{of}: first argument", such_as="[estimate, other_estimate]")


def columns(table: Any, names: Sequence[str], *, of: str) -> None:
    """Refuse what is no table of columns, and a table without these. Raises: ConfigError."""
    known = getattr(table, "columns", None)
    known = table if known is None and isinstance(table, Mapping) else known
    if not isinstance(known, Iterable) or isinstance(table, str):
        raise ConfigError(
            f"sim.plot.{of}: first argument: expected a table of columns, as sim.sweep gives it, got {shown(table)}"
        )
    there = [str(name) for name in known]
    for name in names:
        if name not in there:
            raise ConfigError(
                f"sim.plot.{of}: the table has no column {shown(name)}: expected one of {', '.join(there)}."
                f"{nearest(name, there)}"
            )


def pairs(value: object, *, of: str) -> None:
    """Refuse what is no map of pairs of positive times. Raises: ConfigError."""
    due = 'a map from name to (measured, estimated) seconds, such as {"gemm": (1.1e-3, 1.0e-3)}'
    first(value, Mapping, due, of=of)
    assert isinstance(value, Mapping)
    for name, pair in value.items():
        found = tuple(pair) if isinstance(pair, Iterable) and not isinstance(pair, str) else ()
        if len(found) != 2 or not all(isinstance(one, float | int | np.number) and 0 < one < inf for one in found):
            raise ConfigError(f"sim.plot.{of}: {name}: expected two positive times in seconds, got {pair!r:.60}")
    if not value:
        raise ConfigError(f"sim.plot.{of}: first argument: expected {due}, got an empty one")


def checks(value: object, *, of: str) -> None:
    """Refuse what is no document of checks. Raises: ConfigError."""
    if not isinstance(value, Mapping) or not isinstance(value.get("checks"), list):
        raise ConfigError(
            f"sim.plot.{of}: first argument: expected a dovetail.validate/1 document with its checks, as "
            f"`dovetail validate --json` prints it or `sim.validate().to_dict(sim.__version__)`, got {shown(value)}"
        )
