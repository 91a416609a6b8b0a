"""`dovetail simulate`: a workload on a chip, or a scenario, event by event."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.common import knobs, pairs, print_json, say, show
from sim.cli.progress import Progress
from sim.errors import ConfigError

if TYPE_CHECKING:
    from sim.events.experiment import ScenarioResult
    from sim.events.limits import Limit
    from sim.events.result import Simulation
    from sim.events.serving_result import ServingRuns
    from sim.events.statistics import Interval
    from sim.events.timeline import Timeline


def simulate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD|SCENARIO",
            help="A workload, or a scenario (.yaml or name).",
        ),
    ],
    hw: Annotated[str | None, typer.Option("--hw", help="A chip: bundled name or YAML path.")] = None,
    p: Annotated[list[str] | None, typer.Option("-p", help="knob=value of the workload.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value of the chip.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precision; default: the chip's.")] = None,
    expand: Annotated[
        bool,
        typer.Option("--expand", help="Every tile as events, and the folded run beside it."),
    ] = False,
    find_limit: Annotated[
        str | None,
        typer.Option(help="rate, batch, copies or a knob: the most that meets the deadlines."),
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a trace for ui.perfetto.dev.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of random arrivals.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Contention, queues and deadlines: the schedule executed in simulated time."""
    from sim.events.scenario import list_scenarios
    from sim.hardware.load import load_hardware

    overrides = pairs(set_ or [], option="--set")
    if what.endswith((".yaml", ".yml")) or (hw is None and what in list_scenarios()):
        _scenario(what, hw, overrides, expand, find_limit, trace, seed, json)
        return
    if hw is None:
        raise ConfigError(
            f"simulate {what}: --hw is missing; for a scenario give its file or one of {list_scenarios()}"
        )
    if find_limit:
        raise ConfigError("--find-limit needs a scenario: it counts missed deadlines of streams")
    from sim.events.simulate import simulate as run_one
    from sim.workload.load import load_workload

    chip = load_hardware(hw, overrides)
    options: dict[str, Any] = {"precision": precision} if precision else {}
    with Progress(f"tracing {what}", steps=2) as progress:
        graph = load_workload(what, progress=progress.traced, **knobs(p or []))
        progress.step(f"simulating {what} on {chip.name}")
        result = run_one(graph, chip, expand=expand, seed=seed, progress=progress, **options)
    _write_trace(trace, result.timeline)
    if json:
        print_json(result.to_dict())
        return
    _show_one(result)
    if expand:
        folded = run_one(graph, chip, seed=seed, record=0, **options)
        say(f"folded: {folded.latency_s * 1e3:.6g} ms in {folded.events:,} events; expanded: {result.events:,} events")


def _scenario(
    what: str, hw: str | None, overrides: dict[str, str], expand: bool, limit: str | None, trace: Path | None,
    seed: int, json: bool,
) -> None:  # fmt: skip
    from sim.events.experiment import run_scenario
    from sim.events.limits import find_limit
    from sim.events.scenario import load_scenario
    from sim.events.serving_scenario import run_serving
    from sim.hardware.load import load_hardware

    scenario = load_scenario(what)
    chip = load_hardware(hw or scenario.hardware, overrides)
    with Progress(f"simulating {scenario.name}") as progress:
        if limit:
            found = find_limit(scenario, chip, limit, seed=seed, progress=progress)
            result: Any = found
        elif scenario.serving:
            result = run_serving(scenario, chip, seed=seed, progress=progress)
            _write_trace(trace, result.first.timeline)
        else:
            grain = "expand" if expand else None
            result = run_scenario(scenario, chip, seed=seed, grain=grain, progress=progress)
            _write_trace(trace, result.first.timeline)
    if json:
        print_json(result.to_dict())
    elif limit:
        _show_limit(result)
    elif scenario.serving:
        _show_serving(result)
    else:
        _show_scenario(result)
        if expand and not result.partial:
            folded = run_scenario(scenario, chip, seed=seed, grain="folded", record=0)
            _show_folding(result, folded)


def _write_trace(path: Path | None, timeline: Timeline) -> None:
    if path is None:
        return
    import json

    from sim.view.perfetto import chrome_trace

    path.write_text(json.dumps(chrome_trace(timeline)), encoding="utf-8")
    say(f"trace of {len(timeline.slices):,} slices written to {path}; {timeline.dropped:,} left out")


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for at, column in enumerate(columns):
        table.add_column(column, no_wrap=at == 0, justify="left" if at == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.4g}"


def _marked(partial: bool) -> str:
    return " (PARTIAL: interrupted)" if partial else ""


def _show_one(result: Simulation) -> None:
    contended = f"contended {result.contended_s * 1e3:.4g} ms"
    energy = "" if result.energy_j is None else f", {result.energy_j * 1e3:.4g} mJ"
    show(
        f"{result.workload_name} on {result.hardware_name}, {result.grain}{_marked(result.partial)}: "
        f"{result.latency_s * 1e3:.6g} ms, {contended}{energy}, {result.events:,} events"
    )
    _show_use(result)


def _show_use(result: Simulation) -> None:
    rows = [[name, "unit", f"{use.utilization:.1%}", "-"] for name, use in result.engines.items()]
    for name, use in result.ports.items():
        share = "-" if use.utilization is None else f"{use.utilization:.1%}"
        rows.append([name, "port", share, f"{use.achieved_bytes_per_s / 1e9:.4g}"])
    show(_table("Use", ["resource", "kind", "utilisation", "achieved GB/s"], rows))
    for name, waited in result.dma_queueing_s.items():
        show(f"{name}: transfers waited {waited * 1e3:.4g} ms for it in all")


