"""`simulate`: one workload alone on a chip, event by event."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sim.errors import ConfigError
from sim.events.progress import Progress
from sim.events.result import Simulation
from sim.events.run import SLICES, Stream, run
from sim.hardware.physical import idle_power_w
from sim.schedule.plan import Schedule

if TYPE_CHECKING:
    from sim.hardware.chip import Chip
    from sim.workload.graph import Graph


def idle_power_of(chip: Chip | None) -> float | None:
    """Power that flows all the time, of all chips of a system [W]; None where it is unknown."""
    power = None if chip is None else idle_power_w(chip)
    return None if power is None else power * (chip.system.chips if chip and chip.system else 1)


def shared_names(chip: Chip) -> frozenset[str]:
    """Memories and links of the whole chip: their ports are shared by all units."""
    return frozenset([m.name for m in chip.memories] + [link.name for link in chip.links])


def simulate(
    graph_or_schedule: Graph | Schedule,
    chip: Chip | None = None,
    *,
    expand: bool = False,
    seed: int = 0,
    record: int = SLICES,
    progress: Progress | None = None,
    **options: Any,
) -> Simulation:
    """One inference with the machine to itself.

    Args:
        graph_or_schedule: a graph, scheduled on `chip`, or a schedule.
        chip: needed for a graph; with a schedule it tells which ports are shared.
        expand: every tile as a chain of events; otherwise folded, which ends at the same tick.
        record: slices that the timeline keeps.
        options: passed to the scheduler (precision, calibration, map_space, mapping, objective,
            allow_unsupported).

    Raises:
        ConfigError: a graph without a chip, options with a schedule.
    """
    if isinstance(graph_or_schedule, Schedule):
        if options:
            raise ConfigError(f"a schedule is settled already: {', '.join(sorted(options))} cannot change it")
        schedule = graph_or_schedule
    else:
        if chip is None:
            raise ConfigError("a graph needs a chip to be simulated on: simulate(graph, chip)")
        from sim.schedule.build import schedule as build_schedule

        schedule = build_schedule(graph_or_schedule, chip, **options)
    result = run(
        [Stream(name="inference", schedule=schedule)],
        grain="expand" if expand else "folded",
        shared=None if chip is None else shared_names(chip),
        dma_engines=chip.dma_engines if chip else (),
        idle_power_w=idle_power_of(chip),
        seed=seed,
        record=record,
        progress=progress,
    )
    graph = None if isinstance(graph_or_schedule, Schedule) else graph_or_schedule
    return replace(
        result,
        workload_name=getattr(graph, "name", ""),
        batch=getattr(graph, "batch", None),
        hardware_name=chip.name if chip else "",
        precision=str(options.get("precision") or (chip.default_precision if chip else "")),
        notes=tuple(schedule.notes),
        peak_memory_bytes=dict(schedule.peaks_bytes),
    )
