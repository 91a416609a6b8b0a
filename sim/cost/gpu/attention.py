"""Attention kernels on a GPU: FlashAttention-2 (mma.sync chips) and FlashAttention-3 (wgmma chips).

As in `gemm`, a plan counts work and a second function applies the constants. Times include writing
the new tokens into the KV cache and, where the kernel needs them, layout copies: this is what a
serving library launches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sim.cost.gpu.constants import DecodeConstants, PrefillConstants
from sim.cost.gpu.device import GpuDevice, element_bytes
from sim.cost.gpu.result import KernelTime, hit_rate, scatter, soft_max
from sim.cost.gpu.vector import L2_STEEPNESS

PACKED_HEADS = 64
"""Query heads of a group that one decode CTA serves: the rows of its tile."""
FULL_ENOUGH = 0.8
"""FlashAttention does not split when the grid fills this share of the slots."""
GOOD_ENOUGH = 0.85
"""... and otherwise takes the first split within this share of the best efficiency."""
MAX_SPLITS = 128
PREFILL_MAX_SPLITS = 32
REFERENCE_HEAD_DIM, REFERENCE_COLUMNS = 128, 128
"""Tiles for which the start of a decode CTA is stated: those of head dimension 128 in both libraries."""
CACHE_THREADS = 512
"""The cache-write kernel runs one block per token of min(KV heads x head dimension, 512) threads
(vLLM, `reshape_and_cache_flash`)."""
SM_THREADS = 2048
SM_BLOCKS = 32
SCHEDULED_SEQUENCES = 992
"""FlashAttention-3 runs a scheduling kernel up to this many sequences."""
HEAD_DIMS = (64, 128, 192, 256)
"""Head dimensions with data: 128 on both libraries, the others on wgmma kernels, in which only the count of
clocks depends on them. At 512 another kernel runs."""
DECODE_STEEPNESS = 6.0
SOFTMAX_LANE_OPS = 6.0
"""fp32 instructions per score element beside its exponential: scale and shift, maximum, sum, conversion, and shares of
the mask and of rescaling the output (FlashAttention 2, `softmax.h`, counted: 5 to 7)."""
FP32_BYTES = 4


def flash_splits(ctas: ArrayLike, slots: ArrayLike, blocks: ArrayLike, limit: int = MAX_SPLITS) -> np.ndarray:
    """FlashAttention's number of KV splits.

    1 if the grid fills 0.8 of the slots. Otherwise, over i = 1..min(limit, slots, blocks) that
    shorten the longest split, efficiency(i) = w / ceil(w) with w = ctas i / slots; the first i with
    at least 0.85 of the best. Source: `num_splits_heuristic` of FlashAttention 2. That of version 3 asks for no shorter
    split; the H100 kernels that were measured are nearer to this one all the same (2.7 against 5.4 % in the median of
    the 60 rows on which the two differ by over 2 %, with constants fitted to this one).

    Args:
        ctas, slots, blocks: CTAs without splits, CTAs that run at once, KV blocks; shapes broadcast.
    Example: 8 CTAs, 108 slots, 64 blocks: 8 x 13 = 104 of 108 slots is the best (0.963); i = 11
    reaches 0.815, below 0.85 x 0.963 = 0.819, so 12 (0.889) unless it shortens nothing: ceil(64/11) =
    ceil(64/12) = 6 does not, so the answer is 13.
    """
    ctas, slots, blocks = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (ctas, slots, blocks)))
    i = np.arange(1, limit + 1, dtype=float)
    wave = ctas[..., None] * i / slots[..., None]
    shortens = np.ceil(blocks[..., None] / i) != np.ceil(blocks[..., None] / np.maximum(i - 1, 1))
    allowed = (i <= np.minimum(slots, blocks)[..., None]) & (shortens | (i == 1))
    efficiency = np.where(allowed, wave / np.ceil(wave), 0.0)
    first = np.argmax(efficiency >= GOOD_ENOUGH * efficiency.max(axis=-1, keepdims=True), axis=-1) + 1
    return np.where(ctas >= FULL_ENOUGH * slots, 1, first)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionProblem:
    """Sizes of attention calls, one shape. `context` counts cached tokens before the new ones."""

    batch: np.ndarray
    new_tokens: np.ndarray
    past_tokens: np.ndarray
    heads: np.ndarray
    kv_heads: np.ndarray
    head_dim: np.ndarray

    @classmethod
    def of(
        cls,
        batch: ArrayLike,
        new_tokens: ArrayLike,
        past_tokens: ArrayLike,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
    ) -> AttentionProblem:
        """Broadcast and check. Raises ValueError: sizes below one, heads not a multiple of KV heads."""
        parts = np.broadcast_arrays(
            *(np.asarray(x, dtype=float) for x in (batch, new_tokens, past_tokens, heads, kv_heads, head_dim))
        )
        b, q, past, h, kv, d = parts
        if any(np.any(x < 1) for x in (b, q, h, kv, d)) or np.any(past < 0):
            raise ValueError("attention sizes must be at least 1 (past_tokens at least 0)")
        if np.any(h % kv != 0):
            raise ValueError("attention: the number of query heads must be a multiple of the KV heads")
        return cls(batch=b, new_tokens=q, past_tokens=past, heads=h, kv_heads=kv, head_dim=d)

    @property
    def group(self) -> np.ndarray:
        """Query heads per KV head."""
        return self.heads / self.kv_heads

    def flags(self) -> dict[str, np.ndarray]:
        return {"head_dim": ~np.isin(self.head_dim, HEAD_DIMS)}


def kv_columns(head_dim: np.ndarray, device: GpuDevice) -> np.ndarray:
    """Keys that a CTA takes at a time, in decode as in prefill (sources: `prefill_tiles`)."""
    if not device.library.warp_specialised:
        return np.where(head_dim <= 64, 256.0, np.where(head_dim <= 128, 128.0, 64.0))
    return np.where(head_dim <= 128, 128.0, np.where(head_dim <= 192, 96.0, 80.0))


def _of_first_tiles(head_dim: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Relative cost of a decode CTA: half of it grows with its first tiles of queries, keys and values."""
    reference = (PACKED_HEADS + 2 * REFERENCE_COLUMNS) * REFERENCE_HEAD_DIM
    return 0.5 + 0.5 * (PACKED_HEADS + 2 * columns) * head_dim / reference


