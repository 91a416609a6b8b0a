"""ONNX operators as torch calls on meta tensors: the recorder sees what a torch model would do.

Each function takes the node's attributes and its inputs (tensors; shapes, axes and the like as
NumPy arrays) and returns the outputs. Semantics: ONNX operator specification, opset 13 and later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as nnf
from torch.utils._python_dispatch import _disable_current_modes

from sim.errors import TraceError

Operator = Callable[..., Any]

OPERATORS: dict[str, Operator] = {}


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register a function for ONNX operators."""

    def add(function: Operator) -> Operator:
        for name in names:
            if name in OPERATORS:
                raise ValueError(f"ONNX operator {name} is registered already")
            OPERATORS[name] = function
        return function

    return add


def _list(value: np.ndarray) -> list:
    """A parameter as a list, also where the exporter left a scalar."""
    return np.atleast_1d(value).tolist()


_POINTWISE: dict[str, Operator] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Sqrt": torch.sqrt,
    "Exp": torch.exp, "Log": torch.log, "Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh,
    "Erf": torch.erf, "Neg": torch.neg, "Abs": torch.abs, "Sin": torch.sin, "Cos": torch.cos, "Floor": torch.floor,
    "Ceil": torch.ceil, "Round": torch.round, "Reciprocal": torch.reciprocal, "Not": torch.logical_not,
    "Softplus": nnf.softplus, "HardSwish": nnf.hardswish, "Mish": nnf.mish, "Equal": torch.eq, "Less": torch.lt,
    "Greater": torch.gt, "LessOrEqual": torch.le, "GreaterOrEqual": torch.ge, "And": torch.logical_and,
    "Or": torch.logical_or, "Where": torch.where, "Sign": torch.sign,
    "Selu": nnf.selu, "Celu": nnf.celu, "Softsign": nnf.softsign, "IsNaN": torch.isnan, "Tan": torch.tan,
    "Atan": torch.atan, "Sinh": torch.sinh, "Cosh": torch.cosh, "Asin": torch.asin, "Acos": torch.acos,
    "Xor": torch.logical_xor, "Mod": torch.remainder, "PRelu": torch.prelu, "MatMul": torch.matmul,
    "Identity": torch.ops.aten.alias, "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
    "BitwiseNot": torch.bitwise_not,
}  # fmt: skip


def _pointwise(name: str, function: Operator) -> None:
    @operator(name)
    def run(attrs: dict, *inputs: torch.Tensor) -> torch.Tensor:
        return function(*inputs)


for _name, _function in _POINTWISE.items():
    _pointwise(_name, _function)


@operator("Pow")
def power(attrs: dict, x: torch.Tensor, exponent: Any) -> torch.Tensor:
    """Of the type of x."""
    return torch.pow(x, exponent).to(x.dtype)


@operator("Div")
def divide(attrs: dict, a: torch.Tensor, b: Any) -> torch.Tensor:
    """Of whole numbers a whole one, rounded towards zero, as of positions that are looked up afterwards."""
    return torch.div(a, b) if a.dtype.is_floating_point else torch.div(a, b, rounding_mode="trunc")


