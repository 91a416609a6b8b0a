"""Fit a CPU's constants to its baseline records, and say how far off they are on what they have not seen.

Ops fit the constants; half of the shape families at a time is held out to score them. Whole models are
never fitted: they score the sum, and the interval's conformal factor comes from them. Robust least
squares (soft L1) on log(estimated / measured) over the logs of the constants, inside their ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from sim.baseline.record import BaselineRecord, Mode, Phase, read_baseline
from sim.baseline.runner import git_commit
from sim.baseline.score import error_statistics
from sim.cost.cpu import CLASSES, WIDTHS, CpuConstants, CpuMachine, CpuWork, cpu_time
from sim.cost.intervals import COVERAGE, log_deviation
from sim.errors import CalibrationError
from sim.hardware.calibration import Calibration, Residuals
from sim.hardware.chip import Chip, Costing
from sim.resources import data_dir
from sim.schedule.cpu import cpu_machine, cpu_work, weight_bytes
from sim.schedule.network import Options, op_coster
from sim.schedule.prepare import prepare
from sim.workload.graph import Graph, ViewOp
from sim.workload.precision import parse_precision

ROWS_PER_CONSTANT = 4
MIN_FAMILIES = 6
ROBUST_SCALE = 0.1
"""Log error at which the loss turns from square to linear."""
CONTRADICTION = 1.5
"""Records of one point that differ by more than this factor contradict each other."""
CONTRADICTORY_SHARE = 0.1
SIZE_KNOBS = frozenset({"m", "batch", "rows", "length", "context"})
"""Knobs that do not tell families of shapes apart."""
FEW_MODELS = 9
"""Below this many whole models there is no 90 % conformal quantile."""
UNSEEN_DEVICE = 0.05
"""Device part of the residual where fewer than three whole models were measured (estimated)."""
_EFFICIENCY = {name: f"{name}_efficiency" for name in CLASSES[:4]}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Records as ops of one machine: `owner` maps each op to its record."""

    records: tuple[BaselineRecord, ...]
    work: CpuWork
    owner: np.ndarray
    machine: CpuMachine
    host: np.ndarray

    @property
    def measured_s(self) -> np.ndarray:
        return np.array([float(r.median_s or math.nan) for r in self.records])

    def predict_s(self, constants: CpuConstants) -> np.ndarray:
        """Estimated time of each record."""
        total = cpu_time(self.work, self.machine, constants, host=self.host).total_s
        return np.bincount(self.owner, weights=total, minlength=len(self.records))


CUSTOM_KERNELS = frozenset({"detection_postprocess"})
"""Measured ops that are kernels of our own: the tracer sees no ATen op in them to fit."""


def calibrate(
    device: str,
    *,
    chip: Chip | None = None,
    baseline: Path | None = None,
    graph_of: Callable[[BaselineRecord], Graph] | None = None,
) -> Calibration:
    """The constants of `device` from its baseline file, with residuals and held-out errors.

    Args:
        chip: its description; the bundled chip of that name by default. It must be costed as a CPU.
        baseline: by default baselines/<device>.jsonl.
        graph_of: record -> graph of the op or workload that it measured.
    Raises: CalibrationError: no or too few records (with the count), records of another device,
        contradictory ones, a chip that is no CPU.
    """
    import sim

    chip = chip or sim.load_hardware(device)
    if chip.main_unit.costing is not Costing.CPU:
        raise CalibrationError(
            f"{chip.name} is costed by {chip.main_unit.costing.value}: only units with costing: cpu are fitted here"
        )
    file = baseline or data_dir("baselines") / f"{device}.jsonl"
    records = _records(file, device)
    ops = [r for r in records if r.op is not None and r.op not in CUSTOM_KERNELS and r.mode is Mode.EAGER]
    models = [r for r in records if r.workload is not None]
    graph_of = graph_of or record_graph
    table = tabulate(ops, chip, graph_of) if ops else None
    names = _active(table)
    _enough(device, table, names)
    assert table is not None
    constants, held_out = _two_fold(table, names)
    whole = tabulate(models, chip, graph_of) if models else None
    residuals, error = _residuals(table, held_out, whole, constants)
    return Calibration(
        device=device,
        costing=Costing.CPU.value,
        date=datetime.now(tz=UTC).date().isoformat(),
        commit=git_commit(),
        source=f"{len(ops)} ops and {len(models)} whole models of {file.name}, fitted on {chip.name}",
        threads=max((r.threads or 0 for r in records), default=0) or None,
        constants={f.name: float(f"{getattr(constants, f.name):.6g}") for f in fields(constants)},
        residuals=residuals,
        error=error,
        at_limits=constants.at_limits(names),
        notes=tuple(f"{f.name} was not fitted: no rows depend on it" for f in fields(constants) if f.name not in names),
    )


