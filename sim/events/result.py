"""What a simulation found: frozen, JSON-able as `dovetail.simulate/1`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf

import numpy as np

from sim._version import __version__
from sim.documents import plain
from sim.errors import InfeasibleError
from sim.events.timeline import Timeline
from sim.results import SIMULATE_SCHEMA
from sim.units import Dimension, format_quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class PortUse:
    """One port over the whole run. Achieved bandwidth = bytes / run; utilisation = achieved / peak."""

    bytes: float
    achieved_bytes_per_s: float
    utilization: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUse:
    """One unit instance: `utilization` is the share of the run with a group on it."""

    busy_s: float
    utilization: float
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """One group of one job. queueing_s = ready until start; service_s = start until end, launch included."""

    stream: str
    job: int
    name: str
    engine: str
    ready_s: float
    start_s: float
    end_s: float
    alone_s: float

    @property
    def queueing_s(self) -> float:
        return self.start_s - self.ready_s

    @property
    def service_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """One finished job: latency_s = queueing_s + service_s + contention_s.

    queueing_s: none of its groups ran; service_s: as long as it takes alone; contention_s: what its
    groups took longer than that because others moved data too.
    """

    stream: str
    number: int
    release_s: float
    finish_s: float
    queueing_s: float
    service_s: float
    contention_s: float
    missed: str | None
    """None, or why the deadline was missed: "service", "queueing" or "contention"."""

    @property
    def latency_s(self) -> float:
        return self.finish_s - self.release_s


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResult:
    """One stream, jobs released after the warm-up only; rates count the jobs that end in the window."""

    released: int
    finished: int
    unfinished: int
    latency_mean_s: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    latency_p99_s: float | None
    latency_max_s: float | None
    queueing_mean_s: float | None
    contention_mean_s: float | None
    service_s: float
    deadline_s: float | None
    missed: Mapping[str, int]
    """Cause -> jobs; jobs unfinished past their deadline count as "unfinished"."""
    miss_rate: float | None
    throughput_per_s: float
    goodput_per_s: float
    """Jobs per second that met their deadline (all that finished, without one)."""
    energy_j_per_job: float | None = None
    peak_memory_bytes: Mapping[str, float] = field(default_factory=dict)
    """Most that all its copies held at once, weights included."""


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """One run of the machine."""

    latency_s: float
    """From the first release to the last end."""
    run_s: float
    """What use, power, throughput and idle energy refer to: the stated length, or until the last end where that is
    later; without a length as `latency_s`."""
    contended_s: float
    """Time in which some transfer ran slower than alone because of another one."""
    grain: str
    """ "expand" (every tile an event chain), "folded" or "summary"."""
    events: int
    arithmetic_steps: int
    """Phase changes that folding did without an event."""
    seed: int
    ports: Mapping[str, PortUse]
    engines: Mapping[str, EngineUse]
    streams: Mapping[str, StreamResult]
    jobs: tuple[JobResult, ...]
    groups: tuple[GroupResult, ...]
    peak_memory_bytes: Mapping[str, float]
    dma_queueing_s: Mapping[str, float]
    """Shared DMA engines -> time for which transfers waited for them, summed over transfers."""
    energy_breakdown_j: Mapping[str, float]
    """"jobs": of all that ended; "idle": power that flows whatever runs x the run. Empty where it is unknown."""
    timeline: Timeline
    window_s: tuple[float, float]
    """What rates refer to: from the warm-up to the length, or to the last end where there is none."""
    partial: bool = False
    """Ended early (Ctrl-C): what is here was simulated, the rest was not."""
    workload_name: str = ""
    knobs: Mapping[str, object] | None = None
    graph_hash: str | None = None
    hardware_name: str = ""
    hardware_hash: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    precision: str = ""
    op_precisions: Mapping[str, str] = field(default_factory=dict)
    """group -> its stored types (`OpEstimate.precision`)"""
    batch: int | None = None
    objective: str | None = None
    map_space: str | None = None
    buffering: str | None = None
    calibration: Mapping[str, object] | None = None
    """As in an estimate; None with data-sheet constants, or of a schedule, which does not tell."""
    estimate_latency_s: float | None = None
    """What `estimate` makes of the same schedule; None where that is not known (a schedule, several streams)."""
    unsupported: tuple[str, ...] = ()
    """Ops without a rule, costed as memory traffic."""
    infeasible: Mapping[str, object] | None = None
    """Why nothing ran, as in an estimate; its times are then infinite, and null in the document."""
    notes: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        """One line: `streams`, `jobs` and `groups` have the numbers."""
        what = f" of {self.workload_name} on {self.hardware_name}" if self.workload_name else ""
        jobs = ", ".join(f"{stream.finished} jobs of {name}" for name, stream in self.streams.items())
        return f"<Simulation{what}: {format_quantity(self.latency_s, Dimension.TIME)}, {jobs}>"

    @property
    def workload(self) -> dict[str, object]:
        """As in the document: "name", "knobs", "graph_hash"; None of a schedule, which does not tell."""
        knobs = None if self.knobs is None else dict(self.knobs)
        return {"name": self.workload_name or None, "knobs": knobs, "graph_hash": self.graph_hash}

    @property
    def hardware(self) -> dict[str, object]:
        """As in the document: "name", "hash", "overrides"."""
        return {"name": self.hardware_name or None, "hash": self.hardware_hash, "overrides": dict(self.overrides)}

    @property
    def energy_j(self) -> float | None:
        return sum(self.energy_breakdown_j.values()) if self.energy_breakdown_j else None

    @property
    def throughput_per_s(self) -> float | None:
        """Jobs a second, each of them `batch` items where it is known; None where nothing ran."""
        return (self.batch or 1) * len(self.jobs) / self.run_s if 0 < self.run_s < inf else None

    @property
    def power_w(self) -> float | None:
        return self.energy_j / self.run_s if self.energy_j and 0 < self.run_s < inf else None

    @property
    def utilisation(self) -> dict[str, float | None]:
        """Share of the run for which each unit instance and port was in use."""
        units = {name: use.utilization for name, use in self.engines.items()}
        return units | {name: use.utilization for name, use in self.ports.items()}

    def to_dict(self) -> dict[str, object]:
        """The `dovetail.simulate/1` document; group records of single jobs only, to stay readable."""
        first = [g for g in self.groups if g.job == 0]
        document: dict[str, object] = {
            "schema": SIMULATE_SCHEMA,
            "version": __version__,
            "workload": self.workload,
            "batch": self.batch,
            "hardware": self.hardware,
            "precision": self.precision or None,
            "objective": self.objective,
            "map_space": self.map_space,
            "buffering": self.buffering,
            "calibration": None if self.calibration is None else dict(self.calibration),
            "settings": dict(self.settings),
            "grain": self.grain,
            "seed": self.seed,
            "partial": self.partial,
            "latency_s": self.latency_s,
            "run_s": self.run_s,
            "estimate_latency_s": self.estimate_latency_s,
            "throughput_per_s": self.throughput_per_s,
            "contended_s": self.contended_s,
            "events": self.events,
            "arithmetic_steps": self.arithmetic_steps,
            "energy_j": self.energy_j,
            "energy_breakdown_j": dict(self.energy_breakdown_j),
            "power_w": self.power_w,
            "peak_memory_bytes": dict(self.peak_memory_bytes),
            "dma_queueing_s": dict(self.dma_queueing_s),
            "ports": {name: asdict(use) for name, use in self.ports.items()},
            "units": {name: asdict(use) for name, use in self.engines.items()},
            "streams": {name: asdict(result) for name, result in self.streams.items()},
            "ops": [
                {
                    "name": g.name,
                    "stream": g.stream,
                    "precision": self.op_precisions.get(g.name) or None,
                    "unit": g.engine,
                    "start_s": g.start_s,
                    "latency_s": g.service_s,
                    "alone_s": g.alone_s,
                    "breakdown_s": {"queueing": g.queueing_s},
                }
                for g in first
            ],
            "infeasible": self.infeasible,
            "unsupported": list(self.unsupported),
            "notes": list(self.notes),
        }
        return document if self.infeasible is None else plain(document)


def refused(error: InfeasibleError, *, grain: str, seed: int) -> Simulation:
    """The result of what runs nowhere: without numbers, and with the reason."""
    return Simulation(
        latency_s=inf, run_s=inf, contended_s=inf, grain=grain, events=0, arithmetic_steps=0, seed=seed, ports={},
        engines={}, streams={}, jobs=(), groups=(), peak_memory_bytes={}, dma_queueing_s={}, energy_breakdown_j={},
        timeline=Timeline(), window_s=(0.0, 0.0), infeasible=error.to_dict(),
    )  # fmt: skip


def completed(jobs: Iterable[JobResult], window_s: tuple[float, float]) -> list[JobResult]:
    """Those that ended in the window, whenever they were released."""
    return [job for job in jobs if window_s[0] <= job.finish_s <= window_s[1]]


def summarise_stream(
    jobs: list[JobResult],
    *,
    completed: list[JobResult],
    released: int,
    overdue: int,
    service_s: float,
    deadline_s: float | None,
    window_s: float,
    energy_j_per_job: float | None = None,
    peak_memory_bytes: Mapping[str, float] | None = None,
) -> StreamResult:
    """Percentiles (linear interpolation) and misses by cause of `jobs`, rates of `completed` over `window_s`."""
    latency = np.array([j.latency_s for j in jobs])
    causes: dict[str, int] = {}
    for job in jobs:
        if job.missed:
            causes[job.missed] = causes.get(job.missed, 0) + 1
    if overdue:
        causes["unfinished"] = overdue
    missed = sum(causes.values())

    def at(q: float) -> float | None:
        return float(np.percentile(latency, q)) if len(jobs) else None

    return StreamResult(
        released=released,
        finished=len(jobs),
        unfinished=released - len(jobs),
        latency_mean_s=float(latency.mean()) if len(jobs) else None,
        latency_p50_s=at(50),
        latency_p95_s=at(95),
        latency_p99_s=at(99),
        latency_max_s=at(100),
        queueing_mean_s=float(np.mean([j.queueing_s for j in jobs])) if jobs else None,
        contention_mean_s=float(np.mean([j.contention_s for j in jobs])) if jobs else None,
        service_s=service_s,
        deadline_s=deadline_s,
        missed=causes,
        miss_rate=missed / released if deadline_s is not None and released else None,
        throughput_per_s=len(completed) / window_s if window_s > 0 else 0.0,
        goodput_per_s=sum(j.missed is None for j in completed) / window_s if window_s > 0 else 0.0,
        energy_j_per_job=energy_j_per_job,
        peak_memory_bytes=dict(peak_memory_bytes or {}),
    )
