"""Runs schedules in simulated time: one alone (`simulate`), or streams of them on one machine (`run`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import simpy

from sim.errors import ConfigError
from sim.events.channels import DmaQueues
from sim.events.machine import Job, Machine, Program
from sim.events.policies import Policy, make_policy
from sim.events.program import make_program
from sim.events.progress import Progress
from sim.events.result import (
    EngineUse,
    GroupResult,
    JobResult,
    PortUse,
    Simulation,
    StreamResult,
    completed,
    summarise_stream,
)
from sim.events.summary import summarise
from sim.events.ticks import RELEASE, TICKS_PER_S, Clock, to_seconds, to_ticks
from sim.events.timeline import Recorder
from sim.hardware.chip import DmaEngines
from sim.schedule.plan import Schedule

SLICES = 200_000
"""Slices that a timeline keeps; what comes later is counted, not kept."""

GRAINS = ("expand", "folded", "summary")

_PROGRESS_EVERY = 64
"""Events between two reports; between two events there may be many groups that cost none."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Work that arrives again and again: a schedule, when, how urgent, and where."""

    name: str
    schedule: Schedule
    arrivals_s: Sequence[float] = (0.0,)
    """Release times. With `closed`, the first only: each later job is released when one ends."""
    closed: bool = False
    deadline_s: float | None = None
    """After its release."""
    priority: int = 0
    """Larger is more urgent."""
    period_s: float | None = None
    place: Mapping[str, int | None] | None = None
    """Unit -> instance; None: whichever instance has the fewest jobs waiting, lowest number first."""


def run(
    streams: Sequence[Stream],
    *,
    grain: str = "folded",
    policy: Policy | str = "fifo",
    port_policy: str = "fair",
    shared: Collection[str] | None = None,
    capacity: Mapping[str, float] | None = None,
    dma_engines: Sequence[DmaEngines] = (),
    idle_power_w: float | None = None,
    length_s: float | None = None,
    warmup_s: float = 0.0,
    seed: int = 0,
    record: int = SLICES,
    progress: Progress | None = None,
) -> Simulation:
    """Simulates the streams until every job released before `length_s` has ended.

    Args:
        grain: "expand" (every tile), "folded" (equal to it, cheaper) or "summary" (fluid jobs).
        policy: of the units, a name of `policies.POLICIES` or a Policy.
        port_policy: "fair" (max-min) or "priority" (the streams' own).
        shared: names of memories and links that all units share; None: every port is shared.
        capacity: port -> bytes/s where the machine has more than one stream can draw.
        dma_engines: engines that units queue for; a unit in none has its own.
        idle_power_w: power that flows whatever runs; None: only the energy of the work is told.
        length_s: closed streams stop releasing here; None: they release once.
        warmup_s: jobs released earlier are simulated and left out of the stream results.
        seed: recorded in the result; random arrivals were drawn by the caller.
        progress: called with the share of `length_s` (or of the jobs) that is done.

    Raises:
        ConfigError: unknown grain or policy, streams of one name, a place that does not exist.
    """
    if grain not in GRAINS:
        raise ConfigError(f'unknown grain "{grain}"; known: {", ".join(GRAINS)}')
    if port_policy not in ("fair", "priority"):
        raise ConfigError(f'unknown port policy "{port_policy}"; known: fair, priority')
    if len({s.name for s in streams}) < len(streams):
        raise ConfigError(f"streams need different names: {', '.join(s.name for s in streams)}")
    session = _Session(
        streams, grain, policy, port_policy == "priority", shared, capacity, dma_engines, length_s, record
    )
    partial = session.execute(progress)
    return session.result(warmup_s=warmup_s, seed=seed, partial=partial, idle_power_w=idle_power_w)


def alone_s(schedule: Schedule) -> float:
    """Latency of one job with the machine to itself, prefetches included."""
    return run([Stream(name="alone", schedule=schedule)], record=0).latency_s


