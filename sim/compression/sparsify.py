"""Zeros in weights: N:M patterns along the reduction, and unstructured magnitude pruning.

References: [1] Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378: prune
by magnitude once, then train on with the mask fixed. [2] Han et al., NeurIPS 2015
(arXiv 1506.02626): global magnitude pruning.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from sim.compression.annotations import Annotation
from sim.compression.model import CompressedModel, Report, as_compressed, layers, weight_name
from sim.compression.training import Progress, Task, finetune
from sim.errors import ConfigError


def nm_mask(weight: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """Keep the n largest magnitudes of every m consecutive input channels.

    Groups run along axis 1 (input features or channels), separately for each output and kernel
    position, which is the order in which sparse arrays read a reduction [1]. Ties keep the
    earlier element. Returns a bool mask of the weight's shape with exactly n true per group.
    """
    if weight.shape[1] % m:
        raise ConfigError(f"{n}:{m} sparsity: {weight.shape[1]} input channels are not whole groups of {m}")
    groups = weight.detach().movedim(1, -1).unflatten(-1, (-1, m))
    order = groups.abs().argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    return mask.flatten(-2).movedim(-1, 1).contiguous()


def sparsify_nm(
    model: nn.Module | CompressedModel,
    *,
    n: int = 2,
    m: int = 4,
    task: Task | None = None,
    steps: int = 0,
    learning_rate: float = 1e-3,
    seed: int = 0,
    skip: tuple[str, ...] = (),
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> CompressedModel:
    """One-shot N:M magnitude pruning, then `steps` of fine-tuning with the mask fixed [1].

    Layers whose input channels are not whole groups of m are named and left alone.
    Raises: ConfigError: n and m are no pattern; fine-tuning asked for without a task.
    """
    if not 0 < n < m:
        raise ConfigError(f"N:M sparsity {n}:{m}: expected 0 < N < M, such as 2:4")
    out = as_compressed(model)
    treat, leave = layers(out.module, skip=skip, why_not=lambda _, layer: _indivisible(layer, m))
    masks = {name: nm_mask(layer.weight, n, m) for name, layer in treat.items()}
    note = Annotation(density=n / m, pattern=f"{n}:{m}")
    report = Report(technique=f"sparsify {n}:{m}", treated=tuple(treat), untreated=leave, details={"steps": steps})
    return _apply(out, masks, note, report, task, steps, learning_rate, seed, progress, checkpoint)


def sparsify_unstructured(
    model: nn.Module | CompressedModel,
    *,
    density: float,
    task: Task | None = None,
    steps: int = 0,
    learning_rate: float = 1e-3,
    seed: int = 0,
    skip: tuple[str, ...] = (),
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> CompressedModel:
    """Keep the `density` share of largest magnitudes over all treated layers together [2].

    Magnitudes are compared after division by each layer's standard deviation, so that layers of
    different scale are pruned alike. Only a chip that skips zeros computes less.
    """
    if not 0 < density < 1:
        raise ConfigError(f"unstructured density {density}: expected a share between 0 and 1")
    out = as_compressed(model)
    treat, leave = layers(out.module, skip=skip)
    if any(layer.weight.is_meta for layer in treat.values()):
        raise ConfigError("unstructured sparsity: densities of layers need trained weights, and this model has none")
    size = {
        name: (layer.weight.detach() / layer.weight.detach().std().clamp(min=1e-12)).abs()
        for name, layer in treat.items()
    }
    masks: dict[str, torch.Tensor] = {}
    if treat:
        everything = torch.cat([s.flatten() for s in size.values()])
        order = everything.argsort(descending=True, stable=True)[: round(density * len(everything))]
        kept = torch.zeros_like(everything, dtype=torch.bool).index_fill_(0, order, True)
        parts = kept.split([s.numel() for s in size.values()])
        masks = {name: part.reshape(size[name].shape) for name, part in zip(size, parts, strict=True)}
    report = Report(technique="sparsify unstructured", treated=tuple(treat), untreated=leave, details={"steps": steps})
    return _apply(out, masks, None, report, task, steps, learning_rate, seed, progress, checkpoint)


def _apply(
    out: CompressedModel,
    masks: dict[str, torch.Tensor],
    note: Annotation | None,
    report: Report,
    task: Task | None,
    steps: int,
    learning_rate: float,
    seed: int,
    progress: Progress | None,
    checkpoint: Path | None,
) -> CompressedModel:
    if steps and task is None:
        raise ConfigError(f"{report.technique}: {steps} steps of fine-tuning need a task with training data")
    annotations, all_masks = {}, dict(out.masks)
    with torch.no_grad():
        for name, mask in masks.items():
            parameter = weight_name(name)
            all_masks[parameter] = mask & all_masks[parameter] if parameter in all_masks else mask
            out.module.get_submodule(name).weight.mul_(all_masks[parameter])
            annotations[parameter] = note or Annotation(density=_stored(all_masks[parameter]), pattern="unstructured")
    result = out.with_(report, annotations, masks=all_masks)
    if steps and masks and task is not None:
        finetune(
            result, task, steps=steps, learning_rate=learning_rate, seed=seed, progress=progress, checkpoint=checkpoint
        )
    return result


def _stored(mask: torch.Tensor) -> float:
    """Share of the weights that is stored: one at least, so that a layer of zeros still has a place and a cost."""
    return max(1, int(mask.sum())) / mask.numel()


def _indivisible(layer: nn.Module, m: int) -> str | None:
    channels = layer.weight.shape[1]
    return f"{channels} input channels are not whole groups of {m}" if channels % m else None
