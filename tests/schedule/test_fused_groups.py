"""Groups that run slice by slice: attention and chains of layers, by hand and by law."""

from __future__ import annotations

from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chains import attention, chain, convolutions, products
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.cost.flash import flash_regions, visible_blocks
from sim.hardware.chip import Chip
from sim.schedule.fusion import _best_together
from sim.schedule.network import Options, cost_network
from sim.schedule.prepare import prepare
from sim.schedule.slices import Slicing, cut, slice_classes
from sim.schedule.slicings import attention_slicings, chain_slicings, chains
from sim.workload.graph import Graph, OperandRole, Primitive
from sim.workload.precision import parse_precision


def network_of(graph: Graph, chip: Chip, **options: object):
    return cost_network(graph, [chip], parse_precision(chip.default_precision), Options(**options))


def test_attention_by_hand():
    """12 heads of 256 queries x 512 keys x 64 on `systolic` (64 x 64, 64 lanes, 34 B/cycle from DRAM, all int8).

    One head is a slice: 131,072 scores x (4 + 1 + 1) lane cycles / 64 lanes = 12,288 cycles, more than the array needs
    (two products of 8 folds of 2 x 64 + 64 + 256 - 2 cycles and more). Loads of q, k and v: 81,920 bytes a slice, 34 a
    cycle, 100 cycles set-up, 100 of latency before the first; the last result of 16,384 bytes is stored at the end.
    """
    chip, graph = sim.load_hardware("systolic"), attention(12, 256, 512, 64)
    network = network_of(graph, chip)
    (group,) = network.groups
    assert group.sliced is not None
    assert group.sliced.slicing.count == 12
    array = float(group.sliced.fill[0])
    assert 2 * 8 * (2 * 64 + 64 + 256 - 2) <= array < 12288
    assert group.sliced.step[0] == 12288
    load, store = 81920 / 34 + 100, 16384 / 34 + 100
    expected = load + 100 + 12 * 12288 + array + store
    assert group.time_s[0] * 1e9 == pytest.approx(expected, rel=1e-12)
    found = sim.estimate(graph, chip, what_if=True)
    assert found.latency_s == pytest.approx(expected * 1e-9 + 1e-6, rel=1e-12)  # one launch
    moved = found.traffic_bytes["DRAM"]
    assert (moved.read, moved.write) == (12 * 81920, 12 * 16384)
    assert found.ops[0].fused == ("softmax", "context")
    assert found.ops[0].homes["scores"] == found.ops[0].homes["shares"] == "SRAM"
    assert found.macs == 2 * 12 * 256 * 512 * 64
    assert any("attention (256 queries x 512 keys a slice)" in note for note in found.notes)


def test_scores_that_stay_in_slices_are_not_in_the_bound_of_their_op():
    """8 heads of 1024 x 1024 scores, 8 MiB, do not fit into the 4 MiB of `systolic`; in slices they stay there all the
    same. Lanes bind: (4 + 1 + 1) cycles a score / 64. Moved whole over DRAM, four times, they would take longer."""
    found = sim.estimate(attention(8, 1024, 1024, 64), "systolic")
    (op,) = found.ops
    scores = 8 * 1024 * 1024
    assert op.homes["scores"] == "SRAM"
    assert op.roofline_s == pytest.approx(scores * 6 / 64 * 1e-9, rel=1e-12)
    assert op.roofline_s < 4 * scores / 34e9
    assert op.roofline_s <= op.latency_s
    point = next(point for point in found.roofline["ops"] if point["name"] == "scores")
    assert point["resource_s"]["memory:DRAM"] == pytest.approx(2 * 8 * 1024 * 64 / 34e9)  # queries and keys


def test_a_memory_that_holds_all_keys_still_takes_them_in_blocks_where_that_is_faster():
    """16 queries with all 4096 keys fit 1 MiB, not 768 KiB; blocks of keys let more queries share each load of them."""
    graph = attention(8, 4096, 4096, 40)
    less, more = (
        sim.estimate(graph, sim.load_hardware("systolic", {"SRAM.capacity": size})) for size in ("768 KiB", "1 MiB")
    )
    assert more.latency_s <= less.latency_s


def test_more_memory_slows_no_attention():
    """What fits into a memory fits into a larger one, in as many slices: coarser ones only where they are faster."""
    graph = attention(8, 2500, 9600, 32)
    times = [
        sim.estimate(graph, sim.load_hardware("tesla-fsd-npu", {"SRAM.capacity": size})).latency_s
        for size in ("32 MiB", "64 MiB", "128 MiB")
    ]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("hardware", ["systolic", "tesla-fsd-npu", "tpu-v4i"])
