"""The most that each memory holds at once, of one design of a costed network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sim.mapping.winners import Winners
from sim.schedule.groups import GroupCost
from sim.schedule.network import Network


def peaks_bytes(network: Network, d: int) -> dict[str, float]:
    """Memory -> bytes [byte]: at home, on chip what stays there and tiles, and tiles inside."""
    peaks = {network.unit.home: float(network.residency.home_peak_bytes[d])}
    if network.residency.memory:
        peaks[network.residency.memory] = max(
            (float(g.held_bytes[d] + g.footprint_bytes[d]) for g in network.groups), default=0.0
        )
    for group in network.groups:
        for won, row in winning_rows(group, d):
            assert group.machine is not None
            for level, used in won.level_bytes[row].items():
                name = group.machine.levels[level].name
                if name != network.residency.memory:
                    peaks[name] = max(peaks.get(name, 0.0), used)
    return peaks


def winning_rows(group: GroupCost, d: int) -> Iterator[tuple[Winners, int]]:
    """(winners, row of the design)"""
    for designs, won in group.winners:
        at = np.flatnonzero(designs == d)
        if len(at) and won.row[at[0]] >= 0:
            yield won, int(won.row[at[0]])
