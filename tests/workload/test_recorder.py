"""The recorder on small models whose graph is known by hand."""

import re
from dataclasses import dataclass

import pytest
import torch
from calls import Call, graph_of
from torch import nn
from torch.nn import functional

import sim
from sim.analytical import estimate
from sim.errors import TraceError
from sim.workload.graph import EinsumOp, MovementOp, Primitive, Role, VectorOp, ViewOp
from sim.workload.trace import DataPolicy, trace
from sim.workload.trace.export import export


def test_views_share_storage_and_cost_nothing():
    graph = graph_of(lambda m, x: x.view(2, 8).t()[1:3] + 1, torch.zeros(4, 4))
    views = [op for op in graph if isinstance(op, ViewOp)]
    assert {graph.tensors[t].storage for op in views for t in (*op.inputs, *op.outputs)} == {
        graph.tensors["t0"].storage
    }
    assert [type(op) for op in graph if not isinstance(op, ViewOp)] == [VectorOp]


def test_transposed_weight_has_its_layout():
    graph = graph_of(lambda m, x: x @ m.w.t(), torch.zeros(2, 3), w=torch.zeros(5, 3))
    product = next(op for op in graph if isinstance(op, EinsumOp))
    weight = graph.tensors[product.inputs[1]]
    assert (weight.shape, weight.layout, weight.role) == ((3, 5), (1, 0), Role.WEIGHT)


def test_a_read_after_a_write_through_another_view_depends_on_the_write():
    """y = x.clone(); y[0] = 1; then y is read: through an alias of what fill wrote."""

    def run(m, x):
        y = x.clone()
        y[0].fill_(1)
        return y * 2

    graph = graph_of(run, torch.zeros(3, 3))
    fill = next(op for op in graph if op.kind == "aten.fill_")
    alias = next(op for op in graph if op.kind == "view.alias")
    times = next(op for op in graph if op.kind == "aten.mul")
    assert alias.inputs == fill.outputs
    assert times.inputs == alias.outputs
    assert len({graph.tensors[t].storage for t in (*fill.outputs, *alias.outputs)}) == 1
    assert graph.tensors[times.outputs[0]].storage != graph.tensors[alias.outputs[0]].storage


def test_in_place_result_is_a_new_tensor_of_the_same_storage():
    graph = graph_of(lambda m, x: torch.relu_(x + 1), torch.zeros(3))
    add, relu = graph.ops
    assert relu.inputs == add.outputs
    assert relu.outputs != add.outputs
    assert graph.tensors[relu.outputs[0]].storage == graph.tensors[add.outputs[0]].storage
    assert graph.tensors[relu.outputs[0]].role is Role.OUTPUT


def test_a_buffer_written_in_place_is_a_kv_cache_and_only_the_new_rows_are_written():
    def step(m, x):
        m.cache[:, 3:4] = x
        return m.cache.sum()

    graph = graph_of(step, torch.zeros(2, 1, 4), cache=torch.zeros(2, 8, 4))
    copy = next(op for op in graph if isinstance(op, MovementOp))
    assert graph.tensors[copy.outputs[0]].role is Role.KV_CACHE
    assert sum(copy.write_bytes.values()) == 2 * 4 * 4 == sum(copy.read_bytes.values())


def test_embedding_reads_rows_not_the_table():
    table = nn.Embedding(1000, 16)
    graph = trace(table, torch.zeros(1, 3, dtype=torch.int64))
    (op,) = graph.ops
    assert sorted(op.read_bytes.values()) == [3 * 8, 3 * 16 * 4]


def test_broadcast_axes_are_stored_once():
    graph = graph_of(lambda m, x: x.expand(4, 8) * 2, torch.zeros(1, 8))
    assert graph.tensors[graph.ops[-1].inputs[0]].shape == (1, 8)
    assert graph.ops[-1].primitives == {Primitive.MUL: 32}


