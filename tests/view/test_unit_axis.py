"""Axes of one unit: the prefix by hand, and that labels and ticks of every figure agree."""

from __future__ import annotations

import re

import pytest
from matplotlib.axes import Axes

import sim
from sim.results import Estimate
from sim.view.scaling import scaling_figure
from sim.view.unit_axis import PREFIXED, PREFIXES, scale_of

TABLE = {
    "rows": [16, 16, 32, 32],
    "bandwidth": ["1 GB/s", "2 GB/s", "1 GB/s", "2 GB/s"],
    "latency_s": [4e-5, 3e-5, 2e-5, 1e-5],
    "energy_j": [1e-3, 2e-3, 3e-3, 4e-3],
    "area_mm2": [1.0, 2.0, 3.0, 4.0],
}


def test_prefix_by_hand() -> None:
    """The largest value on a linear axis; 1 µs to 1 s has its middle at 1 ms on a logarithmic one."""
    assert scale_of("s", [1e-6, 4.2e-3]) == (1e-3, "ms")
    assert scale_of("s", [1e-6, 1.0], log=True) == (1e-3, "ms")
    assert scale_of("s", [5000.0]) == (1.0, "s")
    assert scale_of("J s", [2e-9]) == (1e-9, "nJ s")
    assert scale_of("byte", [3e6]) == (1e6, "MB")
    assert scale_of("byte", [3.0]) == (1.0, "byte")
    assert scale_of("mm²", [3000.0]) == (1.0, "mm²")
    assert scale_of("s", [0.0]) == (1.0, "s")


UNIT = re.compile(r"\[(.+?)\]")
PREFIX_OF = {prefix + symbol: 10.0**power for symbol, _ in PREFIXED.values() for power, prefix in PREFIXES.items()}


def agrees(ax: Axes) -> None:
    """Ticks of an axis whose label has a unit carry none, and are the place in that unit."""
    for axis in (ax.xaxis, ax.yaxis):
        unit = UNIT.search(axis.get_label_text())
        ticks = axis.get_ticklocs()
        texts = axis.get_major_formatter().format_ticks(ticks)
        for place, text in zip(ticks, texts, strict=True):
            if unit and unit[1] in PREFIX_OF:
                number = text.replace("\N{MINUS SIGN}", "-")
                assert float(number) * PREFIX_OF[unit[1]] == pytest.approx(place, rel=1e-4, abs=1e-20)


def test_ticks_are_in_the_unit_of_the_label(estimate: Estimate) -> None:
    drawn = [
        sim.plot.breakdown(estimate),
        sim.plot.pareto(TABLE),
        sim.plot.pareto(TABLE, "latency_s", "area_mm2"),
        sim.plot.measured_against_estimated({"near": (1e-5, 1.02e-5), "far": (2e-3, 4e-3)}),
        sim.plot.heat_map(TABLE, "rows", "bandwidth"),
    ]
    drawn += sim.plot.heat_map(TABLE, "rows", "bandwidth").figure.axes
    drawn += scaling_figure({"batch": [1, 2, 4], "latency_s": [1e-3, 2e-3, 3e-2]}, "batch").axes
    for ax in drawn:
        agrees(ax)
    labels = {ax.get_xlabel() for ax in drawn} | {ax.get_ylabel() for ax in drawn}
    assert {"latency [ms]", "latency [µs]", "energy [mJ]", "measured [µs]", "estimated [µs]", "area [mm²]"} <= labels
