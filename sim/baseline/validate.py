"""`validate`: every check in one table, or a file of measured rows scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.stats import spearmanr

from sim.baseline.checks import CheckResult, all_checks
from sim.errors import ConfigError, ResultError, expect, nearest
from sim.resources import data_dir

if TYPE_CHECKING:
    from sim.baseline.record import BaselineRecord

SCHEMA = "dovetail.validate/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """All rows of the table."""

    results: tuple[CheckResult, ...]

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """Rows whose gate does not hold; the command then returns 1."""
        return tuple(row for row in self.results if row.verdict == "fail")

    @property
    def summary(self) -> dict[str, int]:
        """Rows per verdict, and rows for which we have no number."""
        counts = {verdict: sum(row.verdict == verdict for row in self.results) for verdict in ("pass", "fail", "info")}
        return {"checks": len(self.results), **counts, "without_number": sum(r.ours is None for r in self.results)}

    def to_dict(self, version: str) -> dict[str, object]:
        """The `dovetail.validate/1` document."""
        rows = [row.to_dict() for row in self.results]
        return {"schema": SCHEMA, "version": version, "checks": rows, "summary": self.summary}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far predictions are from measured rows; errors are fractions of the measured value."""

    path: str
    kind: str
    rows: int
    mean_error: float
    median_error: float
    p90_error: float
    bias: float
    """Median signed error."""
    spearman: float | None
    hardware: str | None = None
    calibration: str | None = None
    """What the predictions rest on, in words; None where no chip makes them."""
    note: str = ""
    """Which records are not among the rows, and why."""

    def to_dict(self) -> dict[str, object]:
        """The fields of a `dovetail.validate/1` document of a scored file."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def score(predicted: np.ndarray, measured: np.ndarray, *, path: str, kind: str) -> Score:
    """Compare two arrays of positive numbers.

    Raises: ResultError: no rows, different lengths, a value that is not positive and finite.
    """
    if predicted.shape != measured.shape or not len(measured):
        raise ResultError(f"{path}: cannot score {len(predicted)} predictions against {len(measured)} measured rows")
    both = np.concatenate([predicted, measured])
    if not np.isfinite(both).all() or (both <= 0).any():
        raise ResultError(f"{path}: a prediction or a measured value is not a positive number")
    signed = predicted / measured - 1
    error = np.abs(signed)
    varies = len(measured) > 1 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return Score(
        path=path,
        kind=kind,
        rows=len(error),
        mean_error=float(error.mean()),
        median_error=float(np.median(error)),
        p90_error=float(np.percentile(error, 90)),
        bias=float(np.median(signed)),
        spearman=float(spearmanr(predicted, measured)[0]) if varies else None,
    )


class Scored(Protocol):
    """What scoring a file gives, whatever its kind."""

    def to_dict(self) -> dict[str, object]: ...


def against(
    target: str | Path,
    *,
    hw: str | None = None,
    precision: str | None = None,
    calibration: str = "auto",
    progress: Callable[[float], None] = lambda share: None,
    note: Callable[[str], None] = lambda line: None,
) -> tuple[Scored, ...]:
    """Score a CSV file, every CSV file of a folder, a baseline file (.jsonl), or the baseline records of a device.

    What a file holds is told by its columns (`sim.baseline.kernel_rows.kinds`). Gemmini rows carry their
    hardware; without `hw`, GPU rows are of the chip that the file's name begins with. `progress` is told the share
    of a folder's files that is done, `note` every broken line of a baseline file: it is skipped.
    Raises: ResultError: neither a file, nor a folder with CSV files, nor a device with records; ConfigError: a
        precision or a calibration for what states its own; CalibrationError of the kinds.
    """
    expect(target, (str, Path), "a file, a folder or the name of a device", where="against", error=ResultError)
    path, target = Path(target), str(target)
    if path.is_dir():
        files = sorted(path.glob("**/*.csv"))
        if not files:
            raise ResultError(f"{target}: no CSV file in this folder")
        scores = []
        for number, file in enumerate(files):
            progress(number / len(files))
            scores.append(_score_file(file, hw, precision, calibration))
        return tuple(scores)
    if path.suffix == ".jsonl":
        _no_precision(target, precision)
        return (score_baseline(path, hw, calibration, note),)
    if path.suffix or path.exists():
        if path.is_file():
            _check_used(path, precision, calibration)
        return (_score_file(path, hw, precision, calibration),)
    _no_precision(target, precision)
    return (score_device(target, hw, calibration, note),)


def _no_precision(target: str, precision: str | None) -> None:
    if precision is not None:
        raise ConfigError(
            f"--precision {precision}: the records of {target} state their own precisions; it goes with a CSV file "
            "whose name does not end in one"
        )


def _check_used(file: Path, precision: str | None, calibration: str) -> None:
    """Rows that carry their hardware take neither a precision nor a calibration; of a folder some files may."""
    from sim.baseline.kernel_rows import Hardware, read_kind

    kind, _ = read_kind(file)
    given = {"--precision": precision, "--calibration": None if calibration == "auto" else calibration}
    for option, value in given.items():
        if value is not None and kind.hardware is Hardware.CHIP:
            raise ConfigError(f"{option} {value}: rows of kind {kind.name} ({file}) carry their own; leave it out")


def _score_file(file: Path, hw: str | None, precision: str | None, calibration: str) -> Scored:
    import sim
    from sim.baseline.score import score_file

    if not file.is_file():
        raise ResultError(f"{file}: no such file; expected a CSV of measured rows")
    return score_file(file, sim.load_hardware(hw) if hw else None, precision, calibration=calibration)


def score_baseline(
    file: Path, hw: str | None, calibration: str = "auto", note: Callable[[str], None] = lambda line: None
) -> Score:
    """Score the records of one device in a baseline file against `sim.estimate`, as `score_device` does.

    Args:
        hw: by default the chip of the device that the records name.
        note: is told every broken line; it is skipped.
    Raises: ResultError: no such file, no records, those of several devices; as `score_device`.
    """
    if not file.is_file():
        raise ResultError(f"{file}: no such file; expected a baseline file")
    records = _latest([file], note)
    if not any(record.median_s for record in records):
        raise ResultError(f"{file}: no record with a number")
    device, *others = sorted({record.device for record in records})
    if others:
        raise ResultError(
            f"{file}: records of {', '.join([device, *others])}; expected one device: give "
            + (f"--against {device}" if file.resolve().is_relative_to(data_dir("baselines").resolve()) else
               "a file with the lines of one of them")
        )  # fmt: skip
    return _score_records(str(file), records, hw or _chip_of(device, str(file)), calibration)


def _chip_of(device: str, path: str) -> str:
    """The bundled chip that a device is, or that names it as its calibration. Raises: ResultError: none."""
    from sim.baseline.calibrate import bundled_chip
    from sim.hardware.load import chip_of_device

    if name := chip_of_device(device):
        return name
    if (chip := bundled_chip(device)) is None:
        raise ResultError(f"{path}: no bundled chip is the device {device}: give --hw, the chip that was measured")
    return chip.name


def score_device(
    device: str, hw: str | None = None, calibration: str = "auto", note: Callable[[str], None] = lambda line: None
) -> Score:
    """Score the bundled baseline records of a device against `sim.estimate` on `hw`, by default the chip of the device.
    (Networks of published results that are no bundled workload cannot be estimated; the refusal says so.)

    An estimate speaks of one mode (`sim.baseline.modes`), of a GPU graph replay by default, of a CPU eager: where there
    are records of it, the others are left out, and the score's note says so. `note` is told every broken line; it is
    skipped.

    Raises: ResultError: no records, or none that can be estimated; ConfigError, CalibrationError: a chip or a
        calibration that is unknown.
    """
    folder = data_dir("baselines")
    files = [*sorted(folder.glob("*.jsonl")), folder / "published" / "gpu-models.jsonl"]
    found = _latest(files, note)
    records = [record for record in found if record.device == device]
    if not records:
        devices = sorted({record.device for record in found})
        raise ResultError(
            f"{device}: neither a CSV file nor a device with records: {', '.join(devices)}.{nearest(device, devices)}"
        )
    return _score_records(device, records, hw or _chip_of(device, device), calibration)


def _latest(files: Sequence[Path], note: Callable[[str], None]) -> list[BaselineRecord]:
    """The last record of every point, those that were too noisy for a number included."""
    from sim.baseline.record import read_baseline

    held = [read_baseline(file) for file in files]
    for one in held:
        one.name_broken(note)
    return [record for one in held for record in one.latest.values()]


def _score_records(path: str, records: Sequence[BaselineRecord], hw: str, calibration: str) -> Score:
    import sim
    from sim.baseline.compare import compare_records
    from sim.baseline.modes import comparable
    from sim.schedule.confidence import calibration_label

    chip = sim.load_hardware(hw)
    label = calibration_label(chip, calibration)
    noisy = sum(record.median_s is None for record in records)
    numbers = [record for record in records if record.median_s is not None and not record.below_bound]
    chosen = comparable(numbers, chip) or numbers
    modes = ", ".join(sorted({r.mode for r in numbers} - {r.mode for r in chosen}))
    compared = compare_records(chosen, hw, calibration).rows
    refused = [row for row in compared if row.ratio is None]
    if not numbers:
        raise ResultError(f"{path}: all {len(records) - noisy} records with a number lie below their physical bound")
    if len(refused) == len(compared):
        why = f" ({refused[0].name}: {refused[0].note})" if refused and refused[0].note else ""
        raise ResultError(f"{path}: none of {len(chosen)} records can be estimated on {hw}{why}")
    left_out = {
        "too noisy for a number": noisy,
        "below their physical bound": len(records) - noisy - len(numbers),
        f"of a mode ({modes}) that the estimate does not speak of": len(numbers) - len(chosen),
        f"not estimated, the first {refused[0].name if refused else ''}: {refused[0].note if refused else ''}":
            len(refused),
    }  # fmt: skip
    notes = [f"{count} of {len(records)} records left out: {why}" for why, count in left_out.items() if count]
    ours, theirs = np.array([(row.estimated_s, row.measured_s) for row in compared if row.ratio is not None]).T
    found = score(ours, theirs, path=path, kind="records")
    return replace(found, hardware=hw, calibration=label, note="; ".join(notes))


def score_document(found: Scored, version: str) -> dict[str, object]:
    """The `dovetail.validate/1` document of a scored file."""
    return {"schema": SCHEMA, "version": version, **found.to_dict()}


def validate(only: str | None = None, *, progress: Callable[[float], None] | None = None) -> Validation:
    """Run every check; `only` names one check or one group. `progress` receives the share that is done.

    Raises: ResultError: `only` names neither.
    """
    expect(
        "" if only is None else only, str, 'a check or a group such as "tpu-v1"', where="validate", error=ResultError
    )
    checks, results = list(all_checks(only)), []
    for check in checks:
        results.append(check.run())
        if progress:
            progress(len(results) / len(checks))
    return Validation(results=tuple(results))
