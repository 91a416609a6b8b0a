"""Block-sparse GEMM: only the kept BLOCK x BLOCK blocks of the weight are read and multiplied (Triton).

The weight is stored as the kept blocks of every block row, all rows with the same count (an ELL form), with the
block column of each: `values` (block rows, kept, BLOCK, BLOCK), `columns` (block rows, kept) int32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sim.baseline.ops import BLOCK, kept_blocks
from sim.errors import MeasurementError


@dataclass(frozen=True, slots=True)
class BlockSparseWeight:
    """See the module. `k` is the width of the dense weight."""

    values: torch.Tensor
    columns: torch.Tensor
    k: int

    @property
    def n(self) -> int:
        return self.values.shape[0] * BLOCK


def random_block_sparse(n: int, k: int, *, keep_percent: int, dtype: torch.dtype, device: str) -> BlockSparseWeight:
    """Random values in random block columns, `kept_blocks(k, keep_percent)` of them per block row, ascending."""
    kept = kept_blocks(k, keep_percent)
    order = torch.rand(n // BLOCK, k // BLOCK, device=device).argsort(-1)[:, :kept]
    values = torch.randn(n // BLOCK, kept, BLOCK, BLOCK, device=device, dtype=dtype)
    return BlockSparseWeight(values, order.sort(-1).values.to(torch.int32).contiguous(), k)


def densify(weight: BlockSparseWeight) -> torch.Tensor:
    """The dense (n, k) weight: the reference of the kernel."""
    rows = weight.columns.shape[0]
    dense = weight.values.new_zeros(rows, weight.k // BLOCK, BLOCK, BLOCK)
    for row in range(rows):
        dense[row, weight.columns[row].long()] = weight.values[row]
    return dense.permute(0, 2, 1, 3).reshape(weight.n, weight.k)


def block_sparse_gemm(x: torch.Tensor, weight: BlockSparseWeight) -> torch.Tensor:
    """x (m, k) times the transpose of the sparse weight (n, k) -> (m, n), accumulated in fp32."""
    from sim.baseline.kernels._triton import block_sparse_gemm_kernel, ceil_div, require_triton

    require_triton()
    m, k = x.shape
    if k != weight.k or x.dtype != weight.values.dtype or not x.is_contiguous():
        raise MeasurementError(
            f"block-sparse GEMM: expected contiguous {weight.values.dtype} (m, {weight.k}), "
            f"got {x.dtype} {tuple(x.shape)}"
        )
    out = torch.empty(m, weight.n, device=x.device, dtype=x.dtype)
    block_m = 16 if m <= 16 else 64 if m <= 64 else 128
    grid = (ceil_div(m, block_m), weight.n // BLOCK)
    block_sparse_gemm_kernel[grid](
        x, weight.values, weight.columns, out, m, weight.n, k, weight.columns.shape[1],
        BLOCK=BLOCK, BLOCK_M=block_m, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out
