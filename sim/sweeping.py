"""`sweep`: a workload on a grid of designs, knobs and precisions; one row each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sim.aside import Aside
from sim.cost.roofline import network_bound_s
from sim.errors import ConfigError, DovetailError, TraceError, WorkloadError, expect, listed, whole
from sim.hardware.chip import Chip, Memory
from sim.hardware.designs import Designs, check_number_of_designs
from sim.hardware.load import as_chip
from sim.hardware.physical import chip_area_mm2, idle_power_w
from sim.hardware.precisions import precision_on
from sim.mapping.machine import group_by_structure
from sim.results_io import framed
from sim.schedule.network import Network, Options, Shared, cost_network, unsupported_of
from sim.workload.graph import Graph
from sim.workload.load import MODEL_FILES, Workload, as_graph, load_workload
from sim.workload.passes.precision import PrecisionPolicy, as_typed
from sim.workload.precision import Precision

SWEEP_SCHEMA = "dovetail.sweep/1"
RESULTS = (
    "latency_s",
    "throughput_per_s",
    "cycles",
    "roofline_latency_s",
    "below_datasheet_roofline",
    "energy_j",
    "power_w",
    "area_mm2",
    "mac_utilization",
    "macs",
    "effective_macs",
    "vector_ops",
    "flops",
    "infeasible",
)
"""Scalar results of a row, under their JSON names."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of equal length. `table["latency_s"]` is an array; `parameters` names what was varied.

    `settings` are what all rows share, under the names of an estimate's document, `precision` as the list of names,
    `unsupported` of all workloads together.
    """

    parameters: tuple[str, ...]
    data: Mapping[str, np.ndarray]
    settings: Mapping[str, object] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.data)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.data[name]

    def __len__(self) -> int:
        return len(next(iter(self.data.values()), ()))

    def __repr__(self) -> str:
        """One line: `rows` and `to_frame` have the numbers."""
        return f"<Table of {len(self)} designs over {', '.join(self.parameters)}; columns {', '.join(self.columns)}>"

    def to_frame(self) -> Any:
        """A row per design: a pandas DataFrame where pandas is installed, else a dict of equally long lists."""
        return framed({name: column.tolist() for name, column in self.data.items()})

    def rows(self) -> Iterator[dict[str, Any]]:
        for i in range(len(self)):
            yield {name: column[i] for name, column in self.data.items()}


def sweep(
    workload: Graph | Workload | str | Path,
    chip: Chip | str | Path,
    chip_grid: Mapping[str, Sequence[object]] | Designs | None = None,
    *,
    knobs: Mapping[str, Sequence[object]] | None = None,
    precisions: Sequence[str | Precision | PrecisionPolicy] | None = None,
    objective: str = "latency",
    map_space: str = "even",
    calibration: str = "auto",
    allow_unsupported: bool = False,
    inputs: str = "host",
    progress: Callable[[float], None] | None = None,
    processes: int = 1,
) -> Table:
    """Cost every combination: chip keys, then knobs, then precisions, the last key fastest.

    Args: workload: a graph, a `sim.Workload`, or a name (needed for `knobs`); chip_grid: override
        path -> values, or `Designs`; precisions: names or policies (see `sim.estimate`), the chip's default if
        None; progress: called with the share of the (knobs, precision) pairs that are done; processes: how many
        cost the designs (forked copies of this one, on Linux only), those of one structure in one of them; where
        all are of one, how many search for their mappings over several memory borders.
    Returns: a table in `itertools.product` order; rows of what cannot run (it fits nowhere, has an op without a cost
        rule, or values that do not go together) are infeasible, and have nan and a reason.
    Raises: WorkloadError: knobs on a plain graph; ConfigError, PrecisionError, TraceError as for one estimate, where a
        value goes with none of the others, or every combination is wrong.
    """
    chip = as_chip(chip, where="sweep: second argument")
    designs = (
        chip_grid if isinstance(chip_grid, Designs) else Designs.grid(chip, {} if chip_grid is None else chip_grid)
    )
    varied = _varied(knobs)
    processes = whole(processes, where="processes")
    options = Options(
        objective=objective,
        map_space=map_space,
        allow_unsupported=allow_unsupported,
        calibration=calibration,
        inputs=inputs,
    )
    names = (None,) if precisions is None else listed(precisions, where="precisions", such_as='["int8", "bf16"]')
    grid = _Grid.of(designs)
    chosen = [precision_on(grid.chips[0], one) for one in names]  # a grid may add a type that the chip's own lacks
    pairs = len(chosen) * prod(map(len, varied.values()))
    check_number_of_designs(pairs * len(designs), where="sweep: knobs, precisions and designs")
    parts, unruled, wrong = [], dict[str, None](), list[DovetailError]()
    for values, graph in _graphs(workload, varied):
        if allow_unsupported and isinstance(graph, Graph):
            unruled |= dict.fromkeys(unsupported_of(graph, options))
        for precision in chosen:
            said = values if precisions is None else {**values, "precision": precision.name}
            rows, errors = _rows(graph, grid, precision, options, processes)
            wrong += errors
            parts.append(_head(designs, said) | rows)
            if progress:
                progress(len(parts) / pairs)
    if len(wrong) == pairs * len(designs):
        raise wrong[0]
    data = {name: np.stack([part[name] for part in parts], axis=1).ravel() for name in parts[0]}  # designs outermost
    settings = {
        "precision": [one.name for one in chosen],
        "objective": objective,
        "map_space": map_space,
        "buffering": chip.main_unit.buffering.value,
        "calibration": calibration,
        "inputs": inputs,
        "unsupported": list(unruled),
    }
    return Table(parameters=tuple(n for n in data if n not in (*RESULTS, "reason")), data=data, settings=settings)


def _head(designs: Designs, said: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Columns of what was chosen: chip keys by design, what is `said` of all of them alike."""
    chosen = {
        path: np.array([choices[i] for i in designs.indices[path]], dtype=object)
        for path, choices in designs.choices.items()
    }
    return chosen | {name: np.array([value] * len(designs), dtype=object) for name, value in said.items()}


