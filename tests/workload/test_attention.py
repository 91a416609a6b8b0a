"""Attention written by hand, explicit masks, stated expert load, scans and sampling."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from sim import estimate, load_hardware
from sim.workload.graph import EinsumOp, Primitive, Role, ViewOp
from sim.workload.load import Workload
from sim.workload.passes import find_attention, find_caches, fuse_epilogues
from sim.workload.trace import DataPolicy, trace
from sim.workload.trace.export import export
from sim.workload.trace.known import form_of


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def attention_of(graph):
    return [region for region in graph.regions.values() if region.kind == "attention"]


def by_hand(q, k, v):
    scores = q @ k.transpose(-1, -2) / 4.0
    mask = torch.ones(scores.shape[-2:], device=q.device).tril() == 0
    return scores.masked_fill(mask, float("-inf")).softmax(-1) @ v


def test_hand_written_attention_is_one_region():
    """2 heads, 3 queries, 5 keys of depth 16: products, scale, mask and softmax together."""
    graph = trace(Call(by_hand), (torch.zeros(1, 2, 3, 16), torch.zeros(1, 2, 5, 16), torch.zeros(1, 2, 5, 16)))
    (region,) = attention_of(graph)
    expected = {"heads": 2, "kv_heads": 2, "head_dim": 16, "query_length": 3, "key_length": 5, "causal": False}
    assert dict(region.attrs) == expected | {"by_hand": True}
    inside = [op for op in graph if op.region == region.id]
    assert [op.kind for op in inside if op.kind.startswith("attention.")] == [
        "attention.scores",
        "attention.softmax",
        "attention.context",
    ]
    assert {"aten.div", "aten.masked_fill"} < {op.kind for op in inside}
    assert graph.macs == 2 * 2 * 3 * 5 * 16
    assert find_attention(graph) == graph
    assert fuse_epilogues(graph).macs == graph.macs


@pytest.mark.parametrize("chip", ["epyc-zen4", "h200-torch"])
@pytest.mark.parametrize("front_end", [trace, export])
def test_a_framework_runs_attention_by_hand_op_by_op(chip, front_end):
    """As the same ops that are no attention.

    Recorded (three axes), each op was the eight kernels of a call without a fused kernel; exported (four axes), all
    were the framework's fused kernel, which code written out never reaches: 20 times apart.
    """
    q, k = torch.zeros(1, 8, 256, 64), torch.zeros(1, 8, 256, 64)
    graph = front_end(Call(by_hand), (q, k, k))
    plain = graph.with_(ops=tuple(replace(op, region=None) for op in graph), regions={})
    hardware = load_hardware(chip)
    found, expected = (estimate(one, hardware, precision="fp32") for one in (graph, plain))
    assert found.latency_s == pytest.approx(expected.latency_s, rel=1e-9)
    assert len([op for op in found.ops if op.macs]) == 2


def test_a_classifier_is_no_attention():
    """A linear layer, a softmax and a product with it: the first factor is a weight."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Linear(8, 4))
    assert not attention_of(trace(model, torch.zeros(2, 8)))


def test_copies_of_scores_that_nobody_takes_are_no_readers():
    """As a layer that returns them beside its result to a model that drops them; taken, they keep the ops apart."""

    def aside(q, k, v, kept):
        scores = q @ k.transpose(-1, -2)
        before, weights = scores.clone(), scores.softmax(-1)
        return (weights @ v, before * 2, weights.clone()) if kept else weights @ v

    q, k = torch.zeros(1, 2, 3, 16), torch.zeros(1, 2, 5, 16)
    found = {kept: trace(Call(lambda *qkv, kept=kept: aside(*qkv, kept)), (q, k, k)) for kept in (False, True)}
    assert [len(attention_of(found[kept])) for kept in (False, True)] == [1, 0]
    assert found[False].macs == 2 * 2 * 3 * 5 * 16


class Sinks(nn.Module):
    """A score of each head that takes part in the softmax and in nothing else, as in gpt-oss; `other` scores do not."""

    def __init__(self):
        super().__init__()
        self.sinks = nn.Parameter(torch.zeros(2))

    def forward(self, q, k, v, other=None):
        scores, sinks = q @ k.transpose(-1, -2) / 4, self.sinks.view(1, -1, 1, 1).expand(1, -1, q.shape[2], -1)
        joined = torch.cat([scores, sinks if other is None else other], -1)
        joined = joined - joined.max(-1, keepdim=True).values
        return joined.softmax(-1)[..., :-1] @ v


