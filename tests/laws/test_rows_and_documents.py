"""Law 8, row i of a sweep is the estimate of chip i bit for bit; law 10, what is written is read back."""

from __future__ import annotations

import random
from itertools import product
from math import isnan

import pytest

import sim
from sim.hardware.dump import dump
from sim.hardware.load import loads
from sim.mapping.mapping import Mapping
from sim.results_io import from_dict, to_dict
from sim.workload.serialize import graph_from_dict, graph_to_dict

COLUMNS = (
    "latency_s",
    "throughput_per_s",
    "cycles",
    "roofline_latency_s",
    "below_datasheet_roofline",
    "energy_j",
    "power_w",
    "area_mm2",
    "mac_utilization",
    "macs",
    "effective_macs",
    "vector_ops",
    "flops",
)
GRIDS = {
    "systolic": {
        "array.rows": [16, 64],
        "SRAM.capacity": ["64 KiB", "1 MiB"],
        "SRAM.bandwidth": ["64 B/cycle", "256 B/cycle"],
        "DRAM.bandwidth": ["10 GB/s", "34 GB/s", "200 GB/s"],
        "DRAM.latency": ["100 ns", "400 ns"],
        "clock": ["0.5 GHz", "1.3 GHz"],
    },
    "tesla-fsd-npu": {
        "SRAM.capacity": ["256 KiB", "32 MiB"],
        "DRAM.bandwidth": ["20 GB/s", "68 GB/s"],
        "npu.launch": ["0 s", "5 us"],
    },
    "h100-sxm": {
        "DRAM.bandwidth": ["2 TB/s", "3 TB/s"],
        "L2.capacity": ["1 MiB", "50 MiB"],
        "clock": ["1 GHz", "1.5 GHz"],
    },
}


def same(cell: object, value: float | None) -> bool:
    number = float(cell)  # type: ignore[arg-type]
    return isnan(number) if value is None else number == value


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("workload", ["digits_cnn", "byte_gpt"])
@pytest.mark.parametrize("name", GRIDS)
def test_row_i_of_a_sweep_is_the_estimate_of_chip_i(name: str, workload: str, seed: int) -> None:
    """On three random keys of the chip, at three random rows; two precisions where the chip has them."""
    draw = random.Random(f"{name} {workload} {seed}")
    keys = draw.sample(list(GRIDS[name]), min(3, len(GRIDS[name])))
    grid = {key: GRIDS[name][key] for key in keys}
    graph, chip = sim.load_workload(workload), sim.load_hardware(name)
    precisions = ["bf16", "int8"] if name in ("systolic", "h100-sxm") else None
    table = sim.sweep(graph, chip, grid, precisions=precisions)
    for i in draw.sample(range(len(table)), 3):
        row = {path: table[path][i] for path in grid}
        precision = table["precision"][i] if precisions else None
        alone = sim.estimate(graph, sim.load_hardware(name, row), precision=precision)
        for column in COLUMNS:
            assert same(table[column][i], getattr(alone, column)), (row, precision, column)


def test_rows_of_a_sweep_are_the_product_of_its_keys_as_given() -> None:
    """The grid of the chip, then knobs, then precisions, as the arguments stand; the last is fastest."""
    grid, knobs, precisions = {"clock": ["1 GHz", "2 GHz"], "array.rows": [8, 16]}, {"n": [3, 5, 7]}, ["int8", "bf16"]
    table = sim.sweep("gemm", sim.load_hardware("systolic"), grid, knobs=knobs, precisions=precisions)
    keys = (*grid, *knobs, "precision")
    assert table.parameters == keys
    rows = list(zip(*(table[key] for key in keys), strict=True))
    assert rows == list(product(*grid.values(), *knobs.values(), precisions))


@pytest.mark.parametrize("workload", ["mlp", "digits_cnn", "byte_gpt", "mobilenet_v2", "lstm"])
def test_graphs_are_read_back(workload: str) -> None:
    graph = sim.load_workload(workload)
    again = graph_from_dict(graph_to_dict(graph))
    assert again == graph
    assert again.hash == graph.hash


@pytest.mark.parametrize("changes", [{}, {"SRAM.capacity": "1 MiB", "clock": "0.8 GHz", "array.rows": 32}])
def test_chips_are_read_back(changes: dict) -> None:
    chip = sim.load_hardware("systolic", changes)
    again = loads(dump(chip))
    graph = sim.load_workload("digits_cnn")
    first, second = sim.estimate(graph, chip), sim.estimate(graph, again)
    assert (first.hardware_hash, first.latency_s, first.energy_j) == (
        second.hardware_hash,
        second.latency_s,
        second.energy_j,
    )


@pytest.mark.parametrize(
    ("workload", "hardware"), [("digits_cnn", "systolic"), ("byte_gpt", "tpu-v1"), ("mlp", "h100-sxm")]
)
def test_results_and_their_mappings_are_read_back(workload: str, hardware: str) -> None:
    """And a mapping that is given instead of found costs the same to the last bit."""
    graph, chip = sim.load_workload(workload), sim.load_hardware(hardware)
    found = sim.estimate(graph, chip)
    assert from_dict(to_dict(found)) == found
    given_ = {op.name: Mapping.from_dict({"nodes": op.mapping["nodes"]}) for op in found.ops if op.mapping}
    assert all(Mapping.from_dict(m.to_dict()) == m for m in given_.values())
    again = sim.estimate(graph, chip, mapping=given_)
    assert [op.latency_s for op in again.ops] == [op.latency_s for op in found.ops]
    assert again.traffic_bytes == found.traffic_bytes


@pytest.mark.parametrize("workload", ["digits_cnn", "byte_gpt"])
def test_the_same_question_has_the_same_answer(workload: str) -> None:
    chip = sim.load_hardware("tesla-fsd-npu")
    texts = [str(to_dict(sim.estimate(sim.load_workload(workload), chip))) for _ in range(2)]
    assert texts[0] == texts[1]
    runs = [sim.simulate(sim.load_workload(workload), chip).to_dict() for _ in range(2)]
    assert runs[0] == runs[1]
