"""Ops on a CPU as an eager framework and its libraries run them: kernels, packing, layouts, caches, the host's gaps.

    T = host + spread (compute + vector + layout) + memory
    host    = calls host_s + module calls module_s + primitives primitive_s   dispatch, fork and join; Python; library
    compute = MACs (1 + fill / k) / (rate e) + packed / p                rate: data sheet, one core
    vector  = lanes / e + compares c / clock
    layout  = elements that change their place in a line x c / clock
    spread  = (1 - f) + f / n                                             Amdahl: n threads, share f parallel
    memory  = bytes from the private cache / (n b_2) + from the shared one / (n b_3) + from DRAM / (e_B B)

Terms of products add: kernels alternate between packing, loading and multiplying more than they overlap them (a
soft maximum that was free to choose chose the sum on both measured machines). Lanes and memory of element-wise
work overlap: their soft maximum. A product with one row in fp32 is a stream of its weights' bytes, on the threads that
the library gives it. Bytes are near where the cyclic working set fits the share of a cache (`hit_rate`). Between two
uses of an activation a network touches other activations and weights, at most all of them: that is its working set.
Pure functions over ops; `CpuConstants.datasheet()` leaves the data sheet untouched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.columns import from_rows
from sim.cost.gpu.constants import Constants, constant
from sim.cost.gpu.result import hit_rate, soft_max

CLASSES = ("gemm", "layer", "conv", "depthwise", "attention", "decode", "vector", "rows", "movement")
"""Classes of ops. "layer": a linear layer of a quantised network, with packed int8 weights; "decode": attention
with one query; "rows": reductions along rows (softmax, norms). All before "vector" do MACs."""
WIDTHS = ("word", "half", "byte")
"""fp32 and wider, 16-bit, 8-bit and narrower types."""
STEEPNESS = 4.0
"""How abruptly a working set falls out of a cache (estimated: sliced, hashed, not LRU)."""
PRIVATE_SHARE = 0.5
"""Share of a core's private cache that one op's operands fill before they spill (estimated: half for what comes in)."""
GRAIN = 32_768
"""Elements below which element-wise work stays on one thread (at::internal::GRAIN_SIZE of PyTorch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuConstants(Constants):
    """Fitted constants of one CPU with its library. Efficiencies are shares of the data-sheet rate."""

    host_s: float = constant("s", 5e-7, 2e-4, 0.0)
    """Framework dispatch of one call, fork and join of the threads included (eager mode)."""
    module_s: float = constant("s", 1e-7, 2e-4, 0.0)
    """Further host time of a call in a network of modules: Python between calls, the allocator, code and operands that
    other ops have driven out of the caches. A lone op that is repeated has none."""
    primitive_s: float = constant("s", 5e-7, 2e-4, 0.0)
    """Further host time of one primitive of the library of kernels: descriptors made and looked up, memory for them."""
    gemm_word: float = constant("1", 0.02, 1.0, 1.0)
    """Efficiency of fp32 matrix products."""
    conv_word: float = constant("1", 0.02, 1.0, 1.0)
    """... of fp32 convolutions, and of those with one channel a group whatever the type: they run on the fp32 lanes."""
    half_efficiency: float = constant("1", 0.01, 1.0, 1.0)
    """... of products and convolutions in 16-bit types: one library makes both."""
    byte_efficiency: float = constant("1", 0.01, 1.0, 1.0)
    """... in 8-bit types."""
    layer_byte: float = constant("1", 0.005, 1.0, 1.0)
    """... of linear layers with packed int8 weights: another library than plain products, without matrix tiles."""
    attention_half: float = constant("1", 0.01, 1.0, 1.0)
    """... of attention in 16-bit types; in fp32 its products are the library's."""
    decode_word: float = constant("1", 0.01, 1.0, 1.0)
    """... of attention with one query: products with one row a head."""
    decode_half: float = constant("1", 5e-4, 1.0, 1.0)
    fill_k: float = constant("element", 0.1, 200.0, 0.0)
    """Reduction length at which half of a product's time is the load and store of its results."""
    pack_word: float = constant("element/clock/core", 0.1, 64.0, 1e9)
    """Weights that the library copies into panels at every call (fp32 with more than one row)."""
    pack_narrow: float = constant("element/clock/core", 0.1, 64.0, 1e9)
    """... of 16 and 8 bits."""
    one_row_share: float = constant("1", 0.001, 1.0, 1.0)
    """Share of a product with one row that all threads work on: libraries differ in whether they spread it at all."""
    layout_clocks: float = constant("clock/element", 0.05, 30.0, 0.0)
    """An element that changes its place in a line, in blocked layouts of convolutions (weights at every call,
    activations from planes and back) and copies that move the contiguous axis. Of 16 bits it takes as long as of 32."""
    compare_clocks: float = constant("clock", 0.1, 50.0, 0.0)
    """One scalar compare: pooling windows over planes, tests for empty rows."""
    vector_efficiency: float = constant("1", 0.02, 1.5, 1.0)
    """Vector lanes, whatever they compute. Above 1: the primitives' rates in the chip file are estimates."""
    overlap: float = constant("1", 1.0, 6.0, 16.0)
    """Exponent p of the soft maximum of lanes and memory in element-wise work and reductions."""
    parallel_share: float = constant("1", 0.3, 1.0, 1.0)
    """Share of an op that all threads work on."""
    dram_efficiency: float = constant("1", 0.1, 1.0, 1.0)
    """Reachable share of the DRAM bandwidth."""
    core_bytes_per_s: float = constant("B/s", 1e9, 1e11, 1e18)
    """What one core can request from DRAM."""
    cache_share: float = constant("1", 0.01, 1.0, 0.0)
    """Share of the last-level cache in which a working set stays between ops."""
    cache_bytes_per_clock_core: float = constant("B/clock/core", 1.0, 64.0, 1e9)
    """Last-level cache to one core."""


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
    private_bytes: float
    """A core's own cache; 0: none described."""
    private_bytes_per_clock: float
    fitted_threads: int | None = None
    """Cores at work where the constants were fitted; None: as many as here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuWork:
    """Ops, arrays of one length. Seconds are of one core at data-sheet rates."""

    kind: np.ndarray
    """Index into CLASSES."""
    width: np.ndarray
    """Index into WIDTHS."""
    calls: np.ndarray
    """Calls of the framework; 0 for parts of a fused op."""
    module_calls: np.ndarray
    """Of these, made by Python in a network of modules."""
    primitives: np.ndarray
    """Of the library of kernels: convolutions with their reorders, 16-bit products."""
    grains: np.ndarray
    """Threads that the work is worth (inf: the library decides and takes all)."""
    macs: np.ndarray
    """Done, without what a causal kernel skips."""
    matrix_s: np.ndarray
    lanes_s: np.ndarray
    reduction: np.ndarray
    """Length of the reduction (inf: no MACs)."""
    packed: np.ndarray
    """Weights that are packed into panels at every call."""
    streamed: np.ndarray
    """Weights of a product with one row in fp32."""
    permuted: np.ndarray
    """Elements that change their place in a line: to or from blocked layouts, to another contiguous axis."""
    compares: np.ndarray
    """Scalar compares."""
    border_s: np.ndarray
    """Quantising and dequantising at a layer's borders: vector lanes."""
    border_bytes: np.ndarray
    held_bytes: np.ndarray
    """Weights and caches that it reads."""
    passing_bytes: np.ndarray
    """Activations that it reads and writes."""
    passing_cycle_bytes: np.ndarray
    """What is read and written between two uses of an activation, at most."""
    cycle_bytes: np.ndarray
    """Weights that are used between two uses of these (inf: they never stay in the cache)."""


INDEX_COLUMNS = ("kind", "width")


def work_from_rows(rows: list[dict[str, float]]) -> CpuWork:
    """Columns from one mapping per op; what a row leaves out is 0, `reduction` and `grains` inf."""
    return from_rows(CpuWork, rows, index=INDEX_COLUMNS, missing={"reduction": np.inf, "grains": np.inf})


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """Seconds per op; host, compute, vector, borders and memory (layouts included) sum to the total."""

    host_s: np.ndarray
    compute_s: np.ndarray
    vector_s: np.ndarray
    border_s: np.ndarray
    memory_s: np.ndarray
    far_bytes: np.ndarray

    @property
    def total_s(self) -> np.ndarray:
        return self.host_s + self.compute_s + self.vector_s + self.border_s + self.memory_s


def cpu_time(work: CpuWork, machine: CpuMachine, constants: CpuConstants, *, host: bool | np.ndarray = True) -> CpuTime:
    """Time of each op. `host`: eager mode, with the gap of every call; False = compiled into one program.

    Example: 1e9 MACs in 20 ms of one core at sheet rate, efficiency 0.5, two threads, nothing moved: 20 ms.
    """
    c, clock = constants, machine.clock_hz
    threads = np.maximum(1.0, np.minimum(machine.threads, work.grains))
    spread = (1 - c.parallel_share) + c.parallel_share / threads
    packing = work.packed / np.array([c.pack_word, c.pack_narrow, c.pack_narrow])[work.width]
    product = work.matrix_s * (1 + c.fill_k / work.reduction) / _efficiency(c)[work.kind, work.width]
    vector = _vector_s(work, c, clock) * spread
    layout = work.permuted * c.layout_clocks / clock * spread
    memory, far = _memory(work, machine, c, threads)
    host_s = c.host_s * work.calls + c.module_s * work.module_calls + c.primitive_s * work.primitives
    memory = np.where(work.streamed > 0, _one_row_memory_s(machine, c, threads, memory, far), memory)
    streams = (work.kind == CLASSES.index("vector")) | (work.kind == CLASSES.index("rows"))
    exposed = np.where(streams, soft_max(vector, memory, c.overlap) - vector, memory)
    return CpuTime(
        host_s=np.where(host, host_s, 0.0),
        compute_s=(product + packing / clock) * spread,
        vector_s=vector,
        border_s=_border_s(work, machine, c, threads, spread),
        memory_s=layout + exposed,
        far_bytes=far,
    )


def _one_row_memory_s(
    machine: CpuMachine, c: CpuConstants, threads: np.ndarray, memory_s: np.ndarray, far_bytes: np.ndarray
) -> np.ndarray:
    """Memory of a product with one row, `memory_s` on all threads: all but `one_row_share` of it is one thread's.

    That one gets its own port of a cache, and of DRAM what each core drew where the constants were fitted, whatever
    number is beside it.
    """
    drawing = machine.fitted_threads or threads
    far_s = far_bytes / _far_rate(machine, c, threads)
    near = (1 - c.one_row_share) * threads + c.one_row_share
    far = (1 - c.one_row_share) * drawing + c.one_row_share
    return (memory_s - far_s) * near + far_s * far


def _vector_s(work: CpuWork, c: CpuConstants, clock: float) -> np.ndarray:
    """One core's vector and scalar work."""
    return work.lanes_s / c.vector_efficiency + work.compares * c.compare_clocks / clock


def _border_s(
    work: CpuWork, machine: CpuMachine, c: CpuConstants, threads: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """Quantising and dequantising: conversions, and their bytes at the shared cache or DRAM."""
    near = hit_rate(work.border_bytes, c.cache_share * machine.cache_bytes, STEEPNESS)
    rate = c.cache_bytes_per_clock_core * threads * machine.clock_hz
    moved = work.border_bytes * (near / rate + (1 - near) / _far_rate(machine, c, threads))
    return work.border_s / c.vector_efficiency * spread + moved


def _efficiency(c: CpuConstants) -> np.ndarray:
    """[class, width] share of the data-sheet rate."""
    gemm = [c.gemm_word, c.half_efficiency, c.byte_efficiency]
    attention = [c.gemm_word, c.attention_half, c.attention_half]
    table = {
        "gemm": gemm,
        "layer": [c.layer_byte] * 3,
        "conv": [c.conv_word, c.half_efficiency, c.byte_efficiency],
        "depthwise": [c.conv_word] * 3,
        "attention": attention,
        "decode": [c.decode_word, c.decode_half, c.decode_half],
    }
    return np.array([table.get(name, [1.0] * 3) for name in CLASSES])


def _far_rate(machine: CpuMachine, c: CpuConstants, threads: np.ndarray) -> np.ndarray:
    return np.minimum(c.dram_efficiency * machine.dram_bytes_per_s, threads * c.core_bytes_per_s)


def _memory(work: CpuWork, machine: CpuMachine, c: CpuConstants, threads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(seconds, bytes from DRAM) of each op's operands by the caches that hold them."""
    shared, private = c.cache_share * machine.cache_bytes, PRIVATE_SHARE * machine.private_bytes
    shared_rate = c.cache_bytes_per_clock_core * threads * machine.clock_hz
    private_rate = max(machine.private_bytes_per_clock, 1e-9) * threads * machine.clock_hz
    seconds, far = np.zeros(work.macs.shape), np.zeros(work.macs.shape)
    pairs = (
        (work.passing_bytes, work.passing_cycle_bytes),
        (work.held_bytes, work.cycle_bytes + work.passing_bytes),
    )
    for moved, cycle in pairs:
        own = hit_rate(cycle / threads, private, STEEPNESS)
        kept = (1 - own) * hit_rate(cycle, shared, STEEPNESS)
        missed = moved * (1 - own - kept)
        missed = np.where(missed < 1, 0.0, missed)
        seconds = seconds + moved * own / private_rate + moved * kept / shared_rate
        seconds = seconds + missed / _far_rate(machine, c, threads)
        far = far + missed
    return seconds, far
