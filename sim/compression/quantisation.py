"""Quantisation: post-training, weight-only, quantisation-aware, and of the KV cache.

References: [1] Jacob et al., CVPR 2018 (arXiv 1712.05877): affine grids, QAT with straight-through
rounding. [2] Xiao et al., SmoothQuant (arXiv 2211.10438), eq. 4: migration of activation outliers.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from sim.compression.annotations import KV_CACHE, Annotation, input_name
from sim.compression.fakequant import ActivationQuantiser, Grid, divides, fake_quantise_weight
from sim.compression.model import CompressedModel, Report, as_compressed, layers, weight_name
from sim.compression.training import Progress, Task, calibration_inputs, finetune
from sim.errors import ConfigError, WorkloadError
from sim.workload.trace.run import arguments, tensors_of

KV_LAYERS = ("k", "v", "k_proj", "v_proj", "key", "value", "wk", "wv")
"""Last path parts of linear layers whose outputs are cached keys or values."""


def quantise(
    model: nn.Module | CompressedModel,
    *,
    weights: Grid,
    activations: Grid | None = None,
    dynamic: bool = False,
    calibration: Any = None,
    percentile: float = 100.0,
    smoothing: float | None = None,
    skip: tuple[str, ...] = (),
) -> CompressedModel:
    """Post-training quantisation: min-max weight grids, and observed or dynamic activation grids.

    Args:
        weights: grid of every treated weight.
        activations: grid of every treated layer's input, per tensor; None for weight-only.
        dynamic: ranges from each token (linear layers) or call instead of from `calibration`.
        calibration: needed for static ranges and for smoothing: model inputs [samples, ...] as one tensor, or the
            arguments of one call, as a workload's `build` returns them.
        percentile: share of observed magnitudes that a static range covers, in percent.
        smoothing: SmoothQuant's alpha in [0, 1]; folds outliers of an activation that leaves a
            LayerNorm into the weights that read it [2].
        skip: shell patterns of layers to leave alone.
    Raises: ConfigError: static ranges or smoothing without calibration data.
        WorkloadError: the calibration set has the wrong shape.
    """
    out = as_compressed(model)
    treat, leave = layers(out.module, skip=skip, why_not=lambda _, layer: _why_not(layer, weights, activations))
    notes: list[str] = []
    needs_data = smoothing is not None or (activations is not None and not dynamic)
    if needs_data and calibration is None:
        raise ConfigError("quantise: static activations and smoothing need a calibration set; give one or use dynamic")
    if smoothing is not None:
        notes += smooth(out.module, treat, calibration, alpha=smoothing)
    annotations, grids = {}, dict(out.grids)
    with torch.no_grad():
        for name, layer in treat.items():
            layer.weight.copy_(fake_quantise_weight(layer.weight, weights))
            grids[weight_name(name)] = weights
            annotations[weight_name(name)] = Annotation(dtype=weights.dtype, bits=weights.stored_bits)
    if activations is not None:
        _observe(out.module, treat, activations, dynamic=dynamic, calibration=calibration, percentile=percentile)
        annotations |= {
            input_name(n): Annotation(dtype=activations.dtype, bits=float(activations.width)) for n in treat
        }
    report = Report(technique="quantise", treated=tuple(treat), untreated=leave, notes=tuple(notes))
    return out.with_(report, annotations, grids=grids)


def weight_only(
    model: nn.Module | CompressedModel,
    *,
    dtype: str = "int4",
    group: int = 32,
    symmetric: bool = False,
    skip: tuple[str, ...] = (),
) -> CompressedModel:
    """Weight-only quantisation by groups (W4A16 by default); activations stay as they are."""
    grid = Grid(dtype=dtype, granularity="group", group=group, symmetric=symmetric)
    out = quantise(model, weights=grid, skip=skip)
    bf16 = {input_name(n): Annotation(dtype="bf16", bits=16.0) for n in out.report.treated}
    report = Report(technique="weight_only", treated=out.report.treated, untreated=out.report.untreated)
    return CompressedModel(
        module=out.module, annotations=out.annotations, reports=out.reports[:-1], masks=out.masks, grids=out.grids
    ).with_(report, bf16)


def quantise_aware_training(
    model: nn.Module | CompressedModel,
    task: Task,
    *,
    weights: Grid,
    activations: Grid | None,
    steps: int,
    learning_rate: float,
    seed: int = 0,
    calibration_samples: int = 256,
    percentile: float = 100.0,
    skip: tuple[str, ...] = (),
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> CompressedModel:
    """Fine-tune with fake quantisation in the forward pass [1], from the trained float model.

    Activation ranges are observed once, before training, and stay; weight ranges follow the weights.
    """
    out = as_compressed(model)
    originals = {name: p.detach().clone() for name, p in out.module.named_parameters()}
    out = quantise(
        out,
        weights=weights,
        activations=activations,
        calibration=calibration_inputs(task, calibration_samples),
        percentile=percentile,
        skip=skip,
    )
    with torch.no_grad():  # training starts from the float weights; the grids act in the forward
        for name, parameter in out.module.named_parameters():
            parameter.copy_(originals[name])
    finetune(out, task, steps=steps, learning_rate=learning_rate, seed=seed, progress=progress, checkpoint=checkpoint)
    report = Report(
        technique="quantise_aware_training",
        treated=out.report.treated,
        untreated=out.report.untreated,
        details={"steps": steps, "seed": seed},
    )
    return CompressedModel(
        module=out.module,
        annotations=out.annotations,
        reports=(*out.reports[:-1], report),
        masks=out.masks,
        grids=out.grids,
    )


def quantise_kv_cache(
    model: nn.Module | CompressedModel, *, dtype: str = "int8", layer_patterns: tuple[str, ...] = ()
) -> CompressedModel:
    """Round what attention caches, one asymmetric scale per token and layer (fp8: symmetric).

    Caches are the outputs of the key and value projections, found by their usual names or by
    `layer_patterns` (shell patterns). Keys are rounded before a rotary embedding, if any.
    Raises: ConfigError: no such layer.
    """
    out = as_compressed(model)
    grid = Grid(dtype=dtype, symmetric=dtype.startswith("fp"))
    treated = []
    for name, layer in out.module.named_modules():
        usual = name.rpartition(".")[2] in KV_LAYERS
        if isinstance(layer, nn.Linear) and (
            any(fnmatchcase(name, p) for p in layer_patterns) if layer_patterns else usual
        ):
            layer.register_forward_hook(ActivationQuantiser(grid, dynamic=True, per_token=True))
            treated.append(name)
    if not treated:
        wanted = layer_patterns or KV_LAYERS
        raise ConfigError(f"quantise_kv_cache: no linear layer named {', '.join(wanted)}; name them in `layers`")
    report = Report(technique="quantise_kv_cache", treated=tuple(treated))
    return out.with_(report, {KV_CACHE: Annotation(dtype=dtype, bits=float(grid.width))})


def _why_not(layer: nn.Module, grid: Grid, activations: Grid | None) -> str | None:
    if activations is not None and isinstance(layer, NonDynamicallyQuantizableLinear):
        return "nn.MultiheadAttention takes its weight without calling it, so that nothing sees its input"
    shape = tuple(layer.weight.shape)
    if not divides(shape, grid):
        return f"row of {torch.Size(shape[1:]).numel()} weights is not whole groups of {grid.group}"
    return None


def _observe(
    module: nn.Module,
    treat: dict[str, nn.Module],
    grid: Grid,
    *,
    dynamic: bool,
    calibration: Any,
    percentile: float,
) -> None:
    """Hang a quantiser on the input of each layer; static ones see the calibration set once, unrounded."""
    quantisers = {
        n: ActivationQuantiser(grid, dynamic=dynamic, per_token=isinstance(m, nn.Linear)) for n, m in treat.items()
    }
    if not dynamic:
        seen: dict[str, list[torch.Tensor]] = {name: [] for name in treat}
        hooks = [
            layer.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(_range(args[0], percentile)))
            for name, layer in treat.items()
        ]
        try:
            run_calibration(module, calibration)
        finally:
            for hook in hooks:
                hook.remove()
        for name, quantiser in quantisers.items():
            if not seen[name]:
                raise WorkloadError(f"quantise: layer {name} never ran on the calibration set; skip it or use dynamic")
            ranges = torch.stack(seen[name])
            quantiser.low, quantiser.high = ranges[:, 0].amin(), ranges[:, 1].amax()
    for name, layer in treat.items():
        layer.register_forward_pre_hook(quantisers[name])


def _range(x: torch.Tensor, percentile: float) -> torch.Tensor:
    x = x.detach()
    if percentile >= 100.0:
        return torch.stack((x.amin(), x.amax()))
    ordered = x.flatten().sort().values
    last = len(ordered) - 1
    rank = round(last * percentile / 100.0)
    return torch.stack((ordered[last - rank], ordered[rank]))


def run_calibration(module: nn.Module, calibration: Any) -> None:
    """Forward the calibration set in evaluation mode: a tensor in batches of 256, else the arguments of one call.

    Raises: WorkloadError: the module refuses the set's shape or dtype.
    """
    one = isinstance(calibration, torch.Tensor)
    batches = [((part,), {}) for part in calibration.split(256)] if one else [arguments(calibration)]
    module.eval()
    with torch.no_grad():
        for args, kwargs in batches:
            try:
                module(*args, **kwargs)
            except (RuntimeError, IndexError, ValueError) as error:
                shapes = ", ".join(f"{tuple(x.shape)} and dtype {x.dtype}" for x in tensors_of(calibration))
                raise WorkloadError(
                    f"calibration set of shape {shapes} does not fit the model: {str(error).splitlines()[0]}"
                ) from error


def smooth(module: nn.Module, treat: dict[str, nn.Module], calibration: Any, *, alpha: float) -> list[str]:
    """Move activation outliers into weights, exactly, where a LayerNorm feeds linear layers [2].

    s_j = max|x_j|^alpha / max|w_j|^(1 - alpha); the norm's scale and shift are divided by s, the
    columns of every linear layer that reads the norm multiplied. Returns notes on what was done.
    """
    norms = {n: m for n, m in module.named_modules() if isinstance(m, nn.LayerNorm) and m.elementwise_affine}
    outputs: dict[int, str] = {}
    keep: list[torch.Tensor] = []  # keeps outputs alive, so that ids stay unique
    readers: dict[str, dict[str, nn.Module]] = {name: {} for name in norms}
    peak: dict[str, torch.Tensor] = {}

    def after_norm(name: str, output: torch.Tensor) -> None:
        outputs[id(output)] = name
        keep.append(output)
        top = output.detach().abs().flatten(0, -2).amax(0)
        peak[name] = torch.maximum(peak[name], top) if name in peak else top

    def before_any(name: str, layer: nn.Module, args: tuple) -> None:
        if args and id(args[0]) in outputs:
            readers[outputs[id(args[0])]][name] = layer

    hooks = [m.register_forward_hook(lambda _m, _a, out, n=n: after_norm(n, out)) for n, m in norms.items()]
    hooks += [
        m.register_forward_pre_hook(lambda m, args, n=n: before_any(n, m, args))
        for n, m in module.named_modules()
        if not any(True for _ in m.children())
    ]
    try:
        run_calibration(module, calibration)
    finally:
        for hook in hooks:
            hook.remove()
    notes = []
    with torch.no_grad():
        for name, norm in norms.items():
            linear = {n: m for n, m in readers[name].items() if isinstance(m, nn.Linear)}
            if not linear or len(linear) != len(readers[name]) or not set(linear) <= set(treat):
                notes.append(f"smoothing: {name} left alone (not only treated linear layers read it)")
                continue
            columns = torch.stack([m.weight.abs().amax(0) for m in linear.values()]).amax(0)
            s = (peak[name].clamp(min=1e-5) ** alpha / columns.clamp(min=1e-5) ** (1 - alpha)).clamp(min=1e-5)
            norm.weight.div_(s)
            if norm.bias is not None:
                norm.bias.div_(s)
            for layer in linear.values():
                layer.weight.mul_(s)
            notes.append(f"smoothing: {name} -> {', '.join(linear)}")
    if not norms:
        notes.append("smoothing: no LayerNorm feeds a linear layer; nothing to fold into")
    return notes