def record_graph(record: BaselineRecord) -> Graph:
    """The graph that a record measured."""
    import sim
    from sim.baseline.compare import op_graph
    from sim.baseline.ops import op_spec

    if record.workload is not None:
        return sim.load_workload(record.workload, **dict(record.knobs))  # type: ignore[arg-type]
    return op_graph(op_spec(str(record.op), record.knobs, record.precision))  # type: ignore[arg-type]


def _records(file: Path, device: str) -> list[BaselineRecord]:
    """The last record with a number of every point. Raises CalibrationError as `calibrate`."""
    found = [r for r in read_baseline(file).records if r.median_s is not None]
    if not found:
        raise CalibrationError(f"{file}: 0 records with a number; measure first: dovetail measure cpu-ops")
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
    return list({record.key: record for record in found}.values())


def tabulate(records: Sequence[BaselineRecord], chip: Chip, graph_of: Callable[[BaselineRecord], Graph]) -> Table:
    """Every op of every record as one array of work."""
    works, owner, threads, host = [], [], [], []
    machine = cpu_machine(chip)
    for number, record in enumerate(records):
        precision = parse_precision(record.precision)
        graph = prepare(graph_of(record), precision)
        ops = [op for op in graph.ops if not isinstance(op, ViewOp)]
        work = cpu_work(ops, graph, chip, op_coster(graph, chip, Options(), precision), cycle_bytes=weight_bytes(graph))
        if record.phase is Phase.COLD:  # operands were rotated: nothing stays
            moved = work.held_bytes + work.passing_bytes
            none = np.zeros(moved.shape)
            work = replace(work, held_bytes=moved, passing_bytes=none, cycle_bytes=none + np.inf)
        works.append(work)
        owner += [number] * len(ops)
        threads += [min(record.threads or machine.cores, machine.cores)] * len(ops)
        host += [record.mode is Mode.EAGER] * len(ops)
    stacked = {f.name: np.concatenate([getattr(w, f.name) for w in works]) for f in fields(CpuWork)}
    return Table(
        records=tuple(records),
        work=CpuWork(**stacked),
        owner=np.array(owner),
        machine=replace(machine, threads=np.array(threads, dtype=float)),
        host=np.array(host),
    )


def _active(table: Table | None) -> tuple[str, ...]:
    """Constants that the rows depend on."""
    if table is None:
        return ()
    work = table.work
    names = ["host_s", "dram_efficiency", "cache_share", "cache_bytes_per_clock_core", "overlap"]
    names += [_EFFICIENCY[c] for i, c in enumerate(CLASSES[:4]) if np.any(work.kind == i)]
    names += [f"{w}_efficiency" for i, w in enumerate(WIDTHS) if i and np.any((work.width == i) & (work.macs > 0))]
    names += ["start_macs"] if np.any(work.macs > 0) else []
    names += ["vector_efficiency"] if np.any(work.lanes_s > 0) else []
    if np.unique(table.machine.threads).size > 1:
        names += ["parallel_share", "core_bytes_per_s"]
    return tuple(f.name for f in fields(CpuConstants) if f.name in names)


def family(record: BaselineRecord) -> tuple:
    """What records of one shape family share: op, precision, and knobs other than sizes of the batch."""
    knobs = tuple(sorted((k, str(v)) for k, v in record.knobs.items() if k not in SIZE_KNOBS))
    return (str(record.op), knobs)


def _enough(device: str, table: Table | None, names: Sequence[str]) -> None:
    count = len(table.records) if table else 0
    need = ROWS_PER_CONSTANT * max(len(names), 5)
    if count < need:
        raise CalibrationError(f"{device}: {count} op records for {len(names)} constants, expected at least {need}")
    found = len({family(r) for r in table.records}) if table else 0
    if found < MIN_FAMILIES:
        raise CalibrationError(f"{device}: {found} families of shapes, expected at least {MIN_FAMILIES}")


def _two_fold(table: Table, names: tuple[str, ...]) -> tuple[CpuConstants, np.ndarray]:
    """(constants fitted on all rows, each row predicted with constants fitted on the other half)."""
    order = {name: i for i, name in enumerate(sorted({family(r) for r in table.records}))}
    half = np.array([order[family(r)] % 2 for r in table.records])
    predicted = np.zeros(len(half))
    for fold in (0, 1):
        found = _solve(table, names, half != fold, _start(names))
        predicted[half == fold] = table.predict_s(found)[half == fold]
    return _solve(table, names, np.ones(len(half), dtype=bool), _start(names)), predicted


