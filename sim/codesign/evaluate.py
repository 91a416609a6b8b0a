"""`evaluate`: one model choice on many chips. Pure; knows nothing of how the choice was made.

Roofline bounds settle most chips: those that miss a limit whatever the mapping, and those that a
design already costed beats even at their bound. The others go to `estimate`, most promising first.
Nothing that could be on the Pareto front is dropped, unless `estimates` runs out, which is a reason
of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from sim.codesign.bounds import ChipBounds, lower_bounds
from sim.codesign.choice import ModelChoice, Part, Scenario, stored_bytes
from sim.codesign.guide import Guide, Promise
from sim.codesign.pareto import dominated_by, non_dominated
from sim.codesign.quality import called
from sim.codesign.trained import Trained
from sim.errors import DovetailError, InfeasibleError
from sim.hardware.designs import Designs
from sim.hardware.supply import supply_problems
from sim.workload.graph import Graph
from sim.workload.precision import parse_precision

BATCH = 32
"""Designs costed between two looks at what they exclude; without a guide twice as many each time, since those of one
structure are costed together and later ones exclude less."""
LEFT = "not costed, the trial's estimates ran out"
"""Reason of a row that nothing settled."""
UNLIKELY = "not costed, unlikely to improve the front"
"""Reason of a row whose optimistic prediction adds next to nothing (`sim.codesign.guide`)."""
BEATEN = "beaten even at its roofline"
UNDRIVEN = "beaten even with no deadline missed"
"""Reason of a row that is not simulated in its scenario."""
BEFORE = "costed in an earlier trial"
"""Reason of a row that is not costed again."""
ALLOWED = "accepted"
"""Reason of a row that is costed and meets every limit."""


FUNCTION = "function "
"""The column of a user's function among the metrics begins so; functions do not see it."""


class Sweep(Protocol):
    """`sim.sweep` or a stand-in: columns latency_s, energy_j, infeasible and reason, one row a design."""

    def __call__(
        self, workload: Any, chip: Any, chip_grid: Any, *, precisions: Any, objective: str, map_space: str
    ) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Table:
    """One row per design, in the order of the designs.

    `metrics` are in base units, bounds where `costed` is False. `objectives` (n, m) are to be
    minimised (`Scenario.minimised`). `violations` maps a limit to metric / limit - 1 (at or
    below 0: met); of a row that was not costed it is a lower bound. `reason` is "accepted", or why not.
    """

    metrics: Mapping[str, np.ndarray]
    objectives: np.ndarray
    violations: Mapping[str, np.ndarray]
    reason: np.ndarray
    costed: np.ndarray
    quality_source: str = ""
    training: Mapping[str, Any] | None = None
    """What training the choice showed (`sim.codesign.trained.Course`), where it was trained."""

    def __len__(self) -> int:
        return len(self.reason)

    def values(self, objectives: tuple[str, ...], row: int) -> tuple[float, ...]:
        """Natural values of the objectives of one row."""
        return tuple(float(self.metrics[name][row]) for name in objectives)

    @property
    def accepted(self) -> np.ndarray:
        return self.reason == ALLOWED

    @property
    def counts(self) -> dict[str, int]:
        """Reason -> rows; the details after ": " are left out."""
        return dict(Counter(str(text).partition(": ")[0] for text in self.reason))

    @property
    def worst_violation(self) -> np.ndarray:
        """(n,) sum of what is violated; 0 for rows that meet all limits."""
        total = np.zeros(len(self))
        for amounts in self.violations.values():
            total = total + np.maximum(amounts, 0.0)
        return total


def evaluate(
    choice: ModelChoice,
    designs: Designs,
    scenario: Scenario,
    *,
    against: np.ndarray | None = None,
    estimates: int | None = None,
    sweep: Sweep | None = None,
    guide: Guide | None = None,
    features: np.ndarray | None = None,
    before: np.ndarray | None = None,
    chips: ChipBounds | None = None,
    always: bool = False,
) -> Table:
    """Cost one model choice on every design that is worth it.

    Args:
        against: (k, m) objectives already reached; designs that these beat at their bound are not costed.
        estimates: how many designs may be costed at most; all if None.
        sweep: `sim.sweep` if None.
        guide, features (n, f): what earlier choices taught; designs that it holds for unlikely to improve
            the front are not costed. Without it all are that the roofline leaves.
        before: (n,) designs that were costed earlier.
        chips: the designs' own `ChipBounds`, where they are met again.
        always: cost designs that miss a limit too; the reason then says which.
    Raises: DovetailError: the choice runs on none of the chips (unknown precision, unsupported op).
    """
    evaluation = _Evaluation(choice, designs, scenario, sweep or exact_sweep(scenario.calibration), chips)
    if before is not None:
        evaluation.reason[before] = BEFORE
    if guide is not None:
        assert features is not None
        guided = _Guided(guide, features, evaluation.at_roofline)
        return evaluation.run(against, estimates, guided, always=always)
    return evaluation.run(against, estimates, None, always=always)


