"""What a framework does for each op on a CPU, by hand."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import sim
from sim.cost.cpu import CLASSES, WIDTHS, CpuWork
from sim.errors import CalibrationError, PrecisionError
from sim.hardware.calibration import calibrations, write_calibration
from sim.results import Term
from sim.schedule.cpu_work import library_work
from sim.schedule.prepare import Manner, prepare
from sim.workload.passes.sparsify import sparsify
from sim.workload.precision import parse_precision


def rows(module: torch.nn.Module, *inputs: torch.Tensor, precision: str = "fp32", chip: str = "epyc-zen4"):
    """Columns by op, in order."""
    with torch.device("meta"):
        graph = sim.trace(module.to("meta").eval(), tuple(x.to("meta") for x in inputs))
    work = library_work(prepare(graph, parse_precision(precision), manner=Manner(eager=True)), sim.load_hardware(chip))
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
    """2 x 3 x 3 x 3 = 54 weights, 2 x 2 x 36 inputs, 2 x 3 x 36 outputs: 414 elements with planes outside, 54
    channels-last, whatever their width. int8: no reorder, but 144 inputs permuted twice. Each reorder is a primitive
    beside the convolution's own."""
    layer = torch.nn.Conv2d(2, 3, 3, padding=1, bias=False)
    x = torch.zeros(2, 2, 6, 6)
    (planes,) = rows(layer, x)
    (last,) = rows(layer, x.contiguous(memory_format=torch.channels_last))
    (quantised,) = rows(layer, x, precision="int8")
    (half,) = rows(layer, x, precision="bf16")
    assert (planes["permuted"], planes["primitives"]) == (414, 4)
    assert (last["permuted"], last["primitives"]) == (54, 2)
    assert (half["permuted"], half["primitives"]) == (414, 4)
    assert (quantised["permuted"], quantised["primitives"]) == (288, 1)


def test_small_images_in_fp32_are_products():
    """Up to 20,480 elements of one image, one group and a window of 3: no library of convolutions, so weights are
    packed (8 x 16) and nothing is reordered. Larger images, batches, groups, windows and 16 bits go to the library."""
    layer = torch.nn.Conv2d(16, 8, 1, bias=False)
    (small,) = rows(layer, torch.zeros(1, 16, 32, 40))
    assert CLASSES[int(small["kind"])] == "gemm"
    assert (small["packed"], small["permuted"], small["primitives"]) == (128, 0, 0)
    wide = torch.nn.Conv2d(16, 8, 5, bias=False)
    grouped = torch.nn.Conv2d(16, 8, 1, groups=2, bias=False)
    for module, shape, precision in (
        (layer, (1, 16, 32, 41), "fp32"),
        (layer, (2, 16, 8, 8), "fp32"),
        (layer, (1, 16, 8, 8), "bf16"),
        (wide, (1, 16, 8, 8), "fp32"),
        (grouped, (1, 16, 8, 8), "fp32"),
    ):
        (row,) = rows(module, torch.zeros(shape), precision=precision)
        assert CLASSES[int(row["kind"])] == "conv"
        assert row["primitives"] == 4


def test_a_bias_passes_the_output_thrice():
    """5 x 8 inputs and 5 x 4 outputs at 4 B: 240 B without a bias, 160 B more where it is laid over the output."""
    plain, biased = (rows(torch.nn.Linear(8, 4, bias=b), torch.zeros(5, 8))[0] for b in (False, True))
    assert (plain["passing_bytes"], biased["passing_bytes"]) == (240, 400)


def test_further_calls_of_a_layer_have_no_python_between():
    """An int8 layer in a network: quantise, product, two more, from one call of Python; a view is a quarter."""
    net = torch.nn.Sequential(torch.nn.Linear(8, 4, bias=False), torch.nn.ReLU())
    linear, relu = rows(net, torch.zeros(5, 8), precision="int8")
    assert (linear["calls"], linear["module_calls"]) == (4.25, 1.25)
    assert (relu["calls"], relu["module_calls"]) == (1, 1)


@pytest.mark.parametrize("calibration", ["auto", "none"])
def test_sparse_int8_layers_are_layers(calibration):
    """2:4 keeps 8 + 2 bits of every other element: fewer bytes at the rate of int8, for CPUs skip nothing."""
    dense = sim.trace(torch.nn.Linear(512, 512), (torch.zeros(64, 512),))
    chip = sim.load_hardware("epyc-zen4")
    before, after = (
        sim.estimate(graph, chip, precision="int8", calibration=calibration) for graph in (dense, sparsify(dense))
    )
    assert after.breakdown_s[Term.COMPUTE] == before.breakdown_s[Term.COMPUTE]
    assert after.latency_s <= before.latency_s


