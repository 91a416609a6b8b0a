"""Exact step tables of candidates, made once per candidate whatever the number of designs.

A *key* names a tiling of a search and the class of its innermost loop (4 x position + class); its rows
are the loop orders that end in that class. Rows of many tilings, orders and searches share one table.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

import numpy as np

from sim.mapping.evaluate import Cost, Rows, StepTable, step_table
from sim.mapping.nest import Nest
from sim.mapping.problem import Stack
from sim.mapping.search import Choice, Pool
from sim.mapping.steps import join
from sim.mapping.terms import CLASSES

CLASS_COUNT = len(CLASSES)
ROWS_AT_ONCE = 1024
"""Rows of one table at about most, so that their steps stay in the cache."""
PAIRS_AT_ONCE = 2048
"""Rows on designs costed at a time, so that their arrays stay in the cache."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Tilings (keys, walked ranks) of one grid of a search that walk the same ranks, and their loop orders."""

    owner: Settled
    grid: int
    ranks: tuple[str, ...]
    orders: tuple[tuple[str, ...], ...]
    keys: np.ndarray
    tiles: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.keys) * len(self.orders)

    @property
    def option(self) -> tuple[tuple[str, int, int], ...]:
        return self.owner.pool.grids[self.grid][0]

    def cut(self) -> Iterator[_Group]:
        """Parts of at most about `ROWS_AT_ONCE` rows."""
        step = max(1, ROWS_AT_ONCE // len(self.orders))
        for start in range(0, len(self.keys), step):
            part = slice(start, start + step)
            yield replace(self, keys=self.keys[part], tiles=self.tiles[part])

    def table(self, ranks: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(tiles, places of the loops from the outside in) of the rows for loops over these ranks."""
        whole = self.owner.space.problem.einsum.ranks
        tile = np.tile(np.array([whole[r] for r in ranks], dtype=np.int64), (len(self.keys), 1))
        tile[:, [ranks.index(r) for r in self.ranks]] = self.tiles
        # Where a loop of one trip stands makes no difference.
        place = [[o.index(r) if r in o else 0 for r in ranks] for o in self.orders]
        order = np.array(place, dtype=np.int64).reshape(len(place), len(ranks))
        return np.repeat(tile, len(place), axis=0), np.tile(order, (len(self.keys), 1))

    def choice(self, row: int) -> Choice:
        key, order = divmod(row, len(self.orders))
        tile = dict(zip(self.ranks, self.tiles[key].tolist(), strict=True))
        return Choice(self.orders[order], tuple(tile[r] for r in self.orders[order]), self.option)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows of keys: entry i is row `row[i]` of table `table[i]`, the `order[i]`-th of key number `key[i]`."""

    key: np.ndarray
    table: np.ndarray
    row: np.ndarray
    order: np.ndarray

    def take(self, chosen: np.ndarray) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.key[chosen], self.table[chosen], self.row[chosen], self.order[chosen])


class Tables:
    """Step tables that searches share."""

    def __init__(self) -> None:
        self.made: list[StepTable] = []
        self.groups: list[tuple[list[int], list[_Group]]] = []
        """Per table: first rows of its groups, and the groups."""

    def add(self, wanted: Iterable[tuple[Settled, np.ndarray]]) -> None:
        """Make the rows of keys (sorted, once each) that their searches do not know yet."""
        like: dict[Hashable, list[_Group]] = {}
        for settled, keys in wanted:
            for group in settled.fresh(keys):
                like.setdefault((settled.kind, group.option), []).append(group)
        for groups in like.values():
            for some in _packed(groups):
                self._make(some)

    def _make(self, groups: list[_Group]) -> None:
        """One table for groups of one kind."""
        starts = np.cumsum([0] + [group.rows for group in groups]).tolist()
        for start, group in zip(starts, groups, strict=False):
            group.owner.settle(group.keys, len(self.made), start, len(group.orders))
        self.groups.append((starts[:-1], groups))
        self.made.append(_table(groups))

    def choice(self, table: int, row: int) -> Choice:
        """The mapping that a row stands for."""
        starts, groups = self.groups[table]
        number = bisect_right(starts, row) - 1
        return groups[number].choice(row - starts[number])

    def times(self, wanted: Sequence[Rated]) -> list[np.ndarray]:
        """Cycles of the rows of each, latency left out."""
        out = [np.empty(len(one.row)) for one in wanted]
        for table, some, places in self._by_table(wanted):
            for at, values in zip(places, np.split(some.times(table), _ends(places)), strict=True):
                out[at.owner][at.members] = values
        return out

    def costs(self, wanted: Sequence[Rated]) -> list[Cost]:
        """Full costs of the rows of each, latency left out."""
        out: list[list[tuple[np.ndarray, Cost]]] = [[] for _ in wanted]
        for table, some, places in self._by_table(wanted):
            cost = table.take(some.row).cost(some.rates, some.setup)
            for at, rows in zip(places, np.split(np.arange(len(some.row)), _ends(places)), strict=True):
                out[at.owner].append((at.members, cost.take(rows)))
        return [_in_order(parts) for parts in out]

    def _by_table(self, wanted: Sequence[Rated]) -> Iterator[tuple[StepTable, Rated, list[_Place]]]:
        """(table, all rows of it that are wanted, whose they are)."""
        places: dict[int, list[_Place]] = {}
        for owner, one in enumerate(wanted):
            for table in np.flatnonzero(np.bincount(one.table)).tolist():
                places.setdefault(table, []).append(_Place(owner, np.flatnonzero(one.table == table)))
        for table, listed in places.items():
            parts = [wanted[at.owner].take(at.members) for at in listed]
            yield self.made[table], Rated(*(np.concatenate(same) for same in zip(*parts, strict=True))), listed


class Rated(NamedTuple):
    """Rows of tables, each on rates (rows, ports) and a set-up of its own."""

    table: np.ndarray
    row: np.ndarray
    rates: np.ndarray
    setup: np.ndarray

    def take(self, members: np.ndarray) -> Rated:
        return Rated(*(values[members] for values in self))

    def times(self, table: StepTable) -> np.ndarray:
        """Cycles of the rows of one table, a part at a time."""
        cuts = range(PAIRS_AT_ONCE, len(self.row), PAIRS_AT_ONCE)
        parts = zip(*(np.split(values, cuts) for values in (self.row, self.rates, self.setup)), strict=True)
        return np.concatenate([table.times(*part) for part in parts])


class Keys(NamedTuple):
    """Asks for the rows of keys (sorted, once each); answered by nothing."""

    keys: np.ndarray


class Times(NamedTuple):
    """Asks for cycles (rows,)."""

    rows: Rated


class Costs(NamedTuple):
    """Asks for full costs."""

    rows: Rated


class _Place(NamedTuple):
    owner: int
    members: np.ndarray


def _ends(places: Sequence[_Place]) -> list[int]:
    return np.cumsum([len(at.members) for at in places])[:-1].tolist()


def _in_order(parts: Sequence[tuple[np.ndarray, Cost]]) -> Cost:
    """Costs of members as one batch, in the order of the members."""
    cost = join([cost for _, cost in parts])
    return cost.take(np.argsort(np.concatenate([m for m, _ in parts]), kind="stable")) if len(parts) > 1 else cost


class Settled:
    """The rows of one search's keys so far."""

    def __init__(self, pool: Pool, tables: Tables) -> None:
        self.pool, self.space, self.tables = pool, pool.space, tables
        self.kind = pool.space.kind
        self.known = np.zeros(0, dtype=np.int64)
        self.place = np.zeros((3, 0), dtype=np.int64)
        """(table, first row, rows) of each known key"""

    @property
    def rows(self) -> int:
        """Rows of all keys."""
        return int(self.place[2].sum())

    def number(self, pairs: Pairs) -> tuple[np.ndarray, int]:
        """(each pair's row, counted through all tables; rows of all tables)."""
        before = np.cumsum([0] + [len(table) for table in self.tables.made])
        return before[pairs.table] + pairs.row, int(before[-1])

    def fresh(self, keys: np.ndarray) -> Iterator[_Group]:
        """Keys that are not known, in groups."""
        unknown = keys[~np.isin(keys, self.known, assume_unique=True)]
        return self._groups(unknown) if len(unknown) else iter(())

    def settle(self, keys: np.ndarray, table: int, start: int, orders: int) -> None:
        """Keys have their rows in a table, one key's after the other's from `start` on."""
        first = start + np.arange(len(keys)) * orders
        known = np.concatenate([self.known, keys])
        place = np.concatenate(
            [self.place, np.stack([np.full_like(first, table), first, np.full_like(first, orders)])], axis=1
        )
        order = np.argsort(known, kind="stable")
        self.known, self.place = known[order], place[:, order]

    def pairs(self, keys: np.ndarray) -> Pairs:
        """The rows of known keys, key by key."""
        table, first, count = self.place[:, np.searchsorted(self.known, keys)]
        key = np.repeat(np.arange(len(keys)), count)
        order = np.arange(len(key)) - np.repeat(np.cumsum(count) - count, count)
        return Pairs(key=key, table=table[key], row=first[key] + order, order=order)

    def traffic(self, pairs: Pairs) -> np.ndarray:
        """Bytes (pairs, levels, operands, read/write)."""
        made = self.tables.made
        out = np.empty((len(pairs.row), *made[0].traffic.shape[1:]))
        for table in np.flatnonzero(np.bincount(pairs.table)):
            members = pairs.table == table
            out[members] = made[table].traffic[pairs.row[members]]
        return out

    # Rows of keys ----------------------------------------------------------------------------------
    def _groups(self, keys: np.ndarray) -> Iterator[_Group]:
        problem = self.space.problem
        ranks = problem.tiled_ranks
        extent = np.array([problem.einsum.ranks[r] for r in ranks], dtype=np.int64)
        positions, letters = keys // CLASS_COUNT, keys % CLASS_COUNT
        grids = self.pool.grid_of(positions)
        for grid in np.flatnonzero(np.bincount(grids)).tolist():
            mine = np.flatnonzero(grids == grid)
            tiles = self.pool.tiles(grid, positions[mine]) if ranks else np.zeros((len(mine), 0), dtype=np.int64)
            walked = tiles < extent
            pattern = walked @ (1 << np.arange(len(ranks))) * CLASS_COUNT + letters[mine]
            for code in sorted(set(pattern.tolist())):
                members = np.flatnonzero(pattern == code)
                columns = np.flatnonzero(walked[members[0]])
                named = tuple(ranks[c] for c in columns)
                orders = self._orders(named, CLASSES[code % CLASS_COUNT])
                whole = _Group(self, grid, named, orders, keys[mine[members]], tiles[np.ix_(members, columns)])
                yield from whole.cut() if orders else ()

    def _orders(self, ranks: tuple[str, ...], letter: str) -> tuple[tuple[str, ...], ...]:
        """Loop orders that the space has, with a loop of the class innermost (if any rank is walked)."""
        of = self.space.problem.rank_class
        orders = (order for order in permutations(ranks) if not order or of[order[-1]] == letter)
        return tuple(order for order in orders if self.space.allows(Choice(order, ())))


def _packed(groups: Iterable[_Group]) -> Iterator[list[_Group]]:
    """Groups that share a table."""
    some: list[_Group] = []
    rows = 0
    for group in groups:
        if some and rows + group.rows > ROWS_AT_ONCE:
            yield some
            some, rows = [], 0
        some.append(group)
        rows += group.rows
    if some:
        yield some


def _table(groups: Sequence[_Group]) -> StepTable:
    """One table for groups of one kind and option."""
    space = groups[0].owner.space
    named = {rank for group in groups for rank in group.ranks}
    loops = [rank for rank in space.problem.ranks if rank in named]
    tiles, orders = zip(*(group.table(loops) for group in groups), strict=True)
    tile, order = np.concatenate(tiles), np.concatenate(orders)
    problems = {id(group.owner): group.owner.space.problem for group in groups}
    number = {key: i for i, key in enumerate(problems)}
    which = np.repeat([number[id(group.owner)] for group in groups], [group.rows for group in groups])
    whole = np.stack([p.sizes for p in problems.values()], axis=1)[:, which]
    extent = dict(zip(space.problem.ranks, whole, strict=True))
    borders, cuts = space.borders(Choice(tuple(loops), (), groups[0].option), tile, extent)
    borders[0] = replace(borders[0], order=order)
    machine = space.machine
    rows = Rows(
        nest=Nest(tuple(borders), tuple(cuts), dict(space.route.innermost)),
        problem=Stack.of(tuple(problems.values()), which),
        machine=machine,
        rates=np.ones((len(tile), len(machine.ports))),
        setup=np.zeros(len(tile)),
        latency=np.zeros(len(tile)),
    )
    return step_table(rows)