def attention_decode_s(
    batch: ArrayLike,
    past_tokens: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    *,
    device: GpuDevice,
    constants: DecodeConstants,
    dtype: str = "bf16",
    cache_element_bytes: float | None = None,
) -> KernelTime:
    """One new token per sequence over `past_tokens` cached ones; the cache may be narrower than `dtype`.

    T = launch + softmax_p(rounds (start + (blocks - 1) block), DRAM + L2) + split + scheduling + copies.
    Grouped heads are packed: one CTA per KV head and split of the KV length; one CTA per SM at a time. Combining the
    splits is a kernel more, and so are the layout copies of FlashAttention-2 for grouped heads, and the scheduling of
    FlashAttention-3.
    """
    c = constants
    x = AttentionProblem.of(batch, 1, past_tokens, heads, kv_heads, head_dim)
    size, fa3 = element_bytes(dtype), device.library.warp_specialised
    length = x.past_tokens + 1
    stored = size if cache_element_bytes is None else cache_element_bytes
    cache = 2 * stored * x.batch * x.kv_heads * length * x.head_dim
    queries = 2 * size * x.batch * x.heads * x.head_dim
    columns = kv_columns(x.head_dim, device)
    blocks = np.ceil(length / columns)
    ctas = x.batch * x.kv_heads * np.ceil(x.group / PACKED_HEADS)
    splits = flash_splits(ctas, device.sms * (1 if fa3 else 2), blocks)
    per_cta = np.ceil(blocks / splits)
    rounds = np.ceil(ctas * splits / device.sms)
    row_s = 4 * columns * x.head_dim * device.sms / device.peak(dtype)
    per_block = c.block_rows * row_s * stored / size
    busy = rounds * (c.start_s + (per_cta - 1) * per_block) * _of_first_tiles(x.head_dim, columns)
    hit = hit_rate(cache, c.l2_share * device.l2_bytes, DECODE_STEEPNESS)
    l2_bytes_per_s = c.l2_efficiency * device.l2_bytes_per_s
    memory = (cache * (1 - hit) + queries * (c.l2_share <= 0)) / (c.dram_efficiency * device.dram_bytes_per_s)
    memory = memory + (cache * hit + queries) / l2_bytes_per_s
    overlapped = soft_max(busy, memory, c.overlap)
    partial = 2 * FP32_BYTES * x.batch * x.heads * x.head_dim * splits / l2_bytes_per_s
    split = np.where(splits > 1, c.combine_s / device.library.combine_stages * splits + partial, 0.0)
    kernel_s = c.kernel_s * device.library.chained
    if fa3:
        scheduled = x.batch <= SCHEDULED_SEQUENCES
        scheduling = np.where(scheduled, c.sequence_s * x.batch + kernel_s * (length > columns), 0.0)
        copies = np.zeros_like(scheduling)
    else:
        split = split + np.where(splits > 1, kernel_s, 0.0)
        scheduling = np.zeros_like(split)
        grouped = (x.group > 1) & (x.kv_heads > 1) & (x.batch > 1)
        copies = np.where(grouped, kernel_s + 2 * queries / l2_bytes_per_s, 0.0)
    terms = {
        "launch": np.full(busy.shape, c.launch_s),
        "compute": busy,
        "memory": overlapped - busy,
        "split": split,
        "scheduling": scheduling,
        "cache_write": copies,
    }
    kernel = {
        "splits": splits.astype(int),
        "ctas": (ctas * splits).astype(int),
        "waves": rounds.astype(int),
    }
    return KernelTime(time_s=sum(terms.values()), terms_s=terms, kernel=kernel, flags=x.flags())


