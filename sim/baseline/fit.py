"""Fit the constants of a kernel model to measured rows, with whole families held out.

Robust least squares (soft L1 on the log of predicted / measured) over the logs of the constants,
inside their physical ranges; deterministic. Errors are two-fold: each half of the families is
scored with constants fitted on the other half. The constants returned are fitted on all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from sim.baseline.kernel_rows import (
    ATTENTION_COLUMNS,
    BENCHMARK_WEIGHT_COPIES,
    families,
    select,
)
from sim.baseline.kernel_table import Rows
from sim.baseline.score import ErrorStatistics, error_statistics
from sim.cost.gpu.attention import (
    attention_decode_s,
    prefill_plan,
    prefill_time,
    runs_decode_kernel,
)
from sim.cost.gpu.constants import Constants, GemmConstants
from sim.cost.gpu.conv import conv_s
from sim.cost.gpu.device import GpuDevice, element_bytes
from sim.cost.gpu.gemm import gemm_plan, gemm_time
from sim.cost.gpu.sets import KINDS
from sim.cost.gpu.vector import kernel_class, vector_s
from sim.errors import CalibrationError

ROWS_PER_CONSTANT = 8
"""Fewer rows than this per fitted constant are refused."""
MIN_FAMILIES = 6
ROBUST_SCALE = 0.03
"""Relative error at which the loss turns from square to linear: about the reproducibility of the data."""
LOG_STEP = 0.01
"""Finite-difference step in log constants: the fastest-kernel choice makes the model piecewise smooth."""
MAX_ROWS = 1500
"""Rows that a fit uses; more only cost time."""
MAX_EVALUATIONS = 30
CONTRADICTION = 1.5
"""Repeated rows that differ by more than this factor contradict each other."""
CONTRADICTORY_SHARE = 0.1
L2_SHARE = 0.6
"""Share of L2 in which what is used again stays, in products and attention. Fitted alone, A100 and H100 give 0.55 and
0.66 in products, 0.59 and 0.63 in prefill, 0.60 and 0.75 in decode; one value costs none more than 0.1 points."""

Model = Callable[[Any], np.ndarray]
"""constants of the kernel kind -> seconds per row"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What it takes to fit one kernel kind."""

    inputs: tuple[str, ...]
    family: tuple[str, ...]
    model: Callable[[Rows, GpuDevice, str], Model]
    uses: Callable[[Rows, GpuDevice], np.ndarray]
    """rows that run this kernel"""
    fixed: Callable[[GpuDevice], Mapping[str, float]]
    """constants that do not apply to the device, with their value"""
    regime: Callable[[Rows], np.ndarray]
    """label of each row"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Constants with their held-out error. `at_limits` names those that ended at their physical range."""

    kind: str
    device: str
    constants: Constants
    fitted: tuple[str, ...]
    families: int
    held_out: ErrorStatistics
    regimes: Mapping[str, ErrorStatistics]
    at_limits: tuple[str, ...]


def _bins(values: np.ndarray, edges: tuple[float, ...], name: str) -> np.ndarray:
    labels = [f"{name} <= {edges[0]:g}"]
    labels += [f"{name} {low:g}-{high:g}" for low, high in pairwise(edges)]
    labels.append(f"{name} > {edges[-1]:g}")
    return np.asarray(labels)[np.searchsorted(edges, values, side="left")]


def _gemm_model(rows: Rows, device: GpuDevice, dtype: str) -> Model:
    sizes = (rows[name] for name in ("m", "n", "k"))
    plan = gemm_plan(*sizes, device=device, dtype=dtype, weight_copies=BENCHMARK_WEIGHT_COPIES)
    return lambda c: gemm_time(plan, c).time_s


def _prefill_model(rows: Rows, device: GpuDevice, dtype: str) -> Model:
    plan = prefill_plan(*(rows[name] for name in ATTENTION_COLUMNS), device=device, dtype=dtype)
    return lambda c: prefill_time(plan, c, dtype).time_s


def _decode_model(rows: Rows, device: GpuDevice, dtype: str) -> Model:
    sizes = [rows[name] for name in ATTENTION_COLUMNS if name != "new_tokens"]
    return lambda c: attention_decode_s(*sizes, device=device, constants=c, dtype=dtype).time_s


def _vector_model(rows: Rows, device: GpuDevice, dtype: str) -> Model:
    size = element_bytes(dtype)

    def model(c: Any) -> np.ndarray:
        out = np.zeros(len(rows["op"]))
        for op in np.unique(rows["op"]):
            at = rows["op"] == op
            shape = (rows["rows"][at], rows["columns"][at])
            found = vector_s(str(op), *shape, device=device, constants=c, element_bytes=size, host=True)
            out[at] = found.time_s
        return out

    return model


