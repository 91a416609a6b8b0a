"""Scenario files: a strict schema. Streams of work on a chip, or requests to a language model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from sim.errors import ConfigError, nearest, several
from sim.events.policies import POLICIES
from sim.hardware.load import parse_yaml
from sim.resources import data_dir
from sim.units import Dimension, parse_quantity
from sim.wrong_keys import EXPECTED, owner_of, problem_line


def _quantity(dimension: Dimension) -> BeforeValidator:
    def parse(value: object) -> float:
        try:
            return parse_quantity(value, dimension)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(parse)


def _phase(value: object) -> object:
    if value == "spread":
        return value
    try:
        return parse_quantity(value, Dimension.TIME)
    except ConfigError as error:
        raise ValueError(f"{error}, or spread") from error


Time = Annotated[float, _quantity(Dimension.TIME), Field(allow_inf_nan=False)]
Span = Annotated[Time, Field(gt=0)]
Frequency = Annotated[float, _quantity(Dimension.FREQUENCY), Field(gt=0, allow_inf_nan=False)]
Power = Annotated[float, _quantity(Dimension.POWER), Field(ge=0, allow_inf_nan=False)]
Size = Annotated[float, _quantity(Dimension.SIZE)]
Policy = Literal["fifo", "priority", "earliest_deadline_first", "rate_monotonic", "time_partition"]


def _rising(axis: tuple[int, ...]) -> tuple[int, ...]:
    if len(axis) < 2 or axis[0] < 1 or any(b <= a for a, b in pairwise(axis)):
        raise ValueError(f"{list(axis)}: expected two or more rising whole numbers from 1 on")
    return axis


def _named(name: str) -> str:
    if not name.strip() or "[" in name:
        raise ValueError(f'"{name}": expected a name without [, which numbers the copies of a stream: "camera[0]"')
    return name


Name = Annotated[str, AfterValidator(_named)]
Rising = Annotated[tuple[int, ...], AfterValidator(_rising)]


class Strict(BaseModel):
    """Unknown keys are errors; nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Periodic(Strict):
    kind: Literal["periodic"]
    rate: Frequency
    phase: Annotated[float | Literal["spread"], BeforeValidator(_phase)] = 0.0
    """"spread": the copies of a stream divide the period evenly."""
    jitter: Time = 0.0


class Poisson(Strict):
    kind: Literal["poisson"]
    rate: Frequency


class Bursts(Strict):
    kind: Literal["bursts"]
    rate: Frequency
    size: int = Field(gt=0)
    gap: Time = 0.0


class Recorded(Strict):
    kind: Literal["file"]
    path: str


class Closed(Strict):
    """The next job is released when one ends: work that is always there."""

    kind: Literal["closed"]


Arrivals = Annotated[Periodic | Poisson | Bursts | Recorded | Closed, Field(discriminator="kind")]


class Stage(Strict):
    """Pre- or post-processing of a fixed time on a unit of the chip, or on a host CPU outside it."""

    name: str
    unit: str
    time: Time
    parallel: int = Field(default=1, gt=0)
    """Equal parts side by side, one on each instance from 0 on (one per camera)."""
    instances: int | None = Field(default=None, gt=0)
    """Needed for a unit that is not in the chip's file."""
    power: Power | None = None
    """While it runs; without it the energy of the stream's jobs is unknown."""


class StreamSpec(Strict):
    name: Name
    workload: str
    knobs: dict[str, Any] = {}
    precision: str | None = None
    copies: int = Field(default=1, gt=0)
    target: str | None = None
    """A unit ("NPU": whichever instance is free), one of its instances ("NPU[0]"), default the schedule's own."""
    arrivals: Arrivals
    deadline: Span | None = None
    priority: int = 0
    before: Stage | None = None
    after: Stage | None = None


class Slot(Strict):
    stream: str
    length: Span


