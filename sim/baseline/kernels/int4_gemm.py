"""Weight-only int4 GEMM: fp16 activations times 4-bit weights, dequantised in registers (Triton).

Each weight row is cut into groups of INT4_GROUP columns with one scale and one zero point:
w = (q - zero) * scale, q in 0..15. Two values share a byte: the low half holds column j, the high half column
j + INT4_GROUP/2 of the same group, so that one load of a half group yields two contiguous column ranges and
no lane has to be interleaved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sim.baseline.ops import INT4_GROUP
from sim.errors import MeasurementError

HALF = INT4_GROUP // 2


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """packed: (n, k/2) uint8; scale and zero: (n, k/INT4_GROUP) fp16."""

    packed: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.packed.shape[0], self.packed.shape[1] * 2


def quantise_int4(weight: torch.Tensor) -> Int4Weight:
    """Round-to-nearest, asymmetric, per row and group. weight: (n, k), k a multiple of INT4_GROUP."""
    n, k = weight.shape
    if k % INT4_GROUP:
        raise MeasurementError(f"int4 GEMM: k is {k}, expected a multiple of {INT4_GROUP}")
    grouped = weight.float().reshape(n, k // INT4_GROUP, INT4_GROUP)
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).clamp(min=1e-6).half()
    zero = (-low / scale.float()).round().clamp(0, 15).half()
    q = (grouped / scale.float()[..., None] + zero.float()[..., None]).round().clamp(0, 15).to(torch.uint8)
    packed = q[..., :HALF] | (q[..., HALF:] << 4)
    return Int4Weight(packed.reshape(n, k // 2).contiguous(), scale, zero)


def dequantise_int4(weight: Int4Weight) -> torch.Tensor:
    """The fp32 weights that the packed form stands for: the reference of the kernel."""
    n, k = weight.shape
    bytes_ = weight.packed.reshape(n, k // INT4_GROUP, HALF)
    q = torch.cat([bytes_ & 15, bytes_ >> 4], dim=-1).float()
    return ((q - weight.zero.float()[..., None]) * weight.scale.float()[..., None]).reshape(n, k)


def int4_gemm(x: torch.Tensor, weight: Int4Weight) -> torch.Tensor:
    """x (m, k) fp16 times the transpose of weight (n, k) -> (m, n) fp16, accumulated in fp32."""
    from sim.baseline.kernels._triton import ceil_div, int4_gemm_kernel, require_triton

    require_triton()
    m, k = x.shape
    n, k_weight = weight.shape
    if k != k_weight or x.dtype is not torch.float16 or not x.is_contiguous():
        raise MeasurementError(
            f"int4 GEMM: expected contiguous fp16 activations (m, {k_weight}), got {x.dtype} {tuple(x.shape)}"
        )
    out = torch.empty(m, n, device=x.device, dtype=torch.float16)
    block_m = 16 if m <= 16 else 32 if m <= 32 else 64
    block_n = 64
    grid = (ceil_div(m, block_m), ceil_div(n, block_n))
    int4_gemm_kernel[grid](
        x, weight.packed, weight.scale, weight.zero, out, m, n, k,
        GROUP=INT4_GROUP, BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out
