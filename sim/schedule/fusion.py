"""Ops that run as one group where that is better, slice by slice, design by design."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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

FINER = (8, 64)
"""Least slices of further ways that are costed per design, beside the coarsest that fits (of attention one for each
number of keys in a slice): less of their pipeline shows, and what a larger memory would let a group do at once it may
still do in parts."""
LEAN = 1.25
"""Of slices that leave out what a mask hides, one more way costed is the coarsest that does at most this share of the
least work of any: smaller ones fill the array less."""
WORTHWHILE = 0.05
"""A chain is costed where it might save this share of its members' time (or energy, where that is the objective): all
their waiting, fill and preload, launches but one, and the transfers of what passes between them."""


def fused(groups: list[GroupCost], coster: _Coster) -> tuple[list[GroupCost], Residency]:
    """The groups, with fused ones on the designs where they are better, and the homes that result.

    `groups` holds one group per op that is no view, in order. A fused group follows the last op that it replaces.
    """
    kept = coster.residency
    if (
        coster.unit.costing is not Costing.MAPPED
        or not kept.memory
        or coster.options.apart
        or "*" in coster.options.mapping
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
    """Fused groups, each with the designs that run it."""
    candidates = list(_candidates(at, coster))
    distinct = {one.key: one for one in candidates}
    ask_parts(((one.ways[k], only) for one in distinct.values() for k, only in one.fitting.items()), coster)
    won = {key: _beating(one, [at[i] for i in one.members], coster) for key, one in distinct.items()}
    found = [(one, won[one.key]) for one in candidates if won[one.key].options]
    return [
        _named(cost.with_(runs=cost.runs & mine), one.ways[k], coster)
        for one, beating, mine in _best_together(found, at, coster)
        for k, cost in beating.options
        if (cost.runs & mine).any()
    ]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A group that might run fused."""

    ways: list[Slicing]
    """To cut it, coarsest first."""
    held: np.ndarray
    """(D,) bytes of other tensors on chip meanwhile."""
    fitting: dict[int, np.ndarray]
    """Ways to cost (by number) -> designs (D,)."""
    key: tuple
    """What it shares with groups that only names tell apart."""

    @property
    def members(self) -> tuple[int, ...]:
        return self.ways[0].members


@dataclass(frozen=True, slots=True)
class _Beating:
    """What may run fused: the ways (by number) that are best somewhere, with the designs that would run them, and what
    the objective makes least of, (D,), inf where the ops one by one are better."""

    options: list[tuple[int, GroupCost]]
    value: np.ndarray


def _best_together(
    found: Sequence[tuple[_Candidate, _Beating]], at: dict[int, GroupCost], coster: _Coster
) -> Iterator[tuple[_Candidate, _Beating, np.ndarray]]:
    """Groups that overlap exclude each other: (group, its costs, designs that take it), so that the sum over the
    network's groups and single ops is least on each design."""
    place = {i: number for number, i in enumerate(at)}
    first = [place[one.members[0]] for one, _ in found]
    ending: dict[int, list[int]] = {}
    for number, (one, _) in enumerate(found):
        ending.setdefault(place[one.members[-1]] + 1, []).append(number)
    least, last = [np.zeros(len(coster.chips))], []
    """Of the ops before each place: the least sum, and which group is the last there (-1: a single op)."""
    for end, group in enumerate(at.values(), start=1):
        here = ending.get(end, [])
        sums = [least[-1] + _one_by_one([group], coster), *(least[first[n]] + found[n][1].value for n in here)]
        least.append(np.min(sums, axis=0))
        last.append(np.array([-1, *here])[np.argmin(sums, axis=0)])
    where = np.full(len(coster.chips), len(at))
    for end in range(len(at), 0, -1):
        now = where == end
        where = np.where(now, end - 1, where)
        for n in ending.get(end, []):
            mine = now & (last[end - 1] == n)
            if mine.any():
                where = np.where(mine, first[n], where)
                yield *found[n], mine


