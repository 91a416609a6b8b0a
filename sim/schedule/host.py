"""What a network reads from outside: its inputs come over the chip's host link before the first op runs.

A frame, an image or a prompt crosses PCIe or a camera link into the home memory; results stay on
the chip. The transfer stands before the network as a group of its own, so that the first weights
may load behind it. What the link takes is the host's and in no total; writing into the home memory is the chip's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.cost.links import TRANSFER, arriving_bytes, host_link
from sim.hardware.chip import Chip
from sim.hardware.designs import Designs
from sim.hardware.physical import memory_energy_j_per_byte
from sim.results import Term
from sim.schedule.groups import GroupCost
from sim.units import Dimension, format_quantity
from sim.workload.graph import Graph, MovementOp


def input_transfer(
    graph: Graph, chips: Sequence[Chip], subject: Chip | Designs, designs_held: np.ndarray
) -> GroupCost | None:
    """Inputs that some op reads, at their stored bits, over the host link: latency + bytes / bandwidth, that of the
    link or of the home memory that they are written into, whichever is slower.

    None without a host link or inputs. `subject`: what energies are read from; `designs_held` (D,): resident bytes
    before the first op.
    """
    links, arriving = [host_link(chip) for chip in chips], arriving_bytes(graph)
    if not arriving or any(link is None for link in links):
        return None
    moved, names = float(sum(arriving.values())), tuple(arriving)
    op = MovementOp(name=TRANSFER, kind=TRANSFER, inputs=(), outputs=names, read_bytes={}, write_bytes={})
    n, unit = len(chips), chips[0].main_unit
    clock = np.array([chip.main_unit.clock_hz for chip in chips])
    over = np.array([link.bandwidth.at(c) * c for link, c in zip(links, clock, strict=True)])  # type: ignore[union-attr]
    latency = np.array([link.latency_s for link in links])  # type: ignore[union-attr]
    written = np.array([c.memory(unit.home).busy_s(0.0, moved, clock_hz=c.main_unit.clock_hz) for c in chips])
    time = latency + np.maximum(moved / over, written)
    joules = memory_energy_j_per_byte(subject, unit.home, "write")
    energy = np.full(n, moved) * np.asarray(np.nan if joules is None else joules, dtype=float)
    zero = np.zeros(n)
    return GroupCost(
        op=op,
        name=TRANSFER,
        launch_s=zero,
        time_s=time,
        terms_s={Term.COMMUNICATION: time},
        traffic_bytes={unit.home: {"input": (zero, np.full(n, moved))}},
        home_busy_s=written,
        prefetch_s=zero,
        first_weight_bytes=zero,
        first_weight_s=zero,
        footprint_bytes=zero,
        held_bytes=designs_held,
        capacity_bytes=np.full(n, np.inf),
        energy_j=energy,
        energy_parts_j={unit.home: energy},
        cycles=time * clock,
        bound=tuple(f"link:{link.name}" for link in links),  # type: ignore[union-attr]
        resources_s={"link": time},
    )


def transfer_note(group: GroupCost) -> str:
    """What came over which link, in words."""
    moved = sum(float(write[0]) for table in group.traffic_bytes.values() for _, write in table.values())
    link = group.bound[0].partition(":")[2]
    size = format_quantity(moved, Dimension.SIZE)
    return f"inputs of {size} come over {link} before the first op (inputs resident: without it)"


__all__ = ["TRANSFER", "input_transfer", "transfer_note"]
