"""A group of the schedule as work in ticks: classes of steps, each a chain of phases beside a compute.

The chain of a step is what its DMA engine does, in order: load of the next tile, store, inner
bytes. A phase is either fixed (set-up, latency) or a transfer, whose length alone on the chip is
`ticks` and which uses a fraction of each of its ports meanwhile. The first load and the last store
are steps without compute, so that a group is one list of steps:

    T = sum over steps of max(compute, sum of the chain)

which is the closed form of `sim.schedule.plan`, rounded to ticks phase by phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sim.errors import ConfigError, InfeasibleError, nearest
from sim.events.fluid import Uses
from sim.events.ticks import LONGEST_S, to_tick_array, to_ticks
from sim.schedule.plan import Group


@dataclass(frozen=True, slots=True)
class Phase:
    """One link of a chain. Without `uses` it takes `ticks` whatever else happens."""

    label: str
    ticks: int
    uses: Uses = ()
    bytes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One tile job: `compute` ticks on the array beside the chain on the DMA engine."""

    compute: int
    chain: tuple[Phase, ...]

    @property
    def alone(self) -> int:
        return max(self.compute, _ticks_of(self.chain))


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Capacity of each port (bytes/s), and the names under which units see them.

    `alias` renames a port of the schedule for one stream: two NPUs have an "SRAM.read" each and
    one DRAM, so the ports of a unit carry its instance and the shared ones do not.
    """

    rates: Mapping[str, float]
    capacity: Mapping[str, float] = field(default_factory=dict)
    """Where the machine has more than one stream can draw (outstanding requests bound it)."""
    alias: Mapping[str, str] = field(default_factory=dict)

    def rate(self, port: str, where: str) -> float:
        if port not in self.rates:
            known = ", ".join(sorted(self.rates)) or "none"
            raise ConfigError(f'{where}: unknown port "{port}"; known: {known}.{nearest(port, self.rates)}')
        return self.rates[port]

    def transfer(self, label: str, moved: Mapping[str, float], where: str) -> Phase | None:
        """The transfer of `moved` bytes per port, or None when there are none."""
        moved = {p: b for p, b in moved.items() if b > 0}
        if not moved:
            return None
        times = {p: b / self.rate(p, where) for p, b in moved.items()}
        alone = max(times.values())
        busy = {p: t / alone for p, t in times.items() if t > 0}
        uses = tuple((self.alias.get(p, p), share * self.own_share(p)) for p, share in busy.items())
        named = tuple((self.alias.get(p, p), b) for p, b in moved.items())
        return Phase(label, to_ticks(alone), uses, named)

    def own_share(self, port: str) -> float:
        """Share of the machine's port that this stream takes when it has it to itself."""
        return min(1.0, self.rates[port] / self.capacity[port]) if port in self.capacity else 1.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """One group, compiled. Class 0 is the first load, the last class the last store."""

    group: Group
    ports: Ports
    launch: int
    repeat: np.ndarray
    compute: np.ndarray
    """Ticks of each class's compute, in the chain already when it is not double buffered."""
    moves: np.ndarray
    """Ticks of each class's chain alone."""
    fixed: np.ndarray
    """Of these, the ticks that are no transfer: set-up, latency, compute without double buffering."""
    cache: dict[int, Step] = field(default_factory=dict, repr=False)
    prefetched_bytes: Mapping[str, float] = field(default_factory=dict)
    """Part of the first load that was moved before the group began."""

    @cached_property
    def alone(self) -> np.ndarray:
        return np.maximum(self.compute, self.moves)

    @cached_property
    def cumulative(self) -> np.ndarray:
        """Ticks before class j, length n + 1."""
        return np.concatenate([[0], np.cumsum(self.alone * self.repeat)])

    @cached_property
    def total(self) -> int:
        """Ticks of the body alone, launch excluded, nothing prefetched."""
        return int(self.cumulative[-1])

    @cached_property
    def slack(self) -> np.ndarray:
        """Ticks for which the DMA engine idles before class j: room for a prefetch. Length n + 1."""
        return np.concatenate([[0], np.cumsum(np.maximum(0, self.compute - self.moves) * self.repeat)])

    @cached_property
    def used_ports(self) -> frozenset[str]:
        steps, names = self.group.steps, set()
        for moved in (steps.next_load_bytes, steps.store_bytes, steps.inner_bytes):
            names |= {p for p, b in moved.items() if np.any(np.asarray(b) > 0)}
        for once in (steps.first_load_bytes, steps.last_store_bytes, self.group.prefetch_bytes):
            names |= {p for p, b in once.items() if b > 0}
        return frozenset(self.ports.alias.get(p, p) for p in names)

    def bytes_per_class(self) -> dict[str, dict[str, np.ndarray]]:
        """Kind of transfer -> port (as the schedule names it) -> bytes of all steps of each class."""
        steps = self.group.steps
        kinds = {"load": steps.next_load_bytes, "store": steps.store_bytes, "inner": steps.inner_bytes}
        total: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in kinds}
        for kind, moved in kinds.items():
            for port, b in moved.items():
                total[kind][port] = np.concatenate([[0.0], steps.repeat * np.asarray(b, dtype=float), [0.0]])
        for kind, at, once in (("load", 0, steps.first_load_bytes), ("store", -1, steps.last_store_bytes)):
            for port, amount in once.items():
                total[kind].setdefault(port, np.zeros(len(self.repeat)))[at] += amount
        return total

    @cached_property
    def moved_bytes(self) -> dict[str, float]:
        """Bytes per port of the whole group, prefetched ones included."""
        total = dict(self.prefetched_bytes)
        for moved in self.bytes_per_class().values():
            for port, b in moved.items():
                total[port] = total.get(port, 0.0) + float(b.sum())
        return {self.ports.alias.get(p, p): b for p, b in total.items()}

    def step(self, j: int) -> Step:
        """The step that class j repeats."""
        if j not in self.cache:
            self.cache[j] = _step(self, j)
        return self.cache[j]

    @cached_property
    def prefetch(self) -> Phase | None:
        """What may be moved in the idle time of the group before."""
        fixed = to_ticks(max(0.0, self.group.prefetch_fixed_s))
        moved = self.ports.transfer("prefetch", self.group.prefetch_bytes, self.group.name)
        if moved is None:
            return Phase("prefetch", fixed) if fixed else None
        ticks = fixed + moved.ticks
        return replace(moved, ticks=ticks, uses=tuple((p, use * moved.ticks / ticks) for p, use in moved.uses))

    def without(self, share: float) -> Work:
        """The same work with `share` of its prefetch already done."""
        if share <= 0:
            return self
        first = dict(self.group.steps.first_load_bytes)
        done = {port: min(share * b, first.get(port, 0.0)) for port, b in self.group.prefetch_bytes.items()}
        for port, b in done.items():
            left = first[port] - b if b else first.get(port, 0.0)
            first[port] = left if left > 1e-9 * b else 0.0
        group = replace(self.group, steps=replace(self.group.steps, first_load_bytes=first))
        chain = _first_load(group, self.ports, passed_s=share * self.group.prefetch_fixed_s)
        moves = self.moves.copy()
        moves[0] = sum(p.ticks for p in chain)
        cache = {j: s for j, s in self.cache.items() if j} | {0: Step(0, chain)}
        return Work(
            group=group,
            ports=self.ports,
            launch=self.launch,
            repeat=self.repeat,
            compute=self.compute,
            moves=moves,
            fixed=np.concatenate([[_fixed(chain)], self.fixed[1:]]),
            cache=cache,
            prefetched_bytes=done,
        )


