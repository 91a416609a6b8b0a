"""`dovetail simulate`: a workload on a chip, or a scenario, event by event."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli.common import knobs, pairs, print_json, say, settings, show
from sim.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.events.experiment import ScenarioResult
    from sim.events.limits import Limit
    from sim.events.result import Simulation
    from sim.events.serving import ServingResult
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
        typer.Option(help="rate, batch or copies: the most that meets the deadlines."),
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

    graph, chip = load_workload(what, **knobs(p or [])), load_hardware(hw, overrides)
    options: dict[str, Any] = {"precision": precision} if precision else {}
    with _Progress() as progress:
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
    with _Progress() as progress:
        if limit:
            found = find_limit(scenario, chip, limit, seed=seed, progress=progress)
            result: Any = found
        elif scenario.serving:
            result = run_serving(scenario, chip, seed=seed, progress=progress)
            _write_trace(trace, result.timeline)
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


class _Progress:
    """Share done and time left on stderr, at most twice a second; silent with --quiet or off a terminal."""

    def __enter__(self) -> Callable[[float], None] | None:
        import sys
        import time

        if settings.quiet or not sys.stderr.isatty():
            return None
        begun = shown = time.monotonic()

        def report(share: float) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= 0.5 and share > 0:
                shown = now
                left_s = (now - begun) * (1 - share) / share
                print(
                    f"\rsimulated {share:4.0%}, about {left_s:.0f} s left ",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )

        return report

    def __exit__(self, *_: object) -> None:
        import sys

        if not settings.quiet and sys.stderr.isatty():
            print("\r" + " " * 48 + "\r", end="", file=sys.stderr)


def _write_trace(path: Path | None, timeline: Timeline) -> None:
    if path is None:
        return
    import json

    from sim.view.perfetto import chrome_trace

    path.write_text(json.dumps(chrome_trace(timeline)), encoding="utf-8")
    say(f"trace of {len(timeline.slices):,} slices written to {path}; {timeline.dropped:,} left out")


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Any:
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.4g}"


def _marked(partial: bool) -> str:
    return " (PARTIAL: interrupted)" if partial else ""


def _show_one(result: Simulation) -> None:
    show(
        f"{result.workload_name} on {result.hardware_name}, {result.grain}{_marked(result.partial)}: "
        f"{result.latency_s * 1e3:.6g} ms, contended {result.contended_s * 1e3:.4g} ms, {result.events:,} events"
    )
    _show_use(result)


def _show_use(result: Simulation) -> None:
    rows = [[name, "unit", f"{use.utilization:.1%}", "-"] for name, use in result.engines.items()]
    for name, use in result.ports.items():
        share = "-" if use.utilization is None else f"{use.utilization:.1%}"
        rows.append([name, "port", share, f"{use.achieved_bytes_per_s / 1e9:.4g}"])
    show(_table("Use", ["resource", "kind", "utilisation", "achieved GB/s"], rows))


def _show_scenario(result: ScenarioResult) -> None:
    rows = []
    for name, s in result.streams.items():
        missed = ", ".join(f"{n} {cause}" for cause, n in s.missed.items()) or ("0" if s.deadline_s else "-")
        rows.append(
            [name, f"{s.finished:,}", _ms(s.latency_p50_s), _ms(s.latency_p95_s), _ms(s.latency_p99_s),
             _ms(s.latency_max_s), _ms(s.queueing_mean_s), _ms(s.contention_mean_s), missed, f"{s.goodput_per_s:.4g}"]
        )  # fmt: skip
    columns = [
        "stream",
        "jobs",
        "p50",
        "p95",
        "p99",
        "max",
        "queueing",
        "contention",
        "missed",
        "goodput /s",
    ]
    title = f"{result.scenario} on {result.hardware_name}, times in ms{_marked(result.partial)}"
    show(_table(title, columns, rows))
    _show_use(result.first)


def _show_serving(result: ServingResult) -> None:
    rows = []
    for quantity in ("ttft_s", "tpot_s", "queueing_s"):
        q = result.percentiles(quantity)
        if q:
            rows.append(
                [
                    quantity.removesuffix("_s"),
                    *(_ms(q[k]) for k in ("mean", "p50", "p95", "p99", "max")),
                ]
            )
    title = f"{result.scenario} on {result.hardware_name}, times in ms{_marked(result.partial)}"
    show(_table(title, ["", "mean", "p50", "p95", "p99", "max"], rows))
    document = result.to_dict()
    show(
        f"{document['requests']:,} requests, {document['tokens_per_s']:.5g} tokens/s, goodput "
        f"{document['goodput_per_s']:.4g} requests/s, mean batch {result.mean_batch:.3g}, KV cache at most "
        f"{result.peak_kv_bytes / result.kv_capacity_bytes:.0%} of {result.kv_capacity_bytes / 1e9:.4g} GB, "
        f"{result.preemptions} preemptions"
    )


def _show_limit(limit: Limit) -> None:
    rows = [
        [
            f"{t.value:.4g}",
            f"{t.jobs:,}",
            f"{t.missed}",
            f"{t.upper_bound:.3%}",
            "yes" if t.passed else f"no {t.why}",
        ]
        for t in limit.trials
    ]
    show(_table("Trials", [limit.quantity, "jobs", "missed", "bound", "within"], rows))
    top = "none" if limit.value is None else f"{limit.value:.4g}"
    above = "nothing above was tried" if limit.above is None else f"{limit.above:.4g} does not"
    show(f"{limit.quantity}: {top} keeps misses within {limit.bound:.2%} at {limit.level:.0%} confidence; {above}")
