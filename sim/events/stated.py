"""What results state of how they were made: chip, calibration, objective, map space, buffering, precisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.cost.gpu.sets import fitted_sets
from sim.errors import InfeasibleError
from sim.events.result import refused
from sim.events.scenario import Scenario, Serving, StreamSpec
from sim.hardware.chip import Chip, Costing
from sim.hardware.dump import chip_hash
from sim.schedule.cpu import own_calibration
from sim.schedule.gpu_kernels import gpu_of


def hardware(chip: Chip) -> dict[str, Any]:
    """The `hardware` of a document."""
    return {"name": chip.name, "hash": chip_hash(chip), "overrides": dict(chip.overrides)}


def calibration(chip: Chip, choice: str = "auto") -> dict[str, Any] | None:
    """The `calibration` of a document on a chip as a whole: device, date, errors; None with data-sheet constants, or
    where the chip describes no unit (schedules from elsewhere).

    Raises: ConfigError, CalibrationError: a choice that is unknown.
    """
    if not chip.units:
        return None
    if chip.main_unit.costing is Costing.GPU_KERNELS and choice != "none":
        origin = gpu_of(chip, choice).constants.origin
        names = {kind: words.split(",")[0] for kind, words in origin.items() if words.split(",")[0] in fitted_sets()}
        sets, main = fitted_sets(), names.get("gemm") or next(iter(names.values()))
        error = {
            kind: sets[name].error[kind]["median_error"] for kind, name in names.items() if kind in sets[name].error
        }
        return {"device": main, "date": sets[main].date, "error": error, "origin": dict(origin)}
    found = own_calibration(chip, choice)
    if found is None:
        return None
    fitted = {name: values.get("median_error") for name, values in found.error.items()}
    return {"device": found.device, "date": found.date, "error": fitted}


def scenario(given: Scenario, chip: Chip) -> dict[str, Any]:
    """What the documents of a scenario share: the defaults of 2.4, with which its models are scheduled."""
    return {
        "hardware": hardware(chip),
        "objective": "latency",
        "map_space": "even",
        "buffering": chip.main_unit.buffering.value if chip.units else None,
        "calibration": calibration(chip),
        "workloads": {
            name: {
                "name": spec.workload,
                "knobs": dict(spec.knobs),
                "precision": spec.precision or chip.default_precision,
            }
            for name, spec in _models(given).items()
        },
    }


def infeasible(given: Scenario, chip: Chip, error: InfeasibleError, *, seed: int) -> dict[str, Any]:
    """The `dovetail.simulate/1` document of a scenario that cannot run: how it would have, and why not."""
    return refused(error, grain=given.grain, seed=seed).to_dict() | {"scenario": given.name, **scenario(given, chip)}


def _models(given: Scenario) -> Mapping[str, StreamSpec | Serving]:
    """Stream -> what it runs; of a serving scenario "serving"."""
    return {"serving": given.serving} if given.serving else {spec.name: spec for spec in given.streams}