@pytest.mark.parametrize("front_end", [trace, export])
def test_attention_with_sinks(front_end):
    """2 heads, 3 queries, 5 keys and a sink: scale, join, maximum, difference and softmax between two products."""
    q, k = torch.zeros(1, 2, 3, 16), torch.zeros(1, 2, 5, 16)
    graph = front_end(Sinks(), (q, k, k))
    (region,) = attention_of(graph)
    assert (region.attrs["key_length"], region.attrs["query_length"], region.attrs["heads"]) == (5, 3, 2)
    assert graph.macs == 2 * 2 * 3 * 5 * 16
    inside = [op.kind for op in graph if op.region == region.id and not isinstance(op, ViewOp)]
    assert len(inside) == 7
    assert find_attention(graph) == graph
    assert not attention_of(front_end(Sinks(), (q, k, k, torch.zeros(1, 2, 3, 1))))


@pytest.mark.parametrize("front_end", [trace, export])
def test_weights_joined_behind_the_softmax_are_no_attention(front_end):
    """What else goes into the second product has a softmax of its own, or none: no fused kernel computes that."""

    def joined(q, k, v, other):
        return torch.cat([(q @ k.transpose(-1, -2)).softmax(-1), other], -1) @ v

    inputs = (torch.zeros(1, 2, 3, 16), torch.zeros(1, 2, 5, 16), torch.zeros(1, 2, 7, 16), torch.zeros(1, 2, 3, 2))
    assert not attention_of(front_end(Call(joined), inputs))


@pytest.mark.parametrize("chip", ["h100-sxm", "tpu-v5e"])
def test_sinks_do_not_keep_attention_from_running_fused(chip):
    """4,096 queries and keys of two heads: op by op the scores, 67 MB, are written and read again and again."""
    q = torch.zeros(1, 2, 4096, 16)
    graph = trace(Sinks(), (q, q, q))
    plain = graph.with_(ops=tuple(replace(op, region=None) for op in graph), regions={})
    found, apart = (estimate(one, load_hardware(chip)) for one in (graph, plain))
    assert found.latency_s < apart.latency_s / 2


def test_scores_that_are_read_twice_stay_apart():
    def run(q, k, v):
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        return weights @ v, weights

    shape = (1, 2, 4, 8)
    graph = trace(Call(run), (torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)))
    assert len(attention_of(graph)) == 1  # being an output is no second reader
    twice = trace(
        Call(lambda q, k, v: run(q, k, v)[0] + run(q, k, v)[1].sum()),
        tuple(
            torch.zeros(shape),
        )
        * 3,
    )
    assert len(attention_of(twice)) <= 2


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (lambda i, j: j <= i, (True, None)),
        (lambda i, j: (j <= i) & (j > i - 3), (True, 3)),
        (lambda i, j: (j - i).abs() < 3, (False, None)),
    ],
)
def test_a_mask_of_constants_tells_its_form(make, form):
    def run(q):
        at = torch.arange(8, device=q.device)
        return functional.scaled_dot_product_attention(q, q, q, attn_mask=make(at[:, None], at))

    (region,) = attention_of(trace(Call(run), torch.zeros(1, 2, 8, 4)))
    assert (region.attrs["causal"], region.attrs.get("window")) == form


def test_a_mask_from_the_input_stays_unknown():
    def run(q, keep):
        mask = torch.ones(8, 8, dtype=torch.bool, device=q.device).tril() & keep
        return functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)

    (region,) = attention_of(trace(Call(run), (torch.zeros(1, 2, 8, 4), torch.ones(8, dtype=torch.bool))))
    assert region.attrs["causal"] is False


def test_forms_of_masks_with_a_past():
    """2 queries behind 3 keys: the last positions of 5."""
    assert form_of(torch.ones(2, 5).tril(3) > 0) == (True, 0)
    assert form_of(torch.ones(2, 5).tril(0) > 0) == (False, 0)
    added = torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1) > 0, float("-inf"))
    assert form_of(added) == (True, 0)


@pytest.mark.parametrize("front_end", [trace, export])
@pytest.mark.parametrize(
    ("queries", "keys"),
    [((1, 2, 3, 4), (5, 2, 7, 4)), ((2, 3, 4), (5, 2, 7, 4)), ((5, 1, 3, 4), (5, 2, 7, 4)), ((5, 2, 3, 4), (2, 7, 4))],
)
def test_attention_broadcasts_batch_and_heads(queries, keys, front_end):
    """Learned queries, the same for each of 5 samples: 5 x 2 heads x 3 queries x 7 keys x 4 in each of two products,
    and a result of 5 x 2 x 3 x 4."""

    def attend(q, k):
        return functional.scaled_dot_product_attention(q, k, k)

    graph = front_end(Call(attend), (torch.zeros(queries), torch.zeros(keys)))
    assert graph.macs == 2 * 5 * 2 * 3 * 7 * 4
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (5, 2, 3, 4)


