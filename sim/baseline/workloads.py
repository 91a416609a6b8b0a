"""Whole workloads as torch calls: built on the device, cast or quantised, their work counted on meta."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sim.baseline.ops import WINOGRAD_GAIN, Work
from sim.errors import MeasurementError

if TYPE_CHECKING:
    import torch

CUDA_METHOD = "images and filters channels last"

INT8_METHOD = (
    "int8: linear and convolution layers with qint8 weights per tensor and quint8 activations (torch.ops.quantized, "
    "engine x86), quantised and dequantised at each layer's borders, the rest in fp32"
)

ACTIVATION_SCALE = 0.05
"""Static activation scale of the int8 layers, zero point 64. Speed does not depend on it; accuracy is not measured."""


def resolve_knobs(name: str, knobs: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """(short name, all knobs with their defaults). Raises: WorkloadError: an unknown name or knob."""
    from sim.workload.load import Workload

    workload = Workload(name, dict(knobs))
    return workload.label, dict(workload.knobs)


def build_pair(
    name: str, knobs: Mapping[str, object], device: str
) -> tuple[torch.nn.Module, tuple[object, ...], dict[str, object]]:
    """(module, positional, keyword inputs) of a workload by name or path, made on `device`."""
    from sim.workload.load import Workload
    from sim.workload.trace.run import arguments

    module, inputs = Workload(name, dict(knobs)).build(device=device)
    return module, *arguments(inputs)


def workload_work(name: str, knobs: Mapping[str, object], precision: str) -> Work | None:
    """MACs and compulsory bytes, from a run on meta; None when the model does not run there.

    MACs by torch's FlopCounterMode, which does not know every op, and weight bytes without embedding
    tables: both may be too low, so that they serve as a bound. Mixtures of experts read fewer weights
    than they have: no bytes are counted for modules of which a class name contains "Expert" or "MoE".
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from sim.workload.precision import BITS, parse_precision

    try:
        # the counter hooks into autograd, which a point's inference mode would switch off
        with torch.inference_mode(False), torch.no_grad():
            module, args, kwargs = build_pair(name, knobs, "meta")
            module = module.eval()
            counter = FlopCounterMode(display=False)
            with counter:
                module(*args, **kwargs)
    except Exception:
        return None
    kinds = [type(m) for m in module.modules()]
    if any("expert" in kind.__name__.lower() or "moe" in kind.__name__.lower() for kind in kinds):
        weights = 0
    else:
        tables = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
        used = {id(p): p.numel() for p in module.parameters() if id(p) not in tables}
        weights = sum(used.values())
    convolves = any(issubclass(kind, torch.nn.Conv2d) for kind in kinds)
    return Work(
        macs=counter.get_total_flops() / 2, vector_flops=0, out_bytes=0,
        in_bytes=weights * BITS[parse_precision(precision).weight] / 8,
        algorithm_gain=WINOGRAD_GAIN if convolves else 1.0,
    )  # fmt: skip


def parameter_bytes(name: str, knobs: Mapping[str, object]) -> int:
    """fp32 bytes that building the workload takes, without building it."""

    module, _, _ = build_pair(name, knobs, "meta")
    return sum(p.numel() * p.element_size() for p in [*module.parameters(), *module.buffers()])


def _map_tensors(function: Callable, tree: Any) -> Any:
    """Apply to every tensor of nested tuples, lists, dicts; the rest is kept."""
    from torch.utils import _pytree

    return _pytree.tree_map_only(_tensor_type(), function, tree)


def _ordinary(tensor):
    """The tensor, or normal random numbers where it holds what nobody would feed a model: an uninitialised
    tensor may hold subnormal numbers, on which a CPU is many times slower, or not-a-numbers."""
    import torch

    if not tensor.is_floating_point() or tensor.numel() == 0:
        return tensor
    size = tensor.abs()
    tiny = (size > 0) & (size < torch.finfo(tensor.dtype).tiny)
    usual = bool(torch.isfinite(tensor).all()) and not bool(tiny.any()) and 0 < float(size.max()) < 1e6
    return tensor if usual else torch.randn_like(tensor)


