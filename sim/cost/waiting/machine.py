"""What a waiting model must know of a machine: its structure, from documents, and few constants, fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from sim.errors import CalibrationError, nearest

WAITING_SCHEMA = "dovetail.waiting/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingMachine:
    """Structure of an array with decoupled load, execute and store engines. Elements are one byte."""

    array_rows: int
    """Rows of the array: the reduction of one block, and the rows of a weight preload [elements]."""
    array_cols: int
    """Columns of the array: the output channels of one block [elements]."""
    chunk_rows: int
    """Most activation rows streamed by one instruction pair; a chunk never spans two output rows."""
    min_rows: int
    """Rows that a pair occupies the array for at least [cycles]."""
    window_pairs: int
    """Preload + compute pairs that the reservation window holds."""
    request_bytes: int
    """Most bytes that one load request carries: one row of a tile, cut to this."""
    store_bytes: int
    """Bytes of one store: the output channels of one block at one pixel."""
    line_bytes: int
    """Cache line."""
    cache_bytes: int
    """Last cache in front of DRAM, as loads see it."""
    store_cache_bytes: int
    """Cache that absorbs stores: an output above it is written to DRAM."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) < 1:
                raise CalibrationError(f"waiting machine: {item.name} is {getattr(self, item.name)}, expected >= 1")
        if self.window_pairs < 2:
            raise CalibrationError("waiting machine: window_pairs is 1, expected at least 2")


RANGES: Mapping[str, tuple[float, float]] = {
    "pair_latency_cycles": (16.0, 256.0),
    "request_cycles": (1.0, 32.0),
    "line_cycles": (4.0, 128.0),
    "store_row_cycles": (1.0, 16.0),
    "exposed_share": (0.0, 1.0),
    "overlap_leak": (0.0, 0.5),
    "usable_cache_share": (0.25, 1.0),
}
"""Physical range of each constant, in its own unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingConstants:
    """Seven constants with a physical meaning; ranges in `RANGES`."""

    pair_latency_cycles: float
    """Life of one pair in the reservation window, without the rows that it streams [cycles]."""
    request_cycles: float
    """Interval of load requests that a cache serves: latency / requests in flight [cycles]."""
    line_cycles: float
    """Interval of lines that DRAM serves: latency / requests in flight, or line / bandwidth [cycles].
    A store that misses costs two: the line is fetched, and written back later."""
    store_row_cycles: float
    """Interval of stores that a cache absorbs: write latency / writes in flight [cycles]."""
    exposed_share: float
    """Share of the first load and the last store that nothing hides: 1 is fully serial."""
    overlap_leak: float
    """Share of the hidden work that delays the binding engine all the same: 0 is perfect overlap."""
    usable_cache_share: float
    """Share of the last cache left to the layer by set imbalance and by everything else."""

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise CalibrationError(f"waiting constants: {name} is {value:g}, expected {low:g} to {high:g}")


T = TypeVar("T", WaitingMachine, WaitingConstants)


def _take(kind: type[T], section: Mapping[str, Any], where: str) -> T:
    known = [item.name for item in fields(kind)]
    for key in section:
        if key not in known:
            raise CalibrationError(f'{where}: unknown key "{key}".{nearest(key, known)}')
    missing = [key for key in known if key not in section]
    if missing:
        raise CalibrationError(f"{where}: missing {', '.join(missing)}")
    return kind(**section)


def load_waiting(path: Path) -> tuple[WaitingMachine, WaitingConstants]:
    """Read a machine and its constants from YAML (`schema: dovetail.waiting/1`, `sources`, `machine`, `constants`).

    Raises: CalibrationError: another schema, an unknown or missing key, a constant out of its range, no sources.
    """
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("schema") != WAITING_SCHEMA:
        raise CalibrationError(f'{path}: schema is not "{WAITING_SCHEMA}"')
    for key in ("sources", "machine", "constants"):
        if not document.get(key):
            raise CalibrationError(f"{path}: missing section {key}")
    return (
        _take(WaitingMachine, document["machine"], f"{path}: machine"),
        _take(WaitingConstants, document["constants"], f"{path}: constants"),
    )


def waiting_from_options(options: Mapping[str, object]) -> tuple[WaitingMachine, WaitingConstants]:
    """Machine and constants from a unit's options in a chip file, named like the fields (`window_pairs: 8`).

    Raises: CalibrationError: an option that is neither's field, a missing one, a constant out of its range.
    """
    of_machine, of_constants = ([item.name for item in fields(kind)] for kind in (WaitingMachine, WaitingConstants))
    known = of_machine + of_constants
    for key in options:
        if key not in known:
            raise CalibrationError(f'waiting options: unknown option "{key}".{nearest(key, known)}')

    def given(names: Sequence[str]) -> dict[str, object]:
        return {key: options[key] for key in names if key in options}

    return (
        _take(WaitingMachine, given(of_machine), "waiting options"),
        _take(WaitingConstants, given(of_constants), "waiting options"),
    )
