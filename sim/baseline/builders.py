"""Torch calls for ops: each build makes a fresh set of operands, and the function that takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sim.baseline.ops import VECTOR_FLOPS, OpSpec
from sim.errors import MeasurementError

if TYPE_CHECKING:
    import torch

Operation = tuple[Callable[..., object], tuple[object, ...]]
"""A function and its operands."""


def _dtype(precision: str) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def build_op(spec: OpSpec, device: str) -> Callable[[], object]:
    """The op on fresh random operands on `device` ("cpu" or "cuda"), as a call without arguments.

    Raises: MeasurementError: the library does not offer it on this device.
    """
    function, operands = operation(spec, device)
    return lambda: function(*operands)


def operation(spec: OpSpec, device: str) -> Operation:
    """As `build_op`, function and operands apart; on "meta" the operands take no memory."""
    builders = {
        "gemm": _gemm, "bmm": _bmm, "gemm_2to4": _gemm_2to4, "conv2d": _conv2d, "attention_prefill": _attention,
        "linear_layer": _layer, "conv2d_layer": _layer, "max_pool2d": _max_pool2d, "transpose": _transpose,
        "attention_decode": _attention, "gemm_int4": _gemm_int4, "gemm_block_sparse": _gemm_block_sparse,
        "detection_postprocess": _detection,
    }  # fmt: skip
    builder = _vector if spec.kind in VECTOR_FLOPS else builders[spec.kind]
    return builder(spec, device)


def _gemm(spec: OpSpec, device: str) -> Operation:
    """x (m x k) times the transpose of w (n x k), as a linear layer stores it.

    int8: torch._int_mm, int32 out. fp8: torch._scaled_mm with one scale per tensor, bf16 out.
    """
    import torch

    m, n, k = (spec.params[name] for name in "mnk")
    if spec.precision == "int8":
        if device == "cuda" and (m <= 16 or n % 8 or k % 8):
            raise MeasurementError(f"torch._int_mm on CUDA needs m > 16 and n, k multiples of 8: m={m}, n={n}, k={k}")
        x = torch.randint(-128, 128, (m, k), dtype=torch.int8, device=device)
        w = torch.randint(-128, 128, (n, k), dtype=torch.int8, device=device)
        return lambda x, w: torch._int_mm(x, w.t()), (x, w)
    if spec.precision == "fp8_e4m3":
        if n % 16 or k % 16:
            raise MeasurementError(f"torch._scaled_mm needs n and k multiples of 16: n={n}, k={k}")
        x = torch.randn(m, k, device=device).to(torch.float8_e4m3fn)
        w = torch.randn(n, k, device=device).to(torch.float8_e4m3fn)
        one = torch.ones((), device=device)
        return lambda x, w, s: torch._scaled_mm(x, w.t(), s, s, out_dtype=torch.bfloat16), (x, w, one)
    dtype = _dtype(spec.precision)
    x, w = torch.randn(m, k, device=device, dtype=dtype), torch.randn(n, k, device=device, dtype=dtype)
    return torch.nn.functional.linear, (x, w)


def _bmm(spec: OpSpec, device: str) -> Operation:
    import torch

    p, dtype = spec.params, _dtype(spec.precision)
    a = torch.randn(p["batch"], p["m"], p["k"], device=device, dtype=dtype)
    b = torch.randn(p["batch"], p["k"], p["n"], device=device, dtype=dtype)
    return torch.bmm, (a, b)


def _gemm_2to4(spec: OpSpec, device: str) -> Operation:
    """Two of every four weights are zero; cuSPARSELt or CUTLASS, as torch decides."""
    import torch

    m, n, k = (spec.params[name] for name in "mnk")
    dtype = _dtype(spec.precision)
    mask = torch.tensor([1, 0, 0, 1], device=device, dtype=dtype).repeat(n, k // 4)
    w = torch.sparse.to_sparse_semi_structured(torch.randn(n, k, device=device, dtype=dtype) * mask)
    x = torch.randn(m, k, device=device, dtype=dtype)
    return torch.nn.functional.linear, (x, w)


def _conv2d(spec: OpSpec, device: str) -> Operation:
    """Channels last. int8 on the CPU: torch.ops.quantized.conv2d, quint8 activations, qint8 weights per tensor."""
    import torch

    p = spec.params
    shape = (p["batch"], p["in_channels"], p["height"], p["width"])
    filters = (p["out_channels"], p["in_channels"] // p["groups"], p["kernel"], p["kernel"])
    stride, padding, groups = p["stride"], p["padding"], p["groups"]
    layout = torch.channels_last
    if spec.precision == "int8":
        if device != "cpu":
            raise MeasurementError("int8 convolution: torch offers it on the CPU only")
        x = torch.quantize_per_tensor(torch.randn(shape), 0.05, 64, torch.quint8).contiguous(memory_format=layout)
        w = torch.quantize_per_tensor(torch.randn(filters), 0.05, 0, torch.qint8)
        ones = [1, 1]
        packed = torch.ops.quantized.conv2d_prepack(w, None, [stride] * 2, [padding] * 2, ones, groups)
        return torch.ops.quantized.conv2d, (x, packed, 0.1, 64)
    dtype = _dtype(spec.precision)
    x = torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=layout)
    w = torch.randn(filters, device=device, dtype=dtype).contiguous(memory_format=layout)
    return lambda x, w: torch.nn.functional.conv2d(x, w, None, stride, padding, 1, groups), (x, w)


def _layer(spec: OpSpec, device: str) -> Operation:
    """A module of torch.nn with a contiguous input, as whole workloads run it: int8 quantised at its borders."""
    import torch

    from sim.baseline.workloads import quantised

    p = spec.params
    layer: torch.nn.Module
    shape: tuple[int, ...]
    if spec.kind == "linear_layer":
        layer, shape = torch.nn.Linear(p["k"], p["n"], bias=False, device=device), (p["m"], p["k"])
    else:
        layer = torch.nn.Conv2d(
            p["in_channels"], p["out_channels"], p["kernel"], p["stride"], p["padding"], groups=p["groups"], bias=False,
            device=device,
        )  # fmt: skip
        shape = (p["batch"], p["in_channels"], p["height"], p["width"])
    if spec.precision == "int8":
        if device != "cpu":
            raise MeasurementError("int8 layers: torch offers them on the CPU only (torch.ops.quantized)")
        return quantised(layer), (torch.randn(shape),)
    dtype = _dtype(spec.precision)
    return layer.to(dtype), (torch.randn(shape, device=device, dtype=dtype),)


def _max_pool2d(spec: OpSpec, device: str) -> Operation:
    import torch

    p = spec.params
    shape = (p["batch"], p["channels"], p["height"], p["width"])
    x = torch.randn(shape, device=device, dtype=_dtype(spec.precision))
    pool = torch.nn.functional.max_pool2d
    return lambda x: pool(x, p["kernel"], p["stride"], p["padding"]), (x,)


def _transpose(spec: OpSpec, device: str) -> Operation:
    """A copy whose result is contiguous in the other axis."""
    import torch

    p = spec.params
    x = torch.randn(p["batch"], p["rows"], p["columns"], device=device, dtype=_dtype(spec.precision))
    return lambda x: x.transpose(1, 2).contiguous(), (x,)


def _attention(spec: OpSpec, device: str) -> Operation:
    """torch scaled_dot_product_attention: causal over `length` (prefill), or one query over `context` (decode)."""
    import torch

    p, dtype = spec.params, _dtype(spec.precision)
    prefill = spec.kind == "attention_prefill"
    queries, keys = (p["length"], p["length"]) if prefill else (1, p["context"])
    q = torch.randn(p["batch"], p["heads"], queries, p["head_dim"], device=device, dtype=dtype)
    k, v = (torch.randn(p["batch"], p["kv_heads"], keys, p["head_dim"], device=device, dtype=dtype) for _ in range(2))
    grouped = p["heads"] != p["kv_heads"]
    attention = torch.nn.functional.scaled_dot_product_attention
    return lambda q, k, v: attention(q, k, v, is_causal=prefill, enable_gqa=grouped), (q, k, v)


def _vector(spec: OpSpec, device: str) -> Operation:
    import torch

    rows, columns = spec.params["rows"], spec.params["columns"]
    dtype = _dtype(spec.precision)
    x, y = (torch.randn(rows, columns, device=device, dtype=dtype) for _ in range(2))
    w = torch.ones(columns, device=device, dtype=dtype)
    functional = torch.nn.functional
    table: dict[str, Operation] = {
        "copy": (torch.clone, (x,)),
        "add": (torch.add, (x, y)),
        "mul": (torch.mul, (x, y)),
        "relu": (torch.relu, (x,)),
        "gelu": (functional.gelu, (x,)),
        "softmax": (lambda x: torch.softmax(x, -1), (x,)),
        "layer_norm": (lambda x, w: functional.layer_norm(x, (columns,), w, w), (x, w)),
        "rms_norm": (lambda x, w: functional.rms_norm(x, (columns,), w), (x, w)),
    }
    return table[spec.kind]


def _gemm_int4(spec: OpSpec, device: str) -> Operation:
    import torch

    from sim.baseline.kernels.int4_gemm import int4_gemm, quantise_int4

    m, n, k = (spec.params[name] for name in "mnk")
    packed = quantise_int4(torch.randn(n, k, device=device))
    x = torch.randn(m, k, device=device, dtype=torch.float16)
    return int4_gemm, (x, packed)


def _gemm_block_sparse(spec: OpSpec, device: str) -> Operation:
    import torch

    from sim.baseline.kernels.block_sparse_gemm import block_sparse_gemm, random_block_sparse

    p, dtype = spec.params, _dtype(spec.precision)
    weight = random_block_sparse(p["n"], p["k"], keep_percent=p["keep_percent"], dtype=dtype, device=device)
    x = torch.randn(p["m"], p["k"], device=device, dtype=dtype)
    return block_sparse_gemm, (x, weight)


def _detection(spec: OpSpec, device: str) -> Operation:
    from sim.baseline.kernels.detection import Predictions, detection_postprocess, random_predictions

    p = spec.params
    predictions = random_predictions(p["batch"], p["boxes"], p["classes"], device=device, seed=0)
    return lambda *parts: detection_postprocess(Predictions(*parts), candidates=p["candidates"]), tuple(predictions)
