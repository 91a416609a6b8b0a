"""From a recipe's step to the call of its technique."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sim.compression import recipe as r
from sim.compression.distillation import distil
from sim.compression.fakequant import Grid
from sim.compression.model import CompressedModel
from sim.compression.prune import prune_channels
from sim.compression.quality import judged
from sim.compression.quantisation import quantise, quantise_aware_training, quantise_kv_cache, weight_only
from sim.compression.sensitivities import mixed_precision
from sim.compression.sparsify import sparsify_nm, sparsify_unstructured
from sim.compression.training import Progress, Score, Task, calibration_inputs
from sim.errors import ConfigError


class Context:
    """What steps may need beside the model."""

    def __init__(
        self,
        example_inputs: Any,
        task: Task | None,
        build: Callable[..., tuple[Any, ...]] | None,
        seed: int,
        progress: Progress | None,
        checkpoint: Path | None,
    ) -> None:
        self.example_inputs, self.task, self.build = example_inputs, task, build
        self.seed, self.progress, self.checkpoint = seed, progress, checkpoint

    def calibration(self, samples: int) -> Any:
        """`samples` of the task's; without one the workload's example inputs: they have shapes alone."""
        return self.example_inputs if self.task is None else calibration_inputs(self.task, samples)

    def need_task(self, why: str) -> Task:
        if self.task is None:
            raise ConfigError(f"{why} needs a task with training data, and this workload has none")
        return self.task

    def tuning(self, step: r._Tuned) -> dict[str, Any]:
        return {
            "task": self.task,
            "steps": step.steps,
            "learning_rate": step.learning_rate,
            "seed": self.seed,
            "progress": self.progress,
            "checkpoint": self.checkpoint,
            "skip": tuple(step.skip),
        }


def apply_step(model: CompressedModel, step: r.Step, **context: object) -> CompressedModel:
    """Run one step of a recipe on a model (keywords as of `apply_recipe`)."""
    return _apply(step, model, Context(**context))  # type: ignore[arg-type]


def _weights(spec: r.WeightGrid) -> Grid:
    return Grid(dtype=spec.dtype, granularity=spec.granularity, group=spec.group, symmetric=spec.symmetric)


def _activations(spec: r.ActivationGrid | None) -> Grid | None:
    return None if spec is None else Grid(dtype=spec.dtype, symmetric=spec.symmetric)


@singledispatch
def _apply(step: object, model: CompressedModel, context: Context) -> CompressedModel:
    raise AssertionError(f"step {type(step).__name__} has no technique")


@_apply.register
def _(step: r.Quantise, model: CompressedModel, context: Context) -> CompressedModel:
    spec = step.activations
    dynamic = spec is not None and spec.dynamic
    needs_data = step.smoothing is not None or (spec is not None and not dynamic)
    return quantise(
        model,
        weights=_weights(step.weights),
        activations=_activations(spec),
        dynamic=dynamic,
        percentile=100.0 if spec is None else spec.percentile,
        calibration=context.calibration(step.calibration_samples) if needs_data else None,
        smoothing=step.smoothing,
        skip=tuple(step.skip),
    )


@_apply.register
def _(step: r.QuantiseAwareTraining, model: CompressedModel, context: Context) -> CompressedModel:
    if step.activations is not None and step.activations.dynamic:
        raise ConfigError("quantise_aware_training uses static activation ranges; remove activations.dynamic")
    context.need_task("quantise_aware_training")
    return quantise_aware_training(
        model,
        weights=_weights(step.weights),
        activations=_activations(step.activations),
        percentile=100.0 if step.activations is None else step.activations.percentile,
        calibration_samples=step.calibration_samples,
        **context.tuning(step),
    )


@_apply.register
def _(step: r.WeightOnly, model: CompressedModel, context: Context) -> CompressedModel:
    return weight_only(model, dtype=step.dtype, group=step.group, symmetric=step.symmetric, skip=tuple(step.skip))


@_apply.register
def _(step: r.MixedPrecision, model: CompressedModel, context: Context) -> CompressedModel:
    task = context.need_task("mixed_precision (measured sensitivity)")
    if step.activations is not None and not step.activations.dynamic:
        raise ConfigError("mixed_precision uses dynamic activation ranges; set activations.dynamic: true")

    def evaluate(module: nn.Module) -> Score:
        return judged(module, task, limit=step.evaluation_samples, part="validation")

    return mixed_precision(
        model,
        evaluate,
        mean_bits=step.mean_bits,
        choices=step.choices,
        activations=_activations(step.activations),
        skip=tuple(step.skip),
    )


@_apply.register
def _(step: r.SparsifyNm, model: CompressedModel, context: Context) -> CompressedModel:
    return sparsify_nm(model, n=step.n, m=step.m, **context.tuning(step))


@_apply.register
def _(step: r.SparsifyUnstructured, model: CompressedModel, context: Context) -> CompressedModel:
    return sparsify_unstructured(model, density=step.density, **context.tuning(step))


@_apply.register
def _(step: r.PruneChannels, model: CompressedModel, context: Context) -> CompressedModel:
    return prune_channels(model, context.example_inputs, keep=step.keep, multiple=step.multiple, **context.tuning(step))


@_apply.register
def _(step: r.QuantiseKvCache, model: CompressedModel, context: Context) -> CompressedModel:
    return quantise_kv_cache(model, dtype=step.dtype, layer_patterns=tuple(step.layers))


@_apply.register
def _(step: r.Distil, model: CompressedModel, context: Context) -> CompressedModel:
    task = context.need_task("distil")
    if context.build is None:
        raise ConfigError("distil needs the workload's build function for its student")
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            student, _ = context.build(**step.student)
    except TypeError as error:
        raise ConfigError(f"student: {error}") from error
    result = distil(
        student,
        model.module,
        task,
        steps=step.steps,
        learning_rate=step.learning_rate,
        temperature=step.temperature,
        soft_weight=step.soft_weight,
        features=step.features,
        feature_weight=step.feature_weight,
        seed=context.seed,
        progress=context.progress,
        checkpoint=context.checkpoint,
        knobs=step.student,
    )
    return CompressedModel(module=result.module, reports=(*model.reports, result.report))
