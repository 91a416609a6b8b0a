"""Op rules against hand counts and against torch's FlopCounter on random shapes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sim.workload.graph import EinsumOp, Graph, OperandRole, Primitive, Role, UnsupportedOp, VectorOp, ViewOp
from sim.workload.summary import role_bytes
from sim.workload.trace import trace
from sim.workload.trace.export import export


def product(graph: Graph) -> EinsumOp:
    (op,) = [op for op in graph if isinstance(op, EinsumOp)]
    return op


def extent(axis, ranks) -> tuple[int, int]:
    """Smallest and largest index that an axis reaches."""
    return axis.offset, axis.offset + sum(coef * (ranks[rank] - 1) for rank, coef in axis.terms)


@st.composite
def convolutions(draw):
    dims = draw(st.integers(1, 3))
    groups = draw(st.sampled_from((1, 2, 4)))
    window = [draw(st.integers(1, 3)) for _ in range(dims)]
    cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    if draw(st.booleans()):
        cls = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    layer = cls(
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        window,
        stride=draw(st.integers(1, 2)),
        padding=0,
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=draw(st.booleans()),
        device="meta",
    )
    size = [draw(st.integers(6, 9)) for _ in range(dims)]
    return layer, torch.empty(draw(st.integers(1, 2)), layer.in_channels, *size, device="meta")


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_convolutions_of_every_kind(case):
    """MACs x 2 = torch's FLOPs, and the projections reach exactly the tensors' sizes."""
    layer, x = case
    op = product(trace(layer, x))
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert 2 * op.einsum.macs == counter.get_total_flops()
    for operand in op.einsum.operands:
        for axis in operand.projection:
            low, high = extent(axis, op.einsum.ranks)
            assert low == 0
            assert high < axis.size
            exact = operand.role is OperandRole.WEIGHT or len(axis.terms) < 2 or "G" in axis.ranks
            assert not exact or high == axis.size - 1


def test_strided_padded_convolution_by_hand():
    """7x7, stride 2, padding 3 on 224: rows 2p + r - 3, 112 outputs, the last reads row 225 - 1 = 224 - padding."""
    op = product(trace(nn.Conv2d(3, 64, 7, 2, 3, bias=False), torch.zeros(1, 3, 224, 224)))
    assert dict(op.einsum.ranks) == {"N": 1, "K": 64, "C": 3, "P": 112, "Q": 112, "R": 7, "S": 7}
    row = op.einsum.operands[0].projection[2]
    assert (row.terms, row.offset, row.size) == ((("P", 2), ("R", 1)), -3, 224)


def test_depthwise_convolution_has_groups_and_no_reduction_over_them():
    op = product(trace(nn.Conv2d(8, 8, 3, groups=8, bias=False), torch.zeros(1, 8, 5, 5)))
    assert op.einsum.ranks["G"] == 8
    assert op.einsum.reduction_ranks == {"C", "R", "S"}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=0, max_size=2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_matrix_products_with_batches(batch, m, n, k):
    class Product(nn.Module):
        def forward(self, a, b):
            return a @ b

    a, b = torch.empty(*batch, m, k), torch.empty(*batch, k, n)
    graph = trace(Product(), (a, b))
    assert graph.macs == m * n * k * torch.Size(batch).numel()
    assert not [op for op in graph if isinstance(op, UnsupportedOp)]


def test_softmax_and_norm_counts_by_hand():
    """Softmax of 4 rows of 8: 32 exp, 32 compares, 4 reciprocals. LayerNorm: 4 rsqrt."""
    (softmax,) = trace(nn.Softmax(-1), torch.zeros(4, 8)).ops
    assert softmax.primitives[Primitive.EXP] == softmax.primitives[Primitive.COMPARE] == 32
    assert softmax.primitives[Primitive.RECIPROCAL] == 4
    assert softmax.passes == 2
    norm = trace(nn.LayerNorm(8), torch.zeros(4, 8))
    (op,) = norm.ops
    assert op.primitives[Primitive.RSQRT] == 4
    assert len(op.outputs) == 1
    assert [region.kind for region in norm.regions.values()] == ["norm"]


def test_max_pool_compares_every_window_element():
    (op,) = trace(nn.MaxPool2d(3, 2, 1), torch.zeros(1, 4, 8, 8)).ops
    assert op.primitives == {Primitive.COMPARE: 4 * 4 * 4 * 9}
    assert len(op.outputs) == 1


@pytest.mark.parametrize(
    "layer", [nn.LSTM(8, 16, 2, batch_first=True), nn.GRU(8, 16, batch_first=True), nn.RNN(8, 16, batch_first=True)]
)
def test_recurrent_layers_are_regions_with_all_their_macs(layer):
    """Each time step meets each weight matrix once: MACs = 5 steps x batch 2 x matrix elements."""
    graph = trace(layer, torch.zeros(2, 5, 8))
    assert {region.kind for region in graph.regions.values()} == {"recurrent"}
    assert graph.macs == 5 * 2 * sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    assert not [op for op in graph if isinstance(op, UnsupportedOp)]


def test_grouped_product_counts_each_token_once():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(4, 32, 64, dtype=torch.bfloat16))

        def forward(self, x, offsets):
            return torch._grouped_mm(x, self.weight, offs=offsets)

    inputs = (torch.empty(48, 32, dtype=torch.bfloat16), torch.empty(4, dtype=torch.int32))
    graph = trace(Experts(), inputs)
    assert graph.macs == 48 * 32 * 64
    assert "grouped_product" in {region.kind for region in graph.regions.values()}


class Distances(nn.Module):
    def forward(self, x, y):
        return torch.cdist(x, y)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3)])
def test_distances_of_many_rows_are_a_product_two_columns_wider(batch):
    graph = trace(Distances(), (torch.randn(*batch, 100, 7), torch.randn(*batch, 40, 7)))
    assert graph.macs == math.prod(batch) * 100 * 40 * 9
    assert not any(isinstance(op, UnsupportedOp) for op in graph.ops)


def test_topk_sort_and_cast():
    class Post(nn.Module):
        def forward(self, x):
            return x.half().topk(4).values, x.sort().indices

    graph = trace(Post(), torch.zeros(2, 64))
    kinds = {op.kind: op for op in graph}
    assert kinds["aten._to_copy"].primitives == {Primitive.CONVERT: 128}
    assert kinds["aten.topk"].primitives[Primitive.COMPARE] >= 128
    assert kinds["aten.sort"].primitives[Primitive.COMPARE] == 128 * 6
    assert sum(graph.tensors[t].role is Role.OUTPUT for op in graph for t in op.outputs) == 2
    assert isinstance(kinds["aten._to_copy"], VectorOp)


@pytest.mark.parametrize(
    ("loss", "each"),
    [
        ("mse_loss", {Primitive.ADD: 1, Primitive.MUL: 1}),
        (
            "binary_cross_entropy",
            {Primitive.LOG: 2, Primitive.ADD: 2, Primitive.MUL: 1, Primitive.FMA: 1},
        ),
        ("soft_margin_loss", {Primitive.MUL: 1, Primitive.EXP: 1, Primitive.LOG: 1, Primitive.ADD: 1}),
    ],
)
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_losses_that_a_model_tells_beside_its_result(loss, each, reduction):
    """Of 32 elements: (x - y)^2 is a difference and a product; -y log x - (1 - y) log(1 - x) two logarithms, two
    differences, a product and a multiply-add; log(1 + exp(-y x)) four operations. A sum of them adds each once more."""

    class Loss(nn.Module):
        def forward(self, x, y):
            return getattr(nn.functional, loss)(x, y, reduction=reduction)

    (op,) = [op for op in trace(Loss(), (torch.zeros(4, 8), torch.zeros(4, 8))) if not isinstance(op, ViewOp)]
    summed = 32 if reduction == "sum" else 0
    counts = {primitive: 32 * n for primitive, n in each.items()}
    assert op.primitives == counts | {Primitive.ADD: counts[Primitive.ADD] + summed}


@pytest.mark.parametrize(
    ("window", "each"),
    [
        ("hann", {Primitive.MUL: 1, Primitive.SIN: 1, Primitive.FMA: 1}),
        ("hamming", {Primitive.MUL: 1, Primitive.SIN: 1, Primitive.FMA: 1}),
        ("blackman", {Primitive.MUL: 2, Primitive.SIN: 2, Primitive.FMA: 2}),
        ("bartlett", {Primitive.FMA: 1, Primitive.LOGIC: 1, Primitive.ADD: 1}),
    ],
)
@pytest.mark.parametrize("front_end", [trace, export])
def test_windows_that_are_made_while_the_model_runs(window, each, front_end):
    """16 elements: a - b cos(c i), with one more cosine of Blackman's; a triangle 1 - |c i - 1|."""

    class Framed(nn.Module):
        def forward(self, x):
            return x * getattr(torch, f"{window}_window")(16)

    (made,) = [op for op in front_end(Framed(), torch.empty(4, 16)) if "window" in op.kind]
    assert made.primitives == {primitive: 16 * n for primitive, n in each.items()}


def test_a_product_with_weights_of_eight_bits():
    """4 x 32 times 16 x 32 of a byte each, a scale a channel: 2,048 MACs, 512 bytes and 16 scales."""

    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.empty(16, 32, dtype=torch.int8))
            self.register_buffer("scales", torch.empty(16))

        def forward(self, x):
            return torch.ops.aten._weight_int8pack_mm(x, self.weight, self.scales)

    graph = trace(Packed(), torch.empty(4, 32))
    assert (graph.macs, product(graph).epilogue) == (4 * 16 * 32, {Primitive.MUL: 1})
    assert role_bytes(graph)[Role.WEIGHT] == 16 * 32 + 16 * 4


@pytest.mark.parametrize(("exponent", "read"), [(1, 128), (0, 0)])
def test_a_power_of_one_is_a_copy_and_of_none_is_ones(exponent, read):
    """Of 32 floats, as the gradient of a square takes one: no logarithm."""

    class Power(nn.Module):
        def forward(self, x):
            return x**exponent

    (op,) = [op for op in trace(Power(), torch.empty(4, 8)) if op.kind == "aten.pow"]
    assert (sum(op.read_bytes.values()), sum(op.write_bytes.values()), dict(op.primitives)) == (read, 128, {})
