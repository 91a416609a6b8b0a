"""Groups of a GPU that a framework drives op by op, costed by `sim.cost.gpu.eager` with the device's calibration.

`options.launch`: "graph" (default) replays the network's kernels from a graph, "eager" launches them one by one: where
the host takes longer in sum, the device waits for it, and every op carries its calls' share of the wait.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.gpu.eager import CLASSES, EagerConstants, EagerTime, eager_time
from sim.errors import PrecisionError
from sim.hardware.chip import Chip, Costing
from sim.results import Term
from sim.schedule.cpu import own_calibration, own_constants
from sim.schedule.eager_work import EagerKernels, eager_kernels
from sim.schedule.gpu import group
from sim.schedule.gpu_kernels import MISALIGNED, Gpu, Kernel, gpu_of
from sim.schedule.groups import GroupCost
from sim.units import Dimension, format_quantity
from sim.workload.graph import Op
from sim.workload.passes import PrecisionPolicy
from sim.workload.precision import BITS, Precision

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

LAUNCHES = ("graph", "eager")


def eager_gpu_of(chip: Chip, choice: str) -> Gpu:
    """Device and kernel model: the generation's own, or the data sheet's without a calibration."""
    return gpu_of(chip, "none" if own_calibration(chip, choice) is None else "auto")


def eager_constants(chip: Chip, choice: str) -> EagerConstants:
    """Fitted constants, or the data sheet's with the chip's own launch time between kernels.

    Raises: CalibrationError: constants of another version, with their names."""
    if own_calibration(chip, choice) is None:
        return replace(EagerConstants.datasheet(), gap_s=chip.main_unit.launch_s)
    return own_constants(chip, choice, EagerConstants)


def launch_of(chip: Chip) -> str:
    """ "graph" or "eager", as the chip file's check leaves it."""
    return str(chip.main_unit.options.get("launch", LAUNCHES[0]))


def host_wait_s(time: EagerTime) -> np.ndarray:
    """Per op what it adds to a network whose kernels wait for the host: its share of the calls.

    Example: 10 us of kernels, calls of 30 and 10 us: the device waits 30 us, 22.5 and 7.5 of them here.
    """
    calls_s, device_s = float(time.call_s.sum()), float(time.device_s.sum())
    return time.call_s * max(0.0, 1 - device_s / calls_s) if calls_s else np.zeros(time.call_s.shape)


def cost_eager(op: Op, position: int, coster: _Coster) -> GroupCost | None:
    """The group that runs at this position; None where fused attention has taken the op in."""
    if ("eager",) not in coster.mapped:
        choice = coster.options.calibration
        gpus = [eager_gpu_of(chip, choice) for chip in coster.chips]
        coster.mapped[("gpus",)] = tuple(gpus)
        coster.mapped[("eager",)] = [
            _timed(eager_kernels(coster.graph, gpu, coster, d), gpu.chip, choice, coster) for d, gpu in enumerate(gpus)
        ]
    tables = coster.mapped[("eager",)]
    if position not in tables[0]:  # type: ignore[index]
        return None
    kernels = [table[position][0] for table in tables]  # type: ignore[attr-defined]
    region = tables[0][position][1]  # type: ignore[index]
    found = group(op, coster, kernels, region)
    fixed = [table[position][2] for table in tables]  # type: ignore[attr-defined]
    return found.with_(bound=tuple("launch" if one else name for one, name in zip(fixed, found.bound, strict=True)))


def check_widths(chip: Chip, precision: Precision | PrecisionPolicy) -> None:
    """Raises: PrecisionError: activations of 8 bits and fewer, which a framework computes by calls of their own."""
    kinds = (precision.default, *precision.ops.values()) if isinstance(precision, PrecisionPolicy) else (precision,)
    narrow = next((one for one in kinds if BITS[one.activation] <= 8), None)
    if chip.main_unit.costing is Costing.GPU_EAGER and narrow is not None:
        raise PrecisionError(
            f"{chip.name}: a framework that runs a network op by op has no {narrow.name} layers on a GPU (their calls "
            "are no ops of the network): choose bf16, fp16, fp32 or weights alone (w8a16), or a chip with costing: "
            "gpu_kernels"
        )


def _timed(found: EagerKernels, chip: Chip, choice: str, coster: _Coster) -> dict[int, tuple]:
    """Position -> (kernel with the eager times, fused region, whether its fixed times are the longer part)."""
    time = eager_time(found.work, eager_constants(chip, choice))
    coster.mapped.setdefault(("host",), (float(time.call_s.sum()), float(time.device_s.sum())))  # of the first design
    wait = host_wait_s(time) if launch_of(chip) == "eager" else np.zeros(time.gap_s.shape)
    launch = time.gap_s + wait
    return {
        place: (
            _kernel(kernel, CLASSES[kind], launch=float(launch_s), floor=float(floor_s), body=float(kernel_s)),
            region,
            bool(launch_s + floor_s > kernel_s),
        )
        for place, kernel, region, kind, launch_s, floor_s, kernel_s in zip(
            found.places, found.kernels, found.regions, found.work.kind, launch, time.floor_s, time.kernel_s,
            strict=True,
        )
    }  # fmt: skip


def _kernel(kernel: Kernel, kind: str, *, launch: float, floor: float, body: float) -> Kernel:
    """The near-ideal kernel with the seconds that it really takes: its terms in the same parts, what a slower one adds
    over the ideal as exposed memory (copies, rows that wait). The floor is a pipeline that fills and drains."""
    ideal = sum(kernel.terms_s.values())
    scale = min(1.0, body / ideal) if ideal > 0 else 0.0
    terms = {term: value * scale for term, value in kernel.terms_s.items()}
    terms[Term.EXPOSED_MEMORY] = terms.get(Term.EXPOSED_MEMORY, 0.0) + max(0.0, body - sum(terms.values()))
    terms[Term.FILL_DRAIN] = terms.get(Term.FILL_DRAIN, 0.0) + floor
    flags = tuple(flag for flag in kernel.flags if flag == MISALIGNED)
    return replace(kernel, kind=kind, launch_s=launch, terms_s=terms, flags=flags, bounded=True)


def eager_notes(coster: _Coster) -> list[str]:
    """What the reader of such an estimate should know."""
    if coster.unit.costing is not Costing.GPU_EAGER:
        return []
    how = {
        "graph": "kernels of a framework, op by op, replayed from a graph: no gaps of the host",
        "eager": "kernels of a framework, launched op by op: where the host takes longer, the device waits for it",
    }
    notes = [how[launch_of(coster.chips[0])] + "; images and filters channels last"]
    if own_calibration(coster.chips[0], coster.options.calibration) is not None and ("host",) in coster.mapped:
        calls, device = (format_quantity(s, Dimension.TIME) for s in coster.mapped[("host",)])  # type: ignore[attr-defined]
        notes.append(f"the host needs {calls} for its calls, the device {device} for its kernels and their gaps")
    if own_calibration(coster.chips[0], coster.options.calibration) is None:
        notes.append(
            "no calibration: data-sheet rates, nothing kept in L2, the file's launch time between kernels; the host's "
            "calls are not known, so that nothing waits for them"
        )
    return notes


__all__ = ["cost_eager", "eager_constants", "eager_gpu_of", "eager_notes", "host_wait_s", "launch_of"]
