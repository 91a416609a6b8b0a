"""A row of a sweep is the estimate of its chip where energies decide between mappings that are equally fast."""

from __future__ import annotations

import pytest
import torch

import sim
from sim.hardware.physical import mac_energy_j
from sim.schedule.network import Options, Shared, cost_network
from sim.workload.passes.precision import PrecisionPolicy
from sim.workload.precision import parse_precision

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


@pytest.mark.parametrize("path", ["DRAM.read_energy", "SRAM.write_energy", "array.mac_energy.int8"])
def test_chips_share_no_answers_that_their_energies_decide(path: str) -> None:
    """As the what-ifs of one chip share them: what is equally fast, and what it takes, is each chip's own question."""
    graph, chip, shared = sim.gemm(17, 700, 300), sim.load_hardware("systolic", FREE), Shared()
    for energy in ("1 pJ", "300 pJ"):
        one = chip.set(path, energy if "mac" in path else f"{energy}/B")
        found, alone = (
            cost_network(graph, [one], parse_precision("int8"), Options(inputs="resident"), shared=known)
            for known in (shared, None)
        )
        assert [dict(g.energy_parts_j) for g in found.groups] == [dict(g.energy_parts_j) for g in alone.groups]


def test_layers_of_one_shape_and_other_types_take_their_own_energy() -> None:
    """int16 and fp16 are equally wide and, here, equally fast: 64 x 256 x 256 MACs of the layer's own type each."""
    layers = torch.nn.Sequential(*(torch.nn.Linear(256, 256, bias=False) for _ in range(6)))
    graph, chip = sim.trace(layers, torch.zeros(64, 256)), sim.load_hardware("edge-npu")
    for usual, other in (("int16", "fp16"), ("fp16", "int16")):
        policy = PrecisionPolicy(default=parse_precision(usual), ops={"3*": parse_precision(other)})
        network = cost_network(graph, [chip], policy, Options(inputs="resident"))
        found = {g.name: g.energy_parts_j["MACs"][0] for g in network.groups if g.macs}
        one = {dtype: 64 * 256 * 256 * mac_energy_j(chip, "array", dtype) for dtype in (usual, other)}
        assert found == {f"{n}.mm": pytest.approx(one[other if n == 3 else usual], rel=1e-9) for n in range(6)}
