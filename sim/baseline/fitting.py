"""Robust least squares on a device's constants: log(estimated / measured) over the logs of the constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.optimize import least_squares

from sim.baseline.table import Library, Sums, Table, family
from sim.cost.gpu.constants import Constants

ROBUST_SCALE = 0.1
"""Log error at which the loss turns from square to linear."""
NETWORK_WEIGHT = 1.5
"""A whole network counts as this many ops: it is what the constants are for."""
FOLDS = 5
"""Parts into which the families of shapes are split; each is predicted from the others."""
PRIOR = 0.02
"""Pull to the geometric middle of a constant's range, per length of the range, so that nothing wanders on few rows."""
SUM_WEIGHT = 0.7
"""Kernels of one kind in one network count as this many ops."""
MAX_EVALUATIONS = 60
PROBE = 1.5
"""A constant is fitted where changing it by this factor moves some row by more than PROBE_EFFECT."""
PROBE_EFFECT = 1e-3


Part = tuple[Table | Sums, np.ndarray, float]
"""Rows to fit: a table, which of its records, their weight."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Rows to fit, and the constants that they fit."""

    parts: tuple[Part, ...]
    names: tuple[str, ...]

    def solve(self, start: Constants) -> Constants:
        """The constants of `names` that fit best; the others as in `start`."""
        ranges = _ranges(type(start))
        low, high = (np.log([ranges[name][end] for name in self.names]) for end in (0, 1))
        length = high - low

        def constants(x: np.ndarray) -> Constants:
            return replace(start, **{name: float(np.exp(v)) for name, v in zip(self.names, x, strict=True)})

        def residual(x: np.ndarray) -> np.ndarray:
            found = constants(x)
            rows = [
                weight * np.log(table.predict_s(found)[use] / table.measured_s[use])
                for table, use, weight in self.parts
            ]
            return np.concatenate([*rows, PRIOR * (x - (low + high) / 2) / length])

        first = np.clip(np.log([getattr(start, n) for n in self.names]), low + 1e-3 * length, high - 1e-3 * length)
        found = least_squares(
            residual, first, bounds=(low, high), loss="soft_l1", f_scale=ROBUST_SCALE, max_nfev=MAX_EVALUATIONS,
            x_scale=length,
        )  # fmt: skip
        return constants(found.x)


def _ranges(family: type[Constants]) -> dict[str, tuple[float, float]]:
    return {f.name: (f.metadata["low"], f.metadata["high"]) for f in fields(family)}


def middle(library: Library) -> Constants:
    """Geometric middle of every range, or what the library states: where a fit starts."""
    kept = dict(library.held) | dict(library.start)
    ranges = _ranges(library.constants)
    return library.constants(**{n: kept.get(n, math.sqrt(low * high)) for n, (low, high) in ranges.items()})


def active(library: Library, parts: Sequence[Part]) -> tuple[str, ...]:
    """Constants that the rows depend on. Thread scaling shows only where several thread counts were measured."""
    start = middle(library)
    tables = [table for table, _, _ in parts if isinstance(table, Table)]
    counts = {r.threads for table in tables for r in table.records}
    if len(counts) > 1:
        start = replace(start, **library.scaling)
    base = [table.predict_s(start)[use] for table, use, _ in parts]
    names = []
    for name in _ranges(library.constants):
        if name in library.held or (name in library.scaling and len(counts) < 2):
            continue
        changed = replace(start, **{name: getattr(start, name) / PROBE})
        moved = [
            np.max(np.abs(table.predict_s(changed)[use] / b - 1))
            for (table, use, _), b in zip(parts, base, strict=True)
        ]
        names += [name] if max(moved) > PROBE_EFFECT else []
    return tuple(names)


def fit_rows(library: Library, parts: tuple[Part, ...], start: Constants) -> Constants:
    """The constants that these rows give, those that none of them shows included."""
    names = active(library, parts)
    return unseen(library, Fit(parts=parts, names=names).solve(start), names)


def unseen(library: Library, constants: Constants, names: Sequence[str]) -> Constants:
    """Constants without rows: a related class's efficiency, or the data sheet's value."""
    for f in fields(library.constants):
        if f.name not in names:
            other = library.fallback.get(f.name)
            value = getattr(constants, other) if other else library.held.get(f.name, f.metadata["datasheet"])
            constants = replace(constants, **{f.name: value})
    return constants


def all_rows(table: Table) -> np.ndarray:
    return np.ones(len(table.records), dtype=bool)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What a device's constants are fitted to: lone ops, whole networks, and the kernels of networks by kind."""

    ops: Table
    networks: Table | None
    sums: Sums | None = None

    def parts(self, *, ops: np.ndarray | None = None, without: str | None = None) -> tuple[Part, ...]:
        """Rows to fit: the chosen ops, networks and their kernels but those of one model."""
        found: list[Part] = [(self.ops, all_rows(self.ops) if ops is None else ops, 1.0)]
        if self.networks is not None:
            models = np.array([r.workload for r in self.networks.records])
            found.append((self.networks, models != without, NETWORK_WEIGHT))
        if self.sums is not None:
            found.append((self.sums, self.sums.models != without, SUM_WEIGHT))
        return tuple(part for part in found if np.any(part[1]))


def hold_out_families(
    library: Library, data: Data, *, progress: Callable[[float], None] = lambda share: None
) -> np.ndarray:
    """Each op's time, predicted with constants that saw no op of its family of shapes (in FOLDS parts)."""
    ops = data.ops
    order = {name: i for i, name in enumerate(sorted({family(r) for r in ops.records}))}
    fold = np.array([order[family(r)] % FOLDS for r in ops.records])
    predicted = np.zeros(len(fold))
    for number in range(FOLDS):
        progress(number / FOLDS)
        found = fit_rows(library, data.parts(ops=fold != number), middle(library))
        predicted[fold == number] = ops.predict_s(found)[fold == number]
    return predicted


def hold_out_models(
    library: Library, data: Data, start: Constants, *, progress: Callable[[float], None] = lambda share: None
) -> np.ndarray:
    """Each network's time, predicted with constants that saw no network of the same model.

    `start` must not have seen networks either."""
    assert data.networks is not None
    models = np.array([r.workload for r in data.networks.records])
    predicted = np.zeros(len(models))
    for number, model in enumerate(sorted(set(models))):
        progress(number / len(set(models)))
        found = fit_rows(library, data.parts(without=model), start) if np.any(models != model) else start
        predicted[models == model] = data.networks.predict_s(found)[models == model]
    return predicted
