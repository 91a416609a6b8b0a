"""Serving scenarios: requests drawn, the KV cache sized, the step table built from schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np

from sim.errors import ConfigError, InfeasibleError, checked_seed, nearest
from sim.events import arrivals as draw
from sim.events.experiment import Builder, OverloadError, default_builder
from sim.events.progress import Progress, part
from sim.events.run import Stream, run
from sim.events.scenario import Bursts, Periodic, Requests, Scenario, Serving
from sim.events.serving import Cache, Request, StepTable, offered_utilization, serve
from sim.events.serving_result import ServingResult, ServingRuns
from sim.events.simulate import idle_power_of
from sim.events.stated import scenario as stated_scenario
from sim.hardware.chip import Chip
from sim.schedule.prepare import outside_layers
from sim.workload.precision import BITS, parse_precision


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What the model keeps in memory."""

    weights_bytes: float
    kv_bytes_per_token: float


def run_serving(
    scenario: Scenario,
    chip: Chip,
    *,
    seed: int = 0,
    build: Builder = default_builder,
    footprint: Callable[[Serving, str], Footprint] | None = None,
    check: bool = True,
    record: int = 50_000,
    progress: Progress | None = None,
) -> ServingRuns:
    """Simulates all replications of a serving scenario.

    Args:
        footprint: (serving, precision) -> bytes of weights and of a token's KV; default: traced.

    Raises:
        InfeasibleError: weights leave no room, or more requests arrive than can ever be served.
    """
    spec = scenario.serving
    if spec is None:
        raise ConfigError(f'scenario "{scenario.name}" has streams and no serving part')
    seed, precision = checked_seed(seed), spec.precision or chip.default_precision
    held = (footprint or traced_footprint)(spec, _held_widths(precision, chip))
    cache = size_cache(spec, chip, held)
    requests = [draw_requests(spec.requests, seed, r) for r in range(scenario.replications)]
    seconds, joules = step_tables(spec, chip, build, cache, progress, [r for drawn in requests for r in drawn])
    load = offered_utilization(requests[0], _rate(spec.requests), seconds, cache, spec.max_batch, spec.prefill_chunk)
    if check and load > 1:
        raise OverloadError(
            f"{chip.name}: utilisation {load:.2f} at a full batch: the queue grows without bound; "
            f"divide the rate by at least {ceil(100 * load) / 100:g}"
        )
    _check_observed(scenario, requests)
    if check:
        _check_deadlines(spec, seconds, requests)
    runs: list[ServingResult] = []
    for replication, drawn in enumerate(requests):
        runs.append(
            serve(
                drawn,
                seconds,
                cache,
                energy=joules,
                idle_power_w=idle_power_of(chip),
                max_batch=spec.max_batch,
                prefill_chunk=spec.prefill_chunk,
                ttft_deadline_s=spec.ttft_deadline,
                tpot_deadline_s=spec.tpot_deadline,
                warmup_s=scenario.warmup,
                seed=seed,
                record=0 if runs else record,
                progress=part(progress, replication, scenario.replications),
            )
        )
        if runs[-1].partial:
            break
    settings = {"max_batch": spec.max_batch, "prefill_chunk": spec.prefill_chunk, "precision": precision,
                "page_tokens": spec.kv.page_tokens, "warmup_s": scenario.warmup}  # fmt: skip
    return ServingRuns(
        scenario=scenario.name,
        hardware_name=chip.name,
        runs=tuple(runs),
        offered=load,
        kv_bytes_per_token=held.kv_bytes_per_token,
        notes=(*_batches(seconds), *_read_at_once(seconds, requests)),
        settings=settings,
        stated=stated_scenario(scenario, chip),
    )


def _batches(seconds: StepTable) -> tuple[str, ...]:
    """A note on a pipeline of chips."""
    n = seconds.stages
    return (f"{n} pipeline stages, each with a batch of its own under way",) if n > 1 else ()


def _read_at_once(seconds: StepTable, requests: list[list[Request]]) -> tuple[str, ...]:
    """A note on prompts beyond the table."""
    longest, most = max(r.prompt_tokens for drawn in requests for r in drawn), seconds.prompts[-1]
    if longest <= most:
        return ()
    note = (
        f"prompts of up to {longest:,} tokens: beyond {most:,}, the most that can be read at once, their time goes "
        "on as a line, which is too little for attention"
    )
    return (note,)


def _check_observed(scenario: Scenario, requests: list[list[Request]]) -> None:
    last_s = max(drawn[-1].arrival_s for drawn in requests)
    if last_s < scenario.warmup:
        raise ConfigError(
            f"warmup of {scenario.warmup:g} s is later than the last arrival, {last_s:.4g} s: nothing is left to "
            "observe; expected a shorter warmup or a larger serving.requests.count"
        )


