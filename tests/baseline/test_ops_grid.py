"""Op specs, their work, the torch calls behind them, and grid files."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from sim.baseline.builders import build_op
from sim.baseline.grid import grid_from_dict, load_grid
from sim.baseline.ops import OP_KINDS, op_spec
from sim.baseline.samplers import copies_for_cold, cpu_sampler, energy_per_call_j, rotation
from sim.cli import app
from sim.errors import MeasurementError

GRIDS = Path(__file__).resolve().parents[2] / "baselines" / "grids"

SMALL = {
    "gemm": {"m": 5, "n": 8, "k": 16},
    "bmm": {"batch": 2, "m": 5, "n": 8, "k": 16},
    "conv2d": {"in_channels": 4, "out_channels": 6, "height": 9, "width": 7, "stride": 2, "groups": 2},
    "attention_prefill": {"heads": 4, "kv_heads": 2, "head_dim": 8, "length": 6},
    "attention_decode": {"heads": 4, "kv_heads": 2, "head_dim": 8, "context": 6},
    "linear_layer": {"m": 5, "n": 8, "k": 16},
    "conv2d_layer": {"in_channels": 4, "out_channels": 6, "height": 9, "width": 7, "stride": 2},
    "max_pool2d": {"channels": 4, "height": 9, "width": 7},
    "transpose": {"batch": 2, "rows": 3, "columns": 8},
    "detection_postprocess": {"boxes": 20, "classes": 3},
    **{
        name: {"rows": 3, "columns": 8}
        for name in ("copy", "add", "mul", "relu", "gelu", "softmax", "layer_norm", "rms_norm")
    },
}


def test_gemm_work_by_hand():
    """2 x 3 x 4: 24 MACs; bf16 in (2 x 4 + 3 x 4) x 2 B = 40, out 2 x 3 x 2 = 12; int8 in 20, out int32 24."""
    spec = op_spec("gemm", {"m": 2, "n": 3, "k": 4}, "bf16").work
    assert (spec.macs, spec.in_bytes, spec.out_bytes) == (24, 40, 12)
    spec = op_spec("gemm", {"m": 2, "n": 3, "k": 4}, "int8").work
    assert (spec.macs, spec.in_bytes, spec.out_bytes) == (24, 20, 24)


def test_layer_and_pool_work_by_hand():
    """An int8 layer reads 2 x 4 activations at 4 B and 3 x 4 weights at 1 B, and writes 2 x 3 at 4 B. A pool 3 x 3,
    stride 2, padding 1 over 9 x 7 gives 5 x 4: 20 outputs of 9 compares."""
    work = op_spec("linear_layer", {"m": 2, "n": 3, "k": 4}, "int8").work
    assert (work.macs, work.in_bytes, work.out_bytes) == (24, 44, 24)
    conv = {"in_channels": 2, "out_channels": 3, "height": 4, "width": 4, "batch": 2}
    work = op_spec("conv2d_layer", conv, "int8").work
    assert (work.in_bytes, work.out_bytes) == (2 * 2 * 16 * 4 + 3 * 2 * 9, 2 * 3 * 16 * 4)
    work = op_spec("max_pool2d", {"channels": 1, "height": 9, "width": 7}, "fp32").work
    assert (work.vector_flops, work.out_bytes) == (180, 80)


def test_sparse_and_int4_work_by_hand():
    """m 1, n 64, k 128. 2:4 bf16: 4,096 MACs, weights 4,096 x 2.25 B + 256 B of x.
    int4: 8,192 / 2 B + one scale and zero (4 B) per row and group = 4,096 + 256, and 256 B of x.
    Blocks of 64: two per row, 50 % kept: one, 4,096 weights."""
    assert op_spec("gemm_2to4", {"m": 1, "n": 64, "k": 128}, "bf16").work.in_bytes == 4096 * 2.25 + 256
    assert op_spec("gemm_int4", {"m": 1, "n": 64, "k": 128}, "w4a16").work.in_bytes == 4096 + 256 + 256
    work = op_spec("gemm_block_sparse", {"m": 1, "n": 64, "k": 128, "keep_percent": 50}, "bf16").work
    assert (work.macs, work.in_bytes) == (4096, 4096 * 2 + 256)


@pytest.mark.parametrize("kind", ["gemm", "bmm", "conv2d"])
def test_macs_agree_with_torch(kind):
    spec = op_spec(kind, SMALL[kind], "fp32")
    with FlopCounterMode(display=False) as counter:
        build_op(spec, "cpu")()
    assert counter.get_total_flops() == 2 * spec.work.macs


def test_attention_macs_by_hand():
    """Prefill 6 with 4 heads of 8: 21 causal pairs x 4 heads x 8 x 2 products = 1,344. Decode: 6 x 4 x 8 x 2 = 384;
    it reads 4 x 8 queries and 2 x 2 x 6 x 8 keys and values at 4 B."""
    assert op_spec("attention_prefill", SMALL["attention_prefill"], "fp32").work.macs == 1344
    work = op_spec("attention_decode", SMALL["attention_decode"], "fp32").work
    assert (work.macs, work.in_bytes) == (384, (32 + 192) * 4)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_every_cpu_op_runs_and_writes_what_it_says(kind):
    for precision in OP_KINDS[kind].precisions:
        if precision in ("tf32", "fp8_e4m3"):
            continue
        spec = op_spec(kind, SMALL[kind], precision)
        out = build_op(spec, "cpu")()
        if kind != "detection_postprocess":
            size = out.numel() * out.element_size()
            assert size == spec.work.out_bytes, (kind, precision)


def test_gpu_kernels_are_not_offered_on_the_cpu():
    assert all(OP_KINDS[kind].backends == ("cuda",) for kind in ("gemm_2to4", "gemm_int4", "gemm_block_sparse"))


@pytest.mark.parametrize(
    ("kind", "knobs", "precision", "message"),
    [
        ("gem", {}, "fp32", 'Did you mean "gemm"'),
        ("gemm", {"m": 1, "n": 1, "kk": 1}, "fp32", 'unknown parameter "kk"'),
        ("gemm", {"m": 1, "n": 1}, "fp32", "k is missing"),
        ("gemm", {"m": 0, "n": 1, "k": 1}, "fp32", "m is 0"),
        ("gemm", {"m": 1, "n": 1, "k": 1}, "int3", "precision"),
        ("gemm_int4", {"m": 1, "n": 1, "k": 100}, "w4a16", "multiple of 128"),
        ("attention_decode", {"heads": 3, "kv_heads": 2, "context": 4}, "fp32", "multiple of 2"),
    ],
)
def test_bad_specs_are_refused(kind, knobs, precision, message):
    with pytest.raises(MeasurementError, match=message):
        op_spec(kind, knobs, precision)


def test_cold_copies_by_hand():
    """3 x 32 MiB over 8 MiB: 12; large operands still rotate two; tiny ones are refused."""
    assert copies_for_cold(8 * 2**20, 32 * 2**20) == 12
    assert copies_for_cold(2**30, 32 * 2**20) == 2
    with pytest.raises(MeasurementError, match="too small"):
        copies_for_cold(1024, 32 * 2**20)


def test_rotation_and_sampler_with_a_fake_clock():
    """Five calls over two operand sets: a b a b a; 5,000 ns for five calls is 1 us a call."""
    log: list[str] = []
    ticks = iter([1000, 6000])
    call = rotation([lambda: log.append("a"), lambda: log.append("b")])
    assert cpu_sampler(call, inner=5, clock_ns=lambda: next(ticks))() == pytest.approx(1e-6)
    assert log == ["a", "b", "a", "b", "a"]


def test_energy_per_call_by_hand():
    """The clock moves 0.25 s a run, the counter 10 J: a window of 1 s holds four runs of two calls: 5 J a call."""
    state = {"t": 0.0, "e": 100.0}

    def run() -> None:
        state["t"] += 0.25
        state["e"] += 10.0

    arguments = {"calls": 2, "energy_j": lambda: state["e"], "synchronise": lambda: None, "clock": lambda: state["t"]}
    assert energy_per_call_j(run, window_s=1.0, **arguments) == pytest.approx(5.0)
    assert energy_per_call_j(run, window_s=0.0, **arguments) is None


def test_grid_expansion():
    grid = grid_from_dict(
        {
            "schema": "dovetail.grid/1",
            "name": "g",
            "plan": {"time_limit_s": 3, "energy_s": 1},
            "points": [
                {"op": "gemm", "precision": ["fp32", "bf16"], "product": {"m": [1, 2], "n": 4, "k": 8}},
                {"workload": "mlp", "each": [{"batch": 2}], "plan": {"time_limit_s": 5}},
            ],
        },
        where="here",
    )
    assert [(p.knobs["m"], p.precision) for p in grid.points[:4]] == [
        (1, "fp32"),
        (1, "bf16"),
        (2, "fp32"),
        (2, "bf16"),
    ]
    assert [p.plan.time_limit_s for p in grid.points] == [3, 3, 3, 3, 5]
    assert grid.points[4].energy_s == 1
    assert grid.points[4].knobs == {"batch": 2}


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "no points"),
        ([{"op": "gemm", "workload": "x"}], "either op or workload"),
        ([{"op": "relu", "precison": "fp32"}], 'Did you mean "precision"'),
        ([{"op": "relu", "each": [{"rows": 1, "columns": 1}], "mode": "fast"}], "eager, compile or graph"),
        ([{"workload": "mlp", "phase": "cold"}], "warm"),
        ([{"workload": "mlp"}, {"workload": "mlp"}], "twice"),
        ([{"workload": "mlp", "plan": {"time_limit_s": -1}}], "not negative"),
        ([{"workload": "mlp", "plan": {"time_limit_s": float("nan")}}], "time_limit_s is nan, expected a number"),
        ([{"workload": "mlp", "plan": {"max_samples": 0}}], "max_samples=0: expected a whole number from 1"),
        ([{"workload": "mlp", "plan": {"min_samples": 3.5}}], r"min_samples=3\.5: expected a whole number"),
        ([{"workload": "mlp", "plan": {"confidence": 7}}], "confidence is 7, expected a number below 1"),
        ([{"workload": "mlp", "plan": 3}], r"plan: expected a map such as .*, got 3"),
        ([{"workload": ["mlp"]}], "workload: expected a name, got a list"),
        ([{"op": "relu", "each": 3}], "each: expected a list of maps from knob to value, got 3"),
        ([{"op": "relu", "each": [3]}], "each: expected a list of maps"),
        ([{"op": "relu", "product": [3]}], "product: expected a map from knob to values, got a list"),
        ([{"op": "relu", "each": [{"rows": 1}]}], r"points\[0\]: relu: columns is missing: expected rows, columns"),
        (3, "points: expected a list of entries, got 3"),
    ],
)
def test_bad_grids_say_where(points, message):
    with pytest.raises(MeasurementError, match=message) as caught:
        grid_from_dict({"schema": "dovetail.grid/1", "points": points}, where="here")
    assert "here" in str(caught.value)


def test_shipped_grids_are_valid_and_as_large_as_promised():
    sizes = {name: load_grid(GRIDS / f"{name}.yaml").points for name in ("cpu-ops", "cpu-workloads", "gpu-all")}
    assert len(sizes["cpu-ops"]) >= 110
    assert len(sizes["cpu-workloads"]) >= 40
    kinds = {p.op for p in sizes["gpu-all"]}
    assert {"gemm", "attention_prefill", "attention_decode", "conv2d", "softmax"} <= kinds


def test_random_operands_differ_between_copies():
    spec = op_spec("relu", {"rows": 2, "columns": 8}, "fp32")
    assert not torch.equal(build_op(spec, "cpu")(), build_op(spec, "cpu")())


def test_a_target_that_is_nothing_is_told_what_there_is():
    """Workloads, ops and grids, and the nearest of them all."""
    done = CliRunner().invoke(app, ["measure", "softmaks"])
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert all(name in said for name in ("resnet50", "attention_decode", "cpu-ops", 'Did you mean "softmax"?'))
