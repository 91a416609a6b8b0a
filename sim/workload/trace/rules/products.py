"""Rules of multiply-accumulates: matrix products, convolutions, grouped products."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from sim.workload.graph import Primitive
from sim.workload.trace.rules.registry import AnyTensor, Call, Grouped, Product, Vector, Window, register_rule

_BIAS = {Primitive.ADD: 1}


def gemm(a: AnyTensor, b: AnyTensor, out: AnyTensor, *, bias: AnyTensor = None, transposed_b: bool = False) -> Product:
    """out[B..., M, N] = a[B..., M, K] b[B..., K, N]; b is [N, K] when transposed."""
    m, k = a.shape[-2], a.shape[-1]
    n = b.shape[-2] if transposed_b else b.shape[-1]
    ranks = {"M": m, "N": n, "K": k}
    batch: tuple[str, ...] = ()
    if a.dim() == 3:
        if a.shape[0] != 1:
            ranks = {"B": a.shape[0]} | ranks
        batch = ("B",)
    return Product(
        ranks,
        (a, (*batch, "M", "K")),
        (b, (*batch, "N", "K") if transposed_b else (*batch, "K", "N")),
        (out, (*batch, "M", "N")),
        epilogue=_BIAS if bias is not None else {},
        extra=(bias,) if bias is not None else (),
    )


@register_rule("aten.mm", "aten.bmm", "aten._int_mm")
def mm(call: Call) -> Product:
    return gemm(call.args[0], call.args[1], call.out)


@register_rule("aten.addmm", "aten.baddbmm")
def addmm(call: Call) -> Product:
    beta, alpha = call.kwargs.get("beta", 1), call.kwargs.get("alpha", 1)
    product = gemm(call.args[1], call.args[2], call.out, bias=call.args[0] if beta != 0 else None)
    if beta in (0, 1) and alpha == 1:
        return product
    scales = (beta not in (0, 1)) + (alpha != 1)
    return Product(
        product.ranks,
        product.input,
        product.weight,
        product.output,
        epilogue={**product.epilogue, Primitive.MUL: scales},
        extra=product.extra,
    )


@register_rule("aten.addbmm")
def addbmm(call: Call) -> Product:
    """The products of a batch added up: B is a reduction rank."""
    a, b = call.args[1:3]
    ranks = {"B": a.shape[0], "M": a.shape[1], "N": b.shape[2], "K": a.shape[2]}
    parts = (a, ("B", "M", "K")), (b, ("B", "K", "N")), (call.out, ("M", "N"))
    return Product(ranks, *parts, epilogue=_BIAS, extra=(call.args[0],))


@register_rule("aten.addmv")
def addmv(call: Call) -> Product:
    bias, a, b = call.args[:3]
    ranks = {"M": a.shape[0], "K": a.shape[1]}
    return Product(ranks, (a, ("M", "K")), (b, ("K",)), (call.out, ("M",)), epilogue=_BIAS, extra=(bias,))


@register_rule("aten.addr")
def addr(call: Call) -> Vector:
    """A matrix plus an outer product."""
    return Vector({Primitive.FMA: call.out.numel()})


@register_rule("aten._scaled_mm")
def scaled_mm(call: Call) -> Product:
    """A product of 8-bit factors; each result times the two scales' product, plus the bias."""
    a, b, bias = call.args[0], call.args[1], call.arg(4, "bias")
    product = gemm(a, b, call.out, bias=bias)
    scales = tuple(t for t in (call.arg(2, "scale_a"), call.arg(3, "scale_b")) if t is not None)
    return replace(product, epilogue={**product.epilogue, Primitive.MUL: 1}, extra=(*product.extra, *scales))


@register_rule("aten._weight_int8pack_mm")
def int8_weight(call: Call) -> Product:
    """Weights of 8 bits, [N, K], a scale to each result's channel."""
    x, weight, scales = call.args
    product = gemm(x, weight, call.out, transposed_b=True)
    return replace(product, epilogue={Primitive.MUL: 1}, extra=(scales,))


@register_rule("aten._trilinear")
def bilinear(call: Call) -> Grouped:
    """torch.nn.functional.bilinear: x1[N, I] x x2[N, J] as outer products, times weight[O, I J]."""
    x1, weight, x2 = call.args[:3]
    rows, outs, width = x1.shape[0], weight.shape[0], weight.shape[1] * weight.shape[2]
    outer = x1.new_empty((rows, width))
    pairs = Vector({Primitive.MUL: outer.numel()}, inputs=(x1, x2), outputs=(outer,), kind="bilinear.outer")
    ranks = {"M": rows, "N": outs, "K": width}
    parts = (outer, ("M", "K")), (weight.reshape(outs, width), ("N", "K")), (call.out, ("M", "N"))
    return Grouped("bilinear", (pairs, Product(ranks, *parts, kind="bilinear.product")))


