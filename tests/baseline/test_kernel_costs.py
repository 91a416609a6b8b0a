"""Our kernels as the simulator costs them: work by hand, what each buys, and what it costs as it is written."""

from __future__ import annotations

from statistics import median

import pytest

import sim
from sim.baseline.compare import compare_records, one_launch_s
from sim.baseline.graphs import OURS, op_graph
from sim.baseline.kernels.cost import COSTS, written_cost
from sim.baseline.kernels.plain import PLAIN
from sim.baseline.ops import op_spec
from sim.baseline.record import BaselineRecord, Kind, read_baseline
from sim.cost.gpu.device import device_from_chip
from sim.resources import data_dir
from sim.results import Term

SHAPES = {
    "gemm_int4": ({"m": 3, "n": 512, "k": 1024}, "w4a16"),
    "gemm_block_sparse": ({"m": 64, "n": 512, "k": 1024, "keep_percent": 25}, "bf16"),
    "detection_postprocess": ({"batch": 2, "boxes": 500, "classes": 10, "candidates": 100}, "fp32"),
}
H100 = sim.load_hardware("h100-sxm")


def estimate(kind: str, params: dict[str, int], precision: str) -> sim.Estimate:
    return sim.estimate(op_graph(op_spec(kind, params, precision)), H100, precision=precision, inputs="resident")


def test_every_kernel_of_ours_has_a_graph() -> None:
    assert set(OURS) == set(PLAIN) == set(SHAPES)


@pytest.mark.parametrize("kind", OURS)
def test_macs_are_those_of_the_kernel(kind: str) -> None:
    params, precision = SHAPES[kind]
    assert estimate(kind, params, precision).macs == op_spec(kind, params, precision).work.macs


def test_block_sparse_macs_by_hand() -> None:
    # 1024 columns are 16 blocks of 64, a quarter is kept: 4 blocks, 256 columns, of each of the 512 rows.
    assert estimate("gemm_block_sparse", *SHAPES["gemm_block_sparse"]).macs == 64 * 512 * 256


def test_suppression_compares_every_pair() -> None:
    found = estimate("detection_postprocess", *SHAPES["detection_postprocess"])
    (last,) = [op for op in found.ops if op.kind.endswith("nms")]
    # 2 images of 100 candidates: 4,950 pairs of 14 operations, and 100 x 7 comparisons to sort.
    assert last.vector_ops == 2 * (14 * 4950 + 700)


def test_one_row_moves_a_quarter_of_the_weights_with_int4() -> None:
    graph = op_graph(op_spec("gemm_int4", {"m": 1, "n": 8192, "k": 8192}, "w4a16"))
    narrow, wide = (sim.estimate(graph, H100, precision=p, inputs="resident") for p in ("w4a16", "fp16"))
    moved = [sum(t.read for t in e.ops[0].traffic_bytes["DRAM"].values()) for e in (narrow, wide)]
    # 8192 x 8192 weights of half a byte and of two, and the row of 8192 x 2 bytes (plus what L2 misses twice).
    assert moved == pytest.approx([8192 * 8192 / 2 + 16384, 8192 * 8192 * 2 + 16384], rel=0.01)
    assert narrow.latency_s < wide.latency_s


def test_a_fused_kernel_pays_one_launch() -> None:
    found = estimate("detection_postprocess", *SHAPES["detection_postprocess"])
    launches = [op.breakdown_s[Term.LAUNCH] for op in found.ops]
    assert len(launches) > 5
    assert one_launch_s(found) == pytest.approx(found.latency_s - sum(launches) + max(launches))


def test_a_2to4_product_is_half_the_work_of_a_sparse_weight() -> None:
    """1024 x 4096 x 4096: half the MACs are done; the weight is stored as half its 16 bits and two bits a value."""
    graph = op_graph(op_spec("gemm_2to4", {"m": 1024, "n": 4096, "k": 4096}, "bf16"))
    weight, *views = [t for t in graph.tensors.values() if t.pattern == "2:4"]
    assert all(view.storage == (weight.storage or weight.id) for view in views)
    assert weight.density == 0.5
    assert weight.size_bytes == 4096 * 4096 / 2 * 18 / 8
    found = sim.estimate(graph, H100, precision="bf16", inputs="resident")
    assert found.effective_macs == 1024 * 4096 * 4096 / 2
    dense = sim.estimate(op_graph(op_spec("gemm", {"m": 1024, "n": 4096, "k": 4096}, "bf16")), H100, inputs="resident")
    assert 0.5 < found.latency_s / dense.latency_s < 1


GPU = device_from_chip(H100)


def written(kind: str, params: dict[str, int], precision: str):
    cost = written_cost(op_spec(kind, params, precision), GPU, launch_s=1e-6)
    assert cost is not None
    return cost


def test_an_int4_step_by_hand() -> None:
    """m = 1, n = k = 4096: 64 CTAs, one on an SM, 32 steps; 15 of 16 take 1,398 cycles, one waits for memory: 1,905.
    At 1.83 GHz that is 25.0 us."""
    cost = written("gemm_int4", {"m": 1, "n": 4096, "k": 4096}, "w4a16")
    assert cost.parts_s["loop"] == pytest.approx(32 * (15 * 1398 + 1905) / 16 / 1.83e9)
    assert cost.total_s == pytest.approx(1e-6 + 25.0e-6, rel=1e-3)


