"""Recipes on one workload: quality before and after, and the benefit on each chip.

The Python form of `dovetail compress`. Wiring only: workloads, chips and estimates come from
their own packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sim.compression.benefit import Benefit, benefits
from sim.compression.model import CompressedModel, Report, weight_bytes
from sim.compression.quality import Quality, judged, trained
from sim.compression.recipe import Distil, Recipe, apply_recipe, find_recipe, rehearsal, untuned
from sim.compression.sensitivities import Sensitivity, sensitivity
from sim.compression.tasks import load_task
from sim.compression.training import Task, fingerprint, train
from sim.errors import ConfigError, checked_seed, whole
from sim.workload.graph import Graph

if TYPE_CHECKING:
    from sim.hardware.chip import Chip
    from sim.workload.load import Workload

SCHEMA = "dovetail.compress/1"
SENSITIVITY_EXAMPLES = 2000
"""Validation examples per evaluation when each layer is measured alone."""
Progress = Callable[[str, int, int, float], None]
"""Called as progress(stage, step, steps, loss)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One recipe. `quality` is None where the workload has no task: nothing was trained or judged."""

    recipe: str
    title: str
    quality: Quality | None
    parameter_bytes: float
    benefits: tuple[Benefit, ...]
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The uncompressed model and every recipe's result."""

    workload: str
    knobs: Mapping[str, object]
    """All of the workload's, those that were not given at their defaults."""
    seed: int
    quality: Quality | None
    parameter_bytes: float
    results: tuple[Result, ...]
    sensitivity: tuple[Sensitivity, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The `dovetail.compress/1` document."""
        from sim._version import __version__

        document = asdict(self)
        for result, source in zip(document["results"], self.results, strict=True):
            result["reports"] = [_report(r) for r in source.reports]
            for row, benefit in zip(result["benefits"], source.benefits, strict=True):
                row |= {"speedup": benefit.speedup, "energy_gain": benefit.energy_gain}
        return {"schema": SCHEMA, "version": __version__, **document}


def _report(report: Report) -> dict[str, object]:
    return {
        "technique": report.technique,
        "treated": list(report.treated),
        "untreated": dict(report.untreated),
        "notes": list(report.notes),
    }


def run_study(
    workload: str,
    recipes: Sequence[str],
    *,
    hardware: Sequence[str | Chip] = (),
    knobs: Mapping[str, object] | None = None,
    calibration: str = "auto",
    seed: int = 0,
    train_steps: int | None = None,
    sensitivity_choices: Sequence[str] = (),
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> Study:
    """Train the workload on its task (if it has one), apply each recipe, judge and cost the results.

    `sensitivity_choices` (dtypes or patterns) measures each layer alone, on a part of the test set.
    Raises: DovetailError of the step that fails; a bad recipe or chip is found before training.
    """
    from sim.analytical import estimate
    from sim.hardware.load import load_hardware
    from sim.schedule.confidence import calibration_label
    from sim.workload.load import Workload

    seed = checked_seed(seed)
    if train_steps is not None:
        train_steps = whole(train_steps, where="train_steps", least=0)
    chosen = [find_recipe(name) for name in recipes]
    twice = next((r.name for i, r in enumerate(chosen) if r.name in [other.name for other in chosen[:i]]), None)
    if twice is not None:
        raise ConfigError(
            f'two recipes are called "{twice}": results and checkpoints go by their names; give each its own'
        )
    chips = [load_hardware(one) if isinstance(one, str) else one for one in hardware]
    rests_on = [f"costs on {chip.name}: {calibration_label(chip, calibration)}" for chip in chips]
    source = Workload(workload, dict(knobs or {}))
    task = load_task(workload, knobs)
    # A task trains and judges whole windows; costs are those of the phase that was asked for.
    judged = _of_the_network(knobs or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Workload(workload, judged)
        module, example_inputs = network.build(device=None if task else "meta")

    def build(**changes: object) -> tuple:
        return Workload(workload, {**judged, **changes}).build()

    apply = partial(apply_recipe, module, example_inputs=example_inputs, task=task, build=build, seed=seed)
    for recipe in chosen:  # before minutes of training
        rough = apply(rehearsal(recipe))
        if chips:
            _graph(source, rough, recipe, example_inputs)
    notes = rests_on
    if task is None:
        chosen, bare = _untrained(workload, chosen)
        notes = [*notes, *bare]
    else:
        train(
            module, task, steps=train_steps, seed=seed, checkpoint=checkpoint, progress=_stage(progress, "training"),
            origin=_origin(network, module) if checkpoint else "",
        )  # fmt: skip
    rows = _sensitivities(module, task, tuple(sensitivity_choices))

    results = []
    for recipe in chosen:
        made = apply(recipe, progress=_stage(progress, recipe.name), checkpoint=checkpoint)
        bought: tuple[Benefit, ...] = ()
        if chips:
            after, costed = _graph(source, made, recipe, example_inputs), partial(estimate, calibration=calibration)
            bought = benefits(source.graph(), after, made.annotations, chips, estimate=costed)
        results.append(_result(recipe, made, task, bought))
    quality = trained(module, task) if task else None
    tuned = [result for recipe, result in zip(chosen, results, strict=True) if recipe != untuned(recipe)]
    return Study(
        workload=workload,
        knobs=dict(source.knobs),
        seed=seed,
        quality=quality,
        parameter_bytes=weight_bytes(module, {}),
        results=tuple(results),
        sensitivity=rows,
        notes=(*notes, *filter(None, (_flattered(quality, result) for result in tuned))),
    )


def _origin(network: Workload, module: nn.Module) -> str:
    """What a checkpoint of the training is bound to: weights of the same shapes may be those of another network, of
    other heads, or of a file, or one that it imports, that was edited since."""
    from sim.workload.cache import code_hash, dependencies

    found = network.description
    code = sorted(code_hash(Path(file)) for file in dependencies(found.path, set())[0])
    return fingerprint(module, settings=(code, found.function, sorted(network.knobs.items())))


def _untrained(workload: str, recipes: Sequence[Recipe]) -> tuple[list[Recipe], list[str]]:
    """The recipes without what needs a task, and notes on what that leaves out."""
    bare = [untuned(recipe) for recipe in recipes]
    left = [recipe.name for recipe, tuned in zip(bare, recipes, strict=True) if recipe != tuned]
    return bare, [
        f"{workload} has no task (docs/compression.md): no weights were made, only the cost is known",
        *(f"{name}: its fine-tuning is left out, it needs a task" for name in left),
    ]


def _flattered(before: Quality | None, result: Result) -> str | None:
    """A note on a fine-tuned model that is better than the one it was made from, by more than both standard errors
    together: that one had not learnt all it could, so what the recipe costs in quality does not show."""
    after = result.quality
    if before is None or after is None:
        return None
    gain = (after.value - before.value) * (1 if before.higher_is_better else -1)
    if gain <= hypot(before.standard_error or 0.0, after.standard_error or 0.0):
        return None
    return (
        f"{result.recipe}: after its fine-tuning {before.metric} is {after.value:.4g}, better than the "
        f"{before.value:.4g} as trained: that model still learns, and what the recipe costs in quality is hidden by "
        "the training that it adds; train for more steps before you compare"
    )


def _sensitivities(module: nn.Module, task: Task | None, choices: tuple[str, ...]) -> tuple[Sensitivity, ...]:
    if not choices:
        return ()
    if task is None:
        raise ConfigError("sensitivity is measured on a task, and this workload has none")
    return sensitivity(
        module, lambda m: judged(m, task, limit=SENSITIVITY_EXAMPLES, part="validation"), choices=choices
    )


def _of_the_network(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Knobs that make another network, and not another use of one."""
    return {key: value for key, value in knobs.items() if key not in ("phase", "batch")}


def _graph(source: Workload, made: CompressedModel, recipe: Recipe, example_inputs: Any) -> Graph:
    """The compressed network as the asked batch and phase run it, without its emulation.

    A distilled one is the workload with the student's knobs. Shapes as they were built: the workload's own
    graph. Other shapes (pruned): a trace of the compressed module on inputs of the asked batch; it was built
    for the phase that it was judged in.
    Raises: ConfigError: shapes changed and another phase was asked for.
    """
    from sim.workload.load import Workload
    from sim.workload.trace.run import tensors_of, trace

    student = next((step.student for step in reversed(recipe.steps) if isinstance(step, Distil)), {})
    source = Workload(source.name, {**source.knobs, **_of_the_network(student)})
    plain, (twin, inputs) = made.shapes(), source.build(device="meta")
    shapes = {name: tuple(p.shape) for name, p in plain.named_parameters()}
    if shapes == {name: tuple(p.shape) for name, p in twin.named_parameters()}:
        return source.graph()
    if [tuple(x.shape[1:]) for x in tensors_of(inputs)] != [tuple(x.shape[1:]) for x in tensors_of(example_inputs)]:
        raise ConfigError(
            f"recipe {recipe.name} changes shapes: it can be costed in the phase alone that it is judged in; "
            "leave out -p phase=..."
        )
    return trace(plain, inputs)


def _result(recipe: Recipe, made: CompressedModel, task: Task | None, bought: tuple[Benefit, ...]) -> Result:
    return Result(
        recipe=recipe.name,
        title=recipe.title,
        quality=trained(made.module, task) if task else None,
        parameter_bytes=weight_bytes(made.module, made.annotations),
        benefits=bought,
        reports=made.reports,
    )


def _stage(progress: Progress | None, stage: str) -> Callable[[int, int, float], None] | None:
    if progress is None:
        return None
    return lambda step, steps, loss: progress(stage, step, steps, loss)
