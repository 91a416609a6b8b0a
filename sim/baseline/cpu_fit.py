"""Robust least squares on a CPU's constants: log(estimated / measured) over the logs of the constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.optimize import least_squares

from sim.baseline.cpu_rows import Table, family
from sim.cost.cpu import CpuConstants

ROBUST_SCALE = 0.1
"""Log error at which the loss turns from square to linear."""
NETWORK_WEIGHT = 1.5
"""A whole network counts as this many ops: it is what the constants are for."""
FOLDS = 5
"""Parts into which the families of shapes are split; each is predicted from the others."""
PRIOR = 0.02
"""Pull to the geometric middle of a constant's range, per length of the range, so that nothing wanders on few rows."""
HELD = {"overlap": 2.0}
"""Constants that no fit moved the errors with, at what both measured machines gave (1.7 and 2.0)."""
PROBE = 1.5
"""A constant is fitted where changing it by this factor moves some row by more than PROBE_EFFECT."""
PROBE_EFFECT = 1e-3


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Rows to fit: (table, which of its records, weight) each."""

    parts: tuple[tuple[Table, np.ndarray, float], ...]
    names: tuple[str, ...]

    def solve(self, start: CpuConstants) -> CpuConstants:
        """The constants of `names` that fit best; the others as in `start`."""
        low, high = (np.log([_RANGE[name][end] for name in self.names]) for end in (0, 1))
        length = high - low

        def constants(x: np.ndarray) -> CpuConstants:
            return replace(start, **{name: float(np.exp(v)) for name, v in zip(self.names, x, strict=True)})

        def residual(x: np.ndarray) -> np.ndarray:
            found = constants(x)
            rows = [
                weight * np.log(table.predict_s(found)[use] / table.measured_s[use])
                for table, use, weight in self.parts
            ]
            return np.concatenate([*rows, PRIOR * (x - (low + high) / 2) / length])

        first = np.clip(np.log([getattr(start, n) for n in self.names]), low + 1e-3 * length, high - 1e-3 * length)
        found = least_squares(residual, first, bounds=(low, high), loss="soft_l1", f_scale=ROBUST_SCALE, max_nfev=60)
        return constants(found.x)


_RANGE = {f.name: (f.metadata["low"], f.metadata["high"]) for f in fields(CpuConstants)}
_DATASHEET = {f.name: f.metadata["datasheet"] for f in fields(CpuConstants)}
_FALLBACK = {
    "conv_word": "gemm_word", "half_efficiency": "gemm_word", "byte_efficiency": "half_efficiency",
    "layer_byte": "byte_efficiency", "attention_half": "half_efficiency", "decode_word": "gemm_word",
    "decode_half": "attention_half",
}  # fmt: skip
"""What a class without rows takes its efficiency from."""


def middle() -> CpuConstants:
    """Geometric middle of every range: where a fit starts. Thread scaling starts at the data sheet's value."""
    kept = HELD | {n: _DATASHEET[n] for n in ("parallel_share", "core_bytes_per_s")}
    return CpuConstants(**{n: kept.get(n, math.sqrt(low * high)) for n, (low, high) in _RANGE.items()})


def active(tables: Sequence[Table]) -> tuple[str, ...]:
    """Constants that the rows depend on. Thread scaling shows only where several thread counts were measured."""
    start = middle()
    scaling = {"parallel_share", "core_bytes_per_s"}
    counts = {r.threads for table in tables for r in table.records}
    if len(counts) > 1:
        start = replace(start, parallel_share=0.9, core_bytes_per_s=1e10)
    base = [table.predict_s(start) for table in tables]
    names = []
    for name in _RANGE:
        if name in HELD or (name in scaling and len(counts) < 2):
            continue
        changed = replace(start, **{name: getattr(start, name) / PROBE})
        moved = max(float(np.max(np.abs(t.predict_s(changed) / b - 1))) for t, b in zip(tables, base, strict=True))
        names += [name] if moved > PROBE_EFFECT else []
    return tuple(names)


def unseen(constants: CpuConstants, names: Sequence[str]) -> CpuConstants:
    """Constants without rows: a related class's efficiency, or the data sheet's value."""
    for name in _RANGE:
        if name not in names:
            value = getattr(constants, _FALLBACK[name]) if name in _FALLBACK else HELD.get(name, _DATASHEET[name])
            constants = replace(constants, **{name: value})
    return constants


def all_rows(table: Table) -> np.ndarray:
    return np.ones(len(table.records), dtype=bool)


def fit_all(ops: Table, networks: Table | None, names: tuple[str, ...], start: CpuConstants) -> CpuConstants:
    """Constants from every row."""
    parts = [(ops, all_rows(ops), 1.0)]
    parts += [(networks, all_rows(networks), NETWORK_WEIGHT)] if networks else []
    return Fit(parts=tuple(parts), names=names).solve(start)


def hold_out_families(
    ops: Table,
    networks: Table | None,
    names: tuple[str, ...],
    start: CpuConstants,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """Each op's time, predicted with constants that saw no op of its family of shapes (in FOLDS parts).

    `start` must not have seen the ops either."""
    order = {name: i for i, name in enumerate(sorted({family(r) for r in ops.records}))}
    fold = np.array([order[family(r)] % FOLDS for r in ops.records])
    predicted = np.zeros(len(fold))
    for number in range(FOLDS):
        progress(number / FOLDS)
        parts = [(ops, fold != number, 1.0)]
        parts += [(networks, all_rows(networks), NETWORK_WEIGHT)] if networks else []
        found = Fit(parts=tuple(parts), names=names).solve(start)
        predicted[fold == number] = ops.predict_s(found)[fold == number]
    return predicted


def hold_out_models(
    ops: Table,
    networks: Table,
    names: tuple[str, ...],
    start: CpuConstants,
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """Each network's time, predicted with constants that saw no network of the same model.

    `start` must not have seen networks either."""
    models = np.array([r.workload for r in networks.records])
    predicted = np.zeros(len(models))
    for number, model in enumerate(sorted(set(models))):
        progress(number / len(set(models)))
        parts = ((ops, all_rows(ops), 1.0), (networks, models != model, NETWORK_WEIGHT))
        found = Fit(parts=parts, names=names).solve(start) if np.any(models != model) else start
        predicted[models == model] = networks.predict_s(found)[models == model]
    return predicted
