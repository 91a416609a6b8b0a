"""`dovetail check`: what was understood of a file, or every error with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sim.errors import ConfigError, nearest


def check(
    file: Annotated[Path, typer.Argument(help="A YAML file of ours; its `schema:` says of which kind.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", help="component.field=quantity, on a chip.")] = None,
) -> None:
    """Validate FILE and print what was understood of it; exit 2 with every error otherwise."""
    for line in _checker(file)(file, overrides or []):
        typer.echo(line)


def _checker(file: Path) -> Callable[[Path, list[str]], list[str]]:
    """The checker of the file's schema."""
    from sim.hardware.load import read_schema

    schema = read_schema(file)
    if schema not in CHECKERS:
        raise ConfigError(
            f'{file}: schema "{schema}" cannot be checked: expected one of {", ".join(CHECKERS)}.'
            f"{nearest(schema, CHECKERS)}"
        )
    return CHECKERS[schema]


def _check_chip(file: Path, overrides: list[str]) -> list[str]:
    from sim.hardware.describe import describe
    from sim.hardware.load import load_hardware, parse_overrides

    return describe(load_hardware(file, parse_overrides(overrides)))


CHECKERS: dict[str, Callable[[Path, list[str]], list[str]]] = {"dovetail.chip/1": _check_chip}
"""Schema -> what reads such a file and says what it understood, line by line."""
