"""The strict schema of a search file (`dovetail.search/1`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from sim.errors import ConfigError, UnitError, nearest, several
from sim.units import Dimension, parse_quantity
from sim.wrong_keys import owner_of, problem_line, short

SEARCH_SCHEMA = "dovetail.search/1"
OBJECTIVES = (
    "latency", "energy", "edp", "area", "power", "peak_power", "die_cost", "throughput", "quality", "speed_up",
    "goodput", "miss_rate",
)  # fmt: skip
DRIVEN = ("goodput", "miss_rate")
"""Objectives that only a scenario of the event simulator gives."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"expected one value (a number, a quantity or a word), got {short(value)}")


Scalar = Annotated[Any, BeforeValidator(_scalar)]
"""bool, int, float, str or None, as the file has it."""


def _quantity(dimension: Dimension) -> BeforeValidator:
    """A text is read here already, so that all that is wrong with a file is told at once."""

    def parse(value: Any) -> Any:
        if value is not None:
            try:
                parse_quantity(value, dimension)
            except UnitError as error:
                raise ValueError(str(error)) from error
        return value

    return BeforeValidator(parse)


Time = Annotated[str | None, _quantity(Dimension.TIME)]
Area = Annotated[str | None, _quantity(Dimension.AREA)]
Power = Annotated[str | None, _quantity(Dimension.POWER)]
Energy = Annotated[str | None, _quantity(Dimension.ENERGY)]
Size = Annotated[str | None, _quantity(Dimension.SIZE)]


class RangeSpec(_Strict):
    """`choices`, or `low` to `high` in `step`s or `points` (on log axes with `log`).

    Without `step` and `points` a range is continuous, and Optuna chooses from it. `when` names other
    parameters and the values of theirs for which this one counts; otherwise it keeps its own default.
    `coarse` leaves a chip key to the sampler, where the inner sweep would take it.
    """

    choices: list[Scalar] | None = None
    low: Scalar = None
    high: Scalar = None
    step: Scalar = None
    points: int | None = Field(default=None, ge=2)
    log: bool = False
    when: dict[str, list[Scalar]] = {}
    coarse: bool = False

    @model_validator(mode="after")
    def _one_way(self) -> RangeSpec:
        if (self.choices is None) == (self.low is None and self.high is None):
            raise ValueError("state either choices, or low and high")
        if self.choices is not None and (self.step, self.points) != (None, None):
            raise ValueError("step and points belong to low and high, not to choices")
        if self.choices is not None and not self.choices:
            raise ValueError("choices is empty")
        if self.choices is None and (self.low is None or self.high is None):
            raise ValueError("a range needs both low and high")
        if self.step is not None and self.points is not None:
            raise ValueError("state step or points, not both")
        if self.step is not None and self.log:
            raise ValueError("log goes with points; a step is even")
        return self


def _values(value: Any) -> Any:
    """A list stands for choices in other tools; here it is a mistake that has a fix."""
    if isinstance(value, list):
        raise ValueError(f"expected one value, or {{choices: {short(value)}}}")
    return value


Choice = Annotated[
    Annotated[Scalar, Tag("value")] | Annotated[RangeSpec, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | RangeSpec) else "value"),
    BeforeValidator(_values),
]
"""One value, or what it may be chosen from."""


class WorkloadSpec(_Strict):
    """A model and what may be chosen of it; `variants` are named sets of knobs that belong together.

    `stream` is the stream of `scenario.events` that it stands for, its own name if None.
    """

    workload: str
    name: str | None = None
    stream: str | None = None
    weight: float = Field(default=1.0, gt=0)
    knobs: dict[str, Choice] = {}
    variants: dict[str, dict[str, Scalar]] = {}


class CompressionSpec(_Strict):
    """`precision` and `sparsity` (N:M patterns of weights, or none), or `recipe` names in their place."""

    precision: list[str] = []
    sparsity: list[str] = []
    recipe: list[str] = []

    @model_validator(mode="after")
    def _either(self) -> CompressionSpec:
        if self.recipe and (self.precision or self.sparsity):
            raise ValueError("a recipe says precision and sparsity: state recipe alone, or precision and sparsity")
        return self


