"""What an event-driven run found, as tables and sentences for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from sim.events.experiment import ScenarioResult
from sim.events.limits import Limit
from sim.events.result import Simulation
from sim.events.serving_result import ServingResult, ServingRuns
from sim.events.statistics import Interval
from sim.view import rows
from sim.view.fitted import FittedTable, fitted, number, words


def time(seconds: float | None) -> str:
    return "-" if seconds is None else rows.time_text(seconds)


def one(result: Simulation) -> list[RenderableType]:
    """A workload alone."""
    energy = "" if result.energy_j is None else f", {rows.energy_text(result.energy_j)}"
    head = (
        f"{result.workload_name} on {result.hardware_name}, {result.grain}{_marked(result.partial)}: "
        f"{time(result.latency_s)}, {time(result.contended_s)} of it contended{energy}, {result.events:,} events"
    )
    return [head, "", *_use(result)]


def assumed(result: Simulation) -> str:
    """How the run's schedule was made, in words."""
    return f"{result.precision}, best of the {result.map_space} mappings, {result.buffering} buffering"


def scenario(result: ScenarioResult) -> list[RenderableType]:
    """Streams with their latencies, causes of misses, spread over replications, memory, use of the machine."""
    title = f"{result.scenario} on {result.hardware_name}, latency{_marked(result.partial)}"
    heads = (words("stream"), number("jobs", drop=3), number("mean"), number("p50", drop=5), number("p95", drop=4),
             number("p99"), number("max", drop=1), number("deadline", drop=2))  # fmt: skip
    lines = [
        [name, f"{s.finished:,}", *map(time, (s.latency_mean_s, s.latency_p50_s, s.latency_p95_s, s.latency_p99_s,
                                              s.latency_max_s, s.deadline_s))]
        for name, s in result.streams.items()
    ]  # fmt: skip
    parts: list[RenderableType] = [fitted(title, heads, lines), _causes(result)]
    if len(result.replications) > 1:
        parts.append(_spreads(result))
    if (memory := _memory(result)) is not None:
        parts.append(memory)
    return [*parts, *_use(result.first), *_energy(result.first)]


def _energy(result: Simulation) -> list[str]:
    """Of the whole run, and the share of it that flows whatever runs."""
    energy, run_s, idle = result.energy_j, result.run_s, result.energy_breakdown_j.get("idle")
    if not energy or not run_s:
        return []
    flows = (
        "without idle power, which is unknown" if idle is None else f"{rows.share_text(idle / energy)} of it idle power"
    )
    return [f"Energy: {rows.energy_text(energy)} in {time(run_s)}, {energy / run_s:.3g} W, {flows}"]


def _causes(result: ScenarioResult) -> FittedTable:
    """What the mean latency is made of, and what missed its deadline, why."""
    lines = []
    for name, s in result.streams.items():
        missed = ", ".join(f"{n} {cause}" for cause, n in s.missed.items()) or ("0" if s.deadline_s else "-")
        means = map(time, (s.service_s, s.queueing_mean_s, s.contention_mean_s))
        lines.append([name, *means, missed, f"{s.goodput_per_s:.4g}/s", rows.energy_text(s.energy_j_per_job)])
    heads = (words("stream"), number("alone"), number("queueing"), number("contention", drop=1), number("missed"),
             number("goodput", drop=2), number("energy a job", drop=3))  # fmt: skip
    return fitted("What the mean is made of", heads, lines)


def _spreads(result: ScenarioResult) -> FittedTable:
    names = {"latency_mean_s": number("mean"), "latency_p99_s": number("p99"), "miss_rate": number("miss rate"),
             "throughput_per_s": number("jobs", drop=2), "goodput_per_s": number("goodput", drop=1)}  # fmt: skip
    lines = [[stream, *(spread(of.get(q), q) for q in names)] for stream, of in result.intervals.items()]
    title = f"95 % confidence over {len(result.replications)} replications"
    return fitted(title, [words("stream"), *names.values()], lines)


def spread(interval: Interval | None, quantity: str) -> str:
    """Mean and half width, in the unit that the quantity's name ends in."""
    if interval is None:
        return "-"
    if quantity.endswith("per_s"):
        half = "" if interval.half_width is None else f" ± {_plainly(interval.half_width, 2)}"
        return f"{_plainly(interval.mean, 4)}{half} /s"
    text = time if quantity.endswith("_s") else rows.share_text
    return text(interval.mean) + ("" if interval.half_width is None else f" ± {text(interval.half_width)}")


def _plainly(value: float, digits: int) -> str:
    """`digits` of a number that counts, without an exponent: 1000, not 1e+03."""
    return f"{float(f'{value:.{digits}g}'):,.15g}"


def _memory(result: ScenarioResult) -> FittedTable | None:
    """Peaks of each memory, of all streams together and of each."""
    streams = [name for name, s in result.streams.items() if s.peak_memory_bytes]
    peaks = {name: size for name, size in result.first.peak_memory_bytes.items() if " bytes: " not in name}
    if not peaks:
        return None
    lines = [
        [name, rows.size_text(size),
         *(rows.size_text(result.streams[stream].peak_memory_bytes.get(name, 0.0)) for stream in streams)]
        for name, size in peaks.items()
    ]  # fmt: skip
    heads = [words("memory"), number("together"), *(number(s, drop=i) for i, s in enumerate(streams, 1))]
    return fitted("Most memory held", heads, lines)


def _use(result: Simulation) -> list[RenderableType]:
    """Share of the run in which units and ports were in use; copies that are alike in one line."""
    lines = [[name, "unit", rows.share_text(share), "-"] for name, share in _alike(result)]
    for name, use in result.ports.items():
        lines.append([name, "port", rows.share_text(use.utilization), rows.count_text(use.achieved_bytes_per_s, "B/s")])
    heads = (words("resource"), words("kind", drop=2), number("in use"), number("achieved", drop=1))
    waits = [f"{name}: transfers waited {time(waited)} for it in all" for name, waited in result.dma_queueing_s.items()]
    return [fitted("Use", heads, lines), *waits]


