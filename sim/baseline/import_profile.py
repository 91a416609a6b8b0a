"""Profiles taken elsewhere, read into baseline records: TensorRT layers, torch-profiler traces, plain CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sim.baseline.overrides import SECONDS
from sim.baseline.record import BaselineRecord, Kind, Spread
from sim.baseline.timing import Plan, summarise
from sim.errors import MeasurementError, nearest
from sim.workload.precision import parse_precision

FORMATS = ("tensorrt", "torch", "csv")

_CSV_TIME = re.compile(r"(?:latency|time|duration|median)_(s|ms|us|ns)$")

_TORCH_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
"""Events that ran on the device; a trace without them is of a CPU, and its cpu_op leaves are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """An op of a profile: times of its runs [s], or a mean of `count` runs."""

    name: str
    samples_s: tuple[float, ...]
    count: int


def import_profile(
    path: Path, *, device: str, precision: str, workload: str = "", backend: str | None = None,
    op_map: Mapping[str, str] | None = None,
) -> tuple[BaselineRecord, ...]:  # fmt: skip
    """Records of kind `imported`, one per op, in the profile's order.

    Args:
        op_map: profile's name -> our op name; a name that it lacks is kept. An unused entry is an error.
    Raises: MeasurementError: unreadable, empty, or of a format that is none of FORMATS;
        PrecisionError: an unknown precision.
    """
    parse_precision(precision)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(f"{path}: cannot be read as text: {error}") from error
    kind, timed = parse_profile(text, where=str(path))
    mapping = dict(op_map or {})
    for name in mapping:
        names = [t.name for t in timed]
        if name not in names:
            raise MeasurementError(f'{path}: the op map names "{name}", which the profile lacks.{nearest(name, names)}')
    runtime = {"tensorrt": "tensorrt", "torch": "torch", "csv": "csv"}[kind]
    return tuple(
        _record(
            item, name=mapping.get(item.name, item.name), device=device, precision=precision, workload=workload,
            backend=backend or runtime, source=f"{kind} profile {path.name}",
        )
        for item in timed
    )  # fmt: skip


def _record(
    item: Timed, *, name: str, device: str, precision: str, workload: str, backend: str, source: str
) -> BaselineRecord:
    timing = summarise(item.samples_s, Plan()) if len(item.samples_s) > 1 else None
    spread: Spread | None = timing.spread if timing else None
    median_s = timing.median_s if timing else item.samples_s[0]
    return BaselineRecord(
        device=device, backend=backend, kind=Kind.IMPORTED, op=name, precision=precision, median_s=median_s,
        spread=spread, n=item.count, outliers_s=timing.outliers_s if timing else (), source=source, scenario=workload,
        method="median of the profile's runs" if timing else "mean of the profile's runs, as the profile gives it",
        marks=() if name == item.name else (f'profile calls it "{item.name}"',),
    )  # fmt: skip


def parse_profile(text: str, *, where: str) -> tuple[str, tuple[Timed, ...]]:
    """(format, ops). The format is recognised by its content."""
    if not text.strip():
        raise MeasurementError(f"{where}: the file is empty")
    if text.lstrip()[0] in "[{":
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise MeasurementError(f"{where}: looks like JSON but is broken: {error}") from error
        if isinstance(data, dict) and "traceEvents" in data:
            return "torch", _torch(data["traceEvents"], where)
        if isinstance(data, list) and any(isinstance(e, dict) and "averageMs" in e for e in data):
            return "tensorrt", _tensorrt(data, where)
        if isinstance(data, list) and any(isinstance(e, dict) and "ph" in e for e in data):
            return "torch", _torch(data, where)
        raise MeasurementError(f"{where}: JSON of unknown form.{_EXPECTED}")
    return "csv", _csv(text, where)


_EXPECTED = (
    " Expected trtexec --exportProfile (a list of {name, averageMs}), a Chrome trace of torch.profiler "
    "(traceEvents), or CSV with a header such as op,latency_ms"
)