class BaselineSpec(_Strict):
    """Names one measured or published record; must match exactly one. `mode` is how the framework ran it."""

    device: str
    workload: str
    precision: str
    mode: Literal["eager", "compile", "graph"] | None = None
    scenario: str | None = None
    knobs: dict[str, Scalar] = {}
    file: str | None = None


class SpeedUpSpec(_Strict):
    speed_up: BaselineSpec


Objective = Annotated[
    Annotated[str, Tag("name")] | Annotated[SpeedUpSpec, Tag("record")],
    Discriminator(lambda value: "record" if isinstance(value, dict | SpeedUpSpec) else "name"),
]
TAGS = {"value", "range", "name", "record"}
"""What pydantic puts into places; no key of a file stands for them."""


class QualityRow(_Strict):
    when: dict[str, Scalar]
    value: float
    source: str


class QualitySpec(_Strict):
    """Where quality comes from; see `sim.codesign.quality`, and `sim.codesign.trained` for `train`.

    `train`: `steps` of the workload's own task, its quality on validation data looked at after each share
    in `checks`, compressed by the choice's recipe; `cheap` is a function as `function` is, in the same
    metric, asked before anything is trained.
    """

    method: Literal["table", "scaling_law", "callable", "train"]
    metric: str = "quality"
    higher_is_better: bool = True
    rows: list[QualityRow] = []
    tokens: float | None = Field(default=None, gt=0)
    law: Literal["besiroglu", "hoffmann"] = "besiroglu"
    post_training: bool = True
    function: str | None = None
    steps: int | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0)
    checks: list[Annotated[float, Field(gt=0, lt=1)]] = [0.25, 0.5]
    examples: int = Field(default=2000, gt=0)
    cheap: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> QualitySpec:
        due = {"table": ("rows", self.rows), "scaling_law": ("tokens", self.tokens),
               "callable": ("function", self.function), "train": ("steps", self.steps)}  # fmt: skip
        name, value = due[self.method]
        if not value:
            raise ValueError(f"method {self.method} needs {name}")
        return self


class FloorSpec(_Strict):
    min: float | None = None
    max: float | None = None


class ConstraintSpec(_Strict):
    """Upper limits with their units; `quality` bounds are plain numbers in its metric."""

    deadline: Time = None
    area: Area = None
    power: Power = None
    peak_power: Power = None
    energy: Energy = None
    memory: Size = None
    die_cost_usd: float | None = Field(default=None, gt=0)
    miss_rate: float | None = Field(default=None, gt=0, lt=1)
    quality: FloorSpec | None = None
    functions: list[str] = []


class ScenarioSpec(_Strict):
    """`events` names a scenario file (bundled, or beside the search file): every costed design is simulated in
    it, the search's workloads in the place of its streams. Its own `hardware` is not used."""

    events: str | None = None
    seed: int = Field(default=0, ge=0)
    mapping_for: Literal["latency", "energy", "edp"] = "latency"
    map_space: Literal["even", "uneven", "fixed_dataflow"] = "even"
    calibration: str = "auto"
    """auto, none, a measured device or a calibration file: of every estimate of the search."""


class KnownSpec(_Strict):
    name: str
    parameters: dict[str, Scalar] = {}


class SamplerSpec(_Strict):
    name: Literal["auto", "nsga2", "nsga3", "tpe", "gp", "cmaes", "qmc", "random"] = "auto"
    seed: int = Field(default=0, ge=0)
    population: int = Field(default=32, ge=2)
    screen: int = Field(default=24, ge=0)
    """Coarse choices compared at the roofline before each trial: the sampler's own and random ones (0: none;
    then all that the roofline leaves is costed)."""


class BudgetSpec(_Strict):
    trials: int = Field(gt=0)
    timeout: Time = None
    pairs: int | None = Field(default=None, gt=0)
    """Model-chip pairs handed to `estimate` in all; as many as the trials take if None."""
    inner_points: int = Field(default=2048, gt=0)
    """Chips that one trial's inner sweep may cover."""
    estimates: int = Field(default=256, gt=0)
    """Of these, how many one trial may hand to `estimate`; the roofline settles the others."""
    winners: int = Field(default=5, gt=0)


