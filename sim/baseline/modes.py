"""Which records an estimate on a chip may be put beside, by how the framework ran them."""

from __future__ import annotations

from collections.abc import Sequence

from sim.baseline.record import BaselineRecord, Mode
from sim.hardware.chip import Chip, Costing
from sim.schedule.gpu_eager import launch_of


def modes_of(chip: Chip) -> tuple[Mode, ...]:
    """The mode that an estimate on this chip speaks of, then those that stand in for it; empty: any.

    Example: a GPU costed kernel by kernel is one whose kernels are replayed from a graph; compiled code is nearer to it
    than ops launched one by one.
    """
    match chip.main_unit.costing:
        case Costing.GPU_EAGER:
            return (Mode(launch_of(chip)),)
        case Costing.GPU_KERNELS:
            return (Mode.GRAPH, Mode.COMPILE, Mode.EAGER)
        case Costing.CPU:
            return (Mode.EAGER, Mode.COMPILE)
        case _:
            return ()


def comparable(records: Sequence[BaselineRecord], chip: Chip) -> list[BaselineRecord]:
    """The records of the first of `modes_of` that any of them has; all where the chip's estimates claim no mode."""
    modes = modes_of(chip)
    if not modes:
        return list(records)
    return next((found for mode in modes if (found := [r for r in records if r.mode is mode])), [])


__all__ = ["comparable", "modes_of"]
