"""Baseline records: what was measured, on what, how, and how sure it is; one JSON object per line.

A baseline file is append-only. Each line is written with one system call and flushed to the disk,
so that a killed run loses at most the line it was writing; the reader names and skips a broken
line, and the next run appends after it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from math import isfinite
from pathlib import Path
from types import MappingProxyType

from sim._version import __version__
from sim.errors import MeasurementError, expect, nearest, shown

SCHEMA = "dovetail.baseline/1"


class Kind(StrEnum):
    """Where the number comes from."""

    MEASURED = "measured"
    PUBLISHED = "published"
    IMPORTED = "imported"


class Mode(StrEnum):
    """How the framework ran it: op by op, compiled, or replayed from a captured graph."""

    EAGER = "eager"
    COMPILE = "compile"
    GRAPH = "graph"


class Phase(StrEnum):
    """State of the caches: operands rotated beyond the last-level cache, or reused at once."""

    COLD = "cold"
    WARM = "warm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Scatter of the samples about their median; every sample counts, outliers too.

    `ci_low_s`..`ci_high_s` is the confidence interval of the median within the run.
    `stated_s` is what a repetition in another process should stay within: seen between processes
    (`sim.baseline.rounds`), or guessed from one (`sim.baseline.timing.stated_spread_s`).
    """

    mad_s: float
    q05_s: float
    q25_s: float
    q75_s: float
    q95_s: float
    min_s: float
    max_s: float
    ci_low_s: float
    ci_high_s: float
    confidence: float
    stated_s: float
    within_s: float | None = None
    """What one process alone would state, where `stated_s` is the spread between several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineRecord:
    """One measured, published or imported time of an op or a whole workload on one device.

    Exactly one of `op` and `workload` is set; `knobs` holds the op's parameters or the workload's
    knobs. `median_s` is None when the machine was too noisy for a number (`noisy`). `marks` says
    what was odd: a clock change, stolen time, a time below a physical bound.
    """

    device: str
    backend: str
    """ "cpu", "cuda", or the runtime of an imported profile, e.g. "tensorrt"."""
    kind: Kind
    op: str | None = None
    workload: str | None = None
    knobs: Mapping[str, object] = field(default_factory=dict)
    precision: str
    mode: Mode = Mode.EAGER
    phase: Phase = Phase.WARM
    threads: int | None = None
    median_s: float | None
    spread: Spread | None = None
    n: int
    rounds_s: tuple[float, ...] = ()
    """Medians of the processes that it was measured in (`sim.baseline.rounds`); empty: one process."""
    outliers_s: tuple[float, ...] = ()
    """Samples marked as outliers; they are part of `n` and of every statistic."""
    noisy: bool = False
    energy_j: float | None = None
    clocks: Mapping[str, float] = field(default_factory=dict)
    """ "core_hz", "memory_hz", each with "_before" or "_after"."""
    power_w: float | None = None
    work: Mapping[str, float] = field(default_factory=dict)
    """What must happen at least: "macs", "vector_flops", "bytes"."""
    bound_s: float | None = None
    """Physical lower bound of the time on this device, where its peaks are known."""
    marks: tuple[str, ...] = ()
    env: Mapping[str, object] = field(default_factory=dict)
    """driver, library versions, instruction sets, cores."""
    date: str = ""
    command: str = ""
    method: str = ""
    commit: str = ""
    source: str = ""
    licence: str = ""
    scenario: str = ""

    def __post_init__(self) -> None:
        if (self.op is None) == (self.workload is None):
            raise MeasurementError(
                f"a baseline record names either an op or a workload: op={self.op!r}, workload={self.workload!r}"
            )
        if self.median_s is None and not self.noisy:
            raise MeasurementError(f"{self.target}: a record without median_s must be marked noisy")
        if self.median_s is not None and not self.median_s > 0:
            raise MeasurementError(f"{self.target}: median_s is {self.median_s}, expected a positive number of seconds")
        if self.kind is Kind.PUBLISHED and not (self.source and self.licence):
            raise MeasurementError(f"{self.target}: a published record needs source and licence")
        for name in ("knobs", "clocks", "work", "env"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def target(self) -> str:
        """Name of the op or workload."""
        return self.op or self.workload or ""

    @property
    def below_bound(self) -> bool:
        """Whether it took less than is physically possible: not the time of this work on this device."""
        return self.median_s is not None and self.bound_s is not None and self.median_s < self.bound_s

    @property
    def key(self) -> str:
        """What makes two records repetitions of each other; a resumed run skips finished keys."""
        # Layers of two networks, or of one under two runtimes, may bear one name: an import replaces its own alone.
        imported = self.kind is Kind.IMPORTED
        target = f"{self.target} of {self.scenario} in {self.backend}" if imported else self.target
        return point_key(
            device=self.device, target=target, knobs=self.knobs, precision=self.precision, mode=self.mode,
            phase=self.phase, threads=self.threads,
        )  # fmt: skip

    def to_dict(self) -> dict[str, object]:
        """The `dovetail.baseline/1` document of one line."""
        out: dict[str, object] = {"schema": SCHEMA, "version": __version__}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Spread):
                value = asdict(value)
            elif isinstance(value, Mapping):
                value = dict(value)
            elif isinstance(value, tuple):
                value = list(value)
            out[item.name] = value
        return out


def point_key(
    *, device: str, target: str, knobs: Mapping[str, object], precision: str, mode: str, phase: str, threads: int | None
) -> str:
    """Canonical text of a point: equal for equal points, whatever the order of the knobs."""
    names = ",".join(f"{name}={knobs[name]}" for name in sorted(knobs))
    return "|".join([device, target, names, precision, str(mode), str(phase), str(threads)])


def record_from_dict(data: Mapping[str, object]) -> BaselineRecord:
    """Inverse of `BaselineRecord.to_dict`.

    `version`, what wrote it, is not kept; records of old versions lack it.
    Raises: MeasurementError: another schema, an unknown or a missing field, a value out of range.
    """
    content = dict(data)
    content.pop("version", None)
    schema = content.pop("schema", None)
    if schema != SCHEMA:
        raise MeasurementError(f'schema is {schema!r}, expected "{SCHEMA}"')
    names = [item.name for item in fields(BaselineRecord)]
    for name in content:
        if name not in names:
            raise MeasurementError(f'unknown field "{name}".{nearest(name, names)}')
    _check_types(content)
    try:
        enums: dict[str, type[StrEnum]] = {"kind": Kind, "mode": Mode, "phase": Phase}
        for name in enums.keys() & content.keys():
            content[name] = enums[name](str(content[name]))
        if content.get("spread") is not None:
            content["spread"] = Spread(**content["spread"])  # type: ignore[arg-type]
        for name in ("outliers_s", "marks", "rounds_s"):
            content[name] = tuple(content.get(name, ()))  # type: ignore[arg-type]
        return BaselineRecord(**content)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise MeasurementError(f"not a baseline record: {error}") from error


_TEXT, _OBJECT, _WHOLE, _NUMBER = (
    ((str,), "text"),
    ((dict,), "an object"),
    ((int,), "a whole number"),
    ((int, float), "a number"),
)
_TYPES = {
    **dict.fromkeys(("device", "backend", "op", "workload", "precision"), _TEXT),
    **dict.fromkeys(("date", "command", "method", "commit", "source", "licence", "scenario"), _TEXT),
    **dict.fromkeys(("knobs", "clocks", "work", "env", "spread"), _OBJECT),
    **dict.fromkeys(("rounds_s", "outliers_s", "marks"), ((list,), "a list")),
    "noisy": ((bool,), "true or false"),
    **dict.fromkeys(("n", "threads"), _WHOLE),
    **dict.fromkeys(("median_s", "energy_j", "power_w", "bound_s"), _NUMBER),
}
"""JSON types of the fields that others compute with, and their names."""
_ABSENT = frozenset({"op", "workload", "threads", "median_s", "spread", "energy_j", "power_w", "bound_s"})
"""Fields that may be null."""
_INSIDE = {
    "rounds_s": _NUMBER, "outliers_s": _NUMBER, "marks": _TEXT, "spread": _NUMBER, "clocks": _NUMBER, "work": _NUMBER,
}  # fmt: skip
"""What the lists and objects hold."""


def _check_types(content: Mapping[str, object]) -> None:
    for name in _TYPES.keys() & content.keys():
        value, (types, words) = content[name], _TYPES[name]
        if value is None and name in _ABSENT:
            continue
        if not _is(value, types):
            raise MeasurementError(f"{name} is {value!r:.60}, expected {words}")
        if name in _LEAST and value < _LEAST[name]:  # type: ignore[operator]
            raise MeasurementError(f"{name} is {value!r:.60}, expected {words} of {_LEAST[name]:g} or more")
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, part in inside:
            if name in _INSIDE and not (_is(part, _INSIDE[name][0]) or (part is None and key == "within_s")):
                raise MeasurementError(f"{name}[{key}] is {part!r:.60}, expected {_INSIDE[name][1]}")


_LEAST = {"n": 1, "threads": 1, "energy_j": 0.0, "power_w": 0.0, "bound_s": 0.0}
"""The least that a field may be."""


def _is(value: object, types: tuple[type, ...]) -> bool:
    """Of one of the types; a boolean is no number, and a number is finite."""
    if isinstance(value, float) and not isfinite(value):
        return False
    return isinstance(value, types) and (not isinstance(value, bool) or bool in types)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLine:
    """A line that could not be read: where and why."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: skipped, {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The records of a file, in file order, and the lines that were skipped."""

    records: tuple[BaselineRecord, ...]
    broken: tuple[BrokenLine, ...] = ()

    def name_broken(self, note: Callable[[str], None]) -> None:
        """Tell `note` every line that was skipped, with its place and the reason."""
        for line in self.broken:
            note(str(line))

    @property
    def latest(self) -> Mapping[str, BaselineRecord]:
        """Key -> the last record of that key."""
        return {record.key: record for record in self.records}

    @property
    def finished(self) -> frozenset[str]:
        """Keys whose last record has a number; noisy points are measured again."""
        return frozenset(key for key, record in self.latest.items() if record.median_s is not None)


