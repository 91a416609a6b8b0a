"""One search of the mapper: the best candidate of several problems on each of their designs, all in step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.mapping.entries import Best
from sim.mapping.heat import TOLERANCE, Heat
from sim.mapping.machine import Machine
from sim.mapping.rivals import Entrants, Rivals
from sim.mapping.scan import WIDE, Cells, Scan, bands, clocks
from sim.mapping.scout import wanted
from sim.mapping.search import Pool, SingleBorder
from sim.mapping.settle import CLASS_COUNT, Kept, Settled
from sim.mapping.steps import join
from sim.mapping.winners import Lazy, Objective, Winners
from sim.ordered import among, ascending

EXACT_BELOW = 100_000
"""Candidates of a space up to which a search ends only when no bound is left below the best value."""


class Search:
    """The best candidates of spaces of one kind (`SingleBorder.kind`), on each design of their machines.

    `rooms`: per space, bytes (D,) for tiles. What is told apart of all designs of all spaces is numbered through.
    """

    def __init__(self, spaces: Sequence[SingleBorder], objective: Objective, rooms: Sequence[np.ndarray]) -> None:
        machine = Machine.together([space.machine for space in spaces])
        space, room = np.repeat(np.arange(len(spaces)), list(map(len, rooms))), np.concatenate(rooms)
        numbers = np.column_stack([machine.rates, machine.setup_cycles, machine.latency_cycles])
        energies = [
            machine.read_energy_j_per_byte,
            machine.write_energy_j_per_byte,
            machine.mac_energy_j,
            machine.idle_j_per_cycle,
        ]
        if objective is not Objective.LATENCY:
            numbers = np.column_stack([numbers, *energies])
        # Designs that differ in nothing that matters here are mapped once.
        distinct, self.like = _distinct(np.column_stack([space, numbers, *energies, room]))
        rows, clock = _distinct(numbers)
        each = clocks(machine.rates[rows], machine.setup_cycles[rows], machine.latency_cycles[rows])
        latency = objective is Objective.LATENCY  # energies differ by clock too
        near = bands(each, WIDE) if latency else [[c] for c in range(len(each))]
        band_of = np.empty(len(each), dtype=np.int64)
        for number, band in enumerate(near):
            band_of[band] = number
        pool = Pool(*spaces)
        self.rivals = Rivals(pool, Settled(pool), machine, objective, each, rows, near, band_of)
        small = (np.diff(pool.space_starts) <= EXACT_BELOW)[space[distinct]]
        self.designs = Entrants(distinct, space[distinct], clock[distinct], room[distinct], small)
        self.best, self.open = Best(len(distinct)), np.full(len(distinct), np.inf)
        """Per distinct design: its best, and the least bound of what was not refined."""

    def run(self) -> list[Winners]:
        """The whole search; winners of each space.

        What wins with the most room wins with less if it fits there, so that room is searched first, unless
        energies, which decide between equals, differ and may choose another. (Where the search stops short of a
        proof, what it finds depends on its path: each design then goes its own.)
        """
        best, everyone, leader = self.best, np.arange(len(self.designs)), self._leaders()
        cells = Cells(self.rivals.spaces, self.designs.space, self.designs.room)
        scan = Scan(self.rivals.pool, cells, wanted(self.rivals, self.designs, cells))
        others, alike = everyone[leader != everyone], self._alike(leader)
        undecided = self._heat(scan, everyone[leader == everyone], watched=leader[~alike])
        others = others[best.table[leader[others]] >= 0]  # else nothing has a value
        if len(others):
            of = leader[others]
            needed = self.rivals.pool.footprints(best.key[of] // CLASS_COUNT)
            heirs = (needed <= self.designs.room[others]) & (alike[others] | ~undecided[of])
            best.inherit(others[heirs], best, of[heirs])
            self._heat(scan, others[~heirs])
        return self._winners()

    def _heat(self, scan: Scan, some: np.ndarray, watched: np.ndarray | None = None) -> np.ndarray:
        """(designs,) whether other energies than its own may choose another best, of those that are watched."""
        undecided = np.zeros(len(self.designs), dtype=bool)
        if len(some):
            watch = None if watched is None or not len(watched) else among(some, ascending(watched))
            heat = Heat(self.rivals, scan, self.designs.take(some), scan.cells.of[some], watch)
            self.best.inherit(some, heat.run())
            self.open[some] = heat.open()
            undecided[some] = heat.undecided()
        return undecided

    def _alike(self, leader: np.ndarray) -> np.ndarray:
        """(designs,) whether energies decide between equals as those of the leader do."""
        if self.rivals.objective is not Objective.LATENCY:  # energies are of the clock, and time decides
            return np.ones(len(leader), dtype=bool)
        machine, rows = self.rivals.machine, self.designs.row
        energies = np.column_stack([machine.read_energy_j_per_byte, machine.write_energy_j_per_byte])[rows]
        same = energies == energies[leader]
        return (same | (np.isnan(energies) & np.isnan(energies[leader]))).all(axis=1)

    def _leaders(self) -> np.ndarray:
        """Of each design, the one of its space and clock with the most room; itself in large spaces."""
        designs = self.designs
        order = np.lexsort((-designs.room, designs.clock, designs.space))
        alike = designs.space[order] * len(self.rivals.clocks) + designs.clock[order]
        leader = np.empty_like(order)
        leader[order] = order[np.searchsorted(alike, alike)]
        return np.where(designs.small, leader, np.arange(len(leader)))

    # The answer ------------------------------------------------------------------------------------
    def _winners(self) -> list[Winners]:
        """Of each space."""
        rivals, spaces = self.rivals, self.rivals.pool.spaces
        known = np.flatnonzero(self.best.table >= 0)
        found = _Found(rivals, self.designs.take(known), self.best.take(known))
        row_of = np.full(len(self.best.table), -1)
        row_of[known] = np.arange(len(known))
        rows = np.split(row_of[self.like], np.cumsum([len(space.machine) for space in spaces])[:-1])
        starts = np.searchsorted(self.designs.space[known], np.arange(len(spaces) + 1))  # they go space by space
        every = np.searchsorted(self.designs.space, np.arange(len(spaces) + 1))
        return [
            found.winners(number, slice(*starts[number : number + 2]), rows[number],
                          self._gap(np.arange(*every[number : number + 2])))
            for number in range(len(spaces))
        ]  # fmt: skip

    def _gap(self, designs: np.ndarray) -> float:
        """Share by which a candidate that was not refined might still beat the best of a space's designs."""
        some = designs[np.isfinite(self.open[designs]) & (self.best.table[designs] >= 0)]
        gaps = 1.0 - self.open[some] / self.best.value[some]
        return float(gaps.max(initial=0.0 if self.designs.small[designs].all() else TOLERANCE))


