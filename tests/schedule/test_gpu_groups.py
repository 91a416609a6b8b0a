"""GPU networks kernel by kernel: laws over every GPU, fused attention by hand, calibration and what-if."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

import sim
from sim.compression.annotations import Annotation, annotate
from sim.cost.flash import flash_regions, visible_pairs, visible_share
from sim.cost.intervals import gap_weight, interval_s, log_deviation
from sim.errors import CalibrationError
from sim.hardware.physical import idle_power_w, mac_energy_j
from sim.schedule.prepare import prepare
from sim.schedule.shapes import Shape, product_shape
from sim.whatif import what_if
from sim.workload.graph import Region
from sim.workload.passes.precision import PrecisionPolicy
from sim.workload.precision import parse_precision

GPUS = (
    "v100-pcie-32gb", "a100-sxm", "a100-pcie-40gb", "a100-pcie-80gb", "h100-sxm", "h200", "b200", "l40s", "l4", "t4",
)  # fmt: skip
SMALL_LLAMA = {"layers": 2, "context": 512}
WORKLOADS = {
    "resnet18": {},
    "mobilenet_v2": {},
    "bert_base": {"depth": 2},
    "llama": SMALL_LLAMA,
    "gemm": {},
}


def graph(name: str, **knobs):
    return sim.load_workload(name, **(WORKLOADS.get(name, {}) | knobs))


@pytest.mark.parametrize(("gpu", "name"), list(product((*GPUS, "h200-torch"), WORKLOADS)))
def test_never_faster_than_the_data_sheet(gpu: str, name: str):
    """Law 1, per network and per kernel, without calibration; law 3, sums; utilisation without clamping."""
    found = sim.estimate(graph(name), sim.load_hardware(gpu), calibration="none")
    assert found.latency_s >= found.roofline_latency_s
    assert found.calibration is None
    assert found.latency_interval_s is None
    for op in found.ops:
        assert op.latency_s >= op.roofline_s * (1 - 1e-9), op.name
        assert sum(op.breakdown_s.values()) == pytest.approx(op.latency_s)
        assert op.mac_utilization is None or 0 < op.mac_utilization <= 1
    assert sum(op.latency_s for op in found.ops) == pytest.approx(found.latency_s)
    assert sum(found.energy_breakdown_j.values()) == pytest.approx(found.energy_j)


@pytest.mark.parametrize("chip", ["h100-sxm", "h200-torch", "epyc-zen4", "mi300x", "tesla-fsd-npu"])
def test_a_model_runs_on_one_of_several_copies_of_a_unit(chip: str):
    """Whatever its costing, and with no more MACs than that one has slots."""
    one = sim.load_hardware(chip)
    two = one.set(f"{one.main_unit.name}.count", 2)
    dtype = "int8" if "tesla" in chip else "bf16"
    for calibration in ("auto", "none"):
        found = [sim.estimate(sim.gemm(2048, 2048, 2048, dtype=dtype), c, calibration=calibration) for c in (one, two)]
        assert found[0].latency_s == found[1].latency_s
        assert found[0].mac_utilization == found[1].mac_utilization <= 1


@pytest.mark.parametrize("gpu", GPUS)
def test_calibrated_estimates_say_where_they_come_from(gpu: str):
    found = sim.estimate(graph("llama"), sim.load_hardware(gpu))
    assert found.calibration is not None
    assert found.calibration["transferred"] == (gpu not in ("a100-sxm", "h100-sxm"))
    low, high = found.latency_interval_s
    assert low < found.latency_s < high
    bare = sim.estimate(graph("llama"), sim.load_hardware(gpu), calibration="none")
    assert found.latency_s > bare.latency_s


def test_names_of_calibrations():
    chip = sim.load_hardware("l40s")
    assert sim.estimate(graph("gemm"), chip, calibration="a100-sxm").calibration["device"] == "a100-sxm"
    with pytest.raises(CalibrationError, match="expected auto, none"):
        sim.estimate(graph("gemm"), chip, calibration="a100")


def test_row_of_a_sweep_is_the_estimate():
    """Law 8 on a GPU: the clock, the memory and the number of SMs changed."""
    chip, workload = sim.load_hardware("h100-sxm"), graph("llama")
    grid = {"clock": ["1.2 GHz", "1.83 GHz"], "DRAM.bandwidth": ["2 TB/s", "3350 GB/s"], "SM.count": [66, 132]}
    table = sim.sweep(workload, chip, grid)
    for i, values in enumerate(product(*grid.values())):
        one = chip
        for path, value in zip(grid, values, strict=True):
            one = one.set(path, value)
        found = sim.estimate(workload, one)
        assert table["latency_s"][i] == found.latency_s
        assert table["roofline_latency_s"][i] == found.roofline_latency_s


def test_visible_pairs_by_hand():
    """Causal 4 x 4: 1 + 2 + 3 + 4. Two queries over five keys: the last sees five, the first four. A window of
    two leaves 1 + 2 + 2 + 2, without a mask 4 x 2."""
    assert visible_pairs(queries=4, keys=4, causal=True) == 10
    assert visible_pairs(queries=2, keys=5, causal=True) == 9
    assert visible_pairs(queries=4, keys=4, causal=True, window=2) == 7
    assert visible_pairs(queries=4, keys=4, causal=False, window=2) == 8
    attrs = {"query_length": 4, "key_length": 4, "causal": True}
    assert visible_share(Region(id="a", kind="attention", attrs=attrs)) == 10 / 16


def test_attention_is_one_kernel_and_scores_stay_on_chip():
    """BERT: 12 heads of 128 x 128 scores, two layers; each region is one kernel of three ops, and what it
    moves is queries, keys, values and the result: 4 x 128 x 768 elements of 2 bytes."""
    workload = graph("bert_base")
    found = sim.estimate(workload, sim.load_hardware("h100-sxm"))
    fused = [op for op in found.ops if op.fused]
    assert len(fused) == 2
    assert [len(op.fused) for op in fused] == [2, 2]
    traffic = fused[0].traffic_bytes["DRAM"]
    assert sum(t.read + t.write for t in traffic.values()) == 4 * 128 * 768 * 2
    saved = 2 * 2 * 2 * 12 * 128 * 128 * 2  # two layers, scores and weights, written and read, heads, 16 bits
    assert any(f"{saved / 2**20:.3g} MiB of scores stay off DRAM" in note for note in found.notes)
    assert fused[0].macs == 2 * 12 * 128 * 128 * 64


def test_decode_takes_the_cache_write_in():
    """One new token: keys and values are written by the kernel's own launch, and the cache comes from DRAM whole."""
    workload = prepare(graph("llama", phase="decode"), parse_precision("bf16"))
    regions = flash_regions(workload)
    assert len(regions) == 2
    one = next(iter(regions.values()))
    assert one.writes_cache
    assert len(one.members) == 5
    found = sim.estimate(graph("llama", phase="decode"), sim.load_hardware("h100-sxm"))
    op = next(o for o in found.ops if o.fused)
    cache = 2 * 8 * 513 * 64 * 2  # keys and values, KV heads, 512 cached and the new token, head dimension, 16 bits
    assert op.traffic_bytes["DRAM"]["weight"].read == cache


