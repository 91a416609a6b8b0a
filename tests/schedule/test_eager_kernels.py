"""What a framework launches for each op, and what an estimate of it says."""

import pytest
import torch
from torch import nn

import sim
from sim.cost.gpu.eager import CLASSES
from sim.errors import ConfigError, PrecisionError
from sim.schedule.eager_work import APART_KERNELS, eager_kernels
from sim.schedule.gpu_eager import eager_gpu_of
from sim.schedule.network import Options, op_coster
from sim.schedule.prepare import Manner, prepare
from sim.workload.load import list_workloads
from sim.workload.precision import parse_precision

BF16 = parse_precision("bf16")


def kernels(module: nn.Module, *inputs: torch.Tensor, precision=BF16):
    chip = sim.load_hardware("h200-torch")
    graph = prepare(sim.trace(module.eval(), inputs), precision, manner=Manner(eager=True))
    return eager_kernels(graph, eager_gpu_of(chip, "auto"), op_coster(graph, chip, Options(), precision))


def classes(found) -> list[str]:
    return [CLASSES[kind] for kind in found.work.kind]


@pytest.mark.parametrize(
    ("layer", "name", "launched"),
    [
        (nn.Conv2d(64, 64, 3, padding=1, bias=False), "conv", 1),
        (nn.Conv2d(64, 64, 3, padding=1), "conv", 2),  # the bias is a kernel of its own
        (nn.Conv2d(64, 128, 1, bias=False), "gemm", 1),
        (nn.Conv2d(64, 128, 1, stride=2, bias=False), "conv", 1),
        (nn.Conv2d(64, 64, 3, groups=64, bias=False), "depthwise", 1),
        (nn.Conv2d(64, 64, 3, groups=4, bias=False), "grouped", 1),
        (nn.Conv2d(48, 48, 3, groups=2, bias=False), "apart", APART_KERNELS),  # 24 channels a group
        (nn.BatchNorm2d(64), "batch_norm", 3),
        (nn.GroupNorm(32, 64), "group_norm", 5),
        (nn.MaxPool2d(2), "pool", 1),
        (nn.ReLU(), "vector", 1),
        (nn.Softmax(-1), "softmax", 1),
        (nn.LayerNorm(32), "rows", 1),
    ],
    ids=str,
)
def test_layers_by_class(layer, name, launched):
    channels = layer.in_channels if isinstance(layer, nn.Conv2d) else 64
    found = kernels(layer, torch.empty(2, channels, 32, 32, device="meta"))
    assert classes(found)[-1] == name
    assert found.work.kernels[-1] == launched


def test_few_channels_run_on_the_lanes_in_16_bits_alone():
    image = torch.empty(1, 3, 224, 224, device="meta")
    assert classes(kernels(nn.Conv2d(3, 64, 7, stride=2, bias=False), image)) == ["few"]
    fp32 = parse_precision("fp32")
    assert classes(kernels(nn.Conv2d(3, 64, 7, stride=2, bias=False), image, precision=fp32)) == ["conv"]


class Attention(nn.Module):
    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, q, k, v):
        if self.axes == 5:
            q, k, v = (t[:, None] for t in (q, k, v))
        return nn.functional.scaled_dot_product_attention(q, k, v)


def test_attention_is_one_call_with_four_axes_and_many_kernels_with_five():
    inputs = [torch.empty(2, 8, 64, 32, device="meta") for _ in range(3)]
    fused = kernels(Attention(4), *inputs)
    assert classes(fused) == ["attention"]
    assert fused.regions[0] is not None
    apart = kernels(Attention(5), *inputs)
    assert classes(apart) == ["unfused"] * 3
    assert apart.work.kernels.sum() > 10


class ByHand(nn.Module):
    def forward(self, q, k, v):
        return torch.softmax(q @ k.transpose(-1, -2), -1) @ v


@pytest.mark.parametrize(("model", "scores"), [(Attention(4), 0), (Attention(5), 2), (ByHand(), 2)])
def test_scores_that_no_kernel_keeps_lie_in_memory(model, scores):
    """Four tensors of [2, 8, 2048, 32] in bf16; around the softmax two of [2, 8, 2048, 2048], which its bound moves."""
    graph = sim.trace(model, [torch.empty(2, 8, 2048, 32, device="meta") for _ in range(3)])
    found = sim.estimate(graph, "h200-torch", precision="bf16", calibration="none")
    outer, inner = 2 * 16 * 2048 * 32, 2 * 16 * 2048 * 2048
    assert found.peak_memory_bytes["DRAM"] == 4 * outer + scores * inner
    softmax = [op for op in found.ops if op.name.endswith("softmax")]
    assert all(2 * inner / 4.9e12 < op.roofline_s <= op.latency_s for op in softmax)
    assert len(softmax) == (scores > 0)