def _varied(knobs: object) -> dict[str, tuple]:
    """Knob -> its values."""
    if knobs is None:
        return {}
    expect(knobs, Mapping, 'a map such as {"batch": [1, 4]}', where="knobs", error=WorkloadError)
    return {
        str(name): listed(values, where=f"knob {name}", such_as="[1, 4]", error=WorkloadError)
        for name, values in knobs.items()  # type: ignore[attr-defined]
    }


def _graphs(
    workload: object, knobs: Mapping[str, Sequence[object]]
) -> Iterator[tuple[dict[str, object], Graph | TraceError]]:
    """(knobs, the graph, or what the model raised with them)"""
    if not knobs or not isinstance(workload, Graph | Workload | str | Path):
        yield {}, as_graph(workload, where="sweep: first argument")
        return
    if isinstance(workload, Graph):
        raise WorkloadError(
            "knobs need a workload that can be built again (a name or sim.Workload), not a traced graph"
        )
    for values in product(*knobs.values()):
        chosen: dict[str, Any] = dict(zip(knobs, values, strict=True))
        subject = _with(workload, chosen)
        read: Mapping[str, object] = subject.knobs if subject else chosen
        made: Graph | TraceError
        try:
            made = subject.graph() if subject else load_workload(str(workload), **chosen)
            read = made.knobs
        except TraceError as error:
            made = error
        yield {name: read.get(name, value) for name, value in chosen.items()}, made  # as the knob's type reads it


def _with(workload: Workload | str | Path, knobs: Mapping[str, object]) -> Workload | None:
    """The workload with these knobs besides its own; None for a model in a file that is no Python."""
    if isinstance(workload, Workload):
        return Workload(workload.name, {**workload.knobs, **knobs})
    return None if Path(workload).suffix in MODEL_FILES else Workload(str(workload), knobs)


@dataclass(frozen=True)
class _Grid:
    """The designs that are chips, and what is wrong with the others."""

    length: int
    wrong: Mapping[int, ConfigError]
    """Row -> why its values do not go together."""
    rows: np.ndarray
    """Of the others,"""
    designs: Designs
    chips: list[Chip]

    @staticmethod
    def of(designs: Designs) -> _Grid:
        """Raises: ConfigError: none is a chip."""
        made = _chips(designs)
        wrong = {i: chip for i, chip in enumerate(made) if isinstance(chip, ConfigError)}
        if len(wrong) == len(made):
            raise wrong[0]
        rows = np.array([i for i in range(len(made)) if i not in wrong])
        chips = [chip for chip in made if isinstance(chip, Chip)]
        return _Grid(len(made), wrong, rows, designs.take(rows) if wrong else designs, chips)


