"""What a compression recipe means to the simulator where no weights are at hand.

A search costs shapes: of a recipe it takes the widths and the N:M pattern. What a recipe leaves as it was (the KV cache
under weights and activations of 8 bits; all under a pattern alone) stays in the type in which `dovetail compress` costs
the model before. Recipes that change shapes, skip layers or mix widths per layer need the trained module, and are
refused here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sim.compression.recipe import Quantise, QuantiseAwareTraining, QuantiseKvCache, SparsifyNm, WeightOnly, find_recipe
from sim.errors import ConfigError
from sim.workload.precision import BITS, PRECISIONS, is_precision


@cache
def effect(name: str, *, wide: str, folder: Path | None = None) -> tuple[str, str]:
    """(precision name, N:M pattern or "none") of a bundled recipe or a recipe file, looked for in `folder` first.

    Args: wide: the type of what the recipe leaves alone (`sim.compression.benefit.wide_precision`).
    Raises: ConfigError: unknown recipe, a technique that needs the module, widths that no precision has.
    """
    sparsity = "none"
    weight, activation, kept = None, None, None
    for step in find_recipe(name, folder=folder).steps:
        if isinstance(step, Quantise | QuantiseAwareTraining):
            weight = step.weights.dtype
            activation = step.activations.dtype if step.activations else None
        elif isinstance(step, WeightOnly):
            weight, activation = step.dtype, None
        elif isinstance(step, SparsifyNm):
            sparsity = f"{step.n}:{step.m}"
        elif isinstance(step, QuantiseKvCache):
            kept = step.dtype
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
    return _precision(name, weight, activation, kept, wide), sparsity


def _precision(recipe: str, weight: str | None, activation: str | None, kept: str | None, wide: str) -> str:
    """The name of these types of weights, activations and KV cache; None: left as they were."""
    if weight is None and kept is None:
        return wide
    if weight == activation == "fp8_e4m3" and kept in (None, weight):
        return weight  # (no name has fp8 with a cache of 16 bits)
    types = weight or wide, activation or (wide if weight is None else "bf16"), kept or wide
    name = types[0] if len(set(types)) == 1 and types[0] in PRECISIONS else _mixed(types)
    if types[1] == "fp8_e4m3" or not is_precision(name):
        raise ConfigError(
            f"recipe {recipe}: no precision has weights in {types[0]}, activations in {types[1]} and a KV cache in "
            f"{types[2]}, and a search costs precisions; cost it with dovetail compress"
        )
    return name


def _mixed(types: tuple[str, str, str]) -> str:
    """wXaY[kvZ] of types of weights, activations and KV cache."""
    weight, activation, kept = (BITS.get(one, one) for one in types)
    return f"w{weight}a{activation}" + (f"kv{kept}" if kept != activation else "")