def test_views_cost_the_host_a_little_and_the_device_nothing():
    class Turned(nn.Module):
        def forward(self, x):
            return torch.relu(x.view(4, -1).view(-1, 8))

    found = kernels(Turned(), torch.empty(8, 8, device="meta"))
    assert len(found.places) == 1
    assert found.work.views[0] == 2


@pytest.fixture(scope="module")
def resnet():
    return sim.load_workload("resnet18")


def test_the_parts_sum_to_the_network_and_launching_is_never_faster(resnet):
    """The host's wait is in the launch of the ops; the note gives both sums, of which the longer is the latency."""
    graph, chip = resnet, "h200-torch"
    replayed = sim.estimate(graph, sim.load_hardware(chip), precision="bf16", inputs="resident")
    launched = sim.estimate(
        graph, sim.load_hardware(chip, {"gpu.options.launch": "eager"}), precision="bf16", inputs="resident"
    )
    for found in (replayed, launched):
        assert sum(op.latency_s for op in found.ops) == pytest.approx(found.latency_s, rel=1e-9)
    assert launched.latency_s > 2 * replayed.latency_s  # batch 1: the host decides
    kernels_s = [sum(op.latency_s - op.breakdown_s["launch"] for op in found.ops) for found in (replayed, launched)]
    assert kernels_s[0] == pytest.approx(kernels_s[1])


HEAVY = {"robot_policy", "mixtral", "mamba", "driving", "ssd_resnet34"}
"""Thousands of ops, or minutes."""


@pytest.mark.parametrize("name", sorted({one.path.stem for one in list_workloads()} - HEAVY))
@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_every_network_is_costed(name, launch):
    """In 16 bits with an interval that is the device's own; terms of every op sum to it, and nothing is negative."""
    found = sim.estimate(
        sim.load_workload(name), sim.load_hardware("h200-torch", {"gpu.options.launch": launch}), precision="bf16",
        inputs="resident",
    )  # fmt: skip
    assert found.calibration["transferred"] is False
    assert found.latency_interval_s is not None
    for op in found.ops:
        assert sum(op.breakdown_s.values()) == pytest.approx(op.latency_s, abs=1e-15)
        assert min(op.breakdown_s.values()) >= 0
    assert sum(found.energy_breakdown_j.values()) == pytest.approx(found.energy_j)


def test_narrow_activations_are_refused_and_narrow_weights_are_not():
    """torch has no int8 or fp8 layers that a network runs op by op on a GPU."""
    chip = sim.load_hardware("h200-torch")
    for precision in ("int8", "fp8_e4m3", "w4a8"):
        with pytest.raises(PrecisionError, match=r"h200-torch: .* no .* layers on a GPU .*costing: gpu_kernels"):
            sim.estimate(sim.gemm(64, 64, 64), chip, precision=precision)
    assert sim.estimate(sim.gemm(64, 64, 64), chip, precision="w8a16").latency_s > 0


def test_constants_on_another_chip_are_a_transfer(tmp_path):
    """Whatever the file says of its calibration: it was fitted on h200-torch as it stands, launched either way."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "schema: dovetail.chip/1\nextends: a100-sxm\nname: mine\ncalibration: nvidia-h200\n"
        "units: [{name: gpu, costing: gpu_eager}]\n"
    )
    own = sim.estimate(sim.gemm(512, 512, 512), sim.load_hardware("h200-torch"), precision="bf16")
    other = sim.estimate(sim.gemm(512, 512, 512), sim.load_hardware(str(file)), precision="bf16")
    changed = sim.load_hardware("h200-torch", {"DRAM.bandwidth": "1 TB/s"})
    assert own.calibration["transferred"] is False
    assert other.calibration["transferred"] is True
    assert sim.estimate(sim.gemm(512, 512, 512), changed, precision="bf16").calibration["transferred"] is True


def test_an_unknown_launch_is_refused():
    with pytest.raises(ConfigError, match=r'h200-torch.*launch is "egaer", expected one of graph, eager. Did you mean'):
        sim.load_hardware("h200-torch", {"gpu.options.launch": "egaer"})


def test_without_a_calibration_the_roofline_stays_below(resnet):
    chip = sim.load_hardware("h200-torch")
    found = sim.estimate(resnet, chip, precision="bf16", calibration="none", inputs="resident")
    assert found.latency_s >= sim.roofline(resnet, chip, precision="bf16").latency_s
    assert found.latency_interval_s is None


@pytest.mark.parametrize("layer", [nn.GRU, nn.RNN])
def test_every_recurrent_layer_of_the_library_is_one_call(layer):
    """cuDNN runs them as it runs an LSTM, which has more gates: they took three times its time, op by op."""
    chip = sim.load_hardware("h200-torch")
    times = [
        sim.estimate(sim.trace(kind(64, 128), torch.empty(20, 4, 64)), chip, precision="bf16").latency_s
        for kind in (layer, nn.LSTM)
    ]
    assert times[0] <= times[1]
