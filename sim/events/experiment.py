"""Runs scenarios: streams drawn from their arrivals, replications, load checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import assert_never

import numpy as np

from sim.errors import ConfigError, DovetailError, InfeasibleError, checked_seed, nearest, told_of
from sim.events import arrivals as draw
from sim.events.policies import Policy, make_policy
from sim.events.program import make_program, with_host_stage
from sim.events.progress import Progress, part
from sim.events.result import Simulation, StreamResult, completed, summarise_stream
from sim.events.run import SLICES, Stream, alone_s, run
from sim.events.scenario import Bursts, Closed, Periodic, Poisson, Recorded, Scenario, Stage, StreamSpec, parse_target
from sim.events.simulate import idle_power_of, shared_names
from sim.events.stated import scenario as stated_scenario
from sim.events.statistics import Interval, t_interval
from sim.events.summary import after_prefetch
from sim.events.ticks import to_seconds, to_ticks
from sim.hardware.chip import Chip
from sim.results import SIMULATE_SCHEMA
from sim.schedule.plan import Schedule


class OverloadError(InfeasibleError):
    """More work arrives than can ever be done."""


_MOST_JOBS = 2_000_000
"""Of one stream: about what fits the memory of a small machine."""

Builder = Callable[[str, Mapping[str, object], str | None, Chip], Schedule]
"""(workload, knobs, precision, chip) -> Schedule"""


@dataclass(frozen=True, kw_only=True)
class ScenarioResult:
    """A scenario's replications. `streams` pools all copies and replications of each stream."""

    scenario: str
    hardware_name: str
    replications: tuple[Simulation, ...]
    streams: Mapping[str, StreamResult]
    intervals: Mapping[str, Mapping[str, Interval]]
    """stream -> quantity (mean latency, p99, miss rate, throughput) -> interval over replications"""
    offered: Mapping[str, float]
    """Unit instance or port -> utilisation that the open streams ask for."""
    partial: bool = False
    notes: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    stated: Mapping[str, object] = field(default_factory=dict)
    """How it was made (`sim.events.stated.scenario`)."""

    def __repr__(self) -> str:
        """One line: `streams` and `intervals` have the numbers."""
        runs = len(self.replications)
        jobs = ", ".join(f"{stream.finished} jobs of {name}" for name, stream in self.streams.items())
        return f"<ScenarioResult {self.scenario} on {self.hardware_name}: {runs} replications, {jobs}>"

    @property
    def first(self) -> Simulation:
        """The replication whose timeline is shown."""
        return self.replications[0]

    def to_dict(self) -> dict[str, object]:
        """The first replication's `dovetail.simulate/1` document with the scenario's own results on top."""
        document = self.first.to_dict()
        document.update(
            schema=SIMULATE_SCHEMA,
            scenario=self.scenario,
            **({"hardware": {"name": self.hardware_name}} | dict(self.stated)),
            settings=dict(self.settings),
            partial=self.partial,
            replications=len(self.replications),
            offered=dict(self.offered),
            streams={name: asdict(result) for name, result in self.streams.items()},
            intervals={s: {q: asdict(i) for q, i in of.items()} for s, of in self.intervals.items()},
            notes=list(self.notes),
        )
        return document


def default_builder(workload: str, knobs: Mapping[str, object], precision: str | None, chip: Chip) -> Schedule:
    """Traces the workload and schedules it on the chip."""
    from sim.hardware.precisions import precision_on
    from sim.schedule.build import schedule
    from sim.workload.load import load_workload

    graph = load_workload(workload, **dict(knobs))  # type: ignore[arg-type]
    return schedule(graph, chip, precision=precision_on(chip, precision))


def remembered(build: Builder) -> Builder:
    """The builder, which makes each schedule once."""
    made: dict[tuple, Schedule] = {}

    def builder(workload: str, knobs: Mapping[str, object], precision: str | None, chip: Chip) -> Schedule:
        unit = chip.units[0].name if chip.units else ""
        key = (workload, json.dumps(dict(knobs), sort_keys=True, default=str), precision, chip.name, unit)
        if key not in made:
            made[key] = build(workload, knobs, precision, chip)
        return made[key]

    return builder


