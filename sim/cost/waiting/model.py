"""The tile loop costed: counts that depend on the mapping alone, then cycles from the constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from sim.cost.waiting.cache import Cache, fetched_lines
from sim.cost.waiting.engines import (
    block_cycles,
    load_cycles,
    nominal_block_cycles,
    overlapped_cycles,
    store_cycles,
)
from sim.cost.waiting.machine import WaitingConstants, WaitingMachine
from sim.cost.waiting.tiles import RANKS, TileLoops


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCounts:
    """What one mapping asks of each engine; several are stacked along the first axis.

    The last axis of `blocks`, `tile_rows` and `tile_cols` is the four classes of (Q, P) tiles.
    """

    blocks: np.ndarray
    """Weight blocks run over tiles of this class."""
    tile_rows: np.ndarray
    tile_cols: np.ndarray
    requests: np.ndarray
    """Load requests of input and weights."""
    missed_lines: np.ndarray
    """Those that DRAM serves; never more than `requests`."""
    store_rows: np.ndarray
    missed_rows: np.ndarray
    """Stores that open a DRAM line."""
    tiles: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingCost:
    """Cycles of each engine and of the whole; `terms` sum to `cycles`. Arrays over stacked counts."""

    cycles: np.ndarray
    execute: np.ndarray
    load: np.ndarray
    store: np.ndarray
    terms: Mapping[str, np.ndarray]
    """array, instruction_issue, exposed_load, exposed_store, overlap_leak, exposed_ends"""
    missed_share: np.ndarray
    """Load requests that reach DRAM / load requests."""

    @property
    def binds(self) -> np.ndarray:
        """The engine that is busy longest: "execute", "load" or "store"."""
        names = np.array(["execute", "load", "store"])
        return names[np.argmax(np.stack([self.execute, self.load, self.store]), axis=0)]


def count_tiles(loops: TileLoops, machine: WaitingMachine, *, usable_cache_share: float, warm: bool) -> TileCounts:
    """Counts of one mapping. Both operands are loaded for every tile; stores happen once per output tile."""
    size, count = loops.classes()
    c, k, p, q, r, s = (size[rank] for rank in RANKS)
    pixels = loops.input_extent(q, s) * loops.input_extent(p, r) if loops.window else p
    inputs = float((count * pixels * np.ceil(c / machine.request_bytes)).sum())
    weights = float((count * r * s * c * np.ceil(k / machine.request_bytes)).sum())
    cache = Cache(capacity_bytes=usable_cache_share * machine.cache_bytes, line_bytes=machine.line_bytes)
    input_lines, weight_lines = fetched_lines(loops, cache, warm=warm)
    rows = float((count * q * p * np.ceil(k / machine.array_cols)).sum()) / loops.reduction_trips
    blocks = count * r * s * np.ceil(c / machine.array_rows) * np.ceil(k / machine.array_cols)
    # axes are (C, K, P, Q, R, S): sum over the ranks that only repeat a block
    per_class = np.broadcast_to(blocks, (2,) * len(RANKS)).sum(axis=(0, 1, 4, 5))
    cols, lines = np.meshgrid(p.ravel(), q.ravel(), indexing="ij")
    return TileCounts(
        blocks=per_class.ravel(),
        tile_rows=lines.ravel(),
        tile_cols=cols.ravel(),
        requests=np.asarray(inputs + weights, dtype=float),
        missed_lines=np.asarray(min(input_lines, inputs) + min(weight_lines, weights), dtype=float),
        store_rows=np.asarray(rows, dtype=float),
        missed_rows=np.asarray(_missed_rows(loops, machine, rows), dtype=float),
        tiles=np.asarray(loops.tile_count, dtype=float),
    )


def _missed_rows(loops: TileLoops, machine: WaitingMachine, rows: float) -> float:
    """Stores that open a DRAM line: none if the output fits on chip; all if a tile writes less than a line."""
    if loops.sizes["P"] * loops.sizes["Q"] * loops.sizes["K"] <= machine.store_cache_bytes:
        return 0.0
    if loops.tiles["K"] < min(machine.line_bytes, loops.sizes["K"]):
        return rows
    return rows * machine.store_bytes / machine.line_bytes


def stack_counts(counts: Sequence[TileCounts]) -> TileCounts:
    """Several mappings as one struct of arrays."""
    return TileCounts(**{f.name: np.stack([getattr(one, f.name) for one in counts]) for f in fields(TileCounts)})


def waiting_cost(counts: TileCounts, machine: WaitingMachine, constants: WaitingConstants) -> WaitingCost:
    """Cycles of tile loops: execute, load and store engines, overlapped with a leak and exposed ends."""
    shape = {"chunk_rows": machine.chunk_rows, "min_rows": machine.min_rows, "preload_rows": machine.array_rows}
    window = {"pair_latency_cycles": constants.pair_latency_cycles, "window_pairs": machine.window_pairs}
    rows, cols = counts.tile_rows, counts.tile_cols
    array = (counts.blocks * nominal_block_cycles(rows, cols, **shape)).sum(axis=-1)
    execute = (counts.blocks * block_cycles(rows, cols, **shape, **window)).sum(axis=-1)
    line = constants.line_cycles
    load = load_cycles(counts.requests, counts.missed_lines, request_cycles=constants.request_cycles, line_cycles=line)
    store = store_cycles(
        counts.store_rows, counts.missed_rows, store_row_cycles=constants.store_row_cycles, line_cycles=line
    )
    cycles, leaked, ends = overlapped_cycles(
        execute, load, store, counts.tiles,
        exposed_share=constants.exposed_share, overlap_leak=constants.overlap_leak,
    )  # fmt: skip
    moving = np.maximum(np.maximum(load, store) - execute, 0.0)
    terms = {
        "array": array,
        "instruction_issue": execute - array,
        "exposed_load": np.where(load >= store, moving, 0.0),
        "exposed_store": np.where(load < store, moving, 0.0),
        "overlap_leak": leaked,
        "exposed_ends": ends,
    }
    return WaitingCost(
        cycles=cycles,
        execute=execute,
        load=load,
        store=store,
        terms=terms,
        missed_share=counts.missed_lines / counts.requests,
    )
