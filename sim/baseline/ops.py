"""The ops that can be measured alone: their parameters and the work that each must do.

Pure arithmetic; `sim.baseline.builders` makes the torch calls. Work counts operands once, at their
stored width, inputs and outputs apart: the compulsory traffic of the op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType

from sim.errors import MeasurementError, nearest
from sim.workload.precision import BITS

WINOGRAD_GAIN = 4.0
"""F(4x4, 3x3) needs 36 instead of 144 multiplications [Lavin and Gray, arXiv:1509.09308, section 4.3]."""

INT4_GROUP = 128
"""Weights that share a scale in the weight-only int4 GEMM."""

BLOCK = 64
"""Side of a block in the block-sparse GEMM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one call must do at least. `algorithm_gain` as in `sim.baseline.peaks.bound_s`."""

    macs: float
    vector_flops: float
    in_bytes: float
    out_bytes: float
    algorithm_gain: float = 1.0

    def to_dict(self) -> dict[str, float]:
        return {
            "macs": self.macs, "vector_flops": self.vector_flops, "in_bytes": self.in_bytes, "out_bytes": self.out_bytes
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OpKind:
    """An op: its parameters with defaults (None: required), precisions, and work."""

    params: Mapping[str, int | None]
    precisions: tuple[str, ...]
    work: Callable[[Mapping[str, int], str], Work]
    backends: tuple[str, ...] = ("cpu", "cuda")


FLOATS = ("fp32", "tf32", "bf16", "fp16")


def _bytes(precision: str) -> float:
    return BITS[precision] / 8


def _accumulated_bytes(precision: str) -> float:
    """Bytes per output element: integer products come out as int32, fp8 products as bf16."""
    return {"int8": 4.0, "fp8_e4m3": 2.0}.get(precision, _bytes(precision))


def _gemm(p: Mapping[str, int], precision: str) -> Work:
    batch, m, n, k = p.get("batch", 1), p["m"], p["n"], p["k"]
    return Work(
        macs=batch * m * n * k, vector_flops=0, in_bytes=batch * (m * k + n * k) * _bytes(precision),
        out_bytes=batch * m * n * _accumulated_bytes(precision),
    )  # fmt: skip


def _gemm_2to4(p: Mapping[str, int], precision: str) -> Work:
    """Half the MACs; weights are half the values plus two bits of position for each."""
    m, n, k = p["m"], p["n"], p["k"]
    weights = n * k / 2 * (_bytes(precision) + 2 / 8)
    return Work(
        macs=m * n * k / 2, vector_flops=0, in_bytes=m * k * _bytes(precision) + weights,
        out_bytes=m * n * _bytes(precision),
    )  # fmt: skip


def _gemm_int4(p: Mapping[str, int], precision: str) -> Work:
    """Weights at 4 bits with a 16-bit scale and zero per group; one multiply and one subtract per weight."""
    m, n, k = p["m"], p["n"], p["k"]
    weights = n * k / 2 + 4 * n * k / INT4_GROUP
    return Work(macs=m * n * k, vector_flops=2 * n * k, in_bytes=2 * m * k + weights, out_bytes=2 * m * n)


def _gemm_block_sparse(p: Mapping[str, int], precision: str) -> Work:
    """Only kept blocks are read and multiplied; `keep_percent` of the blocks of each block row are kept."""
    m, n, k = p["m"], p["n"], p["k"]
    kept = n // BLOCK * kept_blocks(k, p["keep_percent"]) * BLOCK * BLOCK
    element = _bytes(precision)
    return Work(
        macs=m * kept, vector_flops=0, in_bytes=(m * k + kept) * element, out_bytes=m * n * element
    )  # fmt: skip


def kept_blocks(k: int, keep_percent: int) -> int:
    """Blocks kept per block row of a weight with k columns; at least one.

    >>> kept_blocks(1024, 25)
    4
    """
    return max(1, k // BLOCK * keep_percent // 100)


def conv_output(size: int, *, kernel: int, stride: int, padding: int) -> int:
    """Output extent of a convolution without dilation."""
    return (size + 2 * padding - kernel) // stride + 1


def _conv2d(p: Mapping[str, int], precision: str) -> Work:
    height, width = (
        conv_output(p[side], kernel=p["kernel"], stride=p["stride"], padding=p["padding"])
        for side in ("height", "width")
    )
    weights = p["out_channels"] * p["in_channels"] // p["groups"] * p["kernel"] ** 2
    outputs = p["batch"] * p["out_channels"] * height * width
    read = p["batch"] * p["in_channels"] * p["height"] * p["width"]
    if p["stride"] > p["kernel"]:  # pixels that no window covers are not needed
        read = p["batch"] * p["in_channels"] * height * width * p["kernel"] ** 2
    winograd = p["kernel"] == 3 and p["stride"] == 1 and precision in FLOATS
    return Work(
        macs=outputs * weights / p["out_channels"], vector_flops=0, in_bytes=(read + weights) * _bytes(precision),
        out_bytes=outputs * _bytes(precision), algorithm_gain=WINOGRAD_GAIN if winograd else 1.0,
    )  # fmt: skip


def _layer(bare: Callable[[Mapping[str, int], str], Work]) -> Callable[[Mapping[str, int], str], Work]:
    """A layer as whole workloads run it: with int8 weights, activations outside it stay fp32."""

    def work(p: Mapping[str, int], precision: str) -> Work:
        found = bare(p, precision)
        if precision != "int8":
            return found
        wide = bare(p, "fp32")
        weights = found.macs / _outputs_per_weight(p)
        return replace(found, in_bytes=wide.in_bytes - 3 * weights, out_bytes=wide.out_bytes)

    return work


def _outputs_per_weight(p: Mapping[str, int]) -> float:
    """MACs that one weight of a linear or convolution layer takes part in."""
    if "m" in p:
        return p["m"]
    sides = (
        conv_output(p[side], kernel=p["kernel"], stride=p["stride"], padding=p["padding"])
        for side in ("height", "width")
    )
    return p["batch"] * prod(sides)


def _max_pool2d(p: Mapping[str, int], precision: str) -> Work:
    sides = [conv_output(p[side], kernel=p["kernel"], stride=p["stride"], padding=p["padding"]) for side in _SIDES]
    outputs = p["batch"] * p["channels"] * prod(sides)
    read = p["batch"] * p["channels"] * p["height"] * p["width"]
    return Work(
        macs=0, vector_flops=outputs * p["kernel"] ** 2, in_bytes=read * _bytes(precision),
        out_bytes=outputs * _bytes(precision),
    )  # fmt: skip


def _transpose(p: Mapping[str, int], precision: str) -> Work:
    size = p["batch"] * p["rows"] * p["columns"] * _bytes(precision)
    return Work(macs=0, vector_flops=0, in_bytes=size, out_bytes=size)


def _attention_prefill(p: Mapping[str, int], precision: str) -> Work:
    """Causal: query i sees keys 0..i; two products and a softmax (5 flops a score)."""
    batch, heads, length, dim = p["batch"], p["heads"], p["length"], p["head_dim"]
    scores = batch * heads * length * (length + 1) / 2
    kv = 2 * batch * p["kv_heads"] * length * dim
    q = batch * heads * length * dim
    element = _bytes(precision)
    return Work(macs=2 * scores * dim, vector_flops=5 * scores, in_bytes=(q + kv) * element, out_bytes=q * element)


def _attention_decode(p: Mapping[str, int], precision: str) -> Work:
    """One new query per sequence against `context` cached keys and values."""
    batch, heads, context, dim = p["batch"], p["heads"], p["context"], p["head_dim"]
    scores = batch * heads * context
    q = batch * heads * dim
    element = _bytes(precision)
    kv = 2 * batch * p["kv_heads"] * context * dim
    return Work(macs=2 * scores * dim, vector_flops=5 * scores, in_bytes=(q + kv) * element, out_bytes=q * element)


VECTOR_FLOPS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "copy": (1, 0), "add": (2, 1), "mul": (2, 1), "relu": (1, 1), "gelu": (1, 8), "softmax": (1, 5),
        "layer_norm": (1, 8), "rms_norm": (1, 4),
    }
)  # fmt: skip
"""Vector op -> (input tensors, flops per element as the formula is written; a transcendental counts one)."""


def _vector(name: str) -> Callable[[Mapping[str, int], str], Work]:
    inputs, flops = VECTOR_FLOPS[name]

    def work(p: Mapping[str, int], precision: str) -> Work:
        elements = p["rows"] * p["columns"]
        size = elements * _bytes(precision)
        return Work(macs=0, vector_flops=flops * elements, in_bytes=inputs * size, out_bytes=size)

    return work


def _detection(p: Mapping[str, int], precision: str) -> Work:
    """Boxes (4) and class scores are read once; 12 flops a box decode, one a score compares. Suppression depends
    on the data and is not counted: a bound, not a cost."""
    boxes, classes = p["boxes"], p["classes"]
    read = p["batch"] * boxes * (4 + classes) * 4
    flops = p["batch"] * (boxes * (classes + 12))
    return Work(macs=0, vector_flops=flops, in_bytes=read, out_bytes=0)


_SIDES = ("height", "width")
_MATRIX = {"m": None, "n": None, "k": None}
_HEADS = {"batch": 1, "heads": None, "kv_heads": None, "head_dim": 128}
_CONV = {
    "batch": 1, "in_channels": None, "out_channels": None, "height": None, "width": None, "kernel": 3, "stride": 1,
    "padding": 1, "groups": 1,
}  # fmt: skip

_POOL = {"batch": 1, "channels": None, "height": None, "width": None, "kernel": 3, "stride": 2, "padding": 1}

OP_KINDS: Mapping[str, OpKind] = MappingProxyType(
    {
        "gemm": OpKind(params=_MATRIX, precisions=(*FLOATS, "int8", "fp8_e4m3"), work=_gemm),
        "bmm": OpKind(params={"batch": None, **_MATRIX}, precisions=FLOATS, work=_gemm),
        "gemm_2to4": OpKind(params=_MATRIX, precisions=("bf16", "fp16"), work=_gemm_2to4, backends=("cuda",)),
        "gemm_int4": OpKind(params=_MATRIX, precisions=("w4a16",), work=_gemm_int4, backends=("cuda",)),
        "gemm_block_sparse": OpKind(
            params={**_MATRIX, "keep_percent": 25}, precisions=("bf16", "fp16"), work=_gemm_block_sparse,
            backends=("cuda",),
        ),
        "conv2d": OpKind(params=_CONV, precisions=(*FLOATS, "int8"), work=_conv2d),
        "attention_prefill": OpKind(params={**_HEADS, "length": None}, precisions=FLOATS, work=_attention_prefill),
        "attention_decode": OpKind(params={**_HEADS, "context": None}, precisions=FLOATS, work=_attention_decode),
        **{
            name: OpKind(params={"rows": None, "columns": None}, precisions=FLOATS, work=_vector(name))
            for name in VECTOR_FLOPS
        },
        "linear_layer": OpKind(params=_MATRIX, precisions=(*FLOATS, "int8"), work=_layer(_gemm)),
        "conv2d_layer": OpKind(params=_CONV, precisions=(*FLOATS, "int8"), work=_layer(_conv2d)),
        "max_pool2d": OpKind(params=_POOL, precisions=("fp32", "bf16", "fp16"), work=_max_pool2d),
        "transpose": OpKind(
            params={"batch": 1, "rows": None, "columns": None}, precisions=("fp32", "bf16", "fp16"), work=_transpose
        ),
        "detection_postprocess": OpKind(
            params={"batch": 1, "boxes": None, "classes": 80, "candidates": 1000}, precisions=("fp32",), work=_detection
        ),
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSpec:
    """An op with all its parameters at a precision."""

    kind: str
    params: Mapping[str, int]
    precision: str

    @property
    def work(self) -> Work:
        return OP_KINDS[self.kind].work(self.params, self.precision)


def op_spec(kind: str, params: Mapping[str, object], precision: str) -> OpSpec:
    """Check names, fill in defaults.

    Raises: MeasurementError: unknown op, parameter or precision, a missing or non-positive parameter.
    """
    if kind not in OP_KINDS:
        raise MeasurementError(
            f'op "{kind}" is unknown: expected one of {", ".join(OP_KINDS)}.{nearest(kind, OP_KINDS)}'
        )
    known = OP_KINDS[kind]
    for name in params:
        if name not in known.params:
            raise MeasurementError(
                f'{kind}: unknown parameter "{name}": expected {", ".join(known.params)}.{nearest(name, known.params)}'
            )
    filled: dict[str, int] = {}
    for name, default in known.params.items():
        value, lowest = params.get(name, default), 0 if name == "padding" else 1
        if value is None and name not in params:
            raise MeasurementError(f"{kind}: {name} is missing: expected {', '.join(known.params)}")
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise MeasurementError(f"{kind}: {name} is {value!r}, expected an integer of at least {lowest}")
        filled[name] = value
    if precision not in known.precisions:
        raise MeasurementError(
            f'{kind}: precision "{precision}" is not offered: expected one of {", ".join(known.precisions)}'
        )
    _check_divisors(kind, filled)
    return OpSpec(kind=kind, params=MappingProxyType(filled), precision=precision)


def _check_divisors(kind: str, p: Mapping[str, int]) -> None:
    """Sizes that must divide one another."""
    needs: dict[str, list[tuple[str, int]]] = {
        "conv2d": [("in_channels", p.get("groups", 1)), ("out_channels", p.get("groups", 1))],
        "conv2d_layer": [("in_channels", p.get("groups", 1)), ("out_channels", p.get("groups", 1))],
        "attention_prefill": [("heads", p.get("kv_heads", 1))],
        "attention_decode": [("heads", p.get("kv_heads", 1))],
        "gemm_int4": [("k", INT4_GROUP)],
        "gemm_block_sparse": [("k", BLOCK), ("n", BLOCK)],
    }
    for name, divisor in needs.get(kind, []):
        if p[name] % divisor:
            raise MeasurementError(f"{kind}: {name} is {p[name]}, expected a multiple of {divisor}")
