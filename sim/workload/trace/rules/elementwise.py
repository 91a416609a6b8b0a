"""Rules of element-wise ops: primitives per output element, one table.

Counts follow the formula a vector unit would run, with fused multiply-adds where the formula has
them; a scale by a constant that folds into another constant is not counted. Divisions by a Python
number count as one multiplication by its reciprocal.
"""

from __future__ import annotations

from sim.workload.graph import Primitive
from sim.workload.trace.rules.registry import Call, Movement, Vector, register_rule

ADD, MUL, FMA, COMPARE, LOGIC = Primitive.ADD, Primitive.MUL, Primitive.FMA, Primitive.COMPARE, Primitive.LOGIC
EXP, LOG, TANH, ERF, SIN = Primitive.EXP, Primitive.LOG, Primitive.TANH, Primitive.ERF, Primitive.SIN
RSQRT, RECIPROCAL, CONVERT = Primitive.RSQRT, Primitive.RECIPROCAL, Primitive.CONVERT

SIGMOID = {EXP: 1, ADD: 1, RECIPROCAL: 1}
"""1 / (1 + exp(-x))"""

ACTIVATIONS = {
    "relu": {COMPARE: 1},
    "relu6": {COMPARE: 2},
    "hardtanh": {COMPARE: 2},
    "leaky_relu": {MUL: 1, COMPARE: 1},
    "prelu": {MUL: 1, COMPARE: 1},
    "_prelu_kernel": {MUL: 1, COMPARE: 1},
    "threshold": {COMPARE: 1},
    "sigmoid": SIGMOID,
    "log_sigmoid_forward": {EXP: 1, ADD: 1, LOG: 1},
    "silu": SIGMOID | {MUL: 1},
    "hardsigmoid": {FMA: 1, COMPARE: 2},
    "hardswish": {ADD: 1, COMPARE: 2, MUL: 2},
    "elu": {EXP: 1, ADD: 1, COMPARE: 1},
    "celu": {EXP: 1, FMA: 1, COMPARE: 1},
    "selu": {EXP: 1, FMA: 1, COMPARE: 1, MUL: 1},
    "softplus": {EXP: 1, ADD: 1, LOG: 1, COMPARE: 1},
    "mish": {EXP: 1, ADD: 1, LOG: 1, TANH: 1, MUL: 1},
    "tanh": {TANH: 1},
}
"""ATen activation -> primitives per element (what `fuse_epilogues` can put behind a product)."""

GELU_ERF = {ERF: 1, MUL: 2, FMA: 1}
"""x/2 (1 + erf(x / sqrt 2))"""
GELU_TANH = {TANH: 1, MUL: 4, FMA: 2}
"""x/2 (1 + tanh(c (x + 0.044715 x^3)))"""