def test_long_contexts_need_no_room_for_scores():
    """32 heads x 32768^2 scores would take 69 GB a layer; fused they take none."""
    found = sim.estimate(graph("llama", context=32768), sim.load_hardware("l4"))
    assert found.infeasible is None
    assert found.peak_memory_bytes["DRAM"] < 24e9


def test_products_by_rank():
    """A convolution of 64 to 128 channels, 3 x 3, on 28 x 28: m = 784, n = 128, k = 576."""
    workload = sim.conv2d(64, 128, 28, 3, padding=1)
    assert product_shape(workload.ops[0]) == Shape(batch=1, m=784, n=128, k=576)


def test_interval_by_hand():
    """Two equal ops of a class: other problems average to 0.1 / sqrt(2), the same problem twice does not."""
    parts = {"gemm": (0.0, 0.1)}
    assert log_deviation([1.0, 1.0], ["gemm"] * 2, ["a", "b"], device=0.0, parts=parts) == pytest.approx(0.1 / 2**0.5)
    assert log_deviation([1.0, 1.0], ["gemm"] * 2, ["a", "a"], device=0.0, parts=parts) == pytest.approx(0.1)
    assert log_deviation([3.0], ["gemm"], ["a"], device=0.3, parts={"gemm": (0.4, 0.0)}) == pytest.approx(0.5)
    assert log_deviation([3.0], ["gemm"], ["a"], device=0.0, parts={"gemm": (0.3, 0.0)}, gaps=0.4) == pytest.approx(0.5)
    assert [gap_weight(share) for share in (0.0, 0.2, 0.5, 1.0)] == pytest.approx([0.0, 0.4, 0.5, 0.0])
    assert interval_s(1.0, 0.1) == pytest.approx((np.exp(-0.16449), np.exp(0.16449)))


