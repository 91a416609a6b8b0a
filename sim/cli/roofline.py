"""`dovetail roofline`: every op under the ceilings of one or several chips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sim.cli.estimate import HardwareOption, JsonOption, KnobOption, PrecisionOption, SetOption, WorkloadArgument


def roofline(
    workload: WorkloadArgument,
    hw: HardwareOption,
    p: KnobOption = None,
    set_: SetOption = None,
    precision: PrecisionOption = None,
    output: Annotated[Path | None, typer.Option("-o", help="Figure: .png, .svg or .pdf.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="One line per op and chip on stdout.")] = False,
    json: JsonOption = False,
) -> None:
    """The data sheet's bound, the ridges, and where every op stands against them."""
    import sim
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.errors import ConfigError

    if csv and json:
        raise ConfigError("--csv and --json exclude each other: stdout holds one document")
    if output is not None and output.suffix not in _FIGURES:
        raise ConfigError(f"-o {output}: expected a file ending in {', '.join(_FIGURES)}")
    chips = common.chips(hw, set_ or ())
    estimates = []
    with Progress(f"tracing {workload}", steps=1 + len(chips)) as progress:
        graph = sim.load_workload(workload, progress=progress.traced, **common.knobs(p or ()))
        for chip in chips:
            progress.step(f"mapping {workload} onto {chip.name}")
            estimates.append(sim.estimate(graph, chip, precision=precision, progress=progress))
    bounds = [_bound(found, graph, chip, precision) for found, chip in zip(estimates, chips, strict=True)]
    if json:
        documents = [bound.to_dict() for bound in bounds]
        common.print_json(documents[0] if len(documents) == 1 else documents)
    elif csv:
        _print_csv(bounds)
    else:
        from sim.view import tables

        for bound in bounds:
            common.show(tables.roofline(bound), "")
    if output is not None:
        _draw(estimates, bounds, output)
        common.say(f"figure written to {output}")


_FIGURES = (".png", ".svg", ".pdf")


def _bound(estimate: Any, graph: Any, chip: Any, precision: str | None) -> Any:
    """The roofline that the estimate carries (of the fused graph), else that of the graph as traced."""
    import sim
    from sim.cost.roofline import Roofline

    return Roofline.from_dict(estimate.roofline) if estimate.roofline else sim.roofline(graph, chip, precision)


def _draw(estimates: list[Any], bounds: list[Any], path: Path) -> None:
    from dataclasses import replace

    from sim.errors import ConfigError
    from sim.view import figures

    results = [
        bound if found.infeasible is not None else replace(found, roofline=bound.to_dict())
        for found, bound in zip(estimates, bounds, strict=True)
    ]
    figure = figures.roofline_grid(results)
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"-o {path}: cannot be written: {error}") from error


def _print_csv(bounds: list[Any]) -> None:
    import csv
    import sys

    names = ("name", "kind", "module", "macs", "vector_ops", "flops", "operational_intensity_flop_per_byte",
             "attainable_flop_per_s", "roofline_s", "bound")  # fmt: skip
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["hardware", *names, "home_bytes", "total_bytes"])
    for bound in bounds:
        for op in bound.ops:
            moved = [op.traffic_bytes.get(bound.home, 0.0), sum(op.traffic_bytes.values())]
            writer.writerow([bound.hardware_name, *(getattr(op, name) for name in names), *moved])