def conv_model(gemm: GemmConstants) -> Callable[[Rows, GpuDevice, str], Model]:
    """Convolutions take the constants of the products inside from `gemm`."""
    names = ("batch", "in_channels", "out_channels", "input_size", "input_size", "kernel")

    def model(rows: Rows, device: GpuDevice, dtype: str) -> Model:
        sizes = [rows[name] for name in names]
        run = partial(conv_s, *sizes, stride=rows["stride"], padding=rows["padding"], device=device, dtype=dtype)
        return lambda c: run(constants=c, gemm=gemm, host=True).time_s

    return model


def _is_decode(rows: Rows, device: GpuDevice) -> np.ndarray:
    return runs_decode_kernel(rows["new_tokens"], rows["num_heads"], rows["num_key_value_heads"], device)


def _known_heads(rows: Rows) -> np.ndarray:
    return rows["head_dim"] <= 256


def _gemm_fixed(device: GpuDevice) -> dict[str, float]:
    # Persistent kernels show no fill: what another library would show is estimated (DRAM's round trip, a CTA's start).
    # Exponents of 3 to 6 fit alike on A100 and H100.
    common = {"overlap": 4.0, "l2_share": L2_SHARE}
    return common | ({"fill_s": 1e-6} if device.library.warp_specialised else {})


def _decode_fixed(device: GpuDevice) -> dict[str, float]:
    # Fitted once each, on A100 and H100: shares of L2's rate of 0.34 and 0.81, exponents of 2.1 and 1.2; one value of
    # each costs neither more than 0.1 points.
    common = {"overlap": 1.3, "l2_share": L2_SHARE, "l2_efficiency": 0.7}
    return common if device.library.warp_specialised else common | {"sequence_s": 0.0}


def _prefill_fixed(device: GpuDevice) -> dict[str, float]:
    # The share of DRAM lies at the end of its range on A100 and H100.
    return {"matrix_efficiency": 0.95, "l2_share": L2_SHARE, "dram_efficiency": 0.95}


def _vector_problem(name: str) -> Problem:
    row_wise = name in ("softmax", "layer_norm")
    return Problem(
        inputs=("op", "rows", "columns"),
        family=("rows", "columns"),
        model=_vector_model,
        uses=lambda r, _: np.asarray([kernel_class(str(op)) == name for op in r["op"]]),
        fixed=lambda _: {} if row_wise else {"row_s": 0.0},
        regime=lambda r: _bins(r["rows"] * r["columns"] * 4 / 2**20, (1.0, 16.0), "MiB"),
    )


_ATTENTION = {
    "inputs": ATTENTION_COLUMNS,
    "family": ("num_heads", "num_key_value_heads", "head_dim"),
}
PROBLEMS: dict[str, Problem] = {
    "gemm": Problem(
        inputs=("m", "n", "k"),
        family=("n", "k"),
        model=_gemm_model,
        uses=lambda r, _: np.ones(len(r["m"]), dtype=bool),
        fixed=_gemm_fixed,
        regime=lambda r: _bins(r["m"], (16, 128, 1024), "m"),
    ),
    "prefill": Problem(
        **_ATTENTION,
        model=_prefill_model,
        uses=lambda r, d: (r["new_tokens"] > 1) & _known_heads(r),
        fixed=_prefill_fixed,
        regime=lambda r: _bins(r["new_tokens"], (128, 1024, 8192), "new tokens"),
    ),
    "decode": Problem(
        **_ATTENTION,
        model=_decode_model,
        uses=lambda r, d: _is_decode(r, d) & _known_heads(r) & (r["past_tokens"] > 0),
        fixed=_decode_fixed,
        regime=lambda r: _bins(r["past_tokens"], (128, 1024, 8192), "past"),
    ),
    "conv": Problem(
        inputs=("batch", "in_channels", "out_channels", "kernel", "input_size", "stride", "padding"),
        family=("in_channels", "out_channels"),
        model=conv_model(GemmConstants.datasheet()),
        uses=lambda r, _: np.ones(len(r["batch"]), dtype=bool),
        fixed=lambda _: {},
        regime=lambda r: _bins(r["input_size"], (8, 16, 32), "size"),
    ),
} | {f"vector_{name}": _vector_problem(name) for name in ("binary", "unary", "softmax", "layer_norm")}