def _rows(
    graph: Graph | TraceError, grid: _Grid, precision: Precision | PrecisionPolicy, options: Options, processes: int
) -> tuple[dict[str, np.ndarray], list[DovetailError]]:
    """(the results of all designs, (designs,) each; what is wrong with rows that do not fit together)"""
    n = grid.length
    out: dict[str, np.ndarray] = {name: np.full(n, np.nan) for name in RESULTS}
    out |= {name: np.zeros(n, dtype=bool) for name in ("infeasible", "below_datasheet_roofline")}
    out["reason"] = np.full(n, "", dtype=object)
    wrong: dict[int, DovetailError] = dict(grid.wrong)
    if isinstance(graph, TraceError):
        wrong = dict.fromkeys(range(n), graph)
    else:
        refused = _fill(out, graph, grid, precision, options, processes)
        wrong |= {int(grid.rows[i]): error for i, error in refused.items()}
    for row, error in wrong.items():
        out["infeasible"][row], out["reason"][row] = True, str(error)
    return out, list(wrong.values())


def _fill(
    out: dict[str, np.ndarray],
    graph: Graph,
    grid: _Grid,
    precision: Precision | PrecisionPolicy,
    options: Options,
    processes: int,
) -> dict[int, DovetailError]:
    """Put in the results of the designs that are chips; which of them do not fit the workload, and why."""
    chips, designs = grid.chips, grid.designs
    area, idle = (designs.system_chips * np.asarray(f(designs), dtype=float) for f in (chip_area_mm2, idle_power_w))
    groups, shared = group_by_structure(chips), Shared()
    options = replace(options, processes=processes if len(groups) == 1 else 1)
    tasks = [
        partial(
            _structure, graph, [chips[i] for i in some], _part(designs, some), precision, options, idle[some], shared
        )
        for some in groups
    ]
    refused: dict[int, DovetailError] = {}
    with Aside(tasks, min(processes, len(tasks))) as aside:
        for members, columns in zip(groups, aside.results(), strict=True):
            if isinstance(columns, DovetailError):
                refused |= dict.fromkeys(members, columns)
                continue
            for name, values in columns.items():
                out[name][grid.rows[members]] = values
    out["area_mm2"][grid.rows] = np.where(np.isfinite(area), area, np.nan)
    out["power_w"] = out["energy_j"] / out["latency_s"]
    return refused


def _part(designs: Designs, members: Sequence[int]) -> Designs:
    """The designs of one group, as designs."""
    return designs.take(np.array(members))


def _structure(
    graph: Graph,
    chips: Sequence[Chip],
    part: Designs,
    precision: Precision | PrecisionPolicy,
    options: Options,
    idle_w: np.ndarray,
    shared: Shared,
) -> dict[str, Any] | DovetailError:
    """What is known of designs of one structure: arrays (designs,), or one value for all of them; or what does not fit
    together."""
    try:
        network = cost_network(graph, chips, precision, options, subject=part, shared=shared.graphs())
    except DovetailError as error:
        if error.exit_code != 1:
            return error
        return {"infeasible": True, "reason": str(error)}
    return _columns(network, idle_w, precision, options.inputs)


