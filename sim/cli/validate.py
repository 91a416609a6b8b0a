"""`dovetail validate`: words in, table or JSON out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    against: Annotated[
        str | None,
        typer.Option("--against", help="Score a CSV of measured rows, a folder of them, or a device's records."),
    ] = None,
    hw: Annotated[str | None, typer.Option("--hw", metavar="CHIP", help="The chip that was measured.")] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Precision of the rows; else the last part of the file's name.")
    ] = None,
    calibration: Annotated[str, typer.Option("--calibration", help="auto, none or the name of a fitted set.")] = "auto",
    check: Annotated[str | None, typer.Option("--check", help="One check or one group of checks.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Every check in one table, or measured rows scored. Exit code 1 when a gate fails."""
    from sim.cli import common
    from sim.cli.progress import Progress

    if against is not None:
        import sim
        from sim.baseline.validate import against as score_files
        from sim.baseline.validate import score_document

        with Progress(f"scoring {against}"):
            scores = score_files(against, hw=hw, precision=precision, calibration=calibration)
        documents = [score_document(one, sim.__version__) for one in scores]
        if json:
            common.print_json(documents[0] if len(documents) == 1 else documents)
        else:
            common.show(score_table(documents))
        return
    import sim
    from sim.baseline.validate import validate as run

    with Progress("checks") as progress:
        found = run(check, progress=progress)
    if json:
        common.print_json(found.to_dict(sim.__version__))
    else:
        common.show(check_table(found), ", ".join(f"{key} {value}" for key, value in found.summary.items()))
    if found.failed:
        raise typer.Exit(1)


def check_table(validation):
    """The rows of a validation as a rich table: one line each; units and sources are in the JSON."""
    from rich.table import Table

    table = Table(box=None)
    for title in ("check", "ours", "theirs", "error", "tolerance", "verdict"):
        table.add_column(title, no_wrap=True, justify="left" if title in ("check", "verdict") else "right")
    table.add_column("source", no_wrap=True, overflow="ellipsis", max_width=14)
    for row in validation.results:
        check = row.check
        ours = "-" if row.ours is None else _number(row.ours)
        error = "" if row.rel_error is None else f"{100 * row.rel_error:+.1f}%"
        table.add_row(check.id, ours, _number(check.theirs), error, _tolerance(check), row.verdict, _key(check.source))
    return table


def _number(value: float) -> str:
    """Four digits, without an exponent for large counts."""
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _key(source: str) -> str:
    """The source without its place and confidence."""
    return source.split(",")[0].split(" (")[0]


def _tolerance(check) -> str:
    """How near ours must be, in words of the table."""
    from sim.baseline.checks import Rule

    words = {
        Rule.RELATIVE: f"{100 * check.tolerance:g}%",
        Rule.POINTS: f"{check.tolerance:g} pts",
        Rule.AT_LEAST: "at least",
        Rule.AT_MOST: "at most",
    }
    return words[check.rule]


def score_table(documents):
    """Scores of files as a rich table; errors in percent. Flagged rows lie outside the model and are not scored."""
    from rich.table import Table

    table = Table("file", "kind", "rows", "flagged", "mean", "median", "p90", "bias", "Spearman", box=None)
    for one in documents:
        errors = (f"{100 * one[key]:.1f} %" for key in ("mean_error", "median_error", "p90_error", "bias"))
        rank = "-" if one["spearman"] is None else f"{one['spearman']:.3f}"
        flagged = str(one.get("flagged_rows", 0))
        table.add_row(Path(str(one["path"])).name, str(one["kind"]), str(one["rows"]), flagged, *errors, rank)
    return table
