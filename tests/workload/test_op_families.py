"""Every family of ops that models bring, as a tiny model: traced, counted by hand, costed, none of it free."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as nnf

import sim
from sim.errors import WorkloadError
from sim.schedule.loads import LOAD
from sim.workload.graph import EinsumOp, Graph, MovementOp, Primitive, VectorOp, ViewOp
from sim.workload.load import Workload
from sim.workload.summary import unsupported
from sim.workload.trace import DataPolicy, Vector, register_rule, trace
from sim.workload.trace.export import export

ADD, MUL, FMA, COMPARE, LOGIC = Primitive.ADD, Primitive.MUL, Primitive.FMA, Primitive.COMPARE, Primitive.LOGIC
EXP, TANH, CONVERT, SHUFFLE, RSQRT = (
    Primitive.EXP,
    Primitive.TANH,
    Primitive.CONVERT,
    Primitive.SHUFFLE,
    Primitive.RSQRT,
)


class Call(nn.Module):
    """A function as a model."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def empty(*shape, dtype=None):
    return torch.empty(shape, dtype=dtype, device="meta")


def work(graph: Graph) -> dict[Primitive, int]:
    """Vector work of the whole graph."""
    total: dict[Primitive, int] = {}
    for op in graph:
        for primitive, n in {**getattr(op, "primitives", {}), **getattr(op, "epilogue", {})}.items():
            count = n * graph.tensors[op.outputs[0]].elements if isinstance(op, EinsumOp) else n
            total[primitive] = total.get(primitive, 0) + count
    return total


SCORES = 2 * 4 * 6 * 6
"""Elements of a score matrix: batch 2, 4 heads, 6 queries, 6 keys; softmax, scale and what a mask adds."""
SOFTMAX = {ADD: 2 * SCORES, EXP: SCORES, Primitive.RECIPROCAL: SCORES // 6}

q, kv, words = empty(2, 4, 6, 8), empty(2, 2, 6, 8), empty(2, 6, 32)
image, volume, series = empty(2, 8, 9, 9), empty(1, 4, 6, 6, 6), empty(2, 8, 20)


def hand_written(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), -1) @ v


def windowed(q, k, v):
    at = torch.arange(6)
    seen = (at[:, None] >= at) & (at[:, None] - at < 3)
    return nnf.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def lstm_macs(inputs: int, width: int, steps: int, batch: int) -> int:
    return batch * steps * 4 * width * (inputs + width)


