"""What if a resource were larger: the latency with each one 25 % larger and doubled, and in each precision.

Every answer is a re-evaluation of the changed chip; nothing is interpolated. Mappings are searched anew
from the longest einsum on, up to `SEARCHED` candidates in all; what is left keeps its mapping, costed
exactly, so that its answer may be too slow (and says so): by a sixth for an MLP on tpu-v1 with twice the bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from math import isfinite, nan
from typing import Any, Self

from sim.aside import Aside
from sim.errors import DovetailError
from sim.hardware.chip import Array, Chip, Costing, Fanout, Memory, Rate
from sim.hardware.precisions import precision_on
from sim.mapping.machine import group_by_structure
from sim.results import Estimate, WhatIf
from sim.schedule.again import Again
from sim.schedule.network import Options, Shared, cost_network
from sim.workload.graph import Graph
from sim.workload.passes.precision import PrecisionPolicy
from sim.workload.precision import Precision, is_precision

FACTORS = (1.25, 2.0)
SEARCHED = 2e7
"""Candidates that all what-ifs of a command may search (`sim.schedule.again`), shared out by what it would take to
search everything anew for one in `PRESSING` of the chips of each structure and precision. Some four seconds of one
core."""
PRESSING = 3
"""Of the chips of one structure about one in so many changes the time of an einsum's mapping: they differ in rates, of
which most do not bind it."""


def resources(chip: Chip) -> Iterator[tuple[str, float, str | int]]:
    """(override path, value now, unit) of what can grow: bandwidths and capacities, array, cores, clock, lanes.

    The unit of a count is 0: it must stay an integer. The home memory's capacity only decides whether
    a network fits and is left out; so are a GPU's bandwidths on chip, which its kernels take per SM and clock.
    """
    unit = chip.main_unit
    yield "clock", chip.clock_hz, "Hz"
    for memory in (chip.memory(unit.home), *unit.memories):
        if not unit.costing.gpu or memory.name == unit.home:
            yield from _rates(memory)
        if memory.name != unit.home and isfinite(memory.capacity_bytes):
            yield f"{memory.name}.capacity", memory.capacity_bytes, "B"
    for level in unit.hierarchy:
        if isinstance(level, Fanout):
            yield f"{level.name}.count", level.count, 0
        if isinstance(level, Array):
            yield f"{level.name}.rows", level.rows, 0
            yield f"{level.name}.cols", level.cols, 0
            yield from ((f"{level.name}.depthwise_macs_per_cycle.{t}", n, 0) for t, n in _beside(level))
    yield f"{unit.vector.name}.lanes", unit.vector.lanes, 0
    for link in chip.links:
        if link.name in (chip.host_link, chip.system.link if chip.system else None):
            value, rate = _value(link.bandwidth)
            yield f"{link.name}.bandwidth", value, rate


def _beside(array: Array) -> Iterator[tuple[str, int]]:
    return ((dtype, round(rate)) for dtype, rate in array.depthwise_macs_per_cycle.items())


def _rates(memory: Memory) -> Iterator[tuple[str, float, str]]:
    names = ("bandwidth",) if memory.shared_port else ("read_bandwidth", "write_bandwidth")
    for name, rate in zip(names, (memory.read, memory.write), strict=False):
        value, unit = _value(rate)
        if isfinite(value):
            yield f"{memory.name}.{name}", value, unit


def _value(rate: Rate) -> tuple[float, str]:
    return (rate.per_s, "B/s") if rate.per_s is not None else (rate.per_cycle, "B/cycle")  # type: ignore[return-value]


def _scaled(value: float, unit: str | int, factor: float) -> str | int:
    return round(value * factor) if unit == 0 else f"{value * factor:.6f} {unit}"


def what_if(
    graph: Graph,
    chip: Chip,
    *,
    precision: str | Precision | PrecisionPolicy | None = None,
    objective: str = "latency",
    map_space: str = "even",
    calibration: str = "auto",
    allow_unsupported: bool = False,
    inputs: str = "host",
    progress: Callable[[float], None] = lambda share: None,
    shared: Shared | None = None,
) -> tuple[WhatIf, ...]:
    """The latency of the network with each resource grown by `FACTORS`, and in each other precision, fastest first.

    Args: as `sim.estimate`. A change that the chip's file forbids (a clock above its maximum) or that
        fits nowhere is left out (`with_what_if` notes it). A precision has factor 1. `shared`: of an estimate
        with the same options.
    """
    options = Options(
        objective=objective,
        map_space=map_space,
        calibration=calibration,
        allow_unsupported=allow_unsupported,
        inputs=inputs,
        progress=progress,
    )
    chosen = precision_on(chip, precision)
    with WhatIfs(graph, chip, chosen, options, shared or Shared()) as asked:
        return asked.answers()[0]


@dataclass(frozen=True, slots=True)
class _Case:
    """A changed chip, or another precision."""

    resource: str
    factor: float
    chip: Chip
    precision: str | Precision | PrecisionPolicy


class WhatIfs:
    """The changed chips and precisions of a network on a chip, costed from now on beside what this process does.

    Args: processes: how many cost them, this one included once it wants the `answers`.
    """

    def __init__(
        self,
        graph: Graph,
        chip: Chip,
        chosen: Precision | PrecisionPolicy,
        options: Options,
        shared: Shared,
        processes: int = 1,
    ) -> None:
        if not shared.again.first:  # the chip itself comes first: others may keep its mappings
            _cost([_Case("", 1.0, chip, chosen)], graph, options, shared)
        cases, self._refused = _cases(chip, chosen)
        self._together, self._shared = list(_together(cases, options)), shared
        demands = [shared.again.demand(-(-len(some) // PRESSING)) for some in self._together]
        unit = SEARCHED / (sum(demands) or 1.0)
        tasks = [
            partial(_group, some, graph, options, shared, unit * demand)
            for some, demand in zip(self._together, demands, strict=True)
        ]
        self._aside = Aside(tasks, processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._aside.__exit__(*error)

    def answers(self) -> tuple[tuple[WhatIf, ...], tuple[str, ...]]:
        """The fastest first, and notes on what was left out, with the reason, and on mappings that were kept."""
        found = []
        for some, (latencies, kept) in zip(self._together, self._aside.results(), strict=True):
            self._shared.again.kept.update(kept)
            for case, latency in zip(some, latencies, strict=True):
                found.append(WhatIf(resource=case.resource, factor=case.factor, latency_s=latency))
        order = sorted((w for w in found if isfinite(w.latency_s)), key=lambda w: (w.latency_s, w.resource, w.factor))
        notes = [f"what if: {name} {reason}" for name, reason in self._refused.items()]
        if names := list(dict.fromkeys(w.resource for w in found if not isfinite(w.latency_s))):
            count = "is left out: the network does" if len(names) == 1 else "are left out: the network does"
            notes.append(f"what if: {', '.join(names)} {count} not run with it")
        if kept := self._shared.again.kept:
            notes.append(
                f"what if: the mappings of {len(kept)} einsums are kept on some of the changed chips, or searched only "
                "near them (those of the shortest are kept first): such an answer may be too slow, a sixth has been "
                "seen; --set with that resource searches them all"
            )
        return tuple(order), tuple(notes)


def _cases(chip: Chip, chosen: Precision | PrecisionPolicy) -> tuple[list[_Case], dict[str, str]]:
    """All changes, and why some are left out."""
    cases: list[_Case] = []
    refused: dict[str, str] = {}
    for path, value, unit in resources(chip):
        if shared := _shared_lanes(chip, path):
            refused[path] = f"x {FACTORS[0]:g} is left out: {shared}"
            continue
        for factor in FACTORS:
            try:
                cases.append(_Case(path, factor, chip.set(path, _scaled(value, unit, factor)), chosen))
            except DovetailError as error:
                refused.setdefault(path, f"x {factor:g} is left out: {str(error).rpartition(f'{path}: ')[2]}")
    others = [name for name in chip.main_unit.array.macs_per_cycle if name != chosen.name and is_precision(name)]
    return cases + [_Case(f"precision {name}", 1.0, chip, name) for name in others], refused


def _shared_lanes(chip: Chip, path: str) -> str | None:
    """Why more cores of a CPU are no answer by themselves; None of any other path.

    A file states the lanes of all cores together, so that twice the cores alone are cores of half the lanes: what runs
    on some of them only (a short reduction, few rows) then takes longer, which says nothing of a CPU with more cores.
    """
    unit = chip.main_unit
    counts = {f"{level.name}.count": level.count for level in unit.hierarchy if isinstance(level, Fanout)}
    if unit.costing is not Costing.CPU or path not in counts:
        return None
    lanes = f"{unit.vector.name}.lanes"
    return (
        f"{lanes} are those of all cores, which more cores alone would share; set both, as "
        f"{path}={2 * counts[path]} and {lanes}={2 * unit.vector.lanes}"
    )


def _together(cases: list[_Case], options: Options) -> Iterator[list[_Case]]:
    """Cases that are costed at once: of one precision and structure.

    Energy takes no part unless it is what the mappings are chosen for: then chips go one by one.
    """
    for _, members in groupby(cases, key=lambda case: case.precision):
        some = list(members)
        if options.objective == "latency":
            yield from ([some[i] for i in alike] for alike in group_by_structure([case.chip for case in some]))
        else:
            yield from ([case] for case in some)


def _group(
    some: list[_Case], graph: Graph, options: Options, shared: Shared, budget: float
) -> tuple[list[float], set[tuple]]:
    """Latencies of cases that are costed at once, and the einsums whose mappings were kept.

    Each group has a budget of its own, whatever others leave of theirs: the answers do not depend on who runs it.
    """
    own = replace(shared, again=Again(left=budget, first=dict(shared.again.first)))
    return _cost(some, graph, options, own), own.again.kept


def _cost(cases: list[_Case], graph: Graph, options: Options, shared: Shared) -> list[float]:
    """Latency of each case; nan where the network cannot run."""
    try:
        chips = [case.chip for case in cases]
        precision = precision_on(chips[0], cases[0].precision)
        network = cost_network(graph, chips, precision, options, shared=shared)
    except DovetailError:
        return [nan] * len(cases)
    return [float(latency) for latency in network.latency_s]


def with_what_if(
    found: Estimate, graph: Graph, chip: Chip, *, shared: Shared | None = None, **options: Any
) -> Estimate:
    """The estimate with its `what_if` filled, and notes on changes that could not be tried and mappings kept.

    Args: options as `what_if`; shared: of an estimate with the same options.
    """
    chosen = precision_on(chip, options.pop("precision", None))
    with WhatIfs(graph, chip, chosen, Options(**options), shared or Shared()) as asked:
        return with_answers(found, asked)


def with_answers(found: Estimate, asked: WhatIfs) -> Estimate:
    """The estimate with what was asked."""
    answers, left_out = asked.answers()
    return replace(found, what_if=answers, notes=(*found.notes, *left_out))


__all__ = ["FACTORS", "WhatIfs", "resources", "what_if", "with_answers", "with_what_if"]
