"""Figures of compression: the data step by hand, and that axes carry units."""

import io
import math
from itertools import combinations
from types import SimpleNamespace

import pytest
from rich.console import Console

from sim.errors import ResultError
from sim.view.compression import (
    Candidate,
    frontier,
    quality_latency,
    sensitivity,
    sensitivity_series,
    study_figure,
    study_tables,
)
from sim.view.labels import apart, outline_of, renderer_of


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


def test_names_lie_inside_the_axes_and_apart():
    """Ten recipes, several of equal latency or quality, as in the documentation."""
    times = (555, 213, 213, 553, 176, 176, 212, 141, 130, 554)
    accuracies = (90.7, 90.8, 90.8, 90.8, 87.3, 89.5, 90.3, 90.4, 84.9, 89.0)
    rows = [
        Candidate(name=f"recipe-number-{k}", latency_s=1e-6 * t, quality=q, quality_error=0.3)
        for k, (t, q) in enumerate(zip(times, accuracies, strict=True))
    ]
    ax = quality_latency(rows, metric="accuracy %", higher_is_better=True, chip="toy")
    shown = {text.get_text(): outline_of(text, renderer_of(ax)) for text in ax.texts}
    assert set(shown) == {row.name for row in rows}
    assert all(apart(one, other) for one, other in combinations(shown.values(), 2))


def test_names_without_room_stand_in_the_legend():
    rows = [Candidate(name=f"{'long' * 20} {k}", latency_s=1e-6, quality=90.0) for k in range(60)]
    ax = quality_latency(rows, metric="accuracy %", higher_is_better=True, chip="toy")
    named = [text.get_text() for text in ax.texts]
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert all(any(text.startswith(row.name) for text in (*named, *told)) for row in rows)


def test_layers_that_lose_nothing_are_said_to():
    ax = sensitivity([Row("stem", "int8", 0.0)], metric="accuracy %")
    assert [text.get_text() for text in ax.texts] == ["no layer loses anything"]
    assert not sensitivity(ROWS, metric="accuracy %").texts


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


def quality(value):
    return SimpleNamespace(value=value, metric="accuracy %", standard_error=0.25, higher_is_better=True, method="train")


def cost(precision, latency_s, energy_j):
    return SimpleNamespace(
        precision=precision, latency_s=latency_s, energy_j=energy_j, dram_bytes=2000.0, weight_bytes=1000.0
    )


def study(benefits, **knobs):
    report = SimpleNamespace(
        technique="quantise", untreated={"a": "no treatment", "b": "no treatment"}, notes=("c: int4",)
    )
    result = SimpleNamespace(
        recipe="int8-ptq", quality=quality(90.5), parameter_bytes=250.0, benefits=benefits, reports=(report,)
    )
    return SimpleNamespace(
        workload="toy", knobs=knobs, quality=quality(91.0), parameter_bytes=1000.0, results=(result,), notes=()
    )


def benefit():
    before, after = cost("bf16", 4e-6, None), cost("int8", 2e-6, 3e-6)
    return SimpleNamespace(chip="npu", before=before, after=after, speedup=2.0, notes=("no 2:4 unit",))


def test_the_costs_of_a_batch_are_said_to_be_a_batchs():
    console = Console(file=io.StringIO(), width=120)
    for part in study_tables(study((benefit(),), batch="64")):
        console.print(part)
    assert "A batch of 64 on npu" in console.file.getvalue()


def test_tables_say_what_was_gained_left_alone_and_lacked():
    console = Console(file=io.StringIO(), width=120)
    for part in study_tables(study((benefit(),))):
        console.print(part)
    text = console.file.getvalue()
    for expected in (
        "91 accuracy %",
        "90.5 accuracy %",
        "0.25",
        "bf16",
        "2.00 x",
        "unknown",
        "3",
        "One inference on npu",
    ):
        assert expected in text
    assert "int8-ptq: quantise left alone a, b: no treatment" in text
    assert "int8-ptq on npu: no 2:4 unit" in text


def test_the_figure_shows_the_trained_model_beside_the_recipes():
    (ax,) = study_figure(study((benefit(),))).axes
    assert {t.get_text() for t in ax.texts} == {"as trained, bf16", "int8-ptq"}
    with pytest.raises(ResultError, match="at least one --hw"):
        study_figure(study(()))
