"""Figures of a search with three objectives: the third is seen, no line strikes a value, shares are shares."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

from sim.codesign.found import Baseline, Found, Row
from sim.codesign.importance import levels, shares
from sim.view.labels import apart, renderer_of
from sim.view.search import coordinates, frontier, importance, parallel_coordinates


def found_of(*rows: tuple[dict[str, Any], tuple[float, ...]], **more: Any) -> Found:
    settings: dict[str, Any] = {
        "space": "s", "title": "", "objectives": ("latency", "area", "quality"), "signs": (1.0, 1.0, -1.0), "trials": 3,
        "covered": 30, "points": 30, "costed": 9, "counts": {}, "left_untold": 0, "repeats": 0, "spent": {},
        "reached": ((0, 10),), "sampler": "random", "seed": 0,
    }  # fmt: skip
    told = tuple(Row(number=i, parameters=parameters, values=values) for i, (parameters, values) in enumerate(rows))
    return Found(rows=told, **{**settings, **more})


@pytest.fixture
def found() -> Found:
    """Four designs that none beats; all have the same SRAM."""
    return found_of(
        ({"array.rows": 16, "SRAM.capacity": "1 MiB"}, (40e-6, 2.0, 70.0)),
        ({"array.rows": 32, "SRAM.capacity": "1 MiB"}, (20e-6, 4.0, 70.0)),
        ({"array.rows": 48, "SRAM.capacity": "1 MiB"}, (30e-6, 4.0, 71.0)),
        ({"array.rows": 64, "SRAM.capacity": "1 MiB"}, (10e-6, 8.0, 70.5)),
        baselines=(Baseline(name="gpu", values=(2.0, None, None), source="x"),),
    )


def _texts(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [t.get_text() for t in legend.get_texts()] if legend else []


def test_the_third_objective_is_the_colour_and_has_its_key(found: Found) -> None:
    ax = frontier(found)
    front = next(c for c in ax.collections if len(c.get_offsets()) == 4)
    assert len({tuple(colour) for colour in front.get_facecolors()}) == 3  # 70 twice
    (key,) = [other for other in ax.figure.axes if other is not ax]
    assert key.get_ylabel() == "quality, larger is better"
    assert "Pareto set of latency, area, quality (colour)" in _texts(ax)
    assert ax.get_xlabel() == "latency [µs], smaller is better"


def test_a_third_objective_that_is_the_same_in_all_is_said_so(found: Found) -> None:
    same = found_of(*((row.parameters, (row.values[0], row.values[1], 70.0)) for row in found.rows if row.number != 2))
    ax = frontier(same)
    assert "Pareto set of latency, area, quality (70 in all)" in _texts(ax)
    assert ax.figure.axes == [ax]


def test_the_key_lies_outside_the_data(found: Found) -> None:
    ax = frontier(found)
    ax.figure.draw_without_rendering()
    renderer = renderer_of(ax)
    assert not ax.get_legend().get_window_extent(renderer).overlaps(ax.get_window_extent(renderer).padded(-2))


def test_a_baseline_far_off_does_not_stretch_the_axes(found: Found) -> None:
    ax = frontier(found)
    assert ax.get_xlim()[1] < 100e-6
    assert "gpu: 2 s, beyond the axes" in _texts(ax)


def test_what_is_the_same_in_all_designs_is_written_once(found: Found) -> None:
    names, heights, ticks = coordinates(found)
    assert names == ["array.rows", "SRAM.capacity", "latency", "area", "quality"]
    assert ticks == [["16", "32", "48", "64"], ["1 MiB"], ["10 µs", "40 µs"], ["2 mm2", "8 mm2"], ["70", "71"]]
    assert set(heights[:, 1]) == {0.5}


def test_no_line_strikes_a_value(found: Found) -> None:
    ax = parallel_coordinates(found)
    ax.figure.draw_without_rendering()
    renderer = renderer_of(ax)
    boxes = [np.array(t.get_window_extent(renderer).corners())[[0, 2, 3, 1]] for t in ax.texts]
    assert sorted(t.get_text() for t in ax.texts).count("1 MiB") == 1
    for line in ax.lines:
        corners = ax.transData.transform(line.get_xydata())
        assert all(apart(box, corners) for box in boxes)
    assert all(apart(one, other) for one, other in combinations(boxes, 2))
    key = next(other for other in ax.figure.axes if other is not ax)
    assert key.get_ylabel() == "latency [µs], smaller is better"


def test_shares_by_hand() -> None:
    """y = a + b: half each. Twins split the whole. What no parameter moves has no share."""
    grid = {"a": list("0011"), "b": list("0101")}
    values = np.array([[0.0, 5.0], [1.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    assert {name: list(share) for name, share in shares(grid, values).items()} == {
        "a": pytest.approx([0.5, 0]),
        "b": pytest.approx([0.5, 0]),
    }
    twins = shares({"a": list("0011"), "twin": list("xxyy"), "fixed": list("zzzz")}, np.array([[0.0], [0], [1], [1]]))
    assert [twins[name][0] for name in ("a", "twin", "fixed")] == pytest.approx([0.5, 0.5, 0])
    assert levels(grid) == {"a": 2, "b": 2}


def test_correlated_parameters_do_not_count_twice() -> None:
    """Where each alone explains 0.83 and 0.89 of the variance, the shares add to the joint R^2."""
    grid = {"rows": list("001122"), "bandwidth": list("000111")}
    values = np.array([[0.0], [0.1], [0.9], [1.1], [2.0], [2.1]])
    found = shares(grid, values)
    assert sum(share[0] for share in found.values()) <= 1 + 1e-12
    codes = np.column_stack([np.ones(6), np.eye(3)[[0, 0, 1, 1, 2, 2]], [0, 0, 0, 1, 1, 1]])
    fitted = codes @ np.linalg.lstsq(codes, values, rcond=None)[0]
    joint = 1 - ((values - fitted) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    assert sum(share[0] for share in found.values()) == pytest.approx(joint)


@given(
    st.lists(st.tuples(*[st.integers(0, 2)] * 6, st.floats(-3, 3)), min_size=2, max_size=25),
)
def test_shares_are_shares(rows: list[tuple[Any, ...]]) -> None:
    """Six parameters, whatever the sample: none below 0, in sum at most 1, the same twice."""
    grid = {f"p{i}": [str(row[i]) for row in rows] for i in range(6)}
    values = np.array([[row[6]] for row in rows])
    found = shares(grid, values)
    assert all(share[0] >= -1e-9 for share in found.values())
    assert sum(share[0] for share in found.values()) <= 1 + 1e-6
    assert found == shares(grid, values)


def test_importance_says_what_it_rests_on(found: Found) -> None:
    ax = importance(found)
    title = ax.get_title(loc="left")
    assert "4 feasible pairs, each trial's best" in title
    assert "3 effects fitted" in title
    assert "fewer than 3 pairs an effect" in title
    assert "SRAM.capacity" in title
    assert [t.get_text() for t in ax.get_yticklabels()] == ["array.rows"]
    widths = [bar.get_width() for bar in ax.patches]
    assert len(widths) == 3
    assert max(widths) <= 1 + 1e-9