def test_what_if_is_the_estimate_of_the_changed_chip():
    chip, workload = sim.load_hardware("tesla-fsd-npu"), graph("resnet18")
    found = what_if(workload, chip)
    by_name = {(w.resource, w.factor): w.latency_s for w in found}
    assert [w.latency_s for w in found] == sorted(w.latency_s for w in found)
    for path, value in (("DRAM.bandwidth", "136 GB/s"), ("array.rows", 192), ("simd.lanes", None)):
        lanes = value or 2 * chip.main_unit.vector.lanes
        assert by_name[path, 2.0] == sim.estimate(workload, chip.set(path, lanes)).latency_s
    assert not any(w.resource == "clock" and w.factor == 2.0 for w in found)  # above its maximum


def test_energy_of_mapped_units_by_component():
    """MACs alone: the array's energy per MAC times MACs; everything sums to the total."""
    chip, workload = sim.load_hardware("tesla-fsd-npu"), graph("resnet18")
    found = sim.estimate(workload, chip)

    assert set(found.energy_breakdown_j) == {"DRAM", "SRAM", "MACs", "vector", "leakage"}
    assert sum(found.energy_breakdown_j.values()) == pytest.approx(found.energy_j)
    one = mac_energy_j(chip, chip.main_unit.array.name, "int8")
    assert found.energy_breakdown_j["MACs"] == pytest.approx(found.macs * one)


