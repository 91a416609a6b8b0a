"""Order of issue: what each group of a program waits for, and what it releases when it ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypedDict


class IssueOrder(TypedDict):
    """The fields of a `sim.events.machine.Program` that say what waits for what."""

    deps: tuple[tuple[int, ...], ...]
    waits: tuple[int, ...]
    releases: tuple[tuple[int, ...], ...]
    following: tuple[int | None, ...]


def issue_order(engines: Sequence[str], deps: Sequence[Collection[int]]) -> IssueOrder:
    """A group waits for its dependencies and for the one before on its engine."""
    releases: list[list[int]] = [[] for _ in engines]
    following: list[int | None] = [None] * len(engines)
    waits: list[int] = []
    before: dict[str, int] = {}
    """Engine -> the last group on it so far."""
    for at, engine in enumerate(engines):
        needs = set(deps[at])
        if engine in before:
            needs.add(before[engine])
            following[before[engine]] = at
        before[engine] = at
        waits.append(len(needs))
        for need in sorted(needs):
            releases[need].append(at)
    return {
        "deps": tuple(tuple(sorted(d)) for d in deps),
        "waits": tuple(waits),
        "releases": tuple(map(tuple, releases)),
        "following": tuple(following),
    }