def _alike(ways: list[Slicing], held: np.ndarray, coster: _Coster) -> tuple:
    """What groups share that only names tell apart: their ways cost the same, and so do their ops one by one."""
    ops = [coster.graph.ops[i] for i in ways[0].members]
    return (
        tuple(way.form for way in ways),
        *((coster.signature(op), coster.rooms[i]) for i, op in zip(ways[0].members, ops, strict=True)),
        held.tobytes(),
    )


def _beating(candidate: _Candidate, members: list[GroupCost], coster: _Coster) -> _Beating:
    """Where a group beats its members one by one."""
    chosen = candidate.fitting
    costs = [_cost(candidate.ways[k], candidate.held, only, coster) for k, only in chosen.items()]
    # (A design decides among its own ways, whatever others in the sweep need.)
    values = np.stack(
        [
            np.where(own, share(c.launch_s + c.time_s, c.energy_j, coster), np.inf)
            for c, own in zip(costs, chosen.values(), strict=True)
        ]
    )
    values = np.where(np.isnan(values), np.inf, values)
    best, least = values.argmin(axis=0), values.min(axis=0)
    wins = least < _one_by_one(members, coster)
    options = [
        (k, cost.with_(runs=wins & (best == at))) for at, (k, cost) in enumerate(zip(chosen, costs, strict=True))
    ]
    some = [(k, option) for k, option in options if option.runs.any()]  # type: ignore[union-attr]
    return _Beating(some, np.where(wins, least, np.inf))


def _candidates(at: dict[int, GroupCost], coster: _Coster) -> Iterator[_Candidate]:
    """Groups of which some way fits on some design that asks for it."""
    graph, stays = coster.graph, coster.residency.stays
    every = np.ones(len(coster.chips), dtype=bool)
    known, bits = coster.shared.slicings, coster.unit.array.accumulate_bits
    fitting: dict[tuple, dict[int, np.ndarray]] = {}
    for name, region in flash_regions(graph).items():
        if int(region.region.attrs["query_length"]) > 1:  # a decode step has no scores worth keeping
            key = (id(graph), name, bits)
            ways = known[key] if key in known else known.setdefault(key, attention_slicings(region, graph, bits))
            if _usable(ways, coster) and (one := _candidate(ways, every, at, fitting, coster)):
                yield one
    for growing in chains(graph, stays):
        small = every  # designs on which no shorter chain was too large, whatever it stores
        for chain in growing:
            if any(coster.depthwise_macs_per_cycle(graph.ops[i]) for i in chain.members):
                break  # (two processors)
            asked = small & ~np.any([stays[storage] for storage in chain.between], axis=0)
            asked &= _may_save([at[i] for i in chain.members], chain.spared_bytes, coster) > WORTHWHILE
            if asked.any():
                own = (id(graph), *chain.members)
                ways = known[own] if own in known else known.setdefault(own, chain_slicings(chain, graph))
                if not _usable(ways, coster):
                    break
                one = _candidate(ways, asked, at, fitting, coster)
                small = small & (_may_grow(ways, at[chain.members[0]].capacity_bytes, coster) | ~asked)
                if one:
                    yield one


def _candidate(
    ways: list[Slicing],
    asked: np.ndarray,
    at: dict[int, GroupCost],
    fitting: dict[tuple, dict[int, np.ndarray]],
    coster: _Coster,
) -> _Candidate | None:
    """The group for the designs that ask; None where it fits on none of them. `fitting`: what is known so far."""
    laid = layout(coster.graph)
    held = held_beside(ways[0], coster, laid.span, laid.sizes)
    key = (*_alike(ways, held, coster), asked.tobytes())
    if key not in fitting:
        fitting[key] = _fitting(ways, held, asked, at[ways[0].members[0]].capacity_bytes, coster)
    return _Candidate(ways, held, fitting[key], key) if fitting[key] else None