def runs_decode_kernel(new_tokens: ArrayLike, heads: ArrayLike, kv_heads: ArrayLike, device: GpuDevice) -> np.ndarray:
    """True where a call runs the split-KV decode kernel.

    FlashAttention-2 as served takes one new token with ungrouped heads through the prefill kernel: no
    packing, no KV splits, 64 query rows of which one is used.
    """
    ungrouped = np.asarray(heads) == np.asarray(kv_heads)
    return (np.asarray(new_tokens) == 1) & (device.library.warp_specialised | ~ungrouped)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillTiles:
    """Tile shape of the prefill kernel: query rows, KV columns, CTAs per SM, heads packed in rows."""

    rows: np.ndarray
    columns: np.ndarray
    resident: np.ndarray
    pack: np.ndarray


def prefill_tiles(x: AttentionProblem, device: GpuDevice) -> PrefillTiles:
    """FlashAttention-2 with paged KV: 64 rows by 256, 128 or 64 columns, by head dimension, and two per SM where
    queries, keys and values of both fit its shared memory (A100's, not an L40S's). FlashAttention-3: by head
    dimension, grouped heads packed into rows; one warp group (64 rows) when that covers all of them.
    Source: `run_mha_fwd_splitkv_dispatch` of FlashAttention 2, `tile_size_fwd_sm90` of 3."""
    d, columns = x.head_dim, kv_columns(x.head_dim, device)
    if not device.library.warp_specialised:
        one_bytes = (64 + 2 * columns) * d * 2
        return PrefillTiles(
            rows=np.full(d.shape, 64.0),
            columns=columns,
            resident=np.where(2 * one_bytes <= device.smem_bytes_per_sm, 2.0, 1.0),
            pack=np.ones(d.shape),
        )
    rows = np.where(x.new_tokens * x.group <= 64, 64.0, np.where(d <= 64, 192.0, 128.0))
    return PrefillTiles(rows=rows, columns=columns, resident=np.ones(d.shape), pack=x.group)