PRODUCTS = {
    # name: (module, inputs, MACs by hand)
    # convolutions: outputs x kernel x channels / groups
    "conv1d strided dilated grouped": (nn.Conv1d(8, 12, 3, 2, 1, 2, groups=2), (series,), 2 * 12 * 9 * 4 * 3),
    "conv2d depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), (image,), 2 * 8 * 81 * 9),
    "conv2d same, reflected edges": (
        nn.Conv2d(8, 4, 3, padding="same", padding_mode="reflect"), (image,), 2 * 4 * 81 * 72,
    ),
    "conv3d strided": (nn.Conv3d(4, 6, 3, stride=2), (volume,), 6 * 8 * 4 * 27),
    # a transposed convolution scatters: inputs x kernel x output channels / groups
    "conv1d transposed": (nn.ConvTranspose1d(8, 12, 4, 2, 1), (series,), 2 * 8 * 20 * 12 * 4),
    "conv2d transposed grouped": (nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=2), (image,), 2 * 8 * 81 * 6 * 16),
    "conv3d transposed": (nn.ConvTranspose3d(4, 6, 2, 2), (volume,), 4 * 216 * 6 * 8),
    # attention: two products of 6 x 6 x 8 a head. Masked ones count the square, as `macs` says;
    # a fused kernel that skips blocks says so in the estimate (tests/cost, visible_pairs).
    "attention causal": (
        Call(lambda a: nnf.scaled_dot_product_attention(a, a, a, is_causal=True)), (q,), 2 * SCORES * 8,
    ),
    "attention grouped-query": (
        Call(lambda a, b: nnf.scaled_dot_product_attention(a, b, b, enable_gqa=True)), (q, kv), 2 * SCORES * 8,
    ),
    "attention sliding window": (Call(windowed), (q, q, q), 2 * SCORES * 8),
    "attention cross": (Call(nnf.scaled_dot_product_attention), (q, *(empty(2, 4, 3, 8),) * 2), SCORES * 8),
    "attention hand-written": (Call(hand_written), (q, q, q), 2 * SCORES * 8),
    "attention layer": (
        nn.MultiheadAttention(32, 4, batch_first=True), (words,) * 3, 2 * 6 * 32 * 32 * 4 + 2 * SCORES * 8,
    ),
    # recurrent: 4, 3 or 1 gates, each input and state product, every step
    "lstm two layers both ways": (
        nn.LSTM(32, 16, 2, bidirectional=True, batch_first=True),
        (words,), 2 * lstm_macs(32, 16, 6, 2) + 2 * lstm_macs(32, 16, 6, 2),
    ),
    "gru": (nn.GRU(32, 16, batch_first=True), (words,), 2 * 6 * 3 * 16 * 48),
    "rnn": (nn.RNN(32, 16, batch_first=True), (words,), 2 * 6 * 16 * 48),
    "lstm cell": (nn.LSTMCell(32, 16), (empty(2, 32),), 2 * 4 * 16 * 48),
    # what else multiplies
    "bilinear": (nn.Bilinear(8, 4, 5), (empty(3, 8), empty(3, 4)), 3 * 5 * 8 * 4),
    "einsum": (Call(lambda a: torch.einsum("bhid,bhjd->bhij", a, a)), (q,), SCORES * 8),
    "sum over a batch": (Call(lambda c, a: torch.addbmm(c, a, a)), (empty(6, 6), empty(3, 6, 6)), 3 * 216),
    # complex factors: four real products each, as two by two parts
    "complex": (
        Call(lambda a, b: torch.view_as_real(a @ b)),
        (empty(6, 8, dtype=torch.complex64), empty(8, 5, dtype=torch.complex64)), 4 * 6 * 8 * 5,
    ),
    "complex einsum": (
        Call(lambda a, b: torch.einsum("bixy,ioxy->boxy", a, b).real),
        (empty(2, 4, 3, 3, dtype=torch.complex64), empty(4, 5, 3, 3, dtype=torch.complex64)), 4 * 2 * 4 * 5 * 9,
    ),
    # a factor with one axis: the other's elements
    "matrix times vector": (Call(torch.mv), (empty(12, 16), empty(16)), 12 * 16),
    "vector times matrix": (Call(torch.matmul), (empty(16), empty(16, 12)), 12 * 16),
    "batch times vector": (Call(torch.matmul), (empty(3, 12, 16), empty(16)), 3 * 12 * 16),
    "vector times batch": (Call(torch.matmul), (empty(12), empty(3, 12, 16)), 3 * 12 * 16),
    "matrix times vector, plus": (Call(torch.addmv), (empty(12), empty(12, 16), empty(16)), 12 * 16),
    "dot": (Call(torch.dot), (empty(16), empty(16)), 16),
    "vdot": (Call(torch.vdot), (empty(16), empty(16)), 16),
    "conv1d by time, batch and channels": (
        Call(lambda a, w, b: torch.conv_tbc(a, w, b, 1)), (empty(20, 2, 8), empty(3, 8, 6), empty(6)),
        20 * 2 * 6 * 8 * 3,
    ),
    "int8 product": (
        Call(torch._int_mm), (empty(32, 16, dtype=torch.int8), empty(16, 8, dtype=torch.int8)), 32 * 16 * 8,
    ),
}  # fmt: skip

