"""Tables of measured kernels: what a CSV holds is told by its columns.

A `Kind` says which columns it has and what may stand in them, which of them is the measurement, which
rows belong to one *family* (held out together), and how the simulator predicts a row. Other
measurements join with `register`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from sim.baseline.kernel_table import POSITIVE, Column, Law, Rows, check_rows, one_of, read_rows, whole
from sim.cost.gpu.attention import attention_s
from sim.cost.gpu.conv import WINOGRAD, conv_s
from sim.cost.gpu.device import GpuDevice, element_bytes
from sim.cost.gpu.gemm import gemm_s
from sim.cost.gpu.sets import GpuConstants
from sim.cost.gpu.vector import PASSES, kernel_class, vector_s
from sim.errors import CalibrationError

BENCHMARK_WEIGHT_COPIES = 6
"""The GEMM benchmark takes turns between six copies of the weights."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted values in the unit of the measured column; flagged rows lie outside the model's data."""

    values: np.ndarray
    flagged: np.ndarray


class Hardware(StrEnum):
    """What a kind's `predict` is given as hardware."""

    GPU = "gpu"
    """A GpuDevice with its constants; the user must name the chip and the precision."""
    CHIP = "chip"
    """The Chip, or None: the rows carry their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One layout of measured rows, and how each row is predicted."""

    name: str
    columns: Mapping[str, Column]
    measured: str
    family: Callable[[Rows], np.ndarray]
    predict: Callable[[Rows, Any, Any, Any], Prediction]
    """(rows, device or chip, precision, GPU constants) -> Prediction"""
    laws: tuple[Law, ...] = ()
    hardware: Hardware = Hardware.GPU


_KINDS: dict[frozenset[str], Kind] = {}


def register(kind: Kind) -> Kind:
    """Add a layout. Raises ValueError: these columns already have one."""
    columns = frozenset(kind.columns)
    if columns in _KINDS:
        raise ValueError(f"columns of {kind.name} already belong to {_KINDS[columns].name}")
    _KINDS[columns] = kind
    return kind


def kinds() -> tuple[Kind, ...]:
    """Every registered layout, those of modules beside this one included."""
    import sim.baseline.gemmini  # noqa: F401  registers itself

    return tuple(_KINDS.values())


def kind_of(columns: Iterable[str]) -> Kind:
    """The kind whose columns are all present. Raises CalibrationError: none, with the nearest; two, none of which has
    the columns of the other."""
    present = frozenset(columns)
    known = kinds()
    fits = [kind for kind in known if kind.columns.keys() <= present]
    if fits:
        found = max(fits, key=lambda kind: len(kind.columns))
        for other in fits:
            if more := [name for name in other.columns if name not in found.columns]:
                raise CalibrationError(
                    f"the columns are those of two measurements, {found.name} and {other.name}: expected one kind a "
                    f"file; without {', '.join(more)} it is {found.name}"
                )
        return found
    best = max(
        known,
        key=lambda kind: len(kind.columns.keys() & present) / len(kind.columns),
    )
    missing = ", ".join(sorted(best.columns.keys() - present))
    raise CalibrationError(
        f"no measurement has the columns {', '.join(sorted(present))}: "
        f"nearest is {best.name}, which also needs {missing}"
    )


def read_kind(path: str | Path) -> tuple[Kind, Rows]:
    """A file's kind and its rows. Raises CalibrationError: unknown columns, or a value that they do not allow."""
    rows = read_rows(path)
    try:
        kind = kind_of(rows)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    check_rows(path, rows, kind.columns, kind.laws)
    return kind, rows


def select(rows: Rows, mask: np.ndarray) -> Rows:
    """The rows where `mask` is true, or those of an index array."""
    return {name: values[mask] for name, values in rows.items()}


def families(*columns: np.ndarray) -> np.ndarray:
    """Family number of each row: rows that agree in all `columns`; numbered in sorted order."""
    return np.unique(np.stack([np.asarray(c) for c in columns], axis=1), axis=0, return_inverse=True)[1].ravel()