@contextmanager
def claimed(path: Path, note: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Have a baseline file to oneself while measuring into it: a second process waits, for both would measure each
    other, and every point twice. That a file cannot be written shows before anything is measured.

    Raises: MeasurementError: it cannot be written.
    """
    with _opened(path) as handle:
        _lock(path, handle, note)
        yield


def _lock(path: Path, handle: int, note: Callable[[str], None]) -> None:
    """Hold the file until the handle is closed or this process ends, however it ends. Some file systems have no locks:
    told, as no reason not to measure."""
    import fcntl  # not on every platform; reading goes without

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note(f"{path}: another process measures into it, waiting for its end")
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        note(f"{path}: cannot be locked ({error.strerror}): see that no other process measures into it meanwhile")


def check_writable(path: Path) -> None:
    """Before what is to be kept in a file is measured or fitted. Raises: MeasurementError: it cannot be written."""
    with _opened(path):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A handle of a file, which is gone afterwards if it is still empty and was not there."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise MeasurementError(f"{path}: cannot be written: {error.strerror}; give another file with -o") from error
    try:
        yield handle
    finally:
        if not there and os.fstat(handle).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(handle)


def append_record(path: Path, record: BaselineRecord) -> None:
    """Append one line atomically and flush it to the disk.

    A line left unfinished by a killed run is closed first, so that it breaks nothing but itself.
    """
    line = json.dumps(record.to_dict(), sort_keys=False, separators=(",", ":"), allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            line = "\n" + line
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_baseline(path: str | Path) -> Baseline:
    """Read a baseline file; a missing file is an empty baseline, a broken line is named and skipped.

    Raises: MeasurementError: no path.
    """
    expect(path, (str, Path), "the path of a baseline file", where="read_baseline", error=MeasurementError)
    path = Path(path)
    if not path.exists():
        return Baseline(records=())
    records, broken = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            if not isinstance(data, dict):
                raise MeasurementError(f"expected a JSON object, found {type(data).__name__}")
            records.append(record_from_dict(data))
        except (ValueError, RecursionError, MeasurementError) as error:
            broken.append(BrokenLine(path=str(path), line=number, reason=str(error)))
    return Baseline(records=tuple(records), broken=tuple(broken))


def records_with_numbers(
    paths: Iterable[str | Path], note: Callable[[str], None] = lambda line: None
) -> tuple[BaselineRecord, ...]:
    """The last record of every key that has a number, over several files: what scores and searches read. `note` is
    told every broken line. Raises: MeasurementError: no list of paths."""
    if isinstance(paths, str | Path) or not isinstance(paths, Iterable):
        raise MeasurementError(f"records_with_numbers: expected a list of paths of baseline files, got {shown(paths)}")
    found = []
    for path in paths:
        held = read_baseline(path)
        held.name_broken(note)
        found += [record for record in held.latest.values() if record.median_s is not None]
    return tuple(found)
