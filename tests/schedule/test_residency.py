"""What stays on chip between ops: which activations come first, and memories that keep none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chains import chain, products

import sim
from sim.hardware.dump import to_document
from sim.hardware.load import from_document
from sim.schedule import residency
from sim.schedule.residency import Order
from sim.workload.graph import Graph


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


def test_a_stream_passes_through_it_all_the_same():
    """Two sums of three tensors of 64 KiB, int8: their four reads and two writes pass through SRAM, whether what is
    between them stays there or not; so where nothing can stay, what the file says of it changes nothing."""
    graph = sim.trace(Sums(), tuple(torch.zeros(256, 256) for _ in range(3)))
    chip = sim.load_hardware("systolic")
    for room, moved in (("1 MiB", {True: (3, 1), False: (4, 2)}), ("64 KiB", {True: (4, 2), False: (4, 2)})):
        for stays, (read, written) in moved.items():
            found = sim.estimate(graph, chip.set("SRAM.capacity", room).set("SRAM.residency", stays), precision="int8")
            traffic = {name: (one.read / 65536, one.write / 65536) for name, one in found.traffic_bytes.items()}
            assert traffic == {"DRAM": (read, written), "SRAM": (4, 2)}


@pytest.mark.parametrize("cores", [1, 2])
def test_one_core_shares_its_memory_with_nobody(cores: int):
    """A fan-out of one around the memory is the machine without it: what lies between the products stays on chip. Two
    cores have a memory each, and it goes home and back."""
    graph, chip = products(64, (64, 64, 64)), sim.load_hardware("systolic")
    document = to_document(chip)
    document["units"][0]["hierarchy"].insert(0, {"fanout": {"name": "core", "count": cores, "source": "estimated: a"}})
    alone, behind = (sim.estimate(graph, one) for one in (chip, from_document(document, where="test")))
    assert behind.traffic_bytes["DRAM"].write == cores * 4096
    if cores == 1:
        assert (behind.latency_s, behind.energy_j) == (alone.latency_s, alone.energy_j)
        assert behind.roofline == alone.roofline


class Sums(torch.nn.Module):
    def forward(self, x, y, z):
        return (x + y) + z


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


def skip() -> Graph:
    """Ten products of 64 KiB a tensor; the first result is read by the second and, over all that lies between, added to
    the last."""
    return chain([sim.gemm(256, 256, 256) for _ in range(10)], residuals={9: "relu0"})


def test_what_waits_long_gives_way_to_what_does_not():
    """In 320 KiB two tensors may stay. In the order of the run that is the skipped one and every other of the rest; by
    the time that they take room for, an access, all but the skipped one. DRAM then carries input, ten weights and the
    skipped tensor twice, and takes that and the output."""
    found = sim.estimate(skip(), sim.load_hardware("systolic", {"SRAM.capacity": "320 KiB"}))
    assert (found.traffic_bytes["DRAM"].read, found.traffic_bytes["DRAM"].write) == (13 * 65536, 2 * 65536)
    assert found.ops[-1].homes["relu0"] == "DRAM"
    assert found.ops[-1].homes["relu8"] == "SRAM"


def test_more_room_never_slows_a_skipping_chain():
    rooms = [f"{room} KiB" for room in range(96, 640, 32)]
    found = sim.sweep(skip(), sim.load_hardware("systolic"), {"SRAM.capacity": rooms})
    assert (np.diff(found["latency_s"]) <= 0).all()
    one_by_one = [sim.estimate(skip(), sim.load_hardware("systolic", {"SRAM.capacity": r})).latency_s for r in rooms]
    assert np.array_equal(found["latency_s"], one_by_one)


def test_mappings_found_in_one_order_are_costed_in_it():
    chip = sim.load_hardware("systolic", {"SRAM.capacity": "320 KiB"})
    best = sim.estimate(skip(), chip)
    found = sim.estimate(skip(), chip, mapping={op.name: op.mapping for op in best.ops})
    assert found.latency_s == best.latency_s


@pytest.mark.parametrize("order", list(Order))
def test_what_stays_fits_and_is_counted(order):
    """Recounted from the homes: bytes held at each op, and the transfers that home is spared."""
    graph, chip = skip(), sim.load_hardware("systolic")
    rooms = np.array([131072.0, 262144.0, 524288.0])
    found = residency.residency(graph, chip.main_unit, rooms, order=order)
    for d, room in enumerate(rooms):
        held, spared = np.zeros(len(graph.ops)), 0.0
        for key, tensor in graph.tensors.items():
            at = [i for i, op in enumerate(graph.ops) if key in (*op.inputs, *op.outputs)]
            if found.stays[tensor.storage or key][d]:
                held[at[0] : at[-1] + 1] += tensor.size_bytes
                spared += tensor.size_bytes * len(at)
        assert np.array_equal(found.held_bytes[d], held)
        assert held.max() <= room * residency.RESIDENT_SHARE
        assert found.spared_bytes[d] == spared
