"""Matrix products on a GPU: the library's best (tile, split-K) kernel, waves, L2 and DRAM.

C[m, n] = A[m, k] B[k, n], B the weights. Two steps: `gemm_plan` enumerates every kernel that could
run and counts its work (nothing measured enters), `gemm_time` applies the constants and takes the
fastest. Calibration plans once and evaluates often.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike

from sim.cost.gpu.constants import GemmConstants
from sim.cost.gpu.device import GpuDevice, Library, element_bytes
from sim.cost.gpu.result import KernelTime, hit_rate, soft_max

MIN_SPLIT_K = 32
"""Elements of k (at 16 bit) that a split keeps at least."""
ACCUMULATORS_PER_SM = 32768
"""fp32 accumulators that the register file of an SM holds beside everything else."""
L2_STEEPNESS = 6.0
"""How abruptly a cyclic working set falls out of L2 (steep: LRU under cyclic reuse)."""
FP32_BYTES = 4
VECTOR_FILL = 0.5
"""mma.sync libraries run m = 1 on a matrix-vector kernel, which streams the weights without a tensor-core
pipeline: half of the fill shows (estimated: 0.3 to 0.7 fit alike) and no tile is written back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmPlan:
    """Problems and their candidate kernels, flat and sorted by problem (`starts` per problem)."""

    device: GpuDevice
    library: Library
    shape: tuple[int, ...]
    dtype: str
    starts: np.ndarray
    row: np.ndarray
    tile_m: np.ndarray
    tile_n: np.ndarray
    split: np.ndarray
    waves: np.ndarray
    """CTAs that the busiest SM runs."""
    fill: np.ndarray
    """Pipeline fills that show: one a wave, less of it where the reduction is shorter than the pipeline, VECTOR_FILL
    of it in matrix-vector kernels, none in persistent kernels."""
    steps: np.ndarray
    """Steps along the reduction of the busiest SM."""
    ctas: np.ndarray
    compute_s: np.ndarray
    """Matrix time of the busiest SM at the data-sheet rate."""
    l2_bytes: np.ndarray
    """What is read from L2 for all CTAs: once for the SMs that share a row or column of a cluster."""
    reread_bytes: np.ndarray
    """A and B from DRAM: square groups of concurrent tiles share what they read, each group reads anew."""
    output_bytes_cta: np.ndarray
    """Output tile of one CTA [bytes]."""
    weight_bytes: np.ndarray
    input_bytes: np.ndarray
    result_bytes: np.ndarray
    partial_bytes: np.ndarray
    """fp32 partial sums written and read once: 8 s m n."""
    weight_copies: np.ndarray
    """Per problem: copies of B used in turn (inf: always cold)."""