def test_a_stated_load_of_experts():
    """64 tokens choose 2 of 8; expert 0 gets half of the 128 choices, expert 7 none, the rest is dealt out whole."""
    module, inputs = Workload("mixtral", {"layers": 1, "context": 64, "dispatch": "loop"}).build(device="meta")
    graph = trace(module, inputs, policy=DataPolicy(shares=(0.5, 0.25, 0.05, 0.05, 0.05, 0.05, 0.05, 0.0)))
    rows = [op.einsum.ranks["M"] for op in graph if isinstance(op, EinsumOp) and op.einsum.ranks.get("N") == 28672]
    assert rows == [64, 32, 6, 6, 7, 6, 7]
    assert sum(rows) == 128
    with pytest.raises(ValueError, match="sum to 1"):
        DataPolicy(shares=(0.5, 0.6))


def test_grouped_products_of_any_type_note_their_load():
    def run(x, w, ends):
        return torch._grouped_mm(x, w, offs=ends)

    inputs = (torch.zeros(48, 32), torch.zeros(4, 32, 64), torch.zeros(4, dtype=torch.int32))
    graph = trace(Call(run), inputs)
    assert graph.macs == 48 * 32 * 64
    assert any("assumed even" in note for note in graph.notes)
    assert [r.attrs["groups"] for r in graph.regions.values() if r.kind == "grouped_product"] == [4]


def test_a_selective_scan_by_hand():
    """1 x 5 steps x 32 channels x 16 states: one exp each; decode makes one step in place."""
    knobs = {"width": 16, "depth": 1, "context": 5, "vocabulary": 8}
    graph = Workload("mamba", knobs).graph(cache=False)
    (scan,) = [op for op in graph if op.kind == "dovetail.selective_scan"]
    assert scan.primitives[Primitive.EXP] == 5 * 32 * 16
    assert graph.regions[scan.region].attrs["length"] == 5


def test_sampling_counts_its_taps():
    """Trilinear: 8 taps an output element; nearest: 1."""
    x, grid = torch.zeros(1, 3, 4, 4, 4), torch.zeros(1, 2, 2, 2, 3)
    for mode, taps in (("bilinear", 8), ("nearest", 1)):
        graph = trace(Call(lambda a, b, mode=mode: functional.grid_sample(a, b, mode, align_corners=False)), (x, grid))
        (op,) = [op for op in graph if "grid_sampler" in op.kind]
        assert op.primitives[Primitive.SHUFFLE] == taps * 3 * 8


class Decode(nn.Module):
    """One query against keys and values from outside; `step` puts new ones behind them."""

    def __init__(self, step):
        super().__init__()
        self.q, self.kv, self.step = nn.Linear(8, 8), nn.Linear(8, 8), step

    def forward(self, x, k, v):
        if self.step:
            k, v = (torch.cat((old, self.kv(x)), dim=-2) for old in (k, v))
        return functional.scaled_dot_product_attention(self.q(x), k, v)


@pytest.mark.parametrize("step", [False, True])
def test_keys_and_values_from_outside_are_a_cache(step):
    """Two of 2 x 5 x 8 elements; the token that comes in is an input."""
    graph = trace(Decode(step), (torch.zeros(2, 1, 8), torch.zeros(2, 5, 8), torch.zeros(2, 5, 8)))
    assert [t.shape for t in graph.tensors.values() if t.role is Role.KV_CACHE and t.name] == [(2, 5, 8)] * 2
    assert [t.shape for t in graph.tensors.values() if t.role is Role.INPUT and t.name] == [(2, 1, 8)]
    assert find_caches(graph) == graph


class Handed(nn.Module):
    """One query of two heads against a cache of 5 keys that is handed over; `made` makes the keys of it."""

    def __init__(self, made):
        super().__init__()
        self.q, self.made = nn.Linear(16, 16), made

    def forward(self, x, k, v, order):
        q = self.q(x).view(-1, 1, 2, 8).transpose(1, 2)
        return functional.scaled_dot_product_attention(q, self.made(k, order), self.made(v, order))


def shifted(k):
    """The oldest key makes room for a new one."""
    k = torch.roll(k, -1, 2)
    k[:, :, -1] = 1.0
    return k


