"""A network as a few fluid jobs: the coarse grain for long scenarios.

A run of neighbouring groups on one unit becomes one job that takes as long alone as they do and
uses each port evenly meanwhile. Under contention its speed is what its busiest port gets: a
compute-bound run keeps its pace until its share falls below its need. What is lost is the grain:
bursts of tiles, the order of phases inside a run, and preemption between the merged groups.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from sim.events.work import Ports, compile_group
from sim.schedule.plan import Group, Schedule, Steps

GROUPS = 16
"""Fluid jobs per network. With three events each, a frame costs about fifty events."""


def summarise(schedule: Schedule, groups: int = GROUPS) -> Schedule:
    """The schedule with at most about `groups` fluid groups (more when it changes units more often).

    A fluid group is marked by `kind` "fluid": its `inner_bytes` are spread over its `compute_s`.
    """
    ports = Ports(rates=schedule.ports)
    works = [compile_group(g, ports) for g in schedule.groups]
    lengths = [w.launch + w.total - saved for w, saved in zip(works, _prefetched(schedule, works), strict=True)]
    part = max(1, ceil(sum(lengths) / groups))
    merged: list[list[int]] = []
    filled = 0
    for at, group in enumerate(schedule.groups):
        last = merged[-1][-1] if merged else None
        same = last is not None and _place(schedule.groups[last]) == _place(group)
        chained = same and set(group.deps) <= set(merged[-1]) | {d for i in merged[-1] for d in schedule.groups[i].deps}
        if not chained or filled >= part:
            merged.append([])
            filled = 0
        merged[-1].append(at)
        filled += lengths[at]
    home = {at: i for i, members in enumerate(merged) for at in members}
    fluid = tuple(_fluid(schedule, works, lengths, members, i, home) for i, members in enumerate(merged))
    return replace(schedule, groups=fluid)


def _place(group: Group) -> tuple[str, int]:
    return group.unit, group.instance


def _prefetched(schedule: Schedule, works: list) -> list[int]:
    """Ticks that each group saves by what was prefetched in the idle time of the group before it."""
    saved, before = [], {}
    for group, work in zip(schedule.groups, works, strict=True):
        earlier, fetch, gain = before.get(_place(group)), work.prefetch(), 0
        if earlier is not None and fetch is not None and fetch.ticks:
            share = min(1.0, int(earlier.slack[-1]) / fetch.ticks)
            gain = work.total - work.without(share).total
        saved.append(gain)
        before[_place(group)] = work
    return saved


def _fluid(schedule: Schedule, works: list, lengths: list, members: list[int], number: int, home: dict) -> Group:
    bytes_: dict[str, float] = {}
    for at in members:
        for port, amount in works[at].moved_bytes.items():
            bytes_[port] = bytes_.get(port, 0.0) + amount
    seconds = sum(lengths[at] for at in members) / 1e15
    first = schedule.groups[members[0]]
    energies = [schedule.groups[at].energy_j for at in members]
    deps = {home[d] for at in members for d in schedule.groups[at].deps} - {number}
    return replace(
        first,
        name=first.name if len(members) == 1 else f"{first.name} .. {schedule.groups[members[-1]].name}",
        ops=tuple(op for at in members for op in schedule.groups[at].ops),
        kind="fluid",
        deps=tuple(sorted(deps)),
        launch_s=0.0,
        latency_s=seconds,
        prefetch_bytes={},
        macs=sum(schedule.groups[at].macs for at in members),
        energy_j=None if any(e is None for e in energies) else float(sum(energies)),
        steps=Steps(
            repeat=np.array([1]),
            compute_s=np.array([seconds]),
            first_load_bytes={},
            next_load_bytes={},
            store_bytes={},
            inner_bytes={p: np.array([b]) for p, b in bytes_.items()},
            last_store_bytes={},
        ),
    )
