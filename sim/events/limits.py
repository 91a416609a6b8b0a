"""The highest rate, batch or number of copies whose deadline misses stay within a bound.

What is raised is the first stream that has a deadline; misses are counted over all that have one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim._version import __version__
from sim.errors import ConfigError, InfeasibleError
from sim.events.experiment import Builder, ScenarioResult, default_builder, run_scenario
from sim.events.scenario import Bursts, Periodic, Poisson, Scenario, StreamSpec
from sim.events.statistics import rate_upper_bound, t_interval
from sim.hardware.chip import Chip
from sim.results import SIMULATE_SCHEMA

QUANTITIES = ("rate", "batch", "copies")

RATE_RESOLUTION = 0.01
"""Rates are bisected to one per cent, batches and copies to one."""

_LARGEST = 2.0**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    value: float
    missed: int
    jobs: int
    upper_bound: float
    """One-sided bound on the miss rate at the stated level; 1 where the load is above capacity."""
    passed: bool
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`value` passed and `above` did not; both were simulated. For "rate", factors on the file's rate."""

    quantity: str
    value: float | None
    above: float | None
    bound: float
    level: float
    trials: tuple[Trial, ...]

    def to_dict(self) -> dict[str, object]:
        return {
            "schema": SIMULATE_SCHEMA, "version": __version__,
            "quantity": self.quantity, "value": self.value, "above": self.above, "miss_bound": self.bound,
            "confidence": self.level,
            "trials": [
                {"value": t.value, "missed": t.missed, "jobs": t.jobs, "upper_bound": t.upper_bound,
                 "passed": t.passed, "why": t.why}
                for t in self.trials
            ],
        }  # fmt: skip


def find_limit(
    scenario: Scenario,
    chip: Chip,
    quantity: str,
    *,
    level: float = 0.95,
    seed: int = 0,
    build: Builder = default_builder,
    progress: Callable[[float], None] | None = None,
) -> Limit:
    """Bisects between a value that passes and one that does not.

    A value passes when the upper bound of its miss rate is at most `scenario.miss_bound`: the larger
    of Clopper-Pearson over all jobs and, with replications, Student's t over them (both one-sided at
    `level`). The other streams run along unchanged.

    Raises:
        ConfigError: unknown quantity, no stream with a deadline, too few jobs to show the bound at all.
    """
    if quantity not in QUANTITIES:
        raise ConfigError(f'--find-limit "{quantity}": expected one of {", ".join(QUANTITIES)}')
    if not any(s.deadline is not None for s in scenario.streams):
        raise ConfigError(f'scenario "{scenario.name}": a limit needs a stream with a deadline')
    trials: list[Trial] = []

    def passes(value: float) -> bool:
        trials.append(_trial(scenario, chip, quantity, value, level, seed, build))
        if progress:
            progress(min(0.99, len(trials) / 14))
        return trials[-1].passed

    low, high = _bracket(passes, _start(scenario, quantity), whole=quantity != "rate")
    while high is not None and low is not None and not _settled(low, high, quantity):
        middle = (low + high) / 2 if quantity == "rate" else (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return Limit(quantity=quantity, value=low, above=high, bound=scenario.miss_bound, level=level, trials=tuple(trials))


def _bracket(passes: Callable[[float], bool], start: float, *, whole: bool) -> tuple[float | None, float | None]:
    """(highest that passed, lowest that did not) by doubling up from `start`, or halving down."""
    value = start
    if passes(value):
        while value < _LARGEST:
            if not passes(2 * value):
                return value, 2 * value
            value *= 2
        return value, None
    while value > (1 if whole else 1 / _LARGEST):
        half = value // 2 if whole else value / 2
        if passes(half):
            return half, value
        value = half
    return None, value


def _start(scenario: Scenario, quantity: str) -> float:
    """What the file says; for rates the factor 1."""
    timed = next(s for s in scenario.streams if s.deadline is not None)
    return {"rate": 1, "copies": timed.copies, "batch": int(timed.knobs.get("batch", 1))}[quantity]


def _settled(low: float, high: float, quantity: str) -> bool:
    return high - low <= (RATE_RESOLUTION * low if quantity == "rate" else 1)


def _trial(
    scenario: Scenario, chip: Chip, quantity: str, value: float, level: float, seed: int, build: Builder
) -> Trial:
    try:
        result = run_scenario(_scaled(scenario, quantity, value), chip, seed=seed, build=build, record=0)
    except InfeasibleError as error:
        return Trial(value=value, missed=0, jobs=0, upper_bound=1.0, passed=False, why=str(error))
    if result.partial:
        raise KeyboardInterrupt
    missed, jobs, upper = _judge(result, level)
    if missed == 0 and upper > scenario.miss_bound:
        raise ConfigError(
            f'scenario "{scenario.name}": 0 misses of {jobs} jobs only show a rate below {upper:.2%}; a bound of '
            f"{scenario.miss_bound:.2%} at {level:.0%} needs a longer run or more replications"
        )
    return Trial(value=value, missed=missed, jobs=jobs, upper_bound=upper, passed=upper <= scenario.miss_bound)


def _judge(result: ScenarioResult, level: float) -> tuple[int, int, float]:
    timed = [name for name, s in result.streams.items() if s.deadline_s is not None]
    missed = sum(sum(result.streams[n].missed.values()) for n in timed)
    jobs = sum(result.streams[n].released for n in timed)
    upper = rate_upper_bound(missed=missed, jobs=jobs, level=level)
    rates = []
    for run in result.replications:
        of_run = [s for name, s in run.streams.items() if name.partition("[")[0] in timed]
        released = sum(s.released for s in of_run)
        rates.append(sum(sum(s.missed.values()) for s in of_run) / released if released else 0.0)
    interval = t_interval(rates, 2 * level - 1)
    return missed, jobs, max(upper, interval.mean + (interval.half_width or 0.0))


def _scaled(scenario: Scenario, quantity: str, value: float) -> Scenario:
    """The scenario with its first stream that has a deadline scaled; the others stay."""
    timed = next(s for s in scenario.streams if s.deadline is not None)
    match quantity:
        case "rate":
            scaled = timed.model_copy(update={"arrivals": _faster(timed, value)})
        case "batch":
            scaled = timed.model_copy(update={"knobs": {**timed.knobs, "batch": int(value)}})
        case _:
            scaled = timed.model_copy(update={"copies": int(value)})
    return scenario.model_copy(update={"streams": tuple(scaled if s is timed else s for s in scenario.streams)})


def _faster(spec: StreamSpec, factor: float) -> Periodic | Poisson | Bursts:
    if not isinstance(spec.arrivals, Periodic | Poisson | Bursts):
        raise ConfigError(f'stream "{spec.name}": arrivals of kind "{spec.arrivals.kind}" have no rate to scale')
    return spec.arrivals.model_copy(update={"rate": spec.arrivals.rate * factor})
