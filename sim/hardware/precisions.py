"""What a precision means on a chip: its default, and which of the 16-bit types `wXa16` stands for."""

from __future__ import annotations

from sim.hardware.chip import Chip
from sim.workload.passes.precision import PrecisionPolicy
from sim.workload.precision import Precision
from sim.workload.precision_file import resolve_precision


def precision_on(chip: Chip, given: str | Precision | PrecisionPolicy | None) -> Precision | PrecisionPolicy:
    """A precision as `sim.estimate` takes it, in types of the chip's main unit.

    Raises: as `resolve_precision`.
    """
    return resolve_precision(given, chip.default_precision, types=chip.main_unit.array.macs_per_cycle)
