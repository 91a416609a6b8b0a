"""From a space to what `evaluate` is asked: limits in base units, quality, the baseline, chips of a trial."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.codesign.bounds import ChipBounds, Demand
from sim.codesign.checks import limits
from sim.codesign.choice import ModelChoice, Scenario
from sim.codesign.evaluate import Sweep, Table, at_roofline, evaluate, exact_sweep
from sim.codesign.guide import Guide
from sim.codesign.quality import higher_is_better, judge, load_function
from sim.codesign.schema import BaselineSpec, SpeedUpSpec
from sim.codesign.streams import Driven
from sim.codesign.trained import Trained
from sim.errors import ConfigError, InfeasibleError, nearest, whole
from sim.hardware.designs import Designs
from sim.resources import data_dir

if TYPE_CHECKING:
    from sim.baseline.record import BaselineRecord
    from sim.codesign.space import Assignment, Space

BOUNDS_KEPT = 32_768
"""Model-chip pairs whose roofline objectives a process remembers."""
LOOKED = 256
"""Chips of a coarse choice that stand for all of them when choices are compared."""
KEPT = 32
"""Sets of chips whose bounds a process remembers."""


def make_scenario(space: Space) -> Scenario:
    """Raises: ConfigError: no or several baseline records, a function that cannot be loaded."""
    spec, constraints = space.spec, space.spec.constraints
    record = next((o.speed_up for o in spec.objectives if isinstance(o, SpeedUpSpec)), None)
    floor = constraints.quality
    return Scenario(
        objectives=spec.objective_names,
        limits=limits(space),
        quality=judge(spec.quality, folder=space.folder, where=space.where) if spec.quality else None,
        quality_higher_is_better=higher_is_better(spec.quality) if spec.quality else True,
        quality_min=floor.min if floor else None,
        quality_max=floor.max if floor else None,
        functions=tuple(
            (text, load_function(text, folder=space.folder, where=f"{space.where}: constraints.functions"))
            for text in constraints.functions
        ),
        combine="worst" if spec.combine == "worst" else "weighted",
        baseline_s=seconds_per_sample(find_record(record, space)) if record else None,
        mapping_for=spec.scenario.mapping_for,
        map_space=spec.scenario.map_space,
        calibration=spec.scenario.calibration,
        driven=Driven.of(space),
    )


def find_record(spec: BaselineSpec, space: Space, note: Callable[[str], None] = lambda line: None) -> BaselineRecord:
    """The one baseline record that `spec` names; `note` is told every broken line, which is skipped.

    Raises: ConfigError: no such file, no such record or several, with what there is.
    """
    from sim.baseline.record import records_with_numbers

    folder = data_dir("baselines")
    files = [*sorted(folder.glob("*.jsonl")), folder / "published" / "gpu-models.jsonl"]
    if spec.file is not None:
        files = [p for p in (space.folder / spec.file, Path(spec.file)) if p.is_file()][:1]
        if not files:
            raise ConfigError(f"{space.where}: {spec.file}: no such file; expected a baseline file")
    records = [r for r in records_with_numbers(files, note) if r.workload is not None]
    asked = {"device": spec.device, "workload": spec.workload, "precision": spec.precision}
    asked |= {k: v for k, v in (("mode", spec.mode), ("scenario", spec.scenario)) if v is not None}
    found = [
        r
        for r in records
        if all(getattr(r, name) == value for name, value in asked.items())
        and all(r.knobs.get(name) == value for name, value in spec.knobs.items())
    ]
    if len(found) != 1:
        words = ", ".join(f"{k}={v}" for k, v in (asked | spec.knobs).items())
        raise ConfigError(
            f"{space.where}: {len(found) or 'no'} baseline records for {words}, expected one. "
            f"{_records(spec, found or records)}"
        )
    return found[0]


SHOWN = 8
"""Records that an error lists."""


def _records(spec: BaselineSpec, records: Sequence[BaselineRecord]) -> str:
    """Of these records those of the device, of the workload first, so that each can be told from the others."""
    devices = sorted({r.device for r in records})
    if spec.device not in devices:
        return f'Device "{spec.device}" has none: expected one of {", ".join(devices)}.{nearest(spec.device, devices)}'
    own = sorted((r for r in records if r.device == spec.device), key=lambda r: r.workload != spec.workload)
    words = [
        f"{r.workload} {r.precision} mode={r.mode.value}"
        + "".join(f" {k}={v}" for k, v in r.knobs.items())
        + (f" scenario={r.scenario}" if r.scenario else "")
        for r in own
    ]
    more = f"; and {len(own) - SHOWN} more" if len(own) > SHOWN else ""
    return f"Of {spec.device} there are: {'; '.join(words[:SHOWN])}{more}"


def seconds_per_sample(record: BaselineRecord) -> float:
    """Published records are per sample already; a measured run takes its whole batch.

    Raises: ConfigError: a record whose batch is no count.
    """
    assert record.median_s is not None
    batch = record.knobs.get("batch", 1) if record.kind != "published" else 1
    return record.median_s / whole(batch, where=f"the record of {record.target} on {record.device}: batch")


class Costing:
    """A space ready to be costed; remembers the chips of recent coarse choices."""

    def __init__(self, space: Space, *, sweep: Sweep | None = None) -> None:
        self.space, self.scenario = space, make_scenario(space)
        self.sweep = sweep or exact_sweep(self.scenario.calibration)
        self._demands: dict[tuple, Demand] = {}
        self._chips: OrderedDict[tuple, ChipBounds] = OrderedDict()
        self._templates: OrderedDict[tuple, Designs] = OrderedDict()
        self._bounds: OrderedDict[str, tuple[Assignment, np.ndarray, np.ndarray, np.ndarray]] = OrderedDict()
        """Coarse choice -> of some of its chips: what the guide sees, objectives at the roofline, which they are."""
        self.changes = 0
        """Counts what changes the answer of `promise` here: choices looked at, chips costed."""
        self._costed: dict[str, np.ndarray] = {}
        """Coarse choice -> which of its chips this process has costed."""

    def designs(self, assignment: Assignment) -> Designs:
        """All chips of the inner grid, with the coarse chip keys of the assignment set."""
        return self.chips(assignment).designs

    def chips(self, assignment: Assignment) -> ChipBounds:
        """The same with their bounds."""
        inner = self.space.inner_grid()
        coarse = {k: v for k, v in self.space.overrides(assignment).items() if k not in inner}
        key = tuple(sorted((name, str(value)) for name, value in coarse.items()))
        if key not in self._chips:
            every, own = self._every(assignment, inner)
            sizes = [len(options) for options in inner.values()]
            length = prod(sizes)
            places = dict(zip(inner, np.unravel_index(np.arange(length), sizes), strict=True)) if inner else {}
            places |= {path: np.full(length, place) for path, place in own.items()}
            self._chips[key] = ChipBounds(every.at(places, length), self._demands)
            if len(self._chips) > KEPT:
                self._chips.popitem(last=False)
        self._chips.move_to_end(key)
        return self._chips[key]

    def _every(self, assignment: Assignment, inner: Collection[str] = ()) -> tuple[Designs, dict[str, int]]:
        """(a design of all listed choices; which of them the assignment has, but of `inner`).

        Raises: InfeasibleError: values that do not go together.
        """
        try:
            every = self._template(assignment)
            places = {p: options.index(assignment[p]) for p, options in every.choices.items() if p not in inner}
            every.changed(tuple(places.items()))
        except ConfigError as error:  # each value by itself is right
            raise InfeasibleError(f"values that do not go together: {error}") from error
        return every, places

    def _template(self, assignment: Assignment) -> Designs:
        """A design of all listed choices, whose chips are made once for all trials. Continuous keys and those that
        count under conditions are set on the chip itself."""
        listed = self.space.listed()
        own = {k: v for k, v in self.space.overrides(assignment).items() if k not in listed}
        key = tuple(sorted((name, str(value)) for name, value in own.items()))
        if key not in self._templates:
            chip = self.space.chip.set_all(own)
            self._templates[key] = Designs(chip, listed, {path: np.zeros(1, dtype=int) for path in listed})
            if len(self._templates) > KEPT:
                self._templates.popitem(last=False)
        self._templates.move_to_end(key)
        return self._templates[key]

    def one(self, assignment: Assignment) -> Designs:
        """The single chip of a full assignment."""
        every, places = self._every(assignment)
        return every.at({path: np.array([place]) for path, place in places.items()}, 1)

    def table(
        self, assignment: Assignment, *, against: np.ndarray | None = None, one: bool = False,
        estimates: int | None = None, guide: Guide | None = None, sweep: Sweep | None = None,
    ) -> Table:  # fmt: skip
        """Cost the assignment's model choice on its chips, or on the one chip that it names.

        With a guide a choice may come again: what this process has costed of it is left out. `sweep` stands in
        for the costing's own.
        """
        designs = self.one(assignment) if one else self.designs(assignment)
        most = self.space.spec.budget.estimates
        key = self.space.key(assignment)
        table = evaluate(
            self.space.choice(assignment), designs, self.scenario, against=against,
            estimates=most if estimates is None else min(most, estimates), sweep=sweep or self.sweep, guide=guide,
            features=None if guide is None else self._features(guide, assignment, designs),
            before=None if one or guide is None else self._costed.get(key),
            chips=None if one else self.chips(assignment), always=one,
        )  # fmt: skip
        if guide is not None and not one:
            self.changes += 1
            self._costed[key] = table.costed | self._costed.get(key, np.zeros(len(designs), dtype=bool))
        return table

    def _features(self, guide: Guide, assignment: Assignment, designs: Designs) -> np.ndarray:
        """What the guide sees of each design."""
        active = self.space.active(assignment)
        columns = {p.name: designs.indices[p.name] for p in self.space.inner}
        return guide.encode(active, columns, len(designs))

    def trace(self, assignment: Assignment) -> None:
        """Have the networks of a choice traced, where its quality does not exclude it. Raises: as `evaluate`."""
        choice = self.space.choice(assignment)
        if not self._too_poor(choice):
            choice.graphs()

    def look(self, assignment: Assignment, guide: Guide) -> None:
        """Put a coarse choice's chips among those that `promise` compares. Raises: as `evaluate`."""
        key = self.space.key(assignment)
        if key in self._bounds:
            return
        choice, designs = self.space.choice(assignment), self.designs(assignment)
        if self._too_poor(choice):  # known without a trace of the network
            bound = np.full((len(designs), len(self.scenario.objectives)), np.nan)
        else:
            bound = at_roofline(choice, designs, self.scenario, self.chips(assignment))
        usable = np.flatnonzero(np.isfinite(bound).all(axis=1))
        rows = np.random.default_rng(len(usable)).permutation(usable)[:LOOKED]
        self.changes += 1
        self._bounds[key] = dict(assignment), self._features(guide, assignment, designs)[rows], bound[rows], rows
        while len(self._bounds) > BOUNDS_KEPT // LOOKED:
            self._bounds.popitem(last=False)

    def _too_poor(self, choice: ModelChoice) -> bool:
        """Does the quality, where it is known, miss its bounds? A network whose training was stopped stays so."""
        low, high, quality = self.scenario.quality_min, self.scenario.quality_max, self.scenario.quality
        if isinstance(quality, Trained):
            course = quality.courses.get(quality.key(choice))
            if course is None or course.final is None:
                return course is not None
            value = course.final
        elif quality is None or (low is None and high is None):
            return False
        else:
            value = quality(choice).value
        return (low is not None and value < low) or (high is not None and value > high)

    def promise(self, guide: Guide) -> tuple[list[Assignment], np.ndarray, np.ndarray]:
        """(coarse choices looked at; number of its choice, optimistic log objectives of every chip that may
        still be costed)."""
        choices, owners, features, bounds = [], [], [], []
        looked = list(self._bounds.items())
        if isinstance(self.scenario.quality, Trained):  # what training has shown since they were looked at
            looked = [item for item in looked if not self._too_poor(self.space.choice(item[1][0]))]
        for number, (key, (assignment, seen, bound, rows)) in enumerate(looked):
            open_ = ~self._costed[key][rows] if key in self._costed else np.ones(len(rows), dtype=bool)
            choices.append(assignment)
            owners.append(np.full(int(open_.sum()), number))
            features.append(seen[open_])
            bounds.append(bound[open_])
        if not choices:
            return [], np.zeros(0, dtype=int), np.empty((0, len(self.scenario.objectives)))
        return choices, np.concatenate(owners), guide.predict(np.concatenate(features), np.concatenate(bounds))


def row_parameters(designs: Designs, row: int) -> dict[str, Any]:
    """The inner parameters of a design, as given in the file."""
    return {path: options[int(designs.indices[path][row])] for path, options in designs.choices.items()}
