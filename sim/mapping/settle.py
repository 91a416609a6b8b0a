"""Exact step tables of candidates, made once per candidate whatever the number of designs.

A *key* names a tiling and the class of its innermost loop (4 x position + class); its rows are the
loop orders that end in that class. Rows of many tilings and orders share one table.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from sim.mapping.bound import CLASSES
from sim.mapping.evaluate import Rows, StepTable, step_table
from sim.mapping.nest import Nest
from sim.mapping.search import Choice, Pool

CLASS_COUNT = len(CLASSES)
ROWS_AT_ONCE = 4096
"""Rows of one table at most (memory)."""
PAIRS_AT_ONCE = 2048
"""Rows on designs costed at a time, so that their arrays stay in the cache."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Tilings (keys, walked ranks) of one grid that walk the same ranks, and their loop orders."""

    grid: int
    ranks: tuple[str, ...]
    orders: tuple[tuple[str, ...], ...]
    keys: np.ndarray
    tiles: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.keys) * len(self.orders)

    def cut(self) -> Iterator[_Group]:
        """Parts of at most about `ROWS_AT_ONCE` rows."""
        step = max(1, ROWS_AT_ONCE // len(self.orders))
        for start in range(0, len(self.keys), step):
            part = slice(start, start + step)
            yield replace(self, keys=self.keys[part], tiles=self.tiles[part])

    def choice(self, row: int, option: tuple) -> Choice:
        key, order = divmod(row, len(self.orders))
        tile = dict(zip(self.ranks, self.tiles[key].tolist(), strict=True))
        return Choice(self.orders[order], tuple(tile[r] for r in self.orders[order]), option)


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


class Settled:
    """Step tables of the keys added so far."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.space = pool, pool.space
        self.tables: list[StepTable] = []
        self.groups: list[tuple[list[int], list[_Group]]] = []
        """Per table: first rows of its groups, and the groups."""
        self.known = np.zeros(0, dtype=np.int64)
        self.place = np.zeros((3, 0), dtype=np.int64)
        """(table, first row, rows) of each known key"""

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(len(table.weight) for table in self.tables)

    def number(self, pairs: Pairs) -> np.ndarray:
        """Each pair's row, counted through all tables."""
        before = np.cumsum([0] + [len(table.weight) for table in self.tables])
        return before[pairs.table] + pairs.row

    def add(self, keys: np.ndarray) -> None:
        """Make the tables of keys (sorted, once each) that are not known yet."""
        fresh = keys[~np.isin(keys, self.known, assume_unique=True)]
        if not len(fresh):
            return
        found, places = [self.known], [self.place]
        for groups in _packed(list(self._groups(fresh))):
            starts, start = [], 0
            for group in groups:
                first = start + np.arange(len(group.keys)) * len(group.orders)
                table, count = np.full_like(first, len(self.tables)), np.full_like(first, len(group.orders))
                found.append(group.keys)
                places.append(np.stack([table, first, count]))
                starts.append(start)
                start += group.rows
            self.groups.append((starts, groups))
            self.tables.append(self._table(groups))
        known, place = np.concatenate(found), np.concatenate(places, axis=1)
        order = np.argsort(known, kind="stable")
        self.known, self.place = known[order], place[:, order]

    def pairs(self, keys: np.ndarray) -> Pairs:
        """The rows of known keys, key by key."""
        table, first, count = self.place[:, np.searchsorted(self.known, keys)]
        key = np.repeat(np.arange(len(keys)), count)
        order = np.arange(len(key)) - np.repeat(np.cumsum(count) - count, count)
        return Pairs(key=key, table=table[key], row=first[key] + order, order=order)

    def times(self, pairs: Pairs, rates: np.ndarray, setup: np.ndarray) -> np.ndarray:
        """Cycles of each pair on its own rates (pairs, ports) and setup (pairs,), latency left out."""
        out = np.empty(len(pairs.row))
        for table in np.flatnonzero(np.bincount(pairs.table)):
            members = np.flatnonzero(pairs.table == table)
            for start in range(0, len(members), PAIRS_AT_ONCE):
                some = members[start : start + PAIRS_AT_ONCE]
                out[some] = self.tables[table].times(pairs.row[some], rates[some], setup[some])
        return out

    def traffic(self, pairs: Pairs) -> np.ndarray:
        """Bytes (pairs, levels, operands, read/write)."""
        out = np.empty((len(pairs.row), *self.tables[0].traffic.shape[1:]))
        for table in np.flatnonzero(np.bincount(pairs.table)):
            members = pairs.table == table
            out[members] = self.tables[table].traffic[pairs.row[members]]
        return out

    def choice(self, table: int, row: int) -> Choice:
        """The mapping that a row stands for."""
        starts, groups = self.groups[table]
        number = bisect_right(starts, row) - 1
        group = groups[number]
        return group.choice(row - starts[number], self.pool.grids[group.grid][0])

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
                whole = _Group(grid, named, orders, keys[mine[members]], tiles[np.ix_(members, columns)])
                yield from whole.cut() if orders else ()

    def _orders(self, ranks: tuple[str, ...], letter: str) -> tuple[tuple[str, ...], ...]:
        """Loop orders that the space has, with a loop of the class innermost (if any rank is walked)."""
        of = self.space.problem.rank_class
        orders = (order for order in permutations(ranks) if not order or of[order[-1]] == letter)
        return tuple(order for order in orders if self.space.allows(Choice(order, ())))

    def _table(self, groups: Sequence[_Group]) -> StepTable:
        """One table for groups of one grid whose ranks are among those of the first."""
        space, problem = self.space, self.space.problem
        loops = groups[0].ranks
        option = self.pool.grids[groups[0].grid][0]
        whole = np.array([problem.einsum.ranks[r] for r in loops], dtype=np.int64)
        tiles, orders = [], []
        for group in groups:
            tile = np.tile(whole, (len(group.keys), 1))
            tile[:, [loops.index(r) for r in group.ranks]] = group.tiles
            # Where a loop of one trip stands makes no difference.
            place = [[o.index(r) if r in o else 0 for r in loops] for o in group.orders]
            tiles.append(np.repeat(tile, len(group.orders), axis=0))
            orders.append(np.tile(np.array(place, dtype=np.int64).reshape(len(place), -1), (len(group.keys), 1)))
        tile, order = np.concatenate(tiles), np.concatenate(orders)
        borders, cuts = space.borders(Choice(loops, (), option), tile)
        borders[0] = replace(borders[0], order=order)
        count, machine = len(tile), space.machine
        rows = Rows(
            nest=Nest(tuple(borders), tuple(cuts), dict(space.route.innermost)),
            problem=problem,
            machine=machine,
            rates=np.ones((count, len(machine.ports))),
            setup=np.zeros(count),
            latency=np.zeros(count),
        )
        return step_table(rows)


def _packed(groups: list[_Group]) -> Iterator[list[_Group]]:
    """Groups that share a table: of one grid, with ranks among those of the table's first."""
    tables: list[list[_Group]] = []
    for group in sorted(groups, key=lambda g: -len(g.ranks)):
        for table in tables:
            first = table[0]
            room = sum(g.rows for g in table) + group.rows <= ROWS_AT_ONCE
            if first.grid == group.grid and set(group.ranks) <= set(first.ranks) and room:
                table.append(group)
                break
        else:
            tables.append([group])
    yield from tables