def _usable(ways: list[Slicing], coster: _Coster) -> bool:
    """Whether all operands may lie in the resident memory, at their own width, no mapping is given, and no collective
    stands between the members, which would have to wait for their end."""
    memory = next(m for m in coster.unit.memories if m.name == coster.residency.memory)
    members = ways[0].members if ways else ()
    if any(isinstance(op, CollectiveOp) for i in members[:1] for op in coster.graph.ops[i : members[-1]]):
        return False
    ops = [op for op in (coster.graph.ops[i] for i in members) if isinstance(op, EinsumOp)]
    own = any(op.name in coster.options.mapping or compute_and_widening(op, coster)[1] for op in ops)
    return bool(ops) and set(ROLES) <= memory.holds and not own


def _may_save(groups: Sequence[GroupCost], spared_bytes: float, coster: _Coster) -> np.ndarray:
    """(D,) largest share of what the objective makes least of that running these groups as one might save."""
    whole = sum(g.launch_s + g.time_s for g in groups)
    array, home, energy = np.zeros((3, *np.shape(whole)))
    for group in groups:
        assert group.ladder is not None
        array = array + group.ladder["spatially_mapped"] / group.machine.clock_hz  # type: ignore[union-attr]
        home, energy = home + group.home_busy_s, energy + group.energy_j
    full = groups[0].machine
    assert full is not None
    slower = np.minimum(full.rates[:, full.levels[0].read_port], full.rates[:, full.levels[0].write_port])
    moving = spared_bytes / slower / full.clock_hz
    moved_j = spared_bytes * np.maximum(full.read_energy_j_per_byte, full.write_energy_j_per_byte)[:, 0]
    least = groups[0].launch_s + np.maximum(array, home - moving)
    return 1 - share(least, energy - moved_j, coster) / share(whole, energy, coster)


def _fitting(
    ways: list[Slicing], held: np.ndarray, asked: np.ndarray, capacity: np.ndarray, coster: _Coster
) -> dict[int, np.ndarray]:
    """Ways to cost -> designs: for each design that asks the coarsest that fits (of attention for each number of keys
    in a slice), those of at least `FINER` slices, and that which leaves out most of what a mask hides."""
    leanest = min(way.visited for way in ways) * LEAN
    some = [np.array([way.keys == keys for way in ways]) for keys in dict.fromkeys(way.keys for way in ways)]
    some += [np.array([way.count >= least for way in ways]) for least in FINER]
    some += [np.array([way.visited < 1 and way.visited <= leanest for way in ways])]
    room = np.stack([footprint_bytes(way, coster) + held <= capacity for way in ways]) & asked
    fits = [room & one[:, None] for one in some]
    taken = {k: np.any([(fit.argmax(axis=0) == k) & fit.any(axis=0) for fit in fits], axis=0) for k in range(len(ways))}
    return {k: own for k, own in taken.items() if own.any()}


def _may_grow(ways: list[Slicing], capacity: np.ndarray, coster: _Coster) -> np.ndarray:
    """(D,) whether some way would fit but for what it stores: a longer chain may keep that inside."""
    return np.any([footprint_bytes(replace(way, store={}), coster) <= capacity for way in ways], axis=0)


def _cost(way: Slicing, held: np.ndarray, only: np.ndarray, coster: _Coster) -> GroupCost:
    """The cost of a fused group; one that only names tell from an earlier one is not costed again."""
    graph = coster.graph
    signatures = tuple(coster.signature(graph.ops[i]) for i in way.members)
    key = ("sliced", way.form, signatures, held.tobytes(), only.tobytes())
    found = coster.mapped.get(key)
    if found is None:
        found = coster.mapped[key] = cost_slices(way, held, only, coster)
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
    """How the fused groups of one design run, alike ones together, and which they are, by their first op and last."""
    found: dict[tuple[str, int], list[str]] = {}
    for group in groups:
        if group.sliced is not None:
            way = group.sliced.slicing
            found.setdefault((way.what, way.count), []).append(" to ".join((group.name, *group.fused[-1:])))
    return [
        f"{len(names)} x {what} run fused, in {slices} slices: {', '.join(names[:3])}{', ...' if names[3:] else ''}"
        for (what, slices), names in found.items()
    ]


__all__ = ["fused", "fused_notes"]