rows = 2 * 8 * 20
VECTORS = {
    # name: (module, inputs, {primitive: count by hand})
    "layer norm": (nn.LayerNorm(32), (words,), {ADD: 2 * 384 + 12, FMA: 768, RSQRT: 12}),
    "rms norm": (nn.RMSNorm(32), (words,), {FMA: 384 + 12, MUL: 768, RSQRT: 12}),
    "group norm": (nn.GroupNorm(2, 8), (image,), {FMA: 2 * 1296, RSQRT: 4}),
    "batch norm": (nn.BatchNorm2d(8), (image,), {FMA: 1296 + 8, RSQRT: 8}),
    "nearest, exact": (
        Call(lambda a, b: (nnf.interpolate(a, 30, mode="nearest-exact"), nnf.interpolate(b, 3, mode="nearest-exact"))),
        (series, volume), {SHUFFLE: 2 * 8 * 30 + 4 * 27},
    ),
    # 2 x 8 images of 9 x 9 to 3 x 3, 2 x 3 taps an axis: 9 rows of 3 across, 3 rows of 3 down; weights of 2 x 3 places
    "antialiased": (
        Call(lambda a: nnf.interpolate(a, (3, 3), mode="bilinear", antialias=True)), (image,),
        {FMA: 16 * (9 * 3 + 3 * 3) * 6 + 2 * 3 * 6, CONVERT: 6},
    ),
    "antialiased, larger": (
        Call(lambda a: nnf.interpolate(a, (18, 9), mode="bicubic", antialias=True)), (image,),
        {FMA: 16 * (9 * 9 + 18 * 9) * 4 + (18 + 9) * 4, CONVERT: 27},
    ),
    "batch norm of its data": (
        nn.BatchNorm2d(8, track_running_stats=False), (image,), {ADD: 2 * 1296 + 8, FMA: 2 * 1296, RSQRT: 8},
    ),
    "instance norm": (
        nn.InstanceNorm2d(8, affine=True), (image,), {ADD: 2 * 1296 + 16, FMA: 2 * 1296, MUL: 1296 + 32, RSQRT: 16},
    ),
    "max pool": (nn.MaxPool2d(3, 2), (image,), {COMPARE: 2 * 8 * 16 * 9}),
    "average pool": (nn.AvgPool3d(2), (volume,), {ADD: 4 * 27 * 8, MUL: 4 * 27}),
    "global pool": (nn.AdaptiveAvgPool2d(1), (image,), {ADD: 1296}),
    "nearest": (nn.Upsample(scale_factor=2), (image,), {SHUFFLE: 4 * 1296}),
    "bilinear interpolation": (
        nn.Upsample(scale_factor=2, mode="bilinear"), (image,), {FMA: 4 * 4 * 1296 + 36, CONVERT: 36},
    ),
    "trilinear interpolation": (
        nn.Upsample(scale_factor=2, mode="trilinear"), (volume,), {FMA: 8 * 4 * 12**3 + 36, CONVERT: 36},
    ),
    # 2 x 8 x 25 outputs of four taps; 50 points: an address of two axes, four bounds an axis, four weights
    "grid sampling": (
        Call(lambda a, g: nnf.grid_sample(a, g, align_corners=False)), (image, empty(2, 5, 5, 2)),
        {FMA: 1600 + 100, SHUFFLE: 1600, COMPARE: 400, MUL: 200, ADD: 200},
    ),
    "top-k": (Call(lambda a: a.topk(4)[0]), (series,), {COMPARE: rows + 16 * 4 * 2, SHUFFLE: 64}),
    "sort": (Call(lambda a: a.sort()[0]), (series,), {COMPARE: rows * 5, SHUFFLE: rows}),
    "k-th value": (Call(lambda a: a.kthvalue(3)[0]), (series,), {COMPARE: 3 * rows}),
    # real: 5/2 n log2 n operations, two of them an fma; n = 32
    "fft real": (Call(lambda a: torch.view_as_real(torch.fft.rfft(a))), (empty(4, 32),), {FMA: 4 * 5 * 32 * 5 // 4}),
    "fft complex": (
        Call(lambda a: torch.fft.fft(a)), (empty(4, 32, dtype=torch.complex64),), {FMA: 4 * 5 * 32 * 5 // 2},
    ),
    # 4 x 32 complex elements: two squares and a root; a sum by parts; products with a real and with a complex factor
    "complex modulus": (Call(torch.abs), (empty(4, 32, dtype=torch.complex64),), {MUL: 128, FMA: 128, RSQRT: 128}),
    "complex sum": (
        Call(lambda a: torch.view_as_real((a + a).sum(-1))), (empty(4, 32, dtype=torch.complex64),), {ADD: 2 * 128 * 2},
    ),
    "complex scaled": (
        Call(lambda a: torch.view_as_real(a * 0.5 * a)), (empty(4, 32, dtype=torch.complex64),), {MUL: (2 + 4) * 128},
    ),
    "complex behind a real factor": (
        Call(lambda r, a: torch.view_as_real(1j * r + r * a)), (empty(4, 32), empty(4, 32, dtype=torch.complex64)),
        {MUL: (2 + 2) * 128},
    ),
    "complex of angles": (
        Call(lambda a: torch.view_as_real(torch.polar(a, a))), (empty(4, 32),), {Primitive.SIN: 256, MUL: 256},
    ),
    "sort of the first axis": (Call(lambda a: torch.sort(a, dim=0, stable=True)[0]), (series,), {COMPARE: rows}),
    # a search among 1000 boundaries: ten digits
    "buckets": (Call(torch.bucketize), (series, empty(1000)), {COMPARE: 10 * rows}),
    "lists": (Call(lambda a: torch._foreach_add([a, a[0]], 1.0)), (series,), {ADD: rows + rows // 2}),
    "lists in place": (Call(lambda a: torch._foreach_mul_([a], 2.0) or a), (series,), {MUL: rows}),
    "cumulative sum": (Call(lambda a: a.cumsum(-1)), (series,), {ADD: rows}),
    # ten rounds of a generator an element; 20 keys sorted, five digits each
    "random order": (Call(lambda a: a[..., torch.randperm(20)]), (series,), {MUL: 200, LOGIC: 200, COMPARE: 100}),
    "noise added": (
        Call(lambda a: torch.distributions.Normal(a, a, validate_args=False).rsample()), (series,),
        {MUL: 11 * rows, LOGIC: 10 * rows},
    ),
    "degrees": (Call(torch.deg2rad), (series,), {MUL: rows}),
    "distance": (Call(torch.dist), (series, series[:1]), {ADD: rows, FMA: rows, RSQRT: 1}),
    "fake quantisation": (
        Call(lambda a: torch.fake_quantize_per_tensor_affine(a, 0.1, 0, -128, 127)), (series,),
        {MUL: 2 * rows, ADD: 2 * rows, CONVERT: rows, COMPARE: 2 * rows},
    ),
    # two 3 x 3 systems: n^3 / 3 FLOP
    "cholesky": (Call(torch.linalg.cholesky), (empty(2, 3, 3),), {FMA: 9, RSQRT: 6}),
    "LU, its factors taken out": (
        Call(lambda a: torch.lu_unpack(*torch.linalg.lu_factor(a))), (empty(2, 3, 3),), {FMA: 2 * 9},
    ),
    "inverse": (Call(torch.linalg.inv), (empty(2, 3, 3),), {FMA: 54}),
    # SVD 14 m n^2 + 8 n^3, and m n^2 MACs, of 5 x 3; five products of 4 x 4
    "pseudo-inverse": (Call(torch.linalg.pinv), (empty(5, 3),), {FMA: 7 * 45 + 4 * 27 + 45, RSQRT: 3}),
    "matrix exponential": (Call(torch.linalg.matrix_exp), (empty(2, 4, 4),), {FMA: 2 * 5 * 64}),
    "cross product": (Call(torch.linalg.cross), (empty(4, 3), empty(4, 3)), {MUL: 12, FMA: 12}),
}  # fmt: skip

MOVES = {
    # one point in each of two images: four taps of eight channels, two coordinates, eight results
    "grid sampling of few points": (
        Call(lambda a, g: nnf.grid_sample(a, g, align_corners=False)), (image, empty(2, 1, 1, 2)),
        4 * 2 * (4 * 8 + 2 + 8),
    ),
    # name: (module, inputs, bytes read and written by hand, fp32 data and int64 indices)
    "embedding": (nn.Embedding(100, 8), (empty(2, 5, dtype=torch.int64),), 10 * (2 * 8 * 4 + 8)),
    "gather": (Call(lambda a, i: a.gather(1, i)), (empty(4, 9), empty(4, 3, dtype=torch.int64)), 12 * (2 * 4 + 8)),
    "take along an axis": (
        Call(lambda a, i: torch.take_along_dim(a, i, 1)), (empty(4, 9), empty(4, 3, dtype=torch.int64)),
        12 * (2 * 4 + 8),
    ),
    "diagonal": (Call(torch.diag), (empty(9, 9),), 2 * 9 * 4),
    "blocks of a diagonal": (Call(torch.block_diag), (empty(4, 9), empty(2, 3)), (36 + 6 + 6 * 12) * 4),
    "concatenation": (Call(lambda a: torch.cat((a, a), 1)), (empty(4, 9),), 3 * 36 * 4),
    "patches": (nn.Unfold(3), (image,), (1296 + 2 * 72 * 49) * 4),
    "padding": (nn.ReplicationPad3d(1), (volume,), (864 + 4 * 512) * 4),
    "pixel shuffle": (nn.PixelShuffle(2), (image,), 2 * 1296 * 4),
    "unpooling": (
        Call(lambda a, i: nnf.max_unpool2d(a, i, 2)), (empty(1, 2, 4, 4), empty(1, 2, 4, 4, dtype=torch.int64)),
        32 * (4 + 8) + 128 * 4,
    ),
}  # fmt: skip


def costed(graph: Graph) -> None:
    """Every op but views takes time on a chip, and none lacks a rule."""
    assert not unsupported(graph)
    found = sim.estimate(graph, sim.load_hardware("edge-npu"))
    assert found.latency_s >= found.roofline_latency_s > 0
    run = [op for op in found.ops if op.kind != LOAD]  # a load of weights may hide behind the op before
    names = {name for op in run for name in (op.name, *op.fused)}
    assert all(op.latency_s > 0 for op in run)
    assert {op.name for op in graph if not isinstance(op, ViewOp)} >= names


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    module, inputs, macs = PRODUCTS[name]
    graph = trace(module, inputs)
    assert graph.macs == macs
    costed(graph)


VECTOR_CHIPS = ["tesla-fsd-npu", "eyeriss", "tpu-v5e", "systolic", "xeon-gnr", "h100-sxm"]


@pytest.mark.parametrize("name", ["matrix times vector", "matrix times vector, plus", "dot"])
@pytest.mark.parametrize("chip", VECTOR_CHIPS)
def test_products_with_a_vector_run_on_every_kind_of_chip(chip, name):
    """M K or K MACs; estimate, simulation, sweep and roofline agree as for any product (laws 1 and 8)."""
    module, inputs, macs = PRODUCTS[name]
    graph, hardware = trace(module, inputs), sim.load_hardware(chip)
    found = sim.estimate(graph, hardware, calibration="none")
    assert found.macs == macs
    assert 0 < sim.roofline(graph, hardware).latency_s == found.roofline_latency_s <= found.latency_s
    assert sim.simulate(graph, hardware, calibration="none").latency_s == pytest.approx(found.latency_s, rel=0.02)
    rows = sim.sweep(graph, hardware, {"clock": [f"{hardware.clock_hz!r} Hz"]}, calibration="none")
    assert rows["latency_s"][0] == found.latency_s


@pytest.mark.parametrize("name", PRODUCTS)
def test_every_rank_belongs_to_an_operand(name):
    module, inputs, _ = PRODUCTS[name]
    for op in trace(module, inputs):
        if isinstance(op, EinsumOp):
            assert set(op.einsum.ranks) == {rank for operand in op.einsum.operands for rank in operand.ranks}


@pytest.mark.parametrize(
    "product",
    [
        lambda a: a[:0] @ a[:0],
        lambda a: a[:0, None] @ a[:0, None],
        lambda a: nnf.scaled_dot_product_attention(a[:0], a[:0], a[:0]),
    ],
)
def test_a_product_over_an_empty_batch_has_no_macs_and_is_told(product):
    """(0, 8, 8) x (0, 8, 8)."""
    graph = trace(Call(product), empty(3, 8, 8))
    assert graph.macs == 0
    with pytest.raises(WorkloadError, match=r"works on nothing: rank B.* has size 0"):
        sim.estimate(graph, sim.load_hardware("systolic"))


class Idle(nn.Module):
    """Its result is its input, as long as the branch is taken."""

    def forward(self, x):
        return x if x.sum() > 0 else x + 1


def test_a_model_of_which_nothing_reaches_an_output_is_told():
    graph = trace(Idle(), torch.empty(4, 4))
    for chip in map(sim.load_hardware, ("systolic", "h100-sxm", "xeon-spr")):
        for command in (sim.estimate, sim.simulate, sim.roofline, lambda g, c: sim.sweep(g, c, {"clock": ["1 GHz"]})):
            with pytest.raises(WorkloadError, match=r"Idle: there is nothing to cost: of its 2 ops .*; .*assumed"):
                command(graph, chip)


@pytest.mark.parametrize("name", VECTORS)
def test_vector_work(name):
    module, inputs, counts = VECTORS[name]
    graph = trace(module, inputs)
    found = work(graph)
    assert {p: found.get(p, 0) for p in counts} == counts
    assert graph.macs == 0
    costed(graph)


@pytest.mark.parametrize("front_end", [trace, export])
@pytest.mark.parametrize("name", MOVES)
def test_movements(name, front_end):
    module, inputs, moved_bytes = MOVES[name]
    graph = front_end(module, inputs)
    moves = [op for op in graph if isinstance(op, MovementOp)]
    assert sum(sum(op.read_bytes.values()) + sum(op.write_bytes.values()) for op in moves) == moved_bytes
    costed(graph)


@pytest.mark.parametrize("name", ["attention causal", "attention grouped-query", "attention hand-written"])
def test_attention_is_one_region_with_its_softmax(name):
    module, inputs, _ = PRODUCTS[name]
    graph = trace(module, inputs)
    (region,) = [r for r in graph.regions.values() if r.kind == "attention"]
    assert (region.attrs["heads"], region.attrs["query_length"], region.attrs["key_length"]) == (4, 6, 6)
    assert region.attrs["kv_heads"] == (2 if "grouped" in name else 4)
    assert region.attrs["causal"] == ("causal" in name)
    found = work(graph)
    assert {p: found[p] for p in SOFTMAX} == SOFTMAX


def test_a_window_is_told_by_its_mask():
    graph = trace(PRODUCTS["attention sliding window"][0], (q, q, q))
    (region,) = [r for r in graph.regions.values() if r.kind == "attention"]
    assert (region.attrs["causal"], region.attrs["window"]) == (True, 3)


@torch.library.custom_op("dovetail::deform_conv2d", mutates_args=())
def deform_conv2d(
    x: torch.Tensor, weight: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor, bias: torch.Tensor,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    groups: int, offset_groups: int, use_mask: bool,
) -> torch.Tensor:  # fmt: skip
    """torchvision's op by its arguments; only its shape is needed."""
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])


deform_conv2d.register_fake(lambda x, weight, offset, *_: x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:]))


@pytest.mark.parametrize(("batch", "groups", "use_mask"), [(1, 1, False), (1, 1, True), (3, 2, True)])
def test_deformable_convolution(batch, groups, use_mask):
    """4 -> 6 channels, 3 x 3 window, 6 x 6 outputs: 4 x 9 x 36 sampled elements of four taps, then the product.

    A point (9 x 36): its address on two axes, four bounds an axis, four weights; the mask multiplies each element.
    """

    def run(x, weight, offset, mask, bias):
        return torch.ops.dovetail.deform_conv2d(x, weight, offset, mask, bias, *(1,) * 6, groups, 1, use_mask)

    x, weight = empty(batch, 4, 6, 6), empty(6, 4 // groups, 3, 3)
    graph = trace(Call(run), (x, weight, empty(batch, 18, 6, 6), empty(batch, 9, 6, 6), empty(6)))
    sampled, points = batch * 4 * 9 * 36, batch * 9 * 36
    assert graph.macs == batch * 6 * 36 * 4 * 9 // groups
    assert work(graph) == {
        FMA: 4 * sampled + 2 * points, Primitive.SHUFFLE: 4 * sampled, MUL: use_mask * sampled + 4 * points,
        COMPARE: 8 * points, CONVERT: 2 * points, ADD: 4 * points,
    }  # fmt: skip
    costed(graph)


def test_nms_of_three_hundred_boxes():
    """Sorted (300 x 9 compares), then all 44,850 pairs: 5 compares, 6 additions and 3 products an overlap."""
    small = {"height": 96, "width_px": 128, "bev": 16, "depth": 0.3}
    driving = Workload("driving", small).graph(cache=False)
    kinds = {op.kind for op in driving}
    assert {"aten.topk", "aten.grid_sampler_2d"} <= kinds
    (op,) = [op for op in driving if op.kind == "dovetail.nms"]
    pairs = 300 * 299 // 2
    assert op.primitives == {COMPARE: 300 * 9 + 5 * pairs, ADD: 6 * pairs, MUL: 3 * pairs}


def test_selective_scan():
    scan = [op for op in Workload("mamba", {"depth": 1}).graph(cache=False) if op.kind == "dovetail.selective_scan"]
    length, width, state = 2048, 1536, 16
    assert scan[0].primitives == {
        MUL: length * width * (2 * state + 1), EXP: length * width * state, FMA: length * width * (2 * state + 1),
    }  # fmt: skip


@torch.library.custom_op("dovetailtest::keep", mutates_args=())
def keep(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Rows that pass, as torchvision's NMS gives them: how many depends on the data."""
    return (scores > 0).nonzero()[:, 0]


@keep.register_fake
def _(boxes, scores):
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@register_rule("dovetailtest.keep")
def keep_rule(call):
    return Vector({COMPARE: call.args[1].numel()})


def test_a_custom_op_whose_size_depends_on_data_asks_the_policy():
    model = Call(lambda boxes, scores: boxes[torch.ops.dovetailtest.keep(boxes, scores)] * 2)
    inputs = (empty(40, 4), empty(40))
    for fraction, kept in ((1.0, 40), (0.25, 10)):
        graph = trace(model, inputs, policy=DataPolicy(fraction=fraction))
        assert graph.tensors[graph.ops[-1].outputs[0]].shape == (kept, 4)
        (note,) = graph.notes
        assert re.fullmatch(rf"test_op_families\.py:\d+: results of an op, of at most 40, assumed to be {kept}", note)
        costed(graph)


def test_experts_with_a_stated_load():
    """Eight tokens, one of two experts each: 6 and 2 of them, each through an 8 x 8 matrix; the router 8 x 8 x 2."""

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.router = nn.Linear(8, 2, bias=False)
            self.experts = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(2))

        def forward(self, x):
            chosen, out = self.router(x).argmax(-1), torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                (token,) = torch.where(chosen == number)
                out = out.index_add(0, token, expert(x[token]))
            return out

    graph = trace(Mixture(), (empty(8, 8),), policy=DataPolicy(shares=(0.75, 0.25)))
    assert [op.einsum.ranks["M"] for op in graph if isinstance(op, EinsumOp)] == [8, 6, 2]
    assert any("assumed to be 6" in note for note in graph.notes)
    costed(graph)


# -- control flow and counts that depend on data -------------------------------------------------


def test_a_branch_written_as_an_op_takes_the_policys_way():
    model = Call(lambda a: torch.cond(a.sum() > 0, lambda x: x @ x, lambda x: x + 1, (a,)))
    x = empty(4, 4)
    assert trace(model, (x,)).macs == 64
    other = trace(model, (x,), policy=DataPolicy(truth=False))
    assert other.macs == 0
    assert any("bool of a tensor assumed to be False" in note for note in other.notes)


def test_a_loop_written_as_an_op_runs_as_often_as_the_policy_says():
    from torch._higher_order_ops import while_loop

    model = Call(lambda a: while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x @ x), (torch.tensor(0), a)))
    graph = trace(model, (empty(4, 4),), policy=DataPolicy(number=3))
    assert graph.macs == 3 * 64
    assert any("rounds of a loop assumed to be 3" in note for note in graph.notes)


def test_distinct_values_and_bins_are_questions():
    graph = trace(Call(lambda a: torch.unique(a)), (series,), policy=DataPolicy(fraction=0.5))
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (160,)
    assert any("distinct elements of 320 assumed to be 160" in note for note in graph.notes)
    bins = trace(Call(lambda a: torch.bincount(a, minlength=7)), (empty(30, dtype=torch.int64),))
    assert bins.tensors[bins.ops[-1].outputs[0]].shape == (7,)


def test_vector_ops_are_never_empty():
    """A rule that counts nothing would make an op free: none of the families above has one."""
    for module, inputs, _ in VECTORS.values():
        for op in trace(module, inputs):
            assert not isinstance(op, VectorOp) or sum(op.primitives.values()) > 0