def compile_group(group: Group, ports: Ports) -> Work:
    """The group in ticks. Vectorised over step classes; a `Step` is made when it is asked for.

    Raises: InfeasibleError: it takes longer than ticks can be counted.
    """
    if group.latency_s > LONGEST_S:
        raise InfeasibleError(
            f"{group.name}: takes {group.latency_s:,.0f} s alone on {group.unit}, and events are counted in ticks that "
            f"end at {LONGEST_S:,.0f} s for one op: expected a faster chip or a smaller op, or ask for an estimate, "
            "which has no such end"
        )
    steps = group.steps
    n = len(steps.repeat)
    setup = to_ticks(steps.setup_s)
    load = _ticks(steps.next_load_bytes, n, ports, group.name)
    store = _ticks(steps.store_bytes, n, ports, group.name)
    inner = _ticks(steps.inner_bytes, n, ports, group.name)
    compute = to_tick_array(steps.compute_s)
    fixed = setup * (_any(steps.next_load_bytes, n).astype(np.int64) + _any(steps.store_bytes, n))
    if steps.pause_s is not None:
        fixed = fixed + to_tick_array(steps.pause_s)
    if not steps.double_buffered:
        fixed, compute = fixed + compute, np.zeros(n, dtype=np.int64)
    first, last = _first_load(group, ports), _last_store(group, ports)
    return Work(
        group=group,
        ports=ports,
        launch=to_ticks(group.launch_s),
        repeat=np.concatenate([[1], np.asarray(steps.repeat, dtype=np.int64), [1]]),
        compute=np.concatenate([[0], compute, [0]]),
        moves=np.concatenate([[_ticks_of(first)], load + store + inner + fixed, [_ticks_of(last)]]),
        fixed=np.concatenate([[_fixed(first)], fixed, [_fixed(last)]]),
    )


