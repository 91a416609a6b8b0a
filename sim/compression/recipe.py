"""Recipes: an ordered list of techniques in YAML, checked strictly, applied one after another.

Reading a recipe loads no torch; applying it does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sim.errors import ConfigError, DovetailError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic_core import ErrorDetails
    from torch import nn

    from sim.compression.model import CompressedModel
    from sim.compression.training import Task

SCHEMA = "dovetail.recipe/1"
Dtype = Literal["int2", "int3", "int4", "int8", "fp8_e4m3"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WeightGrid(_Strict):
    dtype: Dtype = "int8"
    granularity: Literal["tensor", "channel", "group"] = "channel"
    group: int = Field(default=0, ge=0)
    symmetric: bool = True


class ActivationGrid(_Strict):
    """Activations have one scale per tensor (or per token, when dynamic, in linear layers)."""

    dtype: Dtype = "int8"
    symmetric: bool = False
    dynamic: bool = False
    percentile: float = Field(default=100.0, gt=50, le=100, strict=False)


class _Step(_Strict):
    skip: list[str] = []


class _Tuned(_Step):
    """Steps that may train afterwards; 0 steps need no data."""

    steps: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0, strict=False)


class Quantise(_Step):
    technique: Literal["quantise"]
    weights: WeightGrid = WeightGrid()
    activations: ActivationGrid | None = None
    calibration_samples: int = Field(default=256, gt=0)
    smoothing: float | None = Field(default=None, ge=0, le=1, strict=False)


class QuantiseAwareTraining(_Tuned):
    technique: Literal["quantise_aware_training"]
    weights: WeightGrid = WeightGrid()
    activations: ActivationGrid | None = None
    calibration_samples: int = Field(default=256, gt=0)


class WeightOnly(_Step):
    technique: Literal["weight_only"]
    dtype: Literal["int2", "int3", "int4", "int8"] = "int4"
    group: int = Field(default=32, gt=0)
    symmetric: bool = False


class MixedPrecision(_Step):
    technique: Literal["mixed_precision"]
    mean_bits: float = Field(gt=0, strict=False)
    choices: list[Dtype] = ["int4", "int8"]
    activations: ActivationGrid | None = None
    evaluation_samples: int = Field(default=1000, gt=0)


class SparsifyNm(_Tuned):
    technique: Literal["sparsify_nm"]
    n: int = Field(default=2, gt=0)
    m: int = Field(default=4, gt=1)


class SparsifyUnstructured(_Tuned):
    technique: Literal["sparsify_unstructured"]
    density: float = Field(gt=0, lt=1)


class PruneChannels(_Tuned):
    technique: Literal["prune_channels"]
    keep: float = Field(gt=0, le=1, strict=False)
    multiple: int = Field(default=1, gt=0)


class QuantiseKvCache(_Strict):
    technique: Literal["quantise_kv_cache"]
    dtype: Dtype = "int8"
    layers: list[str] = []


class Distil(_Strict):
    """The model so far is the teacher; `student` are the workload's knobs for the new one."""

    technique: Literal["distil"]
    student: dict[str, int | float | str | bool]
    steps: int = Field(gt=0)
    learning_rate: float = Field(default=1e-3, gt=0, strict=False)
    temperature: float = Field(default=4.0, gt=0, strict=False)
    soft_weight: float = Field(default=0.7, ge=0, le=1, strict=False)
    features: dict[str, str] = {}
    feature_weight: float = Field(default=1.0, ge=0, strict=False)


Step = (
    Quantise | QuantiseAwareTraining | WeightOnly | MixedPrecision | SparsifyNm | SparsifyUnstructured
    | PruneChannels | QuantiseKvCache | Distil
)  # fmt: skip
TECHNIQUES = tuple(get_args(kind.model_fields["technique"].annotation)[0] for kind in get_args(Step))