def gemm_plan(
    m: ArrayLike, n: ArrayLike, k: ArrayLike, *, device: GpuDevice, dtype: str = "bf16", batch: ArrayLike = 1,
    weight_copies: ArrayLike = inf, library: Library | None = None, input_share: ArrayLike = 1.0,
    weight_share: ArrayLike = 1.0, compute: str | None = None, output_bytes: float | None = None,
) -> GemmPlan:  # fmt: skip
    """Enumerate the candidate kernels of each problem.

    Args:
        m, n, k, batch: sizes, any shapes that broadcast; `batch` independent products.
        input_share: distinct elements of A per element (below 1 for implicit GEMM, whose A overlaps).
        weight_share: stored bytes of B per byte of `dtype` (int4 weights on bf16: 0.25).
        library: kernels to choose from, by default those of the device's generation.
        compute: name of the matrix rate, where it is not `dtype` ("w4a16").
        output_bytes: bytes of one result; by default those of `dtype`, at least 2 (8-bit products alone give 16-bit
            results, in a network the epilogue narrows them).
        weight_copies: distinct copies of B that take turns between calls; 1 = the same weights every
            call, inf = evicted before every call (a real network).
    """
    size, library = element_bytes(dtype), library or device.library
    stored_bytes = max(size, 2) if output_bytes is None else output_bytes
    m, n, k, batch, copies, share, stored = np.broadcast_arrays(
        *(np.asarray(x, dtype=float) for x in (m, n, k, batch, weight_copies, input_share, weight_share))
    )
    shape = m.shape
    m, n, k, batch, copies, share, stored = (x.ravel() for x in (m, n, k, batch, copies, share, stored))
    if min(m.min(), n.min(), k.min(), batch.min()) < 1:
        raise ValueError("GEMM sizes must be at least 1")
    row, tile, split = _candidates(m, n, k, batch, library, device.sms, size)
    tiles = np.asarray(library.tiles, dtype=float)
    a, b, s = (
        tiles[tile, 0],
        tiles[tile, 1],
        np.asarray(library.splits, dtype=float)[split],
    )
    mr, nr, kr, br = m[row], n[row], k[row], batch[row]
    step = library.k_step * 2 / size
    cta_k = np.ceil(np.ceil(kr / s) / step) * step
    grid_m, grid_n = np.ceil(mr / a), np.ceil(nr / b)
    ctas = grid_m * grid_n * s * br
    smem = device.smem_bytes_per_sm / (library.stages * (a + b) * step * size)
    occupancy = np.maximum(1.0, np.floor(np.minimum(smem, ACCUMULATORS_PER_SM / (a * b))))
    slots = device.sms * occupancy
    group_m = np.clip(np.round(np.sqrt(slots * b / a)), 1, grid_m)
    group_n = np.minimum(grid_n, np.ceil(slots / group_m))
    reread = ctas / s / (group_m * group_n) * (group_m * a * share[row] + group_n * b * stored[row]) * kr * size
    weight, inputs, result = (
        br * nr * kr * size * stored[row],
        br * mr * kr * size * share[row],
        br * mr * nr * stored_bytes,
    )
    waves = np.ceil(ctas / device.sms)
    vector = (mr == 1) & (not library.warp_specialised)
    loaded = a / np.minimum(library.sharers, grid_n) + b * stored[row] / np.minimum(library.sharers, grid_m)
    steps = cta_k / step
    fill = waves * np.where(vector, VECTOR_FILL, 1.0) * np.minimum(1.0, steps / library.stages)
    return GemmPlan(
        device=device,
        library=library,
        shape=shape,
        dtype=dtype,
        starts=np.searchsorted(row, np.arange(m.size)),
        row=row,
        tile_m=a,
        tile_n=b,
        split=s,
        waves=waves,
        fill=fill * (not library.warp_specialised),
        steps=waves * steps,
        ctas=ctas,
        compute_s=waves * 2 * a * b * cta_k * device.sms / device.peak(compute or dtype),
        l2_bytes=np.where(vector, 0.0, ctas * loaded * cta_k * size),
        reread_bytes=np.maximum(reread, weight + inputs),
        output_bytes_cta=np.where(vector, 0.0, a * b * stored_bytes),
        weight_bytes=weight,
        input_bytes=inputs,
        result_bytes=result,
        partial_bytes=np.where(s > 1, 2 * FP32_BYTES * s * mr * nr * br, 0.0),
        weight_copies=copies[row],
    )


def _candidates(
    m: np.ndarray, n: np.ndarray, k: np.ndarray, batch: np.ndarray, library: Library, sms: int, size: float
) -> tuple[np.ndarray, ...]:
    """(problem, tile, split) indices of the kernels worth trying, sorted by problem.

    Left out: tiles that reach far beyond the matrix, splits that leave less than MIN_SPLIT_K, and
    splits of grids that already fill the SMs twice.
    """
    tiles = np.asarray(library.tiles, dtype=float)
    a, b = tiles[:, 0], tiles[:, 1]
    wide = (b > 64) & (b >= n[:, None] + 32) | (a > 64) & (a >= m[:, None] + 64)
    wide[np.all(wide, axis=1)] = False
    grid = np.ceil(m[:, None] / a) * np.ceil(n[:, None] / b) * batch[:, None]
    splits = np.asarray(library.splits, dtype=float)
    long_enough = k[:, None] / splits >= MIN_SPLIT_K * 2 / size
    long_enough[:, 0] = True
    may_split = (grid <= 2 * sms)[:, :, None] | (splits == 1)
    return np.nonzero(~wide[:, :, None] & may_split & long_enough[:, None, :])


