"""What a Python prompt shows of a result: one line that says what it is, whatever its size."""

from __future__ import annotations

import sim


def test_results_print_one_line() -> None:
    graph, chip = sim.load_workload("mlp", hidden=64), sim.load_hardware("systolic", {"array.rows": 32})
    estimate, table = sim.estimate(graph, chip), sim.sweep(graph, chip, {"array.cols": [16, 32]})
    macs = 784 * 64 + 64 * 64 + 64 * 10
    for thing, parts in (
        (graph, ("Graph mlp", "hidden=64", f"{macs:,} MACs", f"{macs + 64 + 64 + 10:,} parameters")),
        (chip, ("Chip systolic", "array.rows=32", "npu x 1 on DRAM", "int8")),
        (estimate, ("Estimate of mlp on systolic, int8, batch 1", f"{len(estimate.ops)} ops")),
        (table, ("Table of 2 designs over array.cols", "latency_s")),
        (sim.simulate(graph, chip), ("Simulation of mlp on systolic", "1 jobs of inference")),
    ):
        shown = repr(thing)
        assert "\n" not in shown
        assert len(shown) < 400
        for part in parts:
            assert part in shown, shown


def test_a_table_becomes_a_frame() -> None:
    table = sim.sweep("mlp", "systolic", {"array.cols": [16, 32]})
    frame = table.to_frame()
    assert list(frame["array.cols"]) == [16, 32]
    assert list(frame["latency_s"]) == list(table["latency_s"])
