"""A row of a sweep is the estimate of its chip where energies decide between mappings that are equally fast."""

from __future__ import annotations

import pytest

import sim

FREE = {"DRAM.bandwidth": "400 GB/s", "array.cols": 8, "npu.dma_setup": "0 s"}
"""The array binds and transfers are free, so that many mappings are equally fast."""


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("DRAM.read_energy", ["10 pJ/B", "1 nJ/B"]),
        ("SRAM.write_energy", ["1 pJ/B", "200 pJ/B"]),
        ("SRAM.capacity", ["64 KiB", "1 MiB", "64 MiB"]),
    ],
)
@pytest.mark.parametrize("shape", [(17, 700, 300), (64, 256, 512)])
def test_equally_fast_mappings_are_told_apart_by_each_designs_own_energies(
    shape: tuple[int, int, int], path: str, values: list[str]
) -> None:
    graph, chip = sim.gemm(*shape), sim.load_hardware("systolic", FREE)
    for order in (values, values[::-1]):
        rows = sim.sweep(graph, chip, {path: order}, inputs="resident")
        alone = [sim.estimate(graph, chip.set(path, value), inputs="resident") for value in order]
        assert rows["latency_s"].tolist() == [one.latency_s for one in alone]
        assert rows["energy_j"].tolist() == [one.energy_j for one in alone]


def test_rows_in_which_nothing_fits_have_no_energies_to_compare() -> None:
    grid = {"SRAM.capacity": ["2 B"], "DRAM.read_energy": ["10 pJ/B", "1 nJ/B"]}
    rows = sim.sweep(sim.gemm(64, 64, 64), sim.load_hardware("systolic", FREE), grid)
    assert rows["infeasible"].tolist() == [True, True]
