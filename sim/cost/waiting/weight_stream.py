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
    """Array, weight memory and the pipeline around them; weights and activations are one byte."""

    rows: int
    cols: int
    clock_hz: float
    weight_bandwidth_bytes_per_s: float
    input_bandwidth_bytes_per_s: float
    """Link that brings the network's input."""
    shift_cycles: int
    """Cycles to shift one weight tile into the array."""
    border_cycles: float
    """Exposed before each layer, which needs the whole result of the one before: drain, activation, refill."""

    @property
    def tile_fetch_cycles(self) -> float:
        """Cycles in which the bytes of one full weight tile come from memory."""
        return self.rows * self.cols * self.clock_hz / self.weight_bandwidth_bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCycles:
    """Where a network's cycles go; the five parts sum to `total`."""

    active: float
    """The array multiplies (also into unused rows and columns)."""
    weight_stall: float
    """It waits for weights from memory."""
    weight_shift: float
    """It waits for a tile to be shifted in."""
    border: float
    """It waits for the layer before."""
    input_stall: float
    """It waits for the network's input."""
    macs: float

    @property
    def total(self) -> float:
        return self.active + self.weight_stall + self.weight_shift + self.border + self.input_stall

    def share(self, part: str) -> float:
        """One part as a share of all cycles."""
        return getattr(self, part) / self.total

    def flop_per_s(self, clock_hz: float) -> float:
        """Achieved rate, 1 MAC = 2 FLOP."""
        return 2 * self.macs * clock_hz / self.total


def stream_layers(
    machine: WeightStream,
    layers: Sequence[tuple[float, float]],
    *,
    rows_streamed: int,
    borders: int,
    input_bytes: float,
) -> StreamCycles:
    """Cycles of matrix-product layers (inputs, outputs), `rows_streamed` activation rows past each weight tile.

    A layer has ceil(inputs / rows) ceil(outputs / cols) tiles; a tile works for `rows_streamed` cycles.
    Border tiles fetch only the weights that exist, so that a layer's fetch is its weights over the
    bandwidth. The layer takes max(tiles x max(rows_streamed, shift), fetch); beyond the working
    cycles, up to `shift_cycles` a tile is shifting, the rest waits for memory.
    `borders` layers (vector layers included) each expose `border_cycles`; the input comes once.

    Example: 2048 x 2048 on 256 x 256 at 700 MHz and 34 GB/s, 200 rows: 64 tiles, 12,800 active of
    86,353 cycles; 16,384 shifting; 57,169 stalled.
    """
    if rows_streamed < 1 or not layers:
        raise ConfigError(f"weight stream: {rows_streamed} rows, {len(layers)} layers: expected at least one of each")
    shape = np.asarray(layers, dtype=float)
    tiles = np.ceil(shape[:, 0] / machine.rows) * np.ceil(shape[:, 1] / machine.cols)
    weights = shape[:, 0] * shape[:, 1]
    active = tiles * rows_streamed
    fetch = weights * machine.clock_hz / machine.weight_bandwidth_bytes_per_s
    span = np.maximum(tiles * max(rows_streamed, machine.shift_cycles), fetch)
    shift = np.minimum(tiles * machine.shift_cycles, span - active)
    return StreamCycles(
        active=float(active.sum()),
        weight_shift=float(shift.sum()),
        weight_stall=float((span - active - shift).sum()),
        border=borders * machine.border_cycles,
        input_stall=input_bytes * machine.clock_hz / machine.input_bandwidth_bytes_per_s,
        macs=float(rows_streamed * weights.sum()),
    )
