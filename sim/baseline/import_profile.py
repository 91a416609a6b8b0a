"""Profiles taken elsewhere, read into baseline records: TensorRT layers, torch-profiler traces, plain CSV."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

from sim.baseline.record import BaselineRecord, Kind, Spread
from sim.baseline.timing import Plan, summarise
from sim.errors import MeasurementError, expect, nearest, shown, whole, why
from sim.workload.precision import parse_precision

FORMATS = ("tensorrt", "torch", "csv")

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

SHORTEST_OWN_US = 1e-3
"""A trace states whole nanoseconds: what is left of an op below one is rounding."""

_GZIP, _UTF_16 = b"\x1f\x8b", (b"\xff\xfe", b"\xfe\xff")
"""How such files begin."""

_CSV_TIME = re.compile(r"(?:latency|time|duration|median)_(s|ms|us|ns)$")

_TORCH_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
"""Events that ran on the device; a trace without them is of a CPU, and the own time of its cpu_op events is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """An op of a profile: times of its runs [s], or one time that stands for `count` of them."""

    name: str
    samples_s: tuple[float, ...]
    count: int
    median: bool = False
    """Whether the one time is the median of the runs, not their mean."""


def import_profile(
    path: str | Path, *, device: str, precision: str, workload: str = "", backend: str | None = None,
    op_map: Mapping[str, str] | None = None,
) -> tuple[BaselineRecord, ...]:  # fmt: skip
    """Records of kind `imported`, one per op, in the profile's order.

    Args:
        op_map: profile's name -> our op name; a name that it lacks is kept. Ops of the profile that become one of ours
            are added up. An unused entry is an error.
    Raises: MeasurementError: unreadable, empty, of a format that is none of FORMATS, or ops to be added up that ran
        different numbers of times; PrecisionError: an unknown precision.
    """
    expect(path, (str, Path), "the path of a profile", where="import_profile", error=MeasurementError)
    path = Path(path)
    for what, value in (("device", device), ("precision", precision), ("workload", workload)):
        expect(value, str, "a name", where=f"import_profile: {what}", error=MeasurementError)
    expect(op_map or {}, Mapping, "a map from the profile's name to ours", where="import_profile: op_map",
           error=MeasurementError)  # fmt: skip
    parse_precision(precision)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", device):
        raise MeasurementError(
            f'device "{device}" is no name: expected letters, digits, "-", "_" and ".", as nvidia-h200'
        )
    text = _text(path)
    kind, timed = parse_profile(text, where=str(path))
    mapping = dict(op_map or {})
    for name in mapping:
        names = [t.name for t in timed]
        if name not in names:
            raise MeasurementError(f'{path}: the op map names "{name}", which the profile lacks.{nearest(name, names)}')
    runtime = {"tensorrt": "tensorrt", "torch": "torch", "csv": "csv"}[kind]
    parts: dict[str, list[Timed]] = {}
    for item in timed:
        parts.setdefault(mapping.get(item.name, item.name), []).append(item)
    return tuple(
        _record(
            _together(several, name, str(path)), name=name, device=device, precision=precision, workload=workload,
            backend=backend or runtime, source=f"{kind} profile {path.name}",
        )
        for name, several in parts.items()
    )  # fmt: skip


def _together(parts: list[Timed], name: str, where: str) -> Timed:
    """What one op of ours takes of which the profile has several: run by run their sum."""
    if len({(part.count, len(part.samples_s)) for part in parts}) > 1:
        runs = ", ".join(f'"{part.name}" {part.count}' for part in parts)
        raise MeasurementError(
            f"{where}: the op map makes one {name} of ops that ran {runs} times: expected equally many, to add them up"
        )
    samples = tuple(map(sum, zip(*(part.samples_s for part in parts), strict=True)))
    names = " + ".join(dict.fromkeys(part.name for part in parts))
    return Timed(name=names, samples_s=samples, count=parts[0].count, median=all(part.median for part in parts))


def _text(path: Path) -> str:
    """What the file says, also where it is packed by gzip, as torch.profiler writes NAME.json.gz, or in UTF-16, as a
    Windows shell writes what is redirected."""
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        return data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MeasurementError(f"{path}: cannot be read as text: {why(error)}") from error


