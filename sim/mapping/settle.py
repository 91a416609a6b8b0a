"""Exact step tables of candidates, made once per candidate whatever the number of designs.

A *key* names a tiling of a pool and the class of its innermost loop (4 x position + class); its rows
are the loop orders that end in that class. Rows of many tilings, orders and problems share one table.
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
from sim.mapping.search import Choice, Pool, SingleBorder
from sim.mapping.steps import join
from sim.mapping.terms import CLASSES
from sim.ordered import among, ascending

CLASS_COUNT = len(CLASSES)
ROWS_AT_ONCE = 1024
"""Rows of one table at about most, so that their steps stay in the cache."""
PAIRS_AT_ONCE = 2048
"""Rows on designs costed at a time, so that their arrays stay in the cache."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Tilings (keys, walked ranks) that use fan-outs alike and walk the same ranks, and their loop orders."""

    space: np.ndarray
    """(keys,) numbers of their spaces"""
    option: tuple[tuple[str, int, int], ...]
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
            yield replace(self, space=self.space[part], keys=self.keys[part], tiles=self.tiles[part])

    def table(self, ranks: Sequence[str], whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(tiles, places of the loops from the outside in) of the rows for loops over these ranks, of which `whole`
        (ranks, spaces) are the extents."""
        tile = whole[:, self.space].T.copy()
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


class Rated(NamedTuple):
    """Rows of tables, each on rates (rows, ports) and a set-up of its own."""

    table: np.ndarray
    row: np.ndarray
    rates: np.ndarray
    setup: np.ndarray


class Settled:
    """The rows of keys of a pool so far, and the step tables that hold them."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.known = np.zeros(0, dtype=np.int64)
        self.place = np.zeros((3, 0), dtype=np.int64)
        """(table, first row, rows) of each known key"""
        self.made: list[StepTable] = []
        self.groups: list[tuple[list[int], list[_Group]]] = []
        """Per table: first rows of its groups, and the groups."""

    def add(self, keys: np.ndarray) -> None:
        """Make the rows of keys (sorted, once each) that are not known yet."""
        unknown = keys[~among(keys, self.known)]
        like: dict[Hashable, list[_Group]] = {}
        for group in self._groups(unknown):
            like.setdefault(group.option, []).append(group)
        places = [self._make(some) for groups in like.values() for some in _packed(groups)]
        if places:
            known = np.concatenate([self.known, *(keys for some in places for keys, _ in some)])
            place = np.concatenate([self.place, *(at for some in places for _, at in some)], axis=1)
            order = np.argsort(known, kind="stable")
            self.known, self.place = known[order], place[:, order]

    def _make(self, groups: list[_Group]) -> list[tuple[np.ndarray, np.ndarray]]:
        """One table for groups of one option; (keys, their places) of each group."""
        starts = np.cumsum([0] + [group.rows for group in groups]).tolist()
        places = []
        for start, group in zip(starts, groups, strict=False):
            orders, n = len(group.orders), len(group.keys)
            first = start + np.arange(n) * orders
            places.append((group.keys, np.stack([np.full(n, len(self.made)), first, np.full(n, orders)])))
        self.groups.append((starts[:-1], groups))
        self.made.append(self._table(groups))
        return places

    def choice(self, table: int, row: int) -> Choice:
        """The mapping that a row stands for."""
        starts, groups = self.groups[table]
        number = bisect_right(starts, row) - 1
        return groups[number].choice(row - starts[number])

    def pairs(self, keys: np.ndarray) -> Pairs:
        """The rows of known keys, key by key."""
        table, first, count = self.place[:, np.searchsorted(self.known, keys)]
        key = np.repeat(np.arange(len(keys)), count)
        order = np.arange(len(key)) - np.repeat(np.cumsum(count) - count, count)
        return Pairs(key=key, table=table[key], row=first[key] + order, order=order)

    def number(self, pairs: Pairs) -> tuple[np.ndarray, int]:
        """(each pair's row, counted through all tables; rows of all tables)."""
        before = np.cumsum([0] + [len(table) for table in self.made])
        return before[pairs.table] + pairs.row, int(before[-1])

    # Costs of rows ---------------------------------------------------------------------------------
    def times(self, rated: Rated) -> np.ndarray:
        """Cycles of rows, latency left out."""
        out = np.empty(len(rated.row))
        for table, members in _by_table(rated.table):
            for start in range(0, len(members), PAIRS_AT_ONCE):
                part = members[start : start + PAIRS_AT_ONCE]
                out[part] = self.made[table].times(rated.row[part], rated.rates[part], rated.setup[part])
        return out

    def costs(self, rated: Rated) -> Cost:
        """Full costs of rows, latency left out."""
        parts = []
        for table, members in _by_table(rated.table):
            some = self.made[table].take(rated.row[members])
            parts.append((members, some.cost(rated.rates[members], rated.setup[members])))
        cost = join([cost for _, cost in parts])
        order = np.argsort(np.concatenate([members for members, _ in parts]), kind="stable")
        return cost.take(order) if len(parts) > 1 else cost

    def traffic(self, pairs: Pairs) -> np.ndarray:
        """Bytes (pairs, levels, operands, read/write)."""
        out = np.empty((len(pairs.row), *self.made[0].traffic.shape[1:]))
        for table, members in _by_table(pairs.table):
            out[members] = self.made[table].traffic[pairs.row[members]]
        return out

    # Rows of keys ----------------------------------------------------------------------------------
    def _groups(self, keys: np.ndarray) -> Iterator[_Group]:
        """Keys by what they walk."""
        pool, positions, letters = self.pool, keys // CLASS_COUNT, keys % CLASS_COUNT
        first = pool.spaces[0]
        windows = first.problem.window_ranks
        ranks = [rank for rank in first.problem.ranks if rank not in windows]
        tiles, space = pool.bounds.tiles(ranks, positions), pool.space(positions)
        walked = tiles < self._extents(ranks)[:, space].T
        option = pool.option_of[pool.grid_of(positions)]
        pattern = (option << len(ranks) | walked @ (1 << np.arange(len(ranks)))) * CLASS_COUNT + letters
        for code in sorted(set(pattern.tolist())):
            members = np.flatnonzero(pattern == code)
            columns = np.flatnonzero(walked[members[0]])
            named = tuple(ranks[c] for c in columns)
            orders = _orders(first, named, CLASSES[code % CLASS_COUNT])
            own = pool.options[option[members[0]]]
            whole = _Group(space[members], own, named, orders, keys[members], tiles[np.ix_(members, columns)])
            yield from whole.cut() if orders else ()

    def _extents(self, ranks: Sequence[str]) -> np.ndarray:
        """(ranks, spaces)"""
        problems = [space.problem for space in self.pool.spaces]
        extents = [[p.einsum.ranks[r] for p in problems] for r in ranks]
        return np.array(extents, dtype=np.int64).reshape(len(ranks), len(problems))

    def _table(self, groups: Sequence[_Group]) -> StepTable:
        """One table for groups of one option."""
        space = self.pool.spaces[0]  # they differ in the numbers of their problems
        named = {rank for group in groups for rank in group.ranks}
        loops = [rank for rank in space.problem.ranks if rank in named]
        whole = self._extents(loops)
        tiles, orders = zip(*(group.table(loops, whole) for group in groups), strict=True)
        tile, order = np.concatenate(tiles), np.concatenate(orders)
        which = np.concatenate([np.repeat(group.space, len(group.orders)) for group in groups])
        extent = dict(zip(space.problem.ranks, self._extents(space.problem.ranks)[:, which], strict=True))
        borders, cuts = space.borders(Choice(tuple(loops), (), groups[0].option), tile, extent)
        borders[0] = replace(borders[0], order=order)
        machine = space.machine
        rows = Rows(
            nest=Nest(tuple(borders), tuple(cuts), dict(space.route.innermost)),
            problem=Stack.of(self.pool.family, which),
            machine=machine,
            rates=np.ones((len(tile), len(machine.ports))),
            setup=np.zeros(len(tile)),
            latency=np.zeros(len(tile)),
        )
        return step_table(rows)


class Kept:
    """Rows of a search's tables, without the candidates beside them."""

    def __init__(self, settled: Settled, table: np.ndarray, row: np.ndarray) -> None:
        self.ports = len(settled.pool.spaces[0].machine.ports)
        self.parts: dict[int, tuple[StepTable, np.ndarray]] = {}
        for number, members in _by_table(table):
            rows = ascending(row[members])
            self.parts[number] = (settled.made[number].take(rows), rows)

    def table(self, place: tuple[int, int]) -> StepTable:
        """Of one row: (table, row)."""
        made, rows = self.parts[place[0]]
        return made.take(np.searchsorted(rows, place[1:]))

    def first_bytes(self, table: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Bytes of the very first loads of rows, (rows, ports)."""
        out = np.empty((len(row), self.ports))
        for number, members in _by_table(table):
            made, rows = self.parts[number]
            out[members] = made.first.bytes[np.searchsorted(rows, row[members])]
        return out


def _by_table(table: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(table, the entries that name it)."""
    for number in np.flatnonzero(np.bincount(table)).tolist():
        yield number, np.flatnonzero(table == number)


def _orders(space: SingleBorder, ranks: tuple[str, ...], letter: str) -> tuple[tuple[str, ...], ...]:
    """Loop orders that the space has, with a loop of the class innermost (if any rank is walked)."""
    of = space.problem.rank_class
    orders = (order for order in permutations(ranks) if not order or of[order[-1]] == letter)
    return tuple(order for order in orders if space.allows(Choice(order, ())))


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