def gemm_time(plan: GemmPlan, constants: GemmConstants) -> KernelTime:
    """Time of the fastest candidate of each problem.

    T = launch + softmax_p(compute + prologue, memory) + epilogue + ramp + split
      compute  = waves 2ab kk S / (e F)                  the busiest SM
      prologue = fills t_fill + steps t_step             pipeline fill of every wave, wait of every step
      memory   = max(DRAM bytes / (e_B B), L2 bytes / B_L2)
      epilogue = waves output bytes of a CTA / w         the output of a wave; where it is written beside the next
                                                         tile, a share of all but the last
      ramp     = sqrt(tau DRAM bytes / B)                DRAM needs time to reach its rate
      split    = launch + 8 s m n / B_L2                 a reduction kernel over fp32 partials
    """
    c, device = constants, plan.device
    usable = c.l2_share * device.l2_bytes
    w, a, o = plan.weight_bytes, plan.input_bytes, plan.result_bytes
    copies = np.where(np.isfinite(plan.weight_copies), plan.weight_copies, 1e9)
    from_dram = plan.reread_bytes
    weight_hits = hit_rate(copies * w + a + o, usable, L2_STEEPNESS) * w
    dram = from_dram - weight_hits
    dram = dram - hit_rate(w + a + o, usable, L2_STEEPNESS) * a
    memory = np.maximum(
        (dram + o) / (c.dram_efficiency * device.dram_bytes_per_s),
        np.maximum(plan.l2_bytes, from_dram + o) / device.l2_bytes_per_s,
    )
    compute = plan.compute_s / c.matrix_efficiency
    prologue = plan.fill * c.fill_s + plan.steps * c.step_s
    busy = compute + prologue
    overlapped = soft_max(busy, memory, c.overlap)
    exposed = 1 + (plan.waves - 1) * plan.library.epilogue_shown
    epilogue = exposed * plan.output_bytes_cta / (c.epilogue_bytes_per_clock_sm * device.clock_hz)
    ramp = np.sqrt(c.dram_ramp_s * (dram + o) / device.dram_bytes_per_s)
    split = np.where(plan.split > 1, c.launch_s + plan.partial_bytes / device.l2_bytes_per_s, 0.0)
    total = overlapped + epilogue + ramp + split
    best = _argmin(total, plan)
    terms = {
        "launch": np.full(best.shape, c.launch_s),
        "compute": compute[best],
        "prologue": prologue[best],
        "memory": (overlapped - busy)[best],
        "epilogue": epilogue[best],
        "ramp": ramp[best],
        "split": split[best],
    }
    moved = {
        "weight": w - weight_hits,
        "input": dram - (w - weight_hits),
        "output": o,
        "l2": np.maximum(plan.l2_bytes, from_dram) + plan.partial_bytes,
    }
    kernel = {
        "tile_m": plan.tile_m,
        "tile_n": plan.tile_n,
        "split": plan.split,
        "ctas": plan.ctas,
        "waves": plan.waves,
    }
    return KernelTime(
        time_s=(c.launch_s + total[best]).reshape(plan.shape),
        terms_s={name: value.reshape(plan.shape) for name, value in terms.items()},
        kernel={name: value[best].astype(int).reshape(plan.shape) for name, value in kernel.items()},
        flags={},
        moved_bytes={name: value[best].reshape(plan.shape) for name, value in moved.items()},
    )


def _argmin(total: np.ndarray, plan: GemmPlan) -> np.ndarray:
    """Index of the first fastest candidate of each problem."""
    least = np.minimum.reduceat(total, plan.starts)
    hits = np.flatnonzero(total == least[plan.row])
    return hits[np.searchsorted(plan.row[hits], np.arange(plan.starts.size))]


def gemm_s(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    *,
    device: GpuDevice,
    constants: GemmConstants,
    dtype: str = "bf16",
    batch: ArrayLike = 1,
    weight_copies: ArrayLike = inf,
) -> KernelTime:
    """Time of C[m, n] = A[m, k] B[k, n], see `gemm_plan` and `gemm_time`."""
    return gemm_time(
        gemm_plan(
            m,
            n,
            k,
            device=device,
            dtype=dtype,
            batch=batch,
            weight_copies=weight_copies,
        ),
        constants,
    )
