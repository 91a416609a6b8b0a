"""`dovetail measure` and `dovetail import-profile`: words around `sim.baseline`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.common import document, print_json, say, show
from sim.cli.common import knobs as parse_knobs
from sim.cli.estimate import CalibrationOption

if TYPE_CHECKING:
    from sim.baseline.compare import Comparison, Row
    from sim.baseline.device import CpuDevice, CudaDevice
    from sim.baseline.grid import Point
    from sim.baseline.record import BaselineRecord


def measure(
    target: Annotated[
        str, typer.Argument(metavar="WORKLOAD|GRID", help="A workload, an op such as gemm, a grid's name or YAML file.")
    ],
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    compare: Annotated[
        str | None, typer.Option(metavar="CHIP", help="Print the estimate on this chip beside it.")
    ] = None,
    calibration: CalibrationOption = "auto",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Baseline file to append to. Default: baselines/<device>.jsonl."),
    ] = None,
    p: Annotated[
        list[str] | None, typer.Option("-p", "--param", metavar="KNOB=VALUE", help="Knob of the workload or op.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="Of a single workload or op; default fp32.")] = None,
    mode: Annotated[str | None, typer.Option(help="eager (default), compile, or on CUDA graph.")] = None,
    phase: Annotated[str | None, typer.Option(help="warm (default), or cold with rotated operands.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default all cores.")] = None,
    rounds: Annotated[
        int, typer.Option(help="Fresh processes that measure every point, one after the other; 1: this one alone.")
    ] = 3,
    time_limit: Annotated[float | None, typer.Option(help="Seconds after which no further point is begun.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document: the records of this run; with --compare, its rows too.")
    ] = False,
) -> None:
    """Time ops and workloads on this machine; every record is appended at once, and a killed run resumes."""
    import shlex
    import sys

    from sim.baseline.device import open_device
    from sim.baseline.rounds import measure_rounds
    from sim.baseline.runner import measure_points, origin, prepare_process, resolved
    from sim.errors import MeasurementError

    if time_limit is not None and not time_limit > 0:
        raise MeasurementError(f"--time-limit {time_limit:g}: expected a number of seconds above 0")
    points = _points(target, knobs=parse_knobs(p or []), precision=precision, mode=mode, phase=phase)
    rests_on = _rests_on(compare, calibration) if compare else ""
    machine = open_device(device, threads)
    file = output or Path("baselines") / f"{machine.key}.jsonl"
    command = shlex.join(["dovetail", *sys.argv[1:]])
    records: tuple[BaselineRecord, ...]
    if rounds == 1:
        prepare_process(machine)
        run = origin(machine, command=command)
        outcome = measure_points(points, machine=machine, output=file, run=run, progress=say, time_limit_s=time_limit)
        records, skipped, left = outcome.records, len(outcome.skipped), outcome.left
    else:
        again = ["--device", device, *(word for knob in p or [] for word in ("-p", knob))]
        chosen = {"--precision": precision, "--mode": mode, "--phase": phase}
        again += [word for option, value in chosen.items() if value is not None for word in (option, value)]
        again += [] if threads is None else ["--threads", str(threads)]
        keyed = {point.key(machine.key, machine.threads): point for point in map(resolved, points)}
        combined = measure_rounds(
            keyed, output=file, rounds=rounds, start=partial(_one_round, [target, *again]), command=command,
            progress=say, time_limit_s=time_limit,
        )  # fmt: skip
        records, skipped, left = combined.records, 0, combined.left
    say(
        f"{file}: {len(records)} records ({sum(r.noisy for r in records)} too noisy for a number), "
        f"{skipped} skipped, {len(points) - len(records) - skipped - left} already there, {left} left"
    )
    compared: list[Comparison] = []
    if compare:
        prepare_process(machine)
        compared = _comparisons(points, machine, file, compare, calibration)
    if json:
        print_json(_document(records, compared, compare, rests_on))
    else:
        for comparison in compared:
            _show_comparison(comparison, f"{compare}, {rests_on}")
    asked = records or skipped or (rounds > 1 and left)
    if asked and all(record.noisy for record in records):  # none of the points has a number
        raise typer.Exit(1)


def _document(
    records: Sequence[BaselineRecord], compared: Sequence[Comparison], chip: str | None, rests_on: str
) -> object:
    """The records of this run; with a chip to compare with, beside the rows that the table has."""
    documents = [record.to_dict() for record in records]
    if chip is None:
        return documents
    rows = compared[0].to_dict() if compared else None
    return document("measure", {"records": documents, "hardware": chip, "rests_on": rests_on, "comparison": rows})


def _one_round(words: list[str], file: Path, time_limit_s: float | None) -> int:
    """The same points in a fresh process, its progress on stderr; its exit status."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "sim", "measure", *words, "--rounds", "1", "-o", str(file)]
    command += [] if time_limit_s is None else ["--time-limit", f"{max(time_limit_s, 1e-3):.3f}"]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode


