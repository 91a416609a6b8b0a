"""What a compression recipe means to the simulator where no weights are at hand.

A search costs shapes: of a recipe it takes the widths and the N:M pattern. Recipes that change
shapes or mix widths per layer need the trained module, and are refused here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sim.compression.recipe import Quantise, QuantiseAwareTraining, QuantiseKvCache, SparsifyNm, WeightOnly, load_recipe
from sim.errors import ConfigError, nearest
from sim.resources import data_dir
from sim.workload.precision import BITS


@cache
def effect(name: str, *, default: str) -> tuple[str, str]:
    """(precision name, N:M pattern or "none") of a bundled recipe or a recipe file.

    Raises: ConfigError: unknown recipe, or a technique that needs the module.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        bundled = {p.stem: p for p in sorted((data_dir("workloads") / "recipes").glob("*.yaml"))}
        if name not in bundled:
            raise ConfigError(
                f'recipe "{name}" is unknown: expected one of {", ".join(bundled)}.{nearest(name, bundled)}'
            )
        path = bundled[name]
    precision, sparsity = default, "none"
    weight, activation, cache_bits = None, None, None
    for step in load_recipe(path).steps:
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
    if weight is not None and activation is not None:
        same = weight == activation and cache_bits is None
        precision = (
            weight if same else f"w{BITS[weight]}a{BITS[activation]}" + (f"kv{cache_bits}" if cache_bits else "")
        )
    elif cache_bits is not None:
        precision = f"w16a16kv{cache_bits}"
    return precision, sparsity
