"""`dovetail sweep`: a workload over a grid of chips, knobs and precisions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
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
    WorkloadArgument,
)
from sim.errors import ConfigError

FIGURES = (".png", ".svg", ".pdf")
SHOWN = 12
"""How many of the fastest designs the table on stdout holds."""
REASONS = 3
"""How many reasons of designs that do not run are told."""


def sweep(
    workload: WorkloadArgument,
    hw: HardwareOption,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=V1,V2|LO:HI:N",
            help="Values of a chip key; N even steps from LO to HI, whose unit may stand at either.",
        ),
    ] = None,
    p: Annotated[
        list[str] | None, typer.Option("-p", "--param", metavar="KNOB=V1,V2", help="Values of a knob.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="P1,P2", help="Precisions, policy files; default: the chip's.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", help="Table: .csv or .parquet.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Latency along the longest numeric range: .png, .svg or .pdf.")
    ] = None,
    calibration: CalibrationOption = "auto",
    allow_unsupported: AllowOption = False,
    inputs: InputsOption = Inputs.HOST,
    json: JsonOption = False,
) -> None:
    """Estimate every combination; rows are in the order of the options, the last one fastest."""
    import sim
    from sim.aside import cores
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.schedule.confidence import calibration_label
    from sim.sweep_io import ENDINGS, columns_of, write_table
    from sim.sweeping import SWEEP_SCHEMA

    if output is not None and output.suffix not in ENDINGS:
        raise ConfigError(f"-o {output}: expected a file ending in {' or '.join(ENDINGS)}")
    if figure is not None and figure.suffix not in FIGURES:
        raise ConfigError(f"--figure {figure}: expected a file ending in {', '.join(FIGURES)}")
    grid = {path: values(text, where=f"--set {path}") for path, text in common.overrides(set_ or ()).items()}
    knobs = {name: text.split(",") for name, text in common.knobs(p or ()).items()}
    precisions = None if precision is None else precision.split(",")
    chips, tables = common.chips(hw, ()), []
    with Progress(f"tracing {workload}", steps=1 + len(chips)) as progress:
        subject = workload if knobs else sim.load_workload(workload, progress=progress.traced)
        for chip in chips:
            progress.step(f"{workload} on designs of {chip.name}")
            found = sim.sweep(subject, chip, grid, knobs=knobs, precisions=precisions, calibration=calibration,
                              allow_unsupported=allow_unsupported, inputs=inputs.value, progress=progress,
                              processes=cores())  # fmt: skip
            tables.append(found)
    columns = columns_of(hw, tables)
    labels = {chip.name: calibration_label(chip, calibration) for chip in chips}
    nowhere = all(columns["infeasible"])
    if output is not None:
        write_table(output, columns)
        common.say(f"{len(columns['hardware'])} designs written to {output}")
    if figure is not None:
        _draw(columns, figure, workload)
        common.say(f"figure written to {figure}")
    if json:
        common.print_json({"schema": SWEEP_SCHEMA, "version": sim.__version__, "workload": workload}
                          | _settings(chips, tables) | {"calibration": labels, "columns": columns})  # fmt: skip
    else:
        from sim.view import comparisons
        from sim.view.tables import unruled

        common.show(comparisons.designs(columns, limit=SHOWN))
        if any(columns["infeasible"]):
            common.show(_infeasible(columns["reason"]))
        common.show("Assumes: " + "; ".join(_assumed(c, t, labels) for c, t in zip(chips, tables, strict=True)) + ".")
        settings: Mapping[str, Any] = tables[0].settings
        common.show(*unruled(settings["unsupported"]))
    raise typer.Exit(1 if nowhere else 0)


def _infeasible(reasons: Sequence[str]) -> str:
    """How many designs do not run, and for which reasons, the most frequent first."""
    counts = Counter(filter(None, reasons)).most_common()
    count = sum(n for _, n in counts)
    who = "None of them runs" if count == len(reasons) else f"{count} of {len(reasons)} do not run"
    told = "; ".join(f"{reason} ({n})" if len(counts) > 1 else reason for reason, n in counts[:REASONS])
    return f"{who}: {told}" + (f"; {len(counts) - REASONS} other reasons." if len(counts) > REASONS else ".")


def _settings(chips: Sequence[Any], tables: Sequence[Any]) -> dict[str, object]:
    """What all rows share, and what those of one chip do, by its name."""
    shared = {name: tables[0].settings[name] for name in ("objective", "map_space", "unsupported")}
    own = {
        name: {chip.name: table.settings[name] for chip, table in zip(chips, tables, strict=True)}
        for name in ("precision", "buffering")
    }
    return {**shared, **own}


def _assumed(chip: Any, table: Any, labels: Mapping[str, str]) -> str:
    """What the rows of a chip rest on, in words."""
    precisions = ", ".join(table.settings["precision"])
    mappings = f"best of the {table.settings['map_space']} mappings, {table.settings['buffering']} buffering"
    return f"{chip.name} {labels[chip.name]}, {precisions}, {mappings}"


def _draw(columns: Mapping[str, Sequence[Any]], path: Path, title: str) -> None:
    from sim.view.scaling import scaling_axis, scaling_figure

    x = scaling_axis(columns)
    if x is None:
        raise ConfigError(f"--figure {path}: nothing numeric varies; give a range such as -p batch=1,2,4,8")
    try:
        scaling_figure(columns, x, title=title).savefig(path)
    except OSError as error:
        raise ConfigError(f"--figure {path}: cannot be written: {error.strerror}") from error


def values(text: str, *, where: str) -> list[str | int]:
    """ "16,32,64" or "16 MiB:64 MiB:4" as what each design is given: whole numbers, as from Python, else texts. The
    unit of a range may stand at one of its ends alone, "1:2 GHz:3".

    Raises: ConfigError: a range without three parts, two units, or counts that do not come out whole.
    """
    from sim.hardware.designs import check_number_of_values

    if ":" not in text:
        found = [part.strip() for part in text.split(",")]
        if not all(found):
            raise ConfigError(f'{where}: "{text}" has an empty value, expected for example 16,32,64')
        return [_plain(part) for part in found]
    parts = [part.strip() for part in text.split(":")]
    if len(parts) != 3 or not re.fullmatch("[0-9]{1,18}", parts[2]) or int(parts[2]) < 2:
        raise ConfigError(f'{where}: "{text}" is no range, expected lo:hi:n with n >= 2, such as 16:64 MiB:4')
    (low, unit), (high, other) = (_split(part, where) for part in parts[:2])
    unit = unit or other
    if other not in ("", unit):
        raise ConfigError(f'{where}: "{text}" begins in {unit} and ends in {other}; write both in one unit')
    check_number_of_values(int(parts[2]), where=f'{where}: "{text}"')
    steps = [low + (high - low) * i / (int(parts[2]) - 1) for i in range(int(parts[2]))]
    if not unit and not all(step.is_integer() for step in steps):
        raise ConfigError(f"{where}: {text} does not come out in whole numbers: {', '.join(f'{s:g}' for s in steps)}")
    return [_plain(f"{step:.12g} {unit}".strip()) for step in steps]


def _plain(text: str) -> str | int:
    """A whole number as one; a longer text than any count of parts stays for the chip to refuse."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else text


def _split(text: str, where: str) -> tuple[float, str]:
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)", text)
    if match is None:
        raise ConfigError(f'{where}: "{text}" is no quantity, expected a number with its unit')
    return float(match[1]), match[2]
