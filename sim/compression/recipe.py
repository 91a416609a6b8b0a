"""Recipes: an ordered list of techniques in YAML, checked strictly, applied one after another.

Reading a recipe loads no torch; applying it does.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sim.errors import ConfigError, DovetailError, nearest, several
from sim.hardware.load import parse_yaml
from sim.resources import data_dir
from sim.wrong_keys import owner_of, problem_line, short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic_core import ErrorDetails
    from torch import nn

    from sim.compression.model import CompressedModel
    from sim.compression.training import Task

SCHEMA = "dovetail.recipe/1"
Dtype = Literal["int2", "int3", "int4", "int8", "fp8_e4m3"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class WeightGrid(_Strict):
    """The numbers that weights are rounded to; scales from the smallest and largest weight."""

    dtype: Dtype = "int8"
    """element type of the stored weights"""
    granularity: Literal["tensor", "channel", "group"] = "channel"
    """what shares a scale: all weights of a layer, those of an output channel, or `group` of them"""
    group: int = Field(default=0, ge=0)
    """weights per scale; above 0 for granularity `group`, and for it alone"""
    symmetric: bool = True
    """no zero point; fp8 has none"""


class ActivationGrid(_Strict):
    """The numbers that a layer's input is rounded to, one scale per tensor."""

    dtype: Dtype = "int8"
    """element type of the layer's input"""
    symmetric: bool = False
    """no zero point; fp8 has none"""
    dynamic: bool = False
    """ranges at run time: per token in linear layers, else per call"""
    percentile: float = Field(default=100.0, gt=50, le=100, strict=False)
    """share of the observed magnitudes that a static range covers, in percent"""


class _Step(_Strict):
    skip: list[str] = []
    """shell patterns of layers to leave alone"""


class _Tuned(_Step):
    steps: int = Field(default=0, ge=0)
    """steps of fine-tuning; 0 needs no data"""
    learning_rate: float = Field(default=1e-3, gt=0, strict=False)
    """its peak, after a warm-up of a tenth; then half a cosine down to 0"""


class Quantise(_Step):
    """Post-training quantisation of convolutions and linear layers."""

    technique: Literal["quantise"]
    """which step this is"""
    weights: WeightGrid = WeightGrid()
    """how weights are rounded"""
    activations: ActivationGrid | None = None
    """how inputs of layers are rounded; without it weights alone are"""
    calibration_samples: int = Field(default=256, gt=0)
    """inputs that static ranges are observed on"""
    smoothing: float | None = Field(default=None, ge=0, le=1, strict=False)
    """SmoothQuant's alpha: outliers behind a LayerNorm move into the weights that read it"""


class QuantiseAwareTraining(_Tuned):
    """Fine-tuning with rounding in the forward pass; activation ranges are observed once and stay."""

    technique: Literal["quantise_aware_training"]
    """which step this is"""
    weights: WeightGrid = WeightGrid()
    """how weights are rounded"""
    activations: ActivationGrid | None = None
    """how inputs of layers are rounded, with static ranges; without it weights alone are"""
    calibration_samples: int = Field(default=256, gt=0)
    """inputs that static ranges are observed on, before the training"""


class WeightOnly(_Step):
    """Weights in groups with a 16-bit scale each, activations in 16 bits."""

    technique: Literal["weight_only"]
    """which step this is"""
    dtype: Literal["int2", "int3", "int4", "int8"] = "int4"
    """element type of the stored weights"""
    group: int = Field(default=32, gt=0)
    """weights that share a scale"""
    symmetric: bool = False
    """no zero point"""


class MixedPrecision(_Step):
    """A width per layer: each layer is measured alone on validation data, and the exact best choice under the budget is
    taken (losses of single layers are taken to add up)."""

    technique: Literal["mixed_precision"]
    """which step this is"""
    mean_bits: float = Field(gt=0, strict=False)
    """budget: bits per weight over all treated layers"""
    choices: list[Dtype] = Field(default=["int4", "int8"], min_length=1)
    """element types that a layer may get"""
    activations: ActivationGrid | None = None
    """how inputs of layers are rounded, with `dynamic: true`; without it weights alone are"""
    evaluation_samples: int = Field(default=1000, gt=0)
    """validation data that each layer's loss is measured on"""


class SparsifyNm(_Tuned):
    """n of every m consecutive input channels stay, the largest; the mask is fixed while fine-tuning."""

    technique: Literal["sparsify_nm"]
    """which step this is"""
    n: int = Field(default=2, gt=0)
    """weights that stay of every `m`"""
    m: int = Field(default=4, gt=1)
    """consecutive input channels that are looked at together"""


class SparsifyUnstructured(_Tuned):
    """The largest weights of all layers stay; only a chip that skips zeros computes less."""

    technique: Literal["sparsify_unstructured"]
    """which step this is"""
    density: float = Field(gt=0, lt=1)
    """share of the weights that stays"""


class PruneChannels(_Tuned):
    """Whole channels go and the tensors shrink: every chip gains. Comes before quantisation and sparsity."""

    technique: Literal["prune_channels"]
    """which step this is"""
    keep: float = Field(gt=0, le=1, strict=False)
    """share of every set of coupled channels that stays"""
    multiple: int = Field(default=1, gt=0)
    """kept counts are rounded up to a multiple of this (an array's width)"""


