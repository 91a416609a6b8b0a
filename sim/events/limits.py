"""The highest rate, batch or number of cameras whose deadline misses stay within a bound.

What is raised is the first stream that has a deadline, or the requests of a serving scenario; misses
are counted over all streams that have a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import ceil, log

from sim._version import __version__
from sim.errors import ConfigError, InfeasibleError, nearest
from sim.events.experiment import Builder, OverloadError, ScenarioResult, default_builder, remembered, run_scenario
from sim.events.progress import Progress
from sim.events.scenario import Bursts, Periodic, Poisson, Requests, Scenario, Serving, StreamSpec
from sim.events.serving_result import ServingRuns
from sim.events.serving_scenario import Footprint, run_serving, traced_footprint
from sim.events.stated import scenario as stated_scenario
from sim.events.statistics import rate_upper_bound, t_interval
from sim.hardware.chip import Chip
from sim.results import SIMULATE_SCHEMA

RESOLUTION = 0.01
"""The bisection ends at one per cent, or at one for whole numbers."""

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
    undecided: bool = False
    """Fewer misses than allowed, of too few jobs to show it."""
    overload: bool = False
    """More work arrives than can ever be done."""
    idle: bool = False
    """The batch of a server never reached `value`: a larger one changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`value` passed and `above` was not shown to; both were simulated. For "rate", factors on the file's rate."""

    quantity: str
    value: float | None
    above: float | None
    bound: float
    level: float
    trials: tuple[Trial, ...]
    rate_hz: float | None = None
    """For "rate": the rate that `value` stands for, of one copy of the stream or of the requests."""
    partial: bool = False
    """Interrupted: the bisection did not end."""
    scenario: str = ""
    stated: Mapping[str, object] = field(default_factory=dict)
    """How it was made (`sim.events.stated.scenario`)."""

    def to_dict(self) -> dict[str, object]:
        return {
            "schema": SIMULATE_SCHEMA, "version": __version__, "scenario": self.scenario or None, **self.stated,
            "quantity": self.quantity, "value": self.value, "above": self.above, "rate_hz": self.rate_hz,
            "miss_bound": self.bound, "confidence": self.level, "partial": self.partial,
            "trials": [asdict(trial) for trial in self.trials],
        }  # fmt: skip


def find_limit(
    scenario: Scenario,
    chip: Chip,
    quantity: str,
    *,
    level: float = 0.95,
    seed: int = 0,
    build: Builder = default_builder,
    footprint: Callable[[Serving, str], Footprint] = traced_footprint,
    progress: Progress | None = None,
) -> Limit:
    """Bisects between a value that passes and one that does not.

    A value passes when the upper bound of its miss rate is at most `scenario.miss_bound`: the larger
    of Clopper-Pearson over all jobs and, with replications, Student's t over them (both one-sided at
    `level`). The other streams run along unchanged.

    Args:
        quantity: "rate", "copies", "batch", or another whole-number knob of the stream's workload
            ("cameras"); of a serving scenario "rate" or "batch" (the most requests in a batch).

    Raises:
        ConfigError: unknown quantity, nothing with a deadline, too few jobs to show the bound at all.
    """
    start = _start(scenario, quantity)
    build, held = remembered(build), _once(footprint)
    trials: list[Trial] = []

    def below(value: float) -> bool:
        name = f"trial {len(trials) + 1}, {quantity} {value:g}"
        trials.append(_trial(scenario, chip, quantity, value, level, seed, build, held, _named(progress, name)))
        return trials[-1].passed or (serves and trials[-1].overload)

    def changes() -> bool:
        """Whether a larger value can still make a difference."""
        return not trials[-1].idle and not (trials[-1].overload and trials[-1].why in [t.why for t in trials[:-1]])

    # A larger batch serves more requests, so there an overload asks for more of it.
    partial, serves = False, scenario.serving is not None and quantity == "batch"
    try:
        low, high = _bracket(below, changes, start, whole=quantity != "rate")
        while high is not None and low is not None and not _settled(low, high, quantity):
            middle = (low + high) / 2 if quantity == "rate" else (low + high) // 2
            low, high = (middle, high) if below(middle) else (low, middle)
    except KeyboardInterrupt:
        partial = True
    above = min((t.value for t in trials if not t.passed and not (serves and t.overload)), default=None)
    value = max((t.value for t in trials if t.passed and (above is None or t.value < above)), default=None)
    return Limit(
        quantity=quantity,
        value=value,
        above=above,
        bound=scenario.miss_bound,
        level=level,
        trials=tuple(trials),
        rate_hz=None if value is None or quantity != "rate" else value * _timed(scenario).arrivals.rate,  # type: ignore[union-attr]
        partial=partial,
        scenario=scenario.name,
        stated=stated_scenario(scenario, chip),
    )


