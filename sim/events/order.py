"""Order of issue: what each group of a program waits for, and what it releases when it ends."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def issue_order(engines: Sequence[str], deps: Sequence[Collection[int]]) -> dict[str, tuple]:
    """Fields of a `Program`: a group waits for its dependencies and for the one before on its engine."""
    releases: list[list[int]] = [[] for _ in engines]
    following: list[int | None] = [None] * len(engines)
    waits, before = [], {}
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
