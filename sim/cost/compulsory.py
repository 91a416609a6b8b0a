"""Compulsory traffic: each byte that an op touches, once, at the memory where it lies.

Storages, not tensors, lie in memories: a view and its base are one. A storage with a graph input,
a weight or a KV cache in it comes from the home memory; one with a graph output or a KV cache must
get there; what is neither dies inside the network and may stay on chip.

Of a mapped unit's memories on chip those are counted by which every mapping, fused or not, must pass: the
innermost that holds an operand feeds the array with it or takes it back, and vector and movement ops
stream through the memory in which activations stay. Left out are attention, of which a kernel may skip a
part; depthwise convolutions where a processor of their own may take them; and other units, of which
caches and registers may hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from math import ceil, prod

import numpy as np

from sim.cost.depthwise import is_depthwise
from sim.hardware.chip import Chip, Costing, Fanout, Memory, Unit
from sim.ordered import ascending
from sim.workload.graph import (
    Axis,
    CollectiveOp,
    Einsum,
    EinsumOp,
    Graph,
    MovementOp,
    Op,
    OperandRole,
    Role,
    VectorOp,
    ViewOp,
)
from sim.workload.passes.precision import stored_as
from sim.workload.precision import Precision

_EXTERNAL = frozenset({Role.INPUT, Role.WEIGHT, Role.KV_CACHE})
_KEPT = frozenset({Role.OUTPUT, Role.KV_CACHE})


@lru_cache(maxsize=4096)
def _distinct(axis: Axis, sizes: tuple[int, ...]) -> int:
    """Indices inside [0, size) that an axis takes over all values of its ranks."""
    index = np.array([axis.offset])
    for (_, coefficient), size in zip(axis.terms, sizes, strict=True):
        index = ascending((index[:, None] + coefficient * np.arange(size)[None, :]).ravel())
    return int(np.count_nonzero((index >= 0) & (index < axis.size)))


def touched_elements(einsum: Einsum, role: OperandRole) -> int:
    """Distinct elements of an operand that the einsum touches; padding is not among them.

    Assumes: no rank appears on two axes of the operand (no diagonals).
    """
    axes = einsum.operand(role).projection
    return prod(_distinct(axis, tuple(einsum.ranks[rank] for rank, _ in axis.terms)) for axis in axes)


@dataclass(frozen=True)
class Footprint:
    """Bytes per op, storage and direction, and where each storage lies."""

    touched: Mapping[str, tuple[tuple[str, float, float], ...]]
    """op name -> (storage, read bytes, write bytes)"""
    homes: Mapping[str, str]
    external: frozenset[str]
    kept: frozenset[str]
    home: str
    passing: Mapping[str, Mapping[str, tuple[float, float]]]
    """op name -> memory on chip -> (read, write) bytes that pass its ports in every mapping"""

    def of(self, op: Op) -> dict[str, tuple[float, float]]:
        """Memory -> (read, write) bytes of one op, each operand at its home."""
        found: dict[str, tuple[float, float]] = {}
        for storage, read, write in self.touched[op.name]:
            memory = self.homes[storage]
            before = found.get(memory, (0.0, 0.0))
            found[memory] = (before[0] + read, before[1] + write)
        return found

    def compulsory_bytes(self) -> tuple[float, float]:
        """(read, write) bytes that must cross the home memory's port however the network runs.

        Bytes of a cache that the network itself wrote may be read from chip, so they are taken off.
        """
        reads: dict[str, float] = {}
        writes: dict[str, float] = {}
        for entries in self.touched.values():
            for storage, read, write in entries:
                if self.homes[storage] != self.home:
                    continue
                if storage in self.external:
                    reads[storage] = max(reads.get(storage, 0.0), read)
                if storage in self.kept:
                    writes[storage] = max(writes.get(storage, 0.0), write)
        read = sum(max(0.0, amount - writes.get(storage, 0.0)) for storage, amount in reads.items())
        return read, sum(writes.values())

    def passing_bytes(self) -> dict[str, tuple[float, float]]:
        """Memory on chip -> (read, write) bytes of the whole network that must pass its ports."""
        found: dict[str, tuple[float, float]] = {}
        for table in self.passing.values():
            for memory, (read, write) in table.items():
                before = found.get(memory, (0.0, 0.0))
                found[memory] = (before[0] + read, before[1] + write)
        return found


def footprint(
    graph: Graph,
    chip: Chip,
    unit: Unit,
    precision: Precision | None,
    homes: Mapping[str, str],
) -> Footprint:
    """Bytes that every op touches under a precision (as stored, without one), and the home of every storage."""
    bits = {key: stored_as(t, precision)[1] if precision else t.bits for key, t in graph.tensors.items()}
    storage = {key: tensor.storage or key for key, tensor in graph.tensors.items()}
    roles: dict[str, set[Role]] = {}
    sizes: dict[str, float] = {}
    views = {out for op in graph.ops if isinstance(op, ViewOp) for out in op.outputs}
    for key, tensor in graph.tensors.items():
        roles.setdefault(storage[key], set()).add(tensor.role)
        if key not in views:
            own = ceil(tensor.elements * bits[key] * tensor.density / 8)
            sizes[storage[key]] = max(sizes.get(storage[key], 0.0), own)
    external = frozenset(s for s, found in roles.items() if found & _EXTERNAL)
    kept = frozenset(s for s, found in roles.items() if found & _KEPT)
    lasting = external | kept
    chip_memory = next(iter(shared_memories(unit)), None)
    places = {}
    for key, place in storage.items():
        if key in homes:
            places[place] = homes[key]
        elif place not in places:
            stays = place not in lasting and chip_memory is not None
            fits = stays and sizes.get(place, 0.0) <= chip_memory.capacity_bytes  # type: ignore[union-attr]
            places[place] = chip_memory.name if fits and chip_memory else chip.memory(unit.home).name
    touched, passing = {}, {}
    for op in graph.ops:
        if not isinstance(op, ViewOp):
            rows = _op_bytes(op, graph, bits)
            if unit.costing is Costing.MAPPED:
                passing[op.name] = _passing(op, graph, unit, bits, rows)
            touched[op.name] = tuple(
                (storage[key], min(read, sizes.get(storage[key], read)), min(write, sizes.get(storage[key], write)))
                for key, read, write in rows
            )
    return Footprint(touched=touched, homes=places, external=external, kept=kept, home=unit.home, passing=passing)


def _passing(
    op: Op, graph: Graph, unit: Unit, bits: Mapping[str, float], rows: list[tuple[str, float, float]]
) -> dict[str, tuple[float, float]]:
    """Memory on chip -> (read, write) bytes of an op of a mapped unit; see this module."""
    if op.region is not None and graph.regions[op.region].kind == "attention":
        return {}
    if unit.array.depthwise_macs_per_cycle and isinstance(op, EinsumOp) and is_depthwise(op, graph):
        return {}  # (two processors take them, on two ways)
    found: dict[str, tuple[float, float]] = {}
    if not isinstance(op, EinsumOp):
        near = next(iter(shared_memories(unit)), None)
        if near is not None and isinstance(op, VectorOp | MovementOp):
            found[near.name] = (sum(read for _, read, _ in rows), sum(write for _, _, write in rows))
        return found
    for operand in op.einsum.operands:
        memory = next((m for m in reversed(unit.memories) if operand.role in m.holds), None)
        if memory is not None:
            moved = touched_elements(op.einsum, operand.role) * bits[operand.tensor] / 8
            moved *= graph.tensors[operand.tensor].density
            read, write = found.get(memory.name, (0.0, 0.0))
            out = operand.role is OperandRole.OUTPUT
            found[memory.name] = (read, write + moved) if out else (read + moved, write)
    return found


def shared_memories(unit: Unit) -> list[Memory]:
    """The memories on chip that all cores share and that keep inputs and outputs, from the outermost."""
    shared = takewhile(lambda level: not isinstance(level, Fanout) or level.count == 1, unit.hierarchy)
    kept = {OperandRole.INPUT, OperandRole.OUTPUT}
    return [level for level in shared if isinstance(level, Memory) and kept <= level.holds]


def _op_bytes(op: Op, graph: Graph, bits: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """(tensor, read bytes, write bytes) of one op."""

    def size(key: str, elements: float) -> float:
        return ceil(elements * bits[key] * graph.tensors[key].density / 8)

    if isinstance(op, CollectiveOp):
        return []  # what a chip sends and receives binds the link; it may come from and go to any memory
    if isinstance(op, MovementOp):
        scale = {key: bits[key] / graph.tensors[key].bits for key in (*op.read_bytes, *op.write_bytes)}
        reads = [(key, n * scale[key], 0.0) for key, n in op.read_bytes.items()]
        return reads + [(key, 0.0, n * scale[key]) for key, n in op.write_bytes.items()]
    rows: list[tuple[str, float, float]] = []
    counted: set[str] = set()
    if isinstance(op, EinsumOp):
        for operand in op.einsum.operands:
            n = size(operand.tensor, touched_elements(op.einsum, operand.role))
            write = operand.role is OperandRole.OUTPUT
            rows.append((operand.tensor, 0.0 if write else n, n if write else 0.0))
            counted.add(operand.tensor)
    elements = {key: graph.tensors[key].elements for key in (*op.inputs, *op.outputs)}
    rows += [(key, size(key, elements[key]), 0.0) for key in dict.fromkeys(op.inputs) if key not in counted]
    rows += [(key, 0.0, size(key, elements[key])) for key in dict.fromkeys(op.outputs) if key not in counted]
    return rows
