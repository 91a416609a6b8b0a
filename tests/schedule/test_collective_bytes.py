"""What chips of a system send passes the ports of the home memory in both readings alike."""

from __future__ import annotations

import pytest
import yaml

import sim
from sim.hardware.chip import Chip
from sim.hardware.dump import dump
from sim.hardware.load import from_document, load_hardware


@pytest.fixture
def pair() -> Chip:
    """Two systolic arrays whose DRAM reads and writes by ports of their own, and no tensor stays on chip."""
    document, source = yaml.safe_load(dump(load_hardware("systolic"))), "estimated: a test"
    (home,) = document["memories"]
    del home["bandwidth"]
    home |= {"read_bandwidth": "20 GB/s", "write_bandwidth": "10 GB/s", "source": source}
    wire = {"name": "wire", "ends": ["chip", "DRAM"], "bandwidth": "10 GB/s", "latency": "2 us", "source": source}
    system = {"chips": 2, "topology": "ring", "link": "wire", "source": source}
    chip = from_document(document | {"links": [wire], "system": system}, where="pair")
    return chip.set("SRAM.residency", False)


def test_sums_are_read_at_one_port_and_written_at_the_other(pair: Chip) -> None:
    """Four sums of 64 x 64 elements of 16 bit: each chip of two sends as many bytes as they are."""
    graph = sim.load_workload("byte_gpt")
    found, run = sim.estimate(graph, pair), sim.simulate(graph, pair)
    sums = [op.traffic_bytes["DRAM"]["communication"] for op in found.ops if op.kind == "collective.all_reduce"]
    assert [(moved.read, moved.write) for moved in sums] == [(8192, 8192)] * 4
    moved = found.traffic_bytes["DRAM"]
    assert run.ports["DRAM.read"].bytes == pytest.approx(moved.read, rel=1e-9)
    assert run.ports["DRAM.write"].bytes == pytest.approx(moved.write, rel=1e-9)
    assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)
