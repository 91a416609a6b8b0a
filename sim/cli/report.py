"""`dovetail report`: saved results as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[list[Path], typer.Argument(help="Saved results (--json), or a folder of them or of a search.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page to write.")] = Path("report.html"),
) -> None:
    """One self-contained page: works from disk, needs no network, prints."""
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.errors import ConfigError, why
    from sim.view.report import report as make

    if output.suffix not in (".html", ".htm"):
        raise ConfigError(f"-o {output}: expected a file ending in .html")
    with Progress("reading results"):
        text = make(results, common.say)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"-o {output}: cannot be written: {why(error)}") from error
    common.say(f"{output}: {len(text.encode()) / 1e6:.2f} MB")
