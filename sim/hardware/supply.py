"""Supply voltage: what energies and leakage hold at, and whether silicon runs at it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.hardware import technology as tech
from sim.hardware import technology_data as data
from sim.hardware.chip import Chip
from sim.hardware.designs import Designs

_PATH = "technology.voltage"
_SLACK = 1e-9
"""Of a supply that was moved along the curve, and is the one that it needs but for rounding."""


def supply_share(d: Designs) -> np.ndarray:
    """Supply over the node's nominal: stated, or what the fastest clock needs; NaN without a node."""
    nominal = tech.nominal_voltage_v(node_nm=d.column("technology.node"))
    stated, limit = d.column(_PATH), d.column("technology.max_clock")
    share = tech.voltage_share(clock_hz=fastest_clock_hz(d), max_clock_hz=np.where(np.isnan(limit), 1.0, limit))
    return np.where(np.isnan(stated), np.where(np.isnan(limit), 1.0, share), stated / nominal)


def fastest_clock_hz(d: Designs) -> np.ndarray:
    """The clock that the one supply of a chip must bear: the fastest of the chip's and of its units'."""
    return np.asarray(np.max([d.column("clock"), *(d.column(f"{unit.name}.clock") for unit in d.chip.units)], axis=0))


def supply_problems(chips: Sequence[Chip] | Designs) -> dict[int, str]:
    """Design -> why it does not run at the supply that it states; without a stated supply, or a node, nothing.

    A supply bears a clock by the V-f curve (`technology.voltage_share`), the fastest of the chip and its units: less
    than the nominal one where `technology.max_clock` says how far the clock is below what the nominal bears. Where it
    does not, a file is believed, and what an override sets must be the nominal supply at least.
    """
    if not isinstance(chips, Designs):
        return {i: found[0] for i, chip in enumerate(chips) if (found := supply_problems(Designs(chip)))}
    d = chips
    if d.chip.technology.voltage_v is None and _PATH not in d.choices:
        return {}
    columns = (d.column(_PATH), fastest_clock_hz(d), d.column("technology.max_clock"), d.column("technology.node"))
    told = _PATH in d.choices or _PATH in d.chip.overrides
    found = {i: _problem(*map(float, row), told=told) for i, row in enumerate(zip(*columns, strict=True))}
    return {i: why for i, why in found.items() if why}


def _problem(stated_v: float, clock_hz: float, max_clock_hz: float, node_nm: float, *, told: bool) -> str:
    """Of one chip; '' where it runs, or where no supply or no node is stated."""
    if np.isnan(stated_v) or np.isnan(node_nm):
        return ""
    nominal = float(tech.nominal_voltage_v(node_nm=node_nm))
    lowest, highest = data.FLOOR_SHARE * nominal, data.OVERDRIVE_SHARE * nominal
    known = not np.isnan(max_clock_hz)
    if known:
        share = float(tech.voltage_share(clock_hz=clock_hz, max_clock_hz=max_clock_hz))
    else:
        share = 1.0 if told else data.FLOOR_SHARE
    needed = share * nominal
    if needed * (1 - _SLACK) <= stated_v <= highest * (1 + _SLACK):
        return ""
    where, due = f"{_PATH}: {stated_v:g} V", f"expected {needed:.4g} to {highest:.4g} V"
    if stated_v > highest:
        return f"{where} is above the {highest:.4g} V that {node_nm:g} nm stands (nominal {nominal:g} V): {due}"
    if not known:
        unknown = "without technology.max_clock no lower supply than the nominal is known to bear its clock"
        return f"{where} is below the {needed:.4g} V of {node_nm:g} nm: {unknown if told else 'no logic runs'}; {due}"
    bears = float(tech.clock_share(voltage_share=stated_v / nominal)) * max_clock_hz
    fix = f", or a clock of at most {bears / 1e9:.4g} GHz" if stated_v >= lowest else ""
    return (
        f"{where} is below the {needed:.4g} V that a clock of {clock_hz / 1e9:g} GHz needs at {node_nm:g} nm "
        f"(technology.max_clock {max_clock_hz / 1e9:g} GHz at the nominal {nominal:g} V, and none runs below "
        f"{lowest:.4g} V): {due}{fix}"
    )


__all__ = ["supply_problems", "supply_share"]
