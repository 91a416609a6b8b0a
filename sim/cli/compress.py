"""`dovetail compress`: a recipe on a workload, its quality, and what it buys on each chip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli import complete
from sim.cli.estimate import CalibrationOption, KnobOption, SetOption


def compress(
    workload: Annotated[str, typer.Argument(help="Bundled name or model.py.", autocompletion=complete.workloads)],
    recipe: Annotated[
        list[str],
        typer.Option(
            "--recipe",
            help="Bundled name or YAML file; repeatable.",
            autocompletion=complete.names("workloads/recipes"),
        ),
    ],
    hw: Annotated[
        list[str], typer.Option("--hw", help="Bundled name or chip.yaml; repeatable.", autocompletion=complete.chips)
    ] = [],  # noqa: B006
    p: KnobOption = None,
    set_: SetOption = None,
    calibration: CalibrationOption = "auto",
    seed: Annotated[int, typer.Option(help="Seed of training and fine-tuning.")] = 0,
    train_steps: Annotated[int | None, typer.Option(help="Steps of training; default: the task's.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File of the trained model, those of fine-tuning beside it: a killed run goes on."),
    ] = None,
    figure: Annotated[Path | None, typer.Option("-o", help="Figure of quality against latency per chip.")] = None,
    sensitivity: Annotated[Path | None, typer.Option(help="Figure of each layer's loss, alone, by width.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Compress a workload by recipes and show quality, latency, energy and bytes before and after."""
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.compression.study import run_study

    stages = [""]
    with Progress(f"{workload}: {', '.join(recipe)}", steps=2 + len(recipe)) as progress:

        def report(stage: str, step: int, steps: int, loss: float) -> None:
            if stage != stages[-1]:
                stages.append(stage)
                progress.step(stage)
            progress.tell(f"{stage}, loss {loss:.3f}", step / steps)

        study = run_study(
            workload,
            recipe,
            hardware=common.chips(hw, set_ or ()),
            knobs=common.knobs(p or ()),
            calibration=calibration,
            seed=seed,
            train_steps=train_steps,
            sensitivity_choices=("int8", "int4", "int2", "2:4") if sensitivity is not None else (),
            checkpoint=checkpoint,
            progress=report,
        )
    if figure is not None:
        from sim.view.compression import study_figure

        study_figure(study).savefig(figure)
    if sensitivity is not None:
        from sim.view.compression import sensitivity_figure

        sensitivity_figure(study).savefig(sensitivity)
    if json:
        common.print_json(study.to_dict())
    else:
        from sim.view.compression import study_tables

        common.show(*study_tables(study))
