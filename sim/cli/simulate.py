"""`dovetail simulate`: a workload on a chip, or a scenario, event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sim.cli import complete
from sim.cli.common import EXIT_INTERRUPTED, knobs, pairs, print_json, say, show
from sim.cli.estimate import AllowOption, CalibrationOption, KnobOption, PrecisionOption, SetOption
from sim.cli.progress import Progress
from sim.errors import ConfigError, DovetailError, InfeasibleError, nearest, told_of

if TYPE_CHECKING:
    from sim.events.result import JobResult
    from sim.events.timeline import Timeline
    from sim.hardware.chip import Chip


def simulate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WORKLOAD|SCENARIO",
            help="A workload, or a scenario (.yaml or name).",
            autocompletion=complete.names("workloads", "workloads/scenarios"),
        ),
    ],
    hw: Annotated[
        str | None,
        typer.Option("--hw", metavar="CHIP", help="Bundled name or chip.yaml.", autocompletion=complete.chips),
    ] = None,
    p: KnobOption = None,
    set_: SetOption = None,
    precision: PrecisionOption = None,
    expand: Annotated[
        bool,
        typer.Option("--expand", help="Every tile as events, and the folded run beside it."),
    ] = False,
    find_limit: Annotated[
        str | None,
        typer.Option(help="rate, batch, copies or a knob: the most that meets the deadlines."),
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Write a trace for ui.perfetto.dev.")] = None,
    calibration: CalibrationOption = "auto",
    allow_unsupported: AllowOption = False,
    seed: Annotated[int, typer.Option(help="Seed of random arrivals.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Contention, queues and deadlines: the schedule executed in simulated time.

    Ctrl-C ends it with what was simulated until then, marked partial, and exit code 130.
    """
    from sim.events.scenario import list_scenarios
    from sim.hardware.load import load_hardware

    overrides = pairs(set_ or [], option="--set")
    if what.endswith((".yaml", ".yml")) or what in list_scenarios():
        given = {"-p": p, "--precision": precision, "--calibration": calibration != "auto"}
        given |= {"--allow-unsupported": allow_unsupported}
        if own := [option for option, value in given.items() if value]:
            raise ConfigError(
                f"{what}: {own[0]} is for a workload; a scenario's file has knobs and precision by stream"
            )
        _scenario(what, hw, overrides, expand, find_limit, trace, seed, json)
        return
    if hw is None:
        known = list_scenarios()
        raise ConfigError(
            f'no scenario "{what}" is bundled ({", ".join(known)}), and for a workload --hw is missing.'
            + nearest(what, known)
        )
    if find_limit:
        raise ConfigError("--find-limit needs a scenario: it counts missed deadlines of streams")
    options = {"calibration": calibration, "precision": precision, "allow_unsupported": allow_unsupported}
    _workload(what, load_hardware(hw, overrides), knobs(p or []), options, expand, trace, seed, json)


def _workload(
    what: str, chip: Chip, knobs: Mapping[str, Any], options: Mapping[str, Any], expand: bool, trace: Path | None,
    seed: int, json: bool,
) -> None:  # fmt: skip
    from sim.aside import cores
    from sim.events.simulate import simulate as run_one
    from sim.schedule.confidence import calibration_label
    from sim.view import simulation as view
    from sim.view.tables import unruled
    from sim.workload.load import load_workload

    label, options = calibration_label(chip, options["calibration"]), {**options, "processes": cores()}
    with Progress(f"tracing {what}", steps=2) as progress:
        graph = load_workload(what, progress=progress.traced, **knobs)
        progress.step(f"simulating {what} on {chip.name}")
        result = run_one(graph, chip, expand=expand, seed=seed, progress=progress, must_fit=False, **options)
    if result.infeasible is not None:
        if json:
            print_json(result.to_dict())
        raise InfeasibleError(**result.infeasible)  # type: ignore[arg-type]
    _write_trace(trace, result.timeline, result.jobs)
    folded = run_one(graph, chip, seed=seed, record=0, **options) if expand and not result.partial else None
    if json:
        beside = {"folded": {"latency_s": folded.latency_s, "events": folded.events}} if folded else {}
        print_json(result.to_dict() | beside)
    else:
        show(*view.one(result), f"Assumes: {label}, {view.assumed(result)}.", *unruled(result.unsupported))
    if result.partial:
        _interrupted()
    if folded and not json:
        say(f"folded: {folded.latency_s * 1e3:.6g} ms in {folded.events:,} events; expanded: {result.events:,} events")


