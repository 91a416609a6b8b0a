"""Fit a measured device's constants to its baseline records, and say how far off they are on what they have not seen.

Ops and whole networks fit the constants. Errors are of what a fit had not seen: ops by fifths of the shape
families, networks with every network of the same model left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from math import hypot
from pathlib import Path

import numpy as np

from sim.baseline.cpu_rows import CPU
from sim.baseline.fitting import (
    FOLDS,
    Data,
    Fit,
    active,
    all_rows,
    fit_rows,
    hold_out_families,
    hold_out_models,
    middle,
)
from sim.baseline.gpu_rows import EAGER_GPU, profile_sums
from sim.baseline.graphs import record_graph
from sim.baseline.record import BaselineRecord, Kind, read_baseline
from sim.baseline.residuals import deviation_of, network_shares, residuals_of
from sim.baseline.runner import git_commit
from sim.baseline.score import error_statistics
from sim.baseline.table import CUSTOM_KERNELS, Library, Table, family
from sim.cost.gpu.constants import Constants
from sim.cost.intervals import interval_s
from sim.errors import CalibrationError, DovetailError, expect, nearest, told_of
from sim.hardware.calibration import Calibration
from sim.hardware.chip import Chip, Costing
from sim.hardware.load import as_chip
from sim.resources import data_dir
from sim.workload.graph import Graph

LIBRARIES = {library.costing: library for library in (CPU, EAGER_GPU)}
BACKENDS = {Costing.CPU: "cpu", Costing.GPU_EAGER: "cuda"}
"""Costing -> backend of the records that its constants are fitted to."""
ROWS_PER_CONSTANT = 3
MIN_FAMILIES = 6
CONTRADICTION = 1.5
"""Records of one point that differ by more than this factor contradict each other."""
CONTRADICTORY_SHARE = 0.1
IMPOSSIBLE_SHARE = 0.1
"""Share of the points that may lie below their physical bound and be left out; with more the file is not believed."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fit with the times that each record got from constants that had not seen it."""

    chip: Chip
    file: Path
    names: tuple[str, ...]
    library: Library
    constants: Constants
    ops: Table
    op_s: np.ndarray
    networks: Table | None
    network_s: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One record beside its held-out estimate with its 90 % interval; `group` is the class of ops, or the model."""

    group: str
    network: bool
    measured_s: float
    estimated_s: float
    interval_s: tuple[float, float]


def calibrate(
    device: str,
    *,
    chip: Chip | str | Path | None = None,
    baseline: str | Path | None = None,
    graph_of: Callable[[BaselineRecord], Graph] | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """The constants of `device` from its baseline file, with residuals and held-out errors. As `fit` takes them."""
    return calibration_of(device, fit(device, chip=chip, baseline=baseline, graph_of=graph_of, note=note))


def fit(
    device: str,
    *,
    chip: Chip | str | Path | None = None,
    baseline: str | Path | None = None,
    graph_of: Callable[[BaselineRecord], Graph] | None = None,
    progress: Callable[[float], None] = lambda share: None,
    note: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """Fit the constants of `device`, and predict every record without having seen it.

    Args:
        chip: its description, name or path; by default the bundled chip that names it as its calibration, or bears its
            name.
        baseline: by default baselines/<device>.jsonl.
        graph_of: record -> graph of the op or workload that it measured.
        progress: called with the share that is done, as far as the solves so far tell.
        note: called with every line of its files that is broken and was skipped.
    Raises: CalibrationError: no or too few records (with the count), records of another device,
        contradictory ones, a chip whose costing has no constants of its own.
    """
    expect(device, str, 'the name of a measured device such as "nvidia-h200"', where="calibrate: device",
           error=CalibrationError)  # fmt: skip
    chip = chip_of(device) if chip is None else as_chip(chip, where="calibrate: chip")
    library = LIBRARIES.get(chip.main_unit.costing)
    if library is None:
        raise CalibrationError(
            f"{chip.name} is costed by {chip.main_unit.costing.value}: only units with costing: "
            f"{' or '.join(known.value for known in LIBRARIES)} are fitted here"
        )
    file = Path(baseline or data_dir("baselines") / f"{device}.jsonl")
    records = [r for r in _records(file, device, note) if r.mode in library.modes]
    _measured_on(records, chip)
    ops = [r for r in records if r.op is not None and r.op not in CUSTOM_KERNELS | library.skipped]
    networks = [r for r in records if r.workload is not None]
    if not ops:
        raise CalibrationError(f"{device}: 0 op records; measure them first: dovetail measure cpu-ops (or gpu-all)")
    graphs = partial(_told_graph, graph_of or record_graph, file)
    table = library.tabulate(ops, chip, graphs)
    whole = library.tabulate(networks, chip, graphs) if networks else None
    profile = file.parent / "kernels" / file.name
    sums = profile_sums(profile, whole, note) if whole and library is EAGER_GPU else None
    data = Data(ops=table, networks=whole, sums=sums)
    names = active(library, data.parts())
    _enough(device, table, whole, names)
    solves = 2 + FOLDS + (len({r.workload for r in networks}) if whole else 0)

    def part(done: int, of: int) -> Callable[[float], None]:
        return lambda share: progress((done + of * share) / solves)

    progress(0.0)
    from_ops = Fit(parts=((table, all_rows(table), 1.0),), names=names).solve(middle(library))
    part(1, 1)(0.0)
    constants = fit_rows(library, data.parts(), from_ops)
    op_s = hold_out_families(library, data, progress=part(2, FOLDS))
    models = part(2 + FOLDS, solves - 2 - FOLDS)
    network_s = hold_out_models(library, data, from_ops, progress=models) if whole else None
    return Fitted(chip=chip, file=file, names=names, library=library, constants=constants, ops=table, op_s=op_s,
                  networks=whole, network_s=network_s)  # fmt: skip


def calibration_of(device: str, fitted: Fitted) -> Calibration:
    """The document of a fit."""
    constants, names, library = fitted.constants, fitted.names, fitted.library
    networks = fitted.networks.records if fitted.networks else ()
    return Calibration(
        device=device,
        costing=library.costing.value,
        date=datetime.now(tz=UTC).date().isoformat(),
        commit=git_commit(),
        source=f"{len(fitted.ops.records)} ops and {len(networks)} whole networks of {fitted.file.name}, fitted on "
        f"{fitted.chip.name}",
        threads=max((r.threads or 0 for r in (*fitted.ops.records, *networks)), default=0) or None,
        constants={f.name: float(f"{getattr(constants, f.name):.6g}") for f in fields(constants)},
        residuals=residuals_of(fitted.ops, fitted.op_s, fitted.networks, fitted.network_s, constants),
        error=_errors(fitted.ops, fitted.op_s, fitted.networks, fitted.network_s),
        chip=fitted.chip.name,
        at_limits=constants.at_limits(names),
        notes=tuple(
            f"{f.name} was not fitted: "
            f"{'the errors do not depend on it' if f.name in library.held else 'no rows depend on it'}"
            for f in fields(constants)
            if f.name not in names
        ),
    )


def held_out(fitted: Fitted, calibration: Calibration) -> tuple[HeldOut, ...]:
    """Every record beside its held-out estimate, for a figure.

    An op's interval is the one that the residuals of its class give, by the normal distribution; a network's that of
    its ops, its gaps and the device together, by the conformal score. The residuals are those of these very records.
    """
    r = calibration.residuals
    found = [
        HeldOut(
            group=str(name),
            network=False,
            measured_s=float(measured),
            estimated_s=float(ours),
            interval_s=interval_s(float(ours), hypot(*r.classes[str(name)])),
        )
        for name, measured, ours in zip(fitted.ops.labels(), fitted.ops.measured_s, fitted.op_s, strict=True)
    ]
    if fitted.networks is None or fitted.network_s is None:
        return tuple(found)
    shares = network_shares(fitted.networks, fitted.constants, r.classes)
    deviations = deviation_of(np.array([r.device, r.gaps, 1.0]), shares)
    for record, ours, deviation in zip(fitted.networks.records, fitted.network_s, deviations, strict=True):
        estimated_s = float(ours)
        found.append(
            HeldOut(
                group=record.target,
                network=True,
                measured_s=float(record.median_s or np.nan),
                estimated_s=estimated_s,
                interval_s=interval_s(estimated_s, float(deviation), r.conformal),
            )
        )
    return tuple(found)


def chip_of(device: str) -> Chip:
    """The bundled chip of a device: the one that bears its name, or names it as its calibration.

    Raises: CalibrationError, with the devices that were measured: none."""
    import sim
    from sim.hardware.load import list_hardware

    named = sim.load_hardware(device) if device in list_hardware() else bundled_chip(device)
    if named is None:
        measured = sorted(file.stem for file in data_dir("baselines").glob("*.jsonl"))
        raise CalibrationError(
            f'no bundled chip is that of device "{device}": expected one of {", ".join(measured)}, or a chip of your '
            f"own with --hw.{nearest(device, measured)}"
        )
    return named


def bundled_chip(device: str) -> Chip | None:
    """The bundled chip that names the device as its calibration."""
    import sim
    from sim.hardware.load import list_hardware

    chips = (sim.load_hardware(name) for name in list_hardware())
    return next((chip for chip in chips if chip.calibration == device), None)


def _errors(
    ops: Table, op_s: np.ndarray, networks: Table | None, network_s: np.ndarray | None
) -> dict[str, dict[str, float | int | None]]:
    """Held-out error statistics by class of ops, of all ops, and of whole networks: all, and by mode if there are
    several."""
    measured, classes = ops.measured_s, ops.labels()
    out = {str(n): error_statistics(op_s[classes == n], measured[classes == n]).to_dict() for n in np.unique(classes)}
    out["ops"] = error_statistics(op_s, measured).to_dict()
    if networks is not None and network_s is not None:
        out["networks"] = error_statistics(network_s, networks.measured_s).to_dict()
        modes = np.array([str(r.mode) for r in networks.records])
        for mode in np.unique(modes) if len(set(modes)) > 1 else ():
            found = error_statistics(network_s[modes == mode], networks.measured_s[modes == mode])
            out[f"networks, {mode}"] = found.to_dict()
    return out


def _records(file: Path, device: str, note: Callable[[str], None]) -> list[BaselineRecord]:
    """The last record with a number of every point. Raises CalibrationError as `calibrate`."""
    held = read_baseline(file)
    held.name_broken(note)
    found = [r for r in held.records if r.median_s is not None]
    if not found:
        what = "0 records with a number" if file.exists() else "there is no such file"
        raise CalibrationError(f"{file}: {what}; measure first: dovetail measure cpu-ops (or gpu-all)")
    others = sorted({r.device for r in found if r.device != device})
    if others:
        raise CalibrationError(f"{file}: records of {', '.join(others)}, expected {device} alone")
    times: dict[str, list[float]] = {}
    for record in found:
        times.setdefault(record.key, []).append(float(record.median_s or 0.0))
    repeated = [values for values in times.values() if len(values) > 1]
    bad = sum(max(values) > CONTRADICTION * min(values) for values in repeated)
    if bad > CONTRADICTORY_SHARE * max(1, len(repeated)):
        raise CalibrationError(
            f"{file}: {bad} of {len(repeated)} repeated points were measured more than {CONTRADICTION:g}x apart"
        )
    latest = list({record.key: record for record in found}.values())
    return _possible(file, [r for r in latest if r.kind is not Kind.IMPORTED], len(latest), note)


def _measured_on(records: list[BaselineRecord], chip: Chip) -> None:
    """Raises CalibrationError: a CPU's chip and records of a GPU, or the other way round."""
    costing = chip.main_unit.costing
    others = sorted({r.device for r in records if r.backend != BACKENDS[costing]})
    if others:
        raise CalibrationError(
            f"{chip.name} is costed by {costing.value}, and the records of {', '.join(others)} are of another kind of "
            f"machine: expected backend {BACKENDS[costing]} in each; name the chip that was measured with --hw"
        )