def _check_deadlines(spec: Serving, seconds: StepTable, requests: list[list[Request]]) -> None:
    """Refuses deadlines below what the shortest request takes on a machine of its own."""
    shortest = min(request.prompt_tokens for drawn in requests for request in drawn)
    starts = range(0, shortest, spec.prefill_chunk)
    first_s = sum(seconds.chunk(min(spec.prefill_chunk, shortest - at), at) for at in starts)
    for name, deadline_s, alone_s in (
        ("ttft_deadline", spec.ttft_deadline, first_s),
        ("tpot_deadline", spec.tpot_deadline, seconds.decode(1, shortest)),
    ):
        if deadline_s is not None and alone_s > deadline_s:
            raise InfeasibleError(
                f"serving.{name}: {deadline_s * 1e3:.4g} ms is shorter than the service time of the shortest request "
                f"({shortest} tokens) alone, {alone_s * 1e3:.4g} ms: every request would miss it"
            )


def draw_requests(spec: Requests, seed: int, replication: int = 0) -> list[Request]:
    """`count` requests: arrivals as stated, lengths lognormal with the stated median, at least 1."""
    length_s = 2 * spec.count / _rate(spec) + 1.0
    while True:
        rng = np.random.default_rng(np.random.SeedSequence([seed, replication]))
        times = _released_s(spec, length_s, rng)[: spec.count]
        if len(times) == spec.count:
            break
        length_s *= 2  # needed for few requests at a low rate
    prompt = np.minimum(_lengths(spec.prompt_tokens, spec.prompt_sigma, len(times), rng), spec.max_tokens - 1)
    output = np.minimum(_lengths(spec.output_tokens, spec.output_sigma, len(times), rng), spec.max_tokens - prompt)
    return [
        Request(arrival_s=float(t), prompt_tokens=int(p), output_tokens=int(o))
        for t, p, o in zip(times, prompt, output, strict=True)
    ]


def _released_s(spec: Requests, length_s: float, rng: np.random.Generator) -> np.ndarray:
    """Arrivals within `length_s`; of periodic ones all of them."""
    match spec.arrivals:
        case Periodic() as a:
            phase = 0.0 if a.phase == "spread" else a.phase
            period_s, length_s = 1 / a.rate, phase + (spec.count + 1) / a.rate
            return draw.periodic(period_s=period_s, phase_s=phase, jitter_s=a.jitter, length_s=length_s, rng=rng)
        case Bursts() as a:
            return draw.bursts(rate_hz=a.rate, size=a.size, gap_s=a.gap, length_s=length_s, rng=rng)
        case a:
            return draw.poisson(rate_hz=a.rate, length_s=length_s, rng=rng)


