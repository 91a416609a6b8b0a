"""Held-out records against their estimates: what is drawn of four points, by hand."""

from dataclasses import dataclass

import pytest

import sim
from sim.view import palette


@dataclass(frozen=True)
class Point:
    group: str
    network: bool
    measured_s: float
    estimated_s: float = 1.0
    interval_s: tuple[float, float] | None = (0.8, 1.25)


def colours(ax):
    """Ratio -> colour of its dot."""
    return {round(float(line.get_xdata()[0]), 6): line.get_color() for line in ax.lines if line.get_marker() == "o"}


@pytest.mark.parametrize("networks", [True, False])
def test_ops_and_networks_have_intervals_and_what_lies_outside_is_orange(networks):
    points = [
        Point("a", networks, 1.1),
        Point("a", networks, 1.3),
        Point("b", networks, 0.9),
        Point("c", not networks, 7),
    ]
    ax = sim.plot.held_out(points, networks=networks, device="some-gpu")
    assert colours(ax) == {1.1: palette.BLUE, 1.3: palette.VERMILION, 0.9: palette.BLUE}
    bars = [line for line in ax.lines if line.get_color() == palette.LIGHT_GREY]
    assert [list(bar.get_xdata()) for bar in bars] == [[0.8, 1.25]] * 3
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_title(loc="left").startswith("some-gpu: ")
    assert "outside its interval" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_row_of_many_dots_is_higher():
    """Thirty dots take 0.3 + 30 x 0.09 = 3 rows, the one below them one."""
    points = [Point("a", False, 1.0 + i / 100) for i in range(30)] + [Point("b", False, 1.0)]
    ax = sim.plot.held_out(points, networks=False)
    assert list(ax.get_yticks()) == pytest.approx([1.5, 3.5])
    assert ax.get_ylim() == pytest.approx((4.0, 0.0))
