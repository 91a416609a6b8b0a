"""What a compression recipe means to the simulator where no weights are at hand.

A search costs shapes: of a recipe it takes the widths and the N:M pattern. Recipes that change
shapes, skip layers or mix widths per layer need the trained module, and are refused here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sim.compression.recipe import Quantise, QuantiseAwareTraining, QuantiseKvCache, SparsifyNm, WeightOnly, find_recipe
from sim.errors import ConfigError
from sim.workload.precision import BITS


@cache
def effect(name: str, *, default: str, folder: Path | None = None) -> tuple[str, str]:
    """(precision name, N:M pattern or "none") of a bundled recipe or a recipe file, looked for in `folder` first.

    Raises: ConfigError: unknown recipe, or a technique that needs the module.
    """
    precision, sparsity = default, "none"
    weight, activation, cache_bits = None, None, None
    for step in find_recipe(name, folder=folder).steps:
        if isinstance(step, Quantise | QuantiseAwareTraining):
            weight = step.weights.dtype
            activation = step.activations.dtype if step.activations else "bf16"
        elif isinstance(step, WeightOnly):
            weight, activation = step.dtype, "bf16"
        elif isinstance(step, SparsifyNm):
            sparsity = f"{step.n}:{step.m}"
        elif isinstance(step, QuantiseKvCache):
            cache_bits = BITS[step.dtype]
        else:
            raise ConfigError(
                f"recipe {name}: {step.technique} needs the trained module and its layers; a search takes recipes of "
                "quantise, quantise_aware_training, weight_only, sparsify_nm and quantise_kv_cache"
            )
        if skipped := getattr(step, "skip", []):
            raise ConfigError(
                f"recipe {name}: {step.technique} skips layers ({', '.join(skipped)}), and a search costs all layers "
                "alike; leave skip out"
            )
    if weight is not None and activation is not None:
        same = weight == activation and cache_bits is None
        precision = (
            weight if same else f"w{BITS[weight]}a{BITS[activation]}" + (f"kv{cache_bits}" if cache_bits else "")
        )
    elif cache_bits is not None:
        precision = f"w16a16kv{cache_bits}"
    return precision, sparsity
