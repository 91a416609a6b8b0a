"""The roofline's data step by hand, and what must be true of the drawn figure: no overlap, units, no global state."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.text import Annotation, Text

import sim
from sim.cost.roofline import roofline
from sim.hardware.chip import Chip
from sim.results import Estimate, Term, Traffic, WhatIf
from sim.view import figures, palette, points
from sim.view.labels import apart, outline_of, renderer_of, text_box
from sim.workload.graph import Graph


def test_points_stand_where_the_op_says(estimate: Estimate) -> None:
    """x = FLOP / DRAM bytes, y = FLOP / latency; equal ops become one disc and shares stay whole."""
    alone = replace(estimate, ops=estimate.ops[:1], latency_s=estimate.ops[0].latency_s)
    op, (point,) = alone.ops[0], points.view_of(alone).points
    moved = sum(t.read + t.write for t in op.traffic_bytes["DRAM"].values())
    assert point.x == pytest.approx(2 * op.macs / moved)
    assert point.y == pytest.approx(2 * op.macs / op.latency_s)
    assert point.share == pytest.approx(1)
    twice = replace(alone, ops=(op, op), latency_s=2 * op.latency_s)
    (merged,) = points.view_of(twice).points
    assert merged.share == pytest.approx(1)
    assert merged.label.endswith(" x 2")


def test_no_point_is_above_the_roof(estimate: Estimate) -> None:
    """The made-up ops are slower than their rooflines, so each disc lies under the peak."""
    view = points.view_of(estimate)
    peak = next(rate for _, rate, running in view.flats if running)
    assert peak == pytest.approx(128e9)
    assert all(point.y <= peak for point in view.points)
    assert sum(point.share for point in view.points) == pytest.approx(1)


def test_no_disc_of_a_system_is_above_the_roof_of_one_chip() -> None:
    """Eight chips share 4096^3 MACs, and the roof is one chip's: the disc stands at an eighth of the FLOP."""
    found = sim.estimate(sim.gemm(4096, 4096, 4096, dtype="bf16"), sim.load_hardware("h100-sxm-x8"))
    view = points.view_of(found)
    peak = next(rate for _, rate, running in view.flats if running)
    product = max(found.ops, key=lambda op: op.macs)
    assert product.macs == 4096**3
    (point,) = [point for point in view.points if point.kind == "matrix product"]
    assert point.y == pytest.approx(2 * 4096**3 / 8 / product.latency_s)
    assert point.y <= peak
    assert "work and roofs of one of 8 chips" in view.subtitle


def test_a_disc_above_the_roof_is_explained() -> None:
    """A causal mask hides about half of the scores, which count as done: attention stands at about twice the peak."""
    bound = sim.roofline(sim.load_workload("llama", context=512), sim.load_hardware("tpu-v5e"))
    view = points.view_of(bound)
    peak = next(rate for _, rate, running in view.flats if running)
    assert max(point.y for point in view.points if point.kind == "attention") == pytest.approx(2 * peak, rel=0.01)
    assert points.WHY_ABOVE in view.caption
    legend = figures.roofline(bound).get_legend()
    assert points.WHY_ABOVE in [text.get_text() for text in legend.get_texts()]
    plain = points.view_of(sim.roofline(sim.gemm(512, 512, 512, dtype="bf16"), sim.load_hardware("tpu-v5e")))
    assert points.WHY_ABOVE not in plain.caption


def test_ops_without_arithmetic_are_named_in_the_subtitle(estimate: Estimate) -> None:
    copy = replace(estimate.ops[0], macs=0, vector_ops=0, latency_s=estimate.latency_s)
    found = replace(estimate, ops=(*estimate.ops, copy), latency_s=2 * estimate.latency_s)
    assert "ops without arithmetic (50 % of the time) are not shown" in points.view_of(found).subtitle


def test_an_op_whose_bytes_the_caches_hold_stands_at_those_that_it_touches(estimate: Estimate) -> None:
    """Half a byte at home, and nobody counts what moves on chip: the roofline's bytes of the op, hollow."""
    op = estimate.ops[0]
    warm = replace(op, traffic_bytes={"DRAM": {"all": Traffic(read=0.5, write=0.0)}})
    (point,) = points.view_of(replace(estimate, ops=(warm,), latency_s=op.latency_s)).points
    (bound,) = [one for one in estimate.roofline["ops"] if one["name"] == op.name]
    assert point.x == pytest.approx((2 * op.macs + op.vector_ops) / sum(bound["traffic_bytes"].values()))
    assert point.y == pytest.approx((2 * op.macs + op.vector_ops) / op.latency_s)
    assert point.on_chip