def _possible(
    file: Path, records: list[BaselineRecord], points: int, note: Callable[[str], None]
) -> list[BaselineRecord]:
    """Those of the points that say what they ran, and in a time that is possible; the others are told."""
    if points > len(records):
        note(f"{file}: {points - len(records)} imported records left out: a profile's layers state no shapes to fit")
    below = [record for record in records if record.below_bound]
    if below:
        first = f"{below[0].target} {dict(below[0].knobs)} {below[0].precision}"
        words = (
            f"{file}: {len(below)} of {len(records)} records lie below their physical bound, the first {first}: "
            f"{below[0].median_s:.3g} s, bound {below[0].bound_s:.3g} s"
        )
        if len(below) > IMPOSSIBLE_SHARE * len(records):
            raise CalibrationError(f"{words}; expected seconds of this device")
        note(f"{words}; left out")
    return [record for record in records if not record.below_bound]


def _told_graph(graph_of: Callable[[BaselineRecord], Graph], file: Path, record: BaselineRecord) -> Graph:
    """Raises: as `graph_of`, with the file and the record in front."""
    try:
        return graph_of(record)
    except DovetailError as error:
        raise told_of(f"{file}: {record.target} {dict(record.knobs)} of {record.date or 'no date'}", error) from error


def _enough(device: str, ops: Table, networks: Table | None, names: tuple[str, ...]) -> None:
    count = len(ops.records) + (len(networks.records) if networks else 0)
    need = ROWS_PER_CONSTANT * max(len(names), 5)
    if count < need:
        raise CalibrationError(f"{device}: {count} records for {len(names)} constants, expected at least {need}")
    found = len({family(r) for r in ops.records})
    if found < MIN_FAMILIES:
        raise CalibrationError(f"{device}: {found} families of shapes, expected at least {MIN_FAMILIES}")