def _start(names: Sequence[str]) -> CpuConstants:
    """Geometric middle of the ranges; what no row depends on stays at the data sheet's value."""
    values = {}
    for f in fields(CpuConstants):
        low, high = f.metadata["low"], f.metadata["high"]
        values[f.name] = math.sqrt(low * high) if f.name in names else f.metadata["datasheet"]
    return CpuConstants(**values)


def _solve(table: Table, names: tuple[str, ...], rows: np.ndarray, start: CpuConstants) -> CpuConstants:
    spec = {f.name: f.metadata for f in fields(CpuConstants)}
    low, high = (np.log([spec[name][end] for name in names]) for end in ("low", "high"))
    measured = table.measured_s[rows]

    def constants(x: np.ndarray) -> CpuConstants:
        return replace(start, **{name: float(np.exp(v)) for name, v in zip(names, x, strict=True)})

    def residual(x: np.ndarray) -> np.ndarray:
        return np.log(table.predict_s(constants(x))[rows] / measured)

    inside = 1e-3 * (high - low)
    first = np.clip(np.log([getattr(start, name) for name in names]), low + inside, high - inside)
    found = least_squares(residual, first, bounds=(low, high), loss="soft_l1", f_scale=ROBUST_SCALE, max_nfev=60)
    return _unseen(constants(found.x), names)


def _unseen(constants: CpuConstants, names: Sequence[str]) -> CpuConstants:
    """Classes of products without rows take the efficiency of matrix products."""
    missing = [name for name in _EFFICIENCY.values() if name not in names]
    return replace(constants, **dict.fromkeys(missing, constants.gemm_efficiency))


def _residuals(
    table: Table, held_out: np.ndarray, whole: Table | None, constants: CpuConstants
) -> tuple[Residuals, dict[str, Mapping[str, float | int | None]]]:
    """Deviations by part and error statistics, both on what the constants had not seen."""
    measured = table.measured_s
    labels = np.array([_label(table, i) for i in range(len(measured))])
    log_error = np.log(measured / held_out)
    error: dict[str, Mapping[str, float | int | None]] = {}
    classes: dict[str, tuple[float, float]] = {}
    for name in np.unique(labels):
        at = labels == name
        error[str(name)] = error_statistics(held_out[at], measured[at]).to_dict()
        count = len({family(r) for r, yes in zip(table.records, at, strict=True) if yes})
        own = 1.4826 * float(np.median(np.abs(log_error[at] - np.median(log_error[at]))))
        classes[str(name)] = (max(abs(float(np.median(log_error[at]))), own / math.sqrt(count)), own)
    if whole is None:
        return Residuals(device=UNSEEN_DEVICE, classes=classes), error
    predicted = whole.predict_s(constants)
    error["networks"] = error_statistics(predicted, whole.measured_s).to_dict()
    log_whole = np.log(whole.measured_s / predicted)
    device = abs(float(np.median(log_whole))) if len(log_whole) >= 3 else UNSEEN_DEVICE
    scores = np.abs(log_whole) / np.array(
        [_deviation(whole, i, constants, device, classes) for i in range(len(log_whole))]
    )
    rank = math.ceil((len(scores) + 1) * COVERAGE)
    conformal = float(np.sort(scores)[rank - 1]) if len(scores) >= FEW_MODELS and rank <= len(scores) else None
    return Residuals(device=device, classes=classes, conformal=conformal, models=len(scores)), error


def _label(table: Table, record: int) -> str:
    """The class that takes most of a record's MACs, or its first op's."""
    at = np.flatnonzero(table.owner == record)
    return CLASSES[int(table.work.kind[at[np.argmax(table.work.macs[at])]])]


def _deviation(
    whole: Table, record: int, constants: CpuConstants, device: float, parts: Mapping[str, tuple[float, float]]
) -> float:
    """Deviation that the parts give for one network; classes without rows count as the widest known."""
    at = np.flatnonzero(whole.owner == record)
    times = cpu_time(whole.work, whole.machine, constants, host=whole.host).total_s[at]
    names = [CLASSES[int(k)] for k in whole.work.kind[at]]
    widest = max(parts.values(), key=lambda pair: pair[0] ** 2 + pair[1] ** 2)
    known = {name: parts.get(name, widest) for name in names}
    problems = list(zip(whole.work.macs[at], whole.work.passing_bytes[at], times, strict=True))
    return max(1e-6, log_deviation(list(times), names, problems, device=device, parts=known))