def run_scenario(
    scenario: Scenario,
    chip: Chip,
    *,
    seed: int = 0,
    build: Builder = default_builder,
    grain: str | None = None,
    check: bool = True,
    record: int = SLICES,
    progress: Progress | None = None,
) -> ScenarioResult:
    """Simulates all replications of a scenario of streams.

    Args:
        seed: replication r of stream s draws from SeedSequence([seed, r, s, copy]).
        grain: in place of the scenario's own.
        check: refuse loads above capacity and deadlines that cannot be met.

    Raises:
        InfeasibleError: a unit or port is asked for more than it has; a deadline below the service time.
        ConfigError: unknown unit, broken arrivals file.
    """
    _check_count(scenario)
    seed, build = checked_seed(seed), remembered(build)
    schedules: dict[str, Schedule] = {}
    for at, spec in enumerate(scenario.streams):
        if progress:
            progress(at / len(scenario.streams), "scheduling")
        try:
            schedules[spec.name] = _schedule(spec, chip, build)
        except DovetailError as error:
            raise told_of(f"streams[{at}] ({spec.name})", error) from error
    load = offered_load(scenario, schedules, chip)
    if check:
        _check_load(load)
        _check_deadlines(scenario, schedules)
    policy = _policy(scenario)
    runs: list[Simulation] = []
    for replication in range(scenario.replications):
        streams = [
            s
            for i, spec in enumerate(scenario.streams)
            for s in _copies(spec, i, scenario, schedules, seed, replication)
        ]
        runs.append(
            run(
                streams,
                grain=grain or scenario.grain,
                policy=policy,
                port_policy=scenario.ports,
                shared=shared_names(chip),
                dma_engines=chip.dma_engines,
                idle_power_w=idle_power_of(chip),
                length_s=scenario.length,
                warmup_s=scenario.warmup,
                seed=seed,
                record=record if replication == 0 else 0,
                progress=part(progress, replication, scenario.replications),
            )
        )
        if runs[-1].partial:
            break
    return _result(scenario, chip, tuple(runs), load)


def offered_load(scenario: Scenario, schedules: Mapping[str, Schedule], chip: Chip) -> dict[str, float]:
    """Utilisation of each unit instance and port by the streams that arrive whatever happens.

    rate x (time of the stream's groups on the unit, alone, with what is prefetched behind the group before), spread
    over the instances of a unit that the stream may use; rate x bytes / bandwidth for the ports that all share.
    """
    load: dict[str, float] = {}
    shared = shared_names(chip)
    for spec in scenario.streams:
        rate = _rate(spec, scenario.length) * spec.copies
        if not rate:
            continue
        schedule = schedules[spec.name]
        place = _place(spec)
        program = make_program(schedule, place={u: i or 0 for u, i in place.items()}, shared=shared)
        for work, engine in zip(after_prefetch(program), program.engines, strict=True):
            unit = engine.split("[")[0]
            anywhere = place.get(unit, 0) is None and not work.group.pinned
            count = schedule.units.get(unit, 1) if anywhere else 1
            for i in range(count):
                name = f"{unit}[{i}]" if count > 1 else engine
                load[name] = load.get(name, 0.0) + rate * to_seconds(work.launch + work.total) / count
            for port, moved in work.moved_bytes.items():
                if port in schedule.ports and moved > 0:
                    load[port] = load.get(port, 0.0) + rate * moved / schedule.ports[port]
    return load


def _check_count(scenario: Scenario) -> None:
    for i, spec in enumerate(scenario.streams):
        jobs = _rate(spec, scenario.length) * scenario.length * spec.copies
        if jobs > _MOST_JOBS:
            raise ConfigError(
                f"streams[{i}] ({spec.name}): {jobs:.3g} jobs arrive within {scenario.length:g} s; expected at most "
                f"{_MOST_JOBS:,}: shorten length or lower the rate"
            )


def _check_load(load: Mapping[str, float]) -> None:
    over = {name: u for name, u in load.items() if u > 1.0}
    if over:
        worst = max(over, key=lambda name: over[name])
        raise OverloadError(
            f"{worst}: utilisation {over[worst]:.2f}: the queue grows without bound"
            + (f" (also {', '.join(f'{n} {u:.2f}' for n, u in over.items() if n != worst)})" if len(over) > 1 else "")
            + f"; divide the rates by at least {ceil(100 * over[worst]) / 100:g}, or use more or faster units"
        )


def _check_deadlines(scenario: Scenario, schedules: Mapping[str, Schedule]) -> None:
    for i, spec in enumerate(scenario.streams):
        service_s = alone_s(schedules[spec.name]) if spec.deadline is not None else 0.0
        if spec.deadline is not None and service_s > spec.deadline:
            raise InfeasibleError(
                f"streams[{i}] ({spec.name}): the deadline of {spec.deadline * 1e3:.4g} ms is shorter than the service "
                f"time alone, {service_s * 1e3:.4g} ms: every job would miss it"
            )