def causal_blocks(
    new_tokens: ArrayLike,
    past_tokens: ArrayLike,
    pack: ArrayLike,
    rows: ArrayLike,
    columns: ArrayLike,
    *,
    causal: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row tiles, KV blocks over all row tiles, KV blocks of the last) of one packed head.

    Row tile t holds packed rows t*rows.. of new_tokens * pack; its last query sees past + ceil(end/pack)
    keys, so it walks ceil(that / columns) blocks. Without `causal` every tile walks all of them.
    """
    q, past, pack, rows, columns = (
        np.ravel(np.asarray(v, dtype=float)) for v in (new_tokens, past_tokens, pack, rows, columns)
    )
    tiles = np.ceil(q * pack / rows)
    last = np.ceil((past + q) / columns)
    if not causal:
        return tiles, tiles * last, last
    starts = np.concatenate([[0], np.cumsum(tiles)[:-1]]).astype(int)
    owner = np.repeat(np.arange(q.size), tiles.astype(int))
    index = np.arange(owner.size) - starts[owner]
    end = np.minimum((q * pack)[owner], (index + 1) * rows[owner])
    blocks = np.ceil((past[owner] + end / pack[owner]) / columns[owner])
    return tiles, np.add.reduceat(blocks, starts), last


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPlan:
    """Geometry of prefill calls: what the constants do not change."""

    device: GpuDevice
    problem: AttentionProblem
    tiles: PrefillTiles
    ctas: np.ndarray
    blocks: np.ndarray
    """KV blocks over all CTAs before splitting."""
    longest: np.ndarray
    splits: np.ndarray
    cache_write: bool
    size: float
    stored: float
    """Bytes of an element of the cache."""


def prefill_plan(
    batch: ArrayLike,
    new_tokens: ArrayLike,
    past_tokens: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    *,
    device: GpuDevice,
    dtype: str = "bf16",
    causal: bool = True,
    cache_write: bool = True,
    cache_element_bytes: float | None = None,
) -> PrefillPlan:
    """Count row tiles, causal blocks and splits. `cache_write=False`: keys and values are not kept (encoders);
    the cache may be narrower than `dtype`."""
    x = AttentionProblem.of(batch, new_tokens, past_tokens, heads, kv_heads, head_dim)
    t = prefill_tiles(x, device)
    counts = causal_blocks(x.new_tokens, x.past_tokens, t.pack, t.rows, t.columns, causal=causal)
    row_tiles, blocks, longest = (v.reshape(x.batch.shape) for v in counts)
    heads_packed = x.batch * x.heads / t.pack
    ctas = heads_packed * row_tiles
    splits = np.ones(ctas.shape)
    if device.library.warp_specialised:
        splits = np.where(longest > 4, flash_splits(ctas, device.sms, longest, PREFILL_MAX_SPLITS), 1)
    return PrefillPlan(
        device=device, problem=x, tiles=t, ctas=ctas * splits, blocks=heads_packed * blocks, longest=longest,
        splits=splits, cache_write=cache_write, size=element_bytes(dtype),
        stored=element_bytes(dtype) if cache_element_bytes is None else cache_element_bytes,
    )  # fmt: skip


def softmax_clocks_per_element(device: GpuDevice) -> float:
    """SM clocks of one score element: an exponential, and SOFTMAX_LANE_OPS on the fp32 lanes.

    Example: A100, 16 exponentials and 64 lanes a clock: 1/16 + 6/64 = 0.156; H100 with 128 lanes: 0.109.
    """
    return 1 / device.exponentials_per_clock_sm + SOFTMAX_LANE_OPS / device.lanes_per_sm


def prefill_time(
    plan: PrefillPlan, constants: PrefillConstants, dtype: str = "bf16", *, past_in_l2: bool = True
) -> KernelTime:
    """T = launch + cache write + split + softmax_p(compute with its tail, memory).

    A score element costs matrix and softmax clocks (added, or overlapped where the library interleaves them); work is
    spread over the SMs, and `tail` of the longest CTA runs alone at the end. Combining splits costs half the launch
    floor, which holds two kernels. `past_in_l2`: a call that is repeated
    finds the cached tokens there too, if all fits; in a network everything else ran since.
    """
    c, device, x, t = constants, plan.device, plan.problem, plan.tiles
    matrix_clocks = 4 * x.head_dim * device.sms * device.clock_hz / (device.peak(dtype) * c.matrix_efficiency)
    softmax_clocks = np.asarray(c.softmax_share * softmax_clocks_per_element(device))
    element_s = soft_max(matrix_clocks, softmax_clocks, device.library.softmax_overlap) / device.clock_hz
    block_s = t.rows * t.columns * element_s
    start_s = c.start_s / t.resident
    work = (plan.blocks * block_s + plan.ctas * start_s) / device.sms
    longest = plan.longest * block_s / plan.splits + start_s
    waves = np.ceil(plan.ctas / device.sms)
    spread = np.maximum(longest, work + c.tail * longest)
    alone = waves * longest
    busy = np.where(plan.ctas <= device.sms * t.resident, np.minimum(spread, alone), spread)
    new = 2 * plan.size * x.batch * x.head_dim * x.new_tokens * (x.heads + x.kv_heads)
    past = 2 * plan.stored * x.batch * x.head_dim * x.past_tokens * x.kv_heads
    written = 2 * plan.stored * x.batch * x.new_tokens * x.kv_heads * x.head_dim * plan.cache_write
    hit = hit_rate(new + past * past_in_l2 + written, c.l2_share * device.l2_bytes, L2_STEEPNESS)
    from_dram_s = 1 / (c.dram_efficiency * device.dram_bytes_per_s)
    byte_s = (1 - hit) * from_dram_s + hit / device.l2_bytes_per_s
    overlapped = soft_max(busy, new * byte_s + past * (byte_s if past_in_l2 else from_dram_s), c.overlap)
    ideal = plan.blocks * block_s / device.sms
    terms = {
        "launch": np.full(busy.shape, c.launch_s),
        "compute": ideal,
        "tail": busy - ideal,
        "memory": overlapped - busy,
        "cache_write": _cache_write_s(plan, c, byte_s),
        "split": np.where(plan.splits > 1, c.launch_s / 2, 0.0),
    }
    kernel = {
        "splits": plan.splits.astype(int),
        "ctas": plan.ctas.astype(int),
        "waves": waves.astype(int),
    }
    return KernelTime(time_s=sum(terms.values()), terms_s=terms, kernel=kernel, flags=x.flags())


def _cache_write_s(plan: PrefillPlan, c: PrefillConstants, byte_s: np.ndarray) -> np.ndarray:
    """Writing keys and values into the paged cache: moving the bytes, or waiting for one block per token.

    An SM holds min(32, 2048 / threads) blocks, each of which takes `token_s`: narrow caches are bound
    by this latency, not by bytes.
    """
    x = plan.problem
    if not plan.cache_write:
        return np.zeros(x.batch.shape)
    width = x.kv_heads * x.head_dim
    moved_s = 2 * (plan.size + plan.stored) * x.batch * x.new_tokens * width * byte_s
    resident = np.minimum(SM_BLOCKS, SM_THREADS / np.minimum(CACHE_THREADS, width))
    waiting_s = x.batch * x.new_tokens / (plan.device.sms * resident) * c.token_s
    return soft_max(moved_s, waiting_s, c.overlap)


def attention_prefill_s(
    batch: ArrayLike,
    new_tokens: ArrayLike,
    past_tokens: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    *,
    device: GpuDevice,
    constants: PrefillConstants,
    dtype: str = "bf16",
    causal: bool = True,
    cache_write: bool = True,
) -> KernelTime:
    """Several new tokens per sequence, see `prefill_plan` and `prefill_time`."""
    plan = prefill_plan(
        batch, new_tokens, past_tokens, heads, kv_heads, head_dim,
        device=device, dtype=dtype, causal=causal, cache_write=cache_write,
    )  # fmt: skip
    return prefill_time(plan, constants, dtype)


def attention_s(
    batch: ArrayLike,
    new_tokens: ArrayLike,
    past_tokens: ArrayLike,
    heads: ArrayLike,
    kv_heads: ArrayLike,
    head_dim: ArrayLike,
    *,
    device: GpuDevice,
    decode: DecodeConstants,
    prefill: PrefillConstants,
    dtype: str = "bf16",
    causal: bool = True,
    cache_write: bool = True,
) -> KernelTime:
    """Attention calls of either kind, flat: each row runs the kernel that the library launches for it."""
    columns = np.broadcast_arrays(batch, new_tokens, past_tokens, heads, kv_heads, head_dim)
    b, q, past, h, kv, d = (np.ravel(np.asarray(x, dtype=float)) for x in columns)
    is_decode = runs_decode_kernel(q, h, kv, device) & causal
    parts = []
    rows = np.flatnonzero(is_decode)
    if rows.size:
        sizes = (v[rows] for v in (b, past, h, kv, d))
        parts.append(
            (
                rows,
                attention_decode_s(*sizes, device=device, constants=decode, dtype=dtype),
            )
        )
    rows = np.flatnonzero(~is_decode)
    if rows.size:
        sizes = (v[rows] for v in (b, q, past, h, kv, d))
        found = attention_prefill_s(
            *sizes, device=device, constants=prefill, dtype=dtype, causal=causal, cache_write=cache_write
        )
        parts.append((rows, found))
    return scatter(b.size, parts)
