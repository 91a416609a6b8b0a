"""`dovetail validate`: words in, table or JSON out."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def validate(
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Score a CSV of measured rows, a folder of them, a baseline file (.jsonl), or a device's records.",
        ),
    ] = None,
    hw: Annotated[
        str | None,
        typer.Option(
            "--hw",
            metavar="CHIP",
            help="With --against: the chip that was measured; else what a file's name begins with.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="With --against FILE: of its rows; else the last part of the file's name."),
    ] = None,
    calibration: Annotated[
        str, typer.Option("--calibration", help="With --against: auto, none or the name of a fitted set.")
    ] = "auto",
    check: Annotated[str | None, typer.Option("--check", help="One check or one group of checks.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Every check in one table, or measured rows scored. Exit code 1 when a gate fails."""
    from sim.cli import common
    from sim.cli.progress import Progress

    _check_together(against, check, hw=hw, precision=precision, calibration=calibration)
    if against is not None:
        _score(against, json, hw=hw, precision=precision, calibration=calibration)
        return
    import sim
    from sim.baseline.validate import validate as run

    with Progress("checks") as progress:
        found = run(check, progress=progress)
    if json:
        common.print_json(found.to_dict(sim.__version__))
    else:
        from sim.view.checks import again, check_table

        counts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in found.summary.items())
        common.show(check_table(found), counts, again(found), wide=True)
    if found.failed:
        raise typer.Exit(1)


def _score(against: str, json: bool, **options: Any) -> None:
    """Measured rows beside what is estimated of them."""
    import sim
    from sim.baseline.validate import against as score_files
    from sim.baseline.validate import score_document
    from sim.cli import common
    from sim.cli.progress import Progress

    with Progress(f"scoring {against}") as progress:
        scores = score_files(against, progress=progress, note=common.say, **options)
    documents = [score_document(one, sim.__version__) for one in scores]
    if json:
        common.print_json(documents[0] if len(documents) == 1 else documents)
    else:
        from sim.view.checks import score_notes, score_table

        common.show(score_table(documents), *score_notes(documents), wide=True)


def _check_together(against: str | None, check: str | None, **given: str | None) -> None:
    """Raises: ConfigError: an option of scored rows without such rows, or one of the checks with them."""
    from sim.errors import ConfigError

    if against is not None and check is not None:
        raise ConfigError(f"--check {check}: it goes with the bundled checks, not with --against {against}")
    for name, value in given.items():
        if against is None and value not in (None, "auto"):
            raise ConfigError(
                f"--{name} {value}: it goes with --against FILE or DEVICE; each bundled check has a chip, a precision "
                "and a calibration of its own"
            )
