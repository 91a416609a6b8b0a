"""Even mappings over one border as choices: what may be chosen, and how a choice becomes a nest."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, permutations, product
from math import prod

import numpy as np

from sim.mapping.blocks import Blocks, blocks
from sim.mapping.bound import Bounds, gathered
from sim.mapping.machine import Machine
from sim.mapping.mapping import Loop, Store
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.nest import Border, Nest, StoreAt, spread
from sim.mapping.problem import ROLES, Family, Problem
from sim.mapping.terms import AXIS, CLASSES, Grid, Numbers, Route, Terms
from sim.workload.graph import Einsum, OperandRole


@dataclass(frozen=True, slots=True)
class Choice:
    """One mapping over one memory's borders: order, tiles, instances, where each operand is stored."""

    order: tuple[str, ...]
    tiles: tuple[int, ...]
    """Of the ranks in `order`."""
    parts: tuple[tuple[str, int, int], ...] = ()
    """(rank, instances, level whose fan-out is used)"""
    depths: tuple[int, ...] = ()
    """Loops outside the store of each stored operand, in the order of ROLES; empty: all of them (even)."""

    @property
    def shape(self) -> tuple:
        """Equal for choices that differ in their tiles only."""
        return (self.order, self.parts, self.depths)


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


def needs_rates(machine: Machine, homes: Mapping[OperandRole, int]) -> bool:
    """Whether steps of the outermost border cannot be costed before the rates are known: another
    memory lies inside, or instances of the memory each have several arrays."""
    found = routes(machine, homes)
    return len(found) > 1 or (len(found) == 1 and machine.levels[found[0][0]].fanout > 1 and machine.array.fanout > 1)


def innermost(machine: Machine, homes: Mapping[OperandRole, int]) -> dict[OperandRole, int]:
    """Level from which the array takes each operand."""
    at = dict(homes)
    for level, roles, _ in routes(machine, homes):
        at |= dict.fromkeys(roles, level)
    return at


def fixed_class(machine: Machine) -> str:
    """Class of ranks whose loop is innermost over every border under `fixed_dataflow`.

    The array's dataflow goes on outside the array: what the array holds stays as long as it can.
    Output stationary: reduction ranks (K) innermost; weight stationary and row stationary (a filter
    row stays): M; input stationary: N. A border is in the space when its innermost loop is of that
    class, or when no rank of that class is walked over it (no loop at all included). Orders of the
    other loops, and all tiles, are free.
    """
    return {"output_stationary": "K", "weight_stationary": "M", "input_stationary": "N", "row_stationary": "M"}[
        machine.array.dataflow
    ]


PIECES = 8
"""Parts in which each list of candidates is cut to bound them together."""
FEW = 8
"""Instances of which any number may take parts, so that one more never takes a way away."""
SIDES = (*range(2, 9), 12, 16, 24, 32, 48, 64)
"""Parts of the rank that has fewer, where more instances share two."""


