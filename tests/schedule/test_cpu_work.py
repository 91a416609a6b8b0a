"""What a framework does for each op on a CPU, by hand."""

from dataclasses import fields

import numpy as np
import pytest
import torch

import sim
from sim.cost.cpu import CLASSES, WIDTHS, CpuWork
from sim.errors import PrecisionError
from sim.schedule.cpu_work import library_work
from sim.schedule.prepare import prepare
from sim.workload.precision import parse_precision


def rows(module: torch.nn.Module, *inputs: torch.Tensor, precision: str = "fp32", chip: str = "epyc-zen4"):
    """Columns by op, in order."""
    with torch.device("meta"):
        graph = sim.trace(module.to("meta").eval(), tuple(x.to("meta") for x in inputs))
    work = library_work(prepare(graph, parse_precision(precision), eager=True), sim.load_hardware(chip))
    columns = {f.name: getattr(work, f.name) for f in fields(CpuWork)}
    return [{name: value[i] for name, value in columns.items()} for i in range(len(work.macs))]


def test_linear_layers_pack_unless_one_row_in_fp32():
    """8 x 4 weights. fp32, 5 rows: 32 packed; one row: 32 streamed; bf16: packed whatever the rows. int8: packed
    ahead; 5 x 8 + 5 x 4 elements are converted at the borders, at 5 B each (fp32 and a byte)."""
    layer = torch.nn.Linear(8, 4, bias=False)
    (many,) = rows(layer, torch.zeros(5, 8))
    (one,) = rows(layer, torch.zeros(1, 8))
    (half,) = rows(layer, torch.zeros(1, 8), precision="bf16")
    (quantised,) = rows(layer, torch.zeros(5, 8), precision="int8")
    assert (many["packed"], many["streamed"]) == (32, 0)
    assert (one["packed"], one["streamed"]) == (0, 32)
    assert (half["packed"], WIDTHS[int(half["width"])]) == (32, "half")
    assert CLASSES[int(quantised["kind"])] == "layer"
    assert (quantised["packed"], quantised["border_bytes"], quantised["permuted"]) == (0, 300, 0)
    assert quantised["passing_bytes"] == 4 * 60  # activations outside the layer stay fp32
    assert quantised["held_bytes"] == 32


def test_convolutions_are_laid_out_anew():
    """2 x 3 x 3 x 3 = 54 weights, 2 x 36 inputs, 3 x 36 outputs, all read and written at 4 B: 8 x 234 B with planes
    outside, 8 x 54 B channels-last. int8: no reorder, but 72 inputs permuted twice."""
    layer = torch.nn.Conv2d(2, 3, 3, padding=1, bias=False)
    x = torch.zeros(1, 2, 6, 6)
    (planes,) = rows(layer, x)
    (last,) = rows(layer, x.contiguous(memory_format=torch.channels_last))
    (quantised,) = rows(layer, x, precision="int8")
    assert planes["reordered_bytes"] == 8 * 234
    assert last["reordered_bytes"] == 8 * 54
    assert (quantised["reordered_bytes"], quantised["permuted"]) == (0, 144)


def test_products_fill_whole_vectors():
    """Zen 4: 16 lanes for results, words of four bytes for the reduction. 5 results take 16 lanes; int8 reductions of
    6 take 8. A convolution of 3 channels to 12 in int8: 4/3 and 16/12 of its MACs at each place."""
    rate = 16 * 3.66e9
    (plain,) = rows(torch.nn.Linear(6, 5, bias=False), torch.zeros(4, 6))
    (narrow,) = rows(torch.nn.Linear(6, 5, bias=False), torch.zeros(4, 6), precision="int8")
    (conv,) = rows(torch.nn.Conv2d(3, 12, 3, bias=False), torch.zeros(1, 3, 5, 5), precision="int8")
    assert plain["matrix_s"] == pytest.approx(4 * 6 * 16 / rate)
    assert narrow["matrix_s"] == pytest.approx(4 * 8 * 16 / (4 * rate))
    assert conv["matrix_s"] == pytest.approx(9 * 9 * 4 * 16 / (4 * rate))


