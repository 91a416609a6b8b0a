"""The stages of a pipeline of chips in a stream: what each takes of an inference, and the sends between them.

A stage sends its results while it computes the next ones: it launches the send, and the link takes the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.schedule.host import TRANSFER
from sim.schedule.loads import SUFFIX
from sim.schedule.network import Network
from sim.workload.passes.pipeline import is_send, stage_of


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Of one design; the stages share nothing but the links."""

    groups: tuple[tuple[str, ...], ...]
    """Of each stage, in order; the transfer of the inputs belongs to none."""
    latency_s: tuple[float, ...]
    sends_s: Mapping[str, float]
    """"link:<name>" -> its longest send of an inference."""

    @property
    def interval_s(self) -> float:
        """Least time between two inferences."""
        return max(*self.latency_s, *self.sends_s.values())


def stages_of(network: Network, d: int) -> Stages:
    """The stages of design `d` of a network; one if its chips make no pipeline."""
    position, stage = {op.name: at for at, op in enumerate(network.graph.ops)}, stage_of(network.graph)
    groups: list[list[str]] = [[] for _ in range(stage[-1] + 1)]
    seconds, sends = [0.0] * len(groups), dict[str, float]()
    for group, increment in zip(network.groups, network.increments_s, strict=True):
        if group.name == TRANSFER:
            continue
        at = stage[position[group.name.removesuffix(SUFFIX)]]
        groups[at].append(group.name)
        if is_send(group.op):
            seconds[at] += float(group.launch_s[d])
            sends[group.bound[d]] = max(float(group.time_s[d]), sends.get(group.bound[d], 0.0))
        else:
            seconds[at] += float(increment[d])
    return Stages(groups=tuple(map(tuple, groups)), latency_s=tuple(seconds), sends_s=sends)


__all__ = ["Stages", "stages_of"]