def split_options(machine: Machine, problem: Problem, level: int, reduced: bool = True) -> Iterator[dict[str, int]]:
    """Ways to hand one or two ranks to the instances inside `level` (none is a way); some may be left idle.

    Instances of a memory take ranks of the output, arrays that share what they are fed from reduced ranks too if
    `reduced` says so. More than `FEW` instances all take parts of a rank, or as many as can of two: one in `SIDES`
    parts, the other in what that leaves (a x b <= n means b <= n // a: one with no fewer parts is there at n + 1). Up
    to twice `FEW` of them the ways that fewer have stay too.
    """
    beside = level == len(machine.levels)
    count = machine.array.fanout if beside else machine.levels[level].fanout
    yield {}
    extent = problem.einsum.ranks
    ranks = [r for r in problem.tiled_ranks if extent[r] > 1 and ((beside and reduced) or r not in problem.reduction)]
    few = range(2, min(FEW, count) + 1) if count <= 2 * FEW else ()
    for rank in ranks if count > 1 else ():
        most = int(extent[rank])
        yield from ({rank: parts} for parts in sorted({min(parts, most) for parts in (*few, count)}))
    sides = [a for a in SIDES if a * a <= count] if count > FEW else []
    pairs = [(a, b) for a in few for b in few if a * b <= min(FEW, count)]
    pairs += [pair for a in sides for pair in ((a, count // a), (count // a, a))]
    for one, two in combinations(ranks, 2):
        clipped = {(min(a, int(extent[one])), min(b, int(extent[two]))) for a, b in pairs}
        yield from ({one: a, two: b} for a, b in sorted(clipped))


class SingleBorder:
    """Even mappings of a machine with one memory (at most) between the homes and the array."""

    def __init__(
        self,
        problem: Problem,
        machine: Machine,
        homes: Mapping[OperandRole, int],
        fixed: bool = False,
        rated: bool = False,
    ) -> None:
        """`fixed`: only loop orders of the array's dataflow (see `fixed_class`); `rated`: costs may need
        rates, so that instances of the memory and arrays beside each may be used together."""
        self.problem, self.machine, self.homes = problem, machine, dict(homes)
        self.fixed = fixed_class(machine) if fixed else None
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
        self.at = dict.fromkeys(stored, level)
        """Memory of each operand that is stored."""
        self.options = self._options(rated)

    @property
    def kind(self) -> Hashable:
        """Equal for spaces whose mappings may be costed together: they differ in the problems' numbers only."""
        route, machine = self.route, self.machine
        at, parent, innermost = (
            tuple(sorted(d.items())) for d in (self.at, route.parent, route.innermost)
        )  # (stored operands are those of `at`)
        widths = (self.problem.form, self.problem.accumulate_bits)
        return (*widths, machine.levels, machine.ports, machine.array, route.level, route.copies, at, parent, innermost)

    def _options(self, rated: bool) -> list[tuple[tuple[str, int, int], ...]]:
        """Combined ways to use the fan-out at the memory and the one at the array."""
        inside = len(self.machine.levels)
        levels = [self.route.level] if self.route.stored else []
        levels += [inside] if self.last else []
        ways = [
            [tuple((r, n, level) for r, n in way.items()) for way in split_options(self.machine, self.problem, level)]
            for level in levels
        ]
        # Without rates one fan-out at a time: the border of the arrays would lie inside the memory's.
        return [sum(c, ()) for c in product(*ways) if rated or sum(map(bool, c)) <= 1]

    @cached_property
    def grids(self) -> list[tuple[tuple[tuple[str, int, int], ...], Grid]]:
        """(way to use the fan-outs, its candidates)"""
        found = []
        for option in self.options:
            parts = {rank: count for rank, count, level in option if level == self.route.level}
            arrays = {rank: count for rank, count, level in option if level != self.route.level}
            instances = prod(parts.values())
            found.append((option, Grid(self.problem, self.machine, self.route, parts, instances, arrays)))
        return found

    @property
    def candidates(self) -> int:
        return sum(grid.tilings for _, grid in self.grids)

    def nests(self, choices: Sequence[Choice]) -> Iterator[tuple[np.ndarray, Nest]]:
        """(positions, nest) of choices of one order and one option at a time."""
        groups: dict[tuple, list[int]] = {}
        for position, choice in enumerate(choices):
            groups.setdefault(choice.shape, []).append(position)
        for members in groups.values():
            first = choices[members[0]]
            tiles = np.array([choices[i].tiles for i in members]).reshape(len(members), len(first.order))
            borders, tables = self.borders(first, tiles)
            yield np.array(members), Nest(tuple(borders), tuple(tables), dict(self.route.innermost))

    def stores(self, depths: tuple[int, ...], loops: int) -> list[tuple[int, tuple[StoreAt, ...]]]:
        """(loops outside, stores) from the outside in; always an entry at the innermost depth."""
        route = self.route
        double = route.copies == 2
        stored = [r for r in ROLES if r in route.stored]
        at: dict[int, list[StoreAt]] = {}
        for role, depth in zip(stored, depths or (loops,) * len(stored), strict=True):
            at.setdefault(depth, []).append(StoreAt(self.at[role], route.parent[role], role, double))
        at.setdefault(loops, [])
        return [(depth, tuple(at[depth])) for depth in sorted(at)]

    def borders(
        self, choice: Choice, tiles: np.ndarray, job: Mapping[str, np.ndarray] | None = None
    ) -> tuple[list[Border], list[dict[str, np.ndarray]]]:
        """Borders and tiles of choices of one shape; tiles (choices, ranks in order).

        `job`: rank extents (choices,) of what is cut, the space's problem if not given. Instances of
        the memory take their parts of the tile right before the first store.
        """
        route, inside, order = self.route, len(self.machine.levels), choice.order
        cut: dict[str, np.ndarray] = {rank: tiles[:, i] for i, rank in enumerate(order)}
        whole = {r: np.full(len(tiles), int(self.problem.einsum.ranks[r])) for r in self.problem.ranks}
        extent = {**whole, **(job or {}), **cut}
        spatial: dict[str, np.ndarray] = {}
        for rank, count, level in choice.parts:
            if level != inside:
                extent[rank] = spatial[spread(rank)] = -(-extent[rank] // count)
        at_memory = tuple(rank for rank, _, level in choice.parts if level != inside)
        borders: list[Border] = []
        tables: list[dict[str, np.ndarray]] = []
        start = 0
        for depth, stores in self.stores(choice.depths, len(order)):
            loops = order[start:depth]
            split = at_memory if not borders else ()
            borders.append(Border(loops, split, stores, route.level if split else None))
            tables.append({rank: cut[rank] for rank in loops} | ({} if len(borders) > 1 else spatial))
            start = depth
        at_array = [(rank, count) for rank, count, level in choice.parts if level == inside]
        if at_array:
            arrays = tuple(rank for rank, _ in at_array)
            cuts = {spread(rank): -(-extent[rank] // count) for rank, count in at_array}
            if at_memory:
                borders.append(Border(spatial=arrays, fanout=inside))
                tables.append(cuts)
            else:  # the arrays share out each tile job: no border of their own, so that costs need no rates
                borders[-1] = replace(borders[-1], spatial=arrays, fanout=inside)
                tables[-1] = tables[-1] | cuts
        return borders, tables

    def allows(self, choice: Choice) -> bool:
        """Whether the order of loops is in the space (see `fixed_class`)."""
        letters = [self.problem.rank_class[r] for r in choice.order]
        return self.fixed is None or self.fixed not in letters or letters[-1] == self.fixed

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
        nodes: list[Loop | Store] = []
        extent = {r: int(self.problem.einsum.ranks[r]) for r in self.problem.ranks} | dict(
            zip(choice.order, choice.tiles, strict=True)
        )
        inside, levels = len(self.machine.levels), self.machine.levels

        def split(at: bool) -> None:
            for rank, count, level in choice.parts:
                if (level == inside) is at:
                    name = self.machine.array.fanout_name if at else self.machine.levels[level].fanout_name
                    extent[rank] = -(-extent[rank] // count)
                    nodes.append(Loop(rank=rank, tile=extent[rank], fanout=name))

        start = 0
        for position, (depth, stores) in enumerate(self.stores(choice.depths, len(choice.order))):
            walked = zip(choice.order[start:depth], choice.tiles[start:depth], strict=True)
            nodes += [Loop(rank=r, tile=t) for r, t in walked]
            if not position:
                split(at=False)
            before = (None, *(s.level for s in stores))
            nodes += [
                Store(
                    memory=levels[s.level].name,
                    operand=s.role,
                    double_buffered=s.double_buffered,
                    beside=last not in (None, s.level),
                )
                for s, last in zip(stores, before, strict=False)
            ]
            start = depth
        split(at=True)
        return LoopNest(nodes=tuple(nodes))


class SideBySide(SingleBorder):
    """One border over several memories, each of which holds operands of its own (see `side_by_side`)."""

    def __init__(self, problem: Problem, machine: Machine, homes: Mapping[OperandRole, int]) -> None:
        super().__init__(problem, machine, homes)
        found = routes(machine, homes)
        self.at = {role: level for level, roles, _ in found for role in roles}
        parents = {role: parent for _, _, ways in found for role, parent in ways.items()}
        self.route = replace(self.route, parent=parents, stored=frozenset(self.at))
        self.last = True
        self.options = self._options(rated=True)


def side_by_side(machine: Machine, homes: Mapping[OperandRole, int]) -> bool:
    """Whether several memories lie side by side: no operand passes from one to another, all buffer
    alike, and none inside the first has instances of its own."""
    found = routes(machine, homes)
    roles = [role for _, stored, _ in found for role in stored]
    alike = len({machine.levels[level].double_buffered for level, _, _ in found}) == 1
    single = all(machine.levels[level].fanout == 1 for level, _, _ in found[1:])
    return len(found) > 1 and len(roles) == len(set(roles)) and alike and single


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
    """The candidates of spaces of one kind, one space after the other: their bounds, footprints, and the choices that
    they stand for."""

    def __init__(self, *spaces: SingleBorder) -> None:
        self.spaces = spaces
        self.family = Family(tuple(space.problem for space in spaces))
        owned = [(space, option, grid) for space in spaces for option, grid in space.grids]
        self.space_of = [space for space, _, _ in owned]
        """Of each grid."""
        self.grids = [(option, grid) for _, option, grid in owned]
        self.options = list(dict.fromkeys(option for option, _ in self.grids))
        self.option_of = np.array([self.options.index(option) for option, _ in self.grids])
        """Of each grid."""
        self.starts = np.cumsum([0] + [grid.tilings for _, grid in self.grids])
        self.space_of_grid = np.repeat(np.arange(len(spaces)), [len(space.grids) for space in spaces])
        """The number of each grid's space."""
        first = np.searchsorted(self.space_of_grid, np.arange(len(spaces)))
        self.space_starts = np.append(self.starts[first], self.starts[-1])
        """Where the candidates of each space begin."""
        self.bounds = Bounds([grid for _, grid in self.grids])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def footprint(self) -> np.ndarray:
        """Bytes that each candidate needs."""
        terms = [Terms(grid, grid.problem) for _, grid in self.grids]
        return np.concatenate([one.flat(one.footprint_bytes()) for one in terms])

    @cached_property
    def blocks(self) -> Blocks:
        """The candidates in blocks."""
        return blocks(self.bounds, PIECES)

    def footprints(self, positions: np.ndarray) -> np.ndarray:
        """Bytes that some candidates need."""
        return gathered(list(self.bounds.of_grids(positions)), Terms.footprint_bytes)

    def need_bytes(self, space: int) -> float:
        """The least bytes that a candidate of a space needs."""
        grids = [grid for _, grid in self.spaces[space].grids]
        return min(float(Terms(grid, grid.problem).footprint_bytes().min()) for grid in grids)

    def times(self, numbers: Numbers) -> np.ndarray:
        """Bounds in cycles, (D, candidates)."""
        parts = self.bounds.everywhere()
        designs = zip(numbers.rates, numbers.setup.tolist(), numbers.latency.tolist(), strict=True)
        return np.stack([parts.time((1.0 / rates).tolist(), *pauses) for rates, *pauses in designs])

    def weight_tile_bytes(self, positions: np.ndarray) -> np.ndarray:
        """Bytes of the first weight tile of an instance of candidates, (n,); 0 where weights pass by."""
        return gathered(list(self.bounds.of_grids(positions)), Terms.weight_tile_bytes)

    def class_times(self, numbers: Numbers, positions: np.ndarray) -> np.ndarray:
        """Bounds per innermost class of single candidates, each on a design of its own: (4, n)."""
        out = self.bounds.class_times(numbers, positions)
        fixed = self.spaces[0].fixed
        if fixed is not None:
            walked = self.bounds.walked(fixed, positions)
            others = [a for a in range(len(CLASSES)) if a != AXIS[fixed]]
            out[np.ix_(np.array(others), walked)] = np.inf
        return out

    def space(self, positions: np.ndarray) -> np.ndarray:
        """Number of the space that each candidate belongs to."""
        return np.searchsorted(self.space_starts, positions, side="right") - 1

    def grid_of(self, positions: np.ndarray) -> np.ndarray:
        """Number of the grid that each candidate belongs to."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def choices(self, position: int, axis: int | None = None) -> list[Choice]:
        """The loop orders of a candidate that its space has, of one innermost class or of all."""
        number = int(self.grid_of(np.array([position]))[0])
        option, grid = self.grids[number]
        local = position - int(self.starts[number])
        axes = range(len(CLASSES)) if axis is None else (axis,)
        found = dict.fromkeys(choice for a in axes for choice in expand(grid, local, a, option))
        return [choice for choice in found if self.space_of[number].allows(choice)]