def step_tables(
    spec: Serving,
    chip: Chip,
    build: Builder,
    cache: Cache,
    progress: Progress | None = None,
    requests: Iterable[Request] = (),
) -> tuple[StepTable, StepTable | None]:
    """Seconds and joules (None where the chip states no energies) of steps, from schedules.

    The table of the file is doubled until it reaches as many requests, and as many tokens, as there are; and one
    request is in it. A batch is scheduled at the contexts of the table that the cache can hold that many times;
    longer ones, which it never meets, continue the line of these.
    """
    sizes = [r.prompt_tokens + r.output_tokens - 1 for r in requests]
    contexts = _reaching(spec.table_contexts, max(sizes, default=0))
    batches = _reaching(spec.table_batches, min(spec.max_batch, spec.requests.count))
    tokens = cache.pages * cache.page_tokens
    batches = tuple(b for b in sorted({1, *batches}) if tokens // b >= 2)
    if len(batches) < 2:
        raise InfeasibleError(f"{chip.name}: a KV cache of {tokens} tokens holds no batch of {spec.table_batches}")
    chunks = {min(n, contexts[-1]) for n in (spec.prefill_chunk // 2, spec.prefill_chunk) if n}
    prompts = tuple(sorted({*contexts, *chunks}))
    axes = [_held_contexts(contexts, tokens // b) for b in batches]
    cells = [("decode", b, c) for b, axis in zip(batches, axes, strict=True) for c in axis]
    cells += [("prefill", 1, n) for n in prompts]
    found: dict[tuple[str, int, int], tuple[float, float | None, float | None]] = {}
    stages = 1
    for at, (phase, batch, context) in enumerate(cells):
        if progress:
            progress(at / len(cells), "scheduling")
        knobs = {**spec.knobs, "phase": phase, "batch": batch, "context": context}
        try:
            made = build(spec.workload, knobs, spec.precision, chip)
        except InfeasibleError:
            if phase == "decode" or context <= spec.table_contexts[-1]:
                raise
            prompts = tuple(n for n in prompts if n < context)  # too long to be read at once; chunks of it may fit
            break
        alone = run([Stream(name="step", schedule=made)], record=0)
        found[phase, batch, context] = (alone.latency_s, alone.energy_j, made.interval_s)
        stages = made.stages

    def table(which: int) -> StepTable:
        values = {cell: float(both[which] or 0.0) for cell, both in found.items()}
        return StepTable(
            batches=batches,
            contexts=contexts,
            decode_table=np.array(
                [
                    _continued(axis, [values["decode", b, c] for c in axis], contexts)
                    for b, axis in zip(batches, axes, strict=True)
                ]
            ),
            prompts=prompts,
            prefill_table=np.array([values["prefill", 1, n] for n in prompts]),
        )

    seconds = replace(table(0), stages=stages, slowest=table(2)) if stages > 1 else table(0)
    return seconds, None if any(energy is None for _, energy, _ in found.values()) else table(1)


def _reaching(axis: tuple[int, ...], most: int) -> tuple[int, ...]:
    """The axis, doubled at its end until it holds `most`."""
    while axis[-1] < most:
        axis += (2 * axis[-1],)
    return axis


def _held_contexts(contexts: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Those up to `most`, at least two."""
    held = tuple(c for c in contexts if c <= most)
    return held if len(held) > 1 else (most // 2, most)


def _continued(axis: tuple[int, ...], values: list[float], at: tuple[int, ...]) -> list[float]:
    """Linear through the points, and on beyond the ends."""
    lines = [(x, v, (w - v) / (y - x)) for (x, v), (y, w) in pairwise(zip(axis, values, strict=True))]
    chosen = [max((line for line in lines if line[0] <= c), default=lines[0]) for c in at]
    return [v + slope * (c - x) for c, (x, v, slope) in zip(at, chosen, strict=True)]


def size_cache(spec: Serving, chip: Chip, held: Footprint) -> Cache:
    """Pages in what weights and reserve leave of the memory, of which each chip of a system has its own: weights, keys
    and values are shared out evenly."""
    names = {m.name: m for m in chip.memories}
    if spec.kv.memory not in names:
        known = ", ".join(sorted(names))
        hint = nearest(spec.kv.memory, names)
        raise ConfigError(f'serving.kv.memory: unknown resource "{spec.kv.memory}"; {chip.name} has {known}.{hint}')
    memory, chips = names[spec.kv.memory], chip.system.chips if chip.system else 1
    capacity = memory.capacity_bytes * chips
    room = capacity * (1 - spec.kv.reserve) - held.weights_bytes
    asked = room if spec.kv.capacity is None else spec.kv.capacity
    if asked > room:
        raise InfeasibleError(
            f"serving.kv.capacity: {asked:.4g} bytes do not fit {memory.name}: weights of {held.weights_bytes:.4g} "
            f"and a reserve of {spec.kv.reserve:.0%} leave {max(0.0, room):.4g} of {capacity:.4g} bytes"
        )
    page_bytes = held.kv_bytes_per_token * spec.kv.page_tokens
    pages = asked // page_bytes if np.isfinite(asked) else 1e9
    if pages < 1 and spec.kv.capacity is not None:
        raise InfeasibleError(
            f"serving.kv.capacity: {asked:.4g} bytes hold no page of {spec.kv.page_tokens} tokens, which takes "
            f"{page_bytes:.4g}"
        )
    if pages < 1:
        raise InfeasibleError(
            f"{chip.name}: {memory.name} of {capacity:.4g} bytes less {spec.kv.reserve:.0%} reserve holds "
            f"the weights of {held.weights_bytes:.4g} bytes and no page of KV cache"
        )
    return Cache(pages=int(pages), page_tokens=spec.kv.page_tokens, bytes_per_token=held.kv_bytes_per_token)


def _held_widths(precision: str, chip: Chip) -> str:
    """The precision as the chip holds it: a framework keeps caches of quantised networks in fp32."""
    if not (chip.units and chip.main_unit.costing.eager):
        return precision
    held = outside_layers(parse_precision(precision))
    return f"w{BITS[held.weight]}a{BITS[held.activation]}kv{BITS[held.kv]}"


def traced_footprint(spec: Serving, precision: str) -> Footprint:
    """From the traced decode step, at the precision's widths: all weights; a token's share of the KV cache
    is what the cache grows by between two contexts."""
    from sim.workload.graph import Role
    from sim.workload.load import load_workload

    def elements(role: Role, context: int) -> float:
        knobs = {**spec.knobs, "phase": "decode", "context": context, "batch": 1}
        graph = load_workload(spec.workload, **knobs)
        held: dict[str, int] = {}
        for tensor in graph.tensors.values():
            if tensor.role is role:
                place = tensor.storage or tensor.id
                held[place] = max(held.get(place, 0), tensor.elements)
        return sum(held.values())

    low, high = spec.table_contexts[:2]
    widths = parse_precision(precision)
    grown = elements(Role.KV_CACHE, high) - elements(Role.KV_CACHE, low)
    if grown <= 0:
        raise ConfigError(
            f'serving.workload: the decode step of "{spec.workload}" keeps no KV cache that grows with its context: '
            "expected buffers or inputs that the model writes in place, as the bundled llama does, or inputs that its "
            "attention reads as keys and values"
        )
    return Footprint(
        weights_bytes=elements(Role.WEIGHT, low) * BITS[widths.weight] / 8,
        kv_bytes_per_token=grown / (high - low) * BITS[widths.kv] / 8,
    )


def _lengths(median: int, sigma: float, count: int, rng: np.random.Generator) -> np.ndarray:
    drawn = median * np.exp(sigma * rng.standard_normal(count)) if sigma else np.full(count, median)
    return np.maximum(1, np.rint(drawn))


def _rate(spec: Requests) -> float:
    return spec.arrivals.rate * (spec.arrivals.size if isinstance(spec.arrivals, Bursts) else 1)
