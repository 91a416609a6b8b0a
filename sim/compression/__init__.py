"""Smaller models for real: techniques on torch modules, their quality, and what the simulator sees.

The public names are loaded on first use, so that importing the package loads no torch.

Techniques           quantisation, smoothing, sensitivities (mixed widths), sparsify, prune, distillation
  their parts        fakequant (grids), integer (what a chip would compute), channels (which belong together), training
What comes out       model (the module, and what was done), annotations (for the simulator)
Recipes              recipe (the file), steps, study (before and after), benefit (on chips)
Quality              quality, tasks (data, loss and test of a workload), statistics, published
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "Annotation": "annotations",
    "annotate": "annotations",
    "CompressedModel": "model",
    "Report": "model",
    "Grid": "fakequant",
    "quantise": "quantisation",
    "weight_only": "quantisation",
    "quantise_aware_training": "quantisation",
    "quantise_kv_cache": "quantisation",
    "mixed_precision": "sensitivities",
    "sensitivity": "sensitivities",
    "sparsify_nm": "sparsify",
    "sparsify_unstructured": "sparsify",
    "prune_channels": "prune",
    "distil": "distillation",
    "train": "training",
    "finetune": "training",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "apply_recipe": "recipe",
    "Quality": "quality",
    "scaling_law": "quality",
    "table": "quality",
    "Task": "training",
    "Score": "training",
    "TensorTask": "tasks.tensors",
    "load_task": "tasks",
}
"""Public name -> module of this package."""

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
