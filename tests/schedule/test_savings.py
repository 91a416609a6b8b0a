"""What fusion and kept tensors save: by hand, conserved, never negative in all; and homes chosen by evaluation."""

from __future__ import annotations

import pytest
from chains import convolutions, products
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.results_io import from_dict, to_dict
from sim.schedule import residency
from sim.schedule.network import Options, cost_network
from sim.workload.graph import Graph
from sim.workload.precision import parse_precision


def network_of(graph: Graph, chip: sim.Chip, **options: object):
    return cost_network(graph, [chip], parse_precision(chip.default_precision), Options(**options))


def test_two_products_by_hand():
    """[64, 64] x [64, 64], ReLU, x [64, 64], ReLU on `systolic`, all in int8 (4,096 bytes a tensor).

    Alone: 4 launches; DRAM carries input, weight, result of each product, input and result of each ReLU. Fused and
    kept: 2 launches; DRAM carries input, two weights, output. So 2 x (result written + read by the ReLU), and the
    tensor between the layers (written by the first ReLU, read by the second product) are saved: 6 x 4,096 bytes.
    """
    chip, graph = sim.load_hardware("systolic"), products(64, (64, 64, 64))
    found = sim.estimate(graph, chip, what_if=True)
    assert [op.name for op in found.ops] == ["layer0", "layer1"]
    assert found.saved is not None
    moved = found.saved.traffic_bytes["DRAM"]
    assert moved.read == 3 * 4096  # by both ReLUs and the second product
    assert moved.write == 3 * 4096  # by both products and the first ReLU
    apart = network_of(graph, chip, apart=True)
    assert [group.name for group in apart.groups] == ["layer0", "relu0", "layer1", "relu1"]
    assert found.latency_s + found.saved.latency_s == pytest.approx(apart.latency_s[0], rel=1e-12)
    assert found.saved.latency_s > 2 * chip.main_unit.launch_s
    assert any("save" in note and "DRAM" in note for note in found.notes)


@pytest.mark.parametrize(("workload", "hardware"), [("mlp", "edge-npu"), ("byte_gpt", "tesla-fsd-npu")])
def test_savings_sum_and_survive_a_document(workload, hardware):
    graph, chip = sim.load_workload(workload), sim.load_hardware(hardware)
    found = sim.estimate(graph, chip, what_if=True)
    assert found.saved is not None
    assert sum(op.saved.latency_s for op in found.ops) == pytest.approx(found.saved.latency_s, rel=1e-9)
    apart = network_of(graph, chip, apart=True)
    assert found.latency_s + found.saved.latency_s == pytest.approx(apart.latency_s[0], rel=1e-9)
    for memory, moved in found.saved.traffic_bytes.items():
        for way, name in enumerate(("read", "write")):
            before = sum(float(ways[way][0]) for g in apart.groups for ways in g.traffic_bytes.get(memory, {}).values())
            now = getattr(found.traffic_bytes[memory], name) if memory in found.traffic_bytes else 0.0
            assert now + getattr(moved, name) == pytest.approx(before, rel=1e-9)
    assert from_dict(to_dict(found)) == found


def test_not_asked_is_null():
    found = sim.estimate(sim.gemm(64, 64, 64), sim.load_hardware("systolic"))
    assert found.saved is None
    assert found.ops[0].saved is None
    assert to_dict(found)["saved"] is None


rows, width = st.integers(1, 200), st.integers(1, 300)
chains = st.one_of(
    st.builds(products, rows, st.lists(width, min_size=2, max_size=5)),
    st.builds(
        convolutions,
        st.integers(6, 40),
        st.just((8, 24, 24, 12)),
        st.sampled_from([(1, -3, 1), (3, -3, 3), (5, -3, 1)]),
        st.sampled_from([(1, 1, 1), (1, 2, 1), (2, 1, 1)]),
    ),
)
memories = st.sampled_from(["8 KiB", "24 KiB", "64 KiB", "256 KiB", "4 MiB"])


@settings(max_examples=8)
@given(chains, memories, st.sampled_from(["4 GB/s", "34 GB/s"]))
def test_fused_is_never_worse_than_unfused(graph: Graph, capacity: str, bandwidth: str):
    chip = sim.load_hardware("systolic", {"SRAM.capacity": capacity, "DRAM.bandwidth": bandwidth})
    fused, apart = network_of(graph, chip), network_of(graph, chip, apart=True)
    assert fused.latency_s[0] <= apart.latency_s[0] * (1 + 1e-12)


@pytest.mark.parametrize(
    ("workload", "hardware", "change"),
    [
        ("mobilenet_v2", "edge-npu", {"SRAM.capacity": "256 KiB"}),
        ("vit", "tesla-fsd-npu", {"SRAM.capacity": "1 MiB"}),
        ("lstm", "systolic", {}),
    ],
)
def test_real_networks_are_never_worse(workload: str, hardware: str, change: dict[str, str]):
    graph, chip = sim.load_workload(workload), sim.load_hardware(hardware, change)
    fused, apart = network_of(graph, chip), network_of(graph, chip, apart=True)
    assert fused.latency_s[0] <= apart.latency_s[0]


@pytest.mark.parametrize("share", [0.5, 0.98])
def test_tensors_stay_at_home_where_their_room_costs_more(monkeypatch, share):
    """Two products of 8 x 1,400 x 1,400 with little SRAM: a kept tensor leaves the weights no room. However much may
    be kept, the schedule is at least as fast as with everything at home, in an estimate and in each row of a sweep."""
    monkeypatch.setattr(residency, "RESIDENT_SHARE", share)
    graph = products(8, (1400, 1400, 1400))
    at_home = {}
    grid = ["12 KiB", "14 KiB", "24 KiB", "64 KiB"]
    for capacity in grid:
        chip = sim.load_hardware("systolic", {"SRAM.capacity": capacity})
        monkeypatch.setattr(residency, "RESIDENT_SHARE", -1.0)
        at_home[capacity] = network_of(graph, chip).latency_s[0]
        monkeypatch.setattr(residency, "RESIDENT_SHARE", share)
    table = sim.sweep(graph, sim.load_hardware("systolic"), {"SRAM.capacity": grid})
    for i, capacity in enumerate(grid):
        chip = sim.load_hardware("systolic", {"SRAM.capacity": capacity})
        found = sim.estimate(graph, chip)
        assert found.latency_s <= at_home[capacity] * (1 + 1e-12)
        for name in ("latency_s", "energy_j", "mac_utilization", "macs", "vector_ops"):
            assert table[name][i] == getattr(found, name), (capacity, name)
        assert sim.simulate(graph, chip).latency_s == pytest.approx(found.latency_s, rel=0.02)
