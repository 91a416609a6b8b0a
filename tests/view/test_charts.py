"""Figures of designs and accuracy: the data steps by hand, units on axes, refusals."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.results import Estimate, WhatIf
from sim.view import charts

TABLE = {
    "rows": [16, 16, 32, 32],
    "bandwidth": ["1 GB/s", "2 GB/s", "1 GB/s", "2 GB/s"],
    "latency_s": [4.0, 3.0, 2.0, None],
    "energy_j": [1.0, 2.0, 3.0, 4.0],
}


def test_grid_by_hand() -> None:
    across, up, cells = charts.grid_of(TABLE, "rows", "bandwidth", "latency_s")
    assert (across, up) == ([16, 32], ["1 GB/s", "2 GB/s"])
    assert cells[0] == [4.0, 2.0]
    assert cells[1][0] == 3.0
    assert isnan(cells[1][1])
    twice = {key: [*values, values[0]] for key, values in TABLE.items()}
    with pytest.raises(ValueError, match="several rows"):
        charts.grid_of(twice, "rows", "bandwidth", "latency_s")


def test_names_and_units_of_columns() -> None:
    found = [charts.named(name) for name in ("latency_s", "throughput_per_s", "area_mm2", "array.rows")]
    assert found == [("latency", "s"), ("throughput", "1/s"), ("area", "mm²"), ("array.rows", "")]


def test_savings_are_relative_and_largest_first(estimate: Estimate) -> None:
    """0.8 of the latency is -20 %, 1.1 of it +10 %."""
    entries = tuple(
        WhatIf(resource=name, factor=2.0, latency_s=f * estimate.latency_s) for name, f in (("a", 1.1), ("b", 0.8))
    )
    found = charts.savings(replace(estimate, what_if=entries))
    assert [name for name, _ in found] == ["b × 2", "a × 2"]
    assert [change for _, change in found] == pytest.approx([-0.2, 0.1])
    with pytest.raises(ValueError, match="no what-if"):
        charts.tornado(replace(estimate, what_if=()))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20))
def test_front_is_what_none_beats(points: list[tuple[int, int]]) -> None:
    """Against the definition: no other point is at least as good in both and better in one."""

    def beaten(p: tuple[int, int]) -> bool:
        return any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)

    assert sorted(charts.front(points)) == [i for i, p in enumerate(points) if not beaten(p)]


def test_a_small_heat_map_tells_its_values_and_a_large_one_has_contours() -> None:
    table = {"x": [1, 2, 1, 2], "y": ["a", "a", "b", "b"], "latency_s": [1e-3, 2.3456e-3, 3e-3, None]}
    ax = sim.plot.heat_map(table, "x", "y")
    assert [text.get_text() for text in ax.texts] == ["1", "2.35", "3"]  # ms; nothing where there is no value
    side = range(9)
    large = {"x": [x for x in side for _ in side], "y": [y for _ in side for y in side],
             "latency_s": [1e-3 * (1 + x + y) for x in side for y in side]}  # fmt: skip
    assert len(sim.plot.heat_map(large, "x", "y").collections) == 1


def test_drawing_leaves_global_state_alone(estimate: Estimate) -> None:
    before = dict(mpl.rcParams)
    assert sim.plot.heat_map(TABLE, "rows", "bandwidth").get_xlabel() == "rows"
    ax = sim.plot.pareto(TABLE, marks={"baseline": (2.5, 2.5)})
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("latency [s]", "energy [J]")
    assert [t.get_text() for t in ax.texts] == ["baseline"]
    assert "[%]" in sim.plot.tornado(estimate).get_xlabel()
    ax = sim.plot.measured_against_estimated({"near": (1.0, 1.02), "far": (2.0, 4.0)})
    assert [t.get_text() for t in ax.texts] == ["far"]
    checks = [{"id": "g.a", "rel_error": 0.1, "verdict": "pass"}, {"id": "g.b", "rel_error": 5.0, "verdict": "info"},
              {"id": "h", "rel_error": None, "verdict": "info"}]  # fmt: skip
    ax = sim.plot.validation({"checks": checks})
    assert [t.get_text() for t in ax.get_yticklabels()] == ["g (2)"]
    assert dict(mpl.rcParams) == before
