"""Serving scenarios: requests drawn, the KV cache sized, the step table built from schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from sim.errors import ConfigError, InfeasibleError, nearest
from sim.events import arrivals as draw
from sim.events.experiment import Builder, default_builder
from sim.events.run import alone_s
from sim.events.scenario import Bursts, Periodic, Requests, Scenario, Serving
from sim.events.serving import Cache, Request, ServingResult, StepTable, offered_utilization, serve
from sim.hardware.chip import Chip


def run_serving(
    scenario: Scenario,
    chip: Chip,
    *,
    seed: int = 0,
    build: Builder = default_builder,
    weights: Callable[[str, Mapping[str, object], str], float] | None = None,
    check: bool = True,
    progress: Callable[[float], None] | None = None,
) -> ServingResult:
    """Simulates a serving scenario.

    Args:
        weights: (workload, knobs, precision) -> bytes of its weights; default: traced.

    Raises:
        InfeasibleError: weights leave no room, or more requests arrive than can ever be served.
    """
    spec = scenario.serving
    if spec is None:
        raise ConfigError(f'scenario "{scenario.name}" has streams and no serving part')
    requests = draw_requests(spec.requests, seed)
    table = step_table(spec, chip, build)
    precision = spec.precision or chip.default_precision
    cache = size_cache(spec, chip, (weights or graph_weights_bytes)(spec.workload, spec.knobs, precision))
    load = offered_utilization(requests, _rate(spec.requests), table, cache, spec.max_batch)
    if check and load > 1:
        raise InfeasibleError(
            f"{chip.name}: utilisation {load:.2f} at a full batch: the queue grows without bound; "
            f"lower the rate by at least {1 - 1 / load:.0%}"
        )
    result = serve(
        requests,
        table,
        cache,
        max_batch=spec.max_batch,
        prefill_chunk=spec.prefill_chunk,
        ttft_deadline_s=spec.ttft_deadline,
        tpot_deadline_s=spec.tpot_deadline,
        seed=seed,
        progress=progress,
    )
    settings = {"max_batch": spec.max_batch, "prefill_chunk": spec.prefill_chunk, "kv_bits": spec.kv.bits}
    return replace(result, scenario=scenario.name, hardware_name=chip.name, offered=load, settings=settings)


def draw_requests(spec: Requests, seed: int) -> list[Request]:
    """`count` requests: arrivals as stated, lengths lognormal with the stated median, at least 1."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    rate = _rate(spec)
    length_s = 2 * spec.count / rate + 1.0
    match spec.arrivals:
        case Periodic() as a:
            phase = 0.0 if a.phase == "spread" else a.phase
            period_s, length_s = 1 / a.rate, phase + (spec.count + 1) / a.rate
            times = draw.periodic(period_s=period_s, phase_s=phase, jitter_s=a.jitter, length_s=length_s, rng=rng)
        case Bursts() as a:
            times = draw.bursts(rate_hz=a.rate, size=a.size, gap_s=a.gap, length_s=length_s, rng=rng)
        case a:
            times = draw.poisson(rate_hz=a.rate, length_s=length_s, rng=rng)
    times = times[: spec.count]
    prompt = _lengths(spec.prompt_tokens, spec.prompt_sigma, len(times), rng)
    output = _lengths(spec.output_tokens, spec.output_sigma, len(times), rng)
    prompt = np.minimum(prompt, spec.max_tokens - 1)
    output = np.minimum(output, spec.max_tokens - prompt)
    return [
        Request(arrival_s=float(t), prompt_tokens=int(p), output_tokens=int(o))
        for t, p, o in zip(times, prompt, output, strict=True)
    ]


def step_table(spec: Serving, chip: Chip, build: Builder) -> StepTable:
    """Schedules the workload at each (batch, context) of the table, and its prefill at each context."""
    decode = [
        [_seconds(spec, chip, build, phase="decode", batch=b, context=c) for c in spec.table_contexts]
        for b in spec.table_batches
    ]
    prompts = tuple(sorted({*spec.table_contexts, min(spec.prefill_chunk, spec.table_contexts[-1])}))
    prefill = [_seconds(spec, chip, build, phase="prefill", batch=1, context=n) for n in prompts]
    return StepTable(
        batches=spec.table_batches,
        contexts=spec.table_contexts,
        decode_s=np.array(decode),
        prompts=prompts,
        prefill_s=np.array(prefill),
    )


def size_cache(spec: Serving, chip: Chip, weights_bytes: float) -> Cache:
    """Pages in what weights and reserve leave of the memory."""
    names = {m.name: m for m in chip.memories}
    if spec.kv.memory not in names:
        known = ", ".join(sorted(names))
        hint = nearest(spec.kv.memory, names)
        raise ConfigError(f'serving.kv.memory: unknown resource "{spec.kv.memory}"; {chip.name} has {known}.{hint}')
    memory = names[spec.kv.memory]
    capacity = spec.kv.capacity
    if capacity is None:
        capacity = memory.capacity_bytes * (1 - spec.kv.reserve) - weights_bytes
    per_token = 2 * spec.layers * spec.kv_heads * spec.head_dim * spec.kv.bits / 8
    pages = int(capacity // (per_token * spec.kv.page_tokens)) if np.isfinite(capacity) else 10**9
    if pages < 1:
        raise InfeasibleError(
            f"{chip.name}: {memory.name} of {memory.capacity_bytes:.4g} bytes less {spec.kv.reserve:.0%} reserve holds "
            f"the weights of {weights_bytes:.4g} bytes and no page of KV cache"
        )
    return Cache(pages=pages, page_tokens=spec.kv.page_tokens, bytes_per_token=per_token)


def graph_weights_bytes(workload: str, knobs: Mapping[str, object], precision: str) -> float:
    """Bytes of all weights of the traced workload, stored at the precision's weight bits."""
    from sim.workload.graph import Role
    from sim.workload.load import load_workload
    from sim.workload.precision import BITS, parse_precision

    graph = load_workload(workload, **{**knobs, "phase": "decode", "context": 128, "batch": 1})  # type: ignore[arg-type]
    stored = {t.storage or t.id: t.elements for t in graph.tensors.values() if t.role is Role.WEIGHT}
    return sum(stored.values()) * BITS[parse_precision(precision).weight] / 8


def _seconds(spec: Serving, chip: Chip, build: Builder, **knobs: object) -> float:
    return alone_s(build(spec.workload, {**spec.knobs, **knobs}, spec.precision, chip))


def _lengths(median: int, sigma: float, count: int, rng: np.random.Generator) -> np.ndarray:
    drawn = median * np.exp(sigma * rng.standard_normal(count)) if sigma else np.full(count, median)
    return np.maximum(1, np.rint(drawn)).astype(int)


def _rate(spec: Requests) -> float:
    return spec.arrivals.rate * (spec.arrivals.size if isinstance(spec.arrivals, Bursts) else 1)
