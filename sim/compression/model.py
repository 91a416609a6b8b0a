"""What a technique hands on: the module, what was done to each tensor, and what was left alone.

A compressed module keeps the structure and the parameter names of the module that it was made
from (structured pruning alone changes shapes). Quantised weights are stored as floats that lie
exactly on their grid; quantised activations are forward pre-hooks. `plain()` takes the hooks off,
so that a tracer sees the network and not its emulation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from sim.compression.annotations import Annotation, merge
from sim.compression.fakequant import ActivationQuantiser, Grid
from sim.errors import WorkloadError

MAC_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weight is an operand of multiply-accumulates and that we can treat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One step: which layers it treated, which it left alone and why, and what it measured."""

    technique: str
    treated: tuple[str, ...]
    untreated: Mapping[str, str] = field(default_factory=dict)
    """layer -> reason"""
    notes: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CompressedModel:
    """A module with the annotations that the simulator needs and the report of each step.

    `masks` and `grids` (parameter name -> kept elements, weight grid) are what later training
    must keep: `sim.compression.training.finetune` re-applies them at every forward.
    """

    module: nn.Module
    annotations: Mapping[str, Annotation] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)
    grids: Mapping[str, Grid] = field(default_factory=dict)

    @property
    def report(self) -> Report:
        """The report of the last step."""
        return self.reports[-1]

    def plain(self) -> nn.Module:
        """A copy without activation quantisers: what the tracer is to see."""
        module = copy.deepcopy(self.module)
        for layer in module.modules():
            for hooks in (layer._forward_pre_hooks, layer._forward_hooks):
                for key in [k for k, hook in hooks.items() if isinstance(hook, ActivationQuantiser)]:
                    del hooks[key]
        return module

    def shapes(self) -> nn.Module:
        """`plain()` without its numbers. (`to("meta")` would make two weights of one that two layers share.)"""
        module = self.plain()
        bare: dict[int, Any] = {
            id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
            for p in module.parameters()
        }
        bare |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in module.buffers()}
        return copy.deepcopy(module, bare)

    def copy(self) -> CompressedModel:
        """The same with a module of its own; techniques never change their argument."""
        return replace(self, module=copy.deepcopy(self.module))

    def with_(
        self,
        report: Report,
        annotations: Mapping[str, Annotation] | None = None,
        **changes: object,
    ) -> CompressedModel:
        """After one more step; annotations of a shared weight go by the first of its names, as in a traced graph."""
        first = first_names(self.module)
        return replace(
            self,
            annotations=merge(self.annotations, {first.get(n, n): note for n, note in (annotations or {}).items()}),
            reports=(*self.reports, report),
            **changes,  # type: ignore[arg-type]
        )


def as_compressed(model: nn.Module | CompressedModel) -> CompressedModel:
    """A private copy to work on, whether the caller has a bare module or a compressed one.

    Raises: WorkloadError: torch cannot copy the module.
    """
    if isinstance(model, CompressedModel):
        return model.copy()
    try:
        return CompressedModel(module=copy.deepcopy(model))
    except RuntimeError as error:  # tensors that are no leaves, kept as attributes
        raise WorkloadError(
            f"{type(model).__name__} holds a tensor that is computed from parameters, which torch cannot copy: make "
            "what is pruned or normalised by torch a parameter in `build` (torch.nn.utils.prune.remove and its like)"
        ) from error


def layers(
    module: nn.Module, *, skip: tuple[str, ...] = (), why_not: Callable[[str, nn.Module], str | None] | None = None
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Layers to treat, and those left alone with the reason.

    Args:
        skip: shell patterns of layer paths ("head", "blocks.*.attention.*").
        why_not: a technique's own reason against a layer, or None.
    Returns: (path -> layer, path -> reason). Leaf modules with parameters that are no
        multiply-accumulate layers (norms, embeddings, recurrent cells) are in the second.
    """
    treat: dict[str, nn.Module] = {}
    leave: dict[str, str] = {}
    for name, layer in leaves(module):
        if not isinstance(layer, MAC_LAYERS):
            leave[name or "the model itself"] = f"{type(layer).__name__} has no treatment"
        elif any(fnmatchcase(name, pattern) for pattern in skip):
            leave[name] = "skipped by the recipe"
        elif computed := computed_weight(layer):
            leave[name] = computed
        elif why_not is not None and (reason := why_not(name, layer)):
            leave[name] = reason
        else:
            treat[name] = layer
    return treat, leave


def computed_weight(layer: nn.Module) -> str | None:
    """Why nothing can be written to a weight that is no parameter but follows from some; None where it is one."""
    if "weight" in layer._parameters:
        return None
    return "its weight is computed at every call (weight_norm, pruning masks): make it one parameter in `build`"


def leaves(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of the modules that hold parameters of their own."""
    for name, layer in module.named_modules():
        if next(layer.parameters(recurse=False), None) is not None:
            yield name, layer


def quantisers(module: nn.Module) -> Iterator[tuple[str, ActivationQuantiser]]:
    """(path, quantiser) of all that round what goes into a layer or comes out of it."""
    for name, layer in module.named_modules():
        for hook in (*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()):
            if isinstance(hook, ActivationQuantiser):
                yield name, hook


def weight_name(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"


def stored_as(grid: Grid) -> Annotation:
    """Of a weight on this grid."""
    return Annotation(dtype=grid.dtype, bits=grid.stored_bits, scale_bits=grid.scale_bits)


def first_names(module: nn.Module) -> dict[str, str]:
    """Parameter -> the first name of the same parameter: the head of a language model may be its embedding."""
    first: dict[nn.Parameter, str] = {}
    return {name: first.setdefault(p, name) for name, p in module.named_parameters(remove_duplicate=False)}


def weight_bytes(module: nn.Module, annotations: Mapping[str, Annotation]) -> float:
    """Stored bytes of all parameters: annotated ones as annotated, the others as they are."""
    total = 0.0
    for name, parameter in module.named_parameters():
        note = annotations.get(name, Annotation())
        total += parameter.numel() * note.stored_bits(dense=8 * parameter.element_size()) / 8
    return total
