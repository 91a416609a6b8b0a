"""The data step of the roofline figure: where every op, roof and limit stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log

from sim.cost.ceilings import Ceiling
from sim.cost.roofline import Roofline, roof_flops
from sim.results import Estimate
from sim.view import rows

SAME = 0.06
"""Ops nearer than this in both logarithms, and of one kind, are drawn as one disc."""
CAUGHT = 1e-3
"""An op that moves less than this share of its on-chip bytes over the home memory lies on chip."""
RIGHT, BELOW, FAR = 0.05, 0.01, 10.0
"""Outermost ops that together make up less than this share of the time are drawn at the right edge and at the lower one
where the axis gets shorter by the factor `FAR`."""

ABOVE = 1.01
"""A disc this far above the peak is not there by rounding: its op runs in a narrower type than the network, or its MACs
count as dense and not all are done (masked, zero)."""
WHY_ABOVE = "above the roof: a narrower type, or MACs that are skipped"

WITHOUT_WORK, WITHOUT_BYTES = "without arithmetic", "that move nothing"
"""Why ops are not drawn: neither has an intensity."""


@dataclass(frozen=True, slots=True)
class Point:
    """One disc: `share` of the network's time, at `x` FLOP/byte and `y` FLOP/s."""

    x: float
    y: float
    share: float
    kind: str
    label: str
    on_chip: bool


@dataclass(frozen=True, slots=True)
class Roof:
    """The slant of a memory up to the running precision's peak."""

    memory_label: str
    bandwidth_bytes_per_s: float
    peak_flop_per_s: float
    home: bool


@dataclass(frozen=True, slots=True)
class RooflineView:
    """All that the drawing step needs."""

    title: str
    subtitle: str
    points: tuple[Point, ...]
    roofs: tuple[Roof, ...]
    flats: tuple[tuple[str, float, bool], ...]
    """(label, FLOP/s, whether it is the peak that this run uses)"""
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    measured: tuple[float, float, str] | None = None
    """Where the whole network stands as measured, and its label."""
    above: bool = False
    """Whether a disc stands above the roof, which `WHY_ABOVE` explains."""

    @property
    def caption(self) -> str:
        """The subtitle and what explains the discs, for a page that has room."""
        return f"{self.subtitle}; {WHY_ABOVE}" if self.above else self.subtitle


def view_of(
    result: Estimate | Roofline, measured_s: float | None = None, measured_label: str = "measured"
) -> RooflineView:
    """`measured_s` is the network's measured time. Raises: ValueError: an estimate without its roofline document."""
    if isinstance(result, Roofline):
        bound = result
        found, left = _bound_points(result)
        title = f"{bound.workload_name} on {bound.hardware_name}: at best {rows.time_text(bound.latency_s)}"
        subtitle = f"{bound.precision}; bound by {rows.bound_text(bound.bound)}; discs stand at what is attainable"
    else:
        if not result.roofline:
            raise ValueError("this estimate carries no roofline; it was not made by sim.estimate")
        bound = Roofline.from_dict(result.roofline)
        sharing = _sharing(result, bound)
        found, left = _estimate_points(result, bound, sharing)
        title = f"{result.workload_name} on {result.hardware_name}: {rows.time_text(result.latency_s)}"
        share = rows.share_text(result.roofline_latency_s / result.latency_s)
        subtitle = f"{result.precision}, batch {result.batch}; the roofline is {share} of it"
        if sharing > 1:
            subtitle += f"; work and roofs of one of {sharing} chips"
    for why, part in left.items():
        if part > 0.0005:
            subtitle += f"; ops {why} ({rows.share_text(part)} of the time) are not shown"
    points = _merge(found)
    peak = _running_peak(bound.ceilings, bound.precision)
    above = any(point.kind != "vector" and point.y > ABOVE * peak.rate for point in points)
    roofs = tuple(
        Roof(
            f"{c.name} {rows.count_text(c.rate, 'B/s')}",
            c.rate,
            peak.rate,
            c.name == bound.home,
        )
        for c in bound.ceilings
        if c.kind == "memory"
    )
    flats = _flats(bound.ceilings, peak)
    x_limits, y_limits = _limits(points, roofs, flats)
    star = None
    if measured_s is not None:
        x, y = measured_place(bound, measured_s)
        x_limits, y_limits = (min(x_limits[0], x / 2), max(x_limits[1], x * 2)), (min(y_limits[0], y / 2), y_limits[1])
        star = (x, y, f"{measured_label}, {rows.time_text(measured_s)}")
    return RooflineView(title, subtitle, points, roofs, flats, x_limits, y_limits, star, above)


