"""When groups run: one after another on the unit, collectives beside it, loads of weights ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from sim.schedule.groups import GroupCost
from sim.schedule.host import TRANSFER
from sim.workload.graph import CollectiveOp


class Makespan:
    """Increments per group, (D,) each; they sum to the makespan.

    The unit runs its groups in order. A group's weights may load while the group before still computes: hidden is
    the part of the first load that waits for weights alone, at most the time in which the unit leaves the home memory
    idle, and only where both fit on chip together. Nothing loads while the inputs come over the host link: the unit
    begins when they are there. A collective is launched by the unit and then occupies the link,
    one at a time; the unit goes on with what does not need its result (`beside_unit`). Its increment is its launch and
    what the unit waits for it, at the first group that reads the result or at the end: hidden communication costs
    nothing. Weights load during one that the unit waits for at once, not during a wait later on.
    """

    def __init__(self, groups: Sequence[GroupCost], awaited: Mapping[str, tuple[str, ...]], designs: int) -> None:
        self.increments: list[np.ndarray] = []
        self.hidden: list[np.ndarray] = []
        self.prefetches: list[np.ndarray] = []
        self.slack = np.zeros(designs)
        self.used = np.zeros(designs)
        self.unit = np.zeros(designs)
        """Time at which the unit is free; kept only where there are collectives."""
        self.link = np.zeros(designs)
        self.pending: dict[str, tuple[int, np.ndarray]] = {}
        """Collective -> (position, time at which it is done)."""
        self.awaited = awaited
        beside = beside_unit(groups, awaited)
        for position, group in enumerate(groups):
            for name in (n for op in (group.name, *group.fused) for n in awaited.get(op, ())):
                self._wait(name)
            if isinstance(group.op, CollectiveOp):
                self._send(position, group)
                if not beside[position]:
                    self._wait(group.name)
                    self.slack = np.maximum(0.0, group.time_s - group.home_busy_s)
            else:
                self._compute(group)
        for name in list(self.pending):
            self._wait(name)

    def _compute(self, group: GroupCost) -> None:
        fits = self.used + group.first_weight_bytes + group.held_bytes <= group.capacity_bytes
        # A load that is there in full costs neither set-up nor latency; a part saves its own time.
        part = np.where(self.slack >= group.first_weight_s, group.prefetch_s, np.minimum(group.prefetch_s, self.slack))
        saved = np.where(fits, part, 0.0)
        runs = True if group.runs is None else group.runs
        self._add(np.where(runs, group.launch_s + group.time_s - saved, 0.0), np.where(runs, saved, 0.0), fits & runs)
        idle = np.zeros_like(saved) if group.name == TRANSFER else np.maximum(0.0, group.time_s - group.home_busy_s)
        self.slack = np.where(runs, idle, self.slack)
        self.used = np.where(runs, group.footprint_bytes, self.used)

    def _send(self, position: int, group: GroupCost) -> None:
        self._add(group.launch_s, np.zeros_like(group.time_s), np.zeros(len(group.time_s), dtype=bool))
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

    def _add(self, increment: np.ndarray, hidden: np.ndarray, fits: np.ndarray) -> None:
        self.increments.append(increment)
        self.hidden.append(hidden)
        self.prefetches.append(fits)
        if self.awaited:
            self.unit = self.unit + increment


def beside_unit(groups: Sequence[GroupCost], awaited: Mapping[str, tuple[str, ...]]) -> list[bool]:
    """Per group, whether it is a collective during which the unit has something else to do."""
    found = [False] * len(groups)
    for i, (group, after) in enumerate(pairwise(groups)):
        names = {name for op in (after.name, *after.fused) for name in awaited.get(op, ())}
        both = isinstance(group.op, CollectiveOp) and not isinstance(after.op, CollectiveOp)
        found[i] = both and group.name not in names
    return found