@register_rule("aten._euclidean_dist")
def euclidean_distances(call: Call) -> Grouped:
    """torch.cdist of many rows, as torch makes it: the product of (-2 x, |x|^2, 1) and (y, 1, |y|^2), then a root."""
    rows, (n, m) = call.args[:2], call.out.shape[-2:]
    batch = (call.out.numel() // (n * m),) if call.out.dim() > 2 else ()
    made = [one.new_empty((*batch, one.shape[-2], one.shape[-1] + 2)) for one in rows]
    work = {Primitive.MUL: rows[0].numel(), Primitive.FMA: rows[0].numel() + rows[1].numel()}
    widened = Vector(work, inputs=tuple(rows), outputs=tuple(made), kind="cdist.norms")
    product = gemm(made[0], made[1], call.out.view(*batch, n, m), transposed_b=True)
    root = {Primitive.COMPARE: 1, Primitive.RSQRT: 1}
    return Grouped("cdist", (widened, replace(product, epilogue=root, kind="cdist.product")))


@register_rule("aten.mv", "aten.dot", "aten.vdot")
def matrix_vector(call: Call) -> Product:
    a, b = call.args[:2]
    if a.dim() == 1:
        return Product({"K": a.shape[0]}, (a, ("K",)), (b, ("K",)), (call.out, ()))
    return Product({"M": a.shape[0], "K": a.shape[1]}, (a, ("M", "K")), (b, ("K",)), (call.out, ("M",)))


@register_rule("aten.linear")
def linear(call: Call) -> Product:
    """x[..., K] W[N, K]^T; the leading axes of x are one rank M where its strides allow it."""
    x, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    flat = _flattened(x)
    if flat is not None:
        return gemm(flat, weight, call.out.view(len(flat), len(weight)), bias=bias, transposed_b=True)
    names = tuple(f"M{axis}" for axis in range(x.dim() - 1))
    ranks = dict(zip(names, x.shape, strict=False)) | {"N": weight.shape[0], "K": weight.shape[1]}
    return Product(
        ranks,
        (x, (*names, "K")),
        (weight, ("N", "K")),
        (call.out, (*names, "N")),
        epilogue=_BIAS if bias is not None else {},
        extra=(bias,) if bias is not None else (),
    )


def _flattened(x: AnyTensor) -> AnyTensor | None:
    """x with all axes but the last as one, without a copy; None where the strides forbid it."""
    try:
        return x.view(prod(x.shape[:-1]), x.shape[-1])
    except RuntimeError:
        return None


@register_rule("aten.matmul")
def matmul(call: Call) -> Product:
    """Batch axes: each is its own rank, missing from the factor that broadcasts over it."""
    a, b, out = call.args[0], call.args[1], call.out
    if b.dim() == 1:
        b, out = b[:, None], out.unsqueeze(-1)
    if a.dim() == 1:
        a, out = a[None], out.unsqueeze(-2)
    if b.dim() == 2:
        return gemm(a.flatten(0, -2), b, out.flatten(0, -2))
    batch = out.shape[:-2]
    names = tuple(f"B{i}" for i in range(len(batch))) if len(batch) > 1 else ("B",)
    ranks = {n: s for n, s in zip(names, batch, strict=True) if s != 1}
    ranks |= {"M": a.shape[-2], "N": b.shape[-1], "K": a.shape[-1]}

    def spec(tensor: AnyTensor, last: tuple[str, str]) -> tuple:
        own = tensor.shape[:-2]
        return (*(n if s != 1 else None for n, s in zip(names[len(names) - len(own) :], own, strict=True)), *last)

    return Product(ranks, (a, spec(a, ("M", "K"))), (b, spec(b, ("K", "N"))), (out, spec(out, ("M", "N"))))


_SPATIAL = {1: ("Q",), 2: ("P", "Q"), 3: ("D", "P", "Q")}
_WINDOW = {1: ("S",), 2: ("R", "S"), 3: ("T", "R", "S")}


@register_rule("aten.convolution", "aten._convolution")
def convolution(call: Call) -> Product:
    x, weight, bias, stride, padding, dilation, transposed = call.args[:7]
    groups = call.args[8]
    return conv(x, weight, call.out, bias, stride, padding, dilation, groups, transposed)


@register_rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv_nd(call: Call) -> Product:
    x, weight = call.arg(0, "input"), call.arg(1, "weight")
    dims = weight.dim() - 2
    stride, padding = call.arg(3, "stride", 1), call.arg(4, "padding", 0)
    dilation, groups = call.arg(5, "dilation", 1), call.arg(6, "groups", 1)
    if isinstance(padding, str):
        dilations = _list(dilation, dims)
        same = [d * (w - 1) // 2 for d, w in zip(dilations, weight.shape[2:], strict=True)]
        padding = same if padding == "same" else 0
    return conv(x, weight, call.out, call.arg(2, "bias"), stride, padding, dilation, groups, False)


@register_rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(call: Call) -> Product:
    x, weight, bias = call.arg(0, "input"), call.arg(1, "weight"), call.arg(2, "bias")
    stride, padding = call.arg(3, "stride", 1), call.arg(4, "padding", 0)
    groups, dilation = call.arg(6, "groups", 1), call.arg(7, "dilation", 1)
    return conv(x, weight, call.out, bias, stride, padding, dilation, groups, True)


@register_rule("aten.conv_tbc")
def conv_tbc(call: Call) -> Product:
    """One axis, as (time, batch, channels); the weight is [S, C, K]."""
    x, weight, bias = call.args[:3]
    out = call.out.permute(1, 2, 0)
    return conv(x.permute(1, 2, 0), weight.permute(2, 1, 0), out, bias, 1, call.arg(3, "pad", 0), 1, 1, False)


def conv(
    x: AnyTensor,
    weight: AnyTensor,
    out: AnyTensor,
    bias: AnyTensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    transposed: bool,
) -> Product:
    """Ranks N, G, K, C, spatial outputs (D, P, Q) and window (T, R, S).

    A transposed convolution iterates over *input* positions P, Q and scatters: its output's axis
    is stride * P + dilation * R - padding, so that MACs are those really done.
    """
    dims = weight.dim() - 2
    if x.dim() == dims + 1:  # no batch axis
        x, out = x.unsqueeze(0), out.unsqueeze(0)
    stride, padding, dilation = _list(stride, dims), _list(padding, dims), _list(dilation, dims)
    k = weight.shape[1] if transposed else weight.shape[0] // groups
    c = x.shape[1] // groups
    sizes = x.shape[2:] if transposed else out.shape[2:]
    spatial, window = _SPATIAL[dims], _WINDOW[dims]
    ranks = {"N": x.shape[0], **({"G": groups} if groups > 1 else {}), "K": k, "C": c}
    ranks |= dict(zip(spatial, sizes, strict=True)) | dict(zip(window, weight.shape[2:], strict=True))

    def channels(rank: str, size: int) -> str | Window:
        return Window((("G", size), (rank, 1))) if groups > 1 else rank

    slid = tuple(
        Window(((p, s), (r, d)), -pad)
        for p, r, s, d, pad in zip(spatial, window, stride, dilation, padding, strict=True)
    )
    ins, outs = (spatial, slid) if transposed else (slid, spatial)
    first, second = (channels("C", c), "K") if transposed else (channels("K", k), "C")
    return Product(
        ranks,
        (x, ("N", channels("C", c), *ins)),
        (weight, (first, second, *window)),
        (out, ("N", channels("K", k), *outs)),
        epilogue=_BIAS if bias is not None else {},
        extra=(bias,) if bias is not None else (),
    )


def _list(value: Any, dims: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * dims if len(values) == 1 else values


@register_rule("aten._grouped_mm", "aten.grouped_mm", "transformers.grouped_mm_fallback")
def grouped_mm(call: Call) -> Product:
    """Expert products. Tokens [T, K] x weights [E, K, N] with offsets: each token meets one expert,

    so MACs are T K N whatever the split; the balanced load T / E is assumed for the shape.
    """
    a, b = call.arg(0, "self"), call.arg(1, "mat2")
    offsets = call.arg(2, "offs")
    extra = (offsets,) if offsets is not None else ()
    if a.dim() == 3 and b.dim() == 3:
        return gemm(a, b, call.out)
    if a.dim() == 2 and b.dim() == 3:
        experts, k, n = b.shape
        each = -(-a.shape[0] // experts)
        rows = Window((("B", each), ("M", 1)))
        ranks = {"B": min(experts, a.shape[0]), "M": each, "N": n, "K": k}
        return Product(ranks, (a, (rows, "K")), (b, ("B", "K", "N")), (call.out, (rows, "N")), extra=extra)
    if a.dim() == 3 and b.dim() == 2:
        experts, m, k = a.shape
        each = -(-b.shape[1] // experts)
        cols = Window((("B", each), ("N", 1)))
        ranks = {"B": experts, "M": m, "N": each, "K": k}
        return Product(ranks, (a, ("B", "M", "K")), (b, ("K", cols)), (call.out, ("M", cols)), extra=extra)
    experts = call.out.shape[0]
    each = -(-a.shape[1] // experts)
    inner = Window((("B", each), ("K", 1)))
    ranks = {"B": experts, "M": a.shape[0], "N": b.shape[1], "K": each}
    return Product(ranks, (a, ("M", inner)), (b, (inner, "N")), (call.out, ("B", "M", "N")), extra=extra)