def _schedule(spec: StreamSpec, chip: Chip, build: Builder) -> Schedule:
    schedule = build(spec.workload, spec.knobs, spec.precision, _on_target(spec, chip))
    if spec.target is not None:
        (unit, instance), counts = parse_target(spec.target), _counts(schedule, chip)
        if unit not in counts:
            raise ConfigError(
                f'target: unknown resource "{unit}"; {chip.name} has {", ".join(sorted(counts))}.'
                + nearest(unit, counts)
            )
        if instance is not None and instance >= counts[unit]:
            raise ConfigError(f"target: {spec.target}: {chip.name} has {counts[unit]} {unit}, numbered from 0")
    for stage, first in ((spec.before, True), (spec.after, False)):
        if stage is not None:
            schedule = with_host_stage(
                schedule, name=stage.name, unit=stage.unit, seconds=stage.time, first=first,
                instances=_instances(stage, schedule, chip), parallel=stage.parallel, power_w=stage.power,
            )  # fmt: skip
    return schedule


def _counts(schedule: Schedule, chip: Chip) -> dict[str, int]:
    return dict(schedule.units) | {u.name: u.count for u in chip.units}


def _on_target(spec: StreamSpec, chip: Chip) -> Chip:
    """The chip with the stream's unit as the one that models run on."""
    unit = parse_target(spec.target)[0] if spec.target else None
    chosen = tuple(u for u in chip.units if u.name == unit)
    return replace(chip, units=(*chosen, *(u for u in chip.units if u.name != unit))) if chosen else chip


def _instances(stage: Stage, schedule: Schedule, chip: Chip) -> int:
    """How many of the stage's unit there are: what the chip says, or the file for a unit outside the chip."""
    counts = _counts(schedule, chip)
    where = f'stage "{stage.name}"'
    if stage.unit in counts:
        if stage.instances not in (None, counts[stage.unit]):
            raise ConfigError(
                f"{where}: instances: {stage.instances}; {chip.name} has {counts[stage.unit]} {stage.unit}"
            )
    elif stage.instances is None:
        raise ConfigError(
            f'{where}: unknown resource "{stage.unit}"; {chip.name} has {", ".join(sorted(counts))}.'
            f"{nearest(stage.unit, counts)} For a processor outside the chip say how many there are: instances: 1"
        )
    there = counts.get(stage.unit, stage.instances or 1)
    if stage.parallel > there:
        raise ConfigError(f"{where}: parallel: {stage.parallel} parts on {there} instances of {stage.unit}")
    return there


def _place(spec: StreamSpec) -> dict[str, int | None]:
    place: dict[str, int | None] = {}
    if spec.target is not None:
        unit, instance = parse_target(spec.target)
        place[unit] = instance
    for stage in (spec.before, spec.after):
        if stage is not None and stage.unit not in place and stage.parallel == 1:
            place[stage.unit] = None
    return place


def _policy(scenario: Scenario) -> Policy:
    if scenario.policy != "time_partition":
        return make_policy(scenario.policy)
    return make_policy("time_partition", tuple((s.stream, to_ticks(s.length)) for s in scenario.slots))


def _rate(spec: StreamSpec, length_s: float) -> float:
    """Jobs per second of one copy; 0 for a closed stream, which never asks for more than there is."""
    match spec.arrivals:
        case Periodic() | Poisson():
            return spec.arrivals.rate
        case Bursts():
            return spec.arrivals.rate * spec.arrivals.size
        case Recorded():
            return len(draw.recorded(spec.arrivals.path, length_s=length_s)) / length_s
        case Closed():
            return 0.0


def _copies(
    spec: StreamSpec, index: int, scenario: Scenario, schedules: Mapping[str, Schedule], seed: int, replication: int
) -> list[Stream]:
    made = []
    for copy in range(spec.copies):
        rng = generator(seed, replication, index, copy)
        rate = _rate(spec, scenario.length)
        made.append(
            Stream(
                name=spec.name if spec.copies == 1 else f"{spec.name}[{copy}]",
                schedule=schedules[spec.name],
                arrivals_s=released_s(spec, copy, scenario.length, rng),
                closed=isinstance(spec.arrivals, Closed),
                deadline_s=spec.deadline,
                priority=spec.priority,
                period_s=1.0 / rate if rate else None,
                place=_place(spec),
            )
        )
    return made


def generator(seed: int, replication: int, stream: int, copy: int) -> np.random.Generator:
    """What a copy of the stream-th stream draws from."""
    return np.random.default_rng(np.random.SeedSequence([seed, replication, stream, copy]))


