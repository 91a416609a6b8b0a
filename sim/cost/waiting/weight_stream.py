"""Weights streamed past a weight-stationary array: which cycles the array works, stalls and shifts.

A closed form for machines whose activations stay on chip and whose weights come once per batch
from a slow memory, tile by tile, through a FIFO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightStream:
    """Array, weight memory and the pipeline around them; weights are one byte."""

    rows: int
    cols: int
    clock_hz: float
    weight_bandwidth_bytes_per_s: float
    shift_cycles: int
    """Cycles to shift one weight tile into the array."""
    layer_latency_cycles: float
    """Exposed at each layer's border: the array drains, results pass the activation unit, and the
    next layer, which needs all of them, refills [cycles]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCycles:
    """Where a network's cycles go; the four parts sum to `total`."""

    active: float
    """The array multiplies."""
    weight_stall: float
    """It waits for weights from memory."""
    weight_shift: float
    """It waits for a tile to be shifted in."""
    non_matrix: float
    """Layer borders."""
    macs: float

    @property
    def total(self) -> float:
        return self.active + self.weight_stall + self.weight_shift + self.non_matrix

    def share(self, part: str) -> float:
        """One part as a share of all cycles."""
        return getattr(self, part) / self.total


def stream_layers(machine: WeightStream, layers: Sequence[tuple[int, int]], *, batch: int) -> StreamCycles:
    """Cycles of matrix-product layers (inputs, outputs), `batch` activation rows each.

    Each layer has ceil(inputs / rows) ceil(outputs / cols) tiles. A tile occupies the array for
    `batch` cycles; the next is ready after its bytes have come, F = rows x cols / (bytes per cycle),
    and after it has been shifted in. A tile's slot is max(batch, shift, F): active for `batch`;
    shifting is hidden behind the tile before, except where it outlasts it; what remains waits for
    the memory. Of the waiting, the shift's own cycles are booked as shift, since the array cannot
    multiply while its only other tile is still arriving: shift = min(shift_cycles, slot - active).
    """
    if batch < 1 or not layers:
        raise ConfigError(f"weight stream: batch {batch} and {len(layers)} layers, expected at least one of each")
    shape = np.asarray(layers, dtype=float)
    tiles = float((np.ceil(shape[:, 0] / machine.rows) * np.ceil(shape[:, 1] / machine.cols)).sum())
    fetch = machine.rows * machine.cols * machine.clock_hz / machine.weight_bandwidth_bytes_per_s
    slot = max(batch, machine.shift_cycles, fetch)
    shift = min(machine.shift_cycles, slot - batch)
    return StreamCycles(
        active=tiles * batch,
        weight_shift=tiles * shift,
        weight_stall=tiles * (slot - batch - shift),
        non_matrix=len(layers) * machine.layer_latency_cycles,
        macs=float(batch * (shape[:, 0] * shape[:, 1]).sum()),
    )
