"""What a search found: plain data that figures, tables and files are made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np

from sim.codesign.choice import OFFSETS
from sim.codesign.importance import shares
from sim.codesign.pareto import hypervolume, nadir, non_dominated

STAGES = ("estimates", "bounds", "guide", "traces", "optuna")
"""What a search spends its time on: `sim.sweep`; bounds, quality and scenario; choosing, with the bounds of what it
looks at; tracing each network once; sampler and storage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One told design: its full parameters, natural objective values, violations of the limits."""

    number: int
    parameters: Mapping[str, Any]
    values: tuple[float, ...]
    violations: Mapping[str, float] = field(default_factory=dict)
    known: str | None = None

    @property
    def feasible(self) -> bool:
        return all(amount <= 0 for amount in self.violations.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A point that others reached, for the figures; objectives that its record lacks are None."""

    name: str
    values: tuple[float | None, ...]
    source: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """A study's outcome. `rows` are all told designs in order of their trial; `signs` are 1 for what is
    minimised and -1 for what is maximised."""

    space: str
    title: str
    objectives: tuple[str, ...]
    signs: tuple[float, ...]
    rows: tuple[Row, ...]
    trials: int
    covered: int
    """Model-chip pairs of the trials' sweeps: each had its bounds computed."""
    points: int
    """Of these, pairs that were settled, by bound, guide or estimate."""
    costed: int
    counts: Mapping[str, int]
    """Reason -> model-chip pairs; "accepted" among them."""
    left_untold: int
    """Pareto rows of single trials that were not told back, for the sampler's sake."""
    repeats: int
    spent: Mapping[str, float]
    """Stage of `STAGES` -> CPU seconds, all workers together."""
    reached: tuple[tuple[int, int], ...]
    """(trial number, model-chip pairs settled up to it)"""
    sampler: str
    seed: int
    quality_sources: tuple[str, ...] = ()
    quality_metric: str = ""
    """What the objective "quality" measures; empty where it is none."""
    baselines: tuple[Baseline, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    """Metric -> its largest value in base units."""
    parents: Mapping[int, int] = field(default_factory=dict)
    """Number of a told row -> number of the trial that found it."""

    @property
    def limited(self) -> tuple[str, ...]:
        """What is limited and no objective: its values belong to a design too."""
        return tuple(name for name in self.limits if name not in self.objectives)

    def limited_value(self, row: Row, name: str) -> float:
        """Of a limited metric, from its share of the limit; NaN where the study does not hold that."""
        return float(f"{(1.0 + row.violations.get(name, nan)) * self.limits[name]:.12g}")

    def minimised(self, rows: tuple[Row, ...]) -> np.ndarray:
        """(n, m) objectives, all to be minimised."""
        values = np.array([row.values for row in rows]).reshape(-1, len(self.objectives))
        return values * np.array(self.signs) + np.array([OFFSETS.get(name, 0.0) for name in self.objectives])

    def scaled(self, rows: tuple[Row, ...]) -> np.ndarray:
        """(n, m) logarithms of the objectives, all to be minimised; see `logarithmic` of those that change sign."""
        values = self.minimised(rows)
        one_sign = (values > 0).all(axis=0) | (values < 0).all(axis=0)
        return logarithmic(values, signed=np.flatnonzero(~one_sign).tolist())

    @property
    def feasible(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.feasible)

    @property
    def front(self) -> tuple[Row, ...]:
        """The Pareto set; of rows with equal parameters the first."""
        rows = self.feasible
        if not rows:
            return ()
        kept, seen = [], set()
        for row, good in zip(rows, non_dominated(self.minimised(rows)), strict=True):
            key = repr(sorted(row.parameters.items()))
            if good and key not in seen:
                kept.append(row)
                seen.add(key)
        return tuple(sorted(kept, key=lambda row: self.signs[0] * row.values[0]))

    @property
    def nearest_miss(self) -> Row | None:
        """The design that broke its limits least, where none met them."""
        if self.feasible or not self.rows:
            return None
        return min(self.rows, key=lambda row: sum(max(0.0, v) for v in row.violations.values()))

    def history(self, *, steps: int = 50) -> tuple[list[int], list[float]]:
        """(model-chip pairs settled, share of the final hypervolume in log objectives); empty without a front.

        The reference point is the worst of all feasible rows, plus 10 % of the range.
        """
        rows = self.feasible
        if not rows or len(self.objectives) > 4:
            return [], []
        values = self.scaled(rows)
        reference = nadir(values)
        settled = dict(self.reached)
        owner = np.array([self.parents.get(row.number, row.number) for row in rows])
        marks = sorted(settled)
        chosen = [marks[i] for i in np.unique(np.linspace(0, len(marks) - 1, min(steps, len(marks))).astype(int))]
        volumes = [hypervolume(values[owner <= number], reference) for number in chosen]
        last = volumes[-1] or 1.0
        return [settled[number] for number in chosen], [volume / last for volume in volumes]

    def importance(self) -> dict[str, dict[str, float]]:
        """Objective -> parameter -> share of the variance of the objective's logarithm over all feasible rows that the
        parameter explains in a joint fit of all (`sim.codesign.importance`): in sum at most 1."""
        rows = self.feasible
        if not rows:
            return {objective: {} for objective in self.objectives}
        found = shares(self.settings, self.scaled(rows), seed=self.seed)
        return {
            objective: {name: float(share[k]) for name, share in found.items()}
            for k, objective in enumerate(self.objectives)
        }

    @property
    def settings(self) -> dict[str, list[str]]:
        """Parameter -> its value as text in each feasible row, "None" where the row has no such parameter."""
        rows = self.feasible
        names = dict.fromkeys(name for row in rows for name in row.parameters)
        return {name: [str(row.parameters.get(name)) for row in rows] for name in names}


def logarithmic(values: np.ndarray, *, signed: Collection[int] = ()) -> np.ndarray:
    """Logarithms of positive objectives; maximised ones (negative here) become -log of their size.

    Columns in `signed` may be of either sign, or 0 (a quality of one's own may be a gain over something): there
    sign(x) (1 + log|x|) from 1 on and x itself below, so that their order stays.
    """
    values = np.asarray(values, dtype=float)
    size = np.abs(values)
    found = np.sign(values) * np.log(np.maximum(size, 1e-300))
    for k in signed:
        far = np.sign(values[:, k]) * (1.0 + np.log(np.maximum(size[:, k], 1.0)))
        found[:, k] = np.where(size[:, k] < 1.0, values[:, k], far)
    return found