def _alike(result: Simulation) -> Iterator[tuple[str, float]]:
    """("cpu[0..7]", utilisation): neighbours of one unit that were equally busy, as far as is shown."""
    run: list[str] = []
    shown: tuple[str, str] | None = None
    share = 0.0
    for name, use in result.engines.items():
        key = (name.partition("[")[0], rows.share_text(use.utilization))
        if run and key != shown:
            yield _span(run), share
            run = []
        run.append(name)
        shown, share = key, use.utilization
    if run:
        yield _span(run), share


def _span(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    first, last = (name.partition("[")[2].rstrip("]") for name in (names[0], names[-1]))
    return f"{names[0].partition('[')[0]}[{first}..{last}]"


def serving(result: ServingRuns) -> list[RenderableType]:
    """Times of requests, what the server did, and the spread over replications."""
    pooled, lines = result.pooled, []
    for quantity, name in (("ttft_s", "first token"), ("tpot_s", "per token"), ("queueing_s", "queueing")):
        found = pooled.percentiles(quantity)
        if found:
            lines.append([name, *(time(found[key]) for key in ("mean", "p50", "p95", "p99", "max"))])
    title = f"{result.scenario} on {result.hardware_name}{_marked(result.partial)}"
    heads = (words("time"), number("mean"), number("p50", drop=2), number("p95", drop=1), number("p99"),
             number("max", drop=3))  # fmt: skip
    parts: list[RenderableType] = [fitted(title, heads, lines), _served(pooled, result)]
    if len(result.runs) > 1:
        spreads = [[_words(name), spread(interval, name)] for name, interval in result.intervals().items()]
        of = (words("quantity"), number("mean"))
        parts += ["", fitted(f"95 % confidence over {len(result.runs)} replications", of, spreads)]
    return parts


def _words(quantity: str) -> str:
    """ "ttft_p99_s" -> "first token, p99"."""
    name = quantity.removesuffix("_per_s").removesuffix("_s")
    for short, long in (("ttft", "first token"), ("tpot", "per token")):
        name = name.replace(f"{short}_", f"{long}, ")
    return name.replace("queueing_", "queueing, ")


def _served(pooled: ServingResult, result: ServingRuns) -> str:
    missed = ", ".join(f"{n} {cause}" for cause, n in pooled.missed().items()) or "none"
    count = max(1, len(pooled.ended))
    each = "" if pooled.energy_j is None else f", {rows.energy_text(pooled.energy_j / count)} a request"
    return (
        f"{len(pooled.requests):,} requests, {pooled.tokens_per_s:.5g} tokens/s, goodput "
        f"{pooled.goodput_per_s:.4g} requests/s, deadlines missed: {missed}{each}. Mean batch {pooled.mean_batch:.3g}, "
        f"KV cache at most {rows.share_text(pooled.peak_kv_bytes / pooled.kv_capacity_bytes)} of "
        f"{rows.size_text(pooled.kv_capacity_bytes)} ({rows.size_text(result.kv_bytes_per_token)} a token), "
        f"{pooled.preemptions} preemptions, offered load {rows.share_text(result.offered)} of a full batch"
    )


def limit(found: Limit) -> list[RenderableType]:
    """What was tried, and the most that keeps the deadlines."""
    verdicts = [f"{'yes' if t.passed else 'no'} {t.why}".strip() for t in found.trials]
    lines = [
        [_number(t.value), f"{t.jobs:,}", f"{t.missed}", f"{t.upper_bound:.3%}", verdict]
        for t, verdict in zip(found.trials, verdicts, strict=True)
    ]
    heads = (number(found.quantity), number("jobs", drop=2), number("missed"), number("bound", drop=1), words("within"))
    top = "none" if found.value is None else _number(found.value)
    hertz = "" if found.rate_hz is None else f" times the file's ({found.rate_hz:.5g} Hz)"
    above = "nothing above was tried" if found.above is None else f"{_number(found.above)} was not shown to"
    if any(trial.undecided and trial.value == found.above for trial in found.trials):
        above += " (too few jobs to tell: more replications or a longer run may)"
    if any(trial.idle for trial in found.trials):
        above = "the batch never held so many, so a larger one changes nothing"
    told = (
        f"{found.quantity}: {top}{hertz} keeps misses within {found.bound:.2%} at {found.level:.0%} confidence; {above}"
    )
    return [fitted(f"Trials{_marked(found.partial)}", heads, lines), told]


def folding(expanded: ScenarioResult, folded: ScenarioResult) -> dict[str, object]:
    """The folded run beside the one with every tile: how near its latencies come, and its events."""
    gaps = {}
    for name, stream in expanded.streams.items():
        other = folded.streams[name].latency_mean_s
        if stream.latency_mean_s and other:
            gaps[name] = other / stream.latency_mean_s - 1
    return {"latency_mean_rel_error": gaps, "events": sum(r.events for r in folded.replications)}


def folding_words(expanded: ScenarioResult, folded: ScenarioResult) -> list[str]:
    """The same, a line each."""
    found: Any = folding(expanded, folded)
    gaps = found["latency_mean_rel_error"].items()
    events = sum(r.events for r in expanded.replications)
    return [
        *(f"{name}: mean latency folded / expanded - 1 = {gap:.2e}" for name, gap in gaps),
        f"folded: {found['events']:,} events; expanded: {events:,} events",
    ]


def _marked(partial: bool) -> str:
    return " (PARTIAL: interrupted)" if partial else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.5g}"
