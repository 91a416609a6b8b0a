"""Quantisation: post-training, weight-only, quantisation-aware, and of the KV cache.

References: [1] Jacob et al., CVPR 2018 (arXiv 1712.05877): affine grids, QAT with straight-through
rounding. [2] Xiao et al., SmoothQuant (arXiv 2211.10438): see `smoothing`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from sim.compression.annotations import KV_CACHE, Annotation, input_name
from sim.compression.fakequant import ActivationQuantiser, Grid, divides, fake_quantise_weight
from sim.compression.model import CompressedModel, Report, as_compressed, layers, stored_as, weight_name
from sim.compression.smoothing import run_calibration, smooth
from sim.compression.training import Progress, Task, calibration_inputs, finetune
from sim.errors import ConfigError, WorkloadError

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
            annotations[weight_name(name)] = stored_as(weights)
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
    seen = (n for n in out.report.treated if not _unseen(out.module.get_submodule(n)))
    bf16 = {input_name(n): Annotation(dtype="bf16", bits=16.0) for n in seen}
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


def _unseen(layer: nn.Module) -> bool:
    """Whether the layer is never called: nn.MultiheadAttention takes the weight of its last one."""
    return isinstance(layer, NonDynamicallyQuantizableLinear)


def _why_not(layer: nn.Module, grid: Grid, activations: Grid | None) -> str | None:
    if activations is not None and _unseen(layer):
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
    """Smallest and largest value, no further from 0 than the magnitude below which the share lies."""
    x = x.detach()
    ends = torch.stack((x.amin(), x.amax()))
    if percentile >= 100.0:
        return ends
    count = max(1, ceil(x.numel() * percentile / 100.0))
    most = x.abs().flatten().kthvalue(count).values
    return ends.clamp(-most, most)
