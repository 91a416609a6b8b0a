"""`dovetail roofline`: every op under the ceilings of one or several chips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sim.cli.estimate import (
    AllowOption,
    CalibrationOption,
    HardwareOption,
    Inputs,
    InputsOption,
    JsonOption,
    KnobOption,
    PrecisionOption,
    SetOption,
    WorkloadArgument,
)


def roofline(
    workload: WorkloadArgument,
    hw: HardwareOption,
    p: KnobOption = None,
    set_: SetOption = None,
    precision: PrecisionOption = None,
    calibration: CalibrationOption = "auto",
    allow_unsupported: AllowOption = False,
    inputs: InputsOption = Inputs.HOST,
    output: Annotated[Path | None, typer.Option("-o", help="Figure: .png, .svg or .pdf.")] = None,
    measured: Annotated[
        Path | None,
        typer.Option("--measured", metavar="FILE", help="Baseline whose record of this workload appears as a star."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="One line per op and chip on stdout.")] = False,
    json: JsonOption = False,
) -> None:
    """The data sheet's bound, the ridges, and where every op stands against them."""
    import sim
    from sim.aside import cores
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.errors import ConfigError

    if csv and json:
        raise ConfigError("--csv and --json exclude each other: stdout holds one document")
    if output is not None and output.suffix not in _FIGURES:
        raise ConfigError(f"-o {output}: expected a file ending in {', '.join(_FIGURES)}")
    if measured is not None and output is None:
        raise ConfigError("--measured draws into the figure: give -o FILE.png as well")
    if measured is not None and not measured.is_file():
        raise ConfigError(f"--measured {measured}: no such file; expected a baseline file")
    chips = common.chips(hw, set_ or ())
    options: dict[str, Any] = {
        "precision": precision,
        "calibration": calibration,
        "allow_unsupported": allow_unsupported,
        "inputs": inputs.value,
    }
    estimates = []
    with Progress(f"tracing {workload}", steps=1 + len(chips)) as progress:
        graph = sim.load_workload(workload, progress=progress.traced, **common.knobs(p or ()))
        for chip in chips:
            progress.step(f"mapping {workload} onto {chip.name}")
            estimates.append(sim.estimate(graph, chip, progress=progress, processes=cores(), **options))
    times = _measured(measured, graph, estimates, chips) if measured is not None else []
    bounds = [_bound(found, graph, chip, precision, inputs.value) for found, chip in zip(estimates, chips, strict=True)]
    if json:
        documents = [
            bound.to_dict()
            | {"knobs": dict(found.knobs), "batch": found.batch}
            | {"estimate": {"latency_s": _latency_s(found), "calibration": found.calibration}}
            for bound, found in zip(bounds, estimates, strict=True)
        ]
        common.print_json(documents[0] if len(documents) == 1 else documents)
    elif csv:
        _print_csv(bounds)
    else:
        from sim.view import tables

        for bound, found in zip(bounds, estimates, strict=True):
            common.show(tables.roofline(bound), tables.beside_bound(found), "")
    if output is not None:
        _draw(estimates, bounds, output, times)
        common.say(f"figure written to {output}")


_FIGURES = (".png", ".svg", ".pdf")


def _latency_s(estimate: Any) -> float | None:
    """As documents have it: of a network that does not fit there is none."""
    return None if estimate.infeasible is not None else float(estimate.latency_s)


def _bound(estimate: Any, graph: Any, chip: Any, precision: str | None, inputs: str) -> Any:
    """The roofline that the estimate carries (of the fused graph), else that of the graph as traced."""
    import sim
    from sim.cost.roofline import Roofline

    if estimate.roofline:
        return Roofline.from_dict(estimate.roofline)
    return sim.roofline(graph, chip, precision, inputs=inputs)


def _measured(file: Path, graph: Any, estimates: list[Any], chips: list[Any]) -> list[tuple[float, str]]:
    """The measured time of the workload at each estimate's precision and its label: same knobs, the mode that the
    estimate speaks of (`sim.baseline.modes`), or one in its place, which the label then names.

    Raises: ConfigError: the file has no such record, with what it has of this workload."""
    from sim.baseline.modes import comparable, modes_of
    from sim.baseline.record import read_baseline
    from sim.cli import common
    from sim.errors import ConfigError
    from sim.hardware.chip import Costing
    from sim.schedule.cpu import cpu_machine

    held = read_baseline(file)
    held.name_broken(common.say)
    records = [r for r in held.latest.values() if r.workload == graph.name and r.median_s is not None]
    knobs = {name: str(value) for name, value in graph.knobs.items()}
    out: list[tuple[float, str]] = []
    for found, chip in zip(estimates, chips, strict=True):
        same = [r for r in records if r.precision == found.precision]
        same = [r for r in same if {name: str(value) for name, value in r.knobs.items()} == knobs]
        modes, same = modes_of(chip), comparable(same, chip)
        if not same:
            mode = f", {modes[0]}," if len(modes) == 1 else ""
            there = "; ".join(sorted({f"{r.precision} {r.mode} {_pairs(r.knobs)}" for r in records}))
            raise ConfigError(
                f"{file}: {graph.name} at {found.precision}{mode} with {_pairs(knobs)} was not measured; there is "
                f"{there or 'no record of it'}"
            )
        cores = cpu_machine(chip).threads if chip.main_unit.costing is Costing.CPU else None
        best = min(same, key=lambda r: (cores is not None and r.threads != cores, float(r.median_s or 0.0)))
        own = best.device in (chip.name, f"nvidia-{chip.name}", chip.calibration)
        label = "measured" if own else f"measured on {best.device}"
        how = [str(best.mode)] if modes and best.mode is not modes[0] else []
        other_cores = None not in (cores, best.threads) and best.threads != cores
        how += [f"threads={best.threads}"] if other_cores else []
        label += f" ({', '.join(how)})" if how else ""
        if other_cores:
            common.say(f"{file}: {graph.name} ran with threads={best.threads}, the bound is that of {cores} cores")
        if (time_s := float(best.median_s or 0.0)) < found.roofline_latency_s:
            common.say(
                f"{file}: {graph.name} took {time_s:.3g} s, below the bound of {chip.name}, "
                f"{found.roofline_latency_s:.3g} s: another chip, a higher clock, or no time of this work"
            )
        out.append((time_s, label))
    return out


def _pairs(knobs: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in knobs.items()) or "no knobs"


def _draw(estimates: list[Any], bounds: list[Any], path: Path, measured: list[tuple[float, str]]) -> None:
    from dataclasses import replace

    from sim.errors import ConfigError, why
    from sim.view import figures

    results = [
        bound if found.infeasible is not None else replace(found, roofline=bound.to_dict())
        for found, bound in zip(estimates, bounds, strict=True)
    ]
    times_s, labels = [time_s for time_s, _ in measured], [label for _, label in measured]
    figure = figures.roofline_grid(results, measured_s=times_s, measured_labels=labels)
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {why(error)}") from error


def _print_csv(bounds: list[Any]) -> None:
    import csv
    import sys

    names = ("name", "kind", "module", "macs", "vector_ops", "flops", "operational_intensity_flop_per_byte",
             "attainable_flop_per_s", "roofline_s", "bound")  # fmt: skip
    later = ("roof_flops", "intensity_over")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["hardware", *names, "home_bytes", "total_bytes", *later])
    for bound in bounds:
        for op in bound.ops:
            moved = [op.traffic_bytes.get(bound.home, 0.0), sum(op.traffic_bytes.values())]
            row = [[getattr(op, name) for name in some] for some in (names, later)]
            writer.writerow([bound.hardware_name, *row[0], *moved, *row[1]])