def _gemm(rows: Rows, device: GpuDevice, precision: str, constants: GpuConstants) -> Prediction:
    sizes = (rows["m"], rows["n"], rows["k"])
    copies = BENCHMARK_WEIGHT_COPIES
    t = gemm_s(
        *sizes,
        device=device,
        constants=constants.gemm_for(precision),
        dtype=precision,
        weight_copies=copies,
    )
    return Prediction(t.time_s * 1e3, t.flagged)


ATTENTION_COLUMNS = (
    "batch_size",
    "new_tokens",
    "past_tokens",
    "num_heads",
    "num_key_value_heads",
    "head_dim",
)


def _attention(rows: Rows, device: GpuDevice, precision: str, constants: GpuConstants) -> Prediction:
    sizes = (rows[name] for name in ATTENTION_COLUMNS)
    c = constants
    t = attention_s(*sizes, device=device, decode=c.decode, prefill=c.prefill, dtype=precision)
    return Prediction(t.time_s * 1e3, t.flagged)


def _vector(rows: Rows, device: GpuDevice, precision: str, constants: GpuConstants) -> Prediction:
    out = np.zeros(len(rows["op"]))
    for op in np.unique(rows["op"]):
        chosen = rows["op"] == op
        c = constants.vector[kernel_class(str(op))]
        sizes = (rows["rows"][chosen], rows["columns"][chosen])
        t = vector_s(
            str(op),
            *sizes,
            device=device,
            constants=c,
            element_bytes=element_bytes(precision),
            host=True,
        )
        out[chosen] = t.time_s * 1e3
    return Prediction(out, np.zeros(out.shape, dtype=bool))


def _conv(rows: Rows, device: GpuDevice, precision: str, constants: GpuConstants) -> Prediction:
    names = (
        "batch",
        "in_channels",
        "out_channels",
        "input_size",
        "input_size",
        "kernel",
    )
    t = conv_s(
        *(rows[name] for name in names), stride=rows["stride"], padding=rows["padding"],
        device=device, constants=constants.conv, gemm=constants.gemm, dtype=precision, host=True,
    )  # fmt: skip
    # Where the chip lists Winograd, these rows may measure it and are scored; where it does not, nobody knows.
    known = bool(set(device.algorithms) & set(WINOGRAD))
    return Prediction(t.time_s * 1e3, np.zeros(t.time_s.shape, dtype=bool) if known else t.flagged)


SIZE, COUNT = whole(1), whole(0)

register(
    Kind(
        name="gpu_gemm",
        columns={"m": SIZE, "n": SIZE, "k": SIZE, "latency_ms": POSITIVE},
        measured="latency_ms",
        family=lambda r: families(r["n"], r["k"]),
        predict=_gemm,
    )
)
register(
    Kind(
        name="gpu_attention",
        columns={**dict.fromkeys(ATTENTION_COLUMNS, SIZE), "past_tokens": COUNT, "latency_ms": POSITIVE},
        laws=(
            Law(
                ("num_heads", "num_key_value_heads"),
                "query heads that are a multiple of the KV heads",
                lambda r: r["num_heads"] % r["num_key_value_heads"] == 0,
            ),
        ),
        measured="latency_ms",
        family=lambda r: families(r["num_heads"], r["num_key_value_heads"], r["head_dim"]),
        predict=_attention,
    )
)
register(
    Kind(
        name="gpu_vector",
        columns={"op": one_of(PASSES), "rows": SIZE, "columns": SIZE, "latency_ms": POSITIVE},
        measured="latency_ms",
        family=lambda r: families(r["rows"], r["columns"]),
        predict=_vector,
    )
)
register(
    Kind(
        name="gpu_conv",
        columns={
            **dict.fromkeys(("batch", "in_channels", "out_channels", "kernel", "input_size", "stride"), SIZE),
            "padding": COUNT,
            "latency_ms": POSITIVE,
        },
        laws=(
            Law(
                ("kernel", "input_size", "padding"),
                "a kernel no larger than the input with its padding on both sides",
                lambda r: r["kernel"] <= r["input_size"] + 2 * r["padding"],
            ),
        ),
        measured="latency_ms",
        family=lambda r: families(r["in_channels"], r["out_channels"]),
        predict=_conv,
    )
)
