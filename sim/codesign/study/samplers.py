"""Samplers by name, and the wrapper that lets the inner sweep choose a trial's inner parameters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)  # fmt: skip
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sim.codesign.ranges import Parameter
from sim.codesign.schema import SamplerSpec
from sim.codesign.space import Space
from sim.errors import ConfigError

TOLD_ROWS = {"nsga2": 16, "nsga3": 16, "random": 16, "qmc": 16, "cmaes": 4, "tpe": 2, "gp": 1}
"""Further Pareto rows of a trial that are told back as trials of their own. TPE slows down with the
square of the history and GP with its cube, so they are told few."""
FEW_TRIALS = 40
"""Up to here the default is TPE: NSGA-II would not leave its first, random generation."""


def default_sampler(trials: int, objectives: int) -> str:
    """The sampler that `auto` stands for: NSGA-II, but TPE for few trials (its own cost is 14 ms a trial
    with three objectives at 100 trials, and an evaluation costs seconds), NSGA-III above three objectives."""
    if trials <= FEW_TRIALS:
        return "tpe"
    return "nsga3" if objectives > 3 else "nsga2"


def make_sampler(name: str, spec: SamplerSpec, *, seed: int, objectives: int) -> BaseSampler:
    """The named sampler. Raises: ConfigError: CMA-ES with several objectives, or its package missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match name:
            case "nsga2":
                return NSGAIISampler(population_size=spec.population, seed=seed)
            case "nsga3":
                return NSGAIIISampler(population_size=spec.population, seed=seed)
            case "tpe":
                return TPESampler(seed=seed, multivariate=True, n_startup_trials=10)
            case "gp":
                return GPSampler(seed=seed)
            case "qmc":
                # the sequence is shared through the study, so that all workers need the file's seed
                return QMCSampler(scramble=True, seed=spec.seed, warn_asynchronous_seeding=False,
                                  warn_independent_sampling=False)  # fmt: skip
            case "random":
                return RandomSampler(seed=seed)
            case "cmaes":
                return _cmaes(seed, objectives)
    raise ConfigError(f'sampler "{name}" is unknown')


def _cmaes(seed: int, objectives: int) -> BaseSampler:
    from importlib.util import find_spec

    if objectives > 1:
        raise ConfigError(f"sampler cmaes takes one objective, the space has {objectives}; use nsga2 or tpe")
    if find_spec("cmaes") is None:
        raise ConfigError("sampler cmaes needs the package cmaes (pip install cmaes)")
    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def distribution(parameter: Parameter) -> BaseDistribution:
    """Choices are categories, continuous ranges are floats."""
    if parameter.values is None:
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return CategoricalDistribution(list(parameter.values))


class InnerChoice(BaseSampler):
    """Passes all on to `base`, but answers with `chosen` where the inner sweep has decided.

    The joint proposal of `base` is kept in `proposal`: the sweep reports the Pareto row nearest to it,
    so that a member of a population stays in the part of the trade-off that its genes stand for.
    """

    def __init__(self, base: BaseSampler) -> None:
        self.base = base
        self.proposal: dict[str, Any] = {}
        self.chosen: Mapping[str, Any] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        space = self.base.infer_relative_search_space(study, trial)
        self.proposal = dict(self.base.sample_relative(study, trial, space))
        self.chosen = {}
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        for source in (self.chosen, self.proposal):
            if param_name in source:
                return source[param_name]
        return self.base.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.base.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.base.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self.base.reseed_rng()


def nearest_row(space: Space, rows: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> int:
    """The row that differs from `wanted` in the fewest inner parameters, by steps along their choices."""

    def far(row: Mapping[str, Any]) -> float:
        total = 0.0
        for p in space.inner:
            if p.name in wanted and p.values is not None:
                span = max(1, len(p.values) - 1)
                total += abs(p.values.index(row[p.name]) - p.values.index(wanted[p.name])) / span
        return total

    return int(np.argmin([far(row) for row in rows]))