class QuantiseKvCache(_Strict):
    """What attention caches, one scale per token and layer."""

    technique: Literal["quantise_kv_cache"]
    """which step this is"""
    dtype: Dtype = "int8"
    """element type of cached keys and values"""
    layers: list[str] = []
    """shell patterns of the key and value projections, where they have unusual names"""


class Distil(_Strict):
    """The model so far is the teacher of a new, smaller one."""

    technique: Literal["distil"]
    """which step this is"""
    student: dict[str, int | float | str | bool]
    """the workload's knobs for the student"""
    steps: int = Field(gt=0)
    """steps of training of the student"""
    learning_rate: float = Field(default=1e-3, gt=0, strict=False)
    """its peak, after a warm-up of a tenth; then half a cosine down to 0"""
    temperature: float = Field(default=4.0, gt=0, strict=False)
    """divides the logits of both before they are compared: 4 suits ten classes; 1 suits 256 bytes, of which most never
    come (a high one teaches their logits above all)"""
    soft_weight: float = Field(default=0.7, ge=0, le=1, strict=False)
    """share of the loss that the teacher's outputs have; the labels have the rest"""
    features: dict[str, str] = {}
    """student layer -> teacher layer whose outputs are compared"""
    feature_weight: float = Field(default=1.0, ge=0, strict=False)
    """weight of that comparison in the loss"""


Step = (
    Quantise | QuantiseAwareTraining | WeightOnly | MixedPrecision | SparsifyNm | SparsifyUnstructured
    | PruneChannels | QuantiseKvCache | Distil
)  # fmt: skip
KINDS = {get_args(kind.model_fields["technique"].annotation)[0]: kind for kind in get_args(Step)}
"""Technique -> its step."""


class Recipe(_Strict):
    """What a recipe file says; the steps are applied in order."""

    schema_: Literal["dovetail.recipe/1"] = Field(alias="schema")
    """what kind of file this is"""
    name: str
    """what results call the recipe"""
    title: str = ""
    """one line for tables and reports"""
    steps: list[Annotated[Step, Field(discriminator="technique")]] = Field(min_length=1)
    """what is done, in this order"""

    @field_validator("name")
    @classmethod
    def _names_a_file(cls, name: str) -> str:
        if not name.strip() or {"/", "\\", "\0"} & set(name):
            raise ValueError(f"expected a name that a file may have, without slashes, got {short(name)}")
        return name


def find_recipe(name: str, *, folder: Path | None = None) -> Recipe:
    """A recipe by bundled name or path. Raises: ConfigError: neither, with the nearest name."""
    return load_recipe(recipe_file(name, folder=folder))


def recipe_file(name: str, *, folder: Path | None = None) -> Path:
    """The file of a recipe, looked for in `folder`, then here, then among the bundled. Raises: as `find_recipe`."""
    for path in (folder / name, Path(name)) if folder else (Path(name),):
        if path.is_file():
            return path
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    bundled = {p.stem: p for p in sorted((data_dir("workloads") / "recipes").glob("*.yaml"))}
    if name not in bundled:
        raise ConfigError(
            f'recipe "{name}" is unknown: expected a file or one of {", ".join(bundled)}.{nearest(name, bundled)}'
        )
    return bundled[name]


def load_recipe(path: Path | str) -> Recipe:
    """Read a recipe file. Raises: ConfigError: with the file, the path of the key and the nearest name."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"recipe {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {path}: cannot be read: {error}") from error
    return parse_recipe(text, where=str(path))


def parse_recipe(text: str, *, where: str = "recipe") -> Recipe:
    """A recipe from YAML text; `where` opens the error messages."""
    data = parse_yaml(text, where)
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected keys schema, name and steps")
    if data.get("schema") != SCHEMA:
        raise ConfigError(f'{where}: schema: expected "{SCHEMA}", not {data.get("schema")!r}')
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = dict.fromkeys(_explain(problem) for problem in error.errors(include_url=False))
        raise ConfigError(several(f"{where}: {line}" for line in lines)) from error


def _explain(problem: ErrorDetails) -> str:
    loc = problem["loc"]
    kind = next((KINDS[part] for part in loc[2:3] if part in KINDS), None)
    inner = loc[3:] if kind else loc
    said = (*loc[:2], *inner) if kind else loc  # the branch of the union is no key of the file
    knob = kind is Distil and inner[:1] == ("student",) and len(inner) > 2
    said = said[:-1] if knob else said  # nor is the kind of a knob
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in said).lstrip(".")
    if knob:
        return f"{place}: expected a number, text, or true or false, got {short(problem['input'])}"
    if problem["type"] == "union_tag_invalid":
        tag = str(problem["ctx"]["tag"])
        return f'{place}: technique "{tag}" is unknown: expected one of {", ".join(KINDS)}.{nearest(tag, KINDS)}'
    if problem["type"] == "union_tag_not_found":
        return f"{place}.technique: missing: which step this is; expected one of {', '.join(KINDS)}"
    return problem_line(problem, place, said[-1], owner_of(kind or Recipe, inner[:-1]))


def apply_recipe(
    model: nn.Module | CompressedModel,
    recipe: Recipe,
    *,
    example_inputs: Any,
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


def untuned(recipe: Recipe) -> Recipe:
    """The same steps without fine-tuning, which changes no cost: for a model without data."""
    steps = [step.model_copy(update={"steps": 0}) if isinstance(step, _Tuned) else step for step in recipe.steps]
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