class Requests(Strict):
    """Requests to a language model; lengths are lognormal around `*_tokens` with `*_sigma` (0: fixed)."""

    count: int = Field(gt=0, le=2_000_000)
    arrivals: Annotated[Periodic | Poisson | Bursts, Field(discriminator="kind")]
    prompt_tokens: int = Field(gt=0)
    prompt_sigma: float = Field(default=0.0, ge=0)
    output_tokens: int = Field(gt=0)
    output_sigma: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=4096, gt=1)
    """Longest prompt plus output; longer draws are cut."""

    @model_validator(mode="after")
    def _short_enough(self) -> Requests:
        if self.prompt_tokens + self.output_tokens > self.max_tokens:
            needed = self.prompt_tokens + self.output_tokens
            raise ValueError(
                f"prompt_tokens and output_tokens together are {needed}, above max_tokens ({self.max_tokens}), to "
                f"which requests are cut: expected max_tokens: {needed} or more"
            )
        return self


class KvCache(Strict):
    """Paged: a request holds whole pages. `capacity` None: what weights leave of the memory named (of a system, the
    memories of all chips together). The width of keys and values is that of the precision ("w16a16kv8")."""

    memory: str
    capacity: Size | None = None
    page_tokens: int = Field(default=16, gt=0)
    reserve: float = Field(default=0.1, ge=0, lt=1)
    """Share of the memory kept for activations and the runtime."""


class Serving(Strict):
    workload: str
    knobs: dict[str, Any] = {}
    precision: str | None = None
    requests: Requests
    kv: KvCache
    max_batch: int = Field(default=64, gt=0)
    prefill_chunk: int = Field(default=512, gt=0)
    """Prompt tokens of one step, beside the decoding requests."""
    ttft_deadline: Span | None = None
    tpot_deadline: Span | None = None

    @model_validator(mode="after")
    def _knobs(self) -> Serving:
        if taken := sorted({"phase", "batch", "context"} & set(self.knobs)):
            raise ValueError(f"knobs: {taken[0]} is what serving itself sets")
        return self

    table_batches: Rising = (1, 4, 16, 64)
    table_contexts: Rising = (128, 1024, 4096)
    """Where steps are scheduled; between these points their time and energy are interpolated."""


class Scenario(Strict):
    schema_: Literal["dovetail.scenario/1"] = Field(default="dovetail.scenario/1", alias="schema")
    name: str
    description: str = ""
    hardware: str
    length: Span = 1.0
    warmup: Time = 0.0
    replications: int = Field(default=1, gt=0)
    policy: Policy = "fifo"
    slots: tuple[Slot, ...] = ()
    ports: Literal["fair", "priority"] = "fair"
    grain: Literal["expand", "folded", "summary"] = "folded"
    miss_bound: float = Field(default=0.01, gt=0, lt=1)
    """Share of missed deadlines that `--find-limit` allows."""
    streams: tuple[StreamSpec, ...] = ()
    serving: Serving | None = None

    @model_validator(mode="after")
    def _whole(self) -> Scenario:
        if bool(self.streams) == (self.serving is not None):
            raise ValueError("a scenario has either streams or serving")
        names = [s.name for s in self.streams]
        if len(set(names)) < len(names):
            raise ValueError(f"streams need different names: {', '.join(names)}")
        for slot in self.slots:
            if slot.stream not in names:
                raise ValueError(f'slots: unknown stream "{slot.stream}".{nearest(slot.stream, names)}')
        if (self.policy == "time_partition") != bool(self.slots):
            raise ValueError("slots belong to policy time_partition, which needs them")
        idle = [name for name in names if self.slots and name not in {slot.stream for slot in self.slots}]
        if idle:
            raise ValueError(f'slots: stream "{idle[0]}" has none and would never run')
        if self.serving is not None:
            idle = sorted(self.model_fields_set & {"length", "policy", "slots", "ports", "grain"})
            if idle:
                raise ValueError(f"{idle[0]} belongs to streams; serving ends with its last request")
            return self
        if self.warmup >= self.length:
            raise ValueError("warmup takes the whole length; nothing is left to observe")
        return self


