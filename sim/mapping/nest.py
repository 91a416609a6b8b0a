"""From a Mapping to borders: what loops, what is stored after them, checked against the machine.

A *border* is a run of temporal loops, then spatial loops, then the stores that their iterations
fill. The array comes after the last border. A rank that occurs twice in a run starts a new border
without stores, so that within one border each rank has one loop; another fan-out does, so that it has one.
A store in another memory starts one too (its tile comes when the tile outside has arrived), unless it says
that it lies `beside`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.errors import InfeasibleError, MappingError, nearest
from sim.mapping.machine import Machine
from sim.mapping.mapping import Loop, Mapping, Store
from sim.mapping.problem import OUTPUT, ROLES, Problem
from sim.workload.graph import OperandRole


@dataclass(frozen=True, slots=True)
class StoreAt:
    """An operand's tile in a memory, and where it is filled from."""

    level: int
    parent: int
    role: OperandRole
    double_buffered: bool


@dataclass(frozen=True, slots=True)
class Border:
    """loops and spatial are rank names; `fanout` is the level whose instances the spatial loops use
    (len(levels) for arrays below the innermost memory). Loops stand from the outside in, unless
    `order` gives each candidate an order of its own."""

    loops: tuple[str, ...] = ()
    spatial: tuple[str, ...] = ()
    stores: tuple[StoreAt, ...] = ()
    fanout: int | None = None
    order: np.ndarray | None = None
    """(candidates, loops): place of each loop from the outside in"""


@dataclass(frozen=True, slots=True)
class Nest:
    """Borders and the tile of every loop, arrays over candidates: `tiles[border][rank]` for temporal
    loops, `tiles[border][spread(rank)]` for spatial ones."""

    borders: tuple[Border, ...]
    tiles: tuple[dict[str, np.ndarray], ...]
    innermost: dict[OperandRole, int]
    """Level that the array reads or writes for each operand."""


def spread(rank: str) -> str:
    """Key of a spatial loop's tile: a rank may be walked and then spread in the same border."""
    return f"{rank}/"


def nest(mapping: Mapping, problem: Problem, machine: Machine, homes: dict[OperandRole, int]) -> Nest:
    """Borders of one mapping (tiles are arrays of length 1).

    Raises: MappingError: unknown rank, memory or fan-out; a memory that does not hold the operand;
        a tile larger than what it cuts; a store inside its home; too many instances.
    """
    builder = _Builder(problem, machine, homes)
    for position, node in enumerate(mapping.nodes):
        builder.add(node, f"mapping node {position}")
    return builder.finish()