_TABLE = ACTIVATIONS | {
    "add": {ADD: 1},
    "sub": {ADD: 1},
    "rsub": {ADD: 1},
    "mul": {MUL: 1},
    "addcmul": {FMA: 1, MUL: 1},
    "addcdiv": {FMA: 1, RECIPROCAL: 1},
    "lerp": {ADD: 1, FMA: 1},
    "neg": {MUL: 1},
    "sign": {COMPARE: 2},
    "sgn": {COMPARE: 2},
    "reciprocal": {RECIPROCAL: 1},
    "sqrt": {RSQRT: 1},
    "rsqrt": {RSQRT: 1},
    "exp": {EXP: 1},
    "exp2": {EXP: 1},
    "expm1": {EXP: 1, ADD: 1},
    "log": {LOG: 1},
    "log2": {LOG: 1},
    "log10": {LOG: 1},
    "log1p": {LOG: 1, ADD: 1},
    "logaddexp": {EXP: 1, LOG: 1, ADD: 3, COMPARE: 1},
    "sin": {SIN: 1},
    "cos": {SIN: 1},
    "tan": {SIN: 2, RECIPROCAL: 1},
    "atan": {TANH: 1},
    "atan2": {TANH: 1, RECIPROCAL: 1, COMPARE: 2},
    "sinh": {EXP: 2, ADD: 1},
    "cosh": {EXP: 2, ADD: 1},
    "erf": {ERF: 1},
    "erfinv": {LOG: 1, FMA: 6},
    "erfc": {ERF: 1, ADD: 1},
    "special_ndtr": {ERF: 1, FMA: 1, MUL: 1},
    "lgamma": {LOG: 2, FMA: 8, RECIPROCAL: 8},  # Lanczos, eight terms
    "digamma": {LOG: 1, FMA: 6, RECIPROCAL: 6},  # recurrence up to 6, then the asymptotic series
    "i0": {EXP: 1, FMA: 9, RSQRT: 1},  # Abramowitz and Stegun 9.8.2
    "special_i0e": {FMA: 9, RSQRT: 1},
    "special_i1": {EXP: 1, FMA: 9, RSQRT: 1},  # 9.8.4
    "special_entr": {LOG: 1, MUL: 1, COMPARE: 2},
    "special_ndtri": {LOG: 1, FMA: 6},
    "special_log_ndtr": {ERF: 1, LOG: 1, FMA: 1, MUL: 1},
    "special_erfcx": {EXP: 1, ERF: 1, MUL: 2},
    "deg2rad": {MUL: 1},
    "rad2deg": {MUL: 1},
    "ldexp": {EXP: 1, MUL: 1},
    "nextafter": {LOGIC: 2},
    "sinc": {SIN: 1, RECIPROCAL: 1, MUL: 1, COMPARE: 1},
    "logit": {ADD: 1, RECIPROCAL: 1, MUL: 1, LOG: 1},
    "xlogy": {LOG: 1, MUL: 1, COMPARE: 2},
    "hypot": {MUL: 1, FMA: 1, RSQRT: 1},
    "asin": {TANH: 1, FMA: 1, RSQRT: 1},
    "acos": {TANH: 1, FMA: 1, RSQRT: 1},
    "asinh": {LOG: 1, FMA: 1, RSQRT: 1, ADD: 1},
    "acosh": {LOG: 1, FMA: 1, RSQRT: 1, ADD: 1},
    "atanh": {LOG: 1, ADD: 2, RECIPROCAL: 1, MUL: 1},
    "copysign": {LOGIC: 2},
    "heaviside": {COMPARE: 2},
    "signbit": {LOGIC: 1},
    "isneginf": {COMPARE: 1},
    "isposinf": {COMPARE: 1},
    "hardshrink": {COMPARE: 2},
    "softshrink": {COMPARE: 2, ADD: 1},
    "rrelu_with_noise": {MUL: 1, COMPARE: 1},
    "rrelu_with_noise_functional": {MUL: 1, COMPARE: 1},
    "logaddexp2": {EXP: 1, LOG: 1, ADD: 3, COMPARE: 1},
    "fake_quantize_per_tensor_affine": {MUL: 2, ADD: 2, CONVERT: 1, COMPARE: 2},
    "fake_quantize_per_channel_affine": {MUL: 2, ADD: 2, CONVERT: 1, COMPARE: 2},
    "quantize_per_tensor": {FMA: 1, CONVERT: 1, COMPARE: 2},  # by the scale's reciprocal, between two bounds
    "quantize_per_channel": {FMA: 1, CONVERT: 1, COMPARE: 2},
    "quantize_per_tensor_dynamic": {FMA: 1, CONVERT: 1, COMPARE: 4},  # after the smallest and the largest
    "dequantize": {CONVERT: 1, ADD: 1, MUL: 1},
    "square": {MUL: 1},
    "floor": {CONVERT: 1},
    "ceil": {CONVERT: 1},
    "round": {CONVERT: 1},
    "trunc": {CONVERT: 1},
    "frac": {CONVERT: 1, ADD: 1},
    "fmod": {RECIPROCAL: 1, CONVERT: 1, FMA: 1},
    "remainder": {RECIPROCAL: 1, CONVERT: 1, FMA: 1},
    "floor_divide": {RECIPROCAL: 1, CONVERT: 1},
    "maximum": {COMPARE: 1},
    "minimum": {COMPARE: 1},
    "fmax": {COMPARE: 1},
    "fmin": {COMPARE: 1},
    "clamp_min": {COMPARE: 1},
    "clamp_max": {COMPARE: 1},
    "where": {COMPARE: 1},
    "masked_fill": {COMPARE: 1},
    "nan_to_num": {COMPARE: 3},
    "isnan": {COMPARE: 1},
    "isinf": {COMPARE: 1},
    "isfinite": {COMPARE: 1},
    "tril": {COMPARE: 1},
    "triu": {COMPARE: 1},
    "polar": {SIN: 2, MUL: 2},
    "complex": {CONVERT: 1},
    "angle": {TANH: 1, RECIPROCAL: 1, COMPARE: 2},
}
_TABLE |= {name: {COMPARE: 1} for name in ("eq", "ne", "lt", "le", "gt", "ge", "equal")}
_TABLE |= {name: {LOGIC: 1} for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "logical_and")}
_TABLE |= {name: {LOGIC: 1} for name in ("logical_or", "logical_xor", "logical_not", "__and__", "__or__", "__xor__")}
_TABLE |= {name: {LOGIC: 1} for name in ("bitwise_left_shift", "bitwise_right_shift", "__lshift__", "__rshift__")}


def per_element(call: Call, primitives: dict[Primitive, int]) -> Vector:
    """`primitives` on each element of the first output, so many times for a complex one as it takes real ones."""
    count = call.out.numel() * _real_ones(call)
    return Vector({primitive: n * count for primitive, n in primitives.items()})


