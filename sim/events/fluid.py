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
        _fill(demands, [i for i, d in enumerate(demands) if d.priority == level], free, speeds)
    return speeds


def _fill(demands: Sequence[Demand], open_: list[int], free: dict[str, float], speeds: list[float]) -> None:
    """Freezes, round by round, transfers that a fair share satisfies, then those of a true bottleneck."""
    while open_:
        users: dict[str, int] = {}
        for i in open_:
            for port, _ in demands[i].uses:
                users[port] = users.get(port, 0) + 1
        limits = {i: _limit(demands[i].uses, free, users) for i in open_}
        frozen = [i for i in open_ if limits[i][0] >= _FULL]
        if not frozen:
            frozen = _bottleneck(demands, limits)
        for i in frozen:
            speeds[i] = 1.0 if limits[i][0] >= _FULL else limits[i][0]
            for port, use in demands[i].uses:
                free[port] = max(0.0, free[port] - use * speeds[i])
        open_ = [i for i in open_ if i not in frozen]


def _limit(uses: Uses, free: Mapping[str, float], users: Mapping[str, int]) -> tuple[float, str]:
    """(speed at an equal share of every port, the port that limits it)"""
    speed, limiting = 1.0, ""
    for port, use in uses:
        share = free[port] / (users[port] * use)
        if share < speed:
            speed, limiting = share, port
    return speed, limiting


def _bottleneck(demands: Sequence[Demand], limits: Mapping[int, tuple[float, str]]) -> list[int]:
    """All transfers of a port that limits every one of its users; failing that, the slowest one."""
    loose = {port for i, (_, limiting) in limits.items() for port, _ in demands[i].uses if port != limiting}
    tight = sorted({limiting for _, limiting in limits.values()} - loose)
    if tight:
        return [i for i, (_, limiting) in limits.items() if limiting == tight[0]]
    return [min(limits, key=lambda i: (limits[i][0], i))]