class _Attention(torch.nn.Module):
    def forward(self, q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize(("head_dim", "bounded"), [(256, True), (264, False), (512, False)])
def test_heads_beyond_every_fused_kernel_are_flagged_and_have_no_interval(head_dim: int, bounded: bool):
    """What a library runs there differs by up to a hundred times from products and softmax apart."""
    sizes = [torch.zeros(2, 4, n, head_dim, device="meta") for n in (1, 512, 512)]
    found = sim.estimate(sim.trace(_Attention(), tuple(sizes)), sim.load_hardware("h100-sxm"), inputs="resident")
    assert (found.latency_interval_s is not None) is bounded
    assert any(f"head dimension {head_dim}" in note for note in found.notes) is not bounded


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize(("groups", "bounded"), [(8, True), (64, False)])
def test_depthwise_convolutions_are_flagged_and_have_no_interval(precision: str, groups: int, bounded: bool):
    """One channel a group; with more, the constants of products hold, flagged or not."""
    graph = sim.conv2d(64, 64, 56, 3, padding=1, groups=groups, dtype="fp32")
    found = sim.estimate(graph, sim.load_hardware("h100-sxm"), precision=precision, inputs="resident")
    assert (found.latency_interval_s is not None) is bounded
    assert any("depthwise" in note and "none were measured" in note for note in found.notes) is not bounded
    plain = sim.estimate(graph, sim.load_hardware("h100-sxm"), precision=precision, calibration="none")
    assert not any("none were measured" in note for note in plain.notes)


@pytest.mark.parametrize(("k", "flagged"), [(4096, False), (784, False), (5177, True), (4100, True)])
def test_rows_that_no_fit_has_seen_are_flagged(k: int, flagged: bool):
    """16 bytes are 8 elements of bf16: every measured product had a multiple of them."""
    aligned, found = (sim.estimate(sim.gemm(1000, 3333, n, dtype="bf16"), "h200", precision="bf16") for n in (4096, k))
    op = found.ops[-1]
    assert any("no multiple of 16 bytes" in note and note.endswith(f"[{op.name}]") for note in found.notes) is flagged

    def width(estimate):
        low, high = estimate.latency_interval_s
        return high / low

    assert (width(found) > 1.5 * width(aligned)) is flagged


@pytest.mark.parametrize(("workload", "told"), [("vit", True), ("resnet18", False)])
def test_a_gpu_costed_by_roofline_says_that_it_fuses_no_attention(workload: str, told: bool):
    found = sim.estimate(workload, "jetson-orin", what_if=False)
    assert any("fused kernels avoid" in note for note in found.notes) is told


@pytest.mark.parametrize(
    ("chip", "told"), [("h100-sxm", True), ("a100-sxm", True), ("h200", False), ("edge-npu", False)]
)
def test_energies_that_a_node_gives_a_gpu_are_said_to_be_too_low(chip: str, told: bool):
    found = sim.estimate(sim.gemm(512, 512, 512), chip, what_if=False)
    assert any("likely too low" in note for note in found.notes) is told


def test_the_node_gives_a_quarter_of_what_was_measured_on_an_h200():
    """The same silicon, with the energies that its counter gave and without (`hw_configs/h200.yaml`)."""
    measured, derived = sim.load_hardware("h200"), sim.load_hardware("h100-sxm")
    mac = [float(mac_energy_j(chip, "tensor_core", "bf16")) for chip in (derived, measured)]
    idle = [float(idle_power_w(chip)) for chip in (derived, measured)]
    assert mac[0] / mac[1] == pytest.approx(1 / 4, rel=0.15)
    assert idle[0] / idle[1] == pytest.approx(1 / 2, rel=0.15)


@pytest.mark.parametrize("gpu", ["a100-sxm", "t4"])
def test_narrow_caches_of_ungrouped_heads_are_read_at_their_width(gpu: str):
    """Decode with as many key heads as query heads runs the prefill kernel of these libraries, bound by the cache's
    bytes at the data sheet's rates: 8 x 32,768 tokens, 2 x 32 heads x 128, a byte less each in kv8."""
    chip = sim.load_hardware(gpu)
    decode = graph("llama", size="7b", layers=1, phase="decode", context=32768, batch=8)
    wide, narrow = (
        sim.estimate(decode, chip, precision=p, calibration="none", inputs="resident") for p in ("w16a16", "w16a16kv8")
    )
    saved = 8 * 32768 * 2 * 32 * 128 / (chip.memory("DRAM").read.at(chip.clock_hz) * chip.clock_hz)
    assert wide.latency_s - narrow.latency_s == pytest.approx(saved, rel=0.01)


@pytest.mark.parametrize(
    ("layer", "size", "winograd"),
    [
        (torch.nn.Conv2d(256, 256, 3, padding=1), (56, 56), True),
        (torch.nn.Conv2d(256, 256, 3, padding=1, stride=(1, 2)), (56, 56), False),
        (torch.nn.Conv2d(256, 256, 3, padding=1, stride=(2, 1)), (56, 56), False),
        (torch.nn.Conv2d(256, 256, 3, padding=(1, 2), dilation=(1, 2)), (56, 56), False),
        (torch.nn.Conv3d(64, 64, (1, 3, 3), padding=(0, 1, 1)), (8, 56, 56), False),
        (torch.nn.Conv3d(64, 64, 3, padding=1), (8, 56, 56), False),
    ],
)
def test_winograd_takes_planes_whose_window_moves_pixel_by_pixel(layer, size, winograd):
    """What it does not take costs as much on a library that has it as on one that has none, and no algorithm uses more
    slots than there are."""
    chip = sim.load_hardware("a100-pcie-80gb")
    net = sim.trace(layer, (torch.zeros(8, layer.in_channels, *size),))
    with_, without = (
        sim.estimate(net, replace(chip, algorithms=known), precision="fp32", inputs="resident")
        for known in (chip.algorithms, ("direct",))
    )
    assert (with_.latency_s < without.latency_s) == winograd
    assert winograd or with_.latency_s == without.latency_s
    assert all(0 < op.mac_utilization <= 1 for op in with_.ops if op.macs)


def test_winograd_counts_the_tiles_of_padding_that_differs_by_side():
    """56 x 58 pixels, padded above and below alone, have the 56 x 56 outputs of as many pixels padded all around."""
    chip = sim.load_hardware("a100-pcie-80gb")
    found = [
        sim.estimate(
            sim.trace(torch.nn.Conv2d(256, 256, 3, padding=padding), (torch.zeros(8, 256, 56, width),)),
            chip,
            precision="fp32",
            inputs="resident",
        ).latency_s
        for padding, width in ((1, 56), ((1, 0), 58))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("calibration", ["auto", "none"])
def test_attention_takes_the_time_of_its_own_type_beside_attention_of_another(calibration: str):
    """tf32 and fp32 are stored alike. On the A100's CUDA cores, at 108 x 64 FMA and 1.41 GHz, two products of
    8 x 12 x 512 x 512 x 64 MACs take 330 us at least, behind whatever layer."""
    policy = PrecisionPolicy(default=parse_precision("fp32"), ops={"layers.0.*": parse_precision("tf32")})
    bert = graph("bert_base", context=512, batch=8)
    mixed, fp32, tf32 = (
        {
            op.name: op
            for op in sim.estimate(bert, "a100-pcie-80gb", precision=p, calibration=calibration).ops
            if op.kind == "attention.scores"
        }
        for p in (policy, "fp32", "tf32")
    )
    assert mixed["layers.1.scores"].latency_s > 2 * 2 * 8 * 12 * 512 * 512 * 64 / (108 * 64 * 2 * 1.41e9)
    assert mixed["layers.1.scores"].latency_s == pytest.approx(fp32["layers.1.scores"].latency_s)
    assert mixed["layers.0.scores"].latency_s == pytest.approx(tf32["layers.0.scores"].latency_s)


def test_attention_with_a_mask_reads_it_behind_attention_without():
    """Swin's second block adds a mask for each of its 64 windows, its first one a bias for all: 3 heads, 49 x 49."""
    ops = {op.name: op for op in sim.estimate(graph("swin"), "h200").ops}
    bias, mask = (
        sum(t.read for t in ops[f"parts.{i}.attention.scores"].traffic_bytes["DRAM"].values()) for i in (0, 1)
    )
    assert mask - bias == (64 - 1) * 3 * 49 * 49 * 2


class Joint(torch.nn.Module):
    """Queries, keys and values of 128 tokens in two heads of 64: parts of one product, or views of one."""

    def __init__(self, parts: int):
        super().__init__()
        self.parts, self.product = parts, torch.nn.Linear(128, parts * 128, bias=False)

    def forward(self, x):
        made = self.product(x).chunk(self.parts, dim=-1)
        q, k, v = (made[i % self.parts].view(1, 128, 2, 64).transpose(1, 2) for i in range(3))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize("gpu", ["a100-sxm", "h200-torch"])
@pytest.mark.parametrize("parts", [3, 1])
def test_attention_reads_each_part_of_a_joint_product_once(gpu: str, parts: int):
    """Law 3: 128 x 128 elements in 16 bits of queries, keys and values each, or of all three together."""
    found = sim.estimate(sim.trace(Joint(parts), (torch.randn(1, 128, 128),)), gpu)
    traffic = next(op for op in found.ops if op.kind == "attention.scores").traffic_bytes["DRAM"].values()
    assert sum(t.read for t in traffic) == parts * 128 * 128 * 2
    assert sum(t.write for t in traffic) == 128 * 128 * 2


@pytest.mark.parametrize("first", ["2:4", "unstructured"])
def test_weights_of_one_size_run_by_their_own_pattern(first: str):
    """2:4 and a bitmap both store 9 bits of 16, but only 2:4 has kernels: a dense product of 4,096^3 MACs takes 441 us
    of an A100 at 108 x 1,024 MACs a cycle and 1.41 GHz, before or behind the other."""
    last = "unstructured" if first == "2:4" else "2:4"
    layers = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False) for _ in range(4)))
    pruned = {f"{i}.weight": Annotation(density=0.5, pattern=p) for i, p in ((1, first), (2, last))}
    traced = annotate(sim.trace(layers, (torch.randn(4096, 4096),)), pruned)
    ops = {op.name: op for op in sim.estimate(traced, "a100-pcie-80gb", calibration="none").ops}
    dense_s = 4096**3 / (108 * 1024 * 1.41e9)
    time = {first: ops["1.mm"].latency_s, last: ops["2.mm"].latency_s}
    assert time["2:4"] < 0.6 * dense_s < dense_s <= time["unstructured"]
