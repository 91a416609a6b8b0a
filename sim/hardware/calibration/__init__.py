"""Calibrations: the fitted constants and residuals of measured devices, as data beside this module.

One JSON file a device, written by `sim.calibrate` from the device's baseline records. A chip uses the
file of its own name (or the one that its `calibration` key names) unless told otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from importlib import resources
from pathlib import Path

from sim._version import __version__
from sim.errors import CalibrationError, nearest, why

SCHEMA = "dovetail.calibration/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """Standard deviations of log(measured / estimated): of the device as a whole, of the gaps between ops, of a class
    of ops (shared by all its ops) and of one op. `conformal` is the 90 % score of held-out whole models, in units of
    the standard deviation that the parts give for the network; None where no whole model was held out."""

    device: float
    classes: Mapping[str, tuple[float, float]]
    """class of ops -> (class, op)"""
    gaps: float = 0.0
    """Of the gaps between ops, to be weighed by `sim.cost.intervals.gap_weight`: short ops are known worse."""
    conformal: float | None = None
    models: int = 0
    """Whole models behind `conformal`, and the points that they were measured at."""
    points: int = 0
    covered: int = 0
    """Points inside the 90 % interval that the other models' points give."""
    median_width: float | None = None
    """Of those intervals: (high - low) / estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Constants of one device, with where they come from and how far off they were on what they had not seen."""

    device: str
    costing: str
    date: str
    commit: str
    source: str
    threads: int | None
    constants: Mapping[str, float]
    residuals: Residuals
    error: Mapping[str, Mapping[str, float | int | None]]
    """class of ops, or "networks" -> held-out rows, mean_error, median_error, p90_error, bias, spearman."""
    chip: str = ""
    """Name of the chip that it was fitted on; another one's numbers rest on a transfer."""
    at_limits: tuple[str, ...] = ()
    """Constants that ended at an end of their physical range."""
    notes: tuple[str, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, object]:
        """The `dovetail.calibration/1` document; `calibration_from_dict` reads it back."""
        return {"schema": SCHEMA, "version": __version__} | asdict(self)


def calibration_from_dict(document: Mapping[str, object], where: str) -> Calibration:
    """`version`, what wrote it, is not kept; files of old versions lack it.

    Raises: CalibrationError: another schema, unknown or missing keys, with their place.
    """
    content = dict(document)
    content.pop("version", None)
    if content.pop("schema", None) != SCHEMA:
        raise CalibrationError(f'{where}: schema is {document.get("schema")!r}, expected "{SCHEMA}"')
    names = [item.name for item in fields(Calibration)]
    for name in content:
        if name not in names:
            raise CalibrationError(f'{where}: unknown key "{name}".{nearest(name, names)}')
    try:
        found = dict(content["residuals"])  # type: ignore[call-overload]
        found["classes"] = {name: (float(a), float(b)) for name, (a, b) in found["classes"].items()}
        content |= {"residuals": Residuals(**found)}
        content |= {name: tuple(content.get(name, ())) for name in ("at_limits", "notes")}  # type: ignore[arg-type]
        return Calibration(**content)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError) as error:
        raise CalibrationError(f"{where}: broken calibration: {error}") from error


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write one file, the same bytes for the same calibration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(calibration.to_dict(), indent=1) + "\n", encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """Raises: CalibrationError: not there, not JSON, not a calibration."""
    try:
        return calibration_from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, json.JSONDecodeError) as error:
        raise CalibrationError(f"{path}: cannot be read: {why(error)}") from error


@lru_cache(maxsize=1)
def calibrations() -> Mapping[str, Calibration]:
    """Every bundled calibration by device."""
    folder = resources.files("sim.hardware.calibration")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".json")), key=lambda f: f.name)
    found = (calibration_from_dict(json.loads(f.read_text(encoding="utf-8")), f.name) for f in files)
    return {one.device: one for one in found}


def calibration_for(name: str, own: str | None, choice: str, costing: str) -> Calibration | None:
    """The calibration that a chip uses: its own under "auto" (or None), a named one or a file otherwise.

    Args: name: the chip's; own: its `calibration` key; choice: "auto", "none", a device or a .json file.
    Raises: CalibrationError: unknown, or fitted for another costing.
    """
    if choice == "none":
        return None
    known = calibrations()
    if choice == "auto":
        if own is not None and own not in known:
            raise CalibrationError(f'{name}: its calibration "{own}" is not there.{nearest(own, known)}')
        return known.get(own or name)
    found = read_calibration(Path(choice)) if choice.endswith(".json") else known.get(choice)
    if found is None:
        there = ", ".join(known) or "none is bundled"
        raise CalibrationError(
            f'{name}: no calibration "{choice}": expected auto, none, a .json file or one of: {there}.'
            f"{nearest(choice, known)}"
        )
    if found.costing != costing:
        raise CalibrationError(
            f"calibration {found.device} holds constants of {found.costing} units, {name} is costed by {costing}"
        )
    return found