@pytest.mark.parametrize("calibration", ["auto", "none"])
@pytest.mark.parametrize("hardware", ["epyc-zen4", "xeon-gnr"])
def test_every_op_with_arithmetic_of_a_cpu_is_drawn(hardware: str, calibration: str) -> None:
    """Discs and what the subtitle names make up the whole time."""
    found = sim.estimate(sim.load_workload("lstm"), sim.load_hardware(hardware), calibration=calibration)
    view = points.view_of(found)
    still = sum(op.latency_s for op in found.ops if not op.macs + op.vector_ops) / found.latency_s
    assert sum(point.share for point in view.points) == pytest.approx(1 - still)
    assert ("ops without arithmetic" in view.subtitle) == (still > 0.0005)
    assert "that move nothing" not in view.subtitle


def test_ops_that_move_nothing_are_named_in_the_subtitle(estimate: Estimate) -> None:
    op = replace(estimate.ops[0], name="elsewhere", traffic_bytes={}, latency_s=estimate.latency_s)
    found = replace(estimate, ops=(*estimate.ops, op), latency_s=2 * estimate.latency_s)
    assert "ops that move nothing (50 % of the time) are not shown" in points.view_of(found).subtitle


def test_an_estimate_without_its_roofline(estimate: Estimate) -> None:
    with pytest.raises(ValueError, match="carries no roofline"):
        points.view_of(replace(estimate, roofline={}))


def test_common_names() -> None:
    assert points._common_label(["layer1.1.conv2", "layer1.2.conv2"]) == "layer1.*.conv2 x 2"
    assert points._common_label(["layers.0.q", "layers.0.k", "layers.1.q"]) == "layers.*.q/k x 3"
    assert points._common_label(["a.b", "c"]) == "a.b and 1 more"
    assert points._common_label(["a.b", "c.d"]) == "a.b and 1 more"
    assert points._common_label(["only"]) == "only"


def test_labels_do_not_overlap(estimate: Estimate) -> None:
    """No two texts inside the axes share a pixel, labels of ops, ceilings and ridges alike."""
    ax = figures.roofline(estimate)
    renderer = renderer_of(ax)
    texts = [t for t in ax.texts if isinstance(t, Annotation) and t.get_text()]
    assert sum(" x " in t.get_text() for t in texts) >= 6
    boxes = [text_box(t, renderer).padded(-3) for t in texts]
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    inside = ax.get_window_extent(renderer)
    assert all(inside.contains(box.x0, box.y0) and inside.contains(box.x1, box.y1) for box in boxes)


@pytest.mark.parametrize("chips", [("systolic", "tpu-v5e"), ("edge-npu", "h100-sxm")])
@pytest.mark.parametrize("workload", ["mlp", "resnet18", "mobilenet_v2"])
def test_nothing_crosses_a_label(workload: str, chips: tuple[str, str]) -> None:
    """No roof, ceiling, disc or other text meets a text of the drawn figure; ridge and home memory are named."""
    graph = sim.load_workload(workload)
    grid = figures.roofline_grid([sim.roofline(graph, sim.load_hardware(chip)) for chip in chips])
    for ax in grid.axes:
        renderer = renderer_of(ax)
        notes = [t for t in ax.texts if isinstance(t, Annotation)]
        assert any("FLOP/byte" in note.get_text() for note in notes)
        assert any(note.get_text().startswith("DRAM") or "HBM" in note.get_text() for note in notes)
        for one, other in combinations([outline_of(note, renderer) for note in notes], 2):
            assert apart(one, other)
        lines = [ax.transData.transform(line.get_xydata()) for line in ax.lines]
        for note in notes:
            box = outline_of(note, renderer)
            for corners in lines:
                assert all(apart(box, corners[i : i + 2]) for i in range(len(corners) - 1)), note.get_text()
            for scatter in ax.collections:
                for place in ax.transData.transform(scatter.get_offsets()):
                    assert _distance(place, box) >= scatter.get_sizes()[0] ** 0.5 / 2 * 0.95, note.get_text()


def _distance(place: np.ndarray, box: np.ndarray) -> float:
    """From a point to a rectangle, (4, 2), in pixels: in the axes of the rectangle, 0 inside."""
    along, up = box[1] - box[0], box[3] - box[0]
    outside = []
    for side in (along, up):
        length = float(np.hypot(*side))
        at = float((place - box[0]) @ side) / length
        outside.append(max(-at, at - length, 0.0))
    return float(np.hypot(*outside))


def test_the_star_of_a_measured_network_has_its_place(estimate: Estimate, bottlenecks: Graph, toy_chip: Chip) -> None:
    """The axes hold it from the start, so that labels and ridge stand where they were placed."""
    bound = roofline(bottlenecks, toy_chip)
    plain, ax = figures.roofline(bound), figures.roofline(bound, measured_s=100 * estimate.latency_s)
    assert ax.get_ylim()[0] < plain.get_ylim()[0]
    renderer = renderer_of(ax)
    boxes = {t.get_text(): outline_of(t, renderer) for t in ax.texts if isinstance(t, Annotation)}
    (label,) = [text for text in boxes if text.startswith("measured")]
    for one, other in combinations(boxes.values(), 2):
        assert apart(one, other)
    star = ax.transData.transform(points.measured_place(bound, 100 * estimate.latency_s))
    assert all(_distance(star, box) > 0 for box in boxes.values())
    assert _distance(star, boxes[label]) < 150


