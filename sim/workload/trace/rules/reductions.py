"""Rules of reductions, softmax, norms, scans and pooling."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from sim.workload.graph import Primitive
from sim.workload.trace.rules.registry import AnyTensor, Call, Grouped, Movement, Product, Vector, Window, register_rule

ADD, MUL, FMA, COMPARE, LOGIC = Primitive.ADD, Primitive.MUL, Primitive.FMA, Primitive.COMPARE, Primitive.LOGIC
EXP, LOG, RSQRT, RECIPROCAL, CONVERT = (
    Primitive.EXP,
    Primitive.LOG,
    Primitive.RSQRT,
    Primitive.RECIPROCAL,
    Primitive.CONVERT,
)


def _reduction(names: tuple[str, ...], per_input: dict[Primitive, int], per_output: dict[Primitive, int]) -> None:
    @register_rule(*(f"aten.{name}" for name in names))
    def rule(call: Call) -> Vector:
        n_in, n_out = (t.numel() * (2 if t.is_complex() else 1) for t in (call.inputs[0], call.out))
        return Vector(merged((per_input, n_in), (per_output, n_out)))


def merged(*parts: tuple[dict[Primitive, int], int]) -> dict[Primitive, int]:
    """Sum of primitive counts, each times its number of elements."""
    total: dict[Primitive, int] = {}
    for primitives, count in parts:
        for primitive, n in primitives.items():
            total[primitive] = total.get(primitive, 0) + n * count
    return total


_reduction(("sum", "nansum"), {ADD: 1}, {})
_reduction(("mean",), {ADD: 1}, {MUL: 1})
_reduction(("prod",), {MUL: 1}, {})
_reduction(
    ("amax", "amin", "max", "min", "argmax", "argmin", "aminmax", "median", "nanmedian", "mode"), {COMPARE: 1}, {}
)
_reduction(("any", "all", "count_nonzero", "_is_all_true", "_is_any_true"), {LOGIC: 1}, {})
_reduction(("var", "std", "var_mean", "std_mean"), {ADD: 1, FMA: 1}, {MUL: 2, RSQRT: 1})
_reduction(("norm", "linalg_vector_norm"), {FMA: 1}, {RSQRT: 1})
_reduction(("dist",), {ADD: 1, FMA: 1}, {RSQRT: 1})
_reduction(("segment_reduce",), {ADD: 1}, {})
_reduction(("kthvalue",), {COMPARE: 3}, {})  # quickselect: between 2 and 3.4 an element (Knuth, vol. 3, 5.2.2)
_reduction(("renorm",), {FMA: 1, MUL: 1}, {})
_reduction(("multinomial",), {ADD: 1, MUL: 1, COMPARE: 1}, {MUL: 10, Primitive.LOGIC: 10})
_reduction(("logsumexp",), {COMPARE: 1, EXP: 1, ADD: 2}, {LOG: 1, ADD: 1})
_reduction(("cumsum",), {ADD: 1}, {})
_reduction(("cumprod",), {MUL: 1}, {})
_reduction(("cummax", "cummin"), {COMPARE: 1}, {})
_reduction(("logcumsumexp",), {COMPARE: 1, EXP: 2, LOG: 1, ADD: 2}, {})


def softmax_primitives(elements: int, rows: int) -> dict[Primitive, int]:
    """max, x - max, exp, sum, times the reciprocal of the sum."""
    return merged(({COMPARE: 1, ADD: 2, EXP: 1, MUL: 1}, elements), ({RECIPROCAL: 1}, rows))


@register_rule("aten._softmax", "aten.softmax", "aten._safe_softmax")
def softmax(call: Call) -> Vector:
    return Vector(softmax_primitives(call.out.numel(), _rows(call.out, call.arg(1, "dim"))), passes=2)


@register_rule("aten._log_softmax", "aten.log_softmax")
def log_softmax(call: Call) -> Vector:
    """max, x - max, exp, sum, minus the log of the sum."""
    elements, rows = call.out.numel(), _rows(call.out, call.arg(1, "dim"))
    return Vector(merged(({COMPARE: 1, ADD: 3, EXP: 1}, elements), ({LOG: 1}, rows)), passes=2)


def _rows(tensor: AnyTensor, dim: int) -> int:
    return tensor.numel() // max(tensor.shape[dim], 1) if tensor.dim() else 1


@register_rule("aten.native_layer_norm", "aten.layer_norm")
def layer_norm(call: Call) -> Vector:
    """Mean and variance (add, fma), then (x - mean) * rstd and the affine part."""
    x = call.args[0]
    rows = x.numel() // prod(call.arg(1, "normalized_shape"))
    return _normalised(x, rows, affine=call.arg(2, "weight") is not None)


@register_rule("aten.native_group_norm")
def native_group_norm(call: Call) -> Vector:
    x, batch, groups = call.args[0], call.args[3], call.args[6]
    return _normalised(x, batch * groups, affine=call.args[1] is not None)


@register_rule("aten.group_norm")
def group_norm(call: Call) -> Vector:
    x = call.args[0]
    return _normalised(x, x.shape[0] * call.args[1], affine=call.arg(2, "weight") is not None)


@register_rule("aten.instance_norm")
def instance_norm(call: Call) -> Vector:
    x = call.args[0]
    if not call.arg(5, "use_input_stats", True):  # by running statistics: a batch norm
        return _by_running_statistics(x, kind="aten.batch_norm")
    return _normalised(x, x.shape[0] * x.shape[1], affine=call.args[1] is not None)


def _normalised(x: AnyTensor, rows: int, *, affine: bool) -> Vector:
    per_element = {ADD: 2, FMA: 2 if affine else 1, MUL: 1}
    return Vector(merged((per_element, x.numel()), ({MUL: 2, ADD: 1, RSQRT: 1}, rows)), passes=2)


@register_rule("aten._weight_norm_interface", "aten._weight_norm")
def weight_norm(call: Call) -> Vector:
    """v g / |v|, norms over all axes but one (Salimans and Kingma, NeurIPS 2016)."""
    v, g = call.args[:2]
    return Vector(merged(({FMA: 1, MUL: 1}, v.numel()), ({RSQRT: 1, MUL: 1}, g.numel())), passes=2)


@register_rule("aten.rms_norm", "aten._fused_rms_norm")
def rms_norm(call: Call) -> Vector:
    """Sum of squares (fma), then x * rstd * weight."""
    x = call.args[0]
    rows = x.numel() // prod(call.arg(1, "normalized_shape"))
    muls = 2 if call.arg(2, "weight") is not None else 1
    return Vector(merged(({FMA: 1, MUL: muls}, x.numel()), ({FMA: 1, RSQRT: 1}, rows)), passes=2)


@register_rule(
    "aten.native_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training",
    "aten.batch_norm",
    "aten.cudnn_batch_norm",
    "aten._batch_norm_no_update",
)
def batch_norm(call: Call) -> Vector:
    """Inference: one fma an element. Where the statistics are those of the data, as of a module that keeps none (torch
    makes an instance norm so, each image's channels in a row), it is a norm as any other, and folds into no product."""
    x = call.args[0]
    if not _of_data(call):
        return _by_running_statistics(x)
    return replace(_normalised(x, x.shape[1], affine=call.args[1] is not None), kind="batch_statistics.norm")


def _of_data(call: Call) -> bool:
    """The flag `training`: behind the running statistics, or in their place where the form of the op has none."""
    if call.name.endswith(("_no_training", "_no_update")):
        return False
    flags = [value for value in call.args[3:6] if isinstance(value, bool)]
    return flags[0] if flags else bool(call.kwargs.get("training", False))


def _by_running_statistics(x: AnyTensor, kind: str = "") -> Vector:
    """One fma an element; scale and shift per channel are made of the running statistics."""
    return Vector(merged(({FMA: 1}, x.numel()), ({ADD: 1, RSQRT: 1, MUL: 1, FMA: 1}, x.shape[1])), kind=kind)


@register_rule(
    "aten.max_pool2d_with_indices",
    "aten.max_pool3d_with_indices",
    "aten.max_pool1d",
    "aten.max_pool2d",
    "aten.fractional_max_pool2d",
    "aten.fractional_max_pool3d",
)
def max_pool(call: Call) -> Vector:
    return _windowed(call, {COMPARE: 1}, {})


@register_rule("aten.avg_pool2d", "aten.avg_pool3d", "aten.avg_pool1d")
def avg_pool(call: Call) -> Vector:
    return _windowed(call, {ADD: 1}, {MUL: 1})


def _windowed(call: Call, per_window: dict[Primitive, int], per_output: dict[Primitive, int]) -> Vector:
    kernel = call.arg(1, "kernel_size")
    dims = 1 if call.name.endswith("1d") else 3 if "pool3d" in call.name else 2
    size = prod(kernel) if isinstance(kernel, list | tuple) and len(kernel) > 1 else _scalar(kernel) ** dims
    return Vector(merged((per_window, call.out.numel() * size), (per_output, call.out.numel())))


def _scalar(value: int | list[int] | tuple[int, ...]) -> int:
    return value[0] if isinstance(value, list | tuple) else value


@register_rule("aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d", "aten.adaptive_avg_pool2d")
def adaptive_avg_pool(call: Call) -> Vector:
    """Windows cover the input once (sizes that divide) or a little more: counted once."""
    return Vector(merged(({ADD: 1}, call.args[0].numel()), ({MUL: 1}, call.out.numel())))


@register_rule("aten.adaptive_avg_pool1d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d")
def adaptive_pool(call: Call) -> Vector:
    return Vector({(ADD if "avg" in call.name else COMPARE): call.args[0].numel()})


def _upsample(name: str, taps: int) -> None:
    @register_rule(f"aten.{name}")
    def rule(call: Call) -> Vector:
        """`taps` multiply-adds an output element; weights come from two adds and a convert a row."""
        n = call.out.numel()
        work = {FMA: taps} if taps else {Primitive.SHUFFLE: 1}
        return Vector(merged((work, n), ({FMA: 1, CONVERT: 1}, sum(call.out.shape[2:]))))


for _name, _taps in {
    "upsample_nearest1d": 0,
    "upsample_nearest2d": 0,
    "upsample_nearest3d": 0,
    "_upsample_nearest_exact1d": 0,
    "_upsample_nearest_exact2d": 0,
    "_upsample_nearest_exact3d": 0,
    "upsample_linear1d": 2,
    "upsample_bilinear2d": 4,
    "upsample_bicubic2d": 16,
    "upsample_trilinear3d": 8,
}.items():
    _upsample(_name, _taps)


def _antialiased(name: str, width: int) -> None:
    @register_rule(f"aten.{name}")
    def rule(call: Call) -> Vector:
        """Along the rows, then along the columns: `width` taps where an axis grows; where it shrinks, the filter is as
        many times wider, so that all of the input is read. A weight of each tap and element of an axis."""
        (height, columns), (rows, wide) = call.args[0].shape[-2:], call.out.shape[-2:]
        down, across = (max(width, -(-width * n // m)) for n, m in ((height, rows), (columns, wide)))
        taps = call.out.numel() // max(rows * wide, 1) * wide * (height * across + rows * down)
        return Vector({FMA: taps + rows * down + wide * across, CONVERT: rows + wide})


_antialiased("_upsample_bilinear2d_aa", 2)
_antialiased("_upsample_bicubic2d_aa", 4)


@register_rule("aten.grid_sampler_2d", "aten.grid_sampler_3d", "aten.grid_sampler")
def grid_sampler(call: Call) -> Vector | Movement:
    """Bilinear or trilinear: 2^d gathered taps an output element, addresses and weights once a point.

    Nearest (mode 1) gathers one tap, bicubic (mode 2) 4^d.
    """
    axes = call.args[0].dim() - 2
    mode = call.arg(2, "interpolation_mode", 0)
    taps = {0: 2, 1: 1, 2: 4}[mode] ** axes
    n = call.out.numel()
    points = n // max(call.out.shape[1], 1)
    place = {FMA: axes, CONVERT: axes, COMPARE: 4 * axes, MUL: taps, ADD: 2 * axes}
    return _sampled(call, merged(({FMA: taps, Primitive.SHUFFLE: taps}, n), (place, points)), taps * n)


def _sampled(call: Call, work: dict[Primitive, int], taps: int) -> Vector | Movement:
    """Of a map with more elements than there are taps (a point looked up in each of many maps) only those are read."""
    image, *others = call.inputs
    if taps >= image.numel():
        return Vector(work)
    return Movement(read=[(image, taps), *((t, t.numel()) for t in others)], primitives=work)


@register_rule("torchvision.deform_conv2d", "dovetail.deform_conv2d", "dovetail.onnx_deform_conv")
def deform_conv(call: Call) -> Grouped:
    """Deformable convolution (Dai et al., ICCV 2017; Zhu et al., CVPR 2019): sampled patches, then a product.

    Arguments as torchvision's, of which the last says whether the mask is used, or as ONNX's. Patches: bilinear, four
    taps each, times the mask; a point's address, bounds and weights once a group of offsets.
    """
    x, weight, offset = call.args[:3]
    n, k, (p, q) = x.shape[0], weight.shape[0], call.out.shape[2:]
    window = prod(weight.shape[2:])
    patches = x.new_empty((n, x.shape[1] * window, p * q))
    depth = weight.shape[1] * window
    groups = x.shape[1] // weight.shape[1]
    masked = call.args[3] is not None if call.name.startswith("dovetail.onnx") else call.arg(13, "use_mask", False)
    samples = Vector(
        merged(
            ({FMA: 4, Primitive.SHUFFLE: 4}, patches.numel()),
            ({MUL: 1} if masked else {}, patches.numel()),
            ({FMA: 2, CONVERT: 2, COMPARE: 8, MUL: 4, ADD: 4}, offset.numel() // 2),
        ),
        inputs=(x, *call.inputs[2:]),
        outputs=(patches,),
        kind="deform.sample",
    )
    each = {name: size for name, size in (("B", n), ("G", groups)) if size != 1}
    rows, cols = (
        (Window((("G", size), (rank, 1))) if groups > 1 else rank) for rank, size in (("M", k // groups), ("K", depth))
    )
    product = Product(
        {**each, "M": k // groups, "N": p * q, "K": depth},
        (patches, ("B" if n != 1 else None, cols, "N")),
        (weight.view(k, depth), (rows, "K")),
        (call.out.view(n, k, p * q), ("B" if n != 1 else None, rows, "N")),
        kind="deform.product",
    )
    return Grouped("deformable", (samples, product))


@register_rule("torchvision.roi_align", "torchvision.ps_roi_align", "dovetail.onnx_roi_align")
def roi_align(call: Call) -> Vector | Movement:
    """Mean of ratio^2 bilinear samples a cell (He et al., "Mask R-CNN", ICCV 2017): four taps each.

    Without a stated ratio the op takes as many as the region is large; 2 is assumed, as detectors state.
    """
    ratio = call.args[4] if call.name.startswith("dovetail") else call.arg(5, "sampling_ratio", -1)
    samples = (ratio if ratio > 0 else 2) ** 2
    n, cells = call.out.numel(), call.out.numel() // max(call.out.shape[1], 1)
    place = {FMA: 2, CONVERT: 2, COMPARE: 8, MUL: 4, ADD: 4}
    work = merged(({FMA: 4 * samples, Primitive.SHUFFLE: 4 * samples, MUL: 1}, n), (place, samples * cells))
    return _sampled(call, work, 4 * samples * n)


@register_rule("torchvision.roi_pool", "torchvision.ps_roi_pool")
def roi_pool(call: Call) -> Vector:
    """The largest (or mean) of a cell's pixels; how many they are depends on the boxes: 2 x 2 assumed."""
    return Vector({COMPARE if call.name.endswith("n.roi_pool") else ADD: 4 * call.out.numel()})


@register_rule("aten.affine_grid_generator")
def affine_grid(call: Call) -> Vector:
    """A small matrix times each grid point: as many multiply-adds a coordinate as there are coordinates."""
    return Vector({FMA: call.out.numel() * call.out.shape[-1]})


@register_rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def fft(call: Call) -> Vector:
    """5 n log2 n real operations a transform (Cooley and Tukey, 1965), halved for real data; as fma."""
    x, dims = call.args[0], call.args[1]
    wide = x if call.name.endswith("r2c") else call.out
    size = prod(wide.shape[d] for d in dims)
    halved = 1 if call.name.endswith("c2c") else 2
    return Vector({FMA: 5 * wide.numel() * max(size - 1, 1).bit_length() // (2 * halved)})
