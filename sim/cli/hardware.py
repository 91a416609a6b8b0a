"""`dovetail check`: what was understood of a file, or what is wrong, with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.estimate import SetOption
from sim.errors import ConfigError, nearest


def check(
    file: Annotated[
        Path | None, typer.Argument(help="A chip, search, scenario, recipe, precision or grid in YAML, or a model.")
    ] = None,
    set_: SetOption = None,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the JSON Schema of chip files instead, for an editor.")
    ] = False,
) -> None:
    """Validate FILE and print what was understood of it; else say what is wrong and where (exit code 2)."""
    from sim.cli import common

    if json_schema:
        from sim.hardware.load import editor_schema

        common.print_json(editor_schema())
        return
    if file is None:
        raise ConfigError(
            "check: no FILE: expected a chip, search, scenario, recipe, precision or grid in YAML, or a model"
        )
    for line in _checker(file)(file, set_ or []):
        common.show_line(line)


def _checker(file: Path) -> Callable[[Path, list[str]], list[str]]:
    """The checker of the file's kind or schema."""
    from sim.hardware.load import read_schema
    from sim.workload.load import MODEL_FILES

    if file.suffix.partition(":")[0] in (".py", *MODEL_FILES):
        return _check_workload
    if _is_scenario(file):
        return _check_scenario
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
    from sim.schedule.confidence import calibration_label

    chip = load_hardware(file, parse_overrides(overrides))
    return [*describe(chip), f"  costs: {calibration_label(chip, 'auto')}"]


def _check_search(file: Path, overrides: list[str]) -> list[str]:
    from sim.cli import common
    from sim.codesign.space import load_space

    _no_overrides(file, overrides)
    space = load_space(file)
    for note in space.notes:
        common.say(note)
    lines = [f"{space.spec.name}: {space.spec.title}".rstrip(": "), f"  chip {space.chip.name}"]
    for parameter in space.parameters:
        values = "a range" if parameter.values is None else ", ".join(map(str, parameter.values))
        lines.append(f"  {parameter.name}: {values}")
    return [*lines, f"  {space.size_text()}, judged by {', '.join(space.spec.objective_names)}"]


def _check_workload(file: Path, overrides: list[str]) -> list[str]:
    from sim.workload.load import load_workload
    from sim.workload.summary import summary_lines

    _no_overrides(file, overrides)
    return summary_lines(load_workload(str(file)))


def _check_recipe(file: Path, overrides: list[str]) -> list[str]:
    from sim.compression.recipe import load_recipe

    _no_overrides(file, overrides)
    recipe = load_recipe(file)
    return [f"{recipe.name}: {recipe.title}".rstrip(": "), *(f"  {step.technique}" for step in recipe.steps)]


def _check_scenario(file: Path, overrides: list[str]) -> list[str]:
    from sim.events.scenario import load_scenario

    _no_overrides(file, overrides)
    found = load_scenario(file)
    streams = [f"  stream {s.name}: {s.workload} on {s.target or 'the main unit'}" for s in found.streams]
    served = [f"  serving {found.serving.workload}"] if found.serving else []
    return [f"{found.name}: on {found.hardware}, {found.replications} replications", *streams, *served]


def _is_scenario(file: Path) -> bool:
    """Scenarios need bear no schema: what has streams or serving is one."""
    from sim.hardware.load import read_yaml

    document = read_yaml(file)
    return isinstance(document, dict) and "schema" not in document and bool({"streams", "serving"} & set(document))


def _no_overrides(file: Path, overrides: list[str]) -> None:
    if overrides:
        raise ConfigError(f"{file}: --set {overrides[0]} is for a chip file")


def _check_precision(file: Path, overrides: list[str]) -> list[str]:
    from sim.workload.precision_file import policy_document, read_policy

    _no_overrides(file, overrides)
    default = policy_document(file).get("default", "the chip's own")
    policy = read_policy(file, "int8")
    ops = [f"  {pattern}: {one.name}" for pattern, one in policy.ops.items()]
    return [f"{policy.name}: precisions by op, the first pattern that matches decides", *ops, f"  others: {default}"]


def _check_grid(file: Path, overrides: list[str]) -> list[str]:
    from sim.baseline.grid import load_grid

    _no_overrides(file, overrides)
    grid = load_grid(file)
    return [f"{grid.name}: {len(grid.points)} points to measure", *(f"  {point}" for point in grid.points)]


CHECKERS: dict[str, Callable[[Path, list[str]], list[str]]] = {
    "dovetail.chip/1": _check_chip,
    "dovetail.search/1": _check_search,
    "dovetail.recipe/1": _check_recipe,
    "dovetail.precision/1": _check_precision,
    "dovetail.scenario/1": _check_scenario,
    "dovetail.grid/1": _check_grid,
}
"""Schema -> what reads such a file and says what it understood, line by line."""