def test_ctas_side_by_side_issue_in_turn() -> None:
    """133 tiles of 64 columns on 132 SMs: one SM holds two, and the second's 466 instructions a step come on top."""
    one, two = (written("gemm_int4", {"m": 1, "n": 64 * n, "k": 128}, "w4a16").parts_s["loop"] for n in (132, 133))
    assert two - one == pytest.approx(466 / 1.83e9)


def test_a_block_sparse_step_waits_for_its_tiles() -> None:
    """16 kept blocks: each step the latency of memory, 650 cycles at 1.755 GHz, 24 KiB at 64 B a cycle, 491 cycles."""
    cost = written("gemm_block_sparse", {"m": 128, "n": 4096, "k": 4096, "keep_percent": 25}, "bf16")
    step_s = 650 / 1.755e9 + (24 * 1024 / 64 + 491) / 1.83e9
    assert cost.parts_s["loop"] == pytest.approx(16 * step_s)


def test_many_block_sparse_tiles_are_bound_by_l2() -> None:
    """32 x 64 CTAs of 32 steps of 24 KiB, read from L2 at 5,120 B a cycle."""
    cost = written("gemm_block_sparse", {"m": 4096, "n": 4096, "k": 4096, "keep_percent": 50}, "bf16")
    assert max(cost.parts_s.values()) == cost.parts_s["l2"]
    assert cost.parts_s["l2"] == pytest.approx(32 * 64 * 32 * 24 * 1024 / (5120 * 1.83e9))


def test_suppression_goes_box_by_box() -> None:
    """8,400 boxes: 181 candidates (0.864 of one in 40), 686 cycles each and, beside the first warp of each scheduler,
    none; a sort of 256 has 36 stages. The parts add up, with three launches."""
    cost = written("detection_postprocess", {"batch": 1, "boxes": 8400, "classes": 80, "candidates": 1000}, "fp32")
    assert cost.parts_s["suppress"] == pytest.approx(181 * 686 / 1.83e9)
    assert cost.parts_s["sort"] == pytest.approx(36 * 197 / 1.83e9)
    assert cost.total_s == pytest.approx(3e-6 + sum(cost.parts_s.values()))


def test_images_are_suppressed_side_by_side() -> None:
    sizes = {"boxes": 8400, "classes": 80, "candidates": 1000}
    one, all_sms, more = (
        written("detection_postprocess", {"batch": batch, **sizes}, "fp32").parts_s["suppress"]
        for batch in (1, 132, 133)
    )
    assert one == all_sms == pytest.approx(more / 2)


def test_kernels_as_written_on_the_measured_gpu() -> None:
    """Nothing is fitted: 0.69 to 0.98 of what was measured on the H200, 0.93 in the median; never slower."""
    records = read_baseline(data_dir("baselines") / "nvidia-h200.jsonl").latest.values()
    rows = compare_records([r for r in records if r.op in OURS and r.median_s is not None], "h200").rows
    ratios = [row.ratio for row in rows]
    assert len(ratios) == 9
    assert all(ratio is not None and 0.65 < ratio < 1 for ratio in ratios)
    assert 0.90 < median(ratios) < 0.96
    assert all(row.note.startswith("as our kernel is written") for row in rows)


@pytest.mark.parametrize("chip", ["a100-sxm", "tpu-v4i"])
def test_elsewhere_the_words_say_that_the_kernel_is_ideal(chip: str) -> None:
    """The loops were read from code for Hopper."""
    params, precision = SHAPES["gemm_block_sparse"]
    same = {"device": "x", "backend": "cuda", "kind": Kind.MEASURED, "median_s": 1e-5, "n": 9}
    (row,) = compare_records(
        [BaselineRecord(op="gemm_block_sparse", knobs=params, precision=precision, **same)], chip
    ).rows
    assert row.note == "of an ideal kernel, not as ours is written"
    assert row.estimated_s is not None


def test_every_kernel_of_ours_is_costed_as_written() -> None:
    assert set(COSTS) == set(OURS)


def test_compare_puts_them_beside_a_measurement() -> None:
    same = {"device": "h100", "backend": "cuda", "kind": Kind.MEASURED, "median_s": 1e-5, "n": 9}
    records = [
        BaselineRecord(op=kind, knobs=params, precision=precision, **same)
        for kind, (params, precision) in SHAPES.items()
    ]
    rows = compare_records(records, "h100-sxm").rows
    assert all("an ideal one takes" in row.note for row in rows)
    assert all(row.ratio and row.ratio > 0 for row in rows)


def test_every_kind_of_measured_gpu_op_has_an_estimate_beside_it() -> None:
    """One record of each op at each precision of the H200's file."""
    records = read_baseline(data_dir("baselines") / "nvidia-h200.jsonl").latest.values()
    one = {(r.op, r.precision): r for r in records if r.op is not None and r.median_s is not None}
    assert len(one) >= 25
    rows = compare_records(list(one.values()), "h200").rows
    assert [row.name for row in rows if row.ratio is None] == []