class _Builder:
    def __init__(self, problem: Problem, machine: Machine, homes: dict[OperandRole, int]) -> None:
        self.problem, self.machine = problem, machine
        self.current = dict(zip(problem.ranks, problem.sizes.tolist(), strict=True))
        self.at = dict(homes)
        self.borders: list[Border] = []
        self.tiles: list[dict[str, np.ndarray]] = []
        self.instances: dict[int, int] = {}
        """Level -> instances of its fan-out that the loops so far use: borders split what others left."""
        self._open()

    def _open(self) -> None:
        self.loops: list[str] = []
        self.spatial: list[str] = []
        self.stores: list[StoreAt] = []
        self.cuts: dict[str, np.ndarray] = {}
        self.fanout: int | None = None

    def _close(self) -> None:
        if self.loops or self.spatial or self.stores:
            self.borders.append(Border(tuple(self.loops), tuple(self.spatial), tuple(self.stores), self.fanout))
            self.tiles.append(self.cuts)
        self._open()

    def add(self, node: Loop | Store, where: str) -> None:
        if isinstance(node, Store):
            self._store(node, where)
        else:
            self._loop(node, where)

    def _loop(self, node: Loop, where: str) -> None:
        if node.rank not in self.current:
            raise MappingError(
                f'{where}: rank "{node.rank}" is not in the einsum, which has {", ".join(self.current)}.'
                f"{nearest(node.rank, self.current)}"
            )
        if node.tile > self.current[node.rank]:
            raise MappingError(
                f"{where}: tile {node.tile} of rank {node.rank} exceeds the {self.current[node.rank]} that it cuts"
            )
        key = spread(node.rank) if node.spatial else node.rank
        level, count = self._fanout(str(node.fanout), where) if node.spatial else (None, 1)
        if self.stores or key in self.cuts or (self.spatial and level != self.fanout):
            self._close()
        if level is not None:
            self._split(node, level, count, where)
            self.spatial.append(node.rank)
        else:
            self.loops.append(node.rank)
        self.cuts[key] = np.array([node.tile])
        self.current[node.rank] = node.tile

    def _split(self, node: Loop, level: int, count: int, where: str) -> None:
        if node.rank in self.problem.reduction and level < len(self.machine.levels):
            raise MappingError(
                f"{where}: rank {node.rank} is reduced; splitting it over {node.fanout} is not supported: "
                f"each of them has a {self.machine.levels[level].name} of its own"
            )
        self.fanout = level
        used = self.instances.get(level, 1) * -(-self.current[node.rank] // node.tile)
        if used > count:
            raise MappingError(f"{where}: {used} instances of {node.fanout} are needed, the chip has {count}")
        self.instances[level] = used

    def _fanout(self, name: str, where: str) -> tuple[int, int]:
        machine = self.machine
        names = {level.fanout_name: (i, level.fanout) for i, level in enumerate(machine.levels) if level.fanout_name}
        if machine.array.fanout_name:
            names[machine.array.fanout_name] = (len(machine.levels), machine.array.fanout)
        if name not in names:
            raise MappingError(f'{where}: no fan-out "{name}"; the unit has {", ".join(map(str, names)) or "none"}')
        return names[name]

    def _store(self, node: Store, where: str) -> None:
        names = [level.name for level in self.machine.levels]
        if node.memory not in names:
            raise MappingError(
                f'{where}: no memory "{node.memory}"; the unit has {", ".join(names)}.{nearest(node.memory, names)}'
            )
        level = names.index(node.memory)
        if node.operand not in self.machine.levels[level].holds:
            raise MappingError(f"{where}: {node.memory} does not hold {node.operand.value}")
        if level <= self.at[node.operand]:
            raise MappingError(
                f"{where}: {node.operand.value} already lies in {names[self.at[node.operand]]}, "
                f"which is not outside {node.memory}"
            )
        inside = any(s.role is node.operand for s in self.stores)
        if inside and node.beside:
            raise MappingError(
                f"{where}: {node.operand.value} comes from {names[self.at[node.operand]]}, whose tile moves in the "
                "same step; drop `beside`"
            )
        if inside or (self.stores and self.stores[-1].level != level and not node.beside):
            self._close()
        if node.operand is OUTPUT and any(self._shared(border) for border in self.borders):
            raise MappingError(
                f"{where}: {self.machine.array.fanout_name} share a reduction; the output that they add to lies outside"
            )
        self.stores.append(StoreAt(level, self.at[node.operand], node.operand, node.double_buffered))
        self.at[node.operand] = level

    def _shared(self, border: Border) -> bool:
        """Whether arrays beside each other share a reduction inside the border."""
        return border.fanout == len(self.machine.levels) and not self.problem.reduction.isdisjoint(border.spatial)

    def finish(self) -> Nest:
        self._close()
        self._check_fanouts()
        if not self.borders:  # everything lies at its innermost home: the array job is the only step
            self.borders.append(Border())
            self.tiles.append({})
        return Nest(tuple(self.borders), tuple(self.tiles), dict(self.at))

    def _check_fanouts(self) -> None:
        """Raises: MappingError: a memory inside a fan-out is filled outside its loops, or one outside within them."""
        deepest, split = 0, 0
        for border in self.borders:
            if border.fanout is not None:
                if deepest >= border.fanout:
                    raise MappingError(
                        f"mapping: loops over {self._fanout_name(border.fanout)} stand inside a store in "
                        f"{self.machine.levels[deepest].name}, of which each of them has one of its own; put them "
                        "outside its stores"
                    )
                split = max(split, border.fanout)
            for store in border.stores:
                if store.level < split:
                    raise MappingError(
                        f"mapping: {store.role.value} is stored in {self.machine.levels[store.level].name} inside "
                        f"loops over {self._fanout_name(split)}, which share it; put its store outside them"
                    )
                deepest = max(deepest, store.level)

    def _fanout_name(self, level: int) -> str:
        levels = self.machine.levels
        return str(levels[level].fanout_name if level < len(levels) else self.machine.array.fanout_name)


def footprint_bytes(nest: Nest, problem: Problem, machine: Machine) -> dict[int, dict[OperandRole, np.ndarray]]:
    """Bytes that each store occupies, second copies included: level -> operand -> bytes.

    A partial sum occupies its accumulator width: an output store holds one where a reduction loop
    stands anywhere outside the next output store inward (outside the array for the innermost, which
    arrays that share a reduction write more than once too). A
    store without a second tile over its parent (one trip in every loop outside) still reserves both
    halves of a double buffer.
    """
    sizes = {r: np.array([n]) for r, n in zip(problem.ranks, problem.sizes.tolist(), strict=True)}
    found: dict[int, dict[OperandRole, np.ndarray]] = {}
    partial, shared = np.array([False]), np.array([False])
    sums: list[tuple[StoreAt, np.ndarray, np.ndarray]] = []
    """Output stores from the outside in: elements, and whether they ever hold partial sums."""
    for border, tiles in zip(nest.borders, nest.tiles, strict=True):
        for rank in border.loops:
            partial = partial | ((rank in problem.reduction) & (tiles[rank] < sizes[rank]))
            sizes[rank] = np.minimum(tiles[rank], sizes[rank])
        for rank in border.spatial:
            part = np.minimum(tiles[spread(rank)], sizes[rank])
            if border.fanout == len(machine.levels):  # arrays share what is stored
                shared = shared | ((rank in problem.reduction) & (part < sizes[rank]))
            else:
                sizes[rank] = part
        if sums and any(s.role is OUTPUT for s in border.stores):
            sums[-1] = (*sums[-1][:2], partial)
        for store in border.stores:
            elements = problem.elements(store.role, sizes)
            if store.role is OUTPUT:
                sums.append((store, elements, partial))
            else:
                moved = elements * problem.bits[store.role] * (2 if store.double_buffered else 1) / 8
                found.setdefault(store.level, {})[store.role] = moved
    if sums:
        sums[-1] = (*sums[-1][:2], partial | shared | accumulates_outside(problem, machine, sizes))
    for store, elements, wide in sums:
        width = np.where(wide, problem.accumulate_bits, problem.bits[OUTPUT])
        found.setdefault(store.level, {})[OUTPUT] = elements * width * (2 if store.double_buffered else 1) / 8
    return found


def accumulates_outside(problem: Problem, machine: Machine, sizes: dict[str, np.ndarray]) -> np.ndarray:
    """Whether the array writes partial sums of one tile job more than once (K folds on its rows)."""
    if machine.array.dataflow in ("output_stationary", "row_stationary"):
        return np.zeros(1, dtype=bool)
    depth: np.ndarray = np.ones(1)
    for rank in problem.in_class("K"):
        depth = depth * sizes[rank]
    return np.ceil(depth / problem.reduction_speedup) > machine.array.rows


def check_stores(nest: Nest, machine: Machine, homes: dict[OperandRole, int]) -> None:
    """Raises: MappingError: an operand leaves out a memory that holds it (what passes by is a matter of `holds`)."""
    stored = {(store.level, store.role) for border in nest.borders for store in border.stores}
    for index, level in enumerate(machine.levels):
        for role in ROLES:
            if role in level.holds and homes[role] < index and (index, role) not in stored:
                raise MappingError(
                    f"no store of {role.value} in {level.name}, which holds it: an operand passes every memory that "
                    f"holds it on its way to the array; add {{store: {role.value}, memory: {level.name}}}, or leave "
                    f"{role.value} out of `holds` of {level.name} in the chip file (a mapping that was found where all "
                    f"of the {role.value} stays there has none: then {level.name} is too small for it here)"
                )


def check_capacity(nest: Nest, problem: Problem, machine: Machine, reserved_bytes: np.ndarray | float = 0.0) -> None:
    """Raises: InfeasibleError: a memory overflows; lists its tiles and by how much."""
    for level, operands in footprint_bytes(nest, problem, machine).items():
        need = float(sum(float(np.max(b)) for b in operands.values()))
        room = float(np.min(machine.capacity_bytes[:, level] - np.asarray(reserved_bytes)))
        if need > room:
            parts = ", ".join(f"{role.value} {float(np.max(operands[role])):.0f}" for role in ROLES if role in operands)
            raise InfeasibleError(
                f"mapping needs {need:.0f} bytes in {machine.levels[level].name}, capacity {room:.0f} "
                f"(over by {need / max(room, 1) - 1:.0%}): {parts} (second copies included); use smaller tiles"
            )