def test_an_lstm_is_one_kernel():
    """3 steps of width 4: 2 x 16 x 4 weights are packed once, read at each step, and only the first step calls, after
    two views of the state. A GRU has no such kernel."""
    x = torch.zeros(1, 3, 4)
    lstm = rows(torch.nn.LSTM(4, 4, batch_first=True), x)
    assert sum(row["packed"] for row in lstm) == 128
    assert sum(row["streamed"] for row in lstm) == 0
    assert sum(row["macs"] for row in lstm) == 3 * 128
    inside = [row for row in lstm if CLASSES[int(row["kind"])] != "movement"]
    assert all(row["passing_bytes"] == 0 for row in inside)
    assert sum(row["calls"] for row in inside) == pytest.approx(1.5)
    gru = rows(torch.nn.GRU(4, 4, batch_first=True), x)
    assert sum(row["calls"] for row in gru) > 20


def test_an_lstm_of_int8_layers_packs_nothing():
    """Their weights are held as the kernel wants them."""
    lstm = rows(torch.nn.LSTM(4, 4, batch_first=True), torch.zeros(1, 3, 4), precision="int8")
    assert sum(row["packed"] + row["streamed"] for row in lstm) == 0
    assert sum(row["macs"] for row in lstm) == 3 * 128


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
    assert softmax["passing_bytes"] == 0
    assert CLASSES[int(context["kind"])] == "attention"
    unfused = rows(Attention(), q[None], q[None], q[None])
    assert CLASSES[int(unfused[0]["kind"])] == "gemm"
    assert all(row["calls"] > 1 for row in unfused)
    assert unfused[1]["passing_bytes"] > 0
    assert softmax["lanes_s"] == pytest.approx(0.75 * unfused[1]["lanes_s"])
    assert unfused[1]["compares"] == 1024 * 1024  # a test of every score, for rows that are masked throughout


def test_unfused_attention_in_16_bits_computes_in_fp32():
    """Products at the fp32 rate, as in fp32. 2 x 16 queries and keys of 8, 2 x 16 x 16 scores at 4 B: 6,144 B or
    twice 3,072 B, and the 512 queries and keys are copied from 2 B to 4 B. Scores pass at 4 B in both."""
    q = torch.zeros(1, 1, 2, 16, 8)
    full, half = (rows(Attention(), q, q, q, precision=p) for p in ("fp32", "bf16"))
    assert half[0]["matrix_s"] == full[0]["matrix_s"]
    assert WIDTHS[int(half[0]["width"])] == "word"
    assert half[0]["primitives"] == 0
    assert half[0]["passing_bytes"] - full[0]["passing_bytes"] == 512 * (2 + 4)
    assert half[1]["passing_bytes"] == full[1]["passing_bytes"]


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


def test_constants_of_another_version_are_refused_with_their_names(tmp_path):
    known = calibrations()["amd-epyc-f25m17-avx512-zen4-2c"]
    file = tmp_path / "old.json"
    write_calibration(file, replace(known, constants={**known.constants, "pool_clocks": 20.0}))
    graph = sim.load_workload("mlp", batch=4)
    with pytest.raises(CalibrationError, match=r"pool_clocks are not of this version; fit it again"):
        sim.estimate(graph, sim.load_hardware("epyc-zen4"), calibration=str(file))


def test_softmax_of_a_fused_kernel_is_not_free_without_a_calibration():
    """Its primitives on the lanes at the file's rates, the whole scores."""
    graph = sim.trace(Attention(), (torch.zeros(1, 2, 64, 16),) * 3)
    for calibration in ("none", "auto"):
        found = sim.estimate(graph, sim.load_hardware("epyc-zen4"), calibration=calibration)
        (softmax,) = [op for op in found.ops if "softmax" in op.name]
        assert softmax.latency_s > 0


@pytest.mark.parametrize("chip", ["epyc-zen4", "h200-torch"])
def test_what_runs_inside_a_recurrent_layers_kernel_is_told(chip):
    found = sim.estimate("lstm", chip)
    free = sum(op.latency_s == 0 for op in found.ops)
    assert free
    assert any(note.startswith(f"{free} ops of recurrent layers run inside") for note in found.notes)


def test_narrow_weights_beside_16_bits_are_bounded_and_costed_at_the_rate_of_the_activations():
    """Two cores of 16 cells at 3.66 GHz: 2 MACs a cell and cycle in bf16, 4 in int8, 1 in fp32. Weights of 8, 4 or 2
    bits beside bf16 are widened, so all three take the cycles of bf16; beside fp32 a layer of int8 weights is a
    quantised one; wide weights multiply activations of 8 bits in the fp32 in which these are kept."""
    chip, size = sim.load_hardware("epyc-zen4"), 1024
    graph = sim.gemm(size, size, size, dtype="fp32")
    for precision, rate in {"w8a16": 2, "w4a16": 2, "w2a16": 2, "w8a32": 4, "w16a8": 1, "bf16": 2, "int8": 4}.items():
        by_hand_s = size**3 / (2 * 16 * rate * 3.66e9)
        assert sim.roofline(graph, chip, precision).resource_s["compute"] == pytest.approx(by_hand_s), precision
        found = sim.estimate(graph, chip, precision=precision, calibration="none")
        assert by_hand_s <= found.latency_s < 1.2 * by_hand_s, precision