def _record(
    item: Timed, *, name: str, device: str, precision: str, workload: str, backend: str, source: str
) -> BaselineRecord:
    timing = summarise(item.samples_s, Plan()) if len(item.samples_s) > 1 else None
    marks = [] if name == item.name else [f'profile calls it "{item.name}"']
    if timing and timing.noisy:  # nobody can measure it again here, so that the number stays
        marks.append(f"measured here it would have no number: {timing.reason}")
    kind = "median" if item.median else "mean"
    of_one = "the profile's single run" if item.count == 1 else f"{kind} of the profile's runs, as the profile gives it"
    spread: Spread | None = timing.spread if timing else None
    median_s = timing.median_s if timing else item.samples_s[0]
    return BaselineRecord(
        device=device, backend=backend, kind=Kind.IMPORTED, op=name, precision=precision, median_s=median_s,
        spread=spread, n=item.count, outliers_s=timing.outliers_s if timing else (), source=source, scenario=workload,
        method="median of the profile's runs" if timing else of_one, marks=tuple(marks),
    )  # fmt: skip


def parse_profile(text: str, *, where: str) -> tuple[str, tuple[Timed, ...]]:
    """(format, ops). The format is recognised by its content."""
    if not text.strip():
        raise MeasurementError(f"{where}: the file is empty")
    if text.lstrip()[0] in "[{":
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise MeasurementError(f"{where}: looks like JSON but is broken: {error}") from error
        if isinstance(data, dict) and "traceEvents" in data:
            return "torch", _torch(data["traceEvents"], where)
        if isinstance(data, list) and any(isinstance(e, dict) and not e.keys().isdisjoint(_LAYER_MS) for e in data):
            return "tensorrt", _tensorrt(data, where)
        if isinstance(data, list) and any(isinstance(e, dict) and "ph" in e for e in data):
            return "torch", _torch(data, where)
        raise MeasurementError(f"{where}: JSON of unknown form.{_EXPECTED}")
    return "csv", _csv(text, where)


_LAYER_MS = ("medianMs", "averageMs", "timeMs")
"""Times of a TensorRT layer: of one run twice, and of all runs together. The median since TensorRT 8.2."""
_EXPECTED = (
    " Expected trtexec --exportProfile (a list of {name, averageMs}), a Chrome trace of torch.profiler "
    "(traceEvents), or CSV with a header such as op,latency_ms"
)


def _tensorrt(entries: Iterable[object], where: str) -> tuple[Timed, ...]:
    """trtexec --exportProfile: [{"count": n}, {"name", "timeMs", "averageMs", "medianMs", "percentage"}, ...]: the
    median where there is one, else the mean, else the time of all runs, timeMs, over their count."""
    count: int | None = None
    found = []
    for number, entry in enumerate(entries):
        place = f"{where}: entry {number}"
        if not isinstance(entry, dict):
            raise MeasurementError(f"{place} is {shown(entry)}, expected a layer")
        if set(entry) == {"count"}:
            count = whole(entry["count"], where=f"{place}: count", error=MeasurementError)
        elif "name" in entry and not entry.keys().isdisjoint(_LAYER_MS):
            stated = next((key for key in ("medianMs", "averageMs") if key in entry), "")
            if stated:
                seconds = _number(entry, stated, place) * 1e-3
            elif count is not None:
                seconds = _number(entry, "timeMs", place) * 1e-3 / count
            else:
                raise MeasurementError(
                    f"{place} has timeMs, the time of all runs, without averageMs: expected an entry "
                    '{"count": runs} before it'
                )
            if seconds > 0:  # layers that were folded away are listed with zero
                median = stated == "medianMs"
                found.append(Timed(name=_name(entry, place), samples_s=(seconds,), count=count or 1, median=median))
        else:
            raise MeasurementError(f"{place} has neither count nor name and medianMs, averageMs or timeMs")
    return _some(found, where)