def test_windows_that_overlap_are_stored_once():
    """25 steps of 64 channels, one after the other over 512: their mean reads 512 x 64 elements, and so many come from
    the host; patches of 7 x 7 every 4 pixels are copied out of 63 x 63."""
    graph = graph_of(lambda m, x: x.unfold(1, 25, 1).mean(-1), torch.empty(2, 512, 64))
    (mean,) = [op for op in graph.ops if isinstance(op, VectorOp)]
    assert graph.tensors[mean.inputs[0]].elements == 2 * 512 * 64
    assert mean.primitives[Primitive.ADD] == 2 * 488 * 64 * 25
    found = sim.estimate(graph, sim.load_hardware("h100-sxm"))
    transfer = next(op for op in found.ops if op.name == "host.input")
    assert transfer.traffic_bytes["DRAM"]["input"].write == 2 * 2 * 512 * 64

    patches = graph_of(lambda m, x: x.unfold(2, 7, 4).unfold(3, 7, 4).contiguous(), torch.empty(1, 3, 63, 63))
    (copy,) = [op for op in patches.ops if isinstance(op, MovementOp)]
    assert list(copy.read_bytes.values()) == [4 * 3 * 63 * 63]
    assert list(copy.write_bytes.values()) == [4 * 3 * 15 * 15 * 7 * 7]


def test_grouped_query_attention_by_hand():
    """8 query heads on 2 KV heads, 3 queries, 5 keys, depth 16: 8 x 3 x 5 x 16 MACs, twice."""

    def run(m, q, k, v):
        return nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    graph = graph_of(run, torch.zeros(1, 8, 3, 16), torch.zeros(1, 2, 5, 16), torch.zeros(1, 2, 5, 16))
    scores, softmax, context = graph.ops
    assert dict(scores.einsum.ranks) == {"H": 2, "G": 4, "M": 3, "N": 5, "K": 16}
    assert dict(context.einsum.ranks) == {"H": 2, "G": 4, "M": 3, "N": 16, "K": 5}
    assert scores.einsum.operands[1].ranks == {"H", "N", "K"}
    assert context.einsum.operands[0].projection[1].terms == (("H", 4), ("G", 1))
    assert softmax.primitives[Primitive.EXP] == 8 * 3 * 5
    assert softmax.passes == 2
    (region,) = graph.regions.values()
    assert (region.kind, region.attrs["heads"], region.attrs["kv_heads"]) == ("attention", 8, 2)
    assert {op.region for op in graph} == {region.id}


def test_multihead_attention_module_keeps_its_attention_whole():
    layer = nn.MultiheadAttention(16, 4, batch_first=True)
    x = torch.zeros(2, 5, 16)
    graph = trace(layer, {"query": x, "key": x, "value": x, "need_weights": False})
    assert [region.kind for region in graph.regions.values()] == ["attention_layer", "attention"]


def test_module_paths_and_source_lines():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU()))
    graph = trace(model, torch.zeros(1, 4))
    assert [(op.module, op.name) for op in graph][-2:] == [("0", "0.addmm"), ("1.0", "1.0.relu")]
    assert graph.ops[-1].source.startswith("test_recorder.py:")


def test_a_file_without_a_forward_of_its_own_has_the_line_of_its_build(tmp_path):
    """Of a bare nn.Sequential no line runs that is the user's, and none of ours is shown for one."""
    file = tmp_path / "plain.py"
    file.write_text(
        "import torch\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(4, 4)), torch.zeros(1, 4)\n"
    )
    graph = sim.Workload(str(file)).graph(cache=False)
    assert [(op.source, op.module) for op in graph if isinstance(op, EinsumOp)] == [("plain.py:2", "0")]


@dataclass
class Result:
    first: torch.Tensor
    rest: dict


def test_outputs_in_dataclasses_and_dicts():
    graph = graph_of(lambda m, x: Result(x + 1, {"b": [x * 2]}), torch.zeros(2))
    assert [graph.tensors[op.outputs[0]].role for op in graph] == [Role.OUTPUT, Role.OUTPUT]


def test_a_complex_tensor_is_two_real_parts_an_element():
    """6 x 4 of complex64: 192 bytes, as the parts of 32 bits that an array multiplies."""
    graph = graph_of(lambda m, x: torch.view_as_real(x @ m.w), torch.zeros(6, 8) * 1j, w=torch.zeros(8, 4) * 1j)
    product = next(op for op in graph if isinstance(op, EinsumOp))
    assert product.einsum.macs == 4 * 6 * 8 * 4
    tensors = [graph.tensors[key] for key in (*product.inputs, *product.outputs)]
    assert [t.shape for t in tensors] == [(6, 8, 2), (8, 4, 2), (6, 4, 2)]
    assert [t.size_bytes for t in tensors] == [6 * 8 * 8, 8 * 4 * 8, 6 * 4 * 8]
    assert {(t.dtype, t.bits) for t in tensors} == {("fp32", 32)}


