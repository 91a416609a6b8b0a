"""Our kernels as the simulator costs them: work by hand, and what each buys."""

from __future__ import annotations

import pytest

import sim
from sim.baseline.compare import OURS, compare_records, one_launch_s, op_graph
from sim.baseline.kernels.plain import PLAIN
from sim.baseline.ops import op_spec
from sim.baseline.record import BaselineRecord, Kind
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


def test_compare_puts_them_beside_a_measurement() -> None:
    same = {"device": "h100", "backend": "cuda", "kind": Kind.MEASURED, "median_s": 1e-5, "n": 9}
    records = [
        BaselineRecord(op=kind, knobs=params, precision=precision, **same)
        for kind, (params, precision) in SHAPES.items()
    ]
    rows = compare_records(records, "h100-sxm").rows
    assert [row.note for row in rows] == ["", "", ""]
    assert all(row.ratio and row.ratio > 0 for row in rows)
