"""Graph rewrites: what they promise, and small cases by hand."""

import pytest
import torch
from torch import nn

from sim.errors import PrecisionError, WorkloadError
from sim.workload.graph import EinsumOp, MovementOp, OperandRole, Primitive, Role, VectorOp, ViewOp
from sim.workload.load import Workload
from sim.workload.passes import PrecisionPolicy, apply_precision, dead_code, fuse_epilogues, sparsify
from sim.workload.passes.sparsify import effective_macs, metadata_bits
from sim.workload.precision import parse_precision
from sim.workload.trace import trace
from sim.workload.trace.export import export


class Block(nn.Module):
    """conv, batch norm, residual add, relu."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + x)


def test_a_residual_block_becomes_one_op():
    """Per output element: the shift of the norm, the residual add, the relu. Scale is in the weight."""
    graph = fuse_epilogues(trace(Block(), torch.zeros(1, 8, 5, 5)))
    (op,) = graph.ops
    assert op.epilogue == {Primitive.ADD: 2, Primitive.COMPARE: 1}
    assert len(op.inputs) == 4
    assert op.inputs[3] == op.inputs[0]
    assert graph.tensors[op.outputs[0]].role is Role.OUTPUT == graph.tensors[op.einsum.output.tensor].role
    assert graph.parameters == 8 * 8 * 9 + 8


def test_a_norm_behind_a_bias_folds_away_whole():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    (op,) = fuse_epilogues(trace(model, torch.zeros(1, 3, 5, 5))).ops
    assert op.epilogue == {Primitive.ADD: 1}
    assert len(op.inputs) == 3


class Products(nn.Module):
    """A layer, and a product of two activations, each with a norm over its 3 rows."""

    def __init__(self):
        super().__init__()
        self.layer, self.first, self.second = nn.Linear(4, 8), nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def forward(self, x, y):
        return self.first(self.layer(x)), self.second(x @ y)


@pytest.mark.parametrize("front_end", [trace, export])
def test_a_norm_over_what_is_no_channel_of_a_weight_stays_an_fma(front_end):
    """A weight [8, 4] cannot hold the scale of 3 rows, nor can an activation be scaled before it is there."""
    fused = fuse_epilogues(front_end(Products(), (torch.zeros(2, 3, 4), torch.zeros(2, 4, 5))))
    layer, product = (op for op in fused if isinstance(op, EinsumOp))
    assert layer.epilogue == {Primitive.ADD: 1, Primitive.FMA: 1}
    assert product.epilogue == {Primitive.FMA: 1}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 1, 3, bias=False),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, bias=False)),
    ],
)
def test_a_norm_of_one_channel_of_groups_or_behind_a_weight_made_of_weights_folds(layer):
    model = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))
    (op,) = (op for op in fuse_epilogues(trace(model, torch.zeros(2, 8, 5, 5))) if isinstance(op, EinsumOp))
    assert op.epilogue == {Primitive.ADD: 1}


class Normed(nn.Module):
    """A layer of 4 to 16 channels, or a weight [16, 4] times columns, and a norm behind a reshape of it."""

    def __init__(self, channels, shape, left):
        super().__init__()
        self.layer, self.weight = nn.Linear(4, 16, bias=False), nn.Parameter(torch.zeros(16, 4))
        self.norm, self.shape, self.left = nn.BatchNorm1d(channels), shape, left

    def forward(self, x):
        return self.norm((self.weight @ x if self.left else self.layer(x)).reshape(self.shape))


@pytest.mark.parametrize("front_end", [trace, export])
@pytest.mark.parametrize(
    ("channels", "shape", "left", "folds"),
    [
        (16, (2, 16, 4), True, True),
        (8, (6, 8, 2), False, True),
        (64, (2, 64), False, False),
        (2, (2, 2, 32), False, False),
    ],
    ids=["rows of a weight on the left", "pairs of channels", "every row's channels", "pairs of rows"],
)
def test_a_norm_over_rows_that_a_reshape_makes_channels_stays_an_fma(front_end, channels, shape, left, folds):
    """Only what is scaled alike in every row can be scaled in the weight."""
    rows = 4 if left or not folds else 3
    fused = fuse_epilogues(front_end(Normed(channels, shape, left), (torch.zeros(2, rows, 4),)))
    (product,) = (op for op in fused if isinstance(op, EinsumOp))
    assert product.epilogue == {Primitive.ADD if folds else Primitive.FMA: 1}


@pytest.mark.parametrize("front_end", [trace, export])
@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(8), nn.BatchNorm2d(8, affine=False, track_running_stats=False)])
def test_a_norm_by_the_statistics_of_the_data_does_not_fold(norm, front_end):
    """A mean and a variance are of what the convolution made: on each of 8 x 3 x 3 results two adds, one fma, one mul;
    the means and deviations of 8 channels beside (one add, two muls, one root each)."""
    fused = fuse_epilogues(front_end(nn.Sequential(nn.Conv2d(3, 8, 3), norm), torch.zeros(1, 3, 5, 5)))
    (left,) = (op for op in fused if isinstance(op, VectorOp))
    assert dict(left.primitives) == {
        Primitive.ADD: 2 * 72 + 8, Primitive.FMA: 72, Primitive.MUL: 72 + 16, Primitive.RSQRT: 8,
    }  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("front_end", [trace, export])
def test_an_instance_norm_by_running_statistics_folds_as_a_batch_norm(front_end, batch):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, track_running_stats=True))
    fused = fuse_epilogues(front_end(model, torch.zeros(batch, 3, 5, 5)))
    assert not [op for op in fused if isinstance(op, VectorOp)]
    assert next(op.epilogue for op in fused if isinstance(op, EinsumOp)) == {Primitive.ADD: 1}


def test_an_activation_behind_a_reshape_is_taken_in():
    """A linear layer on [2, 3, 4] is a product on [6, 4]; its gelu works on [2, 3, 8]."""
    graph = trace(nn.Sequential(nn.Linear(4, 8), nn.GELU()), torch.zeros(2, 3, 4))
    fused = fuse_epilogues(graph)
    product = next(op for op in fused if isinstance(op, EinsumOp))
    assert product.epilogue[Primitive.ERF] == 1
    assert product.epilogue[Primitive.ADD] == 1
    assert fused.tensors[product.outputs[0]].shape == (6, 8) == tuple(a.size for a in product.einsum.output.projection)
    last = fused.ops[-1]
    assert isinstance(last, ViewOp)
    assert fused.tensors[last.outputs[0]].shape == (2, 3, 8)
    assert not [op for op in fused if isinstance(op, VectorOp)]


def test_a_result_that_is_read_twice_is_not_swallowed():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x):
            y = self.conv(x)
            return torch.relu(y) + torch.sigmoid(y)

    graph = trace(Twice(), torch.zeros(1, 3, 4, 4))
    fused = fuse_epilogues(graph)
    assert [op.kind for op in fused] == [op.kind for op in graph]


def test_a_result_that_the_model_returns_is_not_swallowed():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x):
            y = self.conv(x)
            return y, torch.relu(y)

    assert len(fuse_epilogues(trace(Both(), torch.zeros(1, 3, 4, 4))).ops) == 2


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit", "bert_base"])
def test_fusion_keeps_macs_and_adds_no_vector_work(name):
    graph = Workload(name, {"depth": 2} if name in ("vit", "bert_base") else {}).graph(cache=False)
    fused = fuse_epilogues(graph)

    def vector_work(g):
        total = sum(sum(op.primitives.values()) for op in g if isinstance(op, VectorOp))
        for op in g:
            if isinstance(op, EinsumOp):
                total += sum(op.epilogue.values()) * g.tensors[op.outputs[0]].elements
        return total

    assert fused.macs == graph.macs
    assert vector_work(fused) <= vector_work(graph)
    assert len(fused.ops) < len(graph.ops)
    assert fuse_epilogues(fused) == fused
    assert {t.id for t in fused.tensors.values() if t.role is Role.INPUT} == {
        t.id for t in graph.tensors.values() if t.role is Role.INPUT
    }


def test_dead_code_drops_what_nobody_reads():
    class Wasteful(nn.Module):
        def forward(self, x):
            _ = torch.exp(x).sum()
            return x + 1

    graph = trace(Wasteful(), torch.zeros(3))
    cleaned = dead_code(graph)
    assert [op.kind for op in graph] == ["aten.exp", "aten.sum", "aten.add"]
    assert [op.kind for op in cleaned] == ["aten.add"]
    assert set(cleaned.tensors) == {*cleaned.ops[0].inputs, *cleaned.ops[0].outputs}
    assert dead_code(cleaned) == cleaned


def test_dead_code_keeps_writes_to_lasting_state():
    graph = Workload("llama", {"layers": 1, "phase": "decode", "context": 8}).graph(cache=False)
    writes = [op.name for op in graph if op.kind == "aten.copy_"]
    assert len(writes) == 2
    assert set(writes) <= {op.name for op in dead_code(graph)}


def test_precision_by_role():
    """w4a16kv8 on one Llama layer: weights 4 bits, activations 16, cache 8; token ids stay."""
    graph = Workload("llama", {"layers": 1, "phase": "decode", "context": 8}).graph(cache=False)
    precise = apply_precision(graph, parse_precision("w4a16kv8"))
    bits = {(t.role, t.bits) for t in precise.tensors.values()}
    assert bits == {
        (Role.WEIGHT, 4),
        (Role.ACTIVATION, 16),
        (Role.OUTPUT, 16),
        (Role.KV_CACHE, 8),
        (Role.INPUT, 64),
    }
    assert precise.macs == graph.macs
    assert apply_precision(precise, parse_precision("w4a16kv8")) == precise


def test_movements_move_the_new_bytes():
    graph = Workload("llama", {"layers": 1, "phase": "decode", "context": 8}).graph(cache=False)
    precise = apply_precision(graph, parse_precision("int8"))
    before = next(op for op in graph if isinstance(op, MovementOp) and op.kind == "aten.copy_")
    after = next(op for op in precise if op.name == before.name)
    assert sum(before.write_bytes.values()) == 4 * sum(after.write_bytes.values())


def test_precision_policy_by_op():
    graph = trace(nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)), torch.zeros(1, 4))
    policy = PrecisionPolicy(default=parse_precision("int8"), ops={"1": parse_precision("bf16")})
    precise = apply_precision(graph, policy)
    assert {t.name: t.dtype for t in precise.tensors.values() if t.name.endswith("weight")} == {
        "0.weight": "int8",
        "1.weight": "bf16",
    }
    with pytest.raises(PrecisionError, match="matches no op"):
        apply_precision(graph, PrecisionPolicy(default=parse_precision("int8"), ops={"nope": parse_precision("bf16")}))


def test_two_of_four_by_hand():
    """64 x 32 int8 weights at 2:4: half the elements at 8 + 2 bits are 1,280 bytes instead of 2,048."""
    graph = apply_precision(trace(nn.Linear(64, 32, bias=False), torch.zeros(2, 64)), parse_precision("int8"))
    sparse = sparsify(graph)
    weight = sparse.tensors[
        next(op for op in sparse if isinstance(op, EinsumOp)).einsum.operand(OperandRole.WEIGHT).tensor
    ]
    assert (weight.size_bytes, weight.density, weight.pattern) == (1280, 0.5, "2:4")
    assert sparse.macs == graph.macs
    assert effective_macs(sparse) == graph.macs // 2
    assert [metadata_bits(n, m) for n, m in ((2, 4), (1, 4), (4, 8), (4, 4))] == [2, 2, 3, 0]


def test_positions_of_a_window_are_no_channels():
    """A patch embedding of 3 channels and 4 x 4 positions stays dense at 2:4, a 3 x 3 depthwise convolution always; of
    the convolution behind it 12 channels are looked at."""
    net = nn.Sequential(nn.Conv2d(3, 12, 4, 4), nn.Conv2d(12, 12, 3, groups=12), nn.Conv2d(12, 8, 3))
    graph = trace(net, torch.zeros(1, 3, 32, 32))
    for pattern in ("2:4", "1:3"):
        sparse = {t.name for t in sparsify(graph, pattern).tensors.values() if t.pattern and t.name}
        assert sparse == {"2.weight"} | ({"0.weight"} if pattern == "1:3" else set())


def test_sparsity_that_fits_nowhere():
    graph = trace(nn.Linear(6, 8, bias=False), torch.zeros(1, 6))
    with pytest.raises(WorkloadError, match="divide by 4"):
        sparsify(graph)
    for wrong in ("4:2", "0:4", "half"):
        with pytest.raises(WorkloadError, match='expected "N:M"'):
            sparsify(graph, wrong)