def test_an_encoder_with_a_padding_mask_works_on_padded_tokens_too():
    """Torch's own way would pack them in nested tensors, which have no shapes without data."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    graph = trace(encoder, {"src": torch.zeros(2, 5, 16), "src_key_padding_mask": mask})
    assert graph.macs == 10 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 2 * 5 * 5 * 16
    assert any("padded tokens" in note for note in graph.notes)


def test_module_and_inputs_are_left_as_they_were():
    model = Call(lambda m, x: m.state.add_(x), state=torch.ones(3)).train()
    x = torch.full((3,), 2.0)
    trace(model, x)
    assert model.training
    assert model.state.tolist() == [1, 1, 1]
    assert x.tolist() == [2, 2, 2]


def test_tied_weights_count_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids))

    assert trace(Tied(), torch.zeros(1, 2, dtype=torch.int64)).parameters == 40


def test_answers_are_noted_with_their_line():
    graph = graph_of(lambda m, x: x * 2 if x.sum() > 0 else x, torch.zeros(2))
    (note,) = graph.notes
    assert re.fullmatch(r"test_recorder\.py:\d+: bool of a tensor assumed to be True", note)
    graph = trace(Call(lambda m, x: x * 2 if x.sum() > 0 else x), torch.zeros(2), policy=DataPolicy(truth=False))
    assert not [op for op in graph if op.kind == "aten.mul"]


def test_experts_get_their_fair_share_of_tokens():
    """12 tokens choose 2 of 4 experts: each expert's mask holds 12 x 2 / 4 = 6."""

    def mixture(m, x):
        chosen = (x @ m.router).topk(2).indices
        out = torch.zeros_like(x)
        for expert in range(4):
            token, _ = torch.where(chosen == expert)
            out.index_add_(0, token, x[token] @ m.experts[expert])
        return out

    graph = graph_of(mixture, torch.zeros(12, 8), router=torch.zeros(8, 4), experts=torch.zeros(4, 8, 8))
    sizes = [op.einsum.ranks["M"] for op in graph if isinstance(op, EinsumOp)]
    assert sizes == [12, 6, 6, 6, 6]


def test_a_boolean_mask_keeps_the_policys_fraction():
    model = Call(lambda m, x: x[x > 0] * 2)
    graph = trace(model, torch.zeros(8), policy=DataPolicy(fraction=0.25))
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (2,)


def test_a_line_that_asks_again_and_again_is_told_once():
    """Boxes dropped one by one, as a hand-written NMS does: masks of 7, 6, ..., 1 are one note."""

    def shrink(m, x):
        for _ in range(7):
            x = x[1:][x[1:] > 0] if len(x) > 1 else x
        return x * 2

    (note,) = graph_of(shrink, torch.zeros(8)).notes
    assert "mask of 7 assumed to be 7; 6 more like it from this line, the last: true elements of a mask of 1" in note


