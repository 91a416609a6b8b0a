"""What may be fetched before the op before is done."""

import pytest
import torch
import yaml
from chains import products
from torch import nn

import sim
from sim.hardware.chip import Chip
from sim.hardware.dump import to_document
from sim.hardware.load import loads
from sim.schedule.network import Options, cost_network
from sim.workload.precision import parse_precision


class Scores(nn.Module):
    """A product by weights, and one of the same shape by what was just made."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(256, 256, bias=False)

    def forward(self, x, q):
        return q @ self.key(x)


@pytest.mark.parametrize("hardware", ["systolic", "tpu-v4i", "tesla-fsd-npu"])
def test_only_what_is_there_is_fetched_ahead(hardware):
    with torch.device("meta"):
        graph = sim.trace(Scores().eval(), (torch.zeros(256, 256), torch.zeros(256, 256)))
    chip = sim.load_hardware(hardware)
    network = cost_network(graph, [chip], parse_precision(chip.default_precision), Options())
    by_weights, by_made = (group for group in network.groups if group.macs)
    assert by_weights.prefetch_s[0] > 0
    assert by_made.prefetch_s[0] == by_made.first_weight_bytes[0] == 0


@pytest.mark.parametrize("stays", [True, False])
def test_weights_come_ahead_as_far_as_they_fit(stays):
    """Also in a memory that keeps no tensors between ops: there a full one was taken for endless."""
    graph, capacity = sim.load_workload("resnet18"), 262144
    chip = sim.load_hardware("systolic", {"SRAM.residency": stays, "SRAM.capacity": f"{capacity} B"})
    network = cost_network(graph, [chip], parse_precision(chip.default_precision), Options(objective="latency"))
    before, seen = 0.0, set()
    for group, ahead in zip(network.groups, network.prefetches, strict=True):
        left, needed = capacity - before, group.first_weight_bytes[0]
        assert ahead[0] == (1.0 if needed <= left else max(0.0, left) / needed)
        before = group.held_bytes[0] + group.footprint_bytes[0]
        seen.add(int(ahead[0] > 0) + int(ahead[0] == 1))
    assert seen >= {1, 2}


def test_what_stays_on_chip_for_the_group_before_leaves_no_room_for_the_next_weights():
    """`layer2` reads 128 x 512 int8 that stay on chip, beside 88 KiB of its tiles: of 160 KiB 8 are left for the 16 of
    `layer3`, which reads from home. What stays for `layer3` itself, nothing, was counted: all came ahead, and the
    memory held 168 KiB."""
    chip = sim.load_hardware("systolic", {"SRAM.capacity": "160 KiB"})
    graph = products(128, (128, 128, 512, 256, 512), relu=False)
    network = cost_network(graph, [chip], parse_precision("int8"), Options(calibration="none"))
    before, last = network.groups[2:]
    assert [before.held_bytes[0], last.held_bytes[0], before.footprint_bytes[0]] == [128 * 512, 0, 88 << 10]
    assert last.first_weight_bytes[0] == 16 << 10
    assert network.prefetches[3][0] == 0.5
    assert network.hidden_s[3][0] == pytest.approx(last.prefetch_s[0] / 2)


@pytest.mark.parametrize("room", ["48 KiB", "100 KiB", "160 KiB"])
def test_what_has_room_comes_ahead_alike_in_both_readings(room):
    """Where half of the next weights have room beside the tiles, half of them pass while the array computes."""
    graph, chip = (
        products(512, (256, 256, 256, 256), relu=False),
        sim.load_hardware("systolic", {"SRAM.capacity": room}),
    )
    network = cost_network(graph, [chip], parse_precision(chip.default_precision), Options(calibration="none"))
    found, expanded = (sim.simulate(graph, chip, calibration="none", expand=expand) for expand in (False, True))
    assert found.latency_s == pytest.approx(network.latency_s[0], rel=1e-9)
    assert expanded.latency_s == pytest.approx(found.latency_s, rel=1e-9)


def two_ports(room: str) -> Chip:
    """`systolic` with 10 GB/s to read from DRAM and as much to write into it."""
    described = to_document(sim.load_hardware("systolic", {"SRAM.capacity": room, "SRAM.residency": False}))
    (memory,) = described["memories"]
    del memory["bandwidth"]
    memory |= {"read_bandwidth": "10 GB/s", "write_bandwidth": "10 GB/s", "source": "estimated: for this test"}
    return loads(yaml.safe_dump(described, sort_keys=False))


@pytest.mark.parametrize("room", ["24 KiB", "64 KiB"])
@pytest.mark.parametrize("rows", [100, 256])
def test_weights_come_ahead_while_both_ports_rest(rows, room):
    """Loads and stores of a step share an engine: beside a store nothing is fetched, though the read port rests. The
    least rest of the two ports, each summed over all steps, hid up to 4 % more than the simulation does."""
    graph, chip = products(rows, (96, 64, 160, 64), relu=False), two_ports(room)
    found = sim.simulate(graph, chip, calibration="none")
    assert found.latency_s == pytest.approx(sim.estimate(graph, chip, calibration="none").latency_s, rel=1e-9)