def measured_place(bound: Roofline, measured_s: float) -> tuple[float, float]:
    """(operational intensity over the compulsory bytes at the home memory [FLOP/byte], operations over the measured
    time [FLOP/s]) of the whole network, counted as those of an op."""
    flops = roof_flops(sum(op.macs for op in bound.ops), sum(op.vector_ops for op in bound.ops))
    return flops / sum(bound.compulsory_bytes.values()), flops / measured_s


def _running_peak(ceilings: Iterable[Ceiling], precision: str) -> Ceiling:
    compute = [c for c in ceilings if c.kind == "compute"]
    return next((c for c in compute if c.name == precision), max(compute, key=lambda c: c.rate))


def _flats(ceilings: Iterable[Ceiling], peak: Ceiling) -> tuple[tuple[str, float, bool], ...]:
    """Level ceilings; those of equal height share one label."""
    found: dict[float, list[Ceiling]] = {}
    for ceiling in ceilings:
        if ceiling.kind != "memory":
            found.setdefault(ceiling.rate, []).append(ceiling)
    return tuple(
        (f"{', '.join(c.name for c in same)}: {rows.count_text(rate, 'FLOP/s')}", rate, peak in same)
        for rate, same in found.items()
    )


def _sharing(estimate: Estimate, bound: Roofline) -> int:
    """How many chips an op runs on: the estimate counts the work of all of them but the bytes of one, the bound both of
    one."""
    own = sum(op.macs for op in bound.ops)
    own, whole = (own, estimate.macs) if own else (sum(op.vector_ops for op in bound.ops), estimate.vector_ops)
    return max(1, round(whole / own)) if own else 1


def _estimate_points(estimate: Estimate, bound: Roofline, sharing: int) -> tuple[list[Point], dict[str, float]]:
    """(each op at its intensity over the home memory, or over the first that moves its bytes where it lies on chip, or
    over the bytes that it touches where caches hold them all and nobody counts what moves there; why the others are not
    drawn -> their share of the time)."""
    points, called = [], _names([(op.module, op.name) for op in estimate.ops])
    touched = {point.name: sum(point.traffic_bytes.values()) for point in bound.ops}
    left = {WITHOUT_WORK: 0.0, WITHOUT_BYTES: 0.0}
    for op in estimate.ops:
        flops = roof_flops(op.macs, op.vector_ops) / sharing
        share = op.latency_s / estimate.latency_s
        moved = {memory: rows.traffic_bytes(op, memory) for memory in op.traffic_bytes}
        own = sum(touched.get(name, 0.0) for name in (op.name, *op.fused))
        least = max(1.0, CAUGHT * max((*moved.values(), 0.0 if op.fused else own)))
        place = next((memory for memory in (bound.home, *moved) if moved.get(memory, 0.0) >= least), None)
        over = own if place is None else moved[place]
        if not flops:
            left[WITHOUT_WORK] += share
        elif not over:
            left[WITHOUT_BYTES] += share
        elif op.latency_s:
            x, y = flops / over, flops / op.latency_s
            points.append(Point(x, y, share, rows.kind_of(op), called[op.name], place != bound.home))
    return points, left


def _bound_points(bound: Roofline) -> tuple[list[Point], dict[str, float]]:
    """As of an estimate; bytes and times are those of the bound."""
    total = sum(op.roofline_s for op in bound.ops)
    points, called = [], _names([(op.module, op.name) for op in bound.ops])
    left = {WITHOUT_WORK: 0.0, WITHOUT_BYTES: 0.0}
    for op in bound.ops:
        moved = op.traffic_bytes.get(bound.home) or sum(op.traffic_bytes.values())
        if not op.roof_flops:
            left[WITHOUT_WORK] += op.roofline_s / total
        elif not moved:
            left[WITHOUT_BYTES] += op.roofline_s / total
        elif op.roofline_s:
            x, y = op.roof_flops / moved, op.roof_flops / op.roofline_s
            on_chip = not op.traffic_bytes.get(bound.home)
            points.append(Point(x, y, op.roofline_s / total, rows.kind_of(op), called[op.name], on_chip))
    return points, left


