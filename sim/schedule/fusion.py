"""Ops that run as one group where that is better, slice by slice, design by design."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.flash import flash_regions
from sim.hardware.chip import Costing
from sim.mapping.problem import ROLES
from sim.schedule.asking import compute_and_widening
from sim.schedule.choice import share, worth
from sim.schedule.groups import GroupCost
from sim.schedule.residency import Residency, layout
from sim.schedule.slices import Slicing, ask_parts, cost_slices, footprint_bytes, held_beside
from sim.schedule.slicings import attention_slicings, chain_slicings, chains
from sim.workload.graph import CollectiveOp, EinsumOp, ViewOp

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

FINER = 8
"""Slices of the second way that is costed per design, beside the coarsest that fits: less of their pipeline shows."""
LEAN = 1.25
"""Of slices that leave out what a mask hides, the third way costed is the coarsest that does at most this share of the
least work of any: smaller ones fill the array less."""
WORTHWHILE = 0.05
"""A chain is costed where it might save this share of its members' time: all their waiting, launches but one, and the
transfers of what passes between them."""


def fused(groups: list[GroupCost], coster: _Coster) -> tuple[list[GroupCost], Residency]:
    """The groups, with fused ones on the designs where they are better, and the homes that result.

    `groups` holds one group per op that is no view, in order. A fused group follows the last op that it replaces.
    """
    graph, kept = coster.graph, coster.residency
    if (
        coster.unit.costing is not Costing.MAPPED
        or not kept.memory
        or coster.options.apart
        or "*" in coster.options.mapping
        or any(isinstance(op, CollectiveOp) for op in graph.ops)
    ):
        return groups, kept
    at = dict(zip(_work(coster), groups, strict=True))
    options = _winners(at, coster)
    if not options:
        return groups, kept
    every = np.ones(len(coster.chips), dtype=bool)
    better = worth(_merged(at, options, every), coster) < worth(groups, coster)
    if not better.any():
        return groups, kept
    return _merged(at, options, better), _without_inside(options, better, coster)


def _work(coster: _Coster) -> list[int]:
    return [i for i, op in enumerate(coster.graph.ops) if not isinstance(op, ViewOp)]


def _merged(at: dict[int, GroupCost], options: Sequence[GroupCost], where: np.ndarray) -> list[GroupCost]:
    """Groups in order, each on the designs that run it; fused ones only on those of `where` (D,)."""
    gone: dict[int, np.ndarray] = {}
    after: dict[int, list[GroupCost]] = {}
    for option in options:
        assert option.sliced is not None
        runs = option.runs & where
        if runs.any():
            members = option.sliced.slicing.members
            after.setdefault(members[-1], []).append(option.with_(runs=runs))
            for i in members:
                gone[i] = gone.get(i, np.zeros(len(where), dtype=bool)) | runs
    merged = []
    for i, group in at.items():
        if i not in gone:
            merged.append(group)
        elif not gone[i].all():
            merged.append(group.with_(runs=~gone[i]))
        merged += after.get(i, [])
    return merged


def _winners(at: dict[int, GroupCost], coster: _Coster) -> list[GroupCost]:
    """Fused groups, each with the designs on which it beats its ops one by one and the other ways to cut it."""
    laid = layout(coster.graph)
    sizes, span = laid.sizes, laid.span
    taken = {i: np.zeros(len(coster.chips), dtype=bool) for i in at}
    found: list[GroupCost] = []
    for _, some in groupby(_candidates(at, coster), key=lambda one: len(one[0][0].members)):
        wanted = []
        fitting: dict[tuple, dict[int, np.ndarray]] = {}
        parts: list[Slicing] = []
        for ways, asked in some:  # all of a length are asked of the mapper together, alike ones (a key) once
            members = ways[0].members
            free = asked & ~np.any([taken[i] for i in members], axis=0)
            held = held_beside(ways[0], coster, span, sizes)
            key = _alike(ways, held, coster)
            first = (*key, free.tobytes())
            if first not in fitting:
                fitting[first] = _fitting(ways, held, free, at[members[0]].capacity_bytes, coster)
                parts += (ways[k] for k in fitting[first])
            wanted.append((ways, asked, held, key, fitting[first]))
        ask_parts(parts, coster)
        won: dict[tuple, list[tuple[int, GroupCost]]] = {}
        for ways, asked, held, key, chosen in wanted:
            members = ways[0].members
            free = asked & ~np.any([taken[i] for i in members], axis=0)
            if free.any() and chosen:
                own = (*key, free.tobytes(), *chosen)
                if own not in won:
                    won[own] = _beating(ways, chosen, held, free, [at[i] for i in members], coster)
                for k, option in won[own]:
                    found.append(_named(option, ways[k], coster))
                    taken |= {i: taken[i] | option.runs for i in members}
    return found


def _alike(ways: list[Slicing], held: np.ndarray, coster: _Coster) -> tuple:
    """What groups share that only names tell apart: their ways cost the same, and so do their ops one by one."""
    ops = [coster.graph.ops[i] for i in ways[0].members]
    return (
        tuple((way.what, way.outer, way.inner) for way in ways),
        *((coster.signature(op), coster.rooms[i]) for i, op in zip(ways[0].members, ops, strict=True)),
        held.tobytes(),
    )


def _beating(
    ways: list[Slicing],
    chosen: dict[int, np.ndarray],
    held: np.ndarray,
    free: np.ndarray,
    members: list[GroupCost],
    coster: _Coster,
) -> list[tuple[int, GroupCost]]:
    """The ways (by number) that win on some of the free designs, over the members one by one and the other ways."""
    costs = [_cost(ways[k], held, coster) for k in chosen]
    # (A design decides among its own ways, whatever others in the sweep need.)
    values = np.stack(
        [
            np.where(own, share(c.launch_s + c.time_s, c.energy_j, coster), np.inf)
            for c, own in zip(costs, chosen.values(), strict=True)
        ]
    )
    best = np.nan_to_num(values, nan=np.inf).argmin(axis=0)
    wins = free & (np.nanmin(values, axis=0, initial=np.inf) < _one_by_one(members, coster))
    options = [
        (k, cost.with_(runs=wins & (best == at))) for at, (k, cost) in enumerate(zip(chosen, costs, strict=True))
    ]
    return [(k, option) for k, option in options if option.runs.any()]  # type: ignore[union-attr]


def _candidates(at: dict[int, GroupCost], coster: _Coster) -> Iterator[tuple[list[Slicing], np.ndarray]]:
    """(ways to cut a group that might run fused, coarsest first; designs (D,) to ask); longer groups come first."""
    graph, stays = coster.graph, coster.residency.stays
    every = np.ones(len(coster.chips), dtype=bool)
    known, bits = coster.shared.slicings, coster.unit.array.accumulate_bits
    for name, region in flash_regions(graph).items():
        if int(region.region.attrs["query_length"]) > 1:  # a decode step has no scores worth keeping
            key = (id(graph), name, bits)
            ways = known[key] if key in known else known.setdefault(key, attention_slicings(region, graph, bits))
            if _usable(ways, coster):
                yield ways, every
    for members in chains(graph, stays):
        if any(coster.depthwise_macs_per_cycle(graph.ops[i]) for i in members):
            continue  # (two processors)
        between = [graph.tensors[graph.ops[i].outputs[0]] for i in members[:-1]]
        asked = ~np.any([stays[tensor.storage or tensor.id] for tensor in between], axis=0)
        asked &= _may_save([at[i] for i in members], sum(tensor.size_bytes for tensor in between)) > WORTHWHILE
        if asked.any():
            chain = (id(graph), *members)
            ways = known[chain] if chain in known else known.setdefault(chain, chain_slicings(members, graph))
            if _usable(ways, coster):
                yield ways, asked


def _usable(ways: list[Slicing], coster: _Coster) -> bool:
    """Whether all operands may lie in the resident memory, at their own width, and no mapping is given."""
    memory = next(m for m in coster.unit.memories if m.name == coster.residency.memory)
    ops = [op for op in (coster.graph.ops[i] for i in (ways[0].members if ways else ())) if isinstance(op, EinsumOp)]
    own = any(op.name in coster.options.mapping or compute_and_widening(op, coster)[1] for op in ops)
    return bool(ops) and set(ROLES) <= memory.holds and not own


def _may_save(groups: Sequence[GroupCost], between_bytes: float) -> np.ndarray:
    """(D,) largest share of the time of these groups that running them as one might save."""
    whole = sum(g.launch_s + g.time_s for g in groups)
    array, home = np.zeros_like(whole), np.zeros_like(whole)
    for group in groups:
        assert group.ladder is not None
        assert group.machine is not None
        array = array + group.ladder["compute"] / group.machine.clock_hz
        home = home + group.home_busy_s
    level = groups[0].machine.levels[0]  # type: ignore[union-attr]
    moving = 2 * between_bytes / groups[0].machine.rates[:, level.read_port] / groups[0].machine.clock_hz  # type: ignore[union-attr]
    return 1 - (groups[0].launch_s + np.maximum(array, home - moving)) / whole


def _fitting(
    ways: list[Slicing], held: np.ndarray, free: np.ndarray, capacity: np.ndarray, coster: _Coster
) -> dict[int, np.ndarray]:
    """Ways to cost -> designs: for each free design the coarsest that fits, that of at least `FINER` slices, and that
    which leaves out most of what a mask hides."""
    least = min(way.visited for way in ways) * LEAN
    room = np.stack([footprint_bytes(way, coster) + held <= capacity for way in ways]) & free
    fine = room & np.array([way.count >= FINER for way in ways])[:, None]
    lean = room & np.array([way.visited < 1 and way.visited <= least for way in ways])[:, None]
    asked = {
        k: np.any([(fit.argmax(axis=0) == k) & fit.any(axis=0) for fit in (room, fine, lean)], axis=0)
        for k in range(len(ways))
    }
    return {k: own for k, own in asked.items() if own.any()}


def _cost(way: Slicing, held: np.ndarray, coster: _Coster) -> GroupCost:
    """The cost of a fused group; one that only names tell from an earlier one is not costed again."""
    graph = coster.graph
    signatures = tuple(coster.signature(graph.ops[i]) for i in way.members)
    key = ("sliced", way.what, way.outer, way.inner, signatures, held.tobytes())
    found = coster.mapped.get(key)
    if found is None:
        found = coster.mapped[key] = cost_slices(way, held, coster)
    assert isinstance(found, GroupCost)
    return found


def _named(cost: GroupCost, way: Slicing, coster: _Coster) -> GroupCost:
    """The cost of a group that runs in this way, whichever group it was found for."""
    assert cost.sliced is not None
    ops = [coster.graph.ops[i] for i in way.members]
    sliced = replace(cost.sliced, slicing=way)
    return cost.with_(op=ops[0], name=ops[0].name, fused=tuple(op.name for op in ops[1:]), sliced=sliced)


def _one_by_one(groups: Sequence[GroupCost], coster: _Coster) -> np.ndarray:
    """(D,) the objective of groups in turn, all prefetch granted."""
    time = sum((g.launch_s + g.time_s - g.prefetch_s for g in groups), start=np.zeros(len(coster.chips)))
    energy = sum((g.energy_j for g in groups), start=np.zeros(len(coster.chips)))
    value = share(time, energy, coster)
    return np.where(np.isnan(value), np.inf, value)


def _without_inside(options: Sequence[GroupCost], where: np.ndarray, coster: _Coster) -> Residency:
    """Homes in which tensors inside a fused group take no room at home."""
    kept = coster.residency
    laid = layout(coster.graph)
    sizes, span = laid.sizes, laid.span
    home, live = kept.home_bytes.copy(), kept.home_live_bytes.copy()
    for option in options:
        assert option.sliced is not None
        for storage in option.sliced.slicing.inside:
            first, last = span[storage]
            less = np.where(option.runs & where & ~kept.stays[storage], sizes[storage], 0.0)[:, None]
            home[:, first : last + 1] -= less
            live[:, first : last + 1] -= less
    return replace(kept, home_bytes=home, home_live_bytes=live)


def fused_notes(groups: Sequence[GroupCost]) -> list[str]:
    """How the fused groups of one design run, alike ones together."""
    found: dict[tuple[str, int], int] = {}
    for group in groups:
        if group.sliced is not None:
            way = group.sliced.slicing
            found[way.what, way.count] = found.get((way.what, way.count), 0) + 1
    return [f"{count} x {what} run fused, in {slices} slices" for (what, slices), count in found.items()]


__all__ = ["fused", "fused_notes"]
