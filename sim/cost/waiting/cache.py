"""Which lines reach DRAM: a cache of limited capacity under a walk of tile loops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
from scipy.special import lambertw

from sim.cost.waiting.tiles import TileLoops

RELEVANT = {
    "input": frozenset("CPQRS"),
    "weight": frozenset("CKRS"),
    "output": frozenset("KPQ"),
}
"""Ranks that move each tensor's tile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """`capacity_bytes` is what the layer may use; elements are one byte."""

    capacity_bytes: float
    line_bytes: int


def miss_ratio(pressure):
    """Miss ratio of a cyclic scan over `pressure` = footprint / capacity, random replacement.

    A line survives m F evictions, each sparing it with 1 - 1/C: 1 - m = exp(-m x), x = F / C.
    m = 0 up to x = 1, else m = 1 + W(-x exp(-x)) / x with Lambert's W.

    Example: x = 2 -> 0.797.
    """
    x = np.asarray(pressure, dtype=float)
    # below 1 the equation has no positive root; 2 stands in where the value is not used
    safe = np.where(x > 1, x, 2.0)
    return np.where(x > 1, 1.0 + lambertw(-safe * np.exp(-safe)).real / safe, 0.0)


def alias_factor(row_bytes: int, slice_bytes: int, line_bytes: int) -> float:
    """How much more of a cache a narrow slice of wide rows takes, because its lines share few sets.

    Rows of q lines, q = row_bytes / line_bytes whole: a slice of s lines per row reaches one set in
    2^v / s, 2^v the largest power of two that divides q. Odd strides (q not whole) reach all.

    Example: 1024-byte rows, 16-byte slices, 64-byte lines: q = 16, s = 1 -> 16.
    """
    if row_bytes % line_bytes:
        return 1.0
    lines = row_bytes // line_bytes
    return max(1.0, (lines & -lines) / ceil(slice_bytes / line_bytes))


def fetched_lines(loops: TileLoops, cache: Cache, *, warm: bool) -> tuple[float, float]:
    """(input lines, weight lines) that come from DRAM, by walking the tile loops from the innermost outwards.

    Before each loop the footprints of the three tensors are compared with the capacity: what is
    revisited is fetched again with `miss_ratio`. The tensor's own footprint counts with its alias
    factor. `warm`: the same layer has just run, so that first touches miss only as far as the whole
    layer exceeds the cache.
    """
    line = cache.line_bytes
    tile = loops.tiles
    wide = {rank: max(tile[rank], min(line, loops.sizes[rank])) for rank in ("C", "K")}
    pixels = loops.input_extent(tile["Q"], tile["S"]) * loops.input_extent(tile["P"], tile["R"])
    if not loops.window:
        pixels = tile["P"]
    kernel = tile["R"] * tile["S"] * tile["C"]
    footprint = {
        "input": pixels * wide["C"],
        "weight": kernel * wide["K"],
        "output": tile["P"] * tile["Q"] * wide["K"],
    }
    lines = {"input": pixels * ceil(tile["C"] / line), "weight": kernel * ceil(tile["K"] / line)}
    alias = {name: alias_factor(loops.sizes[r], tile[r], line) for name, r in _ROW_RANK.items()}
    for rank in reversed(loops.order):
        trips = loops.trips(rank)
        if trips == 1:
            continue
        total = sum(footprint.values())
        growth = {name: _growth(loops, name, rank, line) for name in footprint}
        for name in lines:
            again = miss_ratio((total + footprint[name] * (alias[name] - 1)) / cache.capacity_bytes)
            lines[name] *= growth[name] + (trips - growth[name]) * again
        footprint = {name: size * growth[name] for name, size in footprint.items()}
        if rank == "K":
            # the slices have been walked across the row: every set is in use
            alias["weight"] = alias["output"] = 1.0
    return _first_touches(lines, footprint, cache, warm=warm)


_ROW_RANK = {"input": "C", "weight": "K", "output": "K"}


def _growth(loops: TileLoops, name: str, rank: str, line_bytes: int) -> float:
    """How many times more distinct lines a tensor has after `trips` iterations of a loop."""
    trips, tile = loops.trips(rank), loops.tiles[rank]
    if rank not in RELEVANT[name]:
        return 1.0
    if rank == "K" and tile < line_bytes:
        return max(1.0, trips * tile / line_bytes)
    if name == "input" and loops.window and rank in "PQ":
        kernel = loops.tiles["R" if rank == "P" else "S"]
        step = tile * loops.stride
        return 1 + (trips - 1) * step / (step + kernel - 1)
    if name == "input" and rank in "RS":
        return 1.0
    return float(trips)


def _first_touches(
    lines: Mapping[str, float], footprint: Mapping[str, float], cache: Cache, *, warm: bool
) -> tuple[float, float]:
    if not warm:
        return float(lines["input"]), float(lines["weight"])
    total = sum(footprint.values())
    cold = float(miss_ratio(total / cache.capacity_bytes))
    found = []
    for name in ("input", "weight"):
        first = min(lines[name], footprint[name] / cache.line_bytes)
        # a layer that fits whole finds everything in place
        found.append(float(first * cold + (lines[name] - first) * (total > cache.capacity_bytes)))
    return found[0], found[1]
