"""`dovetail calibrate`: words around `sim.baseline.calibrate`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sim.baseline.calibrate import Fitted
    from sim.hardware.calibration import Calibration
    from sim.hardware.chip import Chip

GRIDS = {"cpu": (("cpu-ops", 170.0), ("cpu-workloads", 330.0)), "cuda": (("gpu-all", 460.0),)}
"""What `--device cpu` and `cuda` measure, and the seconds after which no further point is begun, so that it ends within
ten minutes."""


def calibrate(
    device: Annotated[
        str,
        typer.Option("--device", help="cpu, cuda, cuda:N: measure and fit this machine. Or a measured device's key."),
    ],
    hw: Annotated[str | None, typer.Option("--hw", help="Its chip; default: the bundled chip of that name.")] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Records; default: baselines/<device>.jsonl.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: <device>.json beside the bundled calibrations.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure", help="Measured against estimated, held out, with 90 % intervals, as .png: networks; ops."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the calibration as one JSON document.")] = False,
) -> None:
    """Fit a measured device's constants to its ops and networks; errors are of shapes and models that were held out."""
    import sim
    from sim.baseline.calibrate import calibration_of, fit
    from sim.baseline.record import check_writable
    from sim.cli import common
    from sim.cli.progress import Progress
    from sim.hardware import calibration

    if output is not None:
        check_writable(output)
    chip = sim.load_hardware(hw) if hw else None
    if device == "cpu" or device.partition(":")[0] == "cuda":
        device, chip, baseline = _measured_here(device, chip, baseline)
        output = output or Path(f"{device}.json")
    file = output or Path(calibration.__file__).parent / f"{device}.json"
    check_writable(file)
    with Progress(f"fitting the constants of {device}") as progress:
        fitted = fit(device, chip=chip, baseline=baseline, progress=progress, note=common.say)
        found = calibration_of(device, fitted)
    calibration.write_calibration(file, found)
    common.say(f"{found.source}: written to {file}")
    if chip is not None and chip.name == device:
        common.say(f"use it: dovetail estimate WORKLOAD --hw {_described(chip, file)} --calibration {file}")
    if figure:
        _draw(fitted, found, figure)
    if json:
        common.print_json(found.to_dict())
    else:
        from sim.view.checks import calibration_table

        common.show(calibration_table(found))
        common.say(interval_line(found))
    if found.at_limits:
        common.say(f"at the end of their physical range: {', '.join(found.at_limits)}")


def _measured_here(device: str, chip: Chip | None, baseline: Path | None) -> tuple[str, Chip, Path]:
    """Measure the device's grids on this machine, what its file does not hold yet: (device, chip, file)."""
    from sim.baseline.device import CpuDevice, open_device
    from sim.baseline.own_chip import own_chip, own_gpu
    from sim.cli.measure import measure

    machine = open_device(device)
    chip = (chip or own_chip(machine)) if isinstance(machine, CpuDevice) else own_gpu(machine, chip)
    file = baseline or Path("baselines") / f"{machine.key}.jsonl"
    for grid, seconds in GRIDS[machine.backend]:
        # It ends with 1 where none of the points that were left has a number: those of earlier runs may be enough.
        with suppress(typer.Exit):
            measure(grid, device=device, output=file, time_limit=seconds, rounds=1)
    return machine.key, chip, file


def _described(chip: Chip, file: Path) -> Path:
    """Write the chip beside its calibration."""
    from sim.hardware.dump import dump

    path = file.with_suffix(".yaml")
    path.write_text(dump(chip), encoding="utf-8")
    return path


def _draw(fitted: Fitted, found: Calibration, path: Path) -> None:
    """Two files: <path> of whole networks, <path stem>-ops of ops."""
    import sim
    from sim.baseline.calibrate import held_out

    points = held_out(fitted, found)
    for networks, file in ((True, path), (False, path.with_stem(f"{path.stem}-ops"))):
        if any(p.network is networks for p in points):
            sim.plot.held_out(points, networks=networks, device=found.device).figure.savefig(file)  # type: ignore[union-attr]


def interval_line(found: Calibration) -> str:
    """How often the 90 % intervals held for networks of models that were left out."""
    r = found.residuals
    if not r.points or r.median_width is None:
        return "intervals: too few whole networks to test them; they rest on the normal distribution"
    return (
        f"90 % intervals, each model left out: {r.covered} of {r.points} networks of {r.models} models inside, "
        f"median width {100 * r.median_width:.0f} % of the estimate"
    )