def released_s(spec: StreamSpec, copy: int, length_s: float, rng: np.random.Generator) -> list[float]:
    """Release times of one copy; of a closed stream the first."""
    match spec.arrivals:
        case Periodic() as a:
            period_s = 1.0 / a.rate
            phase_s = copy * period_s / spec.copies if a.phase == "spread" else a.phase
            times = draw.periodic(period_s=period_s, phase_s=phase_s, jitter_s=a.jitter, length_s=length_s, rng=rng)
        case Poisson() as a:
            times = draw.poisson(rate_hz=a.rate, length_s=length_s, rng=rng)
        case Bursts() as a:
            times = draw.bursts(rate_hz=a.rate, size=a.size, gap_s=a.gap, length_s=length_s, rng=rng)
        case Recorded() as a:
            times = draw.recorded(a.path, length_s=length_s)
        case Closed():
            times = np.zeros(1)
        case _:
            assert_never(spec.arrivals)
    return times.tolist()


def _result(scenario: Scenario, chip: Chip, runs: tuple[Simulation, ...], load: dict[str, float]) -> ScenarioResult:
    per_run = [{spec.name: _pool(spec, [r], scenario.warmup) for spec in scenario.streams} for r in runs]
    intervals: dict[str, dict[str, Interval]] = {}
    for spec in scenario.streams:
        found = [one[spec.name] for one in per_run if one[spec.name].finished]
        if found:
            intervals[spec.name] = {
                quantity: t_interval([getattr(one, quantity) for one in found])
                for quantity in ("latency_mean_s", "latency_p99_s", "miss_rate", "throughput_per_s", "goodput_per_s")
                if all(getattr(one, quantity) is not None for one in found)
            }
    return ScenarioResult(
        scenario=scenario.name,
        hardware_name=chip.name,
        replications=runs,
        streams={spec.name: _pool(spec, list(runs), scenario.warmup) for spec in scenario.streams},
        intervals=intervals,
        offered=load,
        partial=any(r.partial for r in runs),
        notes=(*_silent(scenario, per_run), *_crowded(chip, runs)),
        settings={"length_s": scenario.length, "warmup_s": scenario.warmup, "policy": scenario.policy,
                  "ports": scenario.ports, "grain": runs[0].grain},
        stated=stated_scenario(scenario, chip),
    )  # fmt: skip


def _pool(spec: StreamSpec, runs: list[Simulation], warmup_s: float) -> StreamResult:
    """All copies of a stream over the given runs."""
    names = {spec.name} if spec.copies == 1 else {f"{spec.name}[{i}]" for i in range(spec.copies)}
    parts = [r.streams[n] for r in runs for n in names]
    return summarise_stream(
        [j for r in runs for j in r.jobs if j.stream in names and j.release_s >= warmup_s],
        completed=[j for r in runs for j in completed((j for j in r.jobs if j.stream in names), r.window_s)],
        released=sum(p.released for p in parts),
        overdue=sum(p.missed.get("unfinished", 0) for p in parts),
        service_s=parts[0].service_s,
        deadline_s=spec.deadline,
        window_s=sum(r.window_s[1] - r.window_s[0] for r in runs),
        energy_j_per_job=parts[0].energy_j_per_job,
        peak_memory_bytes={m: max(p.peak_memory_bytes.get(m, 0.0) for p in parts) for m in parts[0].peak_memory_bytes},
    )


def _silent(scenario: Scenario, per_run: list[dict[str, StreamResult]]) -> list[str]:
    """Notes on streams that released nothing that counts."""
    begin, end = scenario.warmup, scenario.length
    return [
        f"{spec.name}: no job arrived between the warm-up ({begin:g} s) and the length ({end:g} s)"
        for spec in scenario.streams
        if not any(one[spec.name].released for one in per_run)
    ]


def _crowded(chip: Chip, runs: tuple[Simulation, ...]) -> tuple[str, ...]:
    """Notes on memories of which all jobs under way held more than there is."""
    sizes = {m.name: m.capacity_bytes for m in (*chip.memories, *(m for u in chip.units for m in u.memories))}
    notes = []
    for name, most in runs[0].peak_memory_bytes.items():
        size = sizes.get(name.split(".")[-1])
        if size is not None and most > size:
            notes.append(
                f"{name}: jobs under way held {most / 1e6:.4g} MB at once, of {size / 1e6:.4g} MB: preempted ones "
                "would have to be moved out, which is not simulated"
            )
    return tuple(notes)
