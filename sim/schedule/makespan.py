"""When groups run: one after another on the unit, collectives beside it, loads of weights ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sim.schedule.groups import GroupCost
from sim.schedule.host import TRANSFER
from sim.schedule.plan import prefetch_share
from sim.workload.graph import CollectiveOp


class Makespan:
    """Increments per group, (D,) each; they sum to the makespan.

    The unit runs its groups in order. A group's weights may load while the group before still computes: hidden is
    the share of it that passes (`sim.schedule.plan`) in the time in which the DMA engine idles beside the compute, and
    only where both fit on chip together. Nothing loads while the inputs come over the host link: the unit begins when
    they are there. A collective is launched by the unit and then occupies the link,
    one at a time; the unit goes on with what does not need its result (`beside_unit`). Its increment is its launch and
    what the unit waits for it, at the first group that reads the result or at the end: hidden communication costs
    nothing. Weights load during one that the unit waits for at once, not during a wait later on.
    """

    def __init__(self, groups: Sequence[GroupCost], awaited: Mapping[str, tuple[str, ...]], designs: int) -> None:
        beside = beside_unit(groups, awaited)
        found = _Increments.of(groups, beside, designs)
        self.increments, self.hidden, self.prefetches = list(found.increment), list(found.saved), list(found.fits)
        self.unit = np.zeros(designs)
        """Time at which the unit is free; kept only where there are collectives."""
        self.link = np.zeros(designs)
        self.pending: dict[str, tuple[int, np.ndarray]] = {}
        """Collective -> (position, time at which it is done)."""
        if not any(isinstance(group.op, CollectiveOp) for group in groups):
            return
        for position, group in enumerate(groups):
            for name in (n for op in (group.name, *group.fused) for n in awaited.get(op, ())):
                self._wait(name)
            if awaited:
                self.unit = self.unit + self.increments[position]
            if isinstance(group.op, CollectiveOp):
                self._send(position, group)
                if not beside[position]:
                    self._wait(group.name)
        for name in list(self.pending):
            self._wait(name)

    def _send(self, position: int, group: GroupCost) -> None:
        self.link = np.maximum(self.unit, self.link) + group.time_s
        self.pending[group.name] = (position, self.link)

    def _wait(self, name: str) -> None:
        """The unit stands still until a collective is done."""
        if name not in self.pending:
            return
        position, done = self.pending.pop(name)
        late = np.maximum(0.0, done - self.unit)
        self.increments[position] = self.increments[position] + late
        self.unit = self.unit + late


AT_ONCE = 1 << 20
"""Groups x designs whose increments are found together: their tables fit in some 100 MB."""


@dataclass(frozen=True, slots=True)
class _Increments:
    """(groups, D): what each group adds before any wait for a collective, what of it is hidden, and whether its first
    weights fit beside the group before."""

    increment: np.ndarray
    saved: np.ndarray
    fits: np.ndarray

    @staticmethod
    def of(groups: Sequence[GroupCost], beside: Sequence[bool], designs: int) -> _Increments:
        shape = (len(groups), designs)
        found = _Increments(np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool))
        step = max(1, AT_ONCE // max(1, len(groups)))
        for first in range(0, designs if groups else 0, step):
            found._fill(groups, beside, slice(first, first + step))
        return found

    def _fill(self, groups: Sequence[GroupCost], beside: Sequence[bool], some: slice) -> None:
        """The columns of some designs."""
        designs = self.increment[:, some].shape[1]

        def table(name: str) -> np.ndarray:
            return np.concatenate([getattr(group, name)[some] for group in groups]).reshape(len(groups), designs)

        launch, time, moving, ahead = map(table, ("launch_s", "time_s", "first_weight_s", "prefetch_s"))
        room = table("first_weight_bytes") + table("held_bytes"), table("capacity_bytes")
        sends = np.array([isinstance(group.op, CollectiveOp) for group in groups])[:, None]
        yes = np.ones(designs, dtype=bool)
        runs = np.array([yes if group.runs is None else group.runs[some] for group in groups])
        idle = table("idle_s")
        idle[[i for i, group in enumerate(groups) if group.name == TRANSFER]] = 0.0
        slack = _before(idle, np.where(sends, ~np.array(beside)[:, None], runs))
        used = _before(table("footprint_bytes"), runs & ~sends)
        fits = used + room[0] <= room[1]
        saved = np.where(fits, ahead * prefetch_share(slack, saves_s=ahead, moving_s=moving), 0.0)
        self.increment[:, some] = np.where(sends, launch, np.where(runs, launch + time - saved, 0.0))
        self.saved[:, some] = np.where(runs & ~sends, saved, 0.0)
        self.fits[:, some] = fits & runs & ~sends


def _before(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(groups, D) per group, the value of the last group before it that has one of its own (`own`); 0 before any."""
    at = np.where(own, np.arange(1, len(values) + 1)[:, None], 0)
    last = np.maximum.accumulate(at, axis=0)
    last = np.concatenate([np.zeros_like(last[:1]), last[:-1]])
    return np.take_along_axis(np.concatenate([np.zeros_like(values[:1]), values]), last, axis=0)


def beside_unit(groups: Sequence[GroupCost], awaited: Mapping[str, tuple[str, ...]]) -> list[bool]:
    """Per group, whether it is a collective during which the unit has something else to do."""
    found = [False] * len(groups)
    if not any(isinstance(group.op, CollectiveOp) for group in groups):
        return found
    for i, (group, after) in enumerate(pairwise(groups)):
        names = {name for op in (after.name, *after.fused) for name in awaited.get(op, ())}
        both = isinstance(group.op, CollectiveOp) and not isinstance(after.op, CollectiveOp)
        found[i] = both and group.name not in names
    return found