def _as_libraries_like(module: torch.nn.Module, args: tuple[object, ...]) -> tuple[object, ...]:
    """Images and filters channels last, the layout that tensor cores take [NVIDIA, Convolutional Layers User's Guide];
    weights of recurrent layers in one piece, as cuDNN wants them. Returns the inputs so."""
    import torch

    convolves = False
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.to(memory_format=torch.channels_last)
            convolves = True
        elif isinstance(layer, torch.nn.RNNBase):
            layer.flatten_parameters()

    def turned(value: object) -> object:
        image = isinstance(value, torch.Tensor) and value.dim() == 4
        return value.contiguous(memory_format=torch.channels_last) if image else value  # type: ignore[attr-defined]

    return tuple(map(turned, args)) if convolves else args


def _tensor_type() -> type:
    import torch

    return torch.Tensor


def build_workload(
    name: str, knobs: Mapping[str, object], *, precision: str, device: str, compiled: bool, free_bytes: int
) -> Callable[[], object]:
    """The workload on `device` at `precision` as a call without arguments. Raises: as `build_module`."""
    import torch

    module, args, kwargs = build_module(name, knobs, precision=precision, device=device, free_bytes=free_bytes)
    run = torch.compile(module) if compiled else module
    return lambda: run(*args, **kwargs)


def build_module(
    name: str, knobs: Mapping[str, object], *, precision: str, device: str, free_bytes: int
) -> tuple[torch.nn.Module, tuple[object, ...], dict[str, object]]:
    """(module, positional, keyword operands): the workload on `device`, cast or quantised.

    Raises: MeasurementError: too little memory, empty inputs, or a precision that torch does not offer here.
    """
    import torch

    needed = parameter_bytes(name, knobs)
    if needed > 0.8 * free_bytes:
        raise MeasurementError(
            f"too little memory: {name} needs {needed / 2**30:.1f} GiB for its weights, "
            f"{free_bytes / 2**30:.1f} GiB free"
        )
    torch.manual_seed(0)
    with torch.no_grad():
        module, args, kwargs = build_pair(name, knobs, device)
        module = module.eval()
        sizes: list[int] = []
        _map_tensors(lambda tensor: sizes.append(tensor.numel()), (args, kwargs))
        if sizes and not any(sizes):
            raise MeasurementError(f"{name} works on nothing: its inputs have no elements; is a knob of it 0?")
        args, kwargs = _map_tensors(_ordinary, (args, kwargs))
        for buffer in module.buffers():
            buffer.copy_(_ordinary(buffer))
    if precision == "int8":
        if device != "cpu":
            raise MeasurementError("int8 workloads: measured on the CPU only (torch.ops.quantized)")
        module = _int8(module)
    elif precision in ("bf16", "fp16"):
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        module = module.to(dtype)
        args, kwargs = _map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, (args, kwargs))
    elif precision not in ("fp32", "tf32"):
        raise MeasurementError(f'precision "{precision}" of a workload: expected fp32, tf32, bf16, fp16 or int8')
    if device == "cuda":
        args = _as_libraries_like(module, args)
    return module, args, kwargs


def quantised(layer: torch.nn.Module) -> torch.nn.Module:
    """A linear or convolution layer with int8 weights, quantised and dequantised at its borders. See INT8_METHOD."""
    import torch

    ops = torch.ops.quantized

    class Int8(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = layer.weight.detach().float()
            scale = max(float(weight.abs().max()) / 127, 1e-8)
            packed = torch.quantize_per_tensor(weight, scale, 0, torch.qint8)
            bias = None if layer.bias is None else layer.bias.detach().float()
            if isinstance(layer, torch.nn.Linear):
                self.packed, self.run = ops.linear_prepack(packed, bias), ops.linear
            else:
                arguments = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups)
                self.packed, self.run = ops.conv2d_prepack(packed, bias, *arguments), ops.conv2d

        def forward(self, x):
            q = torch.quantize_per_tensor(x.contiguous(), ACTIVATION_SCALE, 64, torch.quint8)
            return self.run(q, self.packed, ACTIVATION_SCALE, 64).dequantize()

    return Int8()


def _int8(module):
    """Replace linear and convolution layers by quantised ones."""
    import torch

    def quantisable(layer: torch.nn.Module) -> bool:
        if type(layer) is torch.nn.Linear:
            return True
        return type(layer) is torch.nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)

    replaced = 0
    for layer in list(module.modules()):
        for child_name, child in list(layer.named_children()):
            if quantisable(child):
                setattr(layer, child_name, quantised(child))
                replaced += 1
    if replaced == 0:
        raise MeasurementError("int8: the model has no linear or convolution layer of torch.nn to quantise")
    return module
