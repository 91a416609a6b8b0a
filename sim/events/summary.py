"""A network as a few segments: the coarse grain for long scenarios.

A run of neighbouring groups on one unit becomes one group of a handful of large steps. Steps bound
by compute are added up, and steps bound by their chain (with first loads, last stores and launches)
are added up, so that a segment alone takes exactly as long as its groups:

    sum of compute where it binds  +  sum of chains where they bind

and under contention each part is slowed by what it can bear: the first only once its transfers no
longer fit beside its compute. What is lost is the grain: how bursts of tiles of several networks
fall together, and preemption between merged groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np

from sim.events.machine import Program
from sim.events.order import issue_order
from sim.events.ticks import TICKS_PER_S
from sim.events.work import Phase, Step, Work
from sim.schedule.plan import Group, Steps

SEGMENTS = 16
"""Segments per network; with some tens of phase changes each, a network costs a few hundred."""

PARTS = 2
"""Into how many alternating steps each of the two sums of a segment is cut."""


@dataclass(slots=True)
class _Sum:
    """Steps of one kind, added up: ticks, and per kind of transfer its bytes by the schedule's port names."""

    compute: int = 0
    chain: int = 0
    bytes: dict[str, dict[str, float]] = field(default_factory=lambda: {"load": {}, "store": {}, "inner": {}})
    alone: dict[str, float] = field(default_factory=lambda: {"load": 0.0, "store": 0.0, "inner": 0.0})
    """Ticks of each kind of transfer alone."""

    def add(self, work: Work, mask: np.ndarray) -> None:
        repeat = work.repeat * mask
        self.compute += int(np.dot(repeat, work.compute))
        self.chain += int(np.dot(repeat, work.moves))
        for kind, moved in work.bytes_per_class().items():
            busy = [b * mask * (TICKS_PER_S / work.ports.rates[p]) for p, b in moved.items()]
            self.alone[kind] += float(np.max(busy, axis=0).sum()) if busy else 0.0
            for port, b in moved.items():
                self.bytes[kind][port] = self.bytes[kind].get(port, 0.0) + float(b[mask].sum())


def summarise(program: Program, segments: int = SEGMENTS) -> Program:
    """The program with at most about `segments` groups (more when it changes units more often)."""
    works = after_prefetch(program)
    lengths = [w.launch + w.total for w in works]
    members = _members(program, lengths, max(1, ceil(sum(lengths) / segments)))
    home = {at: i for i, group in enumerate(members) for at in group}
    merged = tuple(_segment([works[at] for at in group]) for group in members)
    deps = [{home[d] for at in group for d in program.deps[at]} - {i} for i, group in enumerate(members)]
    engines = tuple(program.engines[group[0]] for group in members)
    held = tuple(_most([program.held_bytes[at] for at in group]) for group in members)
    return replace(program, works=merged, engines=engines, held_bytes=held, **issue_order(engines, deps))


def _most(held: list[Mapping[str, float]]) -> dict[str, float]:
    """Memory -> most bytes that any of the groups holds."""
    return {memory: max(h.get(memory, 0.0) for h in held) for memory in {m for h in held for m in h}}


def _members(program: Program, lengths: list[int], part: int) -> list[list[int]]:
    """Runs of neighbours on one engine that wait for nothing from elsewhere after their first group."""

    def joins(at: int, first: int) -> bool:
        known = {*range(first, at), *program.deps[first]}
        return program.engines[first] == program.engines[at] and known.issuperset(program.deps[at])

    members: list[list[int]] = []
    filled = 0
    for at, length in enumerate(lengths):
        if not members or filled >= part or not joins(at, members[-1][0]):
            members.append([])
            filled = 0
        members[-1].append(at)
        filled += length
    return members


def after_prefetch(program: Program) -> list[Work]:
    """Each group with as much prefetched as fits into the idle time of the DMA engine before it."""
    works = list(program.works)
    for at, after in enumerate(program.following):
        if after is None:
            continue
        fetch = program.works[after].prefetch
        if fetch is not None and fetch.ticks:
            works[after] = program.works[after].without(min(1.0, int(works[at].slack[-1]) / fetch.ticks))
    return works


def _segment(works: list[Work]) -> Work:
    """One group whose steps are cut from two sums: bound by compute, bound by the chain."""
    sums = (_Sum(), _Sum())
    for work in works:
        by_compute = work.compute > work.moves
        sums[0].add(work, by_compute)
        sums[1].add(work, ~by_compute)
        sums[1].chain += work.launch
        for port, b in work.prefetched_bytes.items():
            loaded = sums[0].bytes["load"]
            loaded[port] = loaded.get(port, 0.0) + b
    steps = [step for part in range(PARTS) for step in (_cut_step(works[0], total, part) for total in sums)]
    steps = [step for step in steps if step.alone]
    return Work(
        group=_name(works, sums),
        ports=works[0].ports,
        launch=0,
        repeat=np.ones(len(steps), dtype=np.int64),
        compute=np.array([s.compute for s in steps], dtype=np.int64),
        moves=np.array([sum(p.ticks for p in s.chain) for s in steps], dtype=np.int64),
        fixed=np.array([sum(p.ticks for p in s.chain if not p.uses) for s in steps], dtype=np.int64),
        cache=dict(enumerate(steps)),
    )


def _cut_step(work: Work, total: _Sum, part: int) -> Step:
    """Part `part` of a sum: loads, stores and inner bytes in turn, and what remains of the chain as fixed."""
    ports = work.ports
    chain = []
    for kind, moved in total.bytes.items():
        ticks = round(total.alone[kind] / PARTS)
        if ticks:
            busy = {p: b / PARTS / ports.rates[p] * TICKS_PER_S / ticks for p, b in moved.items() if b > 0}
            uses = tuple((ports.alias.get(p, p), min(1.0, u) * ports.own_share(p)) for p, u in busy.items() if u > 0)
            chain.append(Phase(kind, ticks, uses, tuple((ports.alias.get(p, p), moved[p] / PARTS) for p in busy)))
    fixed = _cut(total.chain, part) - sum(p.ticks for p in chain)
    if fixed > 0:
        chain.insert(0, Phase("setup", fixed))
    return Step(_cut(total.compute, part), tuple(chain))


def _cut(ticks: int, part: int) -> int:
    return ticks * (part + 1) // PARTS - ticks * part // PARTS


def _name(works: list[Work], sums: tuple[_Sum, _Sum]) -> Group:
    """The group that carries the segment's name and its bytes."""
    first, last = works[0].group, works[-1].group
    total: dict[str, float] = {}
    for moved in (moved for one in sums for moved in one.bytes.values()):
        for port, b in moved.items():
            total[port] = total.get(port, 0.0) + b
    return replace(
        first,
        name=first.name if len(works) == 1 else f"{first.name} .. {last.name}",
        ops=tuple(op for work in works for op in work.group.ops),
        launch_s=0.0,
        prefetch_bytes={},
        prefetch_fixed_s=0.0,
        macs=sum(work.group.macs for work in works),
        steps=Steps(repeat=np.array([1]), compute_s=np.array([0.0]), first_load_bytes=total),
    )
