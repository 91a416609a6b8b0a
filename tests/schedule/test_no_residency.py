"""A memory that serves within an op (`residency: false`): what passes between ops goes home."""

from __future__ import annotations

import numpy as np
from chains import products

import sim


def test_a_result_between_two_products_goes_home_and_back():
    """[64, 64] x [64, 64], ReLU, x [64, 64], ReLU in int8 on `systolic`: 4,096 bytes a tensor. DRAM carries input, two
    weights and output; where nothing stays, the tensor between the products too, each way. The ReLU of a product is
    part of its op either way."""
    graph, chip = products(64, (64, 64, 64)), sim.load_hardware("systolic")
    kept, home = (sim.estimate(graph, chip.set("SRAM.residency", stays)) for stays in (True, False))
    assert [op.name for op in kept.ops] == [op.name for op in home.ops] == ["layer0", "layer1"]
    assert (kept.traffic_bytes["DRAM"].read, kept.traffic_bytes["DRAM"].write) == (3 * 4096, 4096)
    assert (home.traffic_bytes["DRAM"].read, home.traffic_bytes["DRAM"].write) == (4 * 4096, 2 * 4096)
    assert home.latency_s > kept.latency_s


def test_nothing_is_fused_through_it():
    graph, chip = sim.load_workload("bert_base", context=64), sim.load_hardware("edge-npu")
    memory = next(m.name for m in chip.main_unit.memories)
    kept, home = (sim.estimate(graph, chip.set(f"{memory}.residency", stays)) for stays in (True, False))
    assert len(home.ops) > len(kept.ops)
    assert home.traffic_bytes["DRAM"].write > kept.traffic_bytes["DRAM"].write


def test_swept_rows_are_their_estimates():
    graph, chip = products(256, (256, 256)), sim.load_hardware("systolic")
    found = sim.sweep(graph, chip, {"SRAM.residency": [True, False], "SRAM.capacity": ["64 KiB", "1 MiB"]})
    rows = [
        sim.estimate(graph, chip.set("SRAM.residency", stays).set("SRAM.capacity", room)).latency_s
        for stays in (True, False)
        for room in ("64 KiB", "1 MiB")
    ]
    assert np.array_equal(found["latency_s"], rows)
