"""What a search keeps of its designs: entries of arrays, each of which belongs to one design."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.mapping.settle import Pairs


class Chosen:
    """Entries that each belong to one of some designs: candidates or keys, and their bounds."""

    def __init__(self, owner: np.ndarray, number: np.ndarray, bound: np.ndarray) -> None:
        self.owner, self.number, self.bound = owner, number, bound

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, some: np.ndarray) -> Chosen:
        return Chosen(self.owner[some], self.number[some], self.bound[some])

    @staticmethod
    def none() -> Chosen:
        return Chosen(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))

    @staticmethod
    def join(parts: list[Chosen]) -> Chosen:
        return Chosen(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("owner", "number", "bound")))


@dataclass(slots=True)
class Left:
    """Candidates that may still beat the best of n designs: those of design i are entries `next[i]` to `end[i]`, by
    ascending bound."""

    number: np.ndarray
    bound: np.ndarray
    next: np.ndarray
    end: np.ndarray

    @staticmethod
    def none(designs: int) -> Left:
        return Left(np.zeros(0, dtype=np.int64), np.zeros(0), *np.zeros((2, designs), dtype=np.int64))

    def put(self, designs: np.ndarray, chosen: Chosen) -> None:
        """Give (sorted) designs other candidates."""
        order = np.lexsort((chosen.number, chosen.bound, chosen.owner))
        counts = np.bincount(chosen.owner, minlength=len(self.next))[designs]
        self.end[designs] = len(self.number) + np.cumsum(counts)
        self.next[designs] = self.end[designs] - counts
        self.number = np.concatenate([self.number, chosen.number[order]])
        self.bound = np.concatenate([self.bound, chosen.bound[order]])

    def pull(self, designs: np.ndarray, look: int, limits: np.ndarray) -> Chosen:
        """Take each design's next candidates, at most `look` and none above its limit."""
        start = self.next[designs]
        entry, owner = spans(start, np.minimum(self.end[designs] - start, look))
        within = self.bound[entry] <= limits[owner]
        entry, owner = entry[within], owner[within]
        self.next[designs] += np.bincount(owner, minlength=len(designs))
        return Chosen(designs[owner], self.number[entry], self.bound[entry])

    def least(self, designs: np.ndarray) -> np.ndarray:
        """The bound of each design's next candidate; inf where none is left."""
        found = np.full(len(designs), np.inf)
        some = np.flatnonzero(self.next[designs] < self.end[designs])
        found[some] = self.bound[self.next[designs[some]]]
        return found


class Best:
    """The best of n designs so far: its rank (value, second value, key, order), and where its row stands."""

    def __init__(self, designs: int) -> None:
        self.value, self.second = np.full((2, designs), np.inf)
        self.key, self.order, self.table, self.row = np.full((4, designs), -1, dtype=np.int64)

    def take(self, some: np.ndarray) -> Best:
        """The best of some of the designs."""
        taken = Best(len(some))
        taken.inherit(np.arange(len(some)), self, some)
        return taken

    def offer(self, owner: np.ndarray, value: np.ndarray, second: np.ndarray, key: np.ndarray, pairs: Pairs) -> None:
        """Take rows that rank before the best of their designs."""
        ranks = ((value, self.value), (second, self.second), (key, self.key), (pairs.order, self.order))
        order = np.lexsort((*(new for new, _ in reversed(ranks)), owner))
        first = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
        mine = owner[first]
        better, even = np.zeros(len(mine), dtype=bool), np.ones(len(mine), dtype=bool)
        for new, old in ranks:
            better |= even & (new[first] < old[mine])
            even &= new[first] == old[mine]
        for new, old in (*ranks, (pairs.table, self.table), (pairs.row, self.row)):
            old[mine[better]] = new[first[better]]

    def inherit(self, heirs: np.ndarray, other: Best, of: np.ndarray | slice = slice(None)) -> None:
        """Designs have what the best of others are."""
        for name in ("value", "second", "key", "order", "table", "row"):
            getattr(self, name)[heirs] = getattr(other, name)[of]


def spans(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(entries of spans one after the other, number of the span of each)."""
    owner = np.repeat(np.arange(len(start)), count)
    return np.arange(len(owner)) + np.repeat(start - np.cumsum(count) + count, count), owner