def test_one_head_of_few_queries_is_a_slice(hardware: str):
    """All of it runs as one group, as two heads do in two slices: half of the work is not slower."""
    one, two = (torch.zeros(1, heads, 4, 32) for heads in (1, 2))
    graphs = [sim.trace(SelfAttention(), (x,)) for x in (one, two)]
    found = [sim.estimate(graph, sim.load_hardware(hardware), inputs="resident") for graph in graphs]
    assert [len(each.ops) for each in found] == [1, 1]
    assert found[0].latency_s <= found[1].latency_s


class SelfAttention(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)


def test_a_slice_of_each_kind():
    """What a slice loads: whole heads; then the keys of a head once; then keys again for each block of queries."""
    graph = attention(8, 256, 512, 64, shared=4)  # two heads of keys, each for four of queries
    region = flash_regions(graph)["r"]
    ways = attention_slicings(region, graph, 32)
    heads = next(way for way in ways if way.count == 2)
    assert (heads.outer, heads.inner, heads.load_outer) == (1, 2, {})
    assert heads.load_inner == {"q": 4 * 256 * 64, "k": 512 * 64, "v": 512 * 64}
    assert heads.buffer_bytes == 2 * 2 * 4 * 256 * 512  # scores and shares, two slices of each
    rows = next(way for way in ways if way.outer == 2 and way.inner == 4)
    assert rows.load_outer == {"k": 512 * 64, "v": 512 * 64}
    assert rows.load_inner == {"q": 4 * 64 * 64}
    online = next(way for way in ways if way.online_ops and way.outer == 2)  # all queries, blocks of 256 keys
    assert (online.inner, online.load_outer) == (2, {"q": 4 * 256 * 64})
    assert online.load_inner == {"k": 256 * 64, "v": 256 * 64}
    # per query and block: a comparison, an exponential, two products, 64 multiply-adds
    assert online.online_ops == 8 * 256 * 2 * (4 + 64)
    for way in ways:
        assert way.outer * way.inner == way.count
        for member, sizes in way.cuts:
            assert cut(member, sizes).einsum.macs * way.count >= member.einsum.macs
        for kind, work in (("exp", 8 * 256 * 512),):
            assert sum(v.primitives[kind] for v in way.vectors[:1]) * way.count == pytest.approx(work)