def _ticks(moved: Mapping[str, np.ndarray], n: int, ports: Ports, where: str) -> np.ndarray:
    if not moved:
        return np.zeros(n, dtype=np.int64)
    return to_tick_array(np.max([np.asarray(b, dtype=float) / ports.rate(p, where) for p, b in moved.items()], axis=0))


def _any(moved: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    return np.any([np.asarray(b) > 0 for b in moved.values()], axis=0) if moved else np.zeros(n, dtype=bool)


def _ticks_of(chain: tuple[Phase, ...]) -> int:
    return sum(p.ticks for p in chain)


def _fixed(chain: tuple[Phase, ...]) -> int:
    return sum(p.ticks for p in chain if not p.uses)


def _with_setup(phase: Phase | None, setup_s: float) -> tuple[Phase, ...]:
    if phase is None:
        return ()
    return (Phase("setup", to_ticks(setup_s)), phase) if setup_s > 0 else (phase,)


def _first_load(group: Group, ports: Ports, *, passed_s: float = 0.0) -> tuple[Phase, ...]:
    """`passed_s` of its latency and set-up have passed already."""
    steps = group.steps
    wait_s = steps.first_latency_s - passed_s
    chain = _with_setup(ports.transfer("load", steps.first_load_bytes, group.name), steps.setup_s + min(0.0, wait_s))
    wait = to_ticks(max(0.0, wait_s))
    return (Phase("latency", wait), *chain) if wait else chain


def _last_store(group: Group, ports: Ports) -> tuple[Phase, ...]:
    chain = _with_setup(ports.transfer("store", group.steps.last_store_bytes, group.name), group.steps.setup_s)
    return (Phase("setup", to_ticks(group.steps.last_pause_s)), *chain) if group.steps.last_pause_s > 0 else chain


def _step(work: Work, j: int) -> Step:
    group, steps, ports = work.group, work.group.steps, work.ports
    if j == 0:
        return Step(0, _first_load(group, ports))
    if j == len(work.repeat) - 1:
        return Step(0, _last_store(group, ports))
    at = j - 1

    def moved(of: Mapping[str, np.ndarray]) -> dict[str, float]:
        return {p: float(b[at]) for p, b in of.items()}

    inner = ports.transfer("inner", moved(steps.inner_bytes), group.name)
    pause = to_ticks(float(steps.pause_s[at])) if steps.pause_s is not None else 0
    chain = (
        *((Phase("setup", pause),) if pause else ()),
        *_with_setup(ports.transfer("load", moved(steps.next_load_bytes), group.name), steps.setup_s),
        *_with_setup(ports.transfer("store", moved(steps.store_bytes), group.name), steps.setup_s),
        *((inner,) if inner else ()),
    )
    if not steps.double_buffered:
        fixed = to_ticks(float(steps.compute_s[at]))
        chain = ((Phase("compute", fixed),) if fixed else ()) + chain
    return Step(int(work.compute[j]), chain)