def _scenario(
    what: str, hw: str | None, overrides: dict[str, str], expand: bool, limit: str | None, trace: Path | None,
    seed: int, json: bool,
) -> None:  # fmt: skip
    from sim.events.experiment import run_scenario
    from sim.events.limits import find_limit
    from sim.events.scenario import load_scenario
    from sim.events.serving_scenario import run_serving
    from sim.events.stated import infeasible
    from sim.hardware.load import load_hardware
    from sim.schedule.confidence import calibration_label
    from sim.view import simulation as view

    def refuse(error: InfeasibleError) -> None:
        if json:
            print_json(infeasible(scenario, chip, error, seed=seed))

    scenario = load_scenario(what)
    if limit and (trace or expand):
        raise ConfigError(f"--find-limit runs many simulations: {'--trace' if trace else '--expand'} is for one")
    if expand and scenario.serving:
        raise ConfigError(f"{what}: --expand is for streams; a serving scenario has steps, and no tiles")
    result: Any
    words: Callable[[Any], Sequence[Any]]
    notes: Sequence[str] = ()
    with _inside(what, refuse), Progress(f"simulating {scenario.name}") as progress:
        chip = load_hardware(hw or scenario.hardware, overrides)
        if limit:
            result, words = find_limit(scenario, chip, limit, seed=seed, progress=progress), view.limit
        elif scenario.serving:
            result, words = run_serving(scenario, chip, seed=seed, progress=progress), view.serving
            _write_trace(trace, result.first.timeline)
        else:
            grain = "expand" if expand else None
            result, words = run_scenario(scenario, chip, seed=seed, grain=grain, progress=progress), view.scenario
            notes = result.notes
            _write_trace(trace, result.first.timeline, result.first.jobs)
    label = calibration_label(chip, "auto")
    again = expand and not result.partial
    folded = run_scenario(scenario, chip, seed=seed, grain="folded", record=0) if again else None
    if json:
        print_json(result.to_dict() | ({"folded": view.folding(result, folded)} if folded else {}))
    else:
        show(*words(result))
        for note in notes:
            say(f"note: {note}")
        show(f"Assumes: {label}.")
    if result.partial:
        _interrupted()
    if folded and not json:
        say("\n".join(view.folding_words(result, folded)))


@contextmanager
def _inside(what: str, refuse: Callable[[InfeasibleError], None]) -> Iterator[None]:
    """Errors name the scenario that they come from; Ctrl-C while nothing is simulated yet says so. `refuse` is told of
    a scenario that cannot run."""
    try:
        yield
    except KeyboardInterrupt:
        say("dovetail: interrupted before anything was simulated")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except DovetailError as error:
        if isinstance(error, InfeasibleError):
            refuse(error)
        raise told_of(what, error) from error


def _interrupted() -> None:
    """Ends the command as the shell expects of one that Ctrl-C stopped."""
    say("dovetail: interrupted: what was simulated until then stands above, marked partial")
    raise typer.Exit(EXIT_INTERRUPTED)


def _write_trace(path: Path | None, timeline: Timeline, jobs: Sequence[JobResult] = ()) -> None:
    if path is None:
        return
    import json

    from sim.view.perfetto import chrome_trace

    path.write_text(json.dumps(chrome_trace(timeline, jobs)), encoding="utf-8")
    say(f"trace of {len(timeline.slices):,} slices written to {path}; {timeline.dropped:,} left out")
