"""Rules of gradients that a model takes while it runs, as potentials do whose forces are an energy's gradient."""

from __future__ import annotations

from math import prod

from sim.workload.graph import Primitive
from sim.workload.trace.rules.elementwise import SIGMOID, per_element
from sim.workload.trace.rules.products import conv
from sim.workload.trace.rules.reductions import merged
from sim.workload.trace.rules.registry import AnyTensor, Call, Grouped, Movement, Product, Vector, Window, register_rule

ADD, MUL, FMA, COMPARE = Primitive.ADD, Primitive.MUL, Primitive.FMA, Primitive.COMPARE
EXP, TANH, ERF, RECIPROCAL = Primitive.EXP, Primitive.TANH, Primitive.ERF, Primitive.RECIPROCAL

_ACTIVATIONS = {
    "tanh": {FMA: 1, MUL: 1},  # g (1 - y^2)
    "sigmoid": {FMA: 1, MUL: 1},  # g (y - y^2)
    "silu": {EXP: 1, ADD: 2, RECIPROCAL: 1, FMA: 1, MUL: 2},  # g s (1 + x (1 - s))
    "softplus": SIGMOID | {MUL: 1, COMPARE: 1},
    "log_sigmoid": SIGMOID | {MUL: 1},
    "threshold": {COMPARE: 1},
    "leaky_relu": {MUL: 1, COMPARE: 1},
    "elu": {EXP: 1, MUL: 2, COMPARE: 1},
    "hardtanh": {COMPARE: 2},
    "hardsigmoid": {COMPARE: 2, MUL: 1},
    "hardswish": {COMPARE: 2, FMA: 1, MUL: 1},
}
"""Activation -> primitives per element of its gradient, from the activation's result where it is kept."""


def _activation_rule(name: str, primitives: dict[Primitive, int]) -> None:
    @register_rule(f"aten.{name}_backward")
    def rule(call: Call) -> Vector:
        return per_element(call, primitives)


for _name, _primitives in _ACTIVATIONS.items():
    _activation_rule(_name, _primitives)


@register_rule("aten.gelu_backward")
def gelu(call: Call) -> Vector:
    """g (cdf(x) + x pdf(x)); of the form with tanh the derivative of its argument is a polynomial."""
    by_tanh = call.kwargs.get("approximate") == "tanh"
    return per_element(call, {TANH: 1, MUL: 5, FMA: 5} if by_tanh else {ERF: 1, EXP: 1, MUL: 5, FMA: 2})


@register_rule("aten._softmax_backward_data")
def softmax(call: Call) -> Vector:
    """y (g - sum g y)"""
    return Vector({FMA: call.out.numel(), ADD: call.out.numel(), MUL: call.out.numel()}, passes=2)


@register_rule("aten._log_softmax_backward_data")
def log_softmax(call: Call) -> Vector:
    """g - exp(y) sum g"""
    return Vector({ADD: call.out.numel(), EXP: call.out.numel(), FMA: call.out.numel()}, passes=2)


@register_rule("aten.native_layer_norm_backward")
def layer_norm(call: Call) -> Vector:
    """With h the normalised input and v = g w: two sums (of v and of v h), then rstd (v - mean v - h mean(v h))."""
    return Vector({primitive: n * call.args[1].numel() for primitive, n in {ADD: 3, MUL: 3, FMA: 2}.items()}, passes=2)


@register_rule("aten._cdist_backward")
def distances(call: Call) -> Vector:
    """Of each pair g / distance, times the difference of each coordinate, added up."""
    pairs, width = call.args[0].numel(), call.out.shape[-1]
    return Vector(merged(({ADD: 1, FMA: 1}, pairs * width), ({RECIPROCAL: 1, MUL: 1}, pairs)))


@register_rule("aten.slice_backward", "aten.select_backward", "aten.diagonal_backward")
def part(call: Call) -> Movement:
    """Zeros, with the gradient of a part in its place."""
    return Movement()


@register_rule("aten.convolution_backward")
def convolution(call: Call) -> Product | Grouped:
    """As many products as forwards for each gradient that is asked for: the input's is the other kind of convolution of
    what comes back; the weight's a product with patches; the bias's a sum."""
    back, x, weight, _, stride, padding, dilation, transposed, _, groups, asked = call.args
    made = iter(call.outputs)
    works: list[Product | Vector] = []
    if asked[0]:
        works.append(conv(back, weight, next(made), None, stride, padding, dilation, groups, not transposed))
    if asked[1]:
        slid, placed = (back, x) if transposed else (x, back)
        works += _weight_gradient(slid, placed, next(made), groups)
    if asked[2]:
        works.append(Vector({ADD: back.numel()}, inputs=(back,), outputs=(next(made),)))
    if len(works) == 1 and isinstance(works[0], Product):
        return works[0]
    return Grouped("convolution_gradient", tuple(works))


def _weight_gradient(slid: AnyTensor, placed: AnyTensor, out: AnyTensor, groups: int) -> tuple[Vector, Product]:
    """Patches of the tensor that the window slides over, times the one that has an element for each place."""
    depth, rows = prod(out.shape[1:]), out.shape[0] // groups
    patches = slid.new_empty(placed.shape[0], groups * depth, *placed.shape[2:])
    places = tuple(f"P{axis}" for axis in range(out.dim() - 2))
    k, c = (Window((("G", size), (rank, 1))) if groups > 1 else rank for rank, size in (("M", rows), ("N", depth)))
    ranks = {"B": placed.shape[0], "G": groups, "M": rows, "N": depth} | dict(
        zip(places, placed.shape[2:], strict=True)
    )
    product = Product(
        {rank: size for rank, size in ranks.items() if size != 1 or rank in ("M", "N")},
        (placed, ("B", k, *places)),
        (patches, ("B", c, *places)),
        (out.view(out.shape[0], depth), (k, "N")),
    )
    return Vector({Primitive.SHUFFLE: patches.numel()}, inputs=(slid,), outputs=(patches,)), product
