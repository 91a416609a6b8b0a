"""ONNX operators beyond single torch calls: recurrent layers, quantised arithmetic, scatters, detection.

Same form as `onnx_ops`; importing this module adds them to its table.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nnf

from sim.workload.trace.onnx_ops import conv, operator, torch_type


@operator("Sum", "Mean")
def total(attrs: dict, *parts: Tensor) -> Tensor:
    found = reduce(torch.add, parts)
    return found / len(parts) if attrs["op_type"] == "Mean" else found


@operator("Max", "Min")
def extreme(attrs: dict, *parts: Tensor) -> Tensor:
    return reduce(torch.maximum if attrs["op_type"] == "Max" else torch.minimum, parts)


@operator("Dropout")
def dropout(attrs: dict, x: Tensor, ratio: Any = None, training: Any = None) -> Tensor:
    return torch.ops.aten.alias(x)


@operator("Trilu")
def triangle(attrs: dict, x: Tensor, k: Any = None) -> Tensor:
    diagonal = int(k) if isinstance(k, np.ndarray) else 0
    return x.triu(diagonal) if attrs.get("upper", 1) else x.tril(diagonal)


@operator("CumSum")
def cumulative(attrs: dict, x: Tensor, axis: Any) -> Tensor:
    return x.cumsum(int(axis) if isinstance(axis, np.ndarray) else -1)


@operator("Einsum")
def einsum(attrs: dict, *parts: Tensor) -> Tensor:
    return torch.einsum(attrs["equation"], *parts)


@operator("DepthToSpace")
def depth_to_space(attrs: dict, x: Tensor) -> Tensor:
    return nnf.pixel_shuffle(x, attrs["blocksize"])


@operator("SpaceToDepth")
def space_to_depth(attrs: dict, x: Tensor) -> Tensor:
    return nnf.pixel_unshuffle(x, attrs["blocksize"])


@operator("GlobalMaxPool")
def global_max_pool(attrs: dict, x: Tensor) -> Tensor:
    return x.amax(dim=tuple(range(2, x.dim())), keepdim=True)


@operator("LpNormalization")
def lp_normalise(attrs: dict, x: Tensor) -> Tensor:
    return nnf.normalize(x, p=attrs.get("p", 2), dim=attrs.get("axis", -1))


@operator("GridSample")
def grid_sample(attrs: dict, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(attrs.get("mode", "linear"), attrs.get("mode", "bilinear"))
    return nnf.grid_sample(x, grid, mode=mode, align_corners=bool(attrs.get("align_corners", 0)))


@operator("GatherND")
def gather_nd(attrs: dict, x: Tensor, index: Tensor) -> Tensor:
    """x[index[..., 0], index[..., 1], ...] behind `batch_dims` shared axes."""
    shared, depth = attrs.get("batch_dims", 0), index.shape[-1]
    flat = x.reshape(-1, *x.shape[shared + depth :])
    rows = index[..., 0].reshape(-1)
    return flat.index_select(0, rows).reshape(*index.shape[:-1], *x.shape[shared + depth :])


@operator("ScatterND")
def scatter_nd(attrs: dict, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    places = tuple(index[..., axis] for axis in range(index.shape[-1]))
    rows = updates.reshape(*index.shape[:-1], *x.shape[index.shape[-1] :])
    return torch.index_put(x, places, rows, accumulate=attrs.get("reduction", "none") != "none")


@operator("ScatterElements")
def scatter_elements(attrs: dict, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    axis = attrs.get("axis", 0)
    if attrs.get("reduction", "none") == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_add(axis, index, updates)


@operator("OneHot")
def one_hot(attrs: dict, index: Tensor, depth: np.ndarray, values: np.ndarray) -> Tensor:
    """Of the type of `values` (off, on); the new axis of `depth` classes stands at `axis`, last if it is not given."""
    from onnx.helper import np_dtype_to_tensor_dtype

    hot = nnf.one_hot(index.to(torch.int64), int(np.atleast_1d(depth)[0])).movedim(-1, attrs.get("axis", -1))
    return hot.to(torch_type(np_dtype_to_tensor_dtype(values.dtype), "OneHot"))


@operator("QuantizeLinear", "DequantizeLinear")
def scale_and_round(attrs: dict, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    """Between real numbers and integers: a scale, a shift, a change of type. A scale is of the whole tensor, of each
    slice along `axis`, or of each block of `block_size` along it."""
    axis = attrs.get("axis", 1) % max(x.dim(), 1)
    if block := attrs.get("block_size", 0):
        factor = scale.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    else:
        shape = [-1 if i == axis and scale.numel() > 1 else 1 for i in range(x.dim())]
        factor = scale.reshape(shape) if x.dim() else scale
    if attrs["op_type"] == "DequantizeLinear":
        return x.to(scale.dtype) * factor
    return torch.clamp(torch.round(x / factor), -128, 127).to(zero.dtype if zero is not None else torch.uint8)


def _bytes(x: Tensor) -> Tensor:
    """The same bytes with a sign: arrays have a rate for int8, and none of their own for uint8."""
    return x.view(torch.int8) if x.dtype == torch.uint8 else x


@operator("MatMulInteger")
def integer_product(attrs: dict, a: Tensor, b: Tensor, *zeros: Any) -> Tensor:
    return torch.matmul(_bytes(a), _bytes(b)).to(torch.int32)


@operator("QLinearMatMul")
def quantised_product(
    attrs: dict, a: Tensor, sa: Any, za: Any, b: Tensor, sb: Any, zb: Any, s: Any, z: Tensor
) -> Tensor:
    """An array hands out its sums scaled and rounded, as any product at --precision int8."""
    return torch.matmul(_bytes(a), _bytes(b)).view(z.dtype)


@operator("QLinearConv")
def quantised_convolution(
    attrs: dict, x: Tensor, sx: Any, zx: Any, w: Tensor, sw: Any, zw: Any, s: Any, z: Tensor, bias: Any = None
) -> Tensor:
    """As QLinearMatMul. The bias has 32 bits and torch wants the product's type: a view of it in that type."""
    start = None if bias is None else bias.view(torch.int8)[:: bias.element_size()]
    return conv(attrs, _bytes(x), _bytes(w), start).view(z.dtype)


