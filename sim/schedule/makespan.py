"""When groups run: one after another on the unit, collectives beside it, loads of weights ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.schedule.groups import GroupCost
from sim.schedule.host import TRANSFER
from sim.schedule.plan import prefetch_share
from sim.workload.graph import CollectiveOp
from sim.workload.passes.pipeline import is_send

Awaited = Mapping[str, tuple[str, ...]]


class Makespan:
    """Increments per group, (D,) each; they sum to the makespan.

    The unit runs its groups in order. A group's weights may load while the group before still computes: hidden is the
    share of it that passes (`sim.schedule.plan`) in the time in which the DMA engine idles beside the compute, and no
    more than has room beside that group's tiles and the tensors that stay on chip meanwhile. Nothing loads while the
    inputs come over the host link: the unit begins when they are there. A collective is launched by the unit and then
    occupies the link, one at a time, so that one that reads another's result has it when its turn comes; the unit goes
    on with what does not need its result (`beside_unit`). Its increment is its launch and what the unit waits for it,
    at the first group that reads the result or at the end: hidden communication costs nothing. Weights load during one
    that the unit waits for at once, beside what that works on, not during a wait later on. Behind a send to the next
    stage runs another chip, on which nothing of the group before lies or runs: weights load during the send alone, if
    that chip waits for it.
    """

    def __init__(self, groups: Sequence[GroupCost], awaited: Awaited | None, designs: int) -> None:
        """`awaited`: op -> the collectives whose results it reads; None: the unit waits for each at once."""
        beside = beside_unit(groups, awaited, designs)
        found = _Increments.of(groups, beside, designs)
        self.increments, self.hidden, self.prefetches = list(found.increment), list(found.saved), list(found.room)
        self.unit = np.zeros(designs)
        """Time at which the unit is free; kept only where there are collectives."""
        self.link = np.zeros(designs)
        self.done: dict[int, np.ndarray] = {}
        """Position of a collective -> time at which it is done, -inf where the unit need not wait for it."""
        if not any(isinstance(group.op, CollectiveOp) for group in groups):
            return
        at: dict[str, list[int]] = {}
        for position, group in enumerate(groups):
            runs, sends = _runs(group, designs), isinstance(group.op, CollectiveOp)
            for name in (n for op in (group.name, *group.fused) for n in (awaited or {}).get(op, ()) if not sends):
                for sent in at.get(name, ()):
                    self._wait(sent, runs)
            self.unit = self.unit + self.increments[position]
            if sends:
                at.setdefault(group.name, []).append(position)
                self._send(position, group, runs)
                self._wait(position, ~beside[position])
        for position in self.done:
            self._wait(position, np.ones(designs, dtype=bool))

    def _send(self, position: int, group: GroupCost, runs: np.ndarray) -> None:
        self.link = np.where(runs, np.maximum(self.unit, self.link) + group.time_s, self.link)
        self.done[position] = np.where(runs, self.link, -np.inf)

    def _wait(self, position: int, some: np.ndarray) -> None:
        """The unit stands still on some designs until a collective is done."""
        late = np.where(some, np.maximum(0.0, self.done[position] - self.unit), 0.0)
        self.done[position] = np.where(some, -np.inf, self.done[position])
        self.increments[position] = self.increments[position] + late
        self.unit = self.unit + late


AT_ONCE = 1 << 20
"""Groups x designs whose increments are found together: their tables fit in some 100 MB."""


@dataclass(frozen=True, slots=True)
class _Increments:
    """(groups, D): what each group adds before any wait for a collective, what of it is hidden, and the share of its
    first weights that have room beside the group before."""

    increment: np.ndarray
    saved: np.ndarray
    room: np.ndarray

    @staticmethod
    def of(groups: Sequence[GroupCost], beside: np.ndarray, designs: int) -> _Increments:
        shape = (len(groups), designs)
        found = _Increments(np.zeros(shape), np.zeros(shape), np.zeros(shape))
        step = max(1, AT_ONCE // max(1, len(groups)))
        for first in range(0, designs if groups else 0, step):
            found._fill(groups, beside, slice(first, first + step))
        return found

    def _fill(self, groups: Sequence[GroupCost], beside: np.ndarray, some: slice) -> None:
        """The columns of some designs."""
        designs = self.increment[:, some].shape[1]

        def table(name: str) -> np.ndarray:
            return np.concatenate([getattr(group, name)[some] for group in groups]).reshape(len(groups), designs)

        launch, time, moving, ahead = map(table, ("launch_s", "time_s", "first_weight_s", "prefetch_s"))
        weights, held, capacity = map(table, ("first_weight_bytes", "held_bytes", "capacity_bytes"))
        sends = np.array([isinstance(group.op, CollectiveOp) for group in groups])[:, None]
        runs = np.array([_runs(group, self.increment.shape[1])[some] for group in groups])
        idle = table("idle_s")
        idle[[i for i, group in enumerate(groups) if group.name == TRANSFER]] = 0.0
        crosses, beside = np.array([is_send(group.op) for group in groups])[:, None], beside[:, some]
        idle[crosses & beside] = 0.0
        before = runs & (crosses | ~beside)
        slack = _before(idle, before)
        room = _room(_before(table("footprint_bytes") + held, before), weights, capacity)
        saved = ahead * np.minimum(room, prefetch_share(slack, saves_s=ahead, moving_s=moving))
        self.increment[:, some] = np.where(runs, np.where(sends, launch, launch + time - saved), 0.0)
        self.saved[:, some] = np.where(runs & ~sends, saved, 0.0)
        self.room[:, some] = np.where(runs & ~sends, room, 0.0)


def _room(held: np.ndarray, needed: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """Of bytes that are needed, the share that has room beside those that are held (endless where nothing fits)."""
    whole = held + needed <= capacity
    some = ~whole & np.isfinite(held) & np.isfinite(needed) & (needed > 0)
    left = np.maximum(capacity - held, 0.0, out=np.zeros_like(held), where=some)
    return np.divide(left, needed, out=whole.astype(float), where=some)


def _before(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(groups, D) per group, the value of the last group before it that has one of its own (`own`); 0 before any."""
    at = np.where(own, np.arange(1, len(values) + 1)[:, None], 0)
    last = np.maximum.accumulate(at, axis=0)
    last = np.concatenate([np.zeros_like(last[:1]), last[:-1]])
    return np.take_along_axis(np.concatenate([np.zeros_like(values[:1]), values]), last, axis=0)


def _runs(group: GroupCost, designs: int) -> np.ndarray:
    return np.ones(designs, dtype=bool) if group.runs is None else group.runs


def beside_unit(groups: Sequence[GroupCost], awaited: Awaited | None, designs: int) -> np.ndarray:
    """(groups, D): whether it is a collective during which the unit has something else to do.

    What follows it is the next group that the design runs.
    """
    found = np.zeros((len(groups), designs), dtype=bool)
    if awaited is None or not any(isinstance(group.op, CollectiveOp) for group in groups):
        return found
    following = np.full(designs, -1)
    for i, group in reversed(list(enumerate(groups))):
        runs = _runs(group, designs)
        if isinstance(group.op, CollectiveOp):
            for j in set(following[runs].tolist()) - {-1}:
                found[i] |= runs & (following == j) & _goes_on(groups[j], group.name, awaited)
        following = np.where(runs, i, following)
    return found


def _goes_on(group: GroupCost, collective: str, awaited: Awaited) -> bool:
    """Whether the unit runs the group while a collective before it is under way."""
    reads = any(collective in awaited.get(op, ()) for op in (group.name, *group.fused))
    return not isinstance(group.op, CollectiveOp) and not reads
