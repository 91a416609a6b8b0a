"""A search space: the parameters of a checked file, and what an assignment of them means."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np

from sim.codesign.choice import ModelChoice, Part
from sim.codesign.named import contents
from sim.codesign.ranges import Parameter, expand
from sim.codesign.recipes import effect
from sim.codesign.schema import RangeSpec, SpaceSpec, WorkloadSpec, overlay, validate
from sim.compression.benefit import wide_precision
from sim.errors import ConfigError, DovetailError, expect, nearest
from sim.hardware.chip import Chip
from sim.hardware.designs import Designs, read_path
from sim.hardware.load import load_hardware, read_yaml
from sim.resources import data_dir
from sim.workload.knobs import Description
from sim.workload.load import MODEL_FILES, Workload
from sim.workload.precision import parse_precision

Assignment = Mapping[str, Any]
ENUMERABLE = 200_000
"""Model sides up to which the size of the space is counted and not only bounded."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Parameters in order; `chip` carries the frozen keys, `fixed_knobs` those of each workload."""

    spec: SpaceSpec
    where: str
    chip: Chip
    parameters: tuple[Parameter, ...]
    descriptions: Mapping[str, Description]
    """label -> what the workload file says"""
    fixed_knobs: Mapping[str, Mapping[str, Any]]
    known: tuple[tuple[str, Assignment], ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the file said, to build the same space in another process."""
    folder: Path = field(default_factory=Path)
    """Where user functions and files are looked for."""
    notes: tuple[str, ...] = ()
    """What was skipped in the files that the space names."""

    @property
    def coarse(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if not p.inner)

    @property
    def inner(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.inner)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the workloads."""
        return tuple(_label(w) for w in self.spec.workloads)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.parameters)

    def inner_grid(self) -> dict[str, tuple[Any, ...]]:
        return {p.name: p.values for p in self.inner if p.values is not None}

    def listed(self) -> dict[str, tuple[Any, ...]]:
        """Chip path -> choices of all chip parameters that always count: one `Designs` knows the chips of them all."""
        return {p.name: p.values for p in self.parameters if p.side == "chip" and p.values is not None and not p.when}

    def active(self, assignment: Assignment) -> dict[str, Any]:
        """The parameters that count, in order: knobs of other workloads and unmet `when`s are left out."""
        found: dict[str, Any] = {}
        for p in self.parameters:
            if p.name not in assignment:
                continue
            if p.workload is not None and found.get("workload", p.workload) != p.workload:
                continue
            if all(found.get(other) in values for other, values in p.when.items()):
                found[p.name] = assignment[p.name]
        return found

    def choice(self, assignment: Assignment) -> ModelChoice:
        """The model's side of an assignment."""
        active = self.active(assignment)
        recipe = active.get("recipe")
        precision, sparsity = active.get("precision", self.chip.default_precision), active.get("sparsity", "none")
        if recipe is not None:
            wide = wide_precision(self.chip.main_unit.array)
            precision, sparsity = effect(recipe, wide=wide, folder=self.folder)
        labels = [active["workload"]] if "workload" in active else [_label(w) for w in self.spec.workloads]
        specs = {_label(w): w for w in self.spec.workloads}
        parts = tuple(self._part(specs[label], active) for label in labels)
        variant = active.get(f"{labels[0]}.variant") if len(labels) == 1 else None
        return ModelChoice(parts=parts, precision=precision, sparsity=sparsity, recipe=recipe, variant=variant)

    def _part(self, spec: WorkloadSpec, active: Assignment) -> Part:
        label = _label(spec)
        knobs = dict(self.fixed_knobs[label])
        if f"{label}.variant" in active:
            knobs |= spec.variants[active[f"{label}.variant"]]
        prefix = f"{label}."
        knobs |= {
            p.name.removeprefix(prefix): active[p.name]
            for p in self.parameters
            if p.workload == label and p.name in active and p.name != f"{label}.variant"
        }
        return Part(label=label, workload=spec.workload, knobs=tuple(sorted(knobs.items())), weight=spec.weight)

    def overrides(self, assignment: Assignment) -> dict[str, Any]:
        """Chip path -> value of the chip parameters that count."""
        active = self.active(assignment)
        sides = {p.name: p for p in self.parameters}
        found = {}
        for name, value in active.items():
            p = sides[name]
            if p.side == "chip":
                found[name] = p.text(value) if p.values is None else value
        return found

    def key(self, assignment: Assignment) -> str:
        """Canonical text of the coarse part: equal for assignments that mean the same."""
        coarse = {p.name for p in self.coarse}
        return json.dumps({k: v for k, v in self.active(assignment).items() if k in coarse}, sort_keys=True)

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """A uniform sample, inactive parameters left out."""
        return self.active({p.name: p.draw(rng) for p in self.parameters})

    def size(self) -> tuple[float, float, bool]:
        """(model sides, chips, counted exactly); infinite where a range is continuous."""
        sides = []
        exact = True
        for side in ("model", "chip"):
            mine = [p for p in self.parameters if p.side == side]
            total = prod((p.count for p in mine), start=1.0)
            linked = any(p.when or p.workload is not None for p in mine)
            if linked and total <= ENUMERABLE:
                names = [p.name for p in mine]
                values = [p.values for p in mine if p.values is not None]
                total = len({tuple(self.active(dict(zip(names, v, strict=True))).items()) for v in product(*values)})
            elif linked and total < inf:
                exact = False
            sides.append(total)
        return sides[0], sides[1], exact

    def size_text(self) -> str:
        """The size in words; a continuous range has no number of values."""
        model, chips, exact = self.size()
        if endless := [p.name for p in self.parameters if p.values is None]:
            return f"designs without number: {', '.join(endless)} {'is' if len(endless) == 1 else 'are'} continuous"
        most = "" if exact else "at most "
        return f"{most}{model:,.0f} model sides x {chips:,.0f} chips = {model * chips:,.0f} designs"

    def fingerprint(self) -> str:
        """Hash of what defines the space: a study continues only in the same one."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True, default=str).encode()).hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        from sim.hardware.dump import chip_hash

        loose = {"budget", "sampler", "title", "known", "name", "baselines"}
        spec = validate(self.document, where=self.where)  # workloads as the file names them, wherever it lies
        files = contents(spec, self.folder)
        return {**spec.model_dump(mode="json", exclude=loose), "chip": chip_hash(self.chip), **files}


def _label(spec: WorkloadSpec) -> str:
    if spec.name is not None:
        return spec.name
    path, _, function = spec.workload.partition(".py:")
    return Path(path).stem + (f"-{function}" if function else "")


def load_space(name_or_path: str | Path, *, short: bool = False, calibration: str | None = None) -> Space:
    """The space of a YAML file, or of a bundled name in `searches/`; `calibration` in place of the file's.

    Raises: ConfigError, WorkloadError, PrecisionError: a problem with its place; of the schema all of them.
    """
    expect(name_or_path, (str, Path), "a search's name, the path of its YAML file, or a Space", where="search")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and "/" not in str(name_or_path):
        bundled = {p.stem: p for p in sorted(data_dir("searches").glob("*.yaml"))}
        if str(name_or_path) not in bundled:
            raise ConfigError(
                f'search "{name_or_path}" is unknown: expected a path ending in .yaml or one of '
                f"{', '.join(bundled)}.{nearest(str(name_or_path), bundled)}"
            )
        path = bundled[str(name_or_path)]
    document = read_yaml(path)
    if short:
        if not isinstance(document, dict) or not document.get("short"):
            raise ConfigError(f"{path}: there is no short: block; run the search without --short")
        document = overlay(document, document["short"])
    if calibration is not None and isinstance(document, dict):
        document = overlay(document, {"scenario": {"calibration": calibration}})
    return build_space(document, where=str(path), folder=path.resolve().parent)


def build_space(document: Mapping[str, Any], *, where: str = "space", folder: Path | None = None) -> Space:
    """The space of a parsed document. Raises: as `load_space`."""
    from sim.codesign.checks import check

    spec = validate(document, where=where)
    here = [w.model_copy(update={"workload": _found(w.workload, folder)}) for w in spec.workloads]
    spec = spec.model_copy(update={"workloads": here})
    chip_file = (folder or Path()) / spec.chip
    with _at(f"{where}: chip"):
        chip = load_hardware(chip_file if spec.chip.endswith((".yaml", ".yml")) and chip_file.is_file() else spec.chip)
    chip_parameters, chip = _hardware(spec, chip, where)
    descriptions, fixed, model_parameters = _models(spec, where)
    parameters = [*model_parameters, *_compression(spec, chip, where, folder), *chip_parameters]
    names = [p.name for p in parameters]
    for p in parameters:
        _check_when(p, {q.name: q for q in parameters}, names, where)
    parameters = _levels(parameters, spec.budget.inner_points)
    space = Space(
        spec=spec, where=where, chip=chip, parameters=tuple(parameters), descriptions=descriptions, fixed_knobs=fixed,
        document=document, folder=folder or Path(),
    )  # fmt: skip
    known = tuple((k.name, _known(space, k.name, k.parameters)) for k in spec.known)
    space = replace(space, known=known)
    return replace(space, notes=check(space))


def _found(workload: str, folder: Path | None) -> str:
    """A model file beside the search file is found from anywhere; a bundled name stays as it is."""
    file, ending, function = workload.partition(".py")
    path = (folder or Path()) / (file + ending)
    return f"{path}{function}" if Path(workload.partition(":")[0]).suffix and path.is_file() else workload


def _hardware(spec: SpaceSpec, chip: Chip, where: str) -> tuple[list[Parameter], Chip]:
    """Parameters of the chip, and the chip with the frozen keys set; every value is tried."""
    with _at(f"{where}: hardware"):
        chip = chip.set_all({path: value for path, value in spec.hardware.items() if not isinstance(value, RangeSpec)})
    parameters = []
    for path, value in spec.hardware.items():
        if isinstance(value, RangeSpec):
            place = f"{where}: hardware.{path}"
            parameters.append(
                Parameter(name=path, side="chip", when=_when(value), coarse=value.coarse, **expand(value, where=place))
            )
    ends = {p.name: p.values if p.values is not None else (p.text(p.low), p.text(p.high)) for p in parameters}
    designs = Designs(chip, ends)
    for path in ends:
        with _at(f"{where}: hardware.{path}"):
            designs.check(path)
    return parameters, chip


def _when(value: RangeSpec) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(values) for name, values in value.when.items()}


def _models(spec: SpaceSpec, where: str) -> tuple[dict[str, Description], dict[str, dict], list[Parameter]]:
    labels = [_label(w) for w in spec.workloads]
    if len(set(labels)) != len(labels):
        raise ConfigError(f"{where}: workloads share a name: give each its own `name` ({', '.join(labels)})")
    alternatives = spec.combine == "one_of" and len(labels) > 1
    parameters = [Parameter(name="workload", side="model", values=tuple(labels))] if alternatives else []
    descriptions: dict[str, Description] = {}
    fixed: dict[str, dict] = {}
    for one, label in zip(spec.workloads, labels, strict=True):
        place = f"{where}: workloads.{label}"
        fixed[label] = {}
        if Path(one.workload).suffix in MODEL_FILES:
            if one.knobs or one.variants:
                raise ConfigError(f"{place}: a saved graph has no knobs or variants")
            continue
        with _at(place):
            description = descriptions[label] = Workload(one.workload).description
        if one.variants:
            for name, knobs in one.variants.items():
                _parsed(description, knobs, f"{place}.variants.{name}")
                _no_rival(one, label, name, place)
            parameters.append(
                Parameter(name=f"{label}.variant", side="model", values=tuple(one.variants), workload=label)
            )
        for knob, value in one.knobs.items():
            if isinstance(value, RangeSpec):
                p = Parameter(name=f"{label}.{knob}", side="model", workload=label, when=_when(value),
                              **expand(value, where=f"{place}.{knob}"))  # fmt: skip
                for option in p.values if p.values is not None else (p.low, p.high):
                    _parsed(description, {knob: option}, place)
                parameters.append(p)
            else:
                fixed[label] |= _parsed(description, {knob: value}, place)
    return descriptions, fixed, parameters


def _no_rival(spec: WorkloadSpec, label: str, variant: str, place: str) -> None:
    """A knob with a range would take the place of what the variant says of it, wherever both count."""
    for knob in spec.variants[variant]:
        value = spec.knobs.get(knob)
        if isinstance(value, RangeSpec) and variant in value.when.get(f"{label}.variant", [variant]):
            raise ConfigError(
                f"{place}.variants.{variant}: {knob} is searched in {label}.knobs too: state it in one, or give "
                f"the range a when: {{{label}.variant: [...]}} of the variants that leave it open"
            )


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Errors of ours inside begin with the place in the file."""
    try:
        yield
    except DovetailError as error:
        raise type(error)(f"{place}: {error}") from error


