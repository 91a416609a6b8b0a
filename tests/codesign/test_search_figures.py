"""Figures of a search: what is drawn is what was found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.codesign.found import Baseline, Found, Row
from sim.view.search import coordinates, frontier, hypervolume_history, importance, label, write_figures


@pytest.fixture
def found() -> Found:
    """Three designs of one parameter: (1, 4) and (2, 2) are the front, (4, 4) is beaten."""
    rows = tuple(
        Row(number=i, parameters={"SRAM.capacity": size}, values=values, known=known)
        for i, (size, values, known) in enumerate(
            [("512 KiB", (1.0, 4.0), None), ("1 MiB", (2.0, 2.0), "ours"), ("2 MiB", (4.0, 4.0), None)]
        )
    )
    return Found(
        space="s", title="", objectives=("latency", "area"), signs=(1.0, 1.0), rows=rows, trials=3, covered=30,
        points=30, costed=9, counts={"accepted": 9}, left_untold=0, repeats=0, spent={},
        reached=((0, 10), (1, 20), (2, 30)),
        sampler="random", seed=0, baselines=(Baseline(name="gpu", values=(0.5, 9.0), source="x"),),
    )  # fmt: skip


def test_frontier_shows_front_known_and_baseline(found: Found) -> None:
    ax = frontier(found)
    beaten, front, known, baseline = (c.get_offsets().tolist() for c in ax.collections)
    assert beaten == [[4, 4]]
    assert front == [[1, 4], [2, 2]]
    assert known == [[2, 2]]
    assert baseline == [[0.5, 9]]
    assert {t.get_text() for t in ax.texts} == {"ours", "gpu"}
    better = ", smaller is better"
    assert (ax.get_xlabel(), ax.get_ylabel()) == (f"latency [s]{better}", f"area [mm²]{better}")


def test_a_baseline_without_one_of_the_axes_is_a_line(found: Found) -> None:
    """A record that says nothing of the area stands at its latency."""
    one = replace(found, baselines=(Baseline(name="gpu", values=(0.5, None), source="x"),))
    (line,) = frontier(one).lines
    assert list(line.get_xdata()) == [0.5, 0.5]


def test_coordinates_order_quantities_by_size(found: Found) -> None:
    """512 KiB is below 1 MiB although its text is not; objectives span 0 to 1."""
    names, heights, ticks = coordinates(found)
    assert names == ["SRAM.capacity", "latency", "area"]
    assert ticks == [["512 KiB", "1 MiB"], ["1 s", "2 s"], ["2 mm2", "4 mm2"]]
    assert heights.tolist() == [[0, 0, 1], [1, 1, 0]]


def test_history_by_hand(found: Found) -> None:
    """Log objectives: (0, 2), (1, 1), (2, 2) in units of log 2; the reference is 2.2 in the first and 2.1
    in the second. Areas: 2.2 x 0.1 = 0.22, then + 1.2 x 1.0 = 1.42; the third adds nothing."""
    settled, volumes = found.history()
    assert settled == [10, 20, 30]
    assert volumes == pytest.approx([0.22 / 1.42, 1.0, 1.0])
    assert hypervolume_history(found).get_xlabel() == "model-chip pairs settled"


def test_importance_of_the_only_parameter_is_one(found: Found) -> None:
    shares = found.importance()
    assert shares["latency"]["SRAM.capacity"] == pytest.approx(1.0)
    assert [p.get_width() for p in importance(found).patches] == pytest.approx([1.0, 1.0])


def test_files(found: Found, tmp_path) -> None:
    names = {path.name for path in write_figures(found, tmp_path)}
    assert names == {"frontier.png", "hypervolume.png", "importance.png", "parallel.png"}
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)
    assert label("quality") == "quality"
