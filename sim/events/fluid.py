"""Who gets how much of a shared port: max-min fair sharing of transfers that use several ports.

A transfer runs at a speed between 0 and 1, where 1 is what it reaches alone. At speed 1 it uses a
fraction `u` of each port's capacity. Fair means fair in capacity: no transfer can get more of a
port without taking it from one that has no more there (Bertsekas and Gallager, Data Networks, 2nd
ed. 1992, section 6.5.2, "bottleneck" characterisation, carried over to transfers that need several
ports in fixed proportion). So a transfer that needs 0.3 of a port beside one that could use all of
it gets its 0.3 and the other 0.7; two that could each use all get one half. Higher priority is
served first, the rest shares what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Uses = tuple[tuple[str, float], ...]
"""(port, fraction of its capacity at speed 1) of one transfer."""

_FULL = 1.0 - 1e-12
"""Speeds above this are 1: rounding of a sum of fractions must not look like contention."""

_ROUNDS = 400
_INF = float("inf")


@dataclass(frozen=True, slots=True)
class Demand:
    """What a transfer asks of the ports. A larger `priority` is served first."""

    uses: Uses
    priority: int = 0


def max_min_speeds(demands: Sequence[Demand], capacity: Mapping[str, float] | None = None) -> list[float]:
    """Speed of each transfer in [0, 1].

    Args:
        demands: the transfers under way.
        capacity: fraction of each port that is there to share (default 1 of every port).

    >>> max_min_speeds([Demand((("DRAM", 0.3),)), Demand((("DRAM", 1.0),))])
    [1.0, 0.7]
    """
    free = dict(capacity or {})
    for demand in demands:
        for port, _ in demand.uses:
            free.setdefault(port, 1.0)
    speeds = [1.0] * len(demands)
    for level in sorted({d.priority for d in demands}, reverse=True):
        members = [i for i, d in enumerate(demands) if d.priority == level]
        for i, speed in zip(members, _fair([demands[i].uses for i in members], free), strict=True):
            speeds[i] = speed if speed < _FULL else 1.0
            for port, use in demands[i].uses:
                free[port] = max(0.0, free[port] - use * speeds[i])
    return speeds


def _fair(uses: Sequence[Uses], free: Mapping[str, float]) -> list[float]:
    """Fixed point of the water levels of all ports.

    A port's level is the most that one transfer may take of it; it follows from what the transfers
    are able to take, which follows from the levels of their other ports. With one port per transfer
    two rounds settle it; else the rounds approach from both sides, and late ones are averaged.
    """
    levels = {port: float("inf") for port in {p for of in uses for p, _ in of}}
    for round_ in range(_ROUNDS):
        limits = [{p: levels[p] / use for p, use in of} for of in uses]
        wanted: dict[str, list[float]] = {port: [] for port in levels}
        for of, limit in zip(uses, limits, strict=True):
            for port, use in of:
                elsewhere = min((s for p, s in limit.items() if p != port), default=1.0)
                wanted[port].append(use * min(1.0, elsewhere))
        new = {port: _water_level(wanted[port], free[port]) for port in levels}
        if all(_near(new[p], levels[p]) for p in levels):
            break
        late = round_ > _ROUNDS // 4
        levels = {p: (levels[p] + new[p]) / 2 if late and levels[p] + new[p] < _INF else new[p] for p in levels}
    speeds = [min([1.0, *(levels[p] / use for p, use in of)]) for of in uses]
    return _feasible(uses, speeds, free)


def _water_level(wanted: Sequence[float], free: float) -> float:
    """Level L with sum of min(wanted, L) = free; infinite when all get what they want."""
    left = sorted(wanted)
    for at, want in enumerate(left):
        share = free / (len(left) - at)
        if want > share * (1 + 1e-14):
            return share
        free -= want
    return _INF


def _feasible(uses: Sequence[Uses], speeds: list[float], free: Mapping[str, float]) -> list[float]:
    """Slows the users of a port that rounding left over-full, so that no port gives more than it has."""
    for port, capacity in free.items():
        taken = sum(use * speed for of, speed in zip(uses, speeds, strict=True) for p, use in of if p == port)
        if taken > capacity * (1 + 1e-12):
            scale = capacity / taken
            speeds = [s * scale if any(p == port for p, _ in of) else s for of, s in zip(uses, speeds, strict=True)]
    return speeds


def _near(a: float, b: float) -> bool:
    return a == b or (max(a, b) < _INF and abs(a - b) <= 1e-14 * max(a, b))
