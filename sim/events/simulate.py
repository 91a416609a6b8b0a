"""`simulate`: one workload alone on a chip, event by event."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sim.errors import ConfigError, InfeasibleError, checked_seed
from sim.events.progress import Progress
from sim.events.result import Simulation, refused
from sim.events.run import SLICES, Stream, run
from sim.hardware.dump import chip_hash
from sim.hardware.load import as_chip
from sim.hardware.physical import idle_power_w
from sim.hardware.precisions import precision_on
from sim.schedule.build import costed, to_schedule
from sim.schedule.confidence import calibration_document
from sim.schedule.network import Network
from sim.schedule.plan import Schedule
from sim.workload.load import as_graph

if TYPE_CHECKING:
    from pathlib import Path

    from sim.hardware.chip import Chip
    from sim.workload.graph import Graph
    from sim.workload.load import Workload


def idle_power_of(chip: Chip | None) -> float | None:
    """Power that flows all the time, of all chips of a system [W]; None where it is unknown."""
    power = None if chip is None else idle_power_w(chip)
    return None if power is None else power * (chip.system.chips if chip and chip.system else 1)


def shared_names(chip: Chip) -> frozenset[str]:
    """Memories and links of the whole chip: their ports are shared by all units."""
    return frozenset([m.name for m in chip.memories] + [link.name for link in chip.links])


def simulate(
    graph_or_schedule: Graph | Schedule | Workload | str | Path,
    chip: Chip | str | Path | None = None,
    *,
    expand: bool = False,
    seed: int = 0,
    record: int = SLICES,
    progress: Progress | None = None,
    must_fit: bool = True,
    **options: Any,
) -> Simulation:
    """One inference with the machine to itself.

    Args:
        graph_or_schedule: a graph (or what `sim.estimate` takes for one), scheduled on `chip`, or a schedule.
        chip: or its name; needed for a graph; with a schedule it tells which ports are shared.
        expand: every tile as a chain of events; otherwise folded, which ends at the same tick.
        record: slices that the timeline keeps.
        must_fit: else what fits nowhere is a result without numbers, whose `infeasible` says why.
        options: as `sim.estimate`, with its defaults: precision, calibration, map_space, mapping, objective,
            allow_unsupported, inputs, processes.

    Raises:
        ConfigError: a graph without a chip, options with a schedule. TypeError: an option that there is not.
        InfeasibleError: it fits the chip nowhere, and must.
    """
    given: dict[str, Any] = {}
    seed = checked_seed(seed)
    chip = None if chip is None else as_chip(chip, where="simulate: second argument")
    network: Network | None = None
    if isinstance(graph_or_schedule, Schedule):
        if options:
            raise ConfigError(f"a schedule is settled already: {', '.join(sorted(options))} cannot change it")
    else:
        if chip is None:
            raise ConfigError("a graph needs a chip to be simulated on: simulate(graph, chip)")
        network, given = _costed(as_graph(graph_or_schedule, where="simulate: first argument"), chip, **options)
    grain = "expand" if expand else "folded"
    try:
        schedule = _schedule(network) if network is not None else graph_or_schedule
        assert isinstance(schedule, Schedule)
        given |= {"notes": tuple(schedule.notes), "peak_memory_bytes": dict(schedule.peaks_bytes)}
        result = run(
            [Stream(name="inference", schedule=schedule)],
            grain=grain,
            shared=None if chip is None else shared_names(chip),
            dma_engines=chip.dma_engines if chip else (),
            idle_power_w=idle_power_of(chip),
            seed=seed,
            record=record,
            progress=progress,
        )
    except InfeasibleError as error:
        if must_fit:
            raise
        result = refused(error, grain=grain, seed=seed)
    return replace(
        result,
        hardware_name=chip.name if chip else "",
        hardware_hash=chip_hash(chip) if chip else None,
        overrides=dict(chip.overrides) if chip else {},
        **given,
    )


def _schedule(network: Network) -> Schedule:
    """The schedule of the one design of a network. Raises: InfeasibleError: it fits the chip nowhere."""
    if network.infeasible[0]:
        raise InfeasibleError(*network.reasons[0])
    return to_schedule(network, 0)


def _costed(graph: Graph, chip: Chip, **given: Any) -> tuple[Network, dict[str, Any]]:
    """(the network that `estimate` reads with the same arguments, what a result says of how it was made)."""
    from sim.analytical import op_precision
    from sim.schedule.given import GIVEN

    given["precision"] = precision_on(chip, given.get("precision"))
    network, options, chosen = costed(graph, chip, **given)
    alone = network.of(0)
    return network, {
        "workload_name": graph.name,
        "knobs": dict(graph.knobs),
        "graph_hash": alone.graph.hash,
        "batch": graph.batch,
        "precision": chosen.name,
        "op_precisions": {group.name: op_precision(group.op, alone.graph) for group in alone.groups},
        "objective": options.objective,
        "map_space": GIVEN if options.mapping else options.map_space,
        "buffering": network.unit.buffering.value,
        "calibration": calibration_document(alone, 0, options.calibration),
        "estimate_latency_s": float(alone.latency_s[0]),
        "unsupported": network.unsupported,
    }
