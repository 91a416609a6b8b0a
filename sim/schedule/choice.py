"""With tensors kept on chip or without, for each design: what is faster, found by evaluation.

Kept tensors save traffic but leave less room for tiles. Without any is costed too where the room may bind: some op's
tiles fill more than half of what is left to them, and the network is slower than any schedule with all tensors at home
must be at least. Without weights is costed where some could stay, and the second order of activations where it spares
home more bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sim.errors import InfeasibleError, MappingError
from sim.hardware.chip import Costing
from sim.mapping.winners import Objective, valued
from sim.schedule.asking import compute_and_widening, machine_of
from sim.schedule.groups import GroupCost
from sim.schedule.makespan import Makespan
from sim.schedule.residency import Keep, Order, Residency
from sim.workload.graph import EinsumOp, Role, UnsupportedOp

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

BINDS = 0.5
"""Share of the room left to tiles from which on more room may help (a tile that wanted more would fill it)."""
PRICES = 2
"""Times that the price of a second is found anew for energy x delay, unless it stays."""
CLOSE = 0.3
"""It stays: this near, relatively (the first guess, off by up to a factor of 5, costs 0.02 % of the
product at most over 27 pairs of five networks and six chips)."""


@dataclass(frozen=True)
class Way:
    """A network costed with one choice of what may stay on chip."""

    coster: _Coster
    groups: list[GroupCost]
    homes: Residency


class Ways(Protocol):
    """A network costed with what may stay, on some designs (D,), None for all, in an order of activations."""

    def __call__(self, keep: Keep, only: np.ndarray | None, order: Order = Order.RUN) -> Way: ...


def best_kept(way: Ways, *, given: bool = False) -> Way:
    """The best way of each design: all that may stay does, in either order (the second where it spares home more), or
    no weights, or no tensor at all.

    Args: way: how a network is costed; given: mappings are given, each made for
        certain homes, so that all ways are costed but those under whose homes one of them does not fit.
    Raises: MappingError, InfeasibleError: a given mapping fits under no homes; told of every tensor at home.
    """
    if given:
        return _best_given(way)
    found = way(Keep.WEIGHTS, None)
    if found.coster.unit.costing is not Costing.MAPPED or not found.homes.memory or found.coster.options.apart:
        return found
    if found.homes.loads:
        found = better(found, way(Keep.ACTIVATIONS, None))
    first = found.coster
    if first.residency.home_live_bytes.any():  # (else all of them stay)
        more = first.homes(Order.URGENT).spared_bytes > first.residency.spared_bytes
        if more.any():
            found = better(found, way(Keep.WEIGHTS, more, Order.URGENT))
    if first.options.cuts is not None:  # (what a stage keeps from one inference to the next is not given up)
        return found
    doubtful = _doubtful(found.groups, found.coster)
    if doubtful.any():
        found = better(found, way(Keep.NOTHING, doubtful))
    return found


def _best_given(way: Ways) -> Way:
    found: Way | None = None
    ways = ((Keep.WEIGHTS, Order.RUN), (Keep.WEIGHTS, Order.URGENT), (Keep.ACTIVATIONS, Order.RUN))
    for keep, order in (*ways, (Keep.NOTHING, Order.RUN)):
        try:
            one = way(keep, None, order)
        except (MappingError, InfeasibleError):
            if found is None and keep is Keep.NOTHING:
                raise
        else:
            found = one if found is None else better(found, one)
    assert found is not None
    return found


def better(found: Way, other: Way) -> Way:
    """`found`, with the designs on which `other` was asked for and is better run that way.

    (Streams have numbers on the designs of a sweep that did not ask, too: alone, such a design would not see them.)
    """
    coster = found.coster
    wins = other.coster.only & (worth(other.groups, coster) < worth(found.groups, coster))
    for d in np.flatnonzero(wins):
        coster.reasons.pop(int(d), None)
        if int(d) in other.coster.reasons:
            coster.reasons[int(d)] = other.coster.reasons[int(d)]
    if not wins.any():
        return found
    both = [_where(~wins, group) for group in found.groups] + [_where(wins, group) for group in other.groups]
    return Way(coster, [g for g in both if _runs(g).any()], found.homes.where(wins, other.homes))


def worth(groups: Sequence[GroupCost], coster: _Coster) -> np.ndarray:
    """(D,) what the objective makes least of: seconds, joules or their product; inf where nothing fits."""
    made = Makespan(groups, None, len(coster.chips))
    time = sum(made.increments, start=np.zeros(len(coster.chips)))
    return np.where(np.isnan(time), np.inf, combined(time, _energy(groups, coster), coster))


def combined(time: np.ndarray, energy: np.ndarray, coster: _Coster) -> np.ndarray:
    """The objective of a network's time [s] and dynamic energy [J]; the time where the energy is not known."""
    objective = Objective(coster.options.objective)
    chosen = time if objective is Objective.LATENCY else valued(objective, time, energy, coster.idle_w)
    return np.where(np.isnan(chosen), time, chosen)


