"""A steady stream of inferences on all units of a kind: weights that stay on chip, copies, pipelines of stages.

With n units the network runs as n / s copies of a pipeline of s stages, for every s that divides n. A stage keeps its
weights in its unit's memory from one inference to the next if all of them fit there beside its activations; what passes
from stage to stage goes through the memory that the units share. The time between two results is that of the slowest
stage over the copies, or that of the shared memory and links, whichever is longer. The best arrangement is taken; one
is that every unit repeats the network as it runs alone.

A system of chips that runs a network in stages is such a pipeline too, whose stages share nothing but the links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite

from sim.errors import DovetailError
from sim.hardware.chip import Chip, Costing
from sim.results import Estimate, Stage, Steady
from sim.schedule.host import TRANSFER
from sim.schedule.loads import SUFFIX
from sim.schedule.network import Network, Options, Shared, cost_network
from sim.schedule.residency import stage_weights, storages
from sim.schedule.stages import stages_of
from sim.units import Dimension, format_quantity
from sim.workload.graph import Graph, ViewOp
from sim.workload.passes.precision import PrecisionPolicy
from sim.workload.precision import Precision


def with_steady(
    found: Estimate,
    network: Network,
    traced: Graph,
    chip: Chip,
    precision: Precision | PrecisionPolicy,
    options: Options,
    shared: Shared,
) -> Estimate:
    """The estimate with `steady` filled; arguments as `sim.savings.with_savings`."""
    unit = network.unit
    if not isfinite(found.latency_s) or options.overrides_s:
        return found
    if chip.system and chip.system.pipeline > 1:
        best = pipelined(network)
        how = f"a pipeline of {len(best.stages)} stages on {chip.system.chips} chips"
        return replace(found, steady=best, notes=(*found.notes, *_note(best, found, how)))
    if unit.costing is not Costing.MAPPED or chip.system:
        return found
    best = arrangement(network, (), unit.count)  # each inference as it is alone, one after the other
    for stages in (s for s in range(1, unit.count + 1) if unit.count % s == 0):
        cuts = balanced_cuts(network, stages)
        if len(cuts) != stages - 1:
            continue
        try:
            stream = cost_network(traced, [chip], precision, replace(options, cuts=cuts), shared=shared)
        except DovetailError:  # with all weights on chip some tile fits nowhere
            continue
        if not stream.infeasible[0]:
            one = arrangement(stream.of(0), cuts, unit.count // stages)
            best = one if one.interval_s < best.interval_s else best
    parts, count = len(best.stages), best.copies * len(best.stages)
    how = f"a pipeline of {parts} stages on {count} x {unit.name}" if parts > 1 else f"on {count} x {unit.name}"
    return replace(found, steady=best, notes=(*found.notes, *_note(best, found, how)))


def pipelined(network: Network) -> Steady:
    """The stream through the stages of a system of chips, each of which has its weights in a home memory of its own."""
    made = stages_of(network, 0)
    stages = tuple(
        Stage(first=own[0], last=own[-1], latency_s=seconds, weights_on_chip_bytes=0.0)
        for own, seconds in zip(made.groups, made.latency_s, strict=True)
    )
    return _stream(network, stages, 1, {**made.sends_s, **_arriving_s(network)}, float(network.latency_s[0]))


def balanced_cuts(network: Network, stages: int) -> tuple[int, ...]:
    """Positions in the graph at which a further stage begins: where the time so far is nearest to its share."""
    times = list(_times(network))
    total, sofar = sum(seconds for _, seconds in times), 0.0
    cuts: list[int] = []
    for (_, seconds), (after, following) in pairwise(times):
        sofar += seconds
        if len(cuts) < stages - 1 and sofar + following / 2 >= (len(cuts) + 1) * total / stages:
            cuts.append(after)
    return tuple(cuts)


def _times(network: Network) -> Iterator[tuple[int, float]]:
    """(position of its first op, seconds) of each group but the transfer of the inputs, which is no unit's work."""
    position = {op.name: at for at, op in enumerate(network.graph.ops)}
    for group, increment in zip(network.groups, network.increments_s, strict=True):
        if group.name != TRANSFER:
            yield position[group.name.removesuffix(SUFFIX)], float(increment[0])


def arrangement(stream: Network, cuts: Sequence[int], copies: int) -> Steady:
    """The stream that `copies` of a pipeline cut at `cuts` make. `stream`: one design, costed with these cuts."""
    _, sizes, _ = storages(stream.graph)
    loaded = {storage for table in stream.residency.loads.values() for storage in table}  # by each inference anew
    stages = []
    for part in stage_weights(stream.graph, cuts):
        ops = [op.name for op in stream.graph.ops[part.first : part.end] if not isinstance(op, ViewOp)]
        kept = sum(sizes[s] for s in part.storages if stream.residency.stays[s][0] and s not in loaded)
        seconds = sum(t for at, t in _times(stream) if part.first <= at < part.end)
        stages.append(Stage(first=ops[0], last=ops[-1], latency_s=seconds, weights_on_chip_bytes=kept))
    shared = {f"memory:{stream.unit.home}": sum(float(group.home_busy_s[0]) for group in stream.groups)}
    arriving = _arriving_s(stream)
    latency = sum(stage.latency_s for stage in stages) + sum(arriving.values())
    return _stream(stream, tuple(stages), copies, shared | arriving, latency)


def _stream(
    network: Network, stages: tuple[Stage, ...], copies: int, shared_s: dict[str, float], latency_s: float
) -> Steady:
    """`shared_s`: the time that an inference takes of what its stages or others share, by its name."""
    slowest = max(range(len(stages)), key=lambda i: stages[i].latency_s)
    limits = {f"stage:{slowest + 1}": stages[slowest].latency_s / copies} | shared_s
    bound = max(limits, key=lambda name: limits[name])
    return Steady(
        interval_s=limits[bound],
        latency_s=latency_s,
        throughput_per_s=network.graph.batch / limits[bound],
        copies=copies,
        stages=stages,
        bound=bound,
    )


def _arriving_s(network: Network) -> dict[str, float]:
    """The link over which inputs arrive -> its time of an inference."""
    return {group.bound[0]: float(group.time_s[0]) for group in network.groups if group.name == TRANSFER}


def _note(steady: Steady, found: Estimate, how: str) -> list[str]:
    """The stream in words, where it is more than one inference after the other as estimated."""
    if steady.interval_s >= found.latency_s * (1 - 1e-9):
        return []
    kept = sum(stage.weights_on_chip_bytes for stage in steady.stages)
    weights = f", {format_quantity(kept, Dimension.SIZE)} of weights stay on chip" if kept else ""
    rate = steady.throughput_per_s
    words = (
        f"inference after inference ({how}{weights}): one each {format_quantity(steady.interval_s, Dimension.TIME)}, "
        f"{rate:,.{0 if rate >= 1000 else 1}f} a second"
    )
    return [words]


__all__ = ["arrangement", "balanced_cuts", "with_steady"]
