"""Score the simulator on a table of measurements: error statistics of predicted against measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from sim.baseline.kernel_rows import Hardware, Kind, Prediction, read_kind
from sim.baseline.kernel_table import Rows
from sim.cost.gpu.device import GpuDevice, device_from_chip
from sim.cost.gpu.sets import constants_for
from sim.errors import CalibrationError, MappingError
from sim.hardware.chip import Chip, Costing
from sim.hardware.load import list_hardware, load_hardware
from sim.workload.precision import BITS

ABOVE_DATASHEET = 1.3
"""By how much a kernel may beat the data sheet's rates: the clock boosts above the one they are stated at. The quickest
of 4,000 products on an H100 is at 1.23, no other kind of kernel beats them at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorStatistics:
    """Relative errors as fractions. `bias` is the median signed error; predicted / measured - 1."""

    rows: int
    mean_error: float
    median_error: float
    p90_error: float
    bias: float
    spearman: float | None
    """None below two rows or when one side is constant."""

    def to_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Rank correlation with average ranks for ties; None where it is undefined."""
    rx, ry = rankdata(x), rankdata(y)
    if len(rx) < 2 or np.ptp(rx) == 0 or np.ptp(ry) == 0:
        return None
    return float(np.corrcoef(rx, ry)[0, 1])


def error_statistics(predicted: ArrayLike, measured: ArrayLike) -> ErrorStatistics:
    """Statistics over all rows. Raises CalibrationError: no rows, or a measurement that is not positive."""
    predicted, measured = (
        np.asarray(predicted, dtype=float),
        np.asarray(measured, dtype=float),
    )
    if measured.size == 0:
        raise CalibrationError("no rows to score")
    good = np.isfinite(measured) & (measured > 0)
    if not good.all():
        raise CalibrationError(f"{int(np.sum(~good))} measurements are no numbers above 0")
    error = predicted / measured - 1
    size = np.abs(error)
    return ErrorStatistics(
        rows=int(measured.size),
        mean_error=float(size.mean()),
        median_error=float(np.median(size)),
        p90_error=float(np.percentile(size, 90)),
        bias=float(np.median(error)),
        spearman=spearman(predicted, measured),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScore:
    """One file scored. Flagged rows lie outside what the model covers and are counted, not scored; in a file of
    nothing else they are scored, and the count says what the score is worth."""

    path: str
    kind: str
    hardware: str | None
    precision: str | None
    calibration: dict[str, str]
    statistics: ErrorStatistics
    flagged_rows: int
    note: str = ""
    """What a reader must know of the score: that the file's name states another chip."""

    def to_dict(self) -> dict[str, object]:
        """The `--against FILE` document: rows used and errors as fractions, with what they came from."""
        head = {
            "path": self.path,
            "kind": self.kind,
            "hardware": self.hardware,
            "precision": self.precision,
        }
        tail = {"flagged_rows": self.flagged_rows, "calibration": self.calibration, "note": self.note}
        return head | self.statistics.to_dict() | tail


def precision_of(path: str | Path) -> str | None:
    """The last part of a file name such as `h100_sxm_gemm_bf16.csv`, when it is a precision."""
    last = Path(path).stem.rsplit("_", 1)[-1]
    return last if last in BITS else None


def chip_of(path: str | Path) -> str | None:
    """The bundled chip that a file name such as `h100_sxm_gemm_bf16.csv` begins with."""
    words = f"{Path(path).stem.replace('_', '-')}-"
    return max((name for name in list_hardware() if words.startswith(f"{name}-")), key=len, default=None)


def score_file(
    path: str | Path,
    hw: Chip | GpuDevice | None = None,
    precision: str | None = None,
    *,
    calibration: str = "auto",
) -> FileScore:
    """Predict every row of a CSV and compare.

    Args:
        path: the file; its columns tell the kind.
        hw: the chip that was measured; by default the beginning of the file's name, and not needed where the rows
            carry their own hardware.
        precision: e.g. "bf16"; by default the last part of the file's name.
        calibration: "auto", "none" or the name of a fitted set.
    Raises: CalibrationError: unknown columns, a value that they do not allow, no rows, no hardware or no precision
        where one is needed.
    """
    kind, rows = read_kind(path)
    precision = precision_of(path) if precision is None else precision
    named = chip_of(path)
    if hw is None and named is not None:
        hw = load_hardware(named)
    device, constants = hw, None
    if kind.hardware is Hardware.GPU:
        if hw is None:
            raise CalibrationError(
                f"{path}: {kind.name} rows need --hw, the chip that was measured, or a file name that begins with it, "
                "such as h100_sxm_"
            )
        if precision is None:
            raise CalibrationError(f"{path}: give --precision, or end the file's name in one, such as _bf16.csv")
        if isinstance(hw, Chip) and hw.main_unit.costing is not Costing.GPU_KERNELS:
            raise CalibrationError(
                f"{path}: {kind.name} rows are single kernels of a GPU, and {hw.name} is costed by "
                f"{hw.main_unit.costing.value}: expected a chip of costing: gpu_kernels, such as h100-sxm. For what "
                "dovetail measure wrote, give its .jsonl file"
            )
        device = hw if isinstance(hw, GpuDevice) else device_from_chip(hw)
        constants = constants_for(device, calibration)
    elif isinstance(hw, Chip) and hw.main_unit.options.get("waiting") is None:
        raise CalibrationError(
            f"{path}: rows of kind {kind.name} carry their own machine and {hw.name} is none such; leave --hw out "
            "(a file takes the chip that its name begins with), or score this file apart"
        )
    try:
        predicted = kind.predict(rows, device, precision, constants)
    except MappingError as error:
        raise MappingError(f"{path}: {error}") from error
    notes = (
        [f"the file's name states {named}, the score is on {hw.name}"] if hw and named not in (None, hw.name) else []
    )
    notes += _oddities(kind, rows, device, precision)
    return FileScore(
        path=str(path),
        kind=kind.name,
        hardware=device.name if device else None,
        precision=precision,
        calibration=dict(constants.origin) if constants else {},
        statistics=_unflagged(kind, rows, predicted),
        flagged_rows=int(np.sum(predicted.flagged)),
        note="; ".join(notes),
    )


def _oddities(kind: Kind, rows: Rows, device: Chip | GpuDevice | None, precision: str | None) -> list[str]:
    """What a reader must know of the rows: that some stand twice, or take less time than the chip has for them."""
    found = []
    lines = np.stack([np.unique(values, return_inverse=True)[1].ravel() for values in rows.values()], axis=1)
    if twice := len(lines) - len(np.unique(lines, axis=0)):
        found.append(f"{twice} of {len(lines)} rows are copies of others, and count again")
    if isinstance(device, GpuDevice):
        bound = np.asarray(kind.predict(rows, device, precision, constants_for(device, "none")).values)
        below = rows[kind.measured] * ABOVE_DATASHEET < bound
        if below.any():
            worst = int(np.argmin(rows[kind.measured] / bound))
            found.append(
                f"{int(below.sum())} of {len(lines)} rows are quicker than {device.name} can be, row {worst + 1} takes "
                f"{rows[kind.measured][worst]:.3g} where the data sheet has {bound[worst]:.3g}: another chip, or no "
                f"{kind.measured}?"
            )
    return found


def _unflagged(kind: Kind, rows: Rows, predicted: Prediction) -> ErrorStatistics:
    used = ~np.asarray(predicted.flagged, dtype=bool)
    if not used.any():
        used = np.ones(used.shape, dtype=bool)
    return error_statistics(np.asarray(predicted.values)[used], rows[kind.measured][used])
