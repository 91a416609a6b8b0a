"""Schedules made ready to run: placed on unit instances, compiled, with their order of issue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np

from sim.errors import ConfigError, nearest
from sim.events.machine import Program
from sim.events.order import issue_order
from sim.events.work import Ports, Work, compile_group
from sim.schedule.plan import Group, Schedule, Steps


def make_program(
    schedule: Schedule,
    *,
    place: Mapping[str, int] | None = None,
    shared: Collection[str] | None = None,
    capacity: Mapping[str, float] | None = None,
) -> Program:
    """Compiles a schedule for one place on the machine.

    Args:
        place: unit -> instance to run on; of units not named, and of pinned groups, the schedule's own.
        shared: memories and links that all units share; the ports of others belong to one unit
            instance. None: every port is shared.
        capacity: port -> bytes per second of the machine where one stream alone cannot draw it all.

    Raises:
        ConfigError: unknown unit or instance in `place`, unknown port in a group.
    """
    place = dict(place or {})
    for unit, instance in place.items():
        if unit not in schedule.units:
            raise ConfigError(f'unknown unit "{unit}"; known: {_list(schedule.units)}.{nearest(unit, schedule.units)}')
        if not 0 <= instance < schedule.units[unit]:
            raise ConfigError(f"{unit}[{instance}]: the chip has {schedule.units[unit]}, numbered from 0")
    engines = tuple(f"{g.unit}[{g.instance if g.pinned else place.get(g.unit, g.instance)}]" for g in schedule.groups)
    ports = {engine: _ports(schedule, engine, shared, capacity or {}) for engine in set(engines)}
    known: dict[tuple[int, str], Work] = {}
    works = []
    for group, engine in zip(schedule.groups, engines, strict=True):
        works.append(known.setdefault((id(group), engine), compile_group(group, ports[engine])))
    energies = [g.energy_j for g in schedule.groups]
    return Program(
        works=tuple(works),
        engines=engines,
        held_bytes=tuple(_held(g, e, schedule, shared) for g, e in zip(schedule.groups, engines, strict=True)),
        lasting_bytes=dict(schedule.lasting_bytes),
        energy_j=None if None in energies else float(sum(e for e in energies if e is not None)),
        **issue_order(engines, _checked_deps(schedule)),
    )


def with_host_stage(
    schedule: Schedule,
    *,
    name: str,
    unit: str,
    seconds: float,
    first: bool,
    instances: int = 1,
    parallel: int = 1,
    power_w: float | None = None,
) -> Schedule:
    """The schedule with pre- (or post-) processing of a fixed length on `unit` before (after) it.

    With `parallel` above 1 so many equal parts run side by side, one on each instance from 0 on.
    """
    nothing = Steps(repeat=np.array([1]), compute_s=np.array([seconds]))
    last = tuple(range(len(schedule.groups)))
    stages = tuple(
        Group(
            name=name if parallel == 1 else f"{name} {part}", ops=(), unit=unit, kind="vector",
            deps=() if first else last, launch_s=0.0, steps=nothing, latency_s=seconds, instance=part,
            pinned=parallel > 1, energy_j=None if power_w is None else power_w * seconds,
        )
        for part in range(parallel)
    )  # fmt: skip
    groups = schedule.groups
    if first:
        before = tuple(range(parallel))
        groups = tuple(replace(g, deps=tuple(d + parallel for d in g.deps) or before) for g in groups)
    units = {**schedule.units, unit: max(instances, schedule.units.get(unit, 1))}
    return replace(schedule, groups=(*stages, *groups) if first else (*groups, *stages), units=units)


def _own(schedule: Schedule, shared: Collection[str] | None) -> Callable[[str], bool]:
    """Whether a memory or link belongs to one unit instance ("npu[1].SRAM"): what units do not share and, of a pipeline
    of chips, the home memories of its stages."""
    homes = {name.split(".")[-1] for name in schedule.lasting_bytes} if schedule.stages > 1 else set()
    return lambda name: name in homes or (shared is not None and name not in shared)


def _held(group: Group, engine: str, schedule: Schedule, shared: Collection[str] | None) -> dict[str, float]:
    """Memory -> bytes; nothing of what the stages of a pipeline before it held."""
    own = _own(schedule, shared)
    held = {f"{engine}.{m}" if own(m) else m: b for m, b in group.held_bytes.items()}
    return dict.fromkeys(schedule.lasting_bytes, 0.0) | held if held and schedule.stages > 1 else held


def _ports(schedule: Schedule, engine: str, shared: Collection[str] | None, capacity: Mapping[str, float]) -> Ports:
    belongs = _own(schedule, shared)
    own = {port: f"{engine}.{port}" for port in schedule.ports if belongs(port.split(".")[0])}
    return Ports(rates=schedule.ports, capacity={p: c for p, c in capacity.items() if p in schedule.ports}, alias=own)


def _checked_deps(schedule: Schedule) -> list[tuple[int, ...]]:
    for at, group in enumerate(schedule.groups):
        if any(not 0 <= d < at for d in group.deps):
            raise ConfigError(f'group "{group.name}" depends on {sorted(group.deps)}; expected positions below {at}')
    return [group.deps for group in schedule.groups]


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
