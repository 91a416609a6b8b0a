"""Ops on a CPU: a library's efficiency by class, start costs, cores, caches, and the host's gaps.

    T = host + softmax_p(compute + vector, memory)
    compute = (MACs + start) / (rate e_class e_width) * spread       rate: data sheet, all cores
    vector  = lanes / e_vector * spread
    spread  = cores ((1 - f) + f / n)                                Amdahl: n threads, share f parallel
    memory  = far bytes / min(e_B B, n b) + near bytes / (w n clock)  DRAM, shared cache

Bytes are near where the cyclic working set fits the share of the last-level cache (`hit_rate`). Pure
functions over ops; `CpuConstants.datasheet()` leaves the data sheet untouched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.gpu.constants import Constants, constant
from sim.cost.gpu.result import hit_rate, soft_max

CLASSES = ("gemm", "conv", "depthwise", "attention", "vector", "movement")
"""Classes of ops; the first four do MACs and have an efficiency of their own."""
WIDTHS = ("word", "half", "byte")
"""fp32 and wider, 16-bit, 8-bit and narrower types."""
STEEPNESS = 4.0
"""How abruptly a working set falls out of the last-level cache (estimated: sliced, hashed, not LRU)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuConstants(Constants):
    """Fitted constants of one CPU with its library."""

    host_s: float = constant("s", 5e-7, 2e-4, 0.0)
    """Framework dispatch, and the fork and join of the threads, per op (eager mode)."""
    gemm_efficiency: float = constant("1", 0.02, 1.0, 1.0)
    """Share of the data-sheet rate that large matrix products reach."""
    conv_efficiency: float = constant("1", 0.02, 1.0, 1.0)
    """... convolutions."""
    depthwise_efficiency: float = constant("1", 0.002, 1.0, 1.0)
    """... convolutions with one channel a group."""
    attention_efficiency: float = constant("1", 0.01, 1.0, 1.0)
    """... products of attention."""
    half_efficiency: float = constant("1", 0.005, 1.0, 1.0)
    """16-bit types: times this (formats are converted, or the unit is fed badly)."""
    byte_efficiency: float = constant("1", 0.005, 1.0, 1.0)
    """8-bit types: times this."""
    vector_efficiency: float = constant("1", 0.005, 1.0, 1.0)
    """Share of the vector lanes' rate."""
    start_macs: float = constant("MAC", 1e2, 1e8, 0.0)
    """Packing and edges: this much work on top of every product."""
    parallel_share: float = constant("1", 0.3, 1.0, 1.0)
    """Share of an op that all threads work on."""
    dram_efficiency: float = constant("1", 0.1, 1.0, 1.0)
    """Reachable share of the DRAM bandwidth."""
    core_bytes_per_s: float = constant("B/s", 1e9, 1e11, 1e18)
    """What one core can request from DRAM."""
    cache_share: float = constant("1", 0.05, 1.0, 0.0)
    """Share of the last-level cache in which a working set stays between ops."""
    cache_bytes_per_clock_core: float = constant("B/clock/core", 1.0, 64.0, 1e9)
    """Last-level cache to one core."""
    overlap: float = constant("1", 1.0, 6.0, 16.0)
    """Exponent p of the soft maximum of compute and memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuMachine:
    """Data-sheet numbers of one CPU; `threads` of its cores work."""

    name: str
    cores: int
    threads: int | np.ndarray
    """One number, or one per op where they differ (measured rows)."""
    clock_hz: float
    dram_bytes_per_s: float
    cache_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuWork:
    """Ops, arrays of one length."""

    kind: np.ndarray
    """Index into CLASSES."""
    width: np.ndarray
    """Index into WIDTHS."""
    macs: np.ndarray
    matrix_s: np.ndarray
    """MACs at the data-sheet rate of all cores."""
    lanes_s: np.ndarray
    """Vector work at the data-sheet rate of all cores."""
    held_bytes: np.ndarray
    """Weights and caches that it reads."""
    passing_bytes: np.ndarray
    """Activations that it reads and writes."""
    cycle_bytes: np.ndarray
    """Weights that are used between two uses of these (inf: they never stay in the cache)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """Seconds per op; host, compute, vector and exposed memory sum to the total."""

    host_s: np.ndarray
    compute_s: np.ndarray
    vector_s: np.ndarray
    exposed_s: np.ndarray
    far_bytes: np.ndarray
    memory_s: np.ndarray

    @property
    def total_s(self) -> np.ndarray:
        return self.host_s + self.compute_s + self.vector_s + self.exposed_s


def cpu_time(work: CpuWork, machine: CpuMachine, constants: CpuConstants, *, host: bool | np.ndarray = True) -> CpuTime:
    """Time of each op. `host`: eager mode, with the gap of every call; False = compiled into one program.

    Example: 1e9 MACs at a sheet rate of 1e11 MAC/s, efficiency 0.5, all cores, nothing moved: 20 ms.
    """
    c = constants
    by_class = np.array([c.gemm_efficiency, c.conv_efficiency, c.depthwise_efficiency, c.attention_efficiency, 1, 1])
    by_width = np.array([1.0, c.half_efficiency, c.byte_efficiency])
    spread = machine.cores * ((1 - c.parallel_share) + c.parallel_share / machine.threads)
    started = work.matrix_s * (1 + c.start_macs / np.maximum(work.macs, 1.0))
    compute = started / (by_class[work.kind] * by_width[work.width]) * spread
    vector = work.lanes_s / c.vector_efficiency * spread
    usable = c.cache_share * machine.cache_bytes
    passing_far = work.passing_bytes * (1 - hit_rate(work.passing_bytes, usable, STEEPNESS))
    held_far = work.held_bytes * (1 - hit_rate(work.cycle_bytes + work.passing_bytes, usable, STEEPNESS))
    far = passing_far + held_far
    near = work.passing_bytes + work.held_bytes - far
    far_rate = np.minimum(c.dram_efficiency * machine.dram_bytes_per_s, machine.threads * c.core_bytes_per_s)
    memory = far / far_rate + near / (c.cache_bytes_per_clock_core * machine.threads * machine.clock_hz)
    busy = compute + vector
    overlapped = soft_max(busy, memory, c.overlap)
    return CpuTime(
        host_s=np.where(host, c.host_s, 0.0) * np.ones(busy.shape),
        compute_s=compute,
        vector_s=vector,
        exposed_s=overlapped - busy,
        far_bytes=far,
        memory_s=memory,
    )