_MADE_COMPLEX = {"polar", "complex"}
"""Of real parts: their rows of the table count a whole element."""
_BY_PARTS = {"add", "sub", "rsub", "neg", "where", "masked_fill", "tril", "triu"}
"""On a complex element one real operation on each of its parts; so is a product with, or division by, a real factor."""


def _real_ones(call: Call) -> int:
    """Real operations that an op on an element of the result is: four on a complex one, if nothing tells it is less."""
    name = call.name.rpartition(".")[2].rstrip("_")
    if not call.out.is_complex() or name in _MADE_COMPLEX:
        return 1
    factors = [a.is_complex() if hasattr(a, "is_complex") else isinstance(a, complex) for a in call.args[:2]]
    by_real = (name in ("mul", "div") and factors == [True, False]) or (name == "mul" and factors == [False, True])
    return 2 if name in _BY_PARTS or by_real else 4


def _table_rule(name: str, primitives: dict[Primitive, int]) -> None:
    @register_rule(f"aten.{name}")
    def rule(call: Call) -> Vector:
        return per_element(call, primitives)


for _name, _primitives in _TABLE.items():
    _table_rule(_name, _primitives)


def _of_each(name: str, primitives: dict[Primitive, int]) -> None:
    @register_rule(f"aten._foreach_{name}")
    def rule(call: Call) -> Vector:
        """Lists of tensors, element by element."""
        count = sum(t.numel() for t in call.outputs)
        return Vector({primitive: n * count for primitive, n in primitives.items()})


for _name, _primitives in _TABLE.items():
    _of_each(_name, _primitives)
for _name, _primitives in {"abs": {LOGIC: 1}, "div": {RECIPROCAL: 1}, "pow": {LOG: 1, MUL: 1, EXP: 1}}.items():
    _of_each(_name, _primitives)


@register_rule("aten._foreach_copy")
def copy_each(call: Call) -> Movement:
    """The tensors of the second list are read, those of the first written."""
    return Movement(read=[*((t, 0) for t in call.args[0]), *((t, t.numel()) for t in call.args[1])])


@register_rule("aten.abs")
def absolute(call: Call) -> Vector:
    """A sign bit; of a complex element the root of two squares' sum."""
    return per_element(call, {MUL: 1, FMA: 1, RSQRT: 1} if call.args[0].is_complex() else {LOGIC: 1})


@register_rule("aten.gelu")
def gelu(call: Call) -> Vector:
    return per_element(call, GELU_TANH if call.kwargs.get("approximate") == "tanh" else GELU_ERF)


@register_rule("aten.div", "aten.true_divide")
def div(call: Call) -> Vector:
    rounded = {CONVERT: 1} if call.kwargs.get("rounding_mode") else {}
    by_tensor = hasattr(call.args[1], "dtype")
    return per_element(call, {(RECIPROCAL if by_tensor else MUL): 1} | rounded)


@register_rule("aten.pow")
def power(call: Call) -> Vector | Movement:
    """Small integer exponents are multiplications, half a root, one a copy, none ones; others exp(b log a)."""
    exponent = call.args[1]
    if isinstance(exponent, int | float):
        if exponent in (0, 1):
            return Movement(read=[(t, t.numel() * int(exponent)) for t in call.inputs])
        if exponent in (0.5, -0.5):
            return per_element(call, {RSQRT: 1})
        if exponent == -1:
            return per_element(call, {RECIPROCAL: 1})
        if exponent == int(exponent) and 1 < abs(exponent) <= 8:
            inverse = {RECIPROCAL: 1} if exponent < 0 else {}
            return per_element(
                call, {MUL: abs(int(exponent)).bit_length() + bin(abs(int(exponent))).count("1") - 2} | inverse
            )
    return per_element(call, {LOG: 1, MUL: 1, EXP: 1})


@register_rule("aten.clamp")
def clamp(call: Call) -> Vector:
    bounds = (call.arg(1, "min") is not None) + (call.arg(2, "max") is not None)
    return per_element(call, {COMPARE: bounds})


@register_rule("aten._cdist_forward")
def pairwise_distance(call: Call) -> Vector:
    """sqrt of the sum of squared differences: subtract and fma per coordinate of each pair."""
    pairs, width = call.out.numel(), call.args[0].shape[-1]
    return Vector({ADD: pairs * width, FMA: pairs * width, RSQRT: pairs})


@register_rule("aten._pdist_forward")
def distances_of_all_pairs(call: Call) -> Vector:
    pairs, width = call.out.numel(), call.args[0].shape[-1]
    return Vector({ADD: pairs * width, FMA: pairs * width, RSQRT: pairs})