def _tensorrt(entries: Iterable[object], where: str) -> tuple[Timed, ...]:
    """trtexec --exportProfile: [{"count": n}, {"name", "timeMs", "averageMs", "percentage"}, ...]."""
    count, found = 1, []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise MeasurementError(f"{where}: entry {number} is {entry!r}, expected a layer")
        if set(entry) == {"count"}:
            count = int(entry["count"])
        elif "name" in entry and "averageMs" in entry:
            seconds = float(entry["averageMs"]) * 1e-3
            if seconds > 0:  # layers that were folded away are listed with zero
                found.append(Timed(name=entry["name"], samples_s=(seconds,), count=count))
        else:
            raise MeasurementError(f"{where}: entry {number} has neither count nor name and averageMs")
    return _some(found, where)


def _torch(events: object, where: str) -> tuple[Timed, ...]:
    """Complete events ("ph": "X", duration in us) of device kernels; of a CPU trace, the innermost cpu_op."""
    if not isinstance(events, list):
        raise MeasurementError(f"{where}: traceEvents is {type(events).__name__}, expected a list")
    complete = [e for e in events if isinstance(e, dict) and e.get("ph") == "X" and e.get("dur", 0) > 0]
    chosen = [e for e in complete if e.get("cat") in _TORCH_CATEGORIES]
    if not chosen:
        chosen = _leaves([e for e in complete if e.get("cat") == "cpu_op"])
    samples: dict[str, list[float]] = {}
    for event in chosen:
        samples.setdefault(str(event["name"]), []).append(float(event["dur"]) * 1e-6)
    return _some([Timed(name=n, samples_s=tuple(s), count=len(s)) for n, s in samples.items()], where)


def _leaves(events: list[dict]) -> list[dict]:
    """Events of each thread that contain no other event."""
    leaves = []
    threads: dict[object, list[dict]] = {}
    for event in events:
        threads.setdefault((event.get("pid"), event.get("tid")), []).append(event)
    for group in threads.values():
        group.sort(key=lambda e: (e["ts"], -e["dur"]))
        for event, following in zip(group, [*group[1:], None], strict=True):
            if following is None or following["ts"] >= event["ts"] + event["dur"]:
                leaves.append(event)
    return leaves


def _csv(text: str, where: str) -> tuple[Timed, ...]:
    """A header with `op` (or `name`) and one time column with its unit, such as latency_ms; rows of one op are runs."""
    rows = csv.DictReader(io.StringIO(text))
    header = [(name or "").strip() for name in rows.fieldnames or []]
    rows.fieldnames = header
    name_column = next((c for c in ("op", "name", "layer", "kernel") if c in header), None)
    times = [(c, m.group(1)) for c in header if (m := _CSV_TIME.match(c))]
    if name_column is None or len(times) != 1:
        raise MeasurementError(f"{where}: line 1 is {header}, unknown format.{_EXPECTED}")
    column, unit = times[0]
    samples: dict[str, list[float]] = {}
    for row in rows:
        try:
            seconds = float(row[column]) * SECONDS[unit]
            if not seconds > 0:
                raise ValueError("not positive")
        except (TypeError, ValueError) as error:
            raise MeasurementError(
                f"{where}:{rows.line_num}: {column} is {row[column]!r}, expected a positive number of {unit}"
            ) from error
        samples.setdefault(row[name_column].strip(), []).append(seconds)
    return _some([Timed(name=n, samples_s=tuple(s), count=len(s)) for n, s in samples.items()], where)


def _some(found: list[Timed], where: str) -> tuple[Timed, ...]:
    if not found:
        raise MeasurementError(f"{where}: no op with a positive time in it")
    return tuple(found)


def read_op_map(path: Path) -> dict[str, str]:
    """An op map: CSV with two columns, `profile,ours`, with that header."""
    lines = list(csv.reader(path.read_text().splitlines()))
    if not lines or [c.strip() for c in lines[0]] != ["profile", "ours"]:
        raise MeasurementError(f'{path}: expected the header "profile,ours", found {lines[0] if lines else "nothing"}')
    found: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != 2:
            raise MeasurementError(f"{path}:{number}: expected two columns, found {len(line)}")
        found[line[0].strip()] = line[1].strip()
    return found