def fit_kernel(
    kind: str, rows: Rows, device: GpuDevice, *, precision: str, problem: Problem | None = None,
    fixed: Mapping[str, float] | None = None, start: Constants | None = None,
) -> Fit:  # fmt: skip
    """Fit the constants of one kernel kind.

    Args:
        rows: columns of measured rows with `latency_ms`; rows of other kernels are left out.
        fixed: further constants held at a value (ablations).
        start: where to begin; by default the geometric middle of every range.
    Raises: CalibrationError: too few rows or families (with the count), contradictory rows.
    """
    problem = problem or PROBLEMS[kind]
    rows = select(rows, problem.uses(rows, device))
    held = dict(problem.fixed(device)) | dict(fixed or {})
    names = tuple(f.name for f in fields(KINDS[kind]) if f.name not in held)
    family = families(*(rows[name] for name in problem.family)) if rows["latency_ms"].size else np.zeros(0, int)
    _enough(kind, rows, family, len(names))
    _consistent(kind, rows, problem)
    measured = rows["latency_ms"] * 1e-3
    first = replace(start or middle(KINDS[kind]), **held)
    predicted, found = np.zeros(measured.size), []
    for half in (0, 1):
        learn, score = np.flatnonzero(family % 2 == half), family % 2 != half
        constants = _solve(problem, select(rows, thinned(learn)), device, precision, first, names)
        found.append(constants)
        predicted[score] = problem.model(select(rows, score), device, precision)(constants)
    constants = _polish(problem, rows, device, precision, found, names)
    labels = problem.regime(rows)
    regimes = {str(v): error_statistics(predicted[labels == v], measured[labels == v]) for v in np.unique(labels)}
    return Fit(
        kind=kind,
        device=device.name,
        constants=constants,
        fitted=names,
        families=int(family.max()) + 1,
        held_out=error_statistics(predicted, measured),
        regimes=regimes,
        at_limits=constants.at_limits(names),
    )


def middle(family: type[Constants]) -> Constants:
    """Constants in the geometric middle of their physical ranges."""
    return family(**{f.name: float(np.sqrt(f.metadata["low"] * f.metadata["high"])) for f in fields(family)})


def thinned(index: np.ndarray) -> np.ndarray:
    """At most MAX_ROWS of the rows, evenly spaced."""
    return index[:: max(1, -(-index.size // MAX_ROWS))]


def _solve(
    problem: Problem, rows: Rows, device: GpuDevice, precision: str, first: Constants, names: tuple[str, ...]
) -> Constants:
    model, measured = problem.model(rows, device, precision), rows["latency_ms"] * 1e-3
    spec = {f.name: f.metadata for f in fields(first)}
    low = np.log([spec[name]["low"] for name in names])
    high = np.log([spec[name]["high"] for name in names])
    inside = 1e-3 * (high - low)
    x0 = np.clip(np.log([getattr(first, name) for name in names]), low + inside, high - inside)

    def constants(x: np.ndarray) -> Constants:
        return replace(first, **{name: float(np.exp(v)) for name, v in zip(names, x, strict=True)})

    def residual(x: np.ndarray) -> np.ndarray:
        return np.log(model(constants(x)) / measured)

    solution = least_squares(
        residual, x0, bounds=(low, high), loss="soft_l1", f_scale=ROBUST_SCALE, diff_step=LOG_STEP,
        max_nfev=MAX_EVALUATIONS,
    )  # fmt: skip
    return constants(solution.x)


def _polish(
    problem: Problem, rows: Rows, device: GpuDevice, precision: str, found: list[Constants], names: tuple[str, ...]
) -> Constants:
    """Constants for all rows: solve from the better half's, and keep the best of the three.

    The choice of the fastest kernel gives the loss local minima, so one more start is worth its time.
    """
    rows = select(rows, thinned(np.arange(rows["latency_ms"].size)))
    model, measured = problem.model(rows, device, precision), rows["latency_ms"] * 1e-3

    def loss(constants: Constants) -> float:
        return float(np.mean(np.abs(np.log(model(constants) / measured))))

    solved = _solve(problem, rows, device, precision, min(found, key=loss), names)
    return min([*found, solved], key=loss)


def _enough(kind: str, rows: Rows, family: np.ndarray, constants: int) -> None:
    count, need = family.size, 2 * ROWS_PER_CONSTANT * constants
    if count < need:
        raise CalibrationError(f"{kind}: {count} rows for {constants} constants, expected at least {need}")
    found = int(family.max()) + 1
    if found < MIN_FAMILIES:
        raise CalibrationError(f"{kind}: {found} families of shapes, expected at least {MIN_FAMILIES} to hold half out")


def _consistent(kind: str, rows: Rows, problem: Problem) -> None:
    """Refuse tables whose repeated rows disagree."""
    keys = [np.unique(rows[name], return_inverse=True)[1] for name in problem.inputs]
    same = families(*keys)
    logs = np.log(rows["latency_ms"])
    count = np.bincount(same)
    high, low = np.full(count.size, -np.inf), np.full(count.size, np.inf)
    np.maximum.at(high, same, logs)
    np.minimum.at(low, same, logs)
    repeated = count > 1
    bad = int(np.sum((high - low)[repeated] > np.log(CONTRADICTION)))
    if bad > CONTRADICTORY_SHARE * max(1, int(repeated.sum())):
        raise CalibrationError(
            f"{kind}: {bad} of {int(repeated.sum())} repeated problems were measured more than {CONTRADICTION:g}x apart"
        )