def share(time: np.ndarray, energy: np.ndarray, coster: _Coster) -> np.ndarray:
    """What a part of a network adds to its objective: of energy x delay the joules, each second at its price (see
    `least_product`)."""
    if Objective(coster.options.objective) is Objective.LATENCY:
        return time
    chosen = energy + (coster.idle_w + coster.price_w) * time
    return np.where(np.isnan(chosen), time, chosen)


def least_product(
    way: Callable[[Keep, np.ndarray | None, Order, np.ndarray], Way], likely_w: np.ndarray, *, given: bool = False
) -> Way:
    """The best way by energy x delay, E T.

    Parts do not add up to a product, but where (sum of e) (sum of t) is least so is the sum of e + (E / T) t: a second
    costs the network's mean power. The first guess of it is `likely_w` (D,); then that of the network found, until it
    stays (an error of the price enters the product squared).
    """

    def priced(price_w: np.ndarray) -> Way:
        return best_kept(lambda keep, only, order=Order.RUN: way(keep, only, order, price_w), given=given)

    price_w, found = likely_w, priced(likely_w)
    for _ in range(PRICES):
        made = Makespan(found.groups, None, len(found.coster.chips))
        time = sum(made.increments, start=np.zeros(len(found.coster.chips)))
        product = combined(time, _energy(found.groups, found.coster), found.coster)
        power_w = np.nan_to_num(product / (time * time), nan=0.0)
        stays = np.abs(power_w - price_w) <= CLOSE * power_w
        if stays.all():
            break
        price_w = np.where(stays, price_w, power_w)  # a design is done when it would be alone
        found = better(found, priced(price_w))
    return found


def likely_power_w(coster: _Coster) -> np.ndarray:
    """(D,) mean power of a network that runs at the roofline: idle, every MAC and each tensor of weights, inputs and
    outputs once at home; 0 where energies are not known."""
    n = len(coster.chips)
    cycles, energy, full = np.zeros(n), np.zeros(n), None
    for op in coster.graph.ops:
        if isinstance(op, EinsumOp):
            full = machine_of(coster, compute_and_widening(op, coster)[0])
            cells = full.array.rows * full.array.cols * full.array.fanout * prod(level.fanout for level in full.levels)
            cycles = cycles + op.einsum.macs / (cells * full.array.macs_per_cell)
            energy = energy + op.einsum.macs * full.mac_energy_j
    if full is None:
        return np.zeros(n)
    moved = sum(coster.residency.home_tensors.values())
    seconds = np.maximum(cycles, moved / full.rates[:, full.levels[0].read_port]) / full.clock_hz
    power_w = coster.idle_w + (energy + moved * full.read_energy_j_per_byte[:, 0]) / seconds
    return np.nan_to_num(power_w, nan=0.0, posinf=0.0)


def _energy(groups: Sequence[GroupCost], coster: _Coster) -> np.ndarray:
    return sum((np.where(_runs(g), g.energy_j, 0.0) for g in groups), start=np.zeros(len(coster.chips)))


def _runs(group: GroupCost) -> np.ndarray:
    return np.True_ if group.runs is None else group.runs  # type: ignore[return-value]


