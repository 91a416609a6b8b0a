"""Weights that several ops use: loaded once and kept, where that is better."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chains import chain, products

import sim
from sim.schedule.network import Options, cost_network
from sim.workload.precision import parse_precision

STEPS = 6


@pytest.fixture(scope="module")
def graph():
    """Six steps of [32, 1000] x [1000, 1000] with one weight of 1 MB."""
    return products(32, (1000,) * (STEPS + 1), tied=True)


def test_by_hand(graph):
    """On `systolic` (4 MiB, half for what stays) with 4 GB/s the weight crosses DRAM once: 10^6 bytes of 4 a cycle, 100
    cycles of set-up and 100 of latency before the first step; nothing hides it."""
    chip = sim.load_hardware("systolic", {"DRAM.bandwidth": "4 GB/s"})
    found = sim.estimate(graph, chip, what_if=True)
    load = found.ops[0]
    assert (load.name, load.kind, load.bound) == ("layer0.weights", "load", "memory:DRAM")
    assert load.latency_s == pytest.approx((1e6 / 4 + 200) * 1e-9, rel=1e-12)
    assert load.roofline_s == pytest.approx(1e6 / 4e9, rel=1e-12)
    assert found.traffic_bytes["DRAM"].read == 1e6 + 32 * 1000
    assert found.ops[1].homes["weight0"] == "SRAM"
    assert found.saved.traffic_bytes["DRAM"].read >= (STEPS - 1) * 1e6
    assert found.peak_memory_bytes["DRAM"] == 1e6 + 2 * 32 * 1000
    assert found.peak_memory_bytes["SRAM"] >= 1e6
    assert sum(op.latency_s for op in found.ops) == pytest.approx(found.latency_s, rel=1e-12)
    assert sum(found.breakdown_s.values()) == pytest.approx(found.latency_s, rel=1e-9)
    for op in found.ops:
        assert op.roofline_s <= op.latency_s * (1 + 1e-9)
    assert found.roofline_latency_s <= found.latency_s


@pytest.mark.parametrize("hardware", ["systolic", "tesla-fsd-npu"])
def test_both_readings_agree_and_rows_are_estimates(graph, hardware):
    capacities = ["600 KiB", "1.5 MiB", "4 MiB"]
    chip = sim.load_hardware(hardware)
    memory = chip.main_unit.memories[0].name
    table = sim.sweep(graph, chip, {f"{memory}.capacity": capacities}, inputs="resident")
    for i, capacity in enumerate(capacities):
        one = chip.set(f"{memory}.capacity", capacity)
        found = sim.estimate(graph, one, inputs="resident")
        assert sim.simulate(graph, one, inputs="resident").latency_s == pytest.approx(found.latency_s, rel=0.02)
        for name in ("latency_s", "energy_j", "mac_utilization"):
            assert table[name][i] == getattr(found, name), (capacity, name)
        apart = cost_network(
            graph, [one], parse_precision(chip.default_precision), Options(apart=True, inputs="resident")
        )
        assert found.latency_s <= apart.latency_s[0] * (1 + 1e-12)


def test_a_load_runs_ahead():
    """Behind a long first layer with a weight of its own, the load of the shared one costs nothing."""
    before = sim.gemm(2048, 500, 500)
    layers = [before, *(sim.gemm(2048, 500, 500) for _ in range(3))]
    graph = chain(layers)
    tied = {f"weight{i}": "weight1" for i in (2, 3)}
    ops = []
    for op in graph.ops:
        if hasattr(op, "einsum"):
            operands = tuple(replace(o, tensor=tied.get(o.tensor, o.tensor)) for o in op.einsum.operands)
            op = replace(
                op,
                inputs=tuple(tied.get(key, key) for key in op.inputs),
                einsum=replace(op.einsum, operands=operands),
            )
        ops.append(op)
    graph = graph.with_(ops=tuple(ops), tensors={k: t for k, t in graph.tensors.items() if k not in tied})
    chip = sim.load_hardware("systolic", {"SRAM.capacity": "16 MiB"})
    found, run = sim.estimate(graph, chip), sim.simulate(graph, chip)
    load = next(op for op in found.ops if op.kind == "load")
    assert load.name == "layer1.weights"
    assert load.latency_s == 0
    assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)