class _Session:
    """One run: the machine, the sources that release jobs, and what they left behind."""

    def __init__(
        self,
        streams: Sequence[Stream],
        grain: str,
        policy: Policy | str,
        port_priority: bool,
        shared: Collection[str] | None,
        capacity: Mapping[str, float] | None,
        dma_engines: Sequence[DmaEngines],
        length_s: float | None,
        record: int,
    ) -> None:
        self.env = Clock()
        self.streams = streams
        self.listed = {stream.name: at for at, stream in enumerate(streams)}
        self.grain = grain
        self.shared = shared
        self.capacity = capacity
        self.length = None if length_s is None else to_ticks(length_s)
        self.recorder = Recorder(record)
        policy = make_policy(policy) if isinstance(policy, str) else policy
        self.dma_engines = dma_engines
        self.machine = Machine(
            self.env, policy, expand=grain == "expand", port_priority=port_priority, recorder=self.recorder,
            queues=DmaQueues(dma_engines),
        )  # fmt: skip
        self.jobs: list[Job] = []
        self.programs: dict[tuple, Program] = {}
        self.under_way: Counter[str] = Counter()
        """Unit instance -> jobs that have groups for it and have not ended."""
        self.events = 0
        self.expected = sum(len(s.arrivals_s) for s in streams)
        self.ended = 0
        for stream in streams:
            self.env.process(self._source(stream))

    def execute(self, progress: Progress | None) -> bool:
        """Steps until nothing is left to do; True when interrupted."""
        env = self.env
        try:
            while env.peek() != float("inf"):
                env.step()
                self.events += 1
                if progress and self.events % _PROGRESS_EVERY == 0:
                    progress(self._share())
        except KeyboardInterrupt:
            return True
        return False

    def _share(self) -> float:
        if self.length:
            return min(1.0, self.env.now / self.length)
        return self.ended / max(1, self.expected)

    def _source(self, stream: Stream) -> Iterator[simpy.Event]:
        for number, arrival in enumerate(stream.arrivals_s):
            at = to_ticks(arrival)
            if at > self.env.now:
                yield self.env.after_all(RELEASE, at - self.env.now)
            job = self._release(stream, number)
            while stream.closed:
                yield job.done
                if self.length is None or self.env.now >= self.length:
                    return
                number += 1
                job = self._release(stream, number)

    def _release(self, stream: Stream, number: int) -> Job:
        now = self.env.now
        job = Job(
            self._program(stream),
            stream=stream.name,
            number=number,
            listed=self.listed[stream.name],
            release=now,
            deadline=None if stream.deadline_s is None else now + to_ticks(stream.deadline_s),
            priority=stream.priority,
            period=None if stream.period_s is None else to_ticks(stream.period_s),
            done=self.env.event(),
        )
        job.done.callbacks.append(self._count)
        self.jobs.append(job)
        self.under_way.update(set(job.program.engines))
        self.machine.submit(job)
        return job

    def _count(self, done: simpy.Event) -> None:
        self.ended += 1
        self.under_way.subtract(set(done.value.program.engines))

    def _program(self, stream: Stream) -> Program:
        schedule = stream.schedule
        place = {
            unit: self._least_loaded(unit, schedule) if instance is None else instance
            for unit, instance in (stream.place or {}).items()
        }
        key = (stream.name, tuple(sorted(place.items())))
        if key not in self.programs:
            program = make_program(schedule, place=place, shared=self.shared, capacity=self.capacity)
            self.programs[key] = summarise(program) if self.grain == "summary" else program
        return self.programs[key]

    def _least_loaded(self, unit: str, schedule: Schedule) -> int:
        return min(range(schedule.units.get(unit, 1)), key=lambda i: self.under_way[f"{unit}[{i}]"])

    def result(self, *, warmup_s: float, seed: int, partial: bool, idle_power_w: float | None) -> Simulation:
        finished = [j for j in self.jobs if j.finish is not None]
        begin = min((j.release for j in self.jobs), default=0)
        end = self.env.now if partial else max((j.ended for j in finished), default=begin)
        full = end if self.length is None else self.length
        until_s = to_seconds(min(end, full) if partial else full)  # (what is quiet at the end counts as well)
        span_s = to_seconds(end - begin)
        run_s = span_s if self.length is None else to_seconds(end if partial else max(end, self.length))
        service = {s.name: self._service(s) for s in self.streams}
        jobs = tuple(_job_result(j, service[j.stream]) for j in finished)
        timeline = self.recorder.timeline()
        peaks = self.recorder.peaks
        memory = {name.removesuffix(" bytes"): most for name, most in peaks.items() if name.endswith(" bytes")}
        return Simulation(
            latency_s=span_s,
            run_s=run_s,
            contended_s=to_seconds(self.machine.contended),
            grain=self.grain,
            events=self.events,
            arithmetic_steps=self.machine.arithmetic_steps,
            seed=seed,
            ports=self._ports(run_s),
            engines=self._engines(run_s),
            streams={s.name: self._stream(s, jobs, service[s.name], (warmup_s, until_s), end) for s in self.streams},
            jobs=jobs,
            groups=tuple(g for j in finished for g in _group_results(j)),
            peak_memory_bytes=memory,
            dma_queueing_s={name: to_seconds(ticks) for name, ticks in self.machine.queues.waited.items()},
            energy_breakdown_j=_energy(finished, None if idle_power_w is None else idle_power_w * run_s),
            timeline=timeline,
            partial=partial,
            window_s=(warmup_s, max(warmup_s, until_s)),
        )

    def _service(self, stream: Stream) -> float:
        """The job alone; for a schedule that is the session's only job this very run tells it."""
        if len(self.jobs) == 1 and self.jobs[0].finish is not None:
            return to_seconds(self.jobs[0].finish - self.jobs[0].release)
        place = {u: i or 0 for u, i in (stream.place or {}).items()}
        one = replace(stream, arrivals_s=(0.0,), closed=False, place=place)
        session = _Session([one], "folded", "fifo", False, self.shared, self.capacity, self.dma_engines, None, 0)
        if session.execute(None):
            raise KeyboardInterrupt  # a second time, while the report of the first was made
        return to_seconds(session.jobs[0].ended)

    def _ports(self, run_s: float) -> dict[str, PortUse]:
        peak: dict[str, float] = {}
        for program in self.programs.values():
            for work in program.works:
                for port, rate in work.ports.rates.items():
                    name = work.ports.alias.get(port, port)
                    peak[name] = max(peak.get(name, 0.0), (self.capacity or {}).get(port, rate))
        moved = self.machine.moved_bytes
        return {
            port: PortUse(
                bytes=moved[port],
                achieved_bytes_per_s=moved[port] / run_s if run_s > 0 else 0.0,
                utilization=moved[port] / run_s / peak[port] if run_s > 0 else None,
            )
            for port in sorted(moved)
        }

    def _engines(self, run_s: float) -> dict[str, EngineUse]:
        counts: dict[str, int] = {}
        for job in self.jobs:
            for record in job.records:
                engine = job.program.engines[record.at]
                counts[engine] = counts.get(engine, 0) + 1
        return {
            name: EngineUse(
                busy_s=to_seconds(engine.busy),
                utilization=to_seconds(engine.busy) / run_s if run_s > 0 else 0.0,
                groups=counts.get(name, 0),
            )
            for name, engine in sorted(self.machine.engines.items())
        }

    def _stream(
        self,
        stream: Stream,
        jobs: tuple[JobResult, ...],
        service_s: float,
        window_s: tuple[float, float],
        end: int,
    ) -> StreamResult:
        warmup_s = window_s[0]
        counted = [j for j in self.jobs if j.stream == stream.name and j.release >= to_ticks(warmup_s)]
        overdue = [j for j in counted if j.finish is None and j.deadline is not None and j.deadline < end]
        return summarise_stream(
            [j for j in jobs if j.stream == stream.name and j.release_s >= warmup_s],
            completed=completed([j for j in jobs if j.stream == stream.name], window_s),
            released=len(counted),
            overdue=len(overdue),
            service_s=service_s,
            deadline_s=stream.deadline_s,
            window_s=max(0.0, window_s[1] - warmup_s),
            energy_j_per_job=next((j.program.energy_j for j in self.jobs if j.stream == stream.name), None),
            peak_memory_bytes=self._peaks(stream.name),
        )

    def _peaks(self, stream: str) -> dict[str, float]:
        """Memory -> most bytes that the stream (all its copies) held at once."""
        end = f" bytes: {stream.partition('[')[0]}"
        return {n.removesuffix(end): most for n, most in self.recorder.peaks.items() if n.endswith(end)}


