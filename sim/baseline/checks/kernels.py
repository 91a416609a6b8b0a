"""GPU kernel models against measured kernels, where the data folder is present."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

from sim.baseline.checks.check import Check, Rule, group
from sim.baseline.checks.waiting import data_folder
from sim.baseline.score import ErrorStatistics, score_file
from sim.hardware.load import load_hardware

SAME_GENERATION = 0.08
OTHER_GENERATION = {"gemm": 0.15, "attention_prefill": 0.20, "attention_decode": 0.25}
OTHER_P90 = 0.40
"""Targets for GPUs that nobody measured: median errors of kernels, by whether their generation was measured."""
GPUS = {"a100": ("a100-sxm", "mma-sync", "h100-sxm"), "h100": ("h100-sxm", "wgmma", "a100-sxm")}
"""Beginning of the file's name -> (chip, joint set of its kernel library, the GPU of the other generation)."""


@cache
def _statistics(gpu: str, kind: str, calibration: str) -> ErrorStatistics | None:
    folder = data_folder()
    path = folder / "gpu_kernels" / f"{gpu}_sxm_{kind}_bf16.csv" if folder else None
    if path is None or not path.is_file():
        return None
    return score_file(path, load_hardware(GPUS[gpu][0]), calibration=calibration).statistics


def _read(gpu: str, kind: str, calibration: str, field: str) -> float | None:
    found = _statistics(gpu, kind, calibration)
    return None if found is None else float(getattr(found, field))


@group("kernels")
def kernels() -> Iterator[Check]:
    """In sample: the device's own constants, and the joint set that GPUs of another generation get. Out of sample: the
    constants of the other GPU, of another generation and another version of the kernel library."""
    for gpu, (chip, library, stranger) in GPUS.items():
        for kind, other in OTHER_GENERATION.items():
            for label, calibration, field, target in (
                ("own.median", chip, "median_error", SAME_GENERATION),
                ("joint.median", library, "median_error", other),
                ("joint.p90", library, "p90_error", OTHER_P90),
                ("transfer.median", stranger, "median_error", other),
                ("transfer.p90", stranger, "p90_error", OTHER_P90),
            ):
                yield Check(
                    id=f"kernels.{gpu}.{kind.removeprefix('attention_')}.{label}",
                    source="ai-dynamo/aiconfigurator 095f58a5, vLLM kernels (rows not part of the package)",
                    quantity=f"{chip} {kind} bf16, constants of {calibration}, {field}".replace("_", " "),
                    unit="fraction",
                    theirs=target,
                    tolerance=0.0,
                    gate=True,
                    compute=partial(_read, gpu, kind, calibration, field),
                    rule=Rule.AT_MOST,
                    needs_data=True,
                    note="theirs is the target for GPUs not measured. "
                    + (
                        "No row of this GPU was fitted, but the form of the models was chosen with both GPUs in sight"
                        if calibration == stranger
                        else "In sample; families held out: benchmarks/gpu_constants.py fit and joint"
                    ),
                )