class _Found:
    """The best of some designs, and what is known of them."""

    def __init__(self, rivals: Rivals, designs: Entrants, best: Best) -> None:
        self.rivals, self.designs, self.best = rivals, designs, best
        self.positions = best.key // CLASS_COUNT
        self.kept = Kept(rivals.settled, best.table, best.row)
        if not len(designs):
            self.cost, self.energy_j, self.used, self.weights = join([]), *np.zeros((3, 0))
            return
        machine, pool, rows = rivals.machine, rivals.pool, designs.row
        self.cost = rivals.settled.costs(rivals.rated(best.table, best.row, rows))
        self.cost.time = self.cost.time + machine.latency_cycles[rows]
        self.cost.first = self.cost.first + machine.latency_cycles[rows]
        self.energy_j = rivals.energy(self.cost.traffic, rows, designs.space)
        self.used, self.weights = pool.footprints(self.positions), pool.weight_tile_bytes(self.positions)

    def winners(self, number: int, mine: slice, rows: np.ndarray, gap: float) -> Winners:
        """`mine`: those of the space; `rows`: which of all it is per design of the space's machine, or -1."""
        rivals, best, kept = self.rivals, self.best, self.kept
        space, settled, start = rivals.pool.spaces[number], rivals.settled, mine.start
        fits = rows >= 0
        places = list(zip(best.table[mine].tolist(), best.row[mine].tolist(), strict=True))
        # Winners hold neither candidates nor the search: a network has a hundred of them.
        choices = {place: settled.choice(*place) for place in set(places)}
        span = rivals.pool.space_starts[number : number + 2]
        keys = slice(*np.searchsorted(settled.known, span * CLASS_COUNT))
        energy, used = np.full(len(rows), np.nan), self.used[mine]
        energy[fits] = self.energy_j[rows[fits]]
        return Winners(
            row=np.where(fits, rows - start, -1),
            cost=self.cost.take(mine),
            tables=Lazy(places, kept.table),
            first_bytes=kept.first_bytes(best.table[mine], best.row[mine]),
            mappings=Lazy(places, lambda place: space.mapping(choices[place])),
            energy_j=energy,
            first_weight_bytes=self.weights[mine],
            footprint_bytes=used,
            level_bytes=Lazy(used.tolist(), lambda size: {space.route.level: size} if space.at else {}),
            need_bytes=0.0 if fits.all() else rivals.pool.need_bytes(number),
            proven_gap=gap,
            latency_cycles=space.machine.latency_cycles,
            candidates=int(span[1] - span[0]),
            refined=int(settled.place[2, keys].sum()),
        )


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first row of each distinct one, number of the distinct one per row), in order of appearance."""
    rows = np.ascontiguousarray(numbers + 0.0)  # (minus nothing is nothing)
    seen: dict[bytes, int] = {}
    inverse = np.array([seen.setdefault(row, len(seen)) for row in rows.view(f"V{rows.strides[0]}").ravel().tolist()])
    return np.unique(inverse, return_index=True)[1], inverse


__all__ = ["Search"]
