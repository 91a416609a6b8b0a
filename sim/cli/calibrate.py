"""`dovetail calibrate`: words around `sim.baseline.calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def calibrate(
    device: Annotated[str, typer.Option("--device", help="Device key of the records: baselines/<device>.jsonl.")],
    hw: Annotated[str | None, typer.Option("--hw", help="Its chip; default: the bundled chip of that name.")] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="Another file of records.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the CPU grids first, nine minutes.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: <device>.json beside the bundled calibrations.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the calibration as one JSON document.")] = False,
) -> None:
    """Fit a CPU's few constants to its measured ops; whole models and half of the shapes are held out."""
    import sim
    from sim.baseline.calibrate import calibrate as run
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.hardware import calibration

    chip = sim.load_hardware(hw) if hw else None
    if measure:
        from sim.cli.measure import measure as take

        baseline = baseline or Path("baselines") / f"{device}.jsonl"
        take("cpu-ops", output=baseline, time_limit=180.0)
        take("cpu-workloads", output=baseline, time_limit=360.0)
    with Progress(f"fitting the constants of {device}"):
        found = run(device, chip=chip, baseline=baseline)
    file = output or Path(calibration.__file__).parent / f"{device}.json"
    calibration.write_calibration(file, found)
    common.say(f"{found.source}: written to {file}")
    if found.at_limits:
        common.say(f"at the end of their physical range: {', '.join(found.at_limits)}")
    if json:
        common.print_json(found.to_dict())
    else:
        common.show(error_table(found))


def error_table(found):
    """Held-out errors by class of ops and for whole networks, in percent."""
    from rich.table import Table

    table = Table("held out", "rows", "mean", "median", "p90", "bias", box=None)
    for name, one in found.error.items():
        errors = (f"{100 * one[key]:.1f} %" for key in ("mean_error", "median_error", "p90_error", "bias"))
        table.add_row(name, str(one["rows"]), *errors)
    return table