class Recipe(_Strict):
    """What a recipe file says."""

    schema_: Literal["dovetail.recipe/1"] = Field(alias="schema")
    name: str
    title: str = ""
    steps: list[Annotated[Step, Field(discriminator="technique")]] = Field(min_length=1)


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe file. Raises: ConfigError: with the file, the path of the key and the nearest name."""
    path = Path(path)
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"recipe {path}: cannot be read: {error.strerror}") from error
    return parse_recipe(text, where=str(path))


def parse_recipe(text: str, *, where: str = "recipe") -> Recipe:
    """A recipe from YAML text; `where` opens the error messages."""
    try:
        data = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected keys schema, name and steps")
    if data.get("schema") != SCHEMA:
        raise ConfigError(f'{where}: schema: expected "{SCHEMA}", not {data.get("schema")!r}')
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{where}: {_explain(e)}" for e in error.errors())) from error


def _explain(error: ErrorDetails) -> str:
    location = ""
    kind = None
    for part in error["loc"]:
        if isinstance(part, int):
            location += f"[{part}]"
        elif part in TECHNIQUES:  # pydantic's mark of the branch of the union, no key of the file
            kind = next(k for k in get_args(Step) if k.__name__.lower() == part.replace("_", ""))
        else:
            location += f".{part}" if location else str(part)
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        known = (kind or Recipe).model_fields
        return f"{location}: unknown key.{nearest(key, known)}"
    if error["type"] == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        known = ", ".join(TECHNIQUES)
        return f'{location}: technique "{tag}" is unknown: expected one of {known}.{nearest(tag, TECHNIQUES)}'
    return f"{location}: {error['msg']}, got {error['input']!r}"


def apply_recipe(
    model: nn.Module | CompressedModel,
    recipe: Recipe,
    *,
    example_inputs: tuple,
    task: Task | None = None,
    build: Callable[..., tuple] | None = None,
    seed: int = 0,
    progress: Callable[[int, int, float], None] | None = None,
    checkpoint: Path | None = None,
) -> CompressedModel:
    """Apply the steps in order to a copy of the model.

    Args:
        example_inputs: what the workload's `build` returned; also the calibration set when there
            is no task.
        task: data for training, calibration and measured sensitivity.
        build: the workload's `build`, for the student of a distillation.
        checkpoint: file of the trained model: a step that trains keeps its own beside it, named by
            recipe and step, and goes on from it.
    Raises: ConfigError: a step needs data or a builder that is not there, or treats no layer.
    """
    from sim.compression.model import as_compressed
    from sim.compression.steps import apply_step

    out = as_compressed(model)
    for index, step in enumerate(recipe.steps):
        where = f"recipe {recipe.name}: steps[{index}] ({step.technique})"
        try:
            kept = checkpoint and checkpoint.with_name(f"{checkpoint.stem}.{recipe.name}.{index}{checkpoint.suffix}")
            out = apply_step(
                out, step, example_inputs=example_inputs, task=task, build=build, seed=seed, progress=progress,
                checkpoint=kept,
            )  # fmt: skip
        except DovetailError as error:
            raise type(error)(f"{where}: {error}") from error
        if not out.report.treated:
            raise ConfigError(f"{where} does nothing to this model: {_reasons(out.report.untreated)}")
    return out


def rehearsal(recipe: Recipe) -> Recipe:
    """The same steps without their training and on two samples: what is wrong with a recipe shows in seconds."""
    short = {"steps": 0, "calibration_samples": 2, "evaluation_samples": 2}
    steps = []
    for step in recipe.steps:
        changes = {key: value for key, value in short.items() if hasattr(step, key)}
        steps.append(step.model_copy(update=changes))
    return recipe.model_copy(update={"steps": steps})


def _reasons(untreated: Mapping[str, str]) -> str:
    """Why no layer was treated, grouped; layers that nothing treats (norms) only where there are no others."""
    groups: dict[str, list[str]] = {}
    for name, why in untreated.items():
        groups.setdefault(why, []).append(name)
    own = {why: names for why, names in groups.items() if not why.endswith("has no treatment")}
    return "; ".join(f"{_some(names)}: {why}" for why, names in (own or groups).items()) or "it has no such layer"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
