"""Law 8 where a grid gives a chip what its file does not state: a type, a pattern, requests in flight, another kind."""

from __future__ import annotations

import numpy as np
import pytest
from test_rows_and_documents import COLUMNS, same

import sim

GRIDS = [
    ("tesla-fsd-npu", {"array.weight_sparsity.2:4": [1.2, 2]}),
    ("tesla-fsd-npu", {"array.macs_per_cycle.fp16": [0.5, 1], "SRAM.outstanding": [4, 90]}),
    ("tesla-fsd-npu", {"array.macs_per_cycle": [{"int8": 1}, {"int8": 1, "fp16": 0.5}]}),
    ("tesla-fsd-npu", {"DRAM.kind": ["lpddr4", "hbm2e"], "SRAM.read_energy": ["1 pJ/B", "3 pJ/B"]}),
    ("tesla-fsd-npu", {"SRAM.kind": ["sram", "register"]}),
    ("tesla-fsd-npu", {"array.mac_energy.int8": ["1 pJ", "2 pJ"], "technology.node": ["14 nm", "7 nm"]}),
    ("tesla-fsd-npu", {"simd.energy.compare": ["1 nJ"], "array.depthwise_macs_per_cycle.int8": [3, 90]}),
    ("tesla-fsd-npu", {"array.sparse_pass": ["1 KiB", "1 MiB"], "npu.dma_setup": ["0 s", "1 us"]}),
    ("tesla-fsd-npu", {"npu.costing": ["roofline", "mapped"]}),
    ("tesla-fsd-npu", {"npu.costing": ["mapped", "roofline"], "clock": ["1 GHz", "2 GHz"]}),
    ("gemmini-16", {"array.drain_bandwidth": ["4 B/cycle"], "technology.node": ["14 nm", "7 nm"]}),
]


@pytest.mark.parametrize(("name", "grid"), GRIDS)
def test_a_row_costs_what_it_adds(name: str, grid: dict) -> None:
    graph, chip = sim.load_workload("digits_cnn"), sim.load_hardware(name)
    table = sim.sweep(graph, chip, grid, calibration="none")
    for i in range(len(table)):
        row = {path: table[path][i] for path in grid}
        alone = sim.estimate(graph, sim.load_hardware(name, row), calibration="none")
        for column in COLUMNS:
            assert same(table[column][i], getattr(alone, column)), (row, column)


def test_a_row_makes_a_primitive_of_what_it_says():
    """A grid of fallbacks: the erf of the GELUs, 2 x 64 tokens x 256 wide, of 1 or of 100 exponentials."""
    graph, path, made = sim.load_workload("byte_gpt"), "relu.fallback.erf", [{"exp": 1}, {"exp": 100}]
    rows = sim.sweep(graph, "eyeriss", {path: made})
    alone = [sim.estimate(graph, sim.load_hardware("eyeriss", {path: one})) for one in made]
    assert rows["latency_s"].tolist() == [one.latency_s for one in alone]
    assert rows["energy_j"].tolist() == [one.energy_j for one in alone]
    assert rows["latency_s"][1] > 9 * rows["latency_s"][0]


def test_a_supply_is_refused_whatever_other_rows_state():
    """1 V is above what 7 nm stands; a row beside it that states no node has nothing to be held against."""
    graph, grid = sim.gemm(32, 32, 32), {"technology.voltage": ["1 V"], "technology.node": ["14 nm", "7 nm", None]}
    rows = sim.sweep(graph, "tesla-fsd-npu", grid)["latency_s"]
    assert np.isnan(rows).tolist() == [False, True, False]