def _number(entry: Mapping[str, object], key: str, place: str) -> float:
    """Raises: MeasurementError: no finite number, or a negative one."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise MeasurementError(f"{place}: {key} is {shown(value)}, expected a number, 0 or more")
    return float(value)


def _name(entry: Mapping[str, object], place: str) -> str:
    value = entry.get("name")
    if not isinstance(value, str) or not value.strip():
        raise MeasurementError(f"{place}: name is {shown(value)}, expected the name of an op")
    return value


def _torch(events: object, where: str) -> tuple[Timed, ...]:
    """Complete events ("ph": "X", duration in us) of device kernels; of a CPU trace every cpu_op with its own time."""
    if not isinstance(events, list):
        raise MeasurementError(f"{where}: traceEvents is {shown(events)}, expected a list")
    of: dict[str, list[dict]] = {}
    for number, event in enumerate(events):
        kind = event.get("cat") if isinstance(event, dict) and event.get("ph") == "X" else None
        if kind == "cpu_op" or kind in _TORCH_CATEGORIES:
            place = f"{where}: event {number}"
            kept = {"name": _name(event, place), "pid": event.get("pid"), "tid": event.get("tid")}
            kept |= {key: _number(event, key, place) for key in ("ts", "dur")}
            if kept["dur"] > 0:
                of.setdefault("cpu_op" if kind == "cpu_op" else "device", []).append(kept)
    samples: dict[str, list[float]] = {}
    for event in of.get("device") or _own_times(of.get("cpu_op", [])):
        samples.setdefault(event["name"], []).append(event["dur"] * 1e-6)
    return _some([Timed(name=n, samples_s=tuple(s), count=len(s)) for n, s in samples.items()], where)


def _own_times(events: list[dict]) -> list[dict]:
    """Events with the time that each spends outside those within it, as torch.profiler's "self" time; those that spend
    none left out. They sum to the time of the outermost ones: a convolution's work is its own, although it allocates
    its output in an op of its own."""
    own, threads = [], dict[object, list[dict]]()
    for event in events:
        threads.setdefault((event["pid"], event["tid"]), []).append(
            {**event, "end": event["ts"] + event["dur"], "own": event["dur"]}
        )
    for group in threads.values():
        group.sort(key=lambda e: (e["ts"], -e["dur"]))
        around: list[dict] = []
        for event in group:
            while around and around[-1]["end"] <= event["ts"]:
                around.pop()
            if around:
                around[-1]["own"] -= min(event["dur"], around[-1]["end"] - event["ts"])
            around.append(event)
        own += [{**event, "dur": event["own"]} for event in group if event["own"] > SHORTEST_OWN_US]
    return own


def _csv(text: str, where: str) -> tuple[Timed, ...]:
    """A header with `op` (or `name`) and one time column with its unit, such as latency_ms; rows of one op are runs."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        header = [(name or "").strip() for name in rows.fieldnames or []]
        rows.fieldnames = header
        name_column = next((c for c in ("op", "name", "layer", "kernel") if c in header), None)
        times = [(c, m.group(1)) for c in header if (m := _CSV_TIME.match(c))]
        if name_column is None or len(times) != 1:
            raise MeasurementError(f"{where}: line 1 is {header}, unknown format.{_EXPECTED}")
        column, unit = times[0]
        samples: dict[str, list[float]] = {}
        for row in rows:
            place = f"{where}:{rows.line_num}"
            if None in row:
                raise MeasurementError(f"{place}: more cells than the {len(header)} of the header")
            seconds = _seconds(row[column]) * SECONDS[unit]
            if not 0 < seconds < inf:
                raise MeasurementError(f"{place}: {column} is {row[column]!r}, expected a positive number of {unit}")
            samples.setdefault(_name({"name": row[name_column]}, place).strip(), []).append(seconds)
    except csv.Error as error:
        raise MeasurementError(f"{where}:{rows.line_num}: not CSV: {error}") from error
    return _some([Timed(name=n, samples_s=tuple(s), count=len(s)) for n, s in samples.items()], where)


def _seconds(cell: str | None) -> float:
    """The number in a cell; 0 where there is none."""
    try:
        return float(cell or 0)
    except ValueError:
        return 0.0


def _some(found: list[Timed], where: str) -> tuple[Timed, ...]:
    if not found:
        raise MeasurementError(f"{where}: no op with a positive time in it")
    return tuple(found)


def read_op_map(path: Path) -> dict[str, str]:
    """An op map: CSV with two columns, `profile,ours`, with that header.

    Raises: MeasurementError: unreadable, another header, a line that is no pair, or an op that stands twice.
    """
    lines = list(csv.reader(_text(path).splitlines()))
    if not lines or [c.strip() for c in lines[0]] != ["profile", "ours"]:
        raise MeasurementError(f'{path}: expected the header "profile,ours", found {lines[0] if lines else "nothing"}')
    found: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        if len(line) != 2 or not all(cell.strip() for cell in line):
            raise MeasurementError(f"{path}:{number}: expected an op of the profile and ours, found {line}")
        name = line[0].strip()
        if name in found:
            raise MeasurementError(f'{path}:{number}: "{name}" stands twice, for {found[name]} too')
        found[name] = line[1].strip()
    return found
