"""`dovetail estimate`: the analytical answer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sim.cli import complete


class Objective(StrEnum):
    LATENCY = "latency"
    ENERGY = "energy"
    EDP = "edp"


class MapSpace(StrEnum):
    EVEN = "even"
    UNEVEN = "uneven"
    FIXED_DATAFLOW = "fixed_dataflow"
    GIVEN = "given"


class Inputs(StrEnum):
    HOST = "host"
    RESIDENT = "resident"


WorkloadArgument = Annotated[
    str,
    typer.Argument(
        help="Bundled name, model.py, model.onnx, model.pt2 or graph.json.", autocompletion=complete.workloads
    ),
]
HardwareOption = Annotated[
    list[str],
    typer.Option("--hw", metavar="CHIP", help="Bundled name or chip.yaml; repeatable.", autocompletion=complete.chips),
]
KnobOption = Annotated[
    list[str] | None, typer.Option("-p", "--param", metavar="KNOB=VALUE", help="Knob of the workload; repeatable.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=QUANTITY", help="Change of the chip: SRAM.capacity='8 MiB'; repeatable."),
]
PrecisionOption = Annotated[
    str | None, typer.Option(help="int8, bf16, w4a16, w16a16kv8 ..., or a policy.yaml by op; default: the chip's own.")
]
CalibrationOption = Annotated[
    str, typer.Option(help="auto, none, a measured device's name, or a .json file of dovetail calibrate.")
]
AllowOption = Annotated[bool, typer.Option("--allow-unsupported", help="Cost ops without a rule as memory traffic.")]
InputsOption = Annotated[
    Inputs, typer.Option(help="Inputs come over the chip's host link, or are in its memory already.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def estimate(
    workload: WorkloadArgument,
    hw: HardwareOption,
    p: KnobOption = None,
    set_: SetOption = None,
    precision: PrecisionOption = None,
    objective: Annotated[Objective, typer.Option(help="What the best mapping is best for.")] = Objective.LATENCY,
    map_space: Annotated[
        MapSpace, typer.Option(help="Which mappings are searched; given: those of --mapping.")
    ] = MapSpace.EVEN,
    mapping: Annotated[Path | None, typer.Option(help="Take the mappings of this file instead.")] = None,
    save_mapping: Annotated[Path | None, typer.Option(help="Write the chosen mappings to this file.")] = None,
    calibration: CalibrationOption = "auto",
    override: Annotated[
        list[str] | None, typer.Option(metavar="OP=TIME", help="Latency of an op that you know better.")
    ] = None,
    allow_unsupported: AllowOption = False,
    per_op: Annotated[
        bool, typer.Option("--per-op", help="Every op by itself, not only the heaviest with equal layers in one row.")
    ] = False,
    by_module: Annotated[bool, typer.Option("--by-module", help="The module tree of the model.")] = False,
    fail_over: Annotated[str | None, typer.Option(metavar="TIME", help="Exit with 1 above this latency.")] = None,
    inputs: InputsOption = Inputs.HOST,
    what_if: Annotated[
        bool, typer.Option("--what-if/--no-what-if", help="Latency with each resource larger, in each precision.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Latency, energy and memory of a workload on one or several chips, and what binds every op."""
    import sim
    from sim.aside import cores
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.errors import ConfigError
    from sim.units import Dimension, parse_quantity

    limit_s = parse_quantity(fail_over, Dimension.TIME, where="--fail-over") if fail_over else float("inf")
    if limit_s <= 0:
        raise ConfigError(f"--fail-over {fail_over}: expected a time above 0, such as 30ms")
    known_s = {
        op: parse_quantity(time, Dimension.TIME, where=f"--override {op}")
        for op, time in common.pairs(override or (), option="--override").items()
    }
    chips = common.chips(hw, set_ or ())
    options: dict[str, Any] = {"objective": objective.value, "precision": precision, "calibration": calibration}
    options |= {"map_space": map_space.value, "allow_unsupported": allow_unsupported, "overrides": known_s}
    options |= {"inputs": inputs.value}
    if mapping is not None:
        from sim.mapping.files import read_mappings

        options |= {"mapping": read_mappings(mapping)}
    estimates = []
    with Progress(f"tracing {workload}", steps=1 + len(chips)) as progress:
        graph = sim.load_workload(workload, progress=progress.traced, **common.knobs(p or ()))
        for chip in chips:
            progress.step(f"mapping {workload} onto {chip.name}")
            estimates.append(
                sim.estimate(graph, chip, **options, what_if=what_if, progress=progress, processes=cores())
            )
    if save_mapping is not None:
        from sim.mapping.files import write_mappings

        write_mappings(save_mapping, {op.name: op.mapping for op in estimates[0].ops})
        common.say(f"mappings on {estimates[0].hardware_name} written to {save_mapping}")
    if json:
        documents = [found.to_dict() for found in estimates]
        common.print_json(documents[0] if len(documents) == 1 else documents)
    else:
        _print(estimates, per_op=per_op, by_module=by_module)
    raise typer.Exit(_exit_code(estimates, limit_s))


def _print(estimates: list[Any], *, per_op: bool, by_module: bool) -> None:
    from sim.cli import common
    from sim.view import comparisons, tables

    for found in estimates:
        common.show(tables.report(found, ops=per_op, module_tree=by_module), "")
    if len(estimates) > 1:
        common.show(comparisons.comparison(estimates))


def _exit_code(estimates: list[Any], limit_s: float) -> int:
    from sim.cli import common
    from sim.view.rows import time_text

    code = 0
    for found in estimates:
        if found.infeasible is not None:
            code = 1
        elif found.latency_s > limit_s:
            common.say(f"{found.hardware_name}: {time_text(found.latency_s)} is over {time_text(limit_s)}")
            code = 1
    return code