def _names(ops: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Op -> what it is called, of (module, op): the module, where no other op is its."""
    alone = Counter(module for module, _ in ops)
    return {name: module if alone[module] == 1 and module else name for module, name in ops}


def _merge(points: Iterable[Point]) -> tuple[Point, ...]:
    """Equal ops (the same layer again) become one disc with their common name and summed share."""
    groups: list[list[Point]] = []
    cells: dict[tuple[str, bool, int, int], list[int]] = {}
    for point in points:
        place = _home_of(point, groups, cells)
        if place is not None:
            groups[place].append(point)
        else:
            column, line = _cell(point)
            cells.setdefault((point.kind, point.on_chip, column, line), []).append(len(groups))
            groups.append([point])
    return tuple(
        Point(
            g[0].x,
            g[0].y,
            sum(p.share for p in g),
            g[0].kind,
            _common_label([p.label for p in sorted(g, key=lambda p: -p.share)]),
            g[0].on_chip,
        )
        for g in groups
    )


def _cell(point: Point) -> tuple[int, int]:
    """A square of side `SAME` in the logarithms: what is near lies in it or in one of its neighbours."""
    return floor(log(point.x) / SAME), floor(log(point.y) / SAME)


def _home_of(
    point: Point, groups: Sequence[Sequence[Point]], cells: Mapping[tuple[str, bool, int, int], Sequence[int]]
) -> int | None:
    """The earliest group whose first point is near and alike."""
    column, line = _cell(point)
    near = [
        place
        for i in (column - 1, column, column + 1)
        for j in (line - 1, line, line + 1)
        for place in cells.get((point.kind, point.on_chip, i, j), ())
        if abs(log(point.x / groups[place][0].x)) < SAME and abs(log(point.y / groups[place][0].y)) < SAME
    ]
    return min(near, default=None)


def _common_label(names: Sequence[str]) -> str:
    """["layer1.1.conv2", "layer1.2.conv2"] -> "layer1.*.conv2 x 2"; of two words both stand."""
    if len(names) == 1:
        return names[0]
    split = [name.split(".") for name in names]
    if len({len(parts) for parts in split}) == 1:
        parts = [_common_part(dict.fromkeys(c)) for c in zip(*split, strict=True)]
        if len({words[0] for words in split}) == 1:
            return ".".join(parts) + f" x {len(names)}"
    return f"{names[0]} and {len(names) - 1} more"


def _common_part(words: Mapping[str, None]) -> str:
    return "/".join(words) if (len(words) <= 2 and not any(map(str.isdigit, words))) or len(words) == 1 else "*"


def _reach(sides: Iterable[tuple[float, float]], margin: float) -> float:
    """Of (place, share of the time), the largest place on the axis, without those that stretch it for little."""
    order = sorted(sides, reverse=True)
    share = 0.0
    for place, more in order:
        share += more
        if share >= margin:
            return place if order[0][0] >= FAR * place else order[0][0]
    return order[0][0]


def _limits(
    points: Sequence[Point], roofs: Sequence[Roof], flats: Sequence[tuple[str, float, bool]]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Room for the points that matter, the home's ridge and the running peak; memories beyond may be cut."""
    peak = next(rate for _, rate, running in flats if running)
    corners = [peak / roof.bandwidth_bytes_per_s for roof in roofs if roof.home]
    xs = [min(p.x for p in points), _reach([(p.x, p.share) for p in points], RIGHT)] if points else []
    ys = [1 / _reach([(1 / p.y, p.share) for p in points], BELOW)] if points else []
    xs, ys = [x for x in (*xs, *corners) if isfinite(x)], [*ys, *(p.y for p in points if p.y > peak), peak]
    return (min(xs) / 4, max(xs) * 6), (min(ys) / 4, max(*ys, *(rate for _, rate, _ in flats)) * 3)