@operator("Gelu")
def gelu(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return nnf.gelu(x, approximate=attrs.get("approximate", "none"))


@operator("LeakyRelu")
def leaky_relu(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return nnf.leaky_relu(x, attrs.get("alpha", 0.01))


@operator("Elu")
def elu(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return nnf.elu(x, attrs.get("alpha", 1.0))


@operator("HardSigmoid")
def hard_sigmoid(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return nnf.hardsigmoid(x)


@operator("Clip")
def clip(attrs: dict, x: torch.Tensor, low: Any = None, high: Any = None) -> torch.Tensor:
    if low is None and high is None:
        return torch.ops.aten.alias(x)
    kind = float if x.dtype.is_floating_point else int  # the result has the type of x
    bounds = [None if b is None else kind(0 if isinstance(b, torch.Tensor) else b) for b in (low, high)]
    return torch.clamp(x, *bounds)


@operator("Cast")
def cast(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return x.to(torch_type(attrs["to"], "Cast"))


_DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 4: torch.uint16, 5: torch.int16, 6: torch.int32, 7: torch.int64,
    9: torch.bool, 10: torch.float16, 11: torch.float64, 12: torch.uint32, 13: torch.uint64, 14: torch.complex64,
    15: torch.complex128, 16: torch.bfloat16, 17: torch.float8_e4m3fn, 18: torch.float8_e4m3fnuz,
    19: torch.float8_e5m2, 20: torch.float8_e5m2fnuz, 21: torch.uint4, 22: torch.int4,
}  # fmt: skip
"""onnx.TensorProto.DataType -> torch."""


def torch_type(number: int, where: str) -> torch.dtype:
    """The torch type of a TensorProto.DataType. Raises: TraceError: torch has none such, as of text."""
    if number not in _DTYPES:
        from onnx import TensorProto

        raise TraceError(f"{where}: elements of type {TensorProto.DataType.Name(number)} cannot be read")
    return _DTYPES[number]


def held(value: np.ndarray) -> torch.Tensor:
    """What was computed before the network runs: no op of it makes this, it is there and is read as a weight is."""
    from onnx.helper import np_dtype_to_tensor_dtype

    dtype = torch_type(np_dtype_to_tensor_dtype(value.dtype), "a value known without data")
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        return torch.empty(value.shape, dtype=dtype, device="meta")


@operator("Gemm")
def gemm(attrs: dict, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
    a = a.t() if attrs.get("transA") else a
    b = b.t() if attrs.get("transB") else b
    alpha, beta = attrs.get("alpha", 1.0), attrs.get("beta", 1.0)
    if c is None:
        return torch.mm(a, b) if alpha == 1 else torch.mm(a, b) * alpha
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


def _pad_mode(attrs: dict) -> str:
    modes = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if attrs.get("auto_pad", "NOTSET") not in modes:
        raise NotImplementedError(f"auto_pad={attrs['auto_pad']}: expected {', '.join(modes[:-1])} or {modes[-1]}")
    return attrs.get("auto_pad", "NOTSET")


def padding_of(attrs: dict, x: torch.Tensor, window: list[int]) -> tuple[list[int], list[int]]:
    """Symmetric part, and what is left over as torch.nn.functional.pad takes it."""
    dims, mode = len(window), _pad_mode(attrs)
    begin, end = [0] * dims, [0] * dims
    if mode in ("SAME_UPPER", "SAME_LOWER"):  # ceil(size / stride) results, the odd element behind or before
        strides, dilations = attrs.get("strides", [1] * dims), attrs.get("dilations", [1] * dims)
        for i, (size, k, s, d) in enumerate(zip(x.shape[2:], window, strides, dilations, strict=True)):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            small, large = total // 2, total - total // 2
            begin[i], end[i] = (small, large) if mode == "SAME_UPPER" else (large, small)
    else:
        pads = list(attrs.get("pads", [0] * 2 * dims))
        begin, end = pads[:dims], pads[dims:]
    if begin == end:
        return begin, []
    return [0] * dims, [p for pair in zip(reversed(begin), reversed(end), strict=True) for p in pair]


@operator("Conv")
def conv(attrs: dict, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    dims = weight.dim() - 2
    padding, extra = padding_of(attrs, x, list(weight.shape[2:]))
    x = nnf.pad(x, extra) if extra else x
    function = (nnf.conv1d, nnf.conv2d, nnf.conv3d)[dims - 1]
    strides, dilations = attrs.get("strides", [1] * dims), attrs.get("dilations", [1] * dims)
    return function(x, weight, bias, strides, padding, dilations, attrs.get("group", 1))


@operator("ConvTranspose")
def conv_transpose(attrs: dict, x: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
    """torch pads alike on both sides; what is cut off beyond that is cut off its result."""
    dims = weight.dim() - 2
    before, after = _cut_off(attrs, list(x.shape[2:]), list(weight.shape[2:]))
    even = [max(min(b, a), 0) for b, a in zip(before, after, strict=True)]
    strides, more = attrs.get("strides", [1] * dims), attrs.get("output_padding", [0] * dims)
    function = (nnf.conv_transpose1d, nnf.conv_transpose2d, nnf.conv_transpose3d)[dims - 1]
    out = function(x, weight, bias, strides, even, more, attrs.get("group", 1), attrs.get("dilations", [1] * dims))
    rest = [(b - e, a - e) for b, a, e in zip(before, after, even, strict=True)]
    index = [slice(b, n - a) for (b, a), n in zip(rest, out.shape[2:], strict=True)]
    return out[(slice(None), slice(None), *index)] if any(map(any, rest)) else out


def _cut_off(attrs: dict, sizes: list[int], window: list[int]) -> tuple[list[int], list[int]]:
    """What a transposed convolution cuts off each axis of its result, before and behind.

    Each axis gives (size - 1) stride + (k - 1) dilation + 1 + output_padding results, less what `pads` cut off; the
    shape may be stated instead of the pads, and SAME means size x stride of them.
    """
    dims, mode = len(window), _pad_mode(attrs)
    strides, dilations = attrs.get("strides", [1] * dims), attrs.get("dilations", [1] * dims)
    asked = attrs.get("output_shape")
    if asked is None and mode.startswith("SAME"):
        asked = [n * s for n, s in zip(sizes, strides, strict=True)]
    if asked is None:
        pads = list(attrs.get("pads", [0] * 2 * dims)) if mode == "NOTSET" else [0] * 2 * dims
        if min(pads) < 0:
            raise NotImplementedError(f"pads {pads}: expected none below 0")
        return pads[:dims], pads[dims:]
    more = attrs.get("output_padding", [0] * dims)
    whole = [
        (n - 1) * s + (k - 1) * d + 1 + o for n, s, k, d, o in zip(sizes, strides, window, dilations, more, strict=True)
    ]
    cut = [w - a for w, a in zip(whole, asked[-dims:], strict=True)]
    if min(cut) < 0:
        raise NotImplementedError(f"output_shape {list(asked)}, more than the {whole} that its inputs give")
    before = [c // 2 if mode == "SAME_UPPER" else c - c // 2 for c in cut]
    return before, [c - b for c, b in zip(cut, before, strict=True)]


@operator("MaxPool", "AveragePool")
def pool(attrs: dict, x: torch.Tensor) -> Any:
    dims, kernel = x.dim() - 2, attrs["kernel_shape"]
    padding, extra = padding_of(attrs, x, list(kernel))
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):  # torch pads by half a window at most
        padding, extra = [0] * dims, [p for n in reversed(padding) for p in (n, n)]
    x = nnf.pad(x, extra) if extra else x
    strides, ceil = attrs.get("strides", [1] * dims), bool(attrs.get("ceil_mode", 0))
    if attrs["op_type"] == "AveragePool":
        if any(d != 1 for d in attrs.get("dilations", ())):
            raise NotImplementedError("AveragePool with dilations")
        return (nnf.avg_pool1d, nnf.avg_pool2d, nnf.avg_pool3d)[dims - 1](x, kernel, strides, padding, ceil)
    dilations = attrs.get("dilations", [1] * dims)
    function = (nnf.max_pool1d, nnf.max_pool2d, nnf.max_pool3d)[dims - 1]
    return function(x, kernel, strides, padding, dilations, ceil, attrs["outputs"] > 1)


@operator("GlobalAveragePool")
def global_average_pool(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)


@operator("BatchNormalization")
def batch_norm(attrs: dict, x: torch.Tensor, scale: Any, bias: Any, mean: Any, variance: Any) -> torch.Tensor:
    eps = attrs.get("epsilon", 1e-5)
    if attrs.get("training_mode", 0):  # by the statistics of the data, as in files exported from a model that trains
        return nnf.batch_norm(x, None, None, scale, bias, training=True, eps=eps)
    return nnf.batch_norm(x, mean, variance, scale, bias, eps=eps)


@operator("LayerNormalization")
def layer_norm(attrs: dict, x: torch.Tensor, scale: Any, bias: Any = None) -> torch.Tensor:
    return nnf.layer_norm(x, x.shape[attrs.get("axis", -1) % x.dim() :], scale, bias, attrs.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def instance_norm(attrs: dict, x: torch.Tensor, scale: Any, bias: Any) -> torch.Tensor:
    return nnf.instance_norm(x, weight=scale, bias=bias, eps=attrs.get("epsilon", 1e-5))


@operator("GroupNormalization")
def group_norm(attrs: dict, x: torch.Tensor, scale: Any, bias: Any) -> torch.Tensor:
    each = x.shape[1] // scale.numel()  # channels to one scale: those of a group before opset 21
    if each > 1:
        scale, bias = (t.unsqueeze(1).expand(-1, each).reshape(-1) for t in (scale, bias))
    return nnf.group_norm(x, attrs["num_groups"], scale, bias, attrs.get("epsilon", 1e-5))


@operator("RMSNormalization")
def rms_norm(attrs: dict, x: torch.Tensor, scale: Any) -> torch.Tensor:
    return nnf.rms_norm(x, x.shape[attrs.get("axis", -1) % x.dim() :], scale, attrs.get("epsilon", 1e-5))


@operator("Softmax")
def softmax(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, attrs.get("axis", -1))


@operator("LogSoftmax")
def log_softmax(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(x, attrs.get("axis", -1))


def _product(x: torch.Tensor, dim: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    """torch multiplies along one axis at a time, or along all."""
    axes = sorted((axis % x.dim() for axis in dim), reverse=True)
    if len(axes) == x.dim():
        return x.prod().reshape([1] * x.dim() if keepdim else [])
    for axis in axes:
        x = x.prod(axis, keepdim)
    return x


_REDUCTIONS: dict[str, Operator] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin,
    "ReduceL2": torch.linalg.vector_norm, "ReduceLogSumExp": torch.logsumexp,
    "ReduceL1": lambda x, **at: torch.linalg.vector_norm(x, 1, **at),
    "ReduceSumSquare": lambda x, **at: torch.sum(x * x, **at),
    "ReduceLogSum": lambda x, **at: torch.log(torch.sum(x, **at)),
    "ReduceProd": _product,
}  # fmt: skip


@operator(*_REDUCTIONS)
def reduce(attrs: dict, x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    chosen = attrs.get("axes") if axes is None else _list(axes)
    if not chosen and attrs.get("noop_with_empty_axes"):
        return torch.ops.aten.alias(x)
    dims = tuple(chosen) if chosen else tuple(range(x.dim()))
    return _REDUCTIONS[attrs["op_type"]](x, dim=dims, keepdim=bool(attrs.get("keepdims", 1)))


@operator("ArgMax", "ArgMin")
def arg(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    function = torch.argmax if attrs["op_type"] == "ArgMax" else torch.argmin
    return function(x, attrs.get("axis", 0), bool(attrs.get("keepdims", 1)))


@operator("TopK")
def topk(attrs: dict, x: torch.Tensor, k: Any) -> Any:
    return torch.topk(x, int(k.item()), attrs.get("axis", -1), bool(attrs.get("largest", 1)))


@operator("Reshape")
def reshape(attrs: dict, x: torch.Tensor, shape: Any) -> torch.Tensor:
    sizes = [x.shape[i] if s == 0 and not attrs.get("allowzero") else s for i, s in enumerate(_list(shape))]
    return x.reshape(sizes)


@operator("Flatten")
def flatten(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    axis = attrs.get("axis", 1) % (x.dim() + 1)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


@operator("Transpose")
def transpose(attrs: dict, x: torch.Tensor) -> torch.Tensor:
    return x.permute(attrs.get("perm", tuple(reversed(range(x.dim())))))


@operator("Unsqueeze")
def unsqueeze(attrs: dict, x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    chosen = attrs["axes"] if axes is None else _list(axes)
    for axis in sorted(a % (x.dim() + len(chosen)) for a in chosen):
        x = x.unsqueeze(axis)
    return x


@operator("Squeeze")
def squeeze(attrs: dict, x: torch.Tensor, axes: Any = None) -> torch.Tensor:
    chosen = attrs.get("axes") if axes is None else _list(axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


@operator("Concat")
def concat(attrs: dict, *parts: torch.Tensor) -> torch.Tensor:
    return torch.cat(parts, attrs["axis"])


@operator("Split")
def split(attrs: dict, x: torch.Tensor, sizes: Any = None) -> Any:
    axis, given = attrs.get("axis", 0), attrs.get("split") if sizes is None else _list(sizes)
    return x.split(given, axis) if given else x.chunk(attrs["outputs"], axis)


@operator("Slice")
def slice_(attrs: dict, x: torch.Tensor, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> torch.Tensor:
    chosen = range(len(_list(starts))) if axes is None else _list(axes)
    strides = [1] * len(_list(starts)) if steps is None else _list(steps)
    index: list[slice] = [slice(None)] * x.dim()
    turned = []
    for axis, start, end, step in zip(chosen, _list(starts), _list(ends), strides, strict=True):
        index[axis] = slice(start, end, step)
        if step < 0:  # torch has no negative steps: the same elements forwards, then turned round
            taken = range(x.shape[axis])[index[axis]]
            index[axis] = slice(taken[-1], taken[0] + 1, -step) if taken else slice(0, 0)
            turned.append(axis)
    return x[tuple(index)].flip(turned) if turned else x[tuple(index)]


@operator("Gather")
def gather(attrs: dict, table: torch.Tensor, index: Any) -> torch.Tensor:
    axis = attrs.get("axis", 0)
    if isinstance(index, np.ndarray) and index.ndim == 0:
        return table.select(axis, int(index))
    index = index if isinstance(index, torch.Tensor) else held(index)
    if axis == 0 and table.dim() == 2:
        return nnf.embedding(index, table)
    axis %= table.dim()
    flat = table.index_select(axis, index.reshape(-1))
    return flat.reshape(*table.shape[:axis], *index.shape, *table.shape[axis + 1 :])


@operator("GatherElements")
def gather_elements(attrs: dict, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.gather(x, attrs.get("axis", 0), index)


@operator("Expand")
def expand(attrs: dict, x: torch.Tensor, shape: Any) -> torch.Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(_list(shape))))


@operator("Tile")
def tile(attrs: dict, x: torch.Tensor, repeats: Any) -> torch.Tensor:
    return x.repeat(_list(repeats))


@operator("Pad")
def pad(attrs: dict, x: torch.Tensor, pads: Any, value: Any = None, axes: Any = None) -> torch.Tensor:
    given = _list(pads)
    chosen = list(range(x.dim())) if axes is None else [a % x.dim() for a in _list(axes)]
    half = len(given) // 2
    amounts = {axis: (given[i], given[half + i]) for i, axis in enumerate(chosen)}
    flat = [p for axis in reversed(range(x.dim())) for p in amounts.get(axis, (0, 0))]
    return nnf.pad(x, flat)


@operator("Resize")
def resize(attrs: dict, x: torch.Tensor, roi: Any = None, scales: Any = None, sizes: Any = None) -> torch.Tensor:
    """To `sizes`, or to floor(size x scale), of all axes or of those in `axes`; the last one to three may change."""
    chosen = [a % x.dim() for a in attrs.get("axes", range(x.dim()))]
    target = list(x.shape)
    if scales is not None and len(scales):
        factors = dict(zip(chosen, _list(scales), strict=True))
        target = [int(n * factors.get(axis, 1.0)) for axis, n in enumerate(target)]
    else:
        stated = dict(zip(chosen, _list(sizes), strict=True))
        if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise NotImplementedError(f"keep_aspect_ratio_policy={attrs['keep_aspect_ratio_policy']}")
        target = [stated.get(axis, n) for axis, n in enumerate(target)]
    if x.dim() < 3 or target[:2] != list(x.shape[:2]):
        raise NotImplementedError(f"Resize of {list(x.shape)} to {target}: expected the same first two axes")
    mode = attrs.get("mode", "nearest")
    linear = ("linear", "bilinear", "trilinear")[x.dim() - 3]
    how = {"nearest": "nearest", "linear": linear, "cubic": "bicubic"}[mode]
    return nnf.interpolate(x, size=target[2:], mode=how)


@operator("Upsample")
def upsample(attrs: dict, x: torch.Tensor, scales: Any) -> torch.Tensor:
    return resize(attrs, x, None, scales)