class Packed(nn.Module):
    """A recurrent layer on sequences of different lengths, longest not first."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, _ = self.layer(packed)
        return nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0]


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize(("fraction", "steps"), [(1.0, 80), (0.25, 20)])
def test_packed_sequences_have_the_policys_steps(layer, gates, fraction, steps):
    """Two sequences of 80 steps at most, gates of 6 x (4 + 6); what comes out is padded to 80 again."""
    model = Packed(layer(4, 6, batch_first=True))
    inputs = torch.zeros(2, 80, 4), torch.tensor([60, 80])
    graph = trace(model, inputs, policy=DataPolicy(fraction=fraction))
    assert graph.macs == 2 * steps * gates * 6 * (4 + 6)
    assert [t.shape for t in graph.tensors.values() if t.role is Role.OUTPUT][-1] == (2, 80, 6)
    assert any(f"steps of each packed sequence, of at most 80, assumed to be {steps}" in note for note in graph.notes)
    assert [r.kind for r in graph.regions.values()] == ["recurrent"]


def test_a_given_result_is_written_and_not_read():
    """torch.mul(a, b, out=c): two factors of 8 elements are read; of top-k only the values are asked for again."""

    def function(module, a, b):
        values, places = torch.empty(2, 2, device=a.device), torch.empty(2, 2, dtype=torch.long, device=a.device)
        product = torch.empty(2, 4, device=a.device)
        torch.topk(torch.mul(a, b, out=product), 2, out=(values, places))
        return values

    graph = graph_of(function, torch.empty(2, 4), torch.empty(2, 4))
    mul, topk = [op for op in graph.ops if op.kind in ("aten.mul", "aten.topk")]
    assert [graph.tensors[key].role for key in mul.inputs] == [Role.INPUT, Role.INPUT]
    assert sum(topk.read_bytes.values()) == 8 * 4
    assert sum(topk.write_bytes.values()) == 4 * 4


def test_attention_and_norms_within_vmap():
    """Two frames of five tokens, one head: 2 x 5 x 5 x 8 MACs a frame; what torch runs has no memory there."""

    def function(module, x):
        frame = lambda t: functional.rms_norm(functional.scaled_dot_product_attention(t, t, t), (8,))  # noqa: E731
        return torch.vmap(frame)(x)

    graph = graph_of(function, torch.empty(2, 5, 8))
    assert graph.macs == 2 * 2 * 5 * 5 * 8
    assert [region.kind for region in graph.regions.values()].count("attention") == 1


@pytest.mark.parametrize("kept", ["list", "closure", "global"])
def test_weights_that_the_module_does_not_register_are_read_as_well(kept):
    """A layer in a plain list or behind a function, a tensor of the module's file: nobody makes them, so they lie in
    memory as parameters do, and cost their bytes."""
    layer = nn.Linear(100, 33)
    model = Call({"list": lambda m, x: m.layers[0](x), "closure": lambda m, x: layer(x)}.get(
        kept, lambda m, x: nn.functional.linear(x, layer.weight, layer.bias)
    ))  # fmt: skip
    model.layers = [nn.Linear(100, 33)]
    graph, registered = trace(model, (torch.zeros(4, 100),)), trace(layer, (torch.zeros(4, 100),))
    weights = [
        {t.storage: t.elements for t in g.tensors.values() if t.role is Role.WEIGHT} for g in (graph, registered)
    ]
    assert sorted(weights[0].values()) == sorted(weights[1].values()) == [33, 3300]
    moved = [estimate(g, "systolic", precision="int8").traffic_bytes["DRAM"] for g in (graph, registered)]
    assert moved[0] == moved[1]
    assert moved[0].read >= 4 * 100 + 3300 + 33


@pytest.mark.parametrize("front_end", [trace, export])
def test_autocast_for_the_type_of_the_inputs_device(front_end):
    """Rotary angles in fp32 whatever surrounds them: an outer product of 6 positions and 4 frequencies, 24 MACs."""

    class Angles(nn.Module):
        def forward(self, positions, frequencies):
            with torch.autocast(positions.device.type, enabled=torch.is_autocast_enabled(positions.device.type)):
                return torch.mm(positions, frequencies).cos()

    graph = front_end(Angles(), (torch.zeros(6, 1), torch.zeros(1, 4)))
    assert graph.macs == 24
    with pytest.raises(RuntimeError):
        torch.autocast("meta")  # torch is as it was


@pytest.mark.parametrize("axis", [None, 0])
def test_a_result_that_is_quantised_and_back(axis):
    """32 numbers: an fma by the scale's reciprocal, a conversion and two bounds; back a conversion, a zero point, a
    scale. A byte each lies between."""

    def run(m, x):
        if axis is None:
            return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize()
        return torch.quantize_per_channel(x, torch.ones(4), torch.zeros(4), axis, dtype=torch.qint8).dequantize()

    graph = graph_of(run, torch.zeros(4, 8))
    down, up = [op for op in graph if "quantize" in op.kind]
    assert down.primitives == {Primitive.FMA: 32, Primitive.CONVERT: 32, Primitive.COMPARE: 64}
    assert up.primitives == {Primitive.CONVERT: 32, Primitive.ADD: 32, Primitive.MUL: 32}
    assert graph.tensors[down.outputs[0]].size_bytes == 32
    assert graph.tensors[up.outputs[0]].size_bytes == 4 * 32


def test_what_is_quantised_is_the_input_wherever_it_stands():
    """A call by keywords may give the scale first: the 32 numbers are quantised, not the scale."""

    def run(m, x, scale, zero):
        return torch.quantize_per_tensor(scale=scale, zero_point=zero, dtype=torch.qint8, input=x).dequantize()

    graph = graph_of(run, torch.zeros(4, 8), torch.tensor(0.1), torch.tensor(0))
    assert [graph.tensors[op.outputs[0]].shape for op in graph] == [(4, 8), (4, 8)]
    with pytest.raises(TraceError, match="dequantize"):
        graph_of(lambda m, x: torch.dequantize(tensors=[x, x])[1] + 1, torch.zeros(4, 8))