def _named(progress: Progress | None, trial: str) -> Progress | None:
    """Nobody knows how many trials there will be: each has a share of its own."""
    if progress is None:
        return None
    return lambda share, what="simulated": progress(share, f"{trial}: {what}")


def _once(footprint: Callable[[Serving, str], Footprint]) -> Callable[[Serving, str], Footprint]:
    """What a model keeps in memory depends on nothing that is searched."""
    known: list[Footprint] = []

    def held(spec: Serving, precision: str) -> Footprint:
        if not known:
            known.append(footprint(spec, precision))
        return known[0]

    return held


def _bracket(
    below: Callable[[float], bool], changes: Callable[[], bool], start: float, *, whole: bool
) -> tuple[float | None, float | None]:
    """(highest below the limit, lowest that is not) by doubling up from `start`, or halving down."""
    value = start
    if below(value):
        while value < _LARGEST and changes():
            if not below(2 * value):
                return value, 2 * value
            value *= 2
        return value, None
    while value > (1 if whole else 1 / _LARGEST):
        half = value // 2 if whole else value / 2
        if below(half):
            return half, value
        value = half
    return None, value


def _timed(scenario: Scenario) -> StreamSpec | Requests:
    """What is raised: the first stream that has a deadline, or the requests."""
    if scenario.serving is not None:
        return scenario.serving.requests
    return next(s for s in scenario.streams if s.deadline is not None)


def _start(scenario: Scenario, quantity: str) -> float:
    """What the file says; for rates the factor 1.

    Raises: ConfigError: no deadline, a quantity that is none, arrivals without a rate.
    """
    serving = scenario.serving
    if serving is not None:
        if serving.ttft_deadline is None and serving.tpot_deadline is None:
            raise ConfigError(
                f'scenario "{scenario.name}": a limit needs serving.ttft_deadline or serving.tpot_deadline'
            )
        if quantity not in ("rate", "batch"):
            raise ConfigError(f'--find-limit "{quantity}": of a serving scenario expected rate or batch')
        return 1 if quantity == "rate" else serving.max_batch
    if not any(s.deadline is not None for s in scenario.streams):
        raise ConfigError(f'scenario "{scenario.name}": a limit needs a stream with a deadline')
    timed = _timed(scenario)
    assert isinstance(timed, StreamSpec)
    if quantity == "rate":
        if not isinstance(timed.arrivals, Periodic | Poisson | Bursts):
            raise ConfigError(f'stream "{timed.name}": arrivals of kind "{timed.arrivals.kind}" have no rate to scale')
        return 1
    return timed.copies if quantity == "copies" else _knob(timed, quantity)


def _knob(spec: StreamSpec, name: str) -> int:
    """The value of a whole-number knob, from the file or the workload's own."""
    from sim.workload.load import Workload

    knobs = {**dict(Workload(spec.workload).knobs), **spec.knobs} if name not in spec.knobs else dict(spec.knobs)
    value = knobs.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        known = ["rate", "copies", *(k for k, v in knobs.items() if isinstance(v, int) and not isinstance(v, bool))]
        raise ConfigError(
            f'--find-limit "{name}": expected rate, copies, or a whole-number knob of {spec.workload}: '
            f"{', '.join(known[2:]) or 'it has none'}.{nearest(name, known)}"
        )
    return value


def _settled(low: float, high: float, quantity: str) -> bool:
    return high - low <= (RESOLUTION * low if quantity == "rate" else max(1, RESOLUTION * low))