def test_apart_by_hand() -> None:
    """A unit square, a line through its corner region, one that passes by it, and a square beside it."""
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)
    assert not apart(square, np.array([(-1, 0.5), (2, 0.6)]))
    assert not apart(square, np.array([(0.5, 0.5), (0.6, 0.5)]))  # inside
    assert apart(square, np.array([(1.2, 0.0), (2.4, 1.2)]))
    assert apart(square, np.array([(0.9, 1.3), (1.3, 0.9)]))  # boxes overlap, shapes do not
    assert apart(square, square + np.array([1.5, 0]))


def test_figures_have_units_and_leave_global_state_alone(
    estimate: Estimate, bottlenecks: Graph, toy_chip: Chip
) -> None:
    before = dict(mpl.rcParams)
    ax = sim.plot.roofline(estimate)
    assert "[FLOP/byte]" in ax.get_xlabel()
    assert "[FLOP/s]" in ax.get_ylabel()
    assert sim.plot.breakdown(estimate).get_xlabel() == "latency [ms]"
    grid = sim.plot.roofline_grid([estimate, roofline(bottlenecks, toy_chip)])
    assert len(grid.axes) == 2
    assert grid.axes[0].get_xlim() == grid.axes[1].get_xlim()
    assert dict(mpl.rcParams) == before
    drawn = [t.get_text() for t in ax.findobj(Text)]
    assert any("DRAM 10 GB/s" in text for text in drawn)
    assert any("ridge 12.8 FLOP/byte" in text for text in drawn)


def test_draws_into_given_axes(estimate: Estimate) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, 2)
    assert sim.plot.roofline(estimate, ax=axes[0]) is axes[0]
    assert sim.plot.breakdown([estimate, estimate], ax=axes[1]) is axes[1]


def test_bars_end_at_the_latency(estimate: Estimate) -> None:
    ax = figures.breakdown(estimate)
    ends = [patch.get_x() + patch.get_width() for patch in ax.patches]
    assert max(ends) == pytest.approx(estimate.latency_s)


def test_every_term_and_kind_has_its_own_colour() -> None:
    assert set(palette.TERMS) == set(Term)
    for colours in (palette.TERMS, palette.KINDS):
        assert len(set(colours.values())) == len(colours)


def test_an_op_that_takes_no_time_does_not_stretch_the_axis(estimate: Estimate) -> None:
    """A thousandth of the time at 10^9 FLOP/byte: the axis ends where it did, the op is an arrow at its edge."""
    before = points.view_of(estimate)
    far = points.Point(1e9, 1e9, 1e-3, "vector", "pool", False)
    assert points._reach([(p.x, p.share) for p in (*before.points, far)], points.RIGHT) == max(
        p.x for p in before.points
    )
    assert points._reach([(10.0, 0.5), (50.0, 0.01)], 0.05) == 50.0  # five times further: nothing gained
    assert points._reach([(10.0, 0.5), (5000.0, 0.5)], 0.05) == 5000.0  # half of the time: it counts
    ax = figures.roofline(estimate)
    x, _, marker = figures._inside(ax, far)
    assert marker == ">"
    assert x < ax.get_xlim()[1]
    near = before.points[0]
    assert figures._inside(ax, near) == (near.x, near.y, "o")


def test_what_caches_catch_stands_at_the_memory_that_moves_it(estimate: Estimate) -> None:
    """20 bytes of DRAM beside 10^6 of SRAM: 2 FLOP / 10^6 bytes of SRAM, and hollow."""
    op = replace(
        estimate.ops[0],
        macs=1_000_000,
        vector_ops=0,
        traffic_bytes={"DRAM": {"input": Traffic(read=20)}, "SRAM": {"input": Traffic(read=1e6)}},
    )
    (point,) = points.view_of(replace(estimate, ops=(op,), latency_s=op.latency_s)).points
    assert point.on_chip
    assert point.x == pytest.approx(2.0)


def test_names_are_never_formulas(estimate: Estimate) -> None:
    """A dollar sign in a name is a dollar sign, and half a formula does not end the drawing."""
    op = replace(estimate.ops[0], name="$x_{$", module="$x_{$.<b>", latency_s=0.5)
    found = replace(
        estimate,
        workload_name=r"w$\frac",
        hardware_name="c$_{",
        ops=(op, *estimate.ops[1:]),
        what_if=(WhatIf(resource="$a$", factor=2.0, latency_s=0.1),),
    )
    for draw in (figures.roofline, figures.breakdown, figures.tornado):
        buffer = BytesIO()
        draw(found).figure.savefig(buffer, format="svg")
        assert b"<b>" not in buffer.getvalue()
    shown = [t.get_text() for t in figures.roofline(found).texts]
    assert r"\$x_{\$.<b>" in shown