@operator("ConvInteger")
def integer_convolution(attrs: dict, x: Tensor, w: Tensor, *zeros: Any) -> Tensor:
    return conv(attrs, _bytes(x), _bytes(w)).to(torch.int32)


@operator("DynamicQuantizeLinear")
def dynamic_quantisation(attrs: dict, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Range of the tensor, then every element scaled and rounded."""
    scale = (x.amax() - x.amin()) / 255
    return torch.clamp(torch.round(x / scale), 0, 255).to(torch.uint8), scale, scale.to(torch.uint8)


@operator("NonZero")
def nonzero(attrs: dict, x: Tensor) -> Tensor:
    """How many: a question about data, which the policy answers."""
    return torch.nonzero(x).t()


@operator("Compress")
def compress(attrs: dict, x: Tensor, condition: Tensor) -> Tensor:
    """The slices along `axis` for which the condition holds: as many as the policy keeps."""
    axis = attrs.get("axis")
    flat = x.reshape(-1) if axis is None else x
    kept = torch.nonzero(condition)[:, 0]
    return flat.index_select(0 if axis is None else axis, kept)


@operator("IsInf")
def is_infinite(attrs: dict, x: Tensor) -> Tensor:
    return torch.isinf(x)


@operator("ThresholdedRelu")
def thresholded(attrs: dict, x: Tensor) -> Tensor:
    alpha = attrs.get("alpha", 1.0)
    return nnf.threshold(x, alpha, 0.0)


@operator("Attention")
def attention(attrs: dict, q: Tensor, k: Tensor, v: Tensor, mask: Any = None, *past: Any) -> tuple:
    """softmax(q k^T scale + mask) v of opset 23; [batch, length, heads x depth] or [batch, heads, length, depth]."""
    heads, kv_heads = attrs.get("q_num_heads"), attrs.get("kv_num_heads")
    flat = q.dim() == 3
    if flat:
        counts = (heads, kv_heads, kv_heads)
        q, k, v = (t.unflatten(-1, (n, -1)).transpose(1, 2) for t, n in zip((q, k, v), counts, strict=True))
    if len(past) > 1 and past[0] is not None:
        k, v = (torch.cat((old, new), 2) for old, new in zip(past[:2], (k, v), strict=True))
    shared = q.shape[1] != k.shape[1]
    causal = bool(attrs.get("is_causal", 0)) and mask is None
    out = nnf.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=shared)
    return (out.transpose(1, 2).flatten(2) if flat else out), k, v


@operator("RoiAlign")
def roi_align(attrs: dict, x: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """Cells of each box, means of ratio^2 bilinear samples; 2 x 2 where the file leaves the number to the data."""
    size = attrs.get("output_height", 1), attrs.get("output_width", 1)
    return torch.ops.dovetail.onnx_roi_align(x, boxes, *size, attrs.get("sampling_ratio", 0))


@torch.library.custom_op("dovetail::onnx_roi_align", mutates_args=())
def _roi_align(x: Tensor, boxes: Tensor, height: int, width: int, ratio: int) -> Tensor:
    raise NotImplementedError("only its shape and its cost are known")


@_roi_align.register_fake
def _(x: Tensor, boxes: Tensor, height: int, width: int, ratio: int) -> Tensor:
    return x.new_empty(boxes.shape[0], x.shape[1], height, width)


@operator("LSTM", "GRU", "RNN")
def recurrent(attrs: dict, x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, *state: Any) -> Any:
    """One layer, one or two directions; sequences count at their full length. Gates' order does not matter here."""
    kind, both = attrs["op_type"], attrs.get("direction", "forward") == "bidirectional"
    width, directions, batch = attrs["hidden_size"], w.shape[0], x.shape[1]
    if attrs.get("layout", 0):
        raise NotImplementedError(f"{kind} with layout=1: export it with the sequence as the first axis")
    weights = []
    for d in range(directions):
        weights += [w[d], r[d], *((b[d].chunk(2)) if b is not None else ())]
    start = [s if s is not None else x.new_empty(directions, batch, width) for s in (*state, None, None)[:2]]
    rest = (weights, b is not None, 1, 0.0, False, both, False)
    if kind == "LSTM":
        out, *last = torch.lstm(x, start, *rest)
    else:
        out, *last = (torch.gru if kind == "GRU" else torch.rnn_tanh)(x, start[0], *rest)
    return (out.reshape(x.shape[0], batch, directions, width).transpose(1, 2), *last)


@torch.library.custom_op("dovetail::onnx_nms", mutates_args=())
def _nms(boxes: Tensor, scores: Tensor, kept: int) -> Tensor:
    raise NotImplementedError("only its shape and its cost are known")


@_nms.register_fake
def _(boxes: Tensor, scores: Tensor, kept: int) -> Tensor:
    return boxes.new_empty((scores.shape[0] * scores.shape[1] * min(kept, boxes.shape[1]), 3), dtype=torch.int64)


@operator("NonMaxSuppression")
def nms(attrs: dict, boxes: Tensor, scores: Tensor, kept: Any = None, *thresholds: Any) -> Tensor:
    """The most that may be left: `max_output_boxes_per_class` of every class and image."""
    limit = int(np.atleast_1d(kept)[0]) if isinstance(kept, np.ndarray) else boxes.shape[1]
    return torch.ops.dovetail.onnx_nms(boxes, scores, limit)
