"""Even mappings over one border as choices: what may be chosen, and how a choice becomes a nest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from sim.mapping.bound import AXIS, CLASSES, Grid, Numbers, Route
from sim.mapping.machine import Machine
from sim.mapping.mapping import Loop, Store
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import Border, Nest, StoreAt, spread
from sim.mapping.problem import ROLES, Problem
from sim.workload.graph import Einsum, OperandRole


@dataclass(frozen=True, slots=True)
class Choice:
    """One even mapping over one border: order, tiles, instances."""

    order: tuple[str, ...]
    tiles: tuple[int, ...]
    """Of the ranks in `order`."""
    parts: tuple[tuple[str, int, int], ...] = ()
    """(rank, instances, level whose fan-out is used)"""


def routes(
    machine: Machine, homes: Mapping[OperandRole, int]
) -> list[tuple[int, frozenset[OperandRole], dict[OperandRole, int]]]:
    """(level, roles stored there, their parents) of every memory inside the homes."""
    at = dict(homes)
    found = []
    for index, level in enumerate(machine.levels):
        roles = frozenset(r for r in ROLES if r in level.holds and at[r] < index and index > 0)
        if roles:
            found.append((index, roles, {r: at[r] for r in roles}))
            at |= dict.fromkeys(roles, index)
    return found


def innermost(machine: Machine, homes: Mapping[OperandRole, int]) -> dict[OperandRole, int]:
    """Level from which the array takes each operand."""
    at = dict(homes)
    for level, roles, _ in routes(machine, homes):
        at |= dict.fromkeys(roles, level)
    return at


def split_options(machine: Machine, problem: Problem, level: int) -> Iterator[dict[str, int]]:
    """Ways to hand one or two output ranks to the instances inside `level` (none is a way)."""
    count = machine.array.fanout if level == len(machine.levels) else machine.levels[level].fanout
    yield {}
    if count == 1:
        return
    ranks = [r for r in problem.tiled_ranks if r not in problem.reduction]
    exhaustive = count <= 4
    for rank in ranks:
        extent = int(problem.einsum.ranks[rank])
        for parts in range(2, count + 1) if exhaustive else (count,):
            if parts <= extent or parts == count:
                yield {rank: min(parts, extent)}
    for one, two in permutations(ranks, 2):
        for a in range(2, count):
            if (exhaustive or count % a == 0) and a * 2 <= count:
                b = count // a
                if one < two or a != b:
                    yield {one: min(a, int(problem.einsum.ranks[one])), two: min(b, int(problem.einsum.ranks[two]))}


class SingleBorder:
    """Even mappings of a machine with one memory (at most) between the homes and the array."""

    def __init__(self, problem: Problem, machine: Machine, homes: Mapping[OperandRole, int]) -> None:
        self.problem, self.machine, self.homes = problem, machine, dict(homes)
        found = routes(machine, homes)
        self.last = len(found) < 2
        """Nothing but the array lies inside this border."""
        level, stored, parents = found[0] if found else (len(machine.levels) - 1, frozenset(), {})
        self.route = Route(
            level=level,
            parent=parents,
            stored=stored,
            innermost=innermost(machine, homes),
            copies=2 if machine.levels[level].double_buffered else 1,
        )
        self.options = self._options()

    def _options(self) -> list[tuple[tuple[str, int, int], ...]]:
        """Combined ways to use the fan-out at the memory and the one at the array."""
        inside = len(self.machine.levels)
        levels = [self.route.level] if self.route.stored else []
        levels += [inside] if self.last else []
        ways = [
            [tuple((r, n, level) for r, n in way.items()) for way in split_options(self.machine, self.problem, level)]
            for level in levels
        ]
        return [sum(combination, ()) for combination in product(*ways)]

    def grids(self) -> Iterator[tuple[tuple[tuple[str, int, int], ...], Grid]]:
        for option in self.options:
            parts: dict[str, int] = {}
            instances = 1
            for rank, count, level in option:
                parts[rank] = parts.get(rank, 1) * count
                instances *= count if level == self.route.level else 1
            yield option, Grid(self.problem, self.machine, self.route, parts, instances)

    def nests(self, choices: Sequence[Choice]) -> Iterator[tuple[np.ndarray, Nest]]:
        """(positions, nest) of choices of one order and one option at a time."""
        groups: dict[tuple, list[int]] = {}
        for position, choice in enumerate(choices):
            groups.setdefault((choice.order, choice.parts), []).append(position)
        for (order, parts), members in groups.items():
            tiles = np.array([choices[i].tiles for i in members]).reshape(len(members), len(order))
            borders, tables = self.borders(order, parts, tiles)
            yield np.array(members), Nest(tuple(borders), tuple(tables), self.route.innermost)

    def borders(
        self, order: tuple[str, ...], parts: tuple[tuple[str, int, int], ...], tiles: np.ndarray
    ) -> tuple[list[Border], list[dict[str, np.ndarray]]]:
        """Borders and tiles of choices that share order and parts; tiles (choices, ranks in order)."""
        route, inside = self.route, len(self.machine.levels)
        cut: dict[str, np.ndarray] = {rank: tiles[:, i] for i, rank in enumerate(order)}
        extent = {r: np.full(len(tiles), int(self.problem.einsum.ranks[r])) for r in self.problem.ranks} | cut
        stores = tuple(
            StoreAt(route.level, route.parent[r], r, self.machine.levels[route.level].double_buffered)
            for r in ROLES
            if r in route.stored
        )
        border_tiles = dict(cut)
        for rank, count, level in parts:
            if level != inside:
                extent[rank] = -(-extent[rank] // count)
                border_tiles[spread(rank)] = extent[rank]
        at_memory = tuple(rank for rank, _, level in parts if level != inside)
        borders = [Border(loops=order, spatial=at_memory, stores=stores, fanout=route.level if at_memory else None)]
        tables = [border_tiles]
        at_array = [(rank, count) for rank, count, level in parts if level == inside]
        if at_array:
            borders.append(Border(spatial=tuple(rank for rank, _ in at_array), fanout=inside))
            tables.append({spread(rank): -(-extent[rank] // count) for rank, count in at_array})
        return borders, tables

    def inside(self, choice: Choice) -> tuple[Problem, dict[OperandRole, int]]:
        """The problem of one whole tile job of a choice, and the homes that it finds."""
        extent = {r: int(n) for r, n in self.problem.einsum.ranks.items()} | dict(
            zip(choice.order, choice.tiles, strict=True)
        )
        for rank, count, _ in choice.parts:
            extent[rank] = -(-extent[rank] // count)
        einsum = Einsum(ranks=extent, operands=self.problem.einsum.operands)
        return replace(self.problem, einsum=einsum), self.homes | dict.fromkeys(self.route.stored, self.route.level)

    def mapping(self, choice: Choice) -> LoopNest:
        """The choice as a loop nest that a person can read and save."""
        nodes: list[Loop | Store] = [Loop(rank=r, tile=t) for r, t in zip(choice.order, choice.tiles, strict=True)]
        extent = {r: int(self.problem.einsum.ranks[r]) for r in self.problem.ranks} | dict(
            zip(choice.order, choice.tiles, strict=True)
        )
        inside = len(self.machine.levels)

        def split(at: bool) -> None:
            for rank, count, level in choice.parts:
                if (level == inside) is at:
                    name = self.machine.array.fanout_name if at else self.machine.levels[level].fanout_name
                    extent[rank] = -(-extent[rank] // count)
                    nodes.append(Loop(rank=rank, tile=extent[rank], fanout=name))

        split(at=False)
        memory = self.machine.levels[self.route.level]
        nodes += [
            Store(memory=memory.name, operand=r, double_buffered=memory.double_buffered)
            for r in ROLES
            if r in self.route.stored
        ]
        split(at=True)
        return LoopNest(nodes=tuple(nodes))


def expand(grid: Grid, number: int, axis: int, option: tuple[tuple[str, int, int], ...]) -> list[Choice]:
    """The loop orders of a candidate whose innermost loop is of the class of `axis` (any if none is walked)."""
    tiles = grid.tiling(number)
    extent = grid.problem.einsum.ranks
    walked = [r for r in grid.problem.tiled_ranks if tiles[r] < extent[r]]
    if not walked:
        return [Choice((), (), option)]
    inner = [r for r in walked if AXIS[grid.problem.rank_class[r]] == axis]
    orders = (order for order in permutations(walked) if order[-1] in inner)
    return [Choice(order, tuple(tiles[r] for r in order), option) for order in orders]


class Pool:
    """The candidates of a space: their bounds, footprints, and the choices that they stand for."""

    def __init__(self, space: SingleBorder) -> None:
        self.grids = list(space.grids())
        self.starts = np.cumsum([0] + [grid.tilings for _, grid in self.grids])
        self.footprint = np.concatenate([grid.footprint_bytes() for _, grid in self.grids])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def times(self, numbers: Numbers) -> np.ndarray:
        """Bounds in cycles, (D, candidates)."""
        return np.concatenate([grid.times(numbers) for _, grid in self.grids], axis=1)

    def energies(self, read: np.ndarray, write: np.ndarray) -> np.ndarray:
        """Dynamic memory energy (a lower bound of it) for J/byte per level."""
        return np.concatenate([grid.energies(read, write) for _, grid in self.grids])

    def class_times(self, numbers: Numbers, positions: np.ndarray) -> np.ndarray:
        """Bounds per innermost class of single candidates, each on a design of its own: (4, n)."""
        owner = np.searchsorted(self.starts, positions, side="right") - 1
        out = np.full((len(CLASSES), len(positions)), np.inf)
        for number, (_, grid) in enumerate(self.grids):
            members = np.flatnonzero(owner == number)
            if len(members):
                part = Numbers(numbers.rates[members], numbers.setup[members], numbers.latency[members])
                out[:, members] = grid.class_times(part, positions[members] - int(self.starts[number]))
        return out

    def choices(self, position: int, axis: int | None = None) -> list[Choice]:
        """The loop orders of a candidate, of one innermost class or of all."""
        number = int(np.searchsorted(self.starts, position, side="right")) - 1
        option, grid = self.grids[number]
        local = position - int(self.starts[number])
        if axis is not None:
            return expand(grid, local, axis, option)
        return list(dict.fromkeys(choice for a in range(len(CLASSES)) for choice in expand(grid, local, a, option)))
