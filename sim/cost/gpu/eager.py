"""Ops on a GPU as an eager framework launches them: a kernel or a few per op, nothing fused but attention.

    device = kernels gap_s + floor[class] + near-ideal kernel / efficiency[class] + copies / efficiency[copies]
             + what one block does alone: columns column_s[class]
    host   = calls call_s[kind] + views view_s                           dispatch, allocation, launch; Python

The near-ideal kernel is the generation's model (`sim.cost.gpu`) without its launch: tiles, waves and DRAM of products
and attention; of the rest, streams through L2 or DRAM. One block of threads walks a row, a group's elements, the
window of a depthwise output or the reduction of a convolution with few channels: that wait is there however small
the op is. A replayed graph takes the sum of the device's times; launched one by one, a network takes the longer of
both sums, because the queue between host and device is deep (1,024 launches).
Pure functions over ops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost.columns import from_rows
from sim.cost.gpu.constants import Constants, constant

CLASSES = (
    "gemm", "conv", "few", "grouped", "apart", "depthwise", "attention", "decode", "unfused", "batch_norm", "rows",
    "group_norm", "softmax", "reduction", "vector", "broadcast", "transposed", "pool",
)  # fmt: skip
"""Classes of ops. "few": convolutions whose input channels fill no load of the matrix units, on the CUDA cores;
"grouped": several channels a group, in a kernel of its own; "apart": likewise, laid apart and together by copies;
"unfused": products of attention for which there is no kernel; "rows": norms along rows; "broadcast": element-wise work
and copies whose operands are not read in their order; "transposed": copies that change the contiguous axis."""
HOST_KINDS = ("product", "conv", "batch_norm", "norm", "attention", "light")
"""Kinds of calls by what the framework does before the launch; "light": element-wise work and copies."""

ROW_SHARE = 0.15
"""Of a row's walk, what the rows that share an SM cannot overlap: some eight blocks of 128 threads do (estimated)."""


def _floor() -> float:
    return constant("s", 2e-7, 3e-5, 0.0)


def _share() -> float:
    return constant("1", 0.05, 2.0, 1.0)


def _call() -> float:
    return constant("s", 1e-6, 2e-4, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EagerConstants(Constants):
    """Fitted constants of one GPU with its framework. Efficiencies are over the generation's kernel model: above 1
    where the framework's kernels are the better ones."""

    gap_s: float = constant("s", 1e-7, 2e-6, 0.0)
    """Between two kernels of a replayed graph."""
    gemm_s: float = _floor()
    gemm_efficiency: float = _share()
    conv_s: float = _floor()
    conv_efficiency: float = _share()
    few_s: float = _floor()
    few_efficiency: float = _share()
    few_column_s: float = constant("s", 1e-10, 1e-6, 0.0)
    """An element of the reduction of a convolution on the CUDA cores."""
    grouped_s: float = _floor()
    grouped_efficiency: float = _share()
    apart_s: float = constant("s", 1e-6, 1e-4, 0.0)
    """Of six kernels."""
    apart_copy_efficiency: float = _share()
    """Copies that lay groups apart and together, over the DRAM stream of their bytes."""
    depthwise_s: float = _floor()
    depthwise_efficiency: float = _share()
    depthwise_column_s: float = constant("s", 1e-9, 1e-6, 0.0)
    """An element of a window above 3 x 3, for which there is a kernel of its own."""
    attention_s: float = _floor()
    attention_efficiency: float = _share()
    decode_s: float = _floor()
    decode_efficiency: float = _share()
    unfused_s: float = _floor()
    unfused_copy_efficiency: float = _share()
    batch_norm_s: float = _floor()
    batch_norm_efficiency: float = _share()
    rows_s: float = _floor()
    rows_efficiency: float = _share()
    rows_column_s: float = constant("s", 1e-11, 1e-8, 0.0)
    """An element of a row, or of a group."""
    row_s: float = constant("s", 1e-9, 1e-6, 0.0)
    """A row in one SM, whatever its length: further rows wait for it."""
    group_norm_s: float = _floor()
    softmax_s: float = _floor()
    softmax_efficiency: float = _share()
    reduction_s: float = _floor()
    vector_s: float = _floor()
    vector_efficiency: float = _share()
    broadcast_s: float = _floor()
    broadcast_efficiency: float = _share()
    transposed_s: float = _floor()
    transposed_efficiency: float = _share()
    pool_s: float = _floor()
    pool_column_s: float = constant("s", 1e-14, 1e-10, 0.0)
    """One element of one of all windows."""
    host_product_s: float = _call()
    host_conv_s: float = _call()
    host_batch_norm_s: float = _call()
    host_norm_s: float = _call()
    host_attention_s: float = _call()
    host_light_s: float = _call()
    host_view_s: float = constant("s", 1e-7, 2e-5, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EagerWork:
    """Ops, arrays of one length."""

    kind: np.ndarray
    """Index into CLASSES."""
    kernels: np.ndarray
    ideal_s: np.ndarray
    """The generation's kernel model without its launch."""
    copies_s: np.ndarray
    """Copies around the kernel at the data sheet's DRAM bandwidth."""
    columns: np.ndarray
    """Elements that one block walks."""
    rows: np.ndarray
    """Rows per SM, for norms along rows."""
    host: np.ndarray
    """Index into HOST_KINDS."""
    calls: np.ndarray
    """Calls of that kind: 0 for parts of a fused op."""
    light_calls: np.ndarray
    """Further light calls: scalings, masks, casts, copies."""
    views: np.ndarray
    """Views since the op before."""


INDEX_COLUMNS = ("kind", "host")


def work_from_rows(rows: list[dict[str, float]]) -> EagerWork:
    """Columns from one mapping per op; what a row leaves out is 0."""
    return from_rows(EagerWork, rows, index=INDEX_COLUMNS, missing={})


@dataclass(frozen=True, slots=True, kw_only=True)
class EagerTime:
    """Seconds per op. `gap_s` is idle device time between kernels; `call_s` is the host's, beside the device."""

    gap_s: np.ndarray
    floor_s: np.ndarray
    kernel_s: np.ndarray
    call_s: np.ndarray

    @property
    def device_s(self) -> np.ndarray:
        return self.gap_s + self.floor_s + self.kernel_s


def eager_time(work: EagerWork, constants: EagerConstants) -> EagerTime:
    """Device and host time of each op.

    Example: an add of 100 us in the kernel model, gap 0.5 us, floor 1 us, efficiency 1: 101.5 us.
    """
    c = constants

    def by_class(suffix: str, default: float) -> np.ndarray:
        return np.array([getattr(c, f"{name}_{suffix}", default) for name in CLASSES])[work.kind]

    copies = by_class("copy_efficiency", c.transposed_efficiency)
    walk = work.columns * np.where(work.kind == CLASSES.index("group_norm"), c.rows_column_s, by_class("column_s", 0.0))
    kernel = work.ideal_s / by_class("efficiency", 1.0) + work.copies_s / copies + walk
    kernel = np.maximum(kernel, walk + work.rows * (c.row_s + work.columns * c.rows_column_s * ROW_SHARE))
    host = np.array([getattr(c, f"host_{name}_s") for name in HOST_KINDS])[work.host]
    return EagerTime(
        gap_s=c.gap_s * work.kernels,
        floor_s=np.where(work.kernels > 0, by_class("s", 0.0), 0.0),
        kernel_s=kernel,
        call_s=work.calls * host + work.light_calls * c.host_light_s + work.views * c.host_view_s,
    )