def _energy(finished: list[Job], idle_j: float | None) -> dict[str, float]:
    """Of the jobs that ended, and of what flows whatever runs; empty where one of them is unknown (has no end)."""
    energies = [job.program.energy_j for job in finished]
    if None in energies or idle_j == inf:
        return {}
    return {"jobs": float(sum(e for e in energies if e is not None))} | ({"idle": idle_j} if idle_j else {})


def _job_result(job: Job, service_s: float) -> JobResult:
    busy, reached = 0, job.release
    for record in sorted(job.records, key=lambda r: r.start):
        busy += max(0, record.end - max(record.start, reached))
        reached = max(reached, record.end)
    latency = job.ended - job.release
    queueing_s = to_seconds(latency - busy)
    contention_s = to_seconds(busy) - service_s
    missed = None
    if job.deadline is not None and job.ended > job.deadline:
        allowed_s = to_seconds(job.deadline - job.release)
        missed = "service" if service_s > allowed_s else "queueing" if queueing_s >= contention_s else "contention"
    return JobResult(
        stream=job.stream,
        number=job.number,
        release_s=to_seconds(job.release),
        finish_s=to_seconds(job.ended),
        queueing_s=queueing_s,
        service_s=service_s,
        contention_s=contention_s,
        missed=missed,
    )


def _group_results(job: Job) -> Iterator[GroupResult]:
    for record in job.records:
        work = job.program.works[record.at]
        yield GroupResult(
            stream=job.stream,
            job=job.number,
            name=work.group.name,
            engine=job.program.engines[record.at],
            ready_s=to_seconds(record.ready),
            start_s=to_seconds(record.start),
            end_s=to_seconds(record.end),
            alone_s=(work.launch + work.total) / TICKS_PER_S,
        )