def test_hidden_blocks_by_hand():
    """512 queries x 512 keys, causal, blocks of 128 x 64: rows of blocks see 2, 4, 6 and 8 of 8 blocks of keys, 20.

    Queries and results pass once, a block of keys and of values with each slice; two heads of 512 x 64 bytes.
    """
    graph = attention(2, 512, 512, 64, causal=True)
    ways = attention_slicings(flash_regions(graph)["r"], graph, 32)
    way = next(w for w in ways if cut(*w.cuts[0]).einsum.ranks == {"H": 1, "M": 128, "N": 64, "K": 64})
    assert (way.outer, way.inner, way.visited, way.load_outer) == (2, 20, 20 / 32, {})
    assert way.load_inner == {"q": 512 * 64 / 20, "k": 64 * 64, "v": 64 * 64}
    assert way.store == {"out": 512 * 64 / 20}
    shares = 2 * 2 * 128 * 64  # scores and shares, two slices of each
    sums = 2 * 128 * 64 * 4
    rows = 2 * 2 * (128 * 64 - 512 * 64 / 20)  # what a row's queries and results take beyond their part of a slice
    assert way.buffer_bytes == pytest.approx(shares + sums + rows)
    assert way.vectors[0].primitives[Primitive.EXP] == 128 * 64
    local = attention(2, 512, 512, 64, causal=True, window=64)  # the diagonal of blocks and those left of it
    ways = attention_slicings(flash_regions(local)["r"], local, 32)
    assert min(w.visited for w in ways) == 15 / 64  # blocks of 64 x 64: one, then two in each of seven rows
    assert all(w.inner * w.load_inner["k"] >= 512 * 64 * (1 - 1e-9) for w in ways if w.visited < 1)


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.booleans(), st.integers(0, 50)
)
def test_visible_blocks_are_those_that_hold_visible_pairs(queries, keys, rows, columns, causal, window):
    """Counted pair by pair: query i of q sees keys up to k - q + i (at least the first), of those the last `window`."""
    found = visible_blocks(queries=queries, keys=keys, rows=rows, columns=columns, causal=causal, window=window)
    blocks = set()
    for i in range(queries):
        last = max(keys - queries + i, 0) if causal else keys - 1
        first = max(last - window + 1, 0) if causal and window else 0
        blocks |= {(i // rows, j // columns) for j in range(first, last + 1)}
    assert len(blocks) <= found <= len(blocks) + (queries // rows + 1)
    if queries <= keys:
        assert found == len(blocks)


def test_a_mask_makes_attention_faster():
    chip = sim.load_hardware("tesla-fsd-npu")
    whole, half, band = (
        sim.estimate(attention(8, 2048, 2048, 64, **mask), chip)
        for mask in ({}, {"causal": True}, {"causal": True, "window": 128})
    )
    assert band.latency_s < half.latency_s < whole.latency_s
    assert band.effective_macs < half.effective_macs < whole.effective_macs == whole.macs
    assert any("hidden blocks left out" in note for note in half.notes)


@given(st.integers(1, 9), st.integers(1, 9))
def test_classes_load_and_store_everything_once(outer: int, inner: int):
    """With the first load and the last store: every outer step once, every slice once."""
    way = Slicing(
        what="", members=(0,), outer=outer, inner=inner, cuts=(), vectors=(), load_outer={}, load_inner={},
        store={}, buffer_bytes=0.0, inside=frozenset(),
    )  # fmt: skip
    classes = slice_classes(way)
    assert sum(repeat for repeat, *_ in classes) == way.count
    assert 1 + sum(repeat * share for repeat, share, _, _ in classes) == pytest.approx(outer)
    assert 1 + sum(repeat * loads for repeat, _, loads, _ in classes) == way.count
    assert 1 + sum(repeat * stores for repeat, *_, stores in classes) == way.count


def test_a_cut_convolution_reads_its_window():
    """7 rows of a 3 x 3 convolution with stride 2 read (7 - 1) x 2 + 3 = 15 rows; the weights stay whole."""
    op = sim.conv2d(8, 16, 64, 3, stride=2, padding=1).ops[0]
    part = cut(op, {"P": 7})
    read, weight = part.einsum.operand(OperandRole.INPUT), part.einsum.operand(OperandRole.WEIGHT)
    assert part.einsum.macs == op.einsum.macs * 7 // 32
    assert [axis.size for axis in read.projection] == [1, 8, 15, 64]
    assert weight == op.einsum.operand(OperandRole.WEIGHT)
    assert part.einsum.output.projection[2].size == 7


def test_a_chain_by_hand():
    """1 x 1, depthwise 3 x 3, 1 x 1 (16 -> 96 -> 96 -> 24 channels, 96 x 96 pixels) on 64 KiB: rows pass through.

    DRAM: input 96 x 96 x 16, weights 16 x 96 + 9 x 96 + 96 x 24, output 96 x 96 x 24, each once; alone, the two
    tensors of 96 x 96 x 96 between the layers are written and read, and each ReLU reads and writes once more.
    """
    chip = sim.load_hardware("edge-npu", {"SRAM.capacity": "64 KiB"})
    graph = convolutions(96, (16, 96, 96, 24), (1, -3, 1), (1, 1, 1))
    found = sim.estimate(graph, chip, what_if=True)
    assert [op.fused for op in found.ops] == [("layer1", "layer2")]
    assert found.traffic_bytes["DRAM"].read == 96 * 96 * 16 + 16 * 96 + 9 * 96 + 96 * 24
    assert found.traffic_bytes["DRAM"].write == 96 * 96 * 24
    assert found.saved.traffic_bytes["DRAM"].read >= 96 * 96 * (4 * 96 + 24)
    assert found.peak_memory_bytes["DRAM"] == 96 * 96 * (16 + 24) + 16 * 96 + 9 * 96 + 96 * 24
    ready = prepare(graph, parse_precision("int8"))
    *_, longest = next(chains(ready, dict.fromkeys(("relu0", "relu1"), np.array([False]))))
    one = chain_slicings(longest, ready)[-1]
    assert one.count == 96
    # line buffers of one row: 1 row before the window, which spans 3 rows and moves by 1; 1 row before the last layer
    assert one.buffer_bytes == 96 * 96 * (1 + 2) + 96 * 96 * 1
    assert one.lag


def test_a_longer_chain_may_need_less_room():
    """As above. A slice of the first two layers: two rows of 16 channels that come, three of 96 in the 3 x 3 layer's
    buffer, two of 96 that leave, 1,536 + 864 weights: 51,552 bytes; of all three layers two rows of 16, four of 96, two
    of 24 and 4,704 weights: 49,248 bytes.
    """
    graph = convolutions(96, (16, 96, 96, 24), (1, -3, 1), (1, 1, 1))
    for capacity, fused in (("49,250 B", [("layer1", "layer2")]), ("49,240 B", [(), (), ()])):
        chip = sim.load_hardware("edge-npu", {"SRAM.capacity": capacity.replace(",", "")})
        assert [op.fused for op in sim.estimate(graph, chip).ops if op.macs] == fused


def test_fill_and_preload_count_among_what_a_chain_may_save():
    """A dilated layer alone in 16 KiB passes the array in many small folds, and fills, drains and preloads longer than
    it computes; the rows of a slice take fewer. What takes least energy is no faster than what takes least time."""
    chip = sim.load_hardware("systolic", {"SRAM.capacity": "16 KiB"})
    graph = chain([sim.conv2d(8, 8, 96, 1), sim.conv2d(8, 8, 96, 3, padding=2, dilation=2)])
    fast, frugal = (sim.estimate(graph, chip, objective=objective) for objective in ("latency", "energy"))
    assert [op.fused for op in fast.ops] == [("layer1",)]
    assert fast.latency_s <= frugal.latency_s
    assert fast.latency_s < 0.8 * network_of(graph, chip, apart=True).latency_s[0]


def chain_of(graph: Graph, members: tuple[int, ...]):
    """The prepared graph, and the ways to cut its layers at these positions."""
    ready = prepare(graph, parse_precision("int8"))
    nowhere = dict.fromkeys((t.storage or key for key, t in ready.tensors.items()), np.array([False]))
    found = [one for growing in chains(ready, nowhere) for one in growing if one.members == members]
    return chain_slicings(found[0], ready)


def test_residuals_wait_for_the_windows_between():
    """Two blocks of 1 x 1, 3 x 3, 1 x 1 (32 channels, 40 x 40 pixels), each with what it reads added to what it makes.

    A row is 40 x 32 bytes. The 3 x 3 layers hold two rows before the one that comes; every layer but the first has the
    row that passes to it. What is added must wait until the 3 x 3 window has reached one row further.
    """
    graph = convolutions(40, (32,) * 7, (1, 3, 1) * 2, (1,) * 6, residuals={2: "input", 5: "relu2"})
    whole, block = chain_of(graph, tuple(range(6)))[-1], chain_of(graph, (0, 1, 2))[-1]
    row = 40 * 32
    assert block.buffer_bytes == (2 + 2 + 1) * row
    assert whole.buffer_bytes == (2 * (2 + 2 + 1) + 1) * row
    assert (block.count, whole.count) == (40, 40)
    assert block.load_inner == {"input": row}
    assert whole.inside == {"relu0", "relu1", "relu2", "relu3", "relu4"}
    assert whole.store == {"output": row}


def test_a_residual_that_a_window_holds_needs_no_room():
    """Two 3 x 3 layers: when the second makes row r, the first one's window begins with row r."""
    plain, added = (
        chain_of(convolutions(40, (32, 32, 32), (3, 3), (1, 1), residuals=residuals), (0, 1))[-1]
        for residuals in (None, {1: "input"})
    )
    assert added.buffer_bytes == plain.buffer_bytes == (2 + 2 + 1) * 40 * 32


def test_what_others_read_is_stored():
    """A chain of the first two of four layers; the fourth adds what the first made."""
    graph = convolutions(40, (32,) * 5, (3,) * 4, (1,) * 4, residuals={3: "relu0"})
    way = chain_of(graph, (0, 1))[-1]
    assert way.inside == frozenset()
    assert way.store == {"relu0": 40 * 32, "relu1": 40 * 32}


def test_a_group_that_stores_more_is_not_like_one_that_does_not():
    """Layers 0 and 1 run fused, 2 to 5 too; the last adds what the first made: DRAM moves it once in, once out."""
    chip = sim.load_hardware("edge-npu", {"SRAM.capacity": "16 KiB", "DRAM.bandwidth": "0.2 GB/s"})
    graph = convolutions(96, (8,) * 7, (3, 3, 1, 3, 3, 5), (1,) * 6, residuals={5: "relu0"})
    found = sim.estimate(graph, chip)
    assert [op.fused for op in found.ops] == [("layer1",), ("layer3", "layer4", "layer5")]
    told = [note for note in found.notes if "run fused" in note]
    assert [note.rpartition(": ")[2] for note in told] == ["layer0 to layer1", "layer2 to layer5"]
    tensor = 96 * 96 * 8
    assert found.traffic_bytes["DRAM"].write == 3 * tensor  # relu0, relu1, output
    assert found.traffic_bytes["DRAM"].read == 3 * tensor + (4 * 9 + 25 + 1) * 8 * 8  # input, relu1, relu0; weights
    assert all(op.roofline_s <= op.latency_s * (1 + 1e-9) for op in found.ops)


def test_a_long_chain_by_hand():
    """Eight 3 x 3 layers of 16 channels on 256 x 256 pixels and 256 KiB, for the least energy: each tensor once."""
    chip = sim.load_hardware("edge-npu", {"SRAM.capacity": "256 KiB"})
    graph = convolutions(256, (16,) * 9, (3,) * 8, (1,) * 8)
    found = sim.estimate(graph, chip, objective="energy")
    assert [op.fused for op in found.ops] == [tuple(f"layer{i}" for i in range(1, 8))]
    assert found.traffic_bytes["DRAM"].read == 256 * 256 * 16 + 8 * 9 * 16 * 16
    assert found.traffic_bytes["DRAM"].write == 256 * 256 * 16
    assert sim.simulate(graph, chip, objective="energy").latency_s == pytest.approx(found.latency_s, rel=0.02)


@settings(max_examples=200)
@given(st.data())
def test_the_best_of_all_ways_to_cut_a_network(data: st.DataObject):
    """Of groups that overlap, those are taken whose sum with the single ops is least: as of every subset."""
    ops, designs = data.draw(st.integers(2, 7)), 3
    values = st.lists(st.integers(1, 20), min_size=designs, max_size=designs)
    spans = st.tuples(st.integers(0, ops - 2), st.integers(1, ops - 1)).filter(lambda span: span[0] < span[1])
    singles = [np.array(data.draw(values), dtype=float) for _ in range(ops)]
    groups = {span: np.array(data.draw(values), dtype=float) for span in data.draw(st.lists(spans, max_size=6))}
    coster = SimpleNamespace(chips=range(designs), options=SimpleNamespace(objective="latency"))
    zero = np.zeros(designs)
    at = {
        10 * i: SimpleNamespace(launch_s=zero, time_s=seconds, prefetch_s=zero, energy_j=zero)
        for i, seconds in enumerate(singles)
    }
    found = [
        (SimpleNamespace(members=tuple(10 * i for i in range(first, last + 1)), span=(first, last)),
         SimpleNamespace(value=value))
        for (first, last), value in groups.items()
    ]  # fmt: skip
    taken = list(_best_together(found, at, coster))
    for d in range(designs):
        mine = [one.span for one, _, runs in taken if runs[d]]
        assert _sum_of(mine, groups, singles, d) == min(
            _sum_of(some, groups, singles, d)
            for count in range(len(groups) + 1)
            for some in combinations(groups, count)
            if all(a[1] < b[0] for a, b in pairwise(sorted(some)))
        )


def _sum_of(spans, groups, singles, d: int) -> float:
    inside = {i for first, last in spans for i in range(first, last + 1)}
    return sum(groups[span][d] for span in spans) + sum(v[d] for i, v in enumerate(singles) if i not in inside)


def test_what_is_not_cut():
    """A decode step, layers whose tensors stay on chip, and operands that the resident memory does not hold."""
    chip = sim.load_hardware("systolic", {"SRAM.capacity": "64 KiB"})
    assert len(network_of(attention(8, 1, 512, 64), chip).groups) == 3
    graph = prepare(products(64, (64, 64, 64)), parse_precision("int8"))
    assert [[one.members for one in growing] for growing in chains(graph, {"relu0": np.array([False])})] == [[(0, 1)]]
    assert not list(chains(graph, {"relu0": np.array([True])}))  # it stays on chip anyway
    tpu = sim.load_hardware("tpu-v1")  # weights do not lie in the unified buffer
    assert all(group.sliced is None for group in network_of(attention(8, 256, 512, 64), tpu).groups)


attentions = st.builds(
    attention,
    st.sampled_from([1, 2, 6]),
    st.sampled_from([7, 64, 200]),
    st.sampled_from([9, 130, 600]),
    st.sampled_from([16, 64]),
    causal=st.booleans(),
    window=st.sampled_from([0, 0, 50]),
)
images = st.builds(
    convolutions,
    st.integers(12, 60),
    st.sampled_from([(8, 48, 48, 16), (24, 64, 64, 64)]),
    st.sampled_from([(1, -3, 1), (3, -3, 3), (5, -5, 1)]),
    st.sampled_from([(1, 1, 1), (1, 2, 1)]),
)

blocks = st.builds(
    convolutions,
    st.integers(12, 60),
    st.sampled_from([(16,) * 7, (24,) * 7]),
    st.sampled_from([(1, -3, 1, 1, 3, 1), (3, 3, 1, 3, 3, 5)]),
    st.just((1,) * 6),
    residuals=st.sampled_from([{}, {2: "input", 5: "relu2"}, {5: "relu0"}]),
)
"""Longer chains, with residuals and without."""


@settings(max_examples=12)
@given(
    st.one_of(attentions, images, blocks),
    st.sampled_from(["24 KiB", "96 KiB", "512 KiB"]),
    st.sampled_from(["systolic", "edge-npu"]),
)
def test_fused_groups_keep_the_laws(graph: Graph, capacity: str, name: str):
    """Never worse than op by op; roofline <= both readings, which agree; breakdowns sum; bytes at least compulsory."""
    chip = sim.load_hardware(name, {"SRAM.capacity": capacity})
    found, run = sim.estimate(graph, chip), sim.simulate(graph, chip)
    assert found.latency_s <= network_of(graph, chip, apart=True).latency_s[0] * (1 + 1e-12)
    assert found.roofline_latency_s <= min(found.latency_s, run.latency_s) * (1 + 1e-9)
    assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)
    assert sum(found.breakdown_s.values()) == pytest.approx(found.latency_s, rel=1e-9)
    assert found.peak_memory_bytes["SRAM"] <= chip.main_unit.memories[0].capacity_bytes
    least = found.roofline["compulsory_bytes"]
    assert found.traffic_bytes["DRAM"].read >= least["read"] * (1 - 1e-9)
    assert found.traffic_bytes["DRAM"].write >= least["write"] * (1 - 1e-9)
    for op in found.ops:
        assert all(seconds >= -1e-9 * op.latency_s for seconds in op.breakdown_s.values())
        if op.cycles_ladder:
            ladder = [op.cycles_ladder[key] for key in ("ideal", "spatially_mapped", "compute", "total")]
            assert ladder == sorted(ladder)
            assert 0 < op.mac_utilization <= 1


@pytest.mark.parametrize(
    "graph", [attention(6, 200, 600, 64), convolutions(60, (24, 64, 64, 64), (3, -3, 3), (1, 1, 1))]
)
def test_each_design_of_a_sweep_decides_for_itself(graph: Graph):
    capacities = ["24 KiB", "96 KiB", "512 KiB", "8 MiB"]
    chip = sim.load_hardware("edge-npu")
    table = sim.sweep(graph, chip, {"SRAM.capacity": capacities, "DRAM.bandwidth": ["4 GB/s", "100 GB/s"]})
    kinds = set()
    for i in range(len(table)):
        one = chip.set("SRAM.capacity", table["SRAM.capacity"][i]).set("DRAM.bandwidth", table["DRAM.bandwidth"][i])
        found = sim.estimate(graph, one)
        kinds.add(tuple(op.fused for op in found.ops))
        for name in ("latency_s", "energy_j", "mac_utilization", "macs", "vector_ops"):
            assert table[name][i] == getattr(found, name), (name, i)
    assert len(kinds) > 1


@pytest.mark.parametrize("chip", ["jetson-orin", "orin-dla"])
def test_scores_are_scaled_as_they_come_where_attention_is_no_group(chip):
    """A unit by roofline, or one on which nothing stays between ops, runs the ops of attention one by one. Written by
    hand, the product of the scores is scaled as any product's results are: no pass over them of its own, which would
    be a third of the time on top of torch's."""

    class Written(torch.nn.Module):
        def forward(self, q, k, v):
            return torch.softmax((q @ k.transpose(-1, -2)) * 0.125, -1) @ v

    class Called(torch.nn.Module):
        def forward(self, q, k, v):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    inputs = tuple(torch.zeros(1, 2, 256, 64) for _ in range(3))
    written, called = (sim.estimate(sim.trace(m(), inputs), chip, inputs="resident") for m in (Written, Called))
    assert [op.kind for op in written.ops].count("aten.mul") == 0
    assert 0.95 * called.latency_s < written.latency_s <= called.latency_s