def _parsed(description: Description, knobs: Mapping[str, Any], place: str) -> dict[str, Any]:
    with _at(place):
        resolved = description.resolve(knobs)
    return {name: resolved[name] for name in knobs}


def _compression(spec: SpaceSpec, chip: Chip, where: str, folder: Path | None) -> list[Parameter]:
    parameters = []
    for name in ("precision", "sparsity", "recipe"):
        values = getattr(spec.compression, name)
        if values:
            parameters.append(Parameter(name=name, side="model", values=tuple(values)))
    with _at(f"{where}: compression.precision"):
        for precision in spec.compression.precision:
            parse_precision(precision)
    with _at(f"{where}: compression.recipe"):
        for recipe in spec.compression.recipe:
            effect(recipe, wide=wide_precision(chip.main_unit.array), folder=folder)
    for pattern in spec.compression.sparsity:
        n, colon, m = pattern.partition(":")
        if pattern != "none" and not (colon and n.isdigit() and m.isdigit() and 0 < int(n) < int(m)):
            raise ConfigError(f'{where}: compression.sparsity: "{pattern}": expected none or a pattern such as "2:4"')
    return parameters


def _check_when(p: Parameter, known: Mapping[str, Parameter], order: list[str], where: str) -> None:
    for other, values in p.when.items():
        if other not in known:
            raise ConfigError(f'{where}: {p.name}.when: "{other}" is no parameter.{nearest(other, known)}')
        if order.index(other) > order.index(p.name):
            raise ConfigError(f"{where}: {p.name}.when: {other} must stand before it in the file")
        allowed = known[other].values
        wrong = [v for v in values if allowed is None or v not in allowed]
        if wrong:
            raise ConfigError(f"{where}: {p.name}.when.{other}: {wrong[0]!r} is not among its choices {allowed}")