def _show_scenario(result: ScenarioResult) -> None:
    title = f"{result.scenario} on {result.hardware_name}, times in ms{_marked(result.partial)}"
    rows = [
        [name, f"{s.finished:,}", _ms(s.latency_mean_s), _ms(s.latency_p50_s), _ms(s.latency_p95_s),
         _ms(s.latency_p99_s), _ms(s.latency_max_s), _ms(s.deadline_s)]
        for name, s in result.streams.items()
    ]  # fmt: skip
    show(_table(title, ["latency", "jobs", "mean", "p50", "p95", "p99", "max", "deadline"], rows))
    rows = []
    for name, s in result.streams.items():
        missed = ", ".join(f"{n} {cause}" for cause, n in s.missed.items()) or ("0" if s.deadline_s else "-")
        rows.append(
            [name, _ms(s.service_s), _ms(s.queueing_mean_s), _ms(s.contention_mean_s), missed,
             f"{s.goodput_per_s:.4g}", _ms(s.energy_j_per_job)]
        )  # fmt: skip
    columns = ["mean of it", "alone", "queueing", "contention", "missed", "goodput /s", "mJ a job"]
    show(_table("", columns, rows))
    if len(result.replications) > 1:
        names = {"latency_mean_s": "mean ms", "latency_p99_s": "p99 ms", "miss_rate": "miss rate",
                 "throughput_per_s": "jobs/s", "goodput_per_s": "good/s"}  # fmt: skip
        show(
            _table(
                f"95 % confidence over {len(result.replications)} replications",
                ["stream", *names.values()],
                [[stream, *(_spread(of.get(q), q) for q in names)] for stream, of in result.intervals.items()],
            )
        )
    _show_memory(result)
    _show_use(result.first)
    for note in result.notes:
        say(f"note: {note}")


def _spread(interval: Interval | None, quantity: str) -> str:
    """Mean and half width."""
    if interval is None:
        return "-"
    factor = 1e3 if quantity.endswith("_s") and not quantity.endswith("per_s") else 1.0
    half = "" if interval.half_width is None else f" +- {interval.half_width * factor:.2g}"
    return f"{interval.mean * factor:.4g}{half}"


def _show_memory(result: ScenarioResult) -> None:
    """Peaks of each memory, of all streams together and of each."""
    streams = [name for name, s in result.streams.items() if s.peak_memory_bytes]
    memories = [name for name in result.first.peak_memory_bytes if " bytes: " not in name]
    rows = [
        [memory, f"{result.first.peak_memory_bytes[memory] / 1e6:.4g}",
         *(f"{result.streams[name].peak_memory_bytes.get(memory, 0.0) / 1e6:.4g}" for name in streams)]
        for memory in memories
    ]  # fmt: skip
    if rows:
        show(_table("Most memory held, MB", ["memory", "together", *streams], rows))


def _show_folding(expanded: ScenarioResult, folded: ScenarioResult) -> None:
    for name, stream in expanded.streams.items():
        other = folded.streams[name].latency_mean_s
        if stream.latency_mean_s and other:
            say(f"{name}: mean latency folded / expanded - 1 = {other / stream.latency_mean_s - 1:.2e}")
    events = [sum(r.events for r in result.replications) for result in (folded, expanded)]
    say(f"folded: {events[0]:,} events; expanded: {events[1]:,} events")


def _show_serving(result: ServingRuns) -> None:
    pooled, rows = result.pooled, []
    for quantity in ("ttft_s", "tpot_s", "queueing_s"):
        q = pooled.percentiles(quantity)
        if q:
            rows.append([quantity.removesuffix("_s"), *(_ms(q[k]) for k in ("mean", "p50", "p95", "p99", "max"))])
    title = f"{result.scenario} on {result.hardware_name}, times in ms{_marked(result.partial)}"
    show(_table(title, ["", "mean", "p50", "p95", "p99", "max"], rows))
    missed = ", ".join(f"{n} {cause}" for cause, n in pooled.missed().items()) or "none"
    each = "" if pooled.energy_j is None else f", {pooled.energy_j / max(1, len(pooled.requests)):.4g} J a request"
    show(
        f"{len(pooled.requests):,} requests, {pooled.tokens_per_s:.5g} tokens/s, goodput "
        f"{pooled.goodput_per_s:.4g} requests/s, deadlines missed: {missed}{each}. Mean batch {pooled.mean_batch:.3g}, "
        f"KV cache at most {pooled.peak_kv_bytes / pooled.kv_capacity_bytes:.0%} of "
        f"{pooled.kv_capacity_bytes / 1e9:.4g} GB ({result.kv_bytes_per_token / 1024:.4g} KiB a token), "
        f"{pooled.preemptions} preemptions, offered load {result.offered:.0%} of a full batch"
    )
    if len(result.runs) > 1:
        found = result.intervals()
        rows = [[name.removesuffix("_s"), _spread(interval, name)] for name, interval in found.items()]
        show(_table(f"95 % confidence over {len(result.runs)} replications", ["ms, or per s", "mean"], rows))


def _show_limit(limit: Limit) -> None:
    rows = [
        [_number(t.value), f"{t.jobs:,}", f"{t.missed}", f"{t.upper_bound:.3%}", "yes" if t.passed else f"no {t.why}"]
        for t in limit.trials
    ]
    show(_table(f"Trials{_marked(limit.partial)}", [limit.quantity, "jobs", "missed", "bound", "within"], rows))
    top = "none" if limit.value is None else _number(limit.value)
    hertz = "" if limit.rate_hz is None else f" times the file's ({limit.rate_hz:.5g} Hz)"
    above = "nothing above was tried" if limit.above is None else f"{_number(limit.above)} does not"
    show(
        f"{limit.quantity}: {top}{hertz} keeps misses within {limit.bound:.2%} at {limit.level:.0%} confidence; {above}"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.5g}"