def _where(designs: np.ndarray, group: GroupCost) -> GroupCost:
    """The group on these designs only."""
    return group.with_(runs=designs & _runs(group))


def _doubtful(groups: Sequence[GroupCost], coster: _Coster) -> np.ndarray:
    """(D,) designs that might do better without any tensor on chip."""
    tight = np.any([_tight(group) & _runs(group) for group in groups], axis=0)
    if not tight.any():
        return tight
    made = Makespan(groups, None, len(coster.chips))
    found = share(sum(made.increments), _energy(groups, coster), coster)
    least = share(_least_at_home(groups, coster), _least_energy_at_home(groups, coster), coster)
    return tight & ~(found <= least)


def _tight(group: GroupCost) -> np.ndarray:
    """(D,) whether the group's tiles might want more room than kept tensors leave."""
    room = group.capacity_bytes - group.held_bytes
    return (group.held_bytes > 0) & ~(group.footprint_bytes <= BINDS * room)


def _least_at_home(groups: Sequence[GroupCost], coster: _Coster) -> np.ndarray:
    """(D,) seconds that the network takes at least when every tensor lies at home.

    The larger of launches with all bytes at the home memory's port, and of the sum over groups: what those with room
    enough take as they are (with their tensors at home they can only be slower; their weights may be on their way
    earlier), and of the others launch and the longest of activations' bytes, ideal array cycles and lanes.
    """
    n = len(coster.chips)
    launches, steps, moving = np.zeros(n), np.zeros(n), np.zeros(n)
    tensors = coster.graph.tensors
    for group in groups:
        alone = group.launch_s + group.time_s - group.prefetch_s
        if group.machine is None or isinstance(group.op, UnsupportedOp):
            steps = steps + np.where(_runs(group), alone, 0.0)
            continue
        home, clock = group.machine.levels[0], group.machine.clock_hz
        rate = np.maximum(group.machine.rates[:, home.read_port], group.machine.rates[:, home.write_port]) * clock
        shared = 1 if home.read_port == home.write_port else 2
        sizes = {key: float(tensors[key].size_bytes) for key in (*group.op.inputs, *group.op.outputs)}
        if hasattr(group.op, "read_bytes"):
            sizes = {}  # a gather or a copy moves what it says, counted in no bound here
        live = sum(size for key, size in sizes.items() if tensors[key].role is not Role.WEIGHT) / shared / rate
        ideal = group.ladder["ideal"] / clock if group.ladder else np.zeros(n)
        least = group.launch_s + np.maximum.reduce([live, ideal, group.resources_s.get("vector", np.zeros(n))])
        steps = steps + np.where(_runs(group), np.where(_tight(group), least, np.maximum(alone, least)), 0.0)
        launches = launches + np.where(_runs(group), group.launch_s, 0.0)
        moving = moving + np.where(_runs(group), sum(sizes.values()) / shared / rate, 0.0)
    return np.maximum(steps, launches + moving)


def _least_energy_at_home(groups: Sequence[GroupCost], coster: _Coster) -> np.ndarray:
    """(D,) joules that the network takes at least when every tensor lies at home.

    What is spent outside memories now, and each tensor of each op once over the home memory's port; traffic on chip is
    left out. Inside a fused group only the first op's tensors are counted.
    """
    total, tensors = np.zeros(len(coster.chips)), coster.graph.tensors
    for group in groups:
        if group.machine is None or isinstance(group.op, UnsupportedOp):
            continue
        full, op = group.machine, group.op
        memories = {level.name for level in full.levels}
        least = sum(
            (joules for name, joules in group.energy_parts_j.items() if name not in memories), start=0.0 * total
        )
        if not hasattr(op, "read_bytes"):
            read, written = (
                sum(tensors[key].size_bytes for key in dict.fromkeys(keys)) for keys in (op.inputs, op.outputs)
            )
            least = least + read * full.read_energy_j_per_byte[:, 0] + written * full.write_energy_j_per_byte[:, 0]
        total = total + np.where(_runs(group), least, 0.0)
    return total


__all__ = ["Way", "best_kept", "better", "combined", "least_product", "likely_power_w", "share", "worth"]
