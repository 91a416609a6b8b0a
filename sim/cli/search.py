"""`dovetail search`: joint search over model, compression and chip."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from sim.cli import complete

SAMPLES = 10
"""Designs that `--dry-run` prints."""


def search(
    space: Annotated[
        str,
        typer.Argument(
            metavar="SPACE.yaml", help="Search file, or a bundled name.", autocompletion=complete.names("searches")
        ),
    ],
    trials: Annotated[int | None, typer.Option(help="Total of the study; default: the file's budget.")] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help='Stop after this long, e.g. "10 min".')] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Journal file, sqlite:///..., grpc://host:port; default: in -o.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Default: the file's.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="auto, none, a measured device's name or a .json file; default: the file's.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="The file's short form.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the size of the space and ten samples.")] = False,
    output: Annotated[Path | None, typer.Option("-o", metavar="DIR", help="Folder for the answers.")] = None,
) -> None:
    """Search which model on which chip; a second run with the same -o or --storage continues."""
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.codesign.space import load_space
    from sim.errors import ConfigError

    found = load_space(space, short=short, calibration=calibration)
    for note in found.notes:
        common.say(note)
    if dry_run:
        from sim.view.search_tables import dry_run as tables

        common.show(*tables(found, samples=SAMPLES))
        return
    if output is None:
        raise ConfigError("search needs a folder for its answers: -o DIR (or --dry-run to only look at the space)")
    import sim

    try:
        with Progress(f"searching {found.spec.name}") as progress:
            result = sim.search(
                found, trials=trials, timeout_s=_seconds(timeout), storage=storage, workers=workers, seed=seed,
                output=output, progress=progress.log,
            )  # fmt: skip
    except KeyboardInterrupt:
        common.say("dovetail: interrupted: the trials that ended are kept; the same command goes on after them")
        raise typer.Exit(common.EXIT_INTERRUPTED) from None
    from sim.view.search import write_figures
    from sim.view.search_tables import front_table

    write_figures(result, output)
    if result.front:
        common.show(front_table(result))
    common.show((output / "summary.txt").read_text(encoding="utf-8").rstrip())
    common.say(f"answers written to {output}; next: dovetail report {output} -o {output.name}.html")
    if not result.front:
        raise typer.Exit(1)


def _seconds(text: str | None) -> float | None:
    from sim.units import Dimension, parse_quantity

    if text is None:
        return None
    with suppress(ValueError):
        if text.endswith("min"):
            return 60 * float(text.removesuffix("min"))
    return parse_quantity(text, Dimension.TIME, where="--timeout")