def _levels(parameters: list[Parameter], limit: int) -> list[Parameter]:
    """Chip parameters are swept inside a trial, from the file's last one backwards while the grid stays
    within `limit`; continuous and conditional ones, what others depend on, and what splits the network over chips are
    Optuna's."""
    from dataclasses import replace

    needed = {name for p in parameters for name in p.when}
    grid, result = 1.0, []
    full = False
    for p in reversed(parameters):
        coarse = p.when or p.coarse or p.name in needed or p.name.startswith("system.")
        able = p.side == "chip" and p.values is not None and not coarse
        full = full or (able and grid * p.count > limit)
        if able and not full:
            grid *= p.count
            result.append(replace(p, inner=True))
        else:
            result.append(p)
    return result[::-1]


def _known(space: Space, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A known design as a full assignment; what it does not name keeps the chip's or workload's own value."""
    where = f"{space.where}: known.{name}"
    for key in given:
        if key not in space.names:
            raise ConfigError(f'{where}: "{key}" is no parameter of this space.{nearest(key, space.names)}')
    found: dict[str, Any] = {}
    for p in space.parameters:
        value = given.get(p.name, _own(space, p))
        if p.values is not None:
            value = next((v for v in p.values if v == value or _same(space, p, v, value)), None)
        if value is None:
            raise ConfigError(
                f"{where}: {p.name}: {given.get(p.name, _own(space, p))!r} is not among its choices {p.values}; add it"
            )
        found[p.name] = value
    return found


def _own(space: Space, p: Parameter) -> Any:
    """The value that the base chip, the workload or the first choice has."""
    if p.side == "chip":
        return read_path(space.chip, p.name)
    if p.workload is not None and not p.name.endswith(".variant"):
        return space.descriptions[p.workload].knobs[p.name.removeprefix(f"{p.workload}.")].default
    if p.name == "precision":
        return space.chip.default_precision
    return p.values[0] if p.values else None


def _same(space: Space, p: Parameter, value: Any, own: Any) -> bool:
    """Does the choice `value` mean the chip's own number?"""
    if p.side != "chip":
        return False
    other = read_path(space.chip.set(p.name, own), p.name) if isinstance(own, str) else own
    try:
        return read_path(space.chip.set(p.name, value), p.name) == other
    except ConfigError:  # it stands with another parameter's value alone
        return False