@register_rule("aten.isin")
def isin(call: Call) -> Vector:
    """A search in the sorted elements: log2 of their number compares each."""
    elements, among = call.args[0], call.args[1]
    among = among.numel() if hasattr(among, "numel") else 1
    return Vector({COMPARE: elements.numel() * max(among.bit_length(), 1)})


@register_rule("aten.bucketize")
def bucketize(call: Call) -> Vector:
    """A search in n sorted boundaries, n + 1 answers: as many compares as n has binary digits."""
    return Vector({COMPARE: call.out.numel() * max(call.args[1].shape[-1].bit_length(), 1)})


@register_rule("aten._fused_moving_avg_obs_fq_helper", "aten._fused_moving_avg_obs_fq_helper_functional")
def observed_fake_quantisation(call: Call) -> Vector:
    """Of torch's quantisation-aware training: smallest and largest element, then a fake quantisation."""
    quantised = _TABLE["fake_quantize_per_tensor_affine"]
    return per_element(call, quantised | {COMPARE: quantised[COMPARE] + 2})


@register_rule("aten.nll_loss_forward", "aten.nll_loss2d_forward")
def nll_loss(call: Call) -> Vector:
    return Vector({ADD: call.args[1].numel()})


_LOSSES = {
    "mse_loss": {ADD: 1, MUL: 1},
    "smooth_l1_loss": {ADD: 2, LOGIC: 1, COMPARE: 1, MUL: 2},
    "huber_loss": {ADD: 2, LOGIC: 1, COMPARE: 1, MUL: 2},
    "binary_cross_entropy": {LOG: 2, ADD: 2, MUL: 1, FMA: 1},
    "binary_cross_entropy_with_logits": {COMPARE: 1, FMA: 1, LOGIC: 1, EXP: 1, LOG: 1, ADD: 2},
    "soft_margin_loss": {MUL: 1, EXP: 1, LOG: 1, ADD: 1},
}
"""Losses that codecs and critics tell beside their result: primitives per element, before a mean or sum of them."""


def _loss_rule(name: str, primitives: dict[Primitive, int]) -> None:
    @register_rule(f"aten.{name}")
    def rule(call: Call) -> Vector:
        count = call.args[0].numel()
        summed = count if call.out.numel() < count else 0
        counts = {primitive: n * count for primitive, n in primitives.items()}
        return Vector(counts | {ADD: counts.get(ADD, 0) + summed})


for _name, _primitives in _LOSSES.items():
    _loss_rule(_name, _primitives)


@register_rule("aten.glu")
def glu(call: Call) -> Vector:
    return per_element(call, SIGMOID | {MUL: 1})


@register_rule("aten._to_copy", "aten.to", "aten.view_dtype")
def cast(call: Call) -> Vector | Movement:
    """A change of element type converts each element; a change of layout alone moves it."""
    if call.args[0].dtype == call.out.dtype:
        return Movement()
    return per_element(call, {CONVERT: 1})


@register_rule("aten.dropout", "aten.native_dropout", "aten.bernoulli", "aten.rand_like", "aten.randn_like")
def random(call: Call) -> Vector:
    """A counter-based generator: about ten integer rounds per element (Salmon et al., SC 2011)."""
    return per_element(call, {MUL: 10, LOGIC: 10})


@register_rule(
    *("aten.randn", "aten.rand", "aten.normal", "aten.normal_functional", "aten.uniform", "aten.randint"),
    *("aten.randint_like", "aten.exponential", "aten.geometric", "aten.cauchy", "aten.log_normal"),
    *("aten.poisson", "aten._standard_gamma"),
)
def random_factory(call: Call) -> Vector:
    return per_element(call, {MUL: 10, LOGIC: 10})


_WINDOWS = {
    "hann": {MUL: 1, SIN: 1, FMA: 1},  # a - b cos(c i)
    "hamming": {MUL: 1, SIN: 1, FMA: 1},
    "blackman": {MUL: 2, SIN: 2, FMA: 2},
    "bartlett": {FMA: 1, LOGIC: 1, ADD: 1},  # 1 - |c i - 1|
    "kaiser": {EXP: 1, FMA: 9 + 2, RSQRT: 1 + 1, MUL: 2},  # c I0(b sqrt(1 - (d i - 1)^2)), I0 as above
}
"""Windows of frames that are made while the model runs: primitives per element."""


def _window_rule(name: str, primitives: dict[Primitive, int]) -> None:
    @register_rule(f"aten.{name}_window")
    def rule(call: Call) -> Vector:
        return per_element(call, primitives)


for _name, _primitives in _WINDOWS.items():
    _window_rule(_name, _primitives)


@register_rule("aten.randperm")
def random_order(call: Call) -> Vector:
    """Random keys, sorted: n log2(n) compares."""
    return per_element(call, {MUL: 10, LOGIC: 10, COMPARE: max(call.out.numel() - 1, 1).bit_length()})
