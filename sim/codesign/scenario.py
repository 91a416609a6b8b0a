"""From a space to what `evaluate` is asked: limits in base units, quality, the baseline, chips of a trial."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.codesign.checks import limits
from sim.codesign.choice import Scenario
from sim.codesign.evaluate import Sweep, Table, evaluate
from sim.codesign.quality import higher_is_better, judge, load_function
from sim.codesign.schema import BaselineSpec, SpeedUpSpec
from sim.errors import ConfigError
from sim.hardware.designs import Designs
from sim.resources import data_dir

if TYPE_CHECKING:
    import numpy as np

    from sim.baseline.record import BaselineRecord
    from sim.codesign.space import Assignment, Space

KEPT = 32
"""Sets of chips that a process remembers: building a grid tries every value on the chip."""


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
    )


def find_record(spec: BaselineSpec, space: Space) -> BaselineRecord:
    """The one baseline record that `spec` names. Raises: ConfigError: none or several, with what there is."""
    from sim.baseline.record import records_with_numbers

    folder = data_dir("baselines")
    files = [*sorted(folder.glob("*.jsonl")), folder / "published" / "gpu-models.jsonl"]
    if spec.file is not None:
        files = [next((p for p in (space.folder / spec.file, Path(spec.file)) if p.is_file()), Path(spec.file))]
    records = records_with_numbers(files)
    asked = {"device": spec.device, "workload": spec.workload, "precision": spec.precision}
    if spec.scenario is not None:
        asked["scenario"] = spec.scenario
    found = [
        r
        for r in records
        if all(getattr(r, name) == value for name, value in asked.items())
        and all(r.knobs.get(name) == value for name, value in spec.knobs.items())
    ]
    if len(found) != 1:
        words = ", ".join(f"{k}={v}" for k, v in (asked | spec.knobs).items())
        near = [f"{r.workload} {r.precision} {dict(r.knobs)} {r.scenario}" for r in found or records
                if r.device == spec.device]  # fmt: skip
        raise ConfigError(
            f"{space.where}: {len(found)} baseline records for {words}, expected one; of {spec.device} there are "
            f"{'; '.join(near[:8]) or 'none'}"
        )
    return found[0]


def seconds_per_sample(record: BaselineRecord) -> float:
    """Published records are per sample already; a measured run takes its whole batch."""
    assert record.median_s is not None
    batch = record.knobs.get("batch", 1) if record.kind != "published" else 1
    return record.median_s / float(batch)  # type: ignore[arg-type]


class Costing:
    """A space ready to be costed; remembers the chips of recent coarse choices."""

    def __init__(self, space: Space, *, sweep: Sweep | None = None) -> None:
        self.space, self.sweep = space, sweep
        self.scenario = make_scenario(space)
        self._designs: OrderedDict[tuple, Designs] = OrderedDict()

    def designs(self, assignment: Assignment) -> Designs:
        """All chips of the inner grid, with the coarse chip keys of the assignment set."""
        inner = {p.name for p in self.space.inner}
        coarse = {k: v for k, v in self.space.overrides(assignment).items() if k not in inner}
        key = tuple(sorted((name, str(value)) for name, value in coarse.items()))
        if key not in self._designs:
            chip = self.space.chip
            for path, value in coarse.items():
                chip = chip.set(path, value)
            self._designs[key] = Designs.grid(chip, self.space.inner_grid())
            if len(self._designs) > KEPT:
                self._designs.popitem(last=False)
        self._designs.move_to_end(key)
        return self._designs[key]

    def one(self, assignment: Assignment) -> Designs:
        """The single chip of a full assignment."""
        grid = self.designs(assignment)
        return Designs.rows(grid.chip, {p.name: [assignment[p.name]] for p in self.space.inner})

    def table(self, assignment: Assignment, *, against: np.ndarray | None = None, one: bool = False) -> Table:
        """Cost the assignment's model choice on its chips, or on the one chip that it names."""
        designs = self.one(assignment) if one else self.designs(assignment)
        return evaluate(
            self.space.choice(assignment), designs, self.scenario, against=against,
            estimates=self.space.spec.budget.estimates, sweep=self.sweep,
        )  # fmt: skip


def row_parameters(designs: Designs, row: int) -> dict[str, Any]:
    """The inner parameters of a design, as given in the file."""
    return {path: options[int(designs.indices[path][row])] for path, options in designs.choices.items()}