def _columns(
    network: Network, idle_w: np.ndarray, precision: Precision | PrecisionPolicy, inputs: str
) -> dict[str, np.ndarray]:
    n, latency = len(network.chips), network.latency_s
    dynamic, slots, macs, effective, vector_ops = np.zeros((5, n))
    system = network.chips[0].system  # one structure, one system
    split, stages = (system.tensor_parallel, system.pipeline) if system else (1, 1)
    for group in network.groups:
        runs = np.ones(n, dtype=bool) if group.runs is None else group.runs
        dynamic = dynamic + np.where(runs, group.energy_j * split, 0.0)
        macs, vector_ops = macs + runs * group.macs, vector_ops + runs * group.vector_ops
        effective = effective + runs * group.effective_macs
        if group.mac_slots is not None:
            slots = slots + np.where(runs, group.mac_slots, 0.0)
    clock = np.array([c.main_unit.clock_hz for c in network.chips])
    cells = network.unit.array.rows * network.unit.array.cols * stages
    dynamic = np.where(network.infeasible, np.nan, dynamic)
    with_idle = dynamic + idle_w * latency
    with np.errstate(invalid="ignore", divide="ignore"):
        utilization = np.where(slots > 0, slots / (cells * (latency * clock)), np.nan)
    bound_s = network_bound_s(as_typed(network.graph, precision), network.chips, precision.name, inputs)
    reasons = np.full(n, "", dtype=object)
    for d, (reason, _) in network.reasons.items():
        reasons[d] = reason
    return {
        "latency_s": latency,
        "throughput_per_s": network.graph.batch / latency,
        "cycles": latency * clock,
        "roofline_latency_s": bound_s,
        "below_datasheet_roofline": latency < bound_s,
        "energy_j": np.where(np.isnan(idle_w), dynamic, np.where(np.isinf(idle_w), np.nan, with_idle)),
        "mac_utilization": utilization,
        "macs": macs * split,
        "effective_macs": effective * split,
        "vector_ops": vector_ops * split,
        "flops": (2 * macs + vector_ops) * split,
        "infeasible": network.infeasible,
        "reason": reasons,
    }


_GRAFTS = {
    "capacity": ("capacity_bytes",),
    "bandwidth": ("read", "write"),
    "read_bandwidth": ("read",),
    "write_bandwidth": ("write",),
    "latency": ("latency_s",),
    "efficiency": ("efficiency",),
}
"""Fields of a memory that leave everything else of a chip as it is, and what they change."""


def _chips(designs: Designs) -> list[Chip | ConfigError]:
    """The chips of all designs as the cost model reads them, or why their values do not go together.

    `Designs.row` re-validates and re-derives the whole chip for every key. Numbers of memories and
    the clock can be set once per value and grafted onto the rest; energies and areas, which depend
    on several keys, are read from `designs` itself.
    """
    grafted = [path for path in designs.choices if _graft(designs, path)]
    others = [path for path in designs.choices if path not in grafted]
    donors = {path: [designs.changed(((path, i),)) for i in range(len(designs.choices[path]))] for path in grafted}
    made: dict[tuple[int, ...], Chip | ConfigError] = {}
    chips = []
    columns = [designs.indices[path].tolist() for path in (*others, *grafted)]
    for indices in zip(*columns, strict=True) if columns else [()] * len(designs):
        key = indices[: len(others)]
        if key not in made:
            try:
                made[key] = designs.changed(tuple(zip(others, key, strict=True)))
            except ConfigError as error:  # each value by itself is right
                made[key] = error
        for path, index in zip(grafted, indices[len(others) :], strict=True):
            chip, key = made[key], (*key, index)
            if key not in made:
                made[key] = _grafted(chip, donors[path][index], path) if isinstance(chip, Chip) else chip
        chips.append(made[key])
    return chips


def _graft(designs: Designs, path: str) -> bool:
    name, _, field = path.partition(".")
    if path in designs.leaning:
        return False
    if path == "clock":  # what runs at it, and what bounds it, stays as it is
        others = {other.rpartition(".")[2] for other in designs.choices if other != path}
        return not others & {"clock", "max_clock"}
    return field in _GRAFTS and any(name == key and isinstance(part, Memory) for key, part in designs.chip.components())


def _grafted(chip: Chip, donor: Chip, path: str) -> Chip:
    """`chip` with what `path` changed taken from the donor."""
    name, _, field = path.partition(".")
    if path == "clock":
        units = tuple(replace(u, clock_hz=d.clock_hz) for u, d in zip(chip.units, donor.units, strict=True))
        return replace(chip, clock_hz=donor.clock_hz, units=units)

    def swap(part: Any, source: Any) -> Any:
        if getattr(part, "name", None) != name:
            return part
        return replace(part, **{attribute: getattr(source, attribute) for attribute in _GRAFTS[field]})

    memories = tuple(swap(m, d) for m, d in zip(chip.memories, donor.memories, strict=True))
    units = tuple(
        replace(u, hierarchy=tuple(swap(a, b) for a, b in zip(u.hierarchy, d.hierarchy, strict=True)))
        for u, d in zip(chip.units, donor.units, strict=True)
    )
    return replace(chip, memories=memories, units=units)


__all__ = ["RESULTS", "SWEEP_SCHEMA", "Table", "sweep"]