@pytest.mark.parametrize(
    "made",
    [
        lambda k, order: k.repeat_interleave(2, dim=1),
        lambda k, order: k.index_select(0, order).expand(-1, 2, -1, -1),
        lambda k, order: k[order].repeat(1, 2, 1, 1),
        lambda k, order: k.half().float().expand(-1, 2, -1, -1),
        lambda k, order: k.index_copy(2, order[:1], k.new_ones(3, 1, 1, 8)).expand(-1, 2, -1, -1),
        lambda k, order: k.index_put((order, order), k.new_ones(5, 8)).expand(-1, 2, -1, -1),
        lambda k, order: k.scatter(2, order.view(3, 1, 1, 1), k.new_ones(3, 1, 1, 8)).expand(-1, 2, -1, -1),
        lambda k, order: k.gather(2, order.view(1, 1, 3, 1).expand(3, -1, -1, 8)).expand(-1, 2, -1, -1),
        lambda k, order: k.select_scatter(k.new_ones(3, 1, 8), 2, 4).expand(-1, 2, -1, -1),
        lambda k, order: torch.where(order.view(3, 1, 1, 1) > 0, k.new_ones(1), k).expand(-1, 2, -1, -1),
        lambda k, order: shifted(k).expand(-1, 2, -1, -1),
        lambda k, order: ((k.half().float() - 1) * k.new_ones(8)).expand(-1, 2, -1, -1),
    ],
)
@pytest.mark.parametrize("front_end", [trace, export])
def test_a_cache_is_one_whatever_lies_between(made, front_end):
    """Heads repeated, beams reordered, types changed, a new key at its place: its 120 elements are there before."""
    cache, order = torch.zeros(3, 1, 5, 8), torch.zeros(3, dtype=torch.int64)
    graph = front_end(Handed(made), (torch.zeros(3, 1, 16), cache, cache.clone(), order))
    roles = {t.name: t.role for t in graph.tensors.values() if t.name}
    assert [roles[name] for name in ("x", "k", "v")] == [Role.INPUT, Role.KV_CACHE, Role.KV_CACHE]
    assert roles.get("order", Role.INPUT) is Role.INPUT


def test_of_attention_alone_all_three_are_inputs():
    function = Call(functional.scaled_dot_product_attention)
    graph = trace(function, (torch.zeros(2, 3, 8), torch.zeros(2, 5, 8), torch.zeros(2, 5, 8)))
    assert not [t for t in graph.tensors.values() if t.role is Role.KV_CACHE]


def test_a_token_of_whisper_brings_only_itself_over_the_host_link():
    """The encoder's keys and values are made once; each token that is decoded is one number of 8 bytes."""
    found = estimate(Workload("whisper", {"phase": "decode"}), "h100-sxm")
    (transfer,) = (op for op in found.ops if op.name == "host.input")
    assert transfer.traffic_bytes["DRAM"]["input"].write == 8


def test_what_queries_are_made_from_is_an_input_though_attention_reads_it_as_keys():
    class OwnKeys(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Linear(64, 64)

        def forward(self, x):
            queries, keys = (t.view(1, -1, 4, 16).transpose(1, 2) for t in (self.query(x), x))
            return functional.scaled_dot_product_attention(queries, keys, keys)

    graph = trace(OwnKeys(), (torch.zeros(1, 32, 64),))
    roles = [t.role for t in graph.tensors.values()]
    assert Role.INPUT in roles
    assert Role.KV_CACHE not in roles


class Neighbours(nn.Module):
    """Attention over what comes in as it is; `joined`: with what came before put in front, queries made of all."""

    def __init__(self, joined):
        super().__init__()
        self.query, self.joined = nn.Linear(8, 8), joined

    def forward(self, x, y, h):
        if self.joined:
            both = torch.cat((x, h), 1)
            return functional.scaled_dot_product_attention(self.query(both), both, both), y
        attend = functional.scaled_dot_product_attention
        return attend(x, y, y), attend(self.query(h), x, x)


def test_tables_that_queries_are_turned_by_too_are_inputs():
    """Cosines that come in and scale queries as they do keys are no cache, as the keys are."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Linear(8, 8)

        def forward(self, x, k, cosines):
            return functional.scaled_dot_product_attention(self.query(x) * cosines, k * cosines, k)

    graph = trace(Turned(), (torch.zeros(2, 1, 8), torch.zeros(2, 5, 8), torch.zeros(1, 1, 8)))
    roles = {t.name: t.role for t in graph.tensors.values() if t.name}
    assert [roles[name] for name in ("x", "k", "cosines")] == [Role.INPUT, Role.KV_CACHE, Role.INPUT]


@pytest.mark.parametrize("joined", [False, True])
def test_what_asks_anywhere_or_is_read_joined_is_an_input(joined):
    """x asks in one attention and is asked in another; or x and h are joined, and queries are made from both."""
    graph = trace(Neighbours(joined), tuple(torch.zeros(1, n, 8) for n in (12, 10, 4)))
    assert {t.role for t in graph.tensors.values() if t.name in ("x", "y", "h")} == {Role.INPUT}
