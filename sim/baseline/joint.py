"""Fit one set of kernel constants on several GPUs at once, so that it carries to GPUs nobody measured.

Most constants are shares, exponents, bytes per clock and floors that every GPU has; a few belong to
the kernels of a library (mma.sync with FlashAttention-2, wgmma with FlashAttention-3). The first are
fitted once over all devices, the second once per library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.optimize import least_squares

from sim.baseline.fit import LOG_STEP, PROBLEMS, ROBUST_SCALE, Model, middle
from sim.baseline.kernel_rows import families, select
from sim.baseline.kernel_table import Rows
from sim.baseline.score import ErrorStatistics, error_statistics
from sim.cost.gpu.constants import Constants
from sim.cost.gpu.device import GpuDevice
from sim.cost.gpu.sets import KINDS

LIBRARY_CONSTANTS: Mapping[str, tuple[str, ...]] = {
    "gemm": ("launch_s", "fill_s"),
    "prefill": ("launch_s", "start_s", "tail", "token_s"),
    "decode": ("launch_s",),
}
"""Kernel kind -> constants of the library: its launches, how a CTA fills its pipeline, what it sets up, whether the
longest rows of a causal mask run first, and how the cache is written."""
DEVICE_CONSTANTS = ("matrix_efficiency", "dram_efficiency", "dram_ramp_s")
"""Constants of the DRAM and its controller, and of the clock that the power limit leaves the matrix units: of every
device its own, in every kind of kernel."""

ROWS = 500
"""Rows of each device that a fit uses, evenly spaced; more change the third digit and cost time."""
EVALUATIONS = 15

Table = tuple[Rows, GpuDevice]
"""Measured rows and the device that ran them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JointFit:
    """Constants and held-out errors by device name."""

    constants: Mapping[str, Constants]
    held_out: Mapping[str, ErrorStatistics]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One device in a joint fit."""

    device: GpuDevice
    model: Model
    measured: np.ndarray
    held: Mapping[str, float]


def _part(kind: str, rows: Rows, device: GpuDevice, precision: str) -> _Part:
    problem = PROBLEMS[kind]
    count = rows["latency_ms"].size
    rows = select(rows, np.arange(count)[:: max(1, -(-count // ROWS))])
    return _Part(
        device=device, model=problem.model(rows, device, precision), measured=rows["latency_ms"] * 1e-3,
        held=problem.fixed(device),
    )  # fmt: skip


def _solve(kind: str, parts: Sequence[_Part]) -> dict[str, Constants]:
    """Constants by device; those of the library, and those that only one device has, are not shared."""
    family = KINDS[kind]
    spec = {f.name: f.metadata for f in fields(family)}
    keys: list[tuple[str, str | None]] = []
    for name in spec:
        having = [p.device.name for p in parts if name not in p.held]
        own = name in (*LIBRARY_CONSTANTS[kind], *DEVICE_CONSTANTS) or len(having) < len(parts)
        keys += [(name, device) for device in having] if own else [(name, None)]
    low = np.log([spec[name]["low"] for name, _ in keys])
    high = np.log([spec[name]["high"] for name, _ in keys])

    def constants(x: np.ndarray, part: _Part) -> Constants:
        found = {n: float(np.exp(v)) for (n, d), v in zip(keys, x, strict=True) if d in (None, part.device.name)}
        return replace(middle(family), **found, **part.held)

    def residual(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.log(p.model(constants(x, p)) / p.measured) for p in parts])

    solution = least_squares(
        residual, (low + high) / 2, bounds=(low, high), loss="soft_l1", f_scale=ROBUST_SCALE, diff_step=LOG_STEP,
        max_nfev=EVALUATIONS,
    )  # fmt: skip
    return {p.device.name: constants(solution.x, p) for p in parts}


def fit_joint(kind: str, tables: Sequence[Table], *, precision: str) -> JointFit:
    """Fit on all devices together; errors are two-fold by families, each device on its own rows.

    The constants returned are fitted on all rows.
    """
    problem = PROBLEMS[kind]
    tables = [(select(rows, problem.uses(rows, device)), device) for rows, device in tables]
    halves = [families(*(rows[name] for name in problem.family)) % 2 for rows, _ in tables]
    predicted = [np.zeros(rows["latency_ms"].size) for rows, _ in tables]
    for half in (0, 1):
        parts = [
            _part(kind, select(r, side != half), d, precision) for (r, d), side in zip(tables, halves, strict=True)
        ]
        found = _solve(kind, parts)
        for (rows, device), side, out in zip(tables, halves, predicted, strict=True):
            out[side == half] = problem.model(select(rows, side == half), device, precision)(found[device.name])
    final = _solve(kind, [_part(kind, rows, device, precision) for rows, device in tables])
    scores = {
        device.name: error_statistics(out, rows["latency_ms"] * 1e-3)
        for (rows, device), out in zip(tables, predicted, strict=True)
    }
    return JointFit(constants=final, held_out=scores)


def shared_constants(kind: str, constants: Constants) -> dict[str, float]:
    """The constants that are not the library's: what one GPU tells about another."""
    return {f.name: getattr(constants, f.name) for f in fields(KINDS[kind]) if f.name not in LIBRARY_CONSTANTS[kind]}