class SpaceSpec(_Strict):
    schema_: Literal["dovetail.search/1"] = Field(alias="schema")
    name: str
    title: str = ""
    workloads: list[WorkloadSpec] = Field(min_length=1)
    combine: Literal["one_of", "weighted", "worst"] | None = None
    compression: CompressionSpec = CompressionSpec()
    chip: str
    hardware: dict[str, Choice] = {}
    objectives: list[Objective] = Field(min_length=1)
    constraints: ConstraintSpec = ConstraintSpec()
    quality: QualitySpec | None = None
    scenario: ScenarioSpec = ScenarioSpec()
    known: list[KnownSpec] = []
    baselines: list[BaselineSpec] = []
    budget: BudgetSpec
    sampler: SamplerSpec = SamplerSpec()
    short: Annotated[dict[str, Any], Field(exclude=True)] = {}

    @model_validator(mode="after")
    def _consistent(self) -> SpaceSpec:
        if len(self.workloads) > 1 and self.combine is None:
            raise ValueError("several workloads need combine: one_of, weighted or worst")
        for objective in self.objective_names:
            if objective not in OBJECTIVES:
                raise ValueError(
                    f'objective "{objective}" is unknown: expected some of {", ".join(OBJECTIVES)}.'
                    f"{nearest(objective, OBJECTIVES)}"
                )
        if "speed_up" in self.objectives:
            raise ValueError("speed_up needs its record: - speed_up: {device: ..., workload: ..., precision: ...}")
        if len(set(self.objective_names)) != len(self.objectives):
            raise ValueError("an objective stands twice")
        asked = "quality" in self.objectives or self.constraints.quality is not None
        if asked and self.quality is None:
            raise ValueError("quality is asked for, but no `quality:` says where it comes from")
        driven = [name for name in DRIVEN if name in self.objectives] + ["miss_rate"] * bool(self.constraints.miss_rate)
        if driven and self.scenario.events is None:
            raise ValueError(f"{driven[0]} needs a scenario: add scenario: {{events: NAME or FILE}}")
        if self.scenario.events is not None and not driven:
            raise ValueError(
                f"scenario.events is simulated for the objectives {' and '.join(DRIVEN)}; name one of them"
            )
        chosen = (self.scenario.mapping_for, self.scenario.map_space, self.scenario.calibration)
        if driven and chosen != ("latency", "even", "auto"):
            raise ValueError(
                "scenario.events runs mappings for latency in the even map space, each chip with its own calibration; "
                "leave out the other keys"
            )
        return self

    @property
    def objective_names(self) -> tuple[str, ...]:
        return tuple(o if isinstance(o, str) else "speed_up" for o in self.objectives)


def overlay(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `document`: maps merge key by key, all else is replaced; null removes a key."""
    result = dict(document)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict) and "choices" not in value:
            result[key] = overlay(result[key], value)
        else:
            result[key] = value
    return result


def validate(document: Any, *, where: str) -> SpaceSpec:
    """The checked spec. Raises: ConfigError: every problem with its place and the nearest key."""
    if not isinstance(document, dict) or document.get("schema") != SEARCH_SCHEMA:
        raise ConfigError(f"{where}: expected a search file that begins with schema: {SEARCH_SCHEMA}")
    try:
        return SpaceSpec.model_validate(document)
    except ValidationError as error:
        lines = dict.fromkeys(_line(e) for e in error.errors(include_url=False))
        raise ConfigError(several(f"{where}: {line}" for line in lines)) from error


def _line(problem: Any) -> str:
    """One problem in our words: place, what is there, what was expected, the nearest key."""
    loc = _place(problem["loc"])
    place = ".".join(str(part) for part in loc) or "the file"
    return problem_line(problem, place, loc[-1] if loc else "", owner_of(SpaceSpec, loc[:-1]))


def _place(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The place as the file has it: pydantic names the branch of a union behind the key or number that holds it."""
    kept: list[int | str] = []
    for i, part in enumerate(loc):
        holder = loc[0] if i == 2 and loc[0] in ("hardware", "objectives") else loc[i - 2] if i > 2 else None
        if not (part in TAGS and holder in ("hardware", "objectives", "knobs")):
            kept.append(part)
    return tuple(kept)
