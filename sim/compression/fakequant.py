"""Number grids: choosing scales, rounding onto them, and the straight-through gradient.

An integer grid of b bits holds q in [qmin, qmax] and means x = scale * (q - zero). Symmetric
grids use zero = 0 and [-(2^(b-1) - 1), 2^(b-1) - 1], so that x and -x round alike; asymmetric
ones use all 2^b codes and an integer zero, so that 0.0 is exact and pruned weights stay zero.
fp8_e4m3 is scaled so that the largest magnitude is 448, the format's maximum [1].

References: [1] Micikevicius et al., FP8 Formats for Deep Learning, arXiv 2209.05433, table 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sim.errors import ConfigError, nearest

WIDTH = {"int2": 2, "int3": 3, "int4": 4, "int8": 8, "fp8_e4m3": 8}
FP8_MAX = 448.0
SCALE_BITS = 16
"""Stored bits of one scale of a group grid (fp16), as in AWQ and GPTQ files."""
SMALLEST_SCALE = 1e-12
"""A tensor of zeros still needs a scale to divide by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A dtype with one scale per tensor, per channel (axis 0 of a weight) or per group.

    A group is `group` consecutive elements of a weight's row (axis 0 kept, the rest flattened).
    """

    dtype: str = "int8"
    granularity: str = "tensor"
    group: int = 0
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in WIDTH:
            raise ConfigError(f'dtype "{self.dtype}": expected one of {", ".join(WIDTH)}.{nearest(self.dtype, WIDTH)}')
        if self.granularity not in ("tensor", "channel", "group"):
            raise ConfigError(f'granularity "{self.granularity}": expected tensor, channel or group')
        if (self.granularity == "group") != (self.group > 0):
            raise ConfigError(
                f'granularity "{self.granularity}" with group {self.group}: a group size is for group alone'
            )
        if self.is_float and not self.symmetric:
            raise ConfigError(f"{self.dtype} has a sign and no zero point: symmetric must be true")

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("fp")

    @property
    def width(self) -> int:
        return WIDTH[self.dtype]

    @property
    def bounds(self) -> tuple[int, int]:
        """(qmin, qmax), both codes included."""
        half = 1 << (self.width - 1)
        return (-(half - 1), half - 1) if self.symmetric else (-half, half - 1)

    @property
    def stored_bits(self) -> float:
        """Bits per element with the scales (and zero points) of groups."""
        return self.width + self.scale_bits

    @property
    def scale_bits(self) -> float:
        """Of these, bits of scales and zero points: those of whole channels and tensors are next to nothing."""
        if self.granularity != "group":
            return 0.0
        return (SCALE_BITS + (0 if self.symmetric else self.width)) / self.group


def blocked(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """A view whose last axis shares one scale: [1, all], [channels, rest] or [groups, group]."""
    match grid.granularity:
        case "tensor":
            return x.reshape(1, -1)
        case "channel":
            return x.reshape(x.shape[0], -1)
        case _:
            return x.reshape(-1, grid.group)


def divides(shape: tuple[int, ...], grid: Grid) -> bool:
    """Whether rows of a weight of this shape are whole groups."""
    return grid.granularity != "group" or (torch.Size(shape[1:]).numel() % grid.group == 0)


def scale_and_zero(low: torch.Tensor, high: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and integer zero that cover [low, high] together with 0; any shape, broadcast."""
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    if grid.symmetric:
        top = FP8_MAX if grid.is_float else float(grid.bounds[1])
        scale = (torch.maximum(-low, high) / top).clamp(min=SMALLEST_SCALE)
        return scale, torch.zeros_like(scale)
    qmin, qmax = grid.bounds
    scale = ((high - low) / (qmax - qmin)).clamp(min=SMALLEST_SCALE)
    return scale, (qmin - low / scale).round().clamp(qmin, qmax)


def encode(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Codes of x: integers (as floats, ties to even) or fp8 values."""
    if grid.is_float:
        return (x / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).to(x.dtype)
    return ((x / scale).round() + zero).clamp(*grid.bounds)


def decode(q: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    return (q - zero) * scale


def weight_scale(weight: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Min-max scale and zero of a weight, shape [blocks, 1]."""
    rows = blocked(weight, grid)
    return scale_and_zero(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), grid)


def quantise_weight(weight: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(codes in the weight's shape, scale, zero) with min-max ranges."""
    scale, zero = weight_scale(weight, grid)
    return encode(blocked(weight, grid), scale, zero, grid).reshape(weight.shape), scale, zero


def fake_quantise_weight(weight: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The weight rounded onto its own min-max grid, same shape and dtype."""
    scale, zero = weight_scale(weight, grid)
    return fake_quantise(blocked(weight, grid), scale, zero, grid).reshape(weight.shape)


def fake_quantise(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, grid: Grid) -> torch.Tensor:
    """decode(encode(x)); its gradient is 1 inside the range and 0 outside (straight through)."""
    return _StraightThrough.apply(x, scale, zero, grid)


class _StraightThrough(torch.autograd.Function):
    """Bengio et al., arXiv 1308.3432: rounding passes the gradient, clipping stops it."""

    @staticmethod
    def forward(ctx, x, scale, zero, grid):
        if grid.is_float:
            inside = x.abs() <= FP8_MAX * scale
        else:
            qmin, qmax = grid.bounds
            code = (x / scale).round() + zero
            inside = (code >= qmin) & (code <= qmax)
        ctx.save_for_backward(inside)
        return decode(encode(x, scale, zero, grid), scale, zero)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None, None


class ActivationQuantiser:
    """A hook that rounds a layer's input (or output) onto a grid.

    Static: the range was observed on calibration data. Dynamic: the range is taken from each
    token (last axis) or, per tensor, from each call.
    """

    def __init__(self, grid: Grid, *, dynamic: bool, per_token: bool = False) -> None:
        self.grid = grid
        self.dynamic = dynamic
        self.per_token = per_token
        self.low = torch.tensor(0.0)
        self.high = torch.tensor(0.0)

    def __call__(self, module, args, output=None):
        if output is not None:
            return self.round(output)
        return (self.round(args[0]), *args[1:])

    @property
    def settings(self) -> tuple[Grid, bool, bool, float, float]:
        """What it rounds to and within which range: no tensor of the module says so."""
        return self.grid, self.dynamic, self.per_token, self.low.item(), self.high.item()

    def range(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.dynamic:
            return self.low, self.high
        if self.per_token:
            return x.detach().amin(-1, keepdim=True), x.detach().amax(-1, keepdim=True)
        return x.detach().amin(), x.detach().amax()

    def round(self, x: torch.Tensor) -> torch.Tensor:
        scale, zero = scale_and_zero(*self.range(x), self.grid)
        return fake_quantise(x, scale, zero, self.grid)