def _points(target: str, *, knobs: dict, precision: str | None, mode: str | None, phase: str | None) -> list[Point]:
    """The points that the target stands for: a grid's, or one."""
    from sim.baseline.grid import load_grid, make_point
    from sim.baseline.ops import OP_KINDS
    from sim.baseline.record import Mode, Phase
    from sim.baseline.runner import resolved
    from sim.baseline.timing import Plan
    from sim.errors import MeasurementError, nearest
    from sim.resources import data_dir
    from sim.workload.load import list_workloads

    named = data_dir("baselines") / "grids" / f"{target}.yaml"
    if named.is_file() or target.endswith((".yaml", ".yml")):
        if knobs:
            raise MeasurementError(f"{target} is a grid, which has no knobs: -p is for a single workload or op")
        for option, value in (("--precision", precision), ("--mode", mode), ("--phase", phase)):
            if value is not None:
                raise MeasurementError(
                    f"{target} is a grid, whose points say it: {option} is for a single workload or op"
                )
        return list(load_grid(named if named.is_file() else Path(target)).points)
    precision, mode, phase = precision or "fp32", mode or "eager", phase or "warm"
    for what, value, enum in (("mode", mode, Mode), ("phase", phase, Phase)):
        if value not in list(enum):
            raise MeasurementError(f"--{what} {value}: expected {', '.join(enum)}.{nearest(value, list(enum))}")
    is_op = target in OP_KINDS
    workloads, grids = [d.path.stem for d in list_workloads()], [p.stem for p in sorted(named.parent.glob("*.yaml"))]
    if not is_op and target not in workloads and not re.search(r"[./:]", target):
        raise MeasurementError(
            f'"{target}" is unknown: expected a workload ({", ".join(workloads)}), the path of one, an op '
            f"({', '.join(OP_KINDS)}) or a grid ({', '.join(grids)}, or a .yaml file)."
            f"{nearest(target, [*workloads, *OP_KINDS, *grids])}"
        )
    if is_op and target in ("gemm", "conv2d") and not knobs:
        is_op = False  # the workloads of these names have defaults
    point = make_point(
        op=target if is_op else None,
        workload=None if is_op else target,
        knobs=_integers(knobs) if is_op else knobs,
        precision=precision,
        mode=Mode(mode),
        phase=Phase(phase),
        plan=Plan(time_limit_s=10.0),
        energy_s=2.0,
    )
    return [resolved(point, strict=True)]


def _integers(knobs: dict[str, str]) -> dict[str, int]:
    """Parameters of an op are whole numbers."""
    from sim.errors import MeasurementError

    for name, text in knobs.items():
        if not text.isdecimal():
            raise MeasurementError(f"-p {name}={text}: expected a whole number")
    return {name: int(text) for name, text in knobs.items()}


def _rests_on(hardware: str, calibration: str) -> str:
    """What the estimates rest on. Raises: ConfigError, CalibrationError: an unknown chip or choice."""
    import sim
    from sim.schedule.confidence import calibration_label

    return calibration_label(sim.load_hardware(hardware), calibration)


def _comparisons(
    points: list[Point], machine: CpuDevice | CudaDevice, file: Path, hardware: str, calibration: str
) -> list[Comparison]:
    """Ops in one table; each workload per module."""
    from sim.baseline.compare import compare_point_modules, compare_records
    from sim.baseline.record import read_baseline
    from sim.baseline.runner import resolved

    latest = read_baseline(file).latest
    found = [(p, latest.get(p.key(machine.key, machine.threads))) for p in map(resolved, points)]
    noisy = [point for point, record in found if record is not None and record.median_s is None]
    if noisy:
        what = str(noisy[0]) if len(noisy) == 1 else f"{len(noisy)} points"
        say(f"{what}: too noisy for a number, so not compared; measure again on a quieter machine")
    if len(noisy) == len(found):
        return []
    single = [(p, r) for p, r in found if r is not None and p.workload]
    if len(found) == 1 and single:
        return [compare_point_modules(*single[0], machine=machine, hardware=hardware, calibration=calibration)]
    return [compare_records([r for _, r in found if r is not None and r.median_s is not None], hardware, calibration)]


