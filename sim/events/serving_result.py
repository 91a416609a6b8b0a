"""What a run of requests found: frozen, JSON-able as `dovetail.simulate/1`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from sim._version import __version__
from sim.events.statistics import Interval, t_interval
from sim.events.timeline import Timeline
from sim.results import SIMULATE_SCHEMA

QUANTITIES = ("ttft_s", "tpot_s", "queueing_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestResult:
    """`ttft_s`: arrival to first token; `tpot_s`: mean gap of the later ones (None with one token)."""

    arrival_s: float
    finish_s: float
    queueing_s: float
    ttft_s: float
    tpot_s: float | None
    output_tokens: int
    preemptions: int


@dataclass(frozen=True, kw_only=True)
class ServingResult:
    """One run. Goodput counts the requests that ended after the warm-up and met both deadlines."""

    latency_s: float
    """From the warm-up to the last end: what rates refer to."""
    requests: tuple[RequestResult, ...]
    """Those that arrived after the warm-up and were finished."""
    ended: tuple[RequestResult, ...]
    """Those that ended after the warm-up, whenever they arrived: what rates count."""
    steps: int
    """That ended after the warm-up, as `mean_batch` and `utilization`."""
    events: int
    mean_batch: float
    """Requests in a step: of a pipeline of chips, in the batch of one stage."""
    largest_batch: int
    """Requests under way at once, from the start on, as the memory and preemptions."""
    peak_kv_bytes: float
    kv_capacity_bytes: float
    preemptions: int
    utilization: float
    """Share of the time with a step under way; of a pipeline of chips, of that of all its batches."""
    energy_j: float | None
    """Of the steps after the warm-up, and of what flows whatever runs."""
    ttft_deadline_s: float | None
    tpot_deadline_s: float | None
    timeline: Timeline
    overdue: int = 0
    """Requests of a partial run without a first token whose deadline for it has passed."""
    seed: int = 0
    partial: bool = False

    def missed(self) -> dict[str, int]:
        """Cause -> requests: "ttft" (of these "queueing" when admission alone took the time), "tpot"."""
        causes: dict[str, int] = {}
        for request in self.requests:
            cause = self.cause(request)
            if cause:
                causes[cause] = causes.get(cause, 0) + 1
        return causes | ({"unfinished": self.overdue} if self.overdue else {})

    def cause(self, request: RequestResult) -> str | None:
        """Why a request missed a deadline: "queueing" or "prefill" to the first token, "tpot" after it."""
        if self.ttft_deadline_s is not None and request.ttft_s > self.ttft_deadline_s:
            return "queueing" if 2 * request.queueing_s > request.ttft_s else "prefill"
        late = self.tpot_deadline_s is not None and request.tpot_s is not None and request.tpot_s > self.tpot_deadline_s
        return "tpot" if late else None

    def percentiles(self, quantity: str) -> dict[str, float] | None:
        """p50, p95, p99, max and mean of "ttft_s", "tpot_s" or "queueing_s"."""
        values = [v for v in (getattr(r, quantity) for r in self.requests) if v is not None]
        if not values:
            return None
        p50, p95, p99, top = (float(v) for v in np.percentile(values, [50, 95, 99, 100]))
        return {"mean": float(np.mean(values)), "p50": p50, "p95": p95, "p99": p99, "max": top}

    @property
    def tokens_per_s(self) -> float:
        return sum(r.output_tokens for r in self.ended) / self.latency_s if self.latency_s else 0.0

    @property
    def goodput_per_s(self) -> float:
        met = sum(self.cause(r) is None for r in self.ended)
        return met / self.latency_s if self.latency_s else 0.0


@dataclass(frozen=True, kw_only=True)
class ServingRuns:
    """The replications of a serving scenario."""

    scenario: str
    hardware_name: str
    runs: tuple[ServingResult, ...]
    offered: float
    """Arrival rate x time of a mean request in a full batch."""
    kv_bytes_per_token: float
    notes: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    stated: Mapping[str, object] = field(default_factory=dict)
    """How it was made (`sim.events.stated.scenario`)."""

    @property
    def first(self) -> ServingResult:
        """The replication whose timeline is shown."""
        return self.runs[0]

    @property
    def pooled(self) -> ServingResult:
        """All requests of all replications as one run."""
        return pool(self.runs)

    @property
    def partial(self) -> bool:
        return any(run.partial for run in self.runs)

    def intervals(self) -> dict[str, Interval]:
        """Mean and p99 of each time, throughput and goodput: intervals over replications."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            for quantity in QUANTITIES:
                q = run.percentiles(quantity)
                for name in ("mean", "p99"):
                    if q:
                        found.setdefault(f"{quantity.removesuffix('_s')}_{name}_s", []).append(q[name])
            found.setdefault("tokens_per_s", []).append(run.tokens_per_s)
            found.setdefault("goodput_per_s", []).append(run.goodput_per_s)
        return {name: t_interval(values) for name, values in found.items()}

    def to_dict(self) -> dict[str, object]:
        all_ = self.pooled
        return {
            "schema": SIMULATE_SCHEMA, "version": __version__, "scenario": self.scenario,
            "hardware": {"name": self.hardware_name}, **self.stated,
            "settings": dict(self.settings), "seed": self.first.seed,
            "replications": len(self.runs), "partial": self.partial, "latency_s": all_.latency_s,
            "requests": len(all_.requests),
            "throughput_per_s": len(all_.ended) / all_.latency_s if all_.latency_s else None,
            "tokens_per_s": all_.tokens_per_s, "goodput_per_s": all_.goodput_per_s, "missed": all_.missed(),
            **{quantity: all_.percentiles(quantity) for quantity in QUANTITIES},
            "intervals": {name: asdict(interval) for name, interval in self.intervals().items()},
            "steps": all_.steps, "events": all_.events, "mean_batch": all_.mean_batch,
            "largest_batch": all_.largest_batch,
            "peak_memory_bytes": {"kv_cache": all_.peak_kv_bytes}, "kv_capacity_bytes": all_.kv_capacity_bytes,
            "kv_bytes_per_token": self.kv_bytes_per_token, "preemptions": all_.preemptions,
            "utilization": all_.utilization, "offered": self.offered, "energy_j": all_.energy_j,
            "notes": list(self.notes), "first_request": asdict(all_.requests[0]) if all_.requests else None,
        }  # fmt: skip


def pool(runs: Sequence[ServingResult]) -> ServingResult:
    """Requests of all runs together; means weighted by what they are means of."""
    span, steps = sum(r.latency_s for r in runs), sum(r.steps for r in runs)
    energies = [r.energy_j for r in runs]
    return replace(
        runs[0],
        latency_s=span,
        requests=tuple(request for run in runs for request in run.requests),
        ended=tuple(request for run in runs for request in run.ended),
        steps=steps,
        events=sum(r.events for r in runs),
        mean_batch=sum(r.mean_batch * r.steps for r in runs) / steps if steps else 0.0,
        largest_batch=max(r.largest_batch for r in runs),
        peak_kv_bytes=max(r.peak_kv_bytes for r in runs),
        preemptions=sum(r.preemptions for r in runs),
        utilization=sum(r.utilization * r.latency_s for r in runs) / span if span else 0.0,
        energy_j=None if None in energies else float(sum(e for e in energies if e is not None)),
        overdue=sum(r.overdue for r in runs),
        partial=any(r.partial for r in runs),
    )
