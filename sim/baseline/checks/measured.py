"""Against the devices that this project measured: records in `baselines/`, and what the calibrations had not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from statistics import median

from sim.baseline.checks.check import Check, Rule, group
from sim.baseline.checks.kernels import OTHER_GENERATION, OTHER_P90, SAME_GENERATION
from sim.baseline.record import Mode, Phase, read_baseline
from sim.baseline.score import ErrorStatistics, error_statistics
from sim.hardware.calibration import calibrations
from sim.resources import data_dir

H200 = "nvidia-h200"
KERNELS = {"gemm": SAME_GENERATION, "attention_prefill": None, "attention_decode": None}
"""Op -> target for a GPU of a measured generation; None: torch calls another library (cuDNN) than the one that was
fitted (FlashAttention-3, which writes the cache too), so that the row informs."""
OTHER_KERNELS = "informs: torch runs cuDNN's attention, the constants are those of FlashAttention-3 in a server"
IN_SAMPLE = (
    "in sample: four energies of the chip file were fitted to these runs; left out one by one, 5 % in the median and "
    "17 % at most (benchmarks/gpu_energy.py); theirs is what published machines are held to"
)
NETWORKS: Mapping[str, tuple[tuple[str, float, float | None], ...]] = {
    H200: (("networks, graph", 0.08, 0.20), ("networks, eager", 0.15, None)),
    "amd-epyc-f25m17-avx512-zen4-2c": (("networks", 0.08, 0.20),),
    "amd-epyc-f26m2-avx512-2c": (("networks", 0.08, None),),
}
"""Device -> (rows of the calibration's held-out errors, target of the median, of the ninetieth percentile; None where
it is missed, as by the Zen 5's networks: 21 % of 20)."""


@cache
def _h200(op: str) -> ErrorStatistics:
    """bf16 kernels replayed from a graph, operands cold: estimates of chip h200, to which no H200 contributed."""
    from sim.baseline.compare import compare_records

    found = [
        r
        for r in read_baseline(data_dir("baselines") / f"{H200}.jsonl").latest.values()
        if r.op == op and r.precision == "bf16" and r.mode is Mode.GRAPH and r.median_s is not None
        and (r.phase is Phase.COLD or op == "attention_prefill")
    ]  # fmt: skip
    rows = [row for row in compare_records(found, "h200").rows if row.estimated_s is not None]
    return error_statistics([r.estimated_s for r in rows], [r.measured_s for r in rows])  # type: ignore[arg-type]


def _error(op: str, field: str) -> float:
    return float(getattr(_h200(op), field))


def _energy_error() -> float:
    import sim
    from sim.baseline.graphs import record_graph

    chip, errors = sim.load_hardware("h200"), []
    for record in read_baseline(data_dir("baselines") / f"{H200}.jsonl").latest.values():
        if record.energy_j is not None and record.median_s is not None:
            found = sim.estimate(record_graph(record), chip, precision=record.precision, inputs="resident")
            errors.append(abs(float(found.energy_j or 0.0) / record.energy_j - 1))
    return median(errors)


def _held_out(device: str, rows: str, field: str) -> float:
    return float(calibrations()[device].error[rows][field] or 0.0)


def _at_most(
    name: str, source: str, quantity: str, limit: float, compute: Callable[[], float], note: str, *, gate: bool = True
) -> Check:
    """A row whose error, a fraction, may reach the limit."""
    return Check(
        id=f"measured.{name}", source=source, quantity=quantity.replace("_", " "), unit="fraction", theirs=limit,
        tolerance=0.0, gate=gate, compute=compute, rule=Rule.AT_MOST, note=note,
    )  # fmt: skip


@group("measured")
def measured() -> Iterator[Check]:
    """Kernels of a GPU that no fit has seen, its energies, and networks of models that were left out of a fit."""
    stack = f"baselines/{H200}.jsonl: PyTorch 2.11, CUDA 13.0, graph replay"
    for op, target in KERNELS.items():
        for field, limit in (("median_error", target or OTHER_GENERATION.get(op, 0.0)), ("p90_error", OTHER_P90)):
            yield _at_most(
                f"h200.{op.removeprefix('attention_')}.{field.removesuffix('_error')}", stack,
                f"h200 {op} bf16, constants of the H100, {field}", limit, partial(_error, op, field),
                "theirs is the target for GPUs not measured" if target else OTHER_KERNELS, gate=target is not None,
            )  # fmt: skip
    yield _at_most(
        "h200.energy.median", f"baselines/{H200}.jsonl: NVML's energy counter",
        "h200 energy of ten runs (products, an element-wise kernel, Llama 1B and 8B), median error", 0.15,
        _energy_error, IN_SAMPLE,
    )  # fmt: skip
    for device, parts in NETWORKS.items():
        for rows, *limits in parts:
            for field, most in zip(("median_error", "p90_error"), limits, strict=True):
                if most is not None:
                    yield _at_most(
                        f"{device}.{rows.replace(', ', '.')}.{field.removesuffix('_error')}",
                        f"baselines/{device}.jsonl",
                        f"{device} whole {rows}, their models left out of the fit, {field}", most,
                        partial(_held_out, device, rows, field),
                        "as `dovetail calibrate` wrote it; theirs is the target",
                    )  # fmt: skip