_ARRIVALS: dict[str, type[BaseModel]] = {
    "periodic": Periodic, "poisson": Poisson, "bursts": Bursts, "file": Recorded, "closed": Closed,
}  # fmt: skip
_SHARED = {"extra_forbidden", "missing", "too_short", "literal_error", *(k for k in EXPECTED if "_than" not in k)}
"""Problems that are told as in other files; a limit is of a quantity here, not of a number."""
_KINDS = "periodic, poisson, bursts, or of streams file, closed"


def scenarios_dir() -> Path:
    return data_dir("workloads") / "scenarios"


def list_scenarios() -> list[str]:
    """Names of the bundled scenarios."""
    return sorted(path.stem for path in scenarios_dir().glob("*.yaml"))


def load_scenario(name_or_path: str | Path) -> Scenario:
    """A bundled scenario by name, or a YAML file.

    Raises:
        ConfigError: not found, not YAML, or every breach of the schema with its path.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = scenarios_dir() / f"{name_or_path}.yaml"
        if not path.is_file():
            known = list_scenarios()
            hint = nearest(str(name_or_path), known)
            raise ConfigError(f'unknown scenario "{name_or_path}"; bundled: {", ".join(known)}.{hint}')
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_scenario(parse_yaml(text, str(path)), where=str(path), folder=path.parent)


def parse_scenario(document: object, *, where: str, folder: Path | None = None) -> Scenario:
    """A scenario from what YAML gave; arrivals files are found from `folder`."""
    if not isinstance(document, Mapping):
        raise ConfigError(f"{where}: expected a mapping with name, hardware and streams or serving")
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{where}: {several(_line(problem) for problem in error.errors())}") from error
    if folder is None:
        return scenario
    streams = tuple(_with_folder(s, folder) for s in scenario.streams)
    return scenario.model_copy(update={"streams": streams})


def _with_folder(stream: StreamSpec, folder: Path) -> StreamSpec:
    if not isinstance(stream.arrivals, Recorded):
        return stream
    return stream.model_copy(update={"arrivals": Recorded(kind="file", path=str(folder / stream.arrivals.path))})


def _line(problem: Mapping[str, Any]) -> str:
    place, tags = "", problem["loc"][:-1]
    for at, part in enumerate(problem["loc"]):
        if at and at < len(tags) and tags[at - 1] == "arrivals":
            continue  # the kind, which chose the model, is no key of the file
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in _SHARED and place != "policy":
        kind = next((tags[at + 1] for at, part in enumerate(tags[:-1]) if part == "arrivals"), "")
        owner = _ARRIVALS[str(kind)] if kind in _ARRIVALS else owner_of(Scenario, tags)
        return problem_line(problem, place, problem["loc"][-1], owner)
    if problem["type"].startswith("union_tag"):
        kind, kinds = str(problem["ctx"].get("tag", "")), problem["ctx"].get("expected_tags", _KINDS).replace("'", "")
        message = (f'unknown kind "{kind}"' if kind else "kind is missing") + f"; known: {kinds}."
        message += nearest(kind, kinds.split(", "))
    elif place == "policy":
        message = f'unknown policy "{problem["input"]}"; known: {", ".join(POLICIES)}.' + nearest(
            str(problem["input"]), POLICIES
        )
    return f"{place}: {message}" if place else message


def parse_target(target: str) -> tuple[str, int | None]:
    """("NPU", 1) of "NPU[1]", ("NPU", None) of "NPU"."""
    match = re.fullmatch(r"([^\[\]]+)(?:\[(\d+)\])?", target)
    if not match:
        raise ConfigError(f'target "{target}": expected a unit such as NPU, or one of its instances such as NPU[0]')
    return match[1], None if match[2] is None else int(match[2])
