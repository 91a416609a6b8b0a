"""Whether what lies at home fits there, and which tensors take the most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.schedule.residency import Residency
from sim.units import Dimension, format_quantity
from sim.workload.graph import Graph

if TYPE_CHECKING:
    from sim.schedule.network import _Coster


def never_fits(coster: _Coster) -> bool:
    """Whether what lies at home whatever is fused fits on no design: told before a network is mapped for nothing."""
    held = coster.residency
    least = (held.home_bytes - held.home_live_bytes).max(axis=1, initial=0.0)
    return all(
        needed > chip.memory(chip.main_unit.home).capacity_bytes
        for needed, chip in zip(least, coster.chips, strict=True)
    )


def check_home(coster: _Coster, held: Residency) -> None:
    """Mark the designs at whose home too little fits of what lies there at once."""
    peaks = held.home_peak_bytes
    for d, chip in enumerate(coster.chips):
        home = chip.memory(chip.main_unit.home)
        if peaks[d] > home.capacity_bytes:
            largest = sorted(held.home_tensors.items(), key=lambda item: -item[1])[:5]
            names = tuple(f"{_called(coster.graph, storage)} ({_size(size)})" for storage, size in largest)
            needed, room = float(peaks[d]), home.capacity_bytes
            times = needed / room
            over = f"{times:,.{0 if times >= 10 else 1}f} times as much" if times > 2 else f"over by {times - 1:.0%}"
            reason = (
                f"{_size(needed)} of weights, inputs and live activations do not fit {home.name} of {_size(room)} on "
                f"{chip.name} ({over})"
            )
            coster.reasons[d] = (reason, names)


def _size(size_bytes: float) -> str:
    return format_quantity(size_bytes, Dimension.SIZE)


def _called(graph: Graph, storage: str) -> str:
    """The user's name of the largest tensor in a storage."""
    inside = [t for key, t in graph.tensors.items() if (t.storage or key) == storage]
    return next((t.name for t in sorted(inside, key=lambda t: -t.elements) if t.name), storage)
