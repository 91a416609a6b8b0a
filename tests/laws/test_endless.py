"""Memories without end: a latency, and no energy, power or area that is infinite."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.errors import ConfigError

ENDLESS = ("DRAM.bandwidth=inf GB/s", "DRAM.capacity=inf B", "SRAM.bandwidth=inf B/cycle", "SRAM.capacity=inf B")


@pytest.mark.parametrize("override", ENDLESS)
def test_the_energy_of_an_endless_part_is_unknown_and_told_so(override: str) -> None:
    """Its leakage or standby would be infinite: no infinite energy, power or area anywhere."""
    path, _, quantity = override.partition("=")
    systolic = sim.load_hardware("systolic")
    graph, chip = sim.load_workload("gemm"), systolic.set(path, quantity)
    found = sim.estimate(graph, chip)
    assert 0 < found.latency_s <= sim.estimate(graph, systolic).latency_s
    assert (found.energy_j, found.power_w, {op.energy_j for op in found.ops}) == (None, None, {None})
    assert found.energy_breakdown_j == {}
    assert any(note.startswith("energy is unknown: ") and path.split(".")[0] in note for note in found.notes)
    json.dumps(found.to_dict(), allow_nan=False)
    table = sim.sweep(graph, systolic, {path: [quantity]})
    assert table["latency_s"][0] == found.latency_s
    assert np.isnan([table["energy_j"][0], table["power_w"][0]]).all()
    assert table["area_mm2"][0] == found.area_mm2 or (np.isnan(table["area_mm2"][0]) and found.area_mm2 is None)
    assert sim.simulate(graph, chip).energy_breakdown_j == {}
    for command in ("estimate", "simulate", "sweep"):
        done = CliRunner().invoke(app, [command, "gemm", "--hw", "systolic", "--set", override])
        assert done.exit_code == 0, done.output
        assert not re.search(r"\binf [JW]|\bnan\b", done.stdout)
    with pytest.raises(ConfigError, match="energy is asked of systolic, but"):
        sim.estimate(graph, chip, objective="energy")
