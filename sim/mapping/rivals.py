"""What is searched, and for which designs: the candidates of some spaces, and the numbers of the designs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sim.mapping.bound import Placed, gathered
from sim.mapping.machine import Machine
from sim.mapping.scan import Clock, corner
from sim.mapping.search import Pool
from sim.mapping.settle import Pairs, Rated, Settled
from sim.mapping.terms import Terms
from sim.mapping.winners import Objective, energy_of, valued


@dataclass(frozen=True, slots=True, eq=False)
class Entrants:
    """Designs, arrays (n,): their rows of the machine, numbers of their spaces and clocks, bytes for tiles, and whether
    their space is small, so that their best is proven."""

    row: np.ndarray
    space: np.ndarray
    clock: np.ndarray
    room: np.ndarray
    small: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def take(self, some: np.ndarray) -> Entrants:
        """Some of the designs."""
        return Entrants(*(getattr(self, name)[some] for name in self.__slots__))


@dataclass(frozen=True, slots=True, eq=False)
class Rivals:
    """The candidates, and the clocks on which they compete."""

    pool: Pool
    settled: Settled
    machine: Machine
    """Of all designs."""
    objective: Objective
    clocks: Sequence[Clock]
    rows: np.ndarray
    """(clocks,) a row of the machine with each clock"""
    bands: Sequence[Sequence[int]]
    """Numbers of clocks that are near each other; for other objectives than latency each clock alone."""

    band_of: np.ndarray
    """(clocks,) number of the band of each"""

    @property
    def spaces(self) -> int:
        return len(self.pool.spaces)

    def corner(self, clocks: Sequence[int], of: Callable) -> Clock:
        """The fastest (`min`) or the slowest (`max`) that a design of these clocks may be."""
        return corner([self.clocks[c] for c in clocks], of)

    def bounds(
        self, times: np.ndarray, groups: Placed, space: np.ndarray, band: int, order: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """Of the objective, for bounds of time (n,) on a band of clocks, of candidates or blocks of these spaces.

        `groups`: their terms, which `order` puts in order.
        """
        if self.objective is Objective.LATENCY:
            return times
        row, machine = self.rows[self.bands[band][0]], self.machine
        read, write = machine.read_energy_j_per_byte[row], machine.write_energy_j_per_byte[row]
        macs, speedup = self._work()
        energy = gathered(groups, partial(Terms.energies, read=read, write=write))[order]
        energy = energy + (machine.mac_energy_j[row] * macs / speedup)[space]
        return valued(self.objective, times, energy, float(machine.idle_j_per_cycle[row]))

    def _work(self) -> tuple[np.ndarray, np.ndarray]:
        """(MACs, share by which sparsity shortens them) of each space."""
        problems = [space.problem for space in self.pool.spaces]
        return np.array([float(p.macs) for p in problems]), np.array([p.reduction_speedup for p in problems])

    def rated(self, table: np.ndarray, row: np.ndarray, designs: np.ndarray) -> Rated:
        """Rows of tables on designs (rows of the machine)."""
        return Rated(table, row, self.machine.rates[designs], self.machine.setup_cycles[designs])

    def energy(self, traffic: np.ndarray, designs: np.ndarray, space: np.ndarray) -> np.ndarray:
        """Dynamic energy of jobs of these spaces on designs (rows of the machine)."""
        macs, speedup = self._work()
        return energy_of(self.machine, macs[space], speedup[space], traffic, designs)

    def values(self, time: np.ndarray, pairs: Pairs, designs: np.ndarray, space: np.ndarray) -> np.ndarray:
        """What the objective makes least of, of pairs that take `time` cycles."""
        if self.objective is Objective.LATENCY:
            return time
        energy = self.energy(self.settled.traffic(pairs), designs, space)
        return valued(self.objective, time, energy, self.machine.idle_j_per_cycle[designs])

    def seconds(self, time: np.ndarray, pairs: Pairs, designs: np.ndarray, space: np.ndarray) -> np.ndarray:
        """What decides between equal values: energy (traffic at home where it is unknown), or time."""
        if self.objective is not Objective.LATENCY:
            return time
        traffic = self.settled.traffic(pairs)
        energy = self.energy(traffic, designs, space)
        return np.where(np.isnan(energy), traffic[:, 0].sum(axis=(1, 2)), energy)


__all__ = ["Entrants", "Rivals"]
