"""Vector and movement work: lanes beside streams, in chunks that pass through the chip.

Time is a double-buffered stream of equal chunks: the first chunk's load, then for each chunk the
larger of the lanes and the ports, then the last chunk's store. Pure functions over designs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from sim.errors import ConfigError
from sim.hardware.chip import VectorUnit
from sim.workload.graph import EinsumOp, MovementOp, Op, Primitive, VectorOp

CHUNK_BYTES = 32_768.0
"""Bytes of a chunk that streams through the chip (estimated: a few DRAM pages; large enough that
set-up does not dominate, small enough to fit every on-chip memory that is modelled)."""


def primitives(op: Op) -> dict[Primitive, int]:
    """Primitive -> how many of it an op does: of an einsum its epilogue, for every output element."""
    if isinstance(op, EinsumOp):
        elements = prod(axis.size for axis in op.einsum.output.projection)
        return {primitive: count * elements for primitive, count in op.epilogue.items()}
    return dict(op.primitives) if isinstance(op, VectorOp | MovementOp) else {}


def lane_cycles(vector: VectorUnit, primitives: Mapping[Primitive, float], *, chip: str) -> float:
    """Cycles of all lanes for counts per primitive; a missing rate is made as `fallback` says.

    Raises: ConfigError: neither a rate nor a fallback.
    """
    return sum(count * primitive_cycles(vector, p.value, chip=chip) for p, count in primitives.items()) / vector.lanes


def primitive_cycles(vector: VectorUnit, primitive: str, *, chip: str) -> float:
    """Lane cycles of one primitive."""
    rate = vector.rates.get(primitive)
    if rate:
        return 1.0 / rate
    parts = vector.fallback.get(primitive)
    if parts:
        return sum(count * primitive_cycles(vector, part, chip=chip) for part, count in parts.items())
    raise ConfigError(
        f"{chip}: vector unit {vector.name} has no rate for {primitive}, and no fallback says how it is made; "
        f"it has {', '.join(vector.rates)}"
    )


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream of `chunks` equal chunks; arrays over designs, cycles. Terms sum to `time`."""

    chunks: np.ndarray
    first: np.ndarray
    step_cycles: np.ndarray
    """Lanes or ports on chip, whichever is slower."""
    load_step: np.ndarray
    drain: np.ndarray
    time: np.ndarray
    lanes: np.ndarray
    setup: np.ndarray


def stream(
    *,
    lanes: np.ndarray,
    near_cycles: np.ndarray,
    load_cycles: np.ndarray,
    store_cycles: np.ndarray,
    moved_bytes: np.ndarray,
    setup: np.ndarray,
    latency: np.ndarray,
) -> Stream:
    """Cost of a stream: lane cycles, cycles of the ports on chip, cycles of the home memory in and out,
    bytes moved, set-up per transfer, latency before the first load.

    T = x + sum_i max(c_i, x_{i+1} + y_i) + y over n chunks with x = load / n + set-up and so on.
    """
    moved = np.broadcast_to(moved_bytes, np.broadcast_shapes(np.shape(lanes), np.shape(load_cycles)))
    n = np.maximum(1.0, np.ceil(moved / CHUNK_BYTES))
    c = np.maximum(lanes, near_cycles) / n
    x = np.where(load_cycles > 0, load_cycles / n + setup, 0.0)
    y = np.where(store_cycles > 0, store_cycles / n + setup, 0.0)
    middle = np.maximum(c, x + y)
    only_load, only_store = np.maximum(c, x), np.maximum(c, y)
    body = np.where(n == 1, c, only_load + only_store + (n - 2) * middle)
    first = np.where(load_cycles > 0, x + latency, 0.0)
    time = first + body + y
    transfers = n * setup * ((load_cycles > 0).astype(float) + (store_cycles > 0))
    waiting = time - lanes
    return Stream(
        chunks=n,
        first=first,
        step_cycles=c,
        load_step=x,
        drain=y,
        time=time,
        lanes=lanes + 0.0 * time,
        setup=np.minimum(waiting, transfers),
    )
