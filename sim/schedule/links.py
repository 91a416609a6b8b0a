"""Collectives of a system of chips as groups: on the link, beside the unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.cost.collectives import collective_s, sent_bytes
from sim.hardware.chip import Chip
from sim.hardware.physical import link_energy_j_per_byte, memory_energy_j_per_byte
from sim.results import Term
from sim.schedule.groups import GroupCost
from sim.workload.graph import CollectiveOp, Graph, ViewOp
from sim.workload.passes.pipeline import is_send

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

COLLECTIVE = "collective"
"""Cost class: no interval was measured for it."""


def cost_collective(op: CollectiveOp, position: int, coster: _Coster) -> GroupCost:
    """A collective by the alpha-beta model, launched by the unit; it occupies the link, not the unit.

    Each chip reads what it sends where that lies, and writes what it receives where that will lie: in the home memory,
    or on chip what stays there. A home memory that is slower than the link holds it up. During a send nothing lies yet
    on the chip that waits for it.
    """
    chips, n, home = coster.chips, len(coster.chips), coster.unit.home
    sent = np.full(n, float(sent_bytes(collective=op.collective.value, message_bytes=op.message_bytes, chips=op.chips)))
    link = chips[0].system_link.name
    zero = np.zeros(n)
    over = sent * _per_byte(link_energy_j_per_byte(coster.subject, link))
    energy, traffic = {link: over}, {}
    for memory, (read, write) in _moved(op, sent, coster).items():
        each = (_per_byte(memory_energy_j_per_byte(coster.subject, memory, way)) for way in ("read", "write"))
        # Of a memory that nothing passes the energy may be unknown.
        energy[memory] = sum(
            (np.where(moved > 0, moved * joules, 0.0) for moved, joules in zip((read, write), each, strict=True)),
            start=zero,
        )
        traffic[memory] = {"communication": (read, write)}
    at_home = np.array(
        [
            chip.memory(home).busy_s(read, write, clock_hz=chip.main_unit.clock_hz)
            for chip, read, write in zip(chips, *traffic[home]["communication"], strict=True)
        ]
    )
    time = np.maximum([_seconds(op, chip) for chip in chips], at_home)
    return GroupCost(
        op=op,
        name=op.name,
        launch_s=np.array([c.main_unit.launch_s for c in chips]),
        time_s=time,
        terms_s={Term.COMMUNICATION: time},
        traffic_bytes=traffic,
        home_busy_s=at_home,
        prefetch_s=zero,
        first_weight_bytes=zero,
        first_weight_s=zero,
        footprint_bytes=zero,
        held_bytes=zero if is_send(op) else coster.residency.held_bytes[:, position],
        capacity_bytes=np.full(n, np.inf),
        energy_j=sum(energy.values(), start=zero),
        energy_parts_j=energy,
        cycles=time * np.array([c.main_unit.clock_hz for c in chips]),
        bound=(f"link:{link}",) * n,
        resources_s={f"link:{link}": time},
        cost_class=COLLECTIVE,
    )


def _moved(op: CollectiveOp, sent: np.ndarray, coster: _Coster) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Memory -> (read, written bytes) of each design: all where one tensor is at home, on chip where all stay there."""
    kept, tensors = coster.residency, coster.graph.tensors
    near_in, near_out = (
        np.all([kept.stays.get(tensors[key].storage or key, np.zeros(len(sent), bool)) for key in keys], axis=0)
        for keys in (op.inputs, op.outputs)
    )
    moved = {coster.unit.home: (np.where(near_in, 0.0, sent), np.where(near_out, 0.0, sent))}
    if kept.memory and (near_in.any() or near_out.any()):
        moved[kept.memory] = (np.where(near_in, sent, 0.0), np.where(near_out, sent, 0.0))
    return moved


def _per_byte(joules: Any) -> np.ndarray:
    """Of each chip; nan where unknown."""
    return np.atleast_1d(np.asarray(np.nan if joules is None else joules, dtype=float))


def _seconds(op: CollectiveOp, chip: Chip) -> float:
    assert chip.system is not None
    link = chip.system_link
    return float(
        collective_s(
            collective=op.collective.value, message_bytes=float(op.message_bytes), chips=op.chips,
            topology=chip.system.topology, bandwidth_bytes_per_s=link.bandwidth.at(1.0), latency_s=link.latency_s,
        )
    )  # fmt: skip


def awaited(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Op name -> the collectives whose results it reads, straight or through views; none for a graph without."""
    made: dict[str, tuple[str, ...]] = {}
    found: dict[str, tuple[str, ...]] = {}
    for op in graph.ops:
        before = tuple(dict.fromkeys(name for key in op.inputs for name in made.get(key, ())))
        if isinstance(op, CollectiveOp):
            made.update(dict.fromkeys(op.outputs, (op.name,)))
        elif isinstance(op, ViewOp) and before:
            made.update(dict.fromkeys(op.outputs, before))
        if before and not isinstance(op, ViewOp):
            found[op.name] = before
    return found


__all__ = ["awaited", "cost_collective"]
