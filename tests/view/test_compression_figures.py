"""Figures of compression: the data step by hand, and that axes carry units."""

import math

from sim.view.compression import Candidate, frontier, quality_latency, sensitivity, sensitivity_series


class Row:
    def __init__(self, layer, choice, loss):
        self.layer, self.choice, self.loss = layer, choice, loss


ROWS = [Row("stem", "int4", 3.0), Row("stem", "int8", 0.1), Row("head", "int4", 0.5)]


def test_series_keep_the_order_and_leave_gaps():
    layers, series = sensitivity_series(ROWS)
    assert layers == ["stem", "head"]
    assert series["int4"] == [3.0, 0.5]
    assert series["int8"][0] == 0.1
    assert math.isnan(series["int8"][1])


def test_frontier_by_hand():
    """b is beaten by a (faster, better); d ties with a and stays."""
    rows = [Candidate(name=n, latency_s=t, quality=q) for n, t, q in
            [("a", 1.0, 90.0), ("b", 2.0, 89.0), ("c", 3.0, 91.0), ("d", 1.0, 90.0)]]  # fmt: skip
    assert [c.name for c in frontier(rows, higher_is_better=True)] == ["a", "d", "c"]
    assert [c.name for c in frontier(rows, higher_is_better=False)] == ["a", "d", "b"]


def test_axes_carry_units_and_every_recipe():
    rows = [
        Candidate(name="float", latency_s=2e-6, quality=91.0, quality_error=0.3),
        Candidate(name="int8", latency_s=1e-6, quality=90.9),
    ]
    ax = quality_latency(rows, metric="accuracy %", higher_is_better=True, chip="toy")
    assert ax.get_xlabel() == "latency on toy [µs]"
    assert {t.get_text() for t in ax.texts} == {"float", "int8"}
    ax = sensitivity(ROWS, metric="accuracy %")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["stem", "head"]
    assert "accuracy %" in ax.get_ylabel()
