"""Law 9 for every key that a bundled search varies: more of a resource costs area, power or money."""

from __future__ import annotations

import numpy as np
import pytest

from sim.codesign.checks import physical_metrics
from sim.codesign.space import load_space
from sim.hardware.designs import Designs
from sim.hardware.physical import idle_power_w
from sim.resources import data_dir

NO_RESOURCE = {"array.dataflow"}
"""Searched keys that are a choice and not an amount: no value of theirs is more than another."""
SPACES = {path.stem: load_space(path.stem) for path in sorted(data_dir("searches").glob("*.yaml"))}
KEYS = [(name, p.name) for name, space in SPACES.items() for p in space.parameters if p.side == "chip"]


@pytest.mark.parametrize(("search", "key"), [pair for pair in KEYS if pair[1] not in NO_RESOURCE])
def test_more_of_it_costs_something(search: str, key: str) -> None:
    """The choices stand in rising order; each costs more area, power or money than the one before, and less of
    nothing."""
    space = SPACES[search]
    values = next(p.values for p in space.parameters if p.name == key)
    designs = Designs.grid(space.chip, {key: values})
    columns = {**physical_metrics(designs), "idle_power": idle_power_w(designs)}
    steps = {name: column[1:] - column[:-1] for name, column in columns.items()}
    assert all((step >= -1e-12 * columns[name][:-1]).all() for name, step in steps.items())
    rises = [steps[name] > 1e-6 * column[:-1] for name, column in columns.items()]
    assert np.any(rises, axis=0).all(), (values, columns)


@pytest.mark.parametrize(("search", "key"), [pair for pair in KEYS if pair[1] not in NO_RESOURCE])
def test_doubling_the_chips_own_costs_something(search: str, key: str) -> None:
    """From half of the base chip's amount to the whole, the others as they are: one of area, peak power, idle power
    and die cost rises by more than rounding."""
    space = SPACES[search]
    text = designs_text(space.chip, key)
    designs = Designs.grid(space.chip, {key: (text(0.5), text(1.0))})
    columns = {**physical_metrics(designs), "idle_power": idle_power_w(designs)}
    assert any(column[1] > column[0] * (1 + 1e-6) for column in columns.values()), columns


def designs_text(chip, key: str):
    """The chip's amount at a key times a factor, as the quantity that the key takes."""
    from sim.hardware.chip import Rate
    from sim.hardware.designs import read_path
    from sim.hardware.dump import rate_text

    value = read_path(chip, key)
    if isinstance(value, Rate):
        parts = {"per_s": value.per_s, "per_cycle": value.per_cycle}
        return lambda f: rate_text(Rate(**{name: part if part is None else part * f for name, part in parts.items()}))
    unit = {"capacity": "B", "clock": "Hz", "max_clock": "Hz"}.get(key.rpartition(".")[2])
    return lambda f: f"{value * f:.0f} {unit}" if unit else round(value * f)


def test_every_searched_key_is_an_amount_or_named_here() -> None:
    assert {key for _, key in KEYS} >= NO_RESOURCE
    for search, key in KEYS:
        if key not in NO_RESOURCE:
            assert callable(designs_text(SPACES[search].chip, key))
