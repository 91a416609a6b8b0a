"""Structured pruning: whole channels go, the tensors really shrink, and no chip needs a feature.

References: [1] Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (arXiv 1608.08710):
rank filters by their norm. [2] Fang et al., DepGraph, CVPR 2023 (arXiv 2301.12900): coupled layers.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sim.compression.channels import ChannelSet, channel_sets
from sim.compression.model import MAC_LAYERS, CompressedModel, Report, as_compressed, leaves
from sim.compression.training import Progress, Task, finetune
from sim.errors import ConfigError


def prune_channels(
    model: nn.Module | CompressedModel,
    example_inputs: Any,
    *,
    keep: float,
    multiple: int = 1,
    task: Task | None = None,
    steps: int = 0,
    learning_rate: float = 1e-3,
    seed: int = 0,
    skip: tuple[str, ...] = (),
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> CompressedModel:
    """Keep the share `keep` of every prunable channel set, by the l2 norm of its filters [1].

    Args:
        multiple: kept counts are rounded up to a multiple of this (an array's width).
        skip: shell patterns; a set with a matching producer is left alone.
    Raises: ConfigError: `keep` is no share; the model was already quantised or masked (prune first).
        WorkloadError: torch.fx cannot trace the module.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"prune_channels: keep {keep}: expected a share in (0, 1]")
    out = as_compressed(model)
    if out.masks or out.grids:
        raise ConfigError("prune_channels: the model is already quantised or sparse; prune channels first in a recipe")
    if steps and task is None:
        raise ConfigError(f"prune_channels: {steps} steps of fine-tuning need a task with training data")
    treated: list[str] = []
    leave: dict[str, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    sets = channel_sets(out.module, example_inputs)
    for item in sets:
        reason = _why_not(item, skip)
        kept = min(item.size, -(-max(1, round(item.size * keep)) // multiple) * multiple)
        if reason is None and kept == item.size:
            reason = f"all {item.size} channels stay (keep {keep}, multiple of {multiple})"
        if reason:
            leave |= dict.fromkeys(item.producers, reason)
            continue
        cut(out.module, item, strongest(out.module, item, kept))
        treated += item.producers
        sizes[item.producers[0]] = (item.size, kept)
    known = {name for item in sets for name in (*item.producers, *item.passers)}
    others = {name: layer for name, layer in leaves(out.module) if name not in known}
    leave |= {name or "the model itself": _no_channels(layer) for name, layer in others.items()}
    report = Report(technique="prune_channels", treated=tuple(treated), untreated=leave, details={"channels": sizes})
    result = out.with_(report)
    if steps and treated and task is not None:
        finetune(
            result, task, steps=steps, learning_rate=learning_rate, seed=seed, progress=progress, checkpoint=checkpoint
        )
    return result


def _why_not(item: ChannelSet, skip: tuple[str, ...]) -> str | None:
    if item.frozen:
        return item.frozen
    for name in item.producers:
        if any(fnmatchcase(name, pattern) for pattern in skip):
            return "skipped by the recipe"
    return None if item.readers else "nothing reads its channels"


def _no_channels(layer: nn.Module) -> str:
    """Why a layer has no channel set and passes none on."""
    kind = type(layer).__name__
    if not isinstance(layer, MAC_LAYERS):
        return f"{kind} has no treatment"
    return "grouped convolution" if isinstance(layer, nn.Conv2d) else f"channels of a {kind} are not followed"


def strongest(module: nn.Module, item: ChannelSet, count: int) -> torch.Tensor:
    """Indices, ascending, of the `count` channels with the largest summed squared filter norm.

    Without weights (a model on the meta device, which is only costed) the first ones: the shapes are the same.
    """
    if any(module.get_submodule(name).weight.is_meta for name in item.producers):
        return torch.arange(count)
    score = torch.zeros(())
    for name in item.producers:
        weight = module.get_submodule(name).weight.detach()
        score = score.to(weight.device) + (weight.flatten(1) ** 2).sum(1) / weight[0].numel()
    return score.argsort(descending=True, stable=True)[:count].sort().values


def cut(module: nn.Module, item: ChannelSet, index: torch.Tensor) -> None:
    """Shrink every layer of the set to the channels `index`, in place."""
    for name in (*item.producers, *item.passers):
        layer = module.get_submodule(name)
        _take(layer, "weight", index, 0)
        _take(layer, "bias", index, 0)
        if isinstance(layer, nn.Linear):
            layer.out_features = len(index)
        elif isinstance(layer, nn.Conv2d):
            layer.out_channels = len(index)
            if name in item.passers:  # depth-wise
                layer.in_channels = layer.groups = len(index)
        else:
            _take(layer, "running_mean", index, 0)
            _take(layer, "running_var", index, 0)
            layer.num_features = len(index)
    for name, repeat in item.readers.items():
        layer = module.get_submodule(name)
        _take(layer, "weight", columns(index, repeat), 1)
        if isinstance(layer, nn.Linear):
            layer.in_features = layer.weight.shape[1]
        else:
            layer.in_channels = layer.weight.shape[1]


def columns(index: torch.Tensor, repeat: int) -> torch.Tensor:
    """Columns of a flattened map: channel c takes columns c * repeat ... (c + 1) * repeat - 1."""
    return (index[:, None] * repeat + torch.arange(repeat)).flatten()


def _take(layer: nn.Module, name: str, index: torch.Tensor, axis: int) -> None:
    tensor = getattr(layer, name, None)
    if tensor is None:
        return
    kept = tensor.detach().index_select(axis, index.to(tensor.device))
    if isinstance(tensor, nn.Parameter):
        setattr(layer, name, nn.Parameter(kept, requires_grad=tensor.requires_grad))
    else:
        layer.register_buffer(name, kept)
