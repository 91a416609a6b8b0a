"""Grid files: which points to measure. YAML in `baselines/grids/`.

schema: dovetail.grid/1
name: cpu-ops
plan: {time_limit_s: 1.0}                 # fields of sim.baseline.timing.Plan, and energy_s
points:
  - op: gemm                              # or `workload: resnet50`
    precision: [fp32, bf16, int8]
    mode: [eager]                         # eager | compile | graph
    phase: [warm]                         # warm | cold
    each: [{m: 512, n: 512, k: 512}]      # knobs, one point each
    product: {m: [1, 16], n: [4096], k: [4096]}   # or every combination
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from math import inf
from pathlib import Path

from sim.baseline.ops import op_spec
from sim.baseline.record import Mode, Phase, point_key
from sim.baseline.timing import Plan
from sim.errors import MeasurementError, PrecisionError, nearest, shown, whole
from sim.workload.precision import parse_precision

GRID_SCHEMA = "dovetail.grid/1"

_FILE_KEYS = ("schema", "name", "description", "plan", "points")
_ENTRY_KEYS = ("op", "workload", "precision", "mode", "phase", "each", "product", "plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One thing to measure. Ops carry all their parameters, workloads the knobs that were given."""

    op: str | None = None
    workload: str | None = None
    workload_path: str = ""
    """What finds the workload, once `workload` is its short name."""
    knobs: Mapping[str, object] = field(default_factory=dict)
    precision: str
    mode: Mode = Mode.EAGER
    phase: Phase = Phase.WARM
    plan: Plan = field(default_factory=Plan)
    energy_s: float = 0.0

    @property
    def target(self) -> str:
        return self.op or self.workload or ""

    def key(self, device: str, threads: int | None) -> str:
        """As `BaselineRecord.key`."""
        return point_key(
            device=device, target=self.target, knobs=self.knobs, precision=self.precision, mode=self.mode,
            phase=self.phase, threads=threads,
        )  # fmt: skip

    def __str__(self) -> str:
        knobs = " ".join(f"{name}={value}" for name, value in self.knobs.items())
        return " ".join(filter(None, (self.target, knobs, self.precision, self.mode, self.phase)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    name: str
    points: tuple[Point, ...]


def load_grid(path: Path) -> Grid:
    """Read a grid file. Raises: ConfigError: no such file, not YAML; MeasurementError: with the file and the entry."""
    from sim.hardware.load import read_yaml

    return grid_from_dict(read_yaml(path), where=str(path))


def grid_from_dict(data: object, *, where: str) -> Grid:
    """Check and expand a grid. Points keep the order of the file; equal points are an error."""
    if not isinstance(data, dict) or data.get("schema") != GRID_SCHEMA:
        raise MeasurementError(f'{where}: expected a mapping with schema: "{GRID_SCHEMA}"')
    _check_keys(data, _FILE_KEYS, where)
    plan, energy_s = _plan(data.get("plan", {}), Plan(), 0.0, f"{where}: plan")
    points: list[Point] = []
    entries = data.get("points") or []
    if not isinstance(entries, list):
        raise MeasurementError(f"{where}: points: expected a list of entries, got {shown(entries)}")
    for number, entry in enumerate(entries):
        points += _entry(entry, plan, energy_s, f"{where}: points[{number}]")
    if not points:
        raise MeasurementError(f"{where}: no points")
    seen: set[str] = set()
    for point in points:
        key = point.key("", None)
        if key in seen:
            raise MeasurementError(f"{where}: the point {point} appears twice")
        seen.add(key)
    return Grid(name=str(data.get("name", Path(where).stem)), points=tuple(points))


def _check_keys(data: Mapping, known: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in known:
            raise MeasurementError(
                f'{where}: unknown key "{key}": expected {", ".join(known)}.{nearest(str(key), known)}'
            )


def _plan(data: Mapping, plan: Plan, energy_s: float, where: str) -> tuple[Plan, float]:
    if not isinstance(data, dict):
        raise MeasurementError(f"{where}: expected a map such as {{time_limit_s: 1.0}}, got {shown(data)}")
    _check_keys(data, (*(item.name for item in fields(Plan)), "energy_s"), where)
    for name, value in data.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < inf:
            raise MeasurementError(f"{where}: {name} is {value!r}, expected a number, not negative")
        if name.endswith("_samples"):
            whole(value, where=f"{where}: {name}", least=int(name == "max_samples"), error=MeasurementError)
        if name == "confidence" and value >= 1:
            raise MeasurementError(f"{where}: confidence is {value!r}, expected a number below 1, such as 0.95")
    changes = {name: value for name, value in data.items() if name != "energy_s"}
    return replace(plan, **changes), float(data.get("energy_s", energy_s))


def _listed(value: object, default: str) -> list[str]:
    if value is None:
        return [default]
    return [str(v) for v in value] if isinstance(value, list) else [str(value)]


def _entry(entry: object, plan: Plan, energy_s: float, where: str) -> Iterator[Point]:
    if not isinstance(entry, dict) or ("op" in entry) == ("workload" in entry):
        raise MeasurementError(f"{where}: expected a mapping with either op or workload")
    _check_keys(entry, _ENTRY_KEYS, where)
    plan, energy_s = _plan(entry.get("plan", {}), plan, energy_s, f"{where}.plan")
    for name in ("op", "workload"):
        if name in entry and not isinstance(entry[name], str):
            raise MeasurementError(f"{where}: {name}: expected a name, got {shown(entry[name])}")
    lists, each = entry.get("product", {}), entry.get("each", [])
    if not isinstance(lists, dict):
        raise MeasurementError(f"{where}: product: expected a map from knob to values, got {shown(lists)}")
    if not isinstance(each, list) or not all(isinstance(knobs, dict) for knobs in each):
        raise MeasurementError(f"{where}: each: expected a list of maps from knob to value, got {shown(each)}")
    combinations = [dict(zip(lists, values, strict=True)) for values in product(*map(_as_list, lists.values()))]
    knob_sets = [*each, *(combinations if lists else [])] or [{}]
    try:
        modes = [Mode(m) for m in _listed(entry.get("mode"), "eager")]
        phases = [Phase(p) for p in _listed(entry.get("phase"), "warm")]
    except ValueError as error:
        raise MeasurementError(f"{where}: {error}: mode is eager, compile or graph, phase is cold or warm") from error
    for knobs, precision, mode, phase in product(knob_sets, _listed(entry.get("precision"), "fp32"), modes, phases):
        yield make_point(
            op=entry.get("op"), workload=entry.get("workload"), knobs=knobs, precision=precision, mode=mode,
            phase=phase, plan=plan, energy_s=energy_s, where=where,
        )  # fmt: skip


def _as_list(value: object) -> list:
    return value if isinstance(value, list) else [value]


def make_point(
    *, op: str | None, workload: str | None, knobs: Mapping[str, object], precision: str, mode: Mode = Mode.EAGER,
    phase: Phase = Phase.WARM, plan: Plan, energy_s: float = 0.0, where: str = "",
) -> Point:  # fmt: skip
    """A checked point. Raises: MeasurementError, PrecisionError: with `where` in front."""
    try:
        if op is not None:
            knobs = op_spec(op, knobs, precision).params
        else:
            parse_precision(precision)
            if phase is Phase.COLD:
                raise MeasurementError("a whole workload is measured warm: its weights are its own working set")
    except (MeasurementError, PrecisionError) as error:
        raise type(error)(f"{where}: {error}" if where else str(error)) from error
    return Point(
        op=op, workload=workload, knobs=dict(knobs), precision=precision, mode=mode, phase=phase, plan=plan,
        energy_s=energy_s,
    )  # fmt: skip


def in_turn(points: Sequence[Point]) -> list[Point]:
    """One point of each op or workload, then the next of each: what is left when the time is up is not a whole class.

    Example: a1 a2 a3 b1 b2 c1 becomes a1 b1 c1 a2 b2 a3.
    """
    places: dict[str, int] = {}
    order = []
    for point in points:
        order.append(places.get(point.target, 0))
        places[point.target] = order[-1] + 1
    return [point for _, point in sorted(zip(order, points, strict=True), key=lambda pair: pair[0])]
