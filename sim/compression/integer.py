"""The integers that a chip would compute: int8 or int4 codes, exact accumulation, one rescale.

    y = s_x s_w sum (q_x - z_x)(q_w - z_w) + b                (Jacob et al., CVPR 2018, eq. 3-4)

Sums are taken in 64 bits and checked against the accumulator's width, so that a layer that would
overflow a 32-bit accumulator is an error here and not a wrong number there.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from sim.compression.fakequant import Grid, encode, quantise_weight, scale_and_zero
from sim.errors import ConfigError

ACCUMULATOR_BITS = 32


def accumulate(
    codes: torch.Tensor, zero: int, weight_codes: torch.Tensor, weight_zero: torch.Tensor, layer: nn.Module
) -> torch.Tensor:
    """Exact int64 sums of (q_x - z_x)(q_w - z_w) for a Linear or an ungrouped or grouped Conv2d.

    Args:
        codes: integer activation codes, the layer's input shape.
        weight_codes: integer weight codes, the weight's shape.
        weight_zero: zero points, broadcastable to the weight [channels, 1].
    Raises: ConfigError: a sum leaves the 32-bit accumulator; the layer is neither kind.
    """
    x = codes.to(torch.int64) - zero
    w = weight_codes.to(torch.int64) - weight_zero.to(torch.int64).reshape(-1, *[1] * (weight_codes.dim() - 1))
    if isinstance(layer, nn.Linear):
        sums = x @ w.T
    elif isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple) and layer.padding_mode == "zeros":
        sums = _convolve(x, w, layer)
    else:
        raise ConfigError(f"integer arithmetic: {type(layer).__name__} is neither Linear nor a zero-padded Conv2d")
    limit = 1 << (ACCUMULATOR_BITS - 1)
    if sums.numel() and (sums.min() < -limit or sums.max() >= limit):
        raise ConfigError(f"integer arithmetic: a sum of {sums.abs().max().item()} overflows {ACCUMULATOR_BITS} bits")
    return sums


def _convolve(x: torch.Tensor, w: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
    """Convolution by gathering windows (no library convolves integers on a CPU)."""
    (stride_h, stride_w), (pad_h, pad_w), (dil_h, dil_w) = layer.stride, layer.padding, layer.dilation
    x = functional.pad(x, (pad_w, pad_w, pad_h, pad_h))
    r, s = w.shape[2:]
    p = (x.shape[2] - dil_h * (r - 1) - 1) // stride_h + 1
    q = (x.shape[3] - dil_w * (s - 1) - 1) // stride_w + 1
    rows = torch.arange(p)[:, None] * stride_h + torch.arange(r) * dil_h
    cols = torch.arange(q)[:, None] * stride_w + torch.arange(s) * dil_w
    windows = x[:, :, rows[:, None, :, None], cols[None, :, None, :]]  # N C P Q R S
    n, groups = x.shape[0], layer.groups
    windows = windows.reshape(n, groups, x.shape[1] // groups, p, q, r, s).permute(1, 0, 3, 4, 2, 5, 6)
    left = windows.reshape(groups, n * p * q, -1)
    right = w.reshape(groups, w.shape[0] // groups, -1).transpose(1, 2)
    return (left @ right).reshape(groups, n, p, q, -1).permute(1, 0, 4, 2, 3).reshape(n, w.shape[0], p, q)


def integer_layer(
    layer: nn.Linear | nn.Conv2d, x: torch.Tensor, *, weights: Grid, activations: Grid, low: float, high: float
) -> torch.Tensor:
    """The layer computed in integers; equals its fake-quantised float form to rounding.

    Args:
        weights: an integer grid per tensor or per channel (groups need one rescale per group).
        low, high: static range of x.
    """
    if weights.is_float or activations.is_float or weights.granularity == "group":
        raise ConfigError("integer arithmetic: needs integer grids per tensor or channel")
    scale, zero = scale_and_zero(torch.tensor(low), torch.tensor(high), activations)
    codes = encode(x, scale, zero, activations)
    weight_codes, weight_scale, weight_zero = quantise_weight(layer.weight.detach(), weights)
    sums = accumulate(codes, int(zero), weight_codes, weight_zero, layer)
    shape = (1, -1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
    result = sums.to(torch.float64) * (scale * weight_scale.reshape(-1)).to(torch.float64).reshape(shape)
    if layer.bias is not None:
        result = result + layer.bias.detach().reshape(shape)
    return result.to(x.dtype)
