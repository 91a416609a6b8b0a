"""ONNX operators that few networks have: of signals, noise, losses, and forms of pooling and reductions.

Same form as `onnx_ops`; importing this module adds them to its table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from sim.workload.trace.onnx_layers import scatter_elements
from sim.workload.trace.onnx_ops import held, operator, padding_of, torch_type

# -- signals ---------------------------------------------------------------------------------------


def _number(value: Any, what: str) -> int:
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"{what} depends on the data")
    return int(value.reshape(-1)[0])


@operator("DFT")
def fourier(attrs: dict, x: Tensor, length: Any = None, axis: Any = None) -> Tensor:
    """A last axis of one is real, of two complex; opset 20 made the axis an input, and -2 what it is if not given."""
    along = attrs.get("axis", 1 if attrs["opset"] < 20 else -2) if axis is None else _number(axis, "its axis")
    along %= x.dim()
    n = x.shape[along] if length is None else _number(length, "its length")
    inverse, half = attrs.get("inverse", 0), attrs.get("onesided", 0)
    if x.shape[-1] == 1:
        real = x.squeeze(-1)
        made = torch.fft.rfft if half else torch.fft.ifft if inverse else torch.fft.fft
        return torch.view_as_real(made(real, n, along))
    whole = torch.view_as_complex(x.contiguous())
    if half and inverse:
        return torch.fft.irfft(whole, n if length is not None else 2 * (n - 1), along).unsqueeze(-1)
    return torch.view_as_real((torch.fft.ifft if inverse else torch.fft.fft)(whole, n, along))


@operator("STFT")
def short_fourier(attrs: dict, x: Tensor, step: Any, window: Any = None, length: Any = None) -> Tensor:
    """Of frames that lie inside the signal, [batch, frames, frequencies, 2]."""
    hop = _number(step, "its step")
    if isinstance(window, np.ndarray):
        window = held(window)
    if length is None and window is None:
        raise NotImplementedError("neither a window nor a frame length")
    n = window.shape[0] if length is None else _number(length, "its frame length")
    half = bool(attrs.get("onesided", 1)) and x.shape[-1] == 1
    signal = x.squeeze(-1) if x.shape[-1] == 1 else torch.view_as_complex(x.contiguous())
    frames = signal.unfold(1, n, hop)
    frames = frames if window is None else frames * window
    made = torch.fft.rfft if half else torch.fft.fft
    return torch.view_as_real(made(frames, n, -1))


@operator("Col2Im")
def from_patches(attrs: dict, x: Tensor, image: Any, block: Any) -> Tensor:
    dims = len(block)
    pads = attrs.get("pads", [0] * 2 * dims)
    if dims != 2 or list(pads[:dims]) != list(pads[dims:]):
        raise NotImplementedError(f"Col2Im of {dims} axes, pads {list(pads)}: expected two axes, padded alike")
    dilations, strides = attrs.get("dilations", [1, 1]), attrs.get("strides", [1, 1])
    return nnf.fold(x, image.tolist(), block.tolist(), dilations, pads[:dims], strides)


@operator("AffineGrid")
def affine_grid(attrs: dict, theta: Tensor, size: Any) -> Tensor:
    return nnf.affine_grid(theta, size.tolist(), bool(attrs.get("align_corners", 0)))


@operator("CenterCropPad")
def centre(attrs: dict, x: Tensor, shape: Any) -> Tensor:
    """Each of the axes cut, or padded with zeros, to its size."""
    axes = attrs.get("axes", range(x.dim()))
    flat = [0] * 2 * x.dim()
    for axis, size in zip(axes, shape.tolist(), strict=True):
        axis %= x.dim()
        more = size - x.shape[axis]
        if more < 0:
            x = x.narrow(axis, -more // 2, size)
        else:
            last = 2 * (x.dim() - 1 - axis)  # torch begins with the last axis
            flat[last : last + 2] = [more // 2, more - more // 2]
    return nnf.pad(x, flat) if any(flat) else x


@operator("ReverseSequence")
def reverse_sequence(attrs: dict, x: Tensor, lengths: Any) -> Tensor:
    """Each sequence up to its length, which counts as the longest."""
    return x.flip(attrs.get("time_axis", 0))


# -- noise -----------------------------------------------------------------------------------------


def _type(attrs: dict, default: torch.dtype) -> torch.dtype:
    return torch_type(attrs["dtype"], attrs["op_type"]) if "dtype" in attrs else default


def _noise(attrs: dict, shape: Any, dtype: torch.dtype) -> Tensor:
    made = torch.randn if "Normal" in attrs["op_type"] else torch.rand
    return made(list(shape), dtype=dtype)


@operator("RandomNormal", "RandomUniform")
def noise(attrs: dict) -> Tensor:
    return _noise(attrs, attrs["shape"], _type(attrs, torch.float32))


@operator("RandomNormalLike", "RandomUniformLike")
def noise_like(attrs: dict, x: Tensor) -> Tensor:
    return _noise(attrs, x.shape, _type(attrs, x.dtype))


@operator("Bernoulli")
def bernoulli(attrs: dict, x: Tensor) -> Tensor:
    return torch.bernoulli(x).to(_type(attrs, x.dtype))


@operator("Multinomial")
def multinomial(attrs: dict, x: Tensor) -> Tensor:
    """Of logarithms of probabilities, not normalised."""
    drawn = torch.multinomial(torch.softmax(x, -1), attrs.get("sample_size", 1), replacement=True)
    return drawn.to(_type(attrs, torch.int32))


# -- element by element ----------------------------------------------------------------------------


@operator("BitShift")
def shift(attrs: dict, x: Tensor, by: Tensor) -> Tensor:
    return (torch.bitwise_left_shift if attrs["direction"] == "LEFT" else torch.bitwise_right_shift)(x, by)


@operator("CastLike")
def cast_like(attrs: dict, x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


@operator("Shrink")
def shrink(attrs: dict, x: Tensor) -> Tensor:
    """Zero between -lambd and lambd, towards it by `bias` elsewhere."""
    return (nnf.softshrink if attrs.get("bias", 0.0) else nnf.hardshrink)(x, attrs.get("lambd", 0.5))


@operator("Hardmax")
def hardmax(attrs: dict, x: Tensor) -> Tensor:
    axis = attrs.get("axis", -1)
    return nnf.one_hot(x.argmax(axis), x.shape[axis]).movedim(-1, axis).to(x.dtype)


@operator("EyeLike")
def eye_like(attrs: dict, x: Tensor) -> Tensor:
    return torch.eye(*x.shape, dtype=_type(attrs, x.dtype))


# -- pooling, norms and reductions -----------------------------------------------------------------


@operator("LpPool")
def lp_pool(attrs: dict, x: Tensor) -> Tensor:
    """p-th root of the sum of p-th powers, zeros around."""
    dims, kernel = x.dim() - 2, attrs["kernel_shape"]
    if any(d != 1 for d in attrs.get("dilations", ())):
        raise NotImplementedError("LpPool with dilations")
    if dims not in (1, 2, 3):
        raise NotImplementedError(f"LpPool of {dims} axes")
    before, extra = padding_of(attrs, x, list(kernel))
    flat = extra or [p for n in reversed(before) for p in (n, n)]
    x = nnf.pad(x, flat) if any(flat) else x
    function = (nnf.lp_pool1d, nnf.lp_pool2d, nnf.lp_pool3d)[dims - 1]
    window, strides = (kernel, attrs.get("strides", [1] * dims))
    if dims == 1:
        window, strides = window[0], strides[0]
    return function(x, attrs.get("p", 2), window, strides, bool(attrs.get("ceil_mode", 0)))


@operator("GlobalLpPool")
def global_lp_pool(attrs: dict, x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, attrs.get("p", 2), dim=tuple(range(2, x.dim())), keepdim=True)


@operator("MaxUnpool")
def max_unpool(attrs: dict, x: Tensor, index: Tensor, shape: Any = None) -> Tensor:
    dims, kernel = x.dim() - 2, attrs["kernel_shape"]
    pads = attrs.get("pads", [0] * 2 * dims)
    if list(pads[:dims]) != list(pads[dims:]):
        raise NotImplementedError(f"MaxUnpool with pads {list(pads)}")
    function = (nnf.max_unpool1d, nnf.max_unpool2d, nnf.max_unpool3d)[dims - 1]
    size = None if shape is None else shape.tolist()
    return function(x, index, list(kernel), list(attrs.get("strides", [1] * dims)), list(pads[:dims]), size)


@operator("LRN")
def local_response_norm(attrs: dict, x: Tensor) -> Tensor:
    alpha, beta, bias = attrs.get("alpha", 1e-4), attrs.get("beta", 0.75), attrs.get("bias", 1.0)
    return nnf.local_response_norm(x, attrs["size"], alpha, beta, bias)


@operator("MeanVarianceNormalization")
def mean_variance_norm(attrs: dict, x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, tuple(attrs.get("axes", (0, 2, 3))), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1e-9)


@operator("Det")
def determinant(attrs: dict, x: Tensor) -> Tensor:
    return torch.linalg.det(x)


@operator("Unique")
def unique(attrs: dict, x: Tensor) -> Any:
    """How many: a question about data, which the policy answers. Where each is first stands for how often it is."""
    if attrs["outputs"] == 1:
        return torch.unique(x, dim=attrs.get("axis"))
    values, inverse, counts = torch.unique(x, return_inverse=True, return_counts=True, dim=attrs.get("axis"))
    return values, counts, inverse.reshape(-1), counts


# -- scatters, and samples of images ---------------------------------------------------------------

operator("Scatter")(scatter_elements)  # its name before opset 11


@operator("DeformConv")
def deform_conv(attrs: dict, x: Tensor, weight: Tensor, offset: Tensor, bias: Any = None, mask: Any = None) -> Tensor:
    if weight.dim() != 4:
        raise NotImplementedError(f"DeformConv of {weight.dim() - 2} axes")
    out = torch.ops.dovetail.onnx_deform_conv(x, weight, offset, mask)
    return out if bias is None else out + bias.view(-1, 1, 1)


@torch.library.custom_op("dovetail::onnx_deform_conv", mutates_args=())
def _deform_conv(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
    raise NotImplementedError("only its shape and its cost are known")


@_deform_conv.register_fake
def _(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])


# -- losses ----------------------------------------------------------------------------------------


@operator("NegativeLogLikelihoodLoss")
def nll_loss(attrs: dict, x: Tensor, target: Tensor, weight: Any = None) -> Tensor:
    return nnf.nll_loss(x, target.long(), weight, reduction=attrs.get("reduction", "mean"))


@operator("SoftmaxCrossEntropyLoss")
def cross_entropy(attrs: dict, x: Tensor, target: Tensor, weight: Any = None) -> tuple[Tensor, Tensor]:
    logarithms = torch.log_softmax(x, 1)
    return nll_loss(attrs, logarithms, target, weight), logarithms
