"""What the reader of an estimate must know beside its numbers, in words."""

from __future__ import annotations

import numpy as np

from sim.hardware.chip import Chip
from sim.hardware.physical import why_no_energy
from sim.schedule.fusion import fused_notes
from sim.schedule.network import Network, Options
from sim.units import Dimension, format_quantity

PROVEN = 1e-3
"""Gap to the proven bound that is not worth a note."""


def notes_of(network: Network, d: int, dynamic: float | None, options: Options) -> tuple[str, ...]:
    """Of design `d`; `dynamic`: its energy without leakage [J], None where it is unknown."""
    notes = list(network.notes)
    notes += [
        f"{op} takes {format_quantity(seconds, Dimension.TIME)} by --override, not by the model"
        for op, seconds in options.overrides_s.items()
    ]
    notes += _not_given(network, options)
    notes += [*fused_notes(network.groups), *_proof(network)]
    if dynamic is None and not network.infeasible[d]:
        chip = network.chips[d]
        why = why_no_energy(chip, next(iter(chip.main_unit.array.macs_per_cycle)))
        notes.append(f"energy is unknown: {why or 'some op has none'}")
    return tuple(notes)


def derived_energy(chip: Chip, energy: float | None) -> list[str]:
    """Where a GPU's energies come from its node alone: how far that was from the one GPU that was measured."""
    unit = chip.main_unit
    if energy is None or not unit.costing.gpu or unit.array.mac_energy_j:
        return []
    words = (
        "energy is derived from the node, not measured, and likely too low: on an H200 that gave a quarter of what was "
        "measured of a MAC and of a byte of DRAM, and half of the idle power"
    )
    return [words]


def no_leakage(energy: float | None, idle_power_w: float | None) -> list[str]:
    """Where every action's energy is stated, but nothing to tell leakage by."""
    if energy is None or idle_power_w is not None:
        return []
    return ["energy is without leakage: the chip file states no technology.idle_power and no technology.node"]


def above_stated(chip: Chip, chips: int, energy: float | None, latency: float) -> list[str]:
    """Where the run takes more power than the file says the chip takes."""
    stated = chip.technology.power_w
    if energy is None or stated is None or energy / latency <= stated * chips:
        return []
    words = (
        f"{energy / latency:.3g} W on average are above the {stated * chips:g} W that the chip file states: a chip "
        "that keeps to its limit lowers its clock, which is not modelled; where the file states no energies per "
        "action, those of its technology are not scaled to that power"
    )
    return [words]


def _not_given(network: Network, options: Options) -> list[str]:
    """Ops that the given mappings leave out."""
    given = options.mapping
    rest = [group.name for group in network.groups if group.macs and not group.stream and group.name not in given]
    if not given or "*" in given or not rest:
        return []
    shown = ", ".join(rest[:3]) + (", ..." if len(rest) > 3 else "")
    return [f"no mapping given for {len(rest)} ops ({shown}): costed with the best {options.map_space} ones"]


def _proof(network: Network) -> list[str]:
    """How far the mappings found are proven, where they are not the optimum of their space."""
    gaps = {group.name: won.proven_gap for group in network.groups for _, won in group.winners}
    open_ends = [name for name, gap in gaps.items() if np.isnan(gap)]
    wide = {name: gap for name, gap in gaps.items() if gap > PROVEN}
    notes = []
    if open_ends:
        notes.append(f"{len(open_ends)} ops: the best mapping of a limited number of candidates, with no proof")
    if wide:
        notes.append(
            f"{len(wide)} ops: the mapping found is proven within {max(wide.values()):.1%} of the best of its space"
        )
    return notes


__all__ = ["above_stated", "derived_energy", "no_leakage", "notes_of"]
