"""Baseline records as rows of work that constants are fitted to, whatever the device: a CPU, or a GPU run op by op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from sim.baseline.graphs import OURS
from sim.baseline.record import BaselineRecord, Mode
from sim.cost.gpu.constants import Constants
from sim.hardware.chip import Chip, Costing
from sim.workload.graph import Graph

CUSTOM_KERNELS = frozenset({*OURS, "gemm_2to4"})
"""Measured ops that are kernels of our own, or of a library that no network calls: the tracer sees no ATen op in them
to fit."""
SIZE_KNOBS = frozenset({"m", "batch", "rows", "length", "context"})
"""Knobs that do not tell families of shapes apart."""

GraphOf = Callable[[BaselineRecord], Graph]


class Times(Protocol):
    """Seconds of each row: of the host or of gaps, and in all."""

    @property
    def host_s(self) -> np.ndarray: ...
    @property
    def total_s(self) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Library:
    """A framework with its libraries on a kind of device: constants, and how they are fitted."""

    costing: Costing
    constants: type[Constants]
    classes: tuple[str, ...]
    modes: frozenset[Mode]
    """Modes of the records that it can be fitted to."""
    skipped: frozenset[str] = frozenset()
    """Ops that are measured, and run by no network as they are."""
    tabulate: Callable[[Sequence[BaselineRecord], Chip, GraphOf], Table]
    held: Mapping[str, float] = field(default_factory=dict)
    """Constants that no fit moves, with their value."""
    start: Mapping[str, float] = field(default_factory=dict)
    """Where a fit starts, if not in the geometric middle of a constant's range."""
    fallback: Mapping[str, str] = field(default_factory=dict)
    """What a constant without rows takes its value from."""
    scaling: Mapping[str, float] = field(default_factory=dict)
    """Constants that show only where several thread counts were measured, with a value at which they show."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Records as ops of one machine: `owner` maps each row to its record, `count` says how many equal ops it is."""

    records: tuple[BaselineRecord, ...]
    owner: np.ndarray
    count: np.ndarray
    kind: np.ndarray
    """Index into `classes`."""
    classes: tuple[str, ...]
    weight: np.ndarray
    """What tells the main op of a record: MACs, or seconds."""
    times: Callable[[Any], Times]
    """constants -> time of one op of each row"""

    @property
    def measured_s(self) -> np.ndarray:
        return np.array([float(r.median_s or np.nan) for r in self.records])

    def predict_s(self, constants: Constants) -> np.ndarray:
        """Estimated time of each record."""
        total = self.times(constants).total_s * self.count
        return np.bincount(self.owner, weights=total, minlength=len(self.records))

    def labels(self) -> np.ndarray:
        """Per record the class of its main op, or of its first."""
        names = []
        for record in range(len(self.records)):
            at = np.flatnonzero(self.owner == record)
            names.append(self.classes[int(self.kind[at[np.argmax((self.weight * self.count)[at])]])])
        return np.array(names)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Further measured sums of rows of a table: the kernels of a network by kind, from a profile."""

    models: np.ndarray
    measured_s: np.ndarray
    predict: Callable[[Any], np.ndarray]

    def predict_s(self, constants: Constants) -> np.ndarray:
        return self.predict(constants)


def stack_rows(blocks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, owner, count): the distinct rows of each block, which block they are of, how often they are there."""
    found = [np.unique(block, axis=0, return_counts=True) for block in blocks]
    owner = np.repeat(np.arange(len(found)), [len(rows) for rows, _ in found])
    return np.concatenate([rows for rows, _ in found]), owner, np.concatenate([n for _, n in found]).astype(float)


def family(record: BaselineRecord) -> tuple:
    """What records of one shape family share: op, and knobs other than sizes of the batch."""
    return (record.target, tuple(sorted((k, str(v)) for k, v in record.knobs.items() if k not in SIZE_KNOBS)))