def at_roofline(
    choice: ModelChoice, designs: Designs, scenario: Scenario, chips: ChipBounds | None = None
) -> np.ndarray:
    """Objectives (n, m) at the roofline, to be minimised; nan where a limit is broken there already.

    Raises: as `evaluate`.
    """
    evaluation = _Evaluation(choice, designs, scenario, exact_sweep(), chips)
    evaluation.reject_at_roofline()
    return np.where((evaluation.reason == "")[:, None], evaluation.at_roofline, np.nan)


def exact_sweep(calibration: str = "auto") -> Sweep:
    """`sim.sweep` with this calibration, loaded when it is needed."""
    from sim.sweeping import sweep

    return partial(sweep, calibration=calibration)


class _Evaluation:
    """The columns while they are filled."""

    def __init__(
        self, choice: ModelChoice, designs: Designs, scenario: Scenario, sweep: Sweep, chips: ChipBounds | None
    ) -> None:
        chips = chips or ChipBounds(designs)
        self.choice, self.designs, self.scenario, self.sweep = choice, designs, scenario, sweep
        self.n = len(designs)
        self.precision = parse_precision(choice.precision, designs.row(0).main_unit.array.macs_per_cycle)
        self.graphs = choice.graphs()
        self.reason = np.full(self.n, "", dtype=object)
        self.costed = np.zeros(self.n, dtype=bool)
        self.quality_source = ""
        self.metrics = {name: column.copy() for name, column in chips.metrics.items()} | self._model_metrics()
        bounds = [lower_bounds(graph, designs, self.precision, chips) for graph in self.graphs]
        latency, energy = (np.array([b[k] for b in bounds]) for k in (0, 1))
        self._set(slice(None), latency, energy)
        self.training: Mapping[str, Any] | None = None
        trained = scenario.quality if isinstance(scenario.quality, Trained) else None
        self.trained = trained
        if trained is not None:
            self.metrics["quality"] = np.full(self.n, trained.guess(choice))
        self.at_roofline = self._objectives()
        if trained is not None:
            self.metrics["quality"] = np.full(self.n, trained.best_case(choice))

    def reject_at_roofline(self) -> None:
        """Rows that do not run at their supply, or miss a limit whatever the mapping."""
        for row, why in supply_problems(self.designs).items():
            self.reason[row] = f"does not fit: {self.designs.chip.name}: {why}"
        self._reject(~self.costed, " at its roofline")

    def _model_metrics(self) -> dict[str, np.ndarray]:
        """What the chip does not change: quality, stored bytes."""
        memory = sum(stored_bytes(graph, self.precision) for graph in self.graphs)
        found = {"memory": np.full(self.n, memory)}
        if self.scenario.quality is not None and not isinstance(self.scenario.quality, Trained):
            quality = self.scenario.quality(self.choice)
            self.quality_source = quality.source
            found["quality"] = np.full(self.n, quality.value)
        return found

    def _set(self, rows: Any, latency: np.ndarray, energy: np.ndarray) -> None:
        """Metrics of some rows from (parts, rows) of latency and energy."""
        weights = np.array([part.weight for part in self.choice.parts])[:, None]
        batches = np.array([graph.batch for graph in self.graphs])[:, None]
        if self.scenario.combine == "worst":  # each number is that of the workload that has it worst
            named = {
                "latency": latency.max(axis=0), "energy": energy.max(axis=0), "edp": (latency * energy).max(axis=0),
                "power": (energy / latency).max(axis=0), "throughput": (batches / latency).min(axis=0),
            }  # fmt: skip
        else:  # of a mix in which `weights` are the shares of the inferences, one after the other
            share = weights / weights.sum()
            mean_latency, mean_energy = (share * latency).sum(axis=0), (share * energy).sum(axis=0)
            named = {
                "latency": mean_latency, "energy": mean_energy, "edp": mean_latency * mean_energy,
                "power": mean_energy / mean_latency, "throughput": (share * batches).sum(axis=0) / mean_latency,
            }  # fmt: skip
        if not self.costed[rows].all():  # a slower run of the same energy needs less: a bound says nothing of power
            named["power"] = np.zeros_like(named["power"])
        if self.scenario.driven is not None and not self.costed.any():
            named["goodput"] = self.scenario.driven.most(self.choice, latency)
            named["miss_rate"] = np.zeros(self.n)
        if self.scenario.baseline_s is not None:
            named["speed_up"] = self.scenario.baseline_s * named["throughput"]
        for name, column in named.items():
            self.metrics.setdefault(name, np.full(self.n, np.nan))[rows] = column

    def run(
        self, against: np.ndarray | None, estimates: int | None, guided: _Guided | None, *, always: bool = False
    ) -> Table:
        if not always:
            self.reject_at_roofline()
        left = self.n if estimates is None else estimates
        front = np.empty((0, len(self.scenario.objectives))) if against is None else np.asarray(against, dtype=float)
        if self.trained is not None:
            self._train(self.trained, front, always=always)
        batch = BATCH
        while (open_ := np.flatnonzero(self.reason == "")).size:
            objectives = self._objectives()
            beaten = dominated_by(objectives[open_], front)
            if beaten.all() and not self.costed.any():  # a trial has something costed to show
                beaten[np.argmin(_rank(objectives[open_]))] = False
            self.reason[open_[beaten]] = BEATEN
            open_ = open_[~beaten]
            if left <= 0:
                self.reason[open_] = LEFT
                break
            if not open_.size:
                break
            if guided is None:
                rows = _promising(objectives[open_], open_)[: min(batch, left)]
                batch *= 2
            else:
                rows = guided.pick(open_, front, min(batch, left))
                if not len(rows) and self.costed.any():
                    self.reason[open_] = UNLIKELY
                    break
                rows = rows if len(rows) else open_[[np.argmin(_rank(objectives[open_]))]]
            left -= len(rows)
            self._cost(np.sort(rows), front)
            if guided is not None:
                guided.learn(rows[self.costed[rows] & (self.reason[rows] != UNDRIVEN)], self._objectives())
            best = self._objectives()[self.accepted_rows()]
            front = np.concatenate([front, best[non_dominated(best)]]) if len(best) else front
        return self.table()

    def table(self) -> Table:
        return Table(
            metrics=self.metrics, objectives=self._objectives(), violations=self._violations(), reason=self.reason,
            costed=self.costed, quality_source=self.quality_source, training=self.training,
        )  # fmt: skip

    def _train(self, trained: Trained, front: np.ndarray, *, always: bool) -> None:
        """Train the model as far as it is worth it on some chip; where it is not, no chip is costed and its quality is
        not known."""

        def worth(quality: float) -> bool:
            if always:
                return True
            self.metrics["quality"] = np.full(self.n, quality)
            broken = np.any([amount > 0 for amount in self._violations().values()], axis=0)
            open_ = (self.reason == "") & ~broken
            return bool(open_.any() and not dominated_by(self._objectives()[open_], front).all())

        if not worth(trained.best_case(self.choice)):
            self.metrics["quality"] = np.full(self.n, np.nan)
            self.reason[self.reason == ""] = "not trained, no chip is worth it"
            return
        course = trained.judge(self.choice, worth)
        self.training = course.to_dict()
        if course.final is None:
            self.metrics["quality"] = np.full(self.n, np.nan)
            share = f"{course.looks[-1][0]:.0%}"
            self.reason[self.reason == ""] = f"training stopped at {share}, no chip is worth the rest"
            return
        quality = trained.quality(course)
        self.quality_source = quality.source
        self.metrics["quality"] = np.full(self.n, quality.value)
        self._reject(self.reason == "", "")

    def accepted_rows(self) -> np.ndarray:
        return np.flatnonzero(self.reason == ALLOWED)

    def _cost(self, rows: np.ndarray, front: np.ndarray) -> None:
        """Hand some designs to the sweep, those that are worth it to the scenario, and settle them."""
        part = self.designs.take(rows)
        latency, energy = np.empty((len(self.graphs), len(rows))), np.empty((len(self.graphs), len(rows)))
        failed = np.full(len(rows), "", dtype=object)
        for i, graph in enumerate(self.graphs):
            try:
                table = self.sweep(
                    graph, part.chip, part, precisions=[self.choice.precision],
                    objective=self.scenario.mapping_for, map_space=self.scenario.map_space,
                )  # fmt: skip
            except DovetailError as error:
                if error.exit_code != 1:
                    raise
                failed[:] = f"does not fit: {error}"
                break
            latency[i], energy[i] = table["latency_s"], table["energy_j"]
            bad = np.asarray(table["infeasible"], dtype=bool)
            failed[bad] = [f"does not fit: {text}" for text in np.asarray(table["reason"], dtype=object)[bad]]
        good = failed == ""
        self.reason[rows[~good]] = failed[~good]
        chosen = rows[good]
        self.costed[chosen] = True
        if len(chosen):
            self._set(chosen, latency[:, good], energy[:, good])
        self._reject(np.isin(np.arange(self.n), chosen), "")
        self._drive(chosen, front)
        self._functions(chosen)
        open_ = chosen[self.reason[chosen] == ""]
        self.reason[open_] = ALLOWED

    def _drive(self, rows: np.ndarray, front: np.ndarray) -> None:
        """Simulate the scenario on rows that meet their limits and could still be on the front."""
        if self.scenario.driven is None:
            return
        open_ = rows[self.reason[rows] == ""]
        self.reason[open_[dominated_by(self._objectives()[open_], front)]] = UNDRIVEN
        for row in open_[self.reason[open_] == ""]:
            try:
                found = self.scenario.driven.run(self.choice, self.designs.row(int(row)))
            except InfeasibleError as error:
                self.reason[row] = f"scenario: {error}"
                continue
            for name, value in found.items():
                self.metrics[name][row] = value
            if not found["goodput"] > 0:
                self.reason[row] = "scenario: no job meets its deadline"
        self._reject(np.isin(np.arange(self.n), open_), "")

    def _functions(self, rows: np.ndarray) -> None:
        """The user's constraints, row by row."""
        for name, function in self.scenario.functions:
            column = self.metrics.setdefault(FUNCTION + name, np.full(self.n, np.nan))
            for row in rows:
                metrics = {k: float(v[row]) for k, v in self.metrics.items() if not k.startswith(FUNCTION)}
                facts = {**self.choice.facts(), **metrics}
                column[row] = called(function, name, facts, "constraints.functions")
                if not column[row] <= 0 and self.reason[row] == "":
                    self.reason[row] = f"{name}: {column[row]:.4g} above 0"

    def _objectives(self) -> np.ndarray:
        columns = [self.scenario.minimised(name, self.metrics[name]) for name in self.scenario.objectives]
        return np.stack(columns, axis=1)

    def _violations(self) -> dict[str, np.ndarray]:
        found = {name: self.metrics[name] / limit - 1.0 for name, limit in self.scenario.limits.items()}
        for name, bound, sign in (("quality floor", self.scenario.quality_min, -1.0),
                                  ("quality ceiling", self.scenario.quality_max, 1.0)):  # fmt: skip
            if bound is not None:
                found[name] = sign * (self.metrics["quality"] - bound) / (abs(bound) or 1.0)
        for name, _ in self.scenario.functions:
            found[name] = np.nan_to_num(self.metrics.get(FUNCTION + name, np.zeros(self.n)), nan=0.0)
        return found

    def _reject(self, rows: np.ndarray, when: str) -> None:
        """Give the rows that break a limit its name and by how much."""
        for name, amount in self._violations().items():
            for row in np.flatnonzero(rows & (self.reason == "") & ~(amount <= 0)):
                certain = name in ("area", "peak_power", "die_cost", "memory") or name.startswith("quality")
                self.reason[row] = f"{name + when * (not certain)}: {amount[row]:.1%} beyond its limit"