def test_copies_with_a_stride_of_a_power_of_two_leave_the_cache():
    """Zen 4: 16,384 lines of 64 B in the L2. 3,136 pixels of 256 channels in fp32 lie 1,024 B apart: one line in 16,
    so 1,024 of them stay, and the copy to planes takes 3,136 / 1,024 as long. 96 channels: 384 B, 8,192 lines."""
    (wide,) = rows(torch.nn.Conv2d(256, 16, 1, bias=False), torch.zeros(1, 256, 56, 56), precision="int8")
    (thin,) = rows(torch.nn.Conv2d(96, 16, 1, bias=False), torch.zeros(1, 96, 56, 56), precision="int8")
    assert wide["permuted"] == pytest.approx(256 * 3136 * (3136 / 1024 + 1))
    assert thin["permuted"] == 96 * 3136 * 2


def test_pooling_over_planes_is_scalar_but_not_after_int8():
    pool = torch.nn.MaxPool2d(2)
    (row,) = rows(pool, torch.zeros(1, 2, 4, 4))
    assert (row["compares"], row["lanes_s"]) == (32, 0)  # 8 outputs of 4 compares
    after = rows(torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1, bias=False), pool), torch.zeros(1, 2, 4, 4),
                 precision="int8")  # fmt: skip
    assert after[1]["compares"] == 0
    assert after[1]["lanes_s"] > 0


class Attention(torch.nn.Module):
    def forward(self, q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def test_attention_is_one_call_and_skips_blocks():
    """1,024 queries in blocks of 256 and keys in blocks of 512: 512, 512, 1,024, 1,024 of 1,024 keys: 3/4 of the
    scores. Five axes have no kernel: products, and a softmax of its own."""
    q = torch.zeros(1, 1, 1024, 64)
    scores, softmax, context = rows(Attention(), q, q, q)
    assert (scores["calls"], softmax["calls"], context["calls"]) == (1, 0, 0)
    assert softmax["special_s"] == pytest.approx(1024 * 1024 * 0.75 / (16 * 0.06) / 3.66e9)  # 16 lanes a core
    assert softmax["passing_bytes"] == 0
    assert CLASSES[int(context["kind"])] == "attention"
    unfused = rows(Attention(), q[None], q[None], q[None])
    assert CLASSES[int(unfused[0]["kind"])] == "gemm"
    assert all(row["calls"] > 1 for row in unfused)
    assert unfused[1]["passing_bytes"] > 0


def test_small_element_wise_work_stays_on_one_thread():
    relu = torch.nn.ReLU()
    (small,) = rows(relu, torch.zeros(100))
    (large,) = rows(relu, torch.zeros(4, 32768))
    assert (small["grains"], large["grains"]) == (1, 4)


def test_a_network_costs_as_an_estimate_and_unknown_rates_are_refused():
    """Ops sum to the estimate, whose breakdown names the borders of int8 layers."""
    graph = sim.load_workload("mlp", batch=4)
    found = sim.estimate(graph, sim.load_hardware("epyc-zen4"), precision="int8")
    assert found.breakdown_s["dequantise"] > 0
    assert sum(found.breakdown_s.values()) == pytest.approx(found.latency_s)
    assert np.isfinite(found.latency_s)
    with pytest.raises(PrecisionError, match="no rate for fp8_e4m3"):
        sim.estimate(graph, sim.load_hardware("epyc-zen4"), precision="fp8_e4m3")


def test_softmax_of_a_fused_kernel_is_not_free_without_a_calibration():
    """Its primitives on the lanes at the file's rates, the whole scores."""
    graph = sim.trace(Attention(), (torch.zeros(1, 2, 64, 16),) * 3)
    for calibration in ("none", "auto"):
        found = sim.estimate(graph, sim.load_hardware("epyc-zen4"), calibration=calibration)
        (softmax,) = [op for op in found.ops if "softmax" in op.name]
        assert softmax.latency_s > 0