def _trial(
    scenario: Scenario, chip: Chip, quantity: str, value: float, level: float, seed: int, build: Builder,
    footprint: Callable[[Serving, str], Footprint], progress: Progress | None,
) -> Trial:  # fmt: skip
    try:
        scaled = _scaled(scenario, quantity, value)
        result: ScenarioResult | ServingRuns
        if scaled.serving is not None:
            result = run_serving(scaled, chip, seed=seed, build=build, footprint=footprint, record=0, progress=progress)
            counts = [(sum(run.missed().values()), len(run.requests) + run.overdue) for run in result.runs]
        else:
            result = run_scenario(scaled, chip, seed=seed, build=build, record=0, progress=progress)
            counts = _misses(result)
    except InfeasibleError as error:
        over = isinstance(error, OverloadError)
        return Trial(value=value, missed=0, jobs=0, upper_bound=1.0, passed=False, why=str(error), overload=over)
    if result.partial:
        raise KeyboardInterrupt
    missed, jobs = (sum(column) for column in zip(*counts, strict=True))
    upper = _upper_bound(counts, level)
    full = max((run.largest_batch for run in result.runs), default=0) if isinstance(result, ServingRuns) else value
    if missed == 0 and upper > scenario.miss_bound:
        needed = ceil(log(1 - level) / log(1 - scenario.miss_bound))
        raise ConfigError(
            f'scenario "{scenario.name}": 0 misses of {jobs} jobs only show a rate below {upper:.2%}; a bound of '
            f"{scenario.miss_bound:.2%} at {level:.0%} needs {needed} jobs: expected replications: "
            f"{ceil(scenario.replications * needed / max(1, jobs))}, or a longer run"
        )
    passed = upper <= scenario.miss_bound
    undecided = not passed and missed <= scenario.miss_bound * jobs
    idle = quantity == "batch" and passed and full < value
    why = "(too few jobs to tell)" if undecided else f"(never more than {full:g} in it)" if idle else ""
    return Trial(
        value=value, missed=missed, jobs=jobs, upper_bound=upper, passed=passed, why=why,
        undecided=undecided, idle=idle,
    )  # fmt: skip


def _misses(result: ScenarioResult) -> list[tuple[int, int]]:
    """(missed, released) of each replication, over the streams that have a deadline."""
    timed = {name for name, s in result.streams.items() if s.deadline_s is not None}
    counts = []
    for run in result.replications:
        found = [s for name, s in run.streams.items() if name.partition("[")[0] in timed]
        counts.append((sum(sum(s.missed.values()) for s in found), sum(s.released for s in found)))
    return counts


def _upper_bound(counts: list[tuple[int, int]], level: float) -> float:
    """Of the miss rate: over all jobs as if independent, and over replications; the larger."""
    missed, jobs = (sum(column) for column in zip(*counts, strict=True))
    interval = t_interval([m / n if n else 0.0 for m, n in counts], 2 * level - 1)
    over_runs = interval.mean + (interval.half_width or 0.0)
    return max(rate_upper_bound(missed=missed, jobs=jobs, level=level), over_runs)


def _scaled(scenario: Scenario, quantity: str, value: float) -> Scenario:
    """The scenario with what is raised set to `value`; the rest stays."""
    serving = scenario.serving
    if serving is not None:
        if quantity == "batch":
            changed = serving.model_copy(update={"max_batch": int(value)})
        else:
            arrivals = serving.requests.arrivals
            faster = arrivals.model_copy(update={"rate": arrivals.rate * value})
            changed = serving.model_copy(update={"requests": serving.requests.model_copy(update={"arrivals": faster})})
        return scenario.model_copy(update={"serving": changed})
    timed = _timed(scenario)
    assert isinstance(timed, StreamSpec)
    match quantity:
        case "rate":
            rate = timed.arrivals.rate * value  # type: ignore[union-attr]
            scaled = timed.model_copy(update={"arrivals": timed.arrivals.model_copy(update={"rate": rate})})
        case "copies":
            scaled = timed.model_copy(update={"copies": int(value)})
        case knob:
            scaled = timed.model_copy(update={"knobs": {**timed.knobs, knob: int(value)}})
    return scenario.model_copy(update={"streams": tuple(scaled if s is timed else s for s in scenario.streams)})