class _Guided:
    """The guide on the rows of one evaluation."""

    def __init__(self, guide: Guide, features: np.ndarray, at_roofline: np.ndarray) -> None:
        self.guide, self.features, self.at_roofline = guide, features, at_roofline

    def pick(self, rows: np.ndarray, front: np.ndarray, most: int) -> np.ndarray:
        """Some of `rows`, the most promising first; none where nothing promises to improve the front."""
        predicted = self.guide.predict(self.features[rows], self.at_roofline[rows])
        beyond = Promise.beyond(front, predicted, seed=len(front), signed=self.guide.signed)
        return rows[beyond.pick(predicted, most)]

    def learn(self, rows: np.ndarray, objectives: np.ndarray) -> None:
        self.guide.learn(self.features[rows], self.at_roofline[rows], objectives[rows])


def _rank(objectives: np.ndarray) -> np.ndarray:
    """Sum of the ranks in each objective: scale-free promise of a row, small is good."""
    return np.argsort(np.argsort(objectives, axis=0, kind="stable"), axis=0, kind="stable").sum(axis=1)


def _promising(objectives: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`rows` by promise: the bounds' own front first, and within it and after it by rank."""
    return rows[np.lexsort((_rank(objectives), ~non_dominated(objectives)))]


def one_workload(graph: Graph, precision: str) -> ModelChoice:
    """The choice of a traced graph at a precision, for use without a space."""
    return ModelChoice(parts=(Part(label=graph.name or "graph", workload="", graph=graph),), precision=precision)


__all__ = ["ALLOWED", "BEFORE", "LEFT", "UNLIKELY", "Table", "at_roofline", "evaluate", "exact_sweep", "one_workload"]