def _show_comparison(comparison: Comparison, hardware: str) -> None:
    from sim.view.fitted import Shorten, fitted, number, words

    if not comparison.rows:
        say(f"nothing to compare with {hardware}: no point has a number")
        return
    lines = []
    for row in (*comparison.rows, comparison.total):
        ratio = "" if row.ratio is None else _two_digits(row.ratio)
        lines.append((row.name, _duration(row.measured_s), _duration(row.estimated_s), ratio))
    heads = (words("op or module", shorten=Shorten.LEFT, at_least=28), number("measured"), number("estimated", drop=1),
             number("ratio"))  # fmt: skip
    notes = _notes(comparison.rows) + ([f"total: {comparison.total.note}"] if comparison.total.note else [])
    show(fitted(f"Measured against the estimate on {hardware}", heads, lines), *notes)


def _notes(rows: Sequence[Row]) -> list[str]:
    """A line for each note, of the row or of how many rows it is."""
    of: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            of.setdefault(row.note, []).append(row.name)
    return [f"{names[0] if len(names) == 1 else f'{len(names)} rows'}: {note}" for note, names in of.items()]


def _two_digits(ratio: float) -> str:
    """0.00123 -> "0.0012", 1 -> "1.0", 123 -> "120"."""
    rounded = float(f"{ratio:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{ratio:#.2g}"


def _duration(seconds: float | None) -> str:
    from sim.view.rows import time_text

    return "" if seconds is None else time_text(seconds)


def import_profile(
    file: Annotated[Path, typer.Argument(help="TensorRT layer profile, torch-profiler trace, or CSV.")],
    device: Annotated[
        str | None, typer.Option(help="Key of the device that was profiled, e.g. nvidia-h200; needed to keep records.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="Precision that it ran at; needed to keep records.")] = None,
    workload: Annotated[str, typer.Option(help="Workload that was profiled.")] = "",
    op_map: Annotated[Path | None, typer.Option(help="CSV with the header profile,ours.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: baselines/<device>.jsonl.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the records; write no file unless -o is given.")] = False,
) -> None:
    """Turn a profile taken elsewhere into baseline records; without device and precision show its ops."""
    from sim.baseline.import_profile import import_profile as read
    from sim.baseline.import_profile import read_op_map
    from sim.baseline.record import append_record, check_writable
    from sim.errors import MeasurementError

    keeps = bool(workload or output or json)
    records = read(
        file, device=device or "unnamed", precision=precision or "fp32", workload=workload,
        op_map=read_op_map(op_map) if op_map else None,
    )  # fmt: skip
    if device is None or precision is None:
        lacks = " and ".join(o for o, value in (("--device", device), ("--precision", precision)) if value is None)
        if keeps:
            raise MeasurementError(f"{file}: a record says what ran it and how; give {lacks}")
        _show_profile(records, title=f"{file}, {records[0].source.split(' profile ')[0]} profile")
        say(f"nothing is kept: give {lacks} for records")
        return
    target = output or (None if json else Path("baselines") / f"{device}.jsonl")
    if target:
        check_writable(target)
    for record in records if target else ():
        append_record(target, record)  # type: ignore[arg-type]
    if target:
        total_s = sum(record.median_s or 0.0 for record in records)
        say(f"{target}: {len(records)} ops, {_duration(total_s)} for one run of each, from {records[0].source}")
    if json:
        print_json([record.to_dict() for record in records])


def _show_profile(records: Sequence[BaselineRecord], *, title: str) -> None:
    from sim.view.fitted import Shorten, fitted, number, words

    heads = (words("op", shorten=Shorten.LEFT, at_least=28), number("runs", drop=1), number("time"))
    show(fitted(title, heads, [(r.op or "", str(r.n), _duration(r.median_s)) for r in records]))
