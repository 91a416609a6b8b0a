"""What the tiles of a mapping take of every memory: by hand, and within the capacities in real estimates."""

from __future__ import annotations

import random

import pytest
from cases import gemm, problem, random_machine

import sim
from sim.mapping.mapping import Loop, Mapping, Store
from sim.mapping.problem import ROLES
from sim.mapping.winners import tile_bytes


@pytest.mark.parametrize("seed", range(6))
def test_two_memories_by_hand(seed):
    """GEMM 8 x 6 x 4 (M, N, K), 8-bit operands, 32-bit sums.

    L1 takes M = 4 and whole N and K: 4 x 4 + 4 x 6 bytes, and 4 x 6 sums of 4 bytes, because the K loop inside it sends
    partial ones back. L2 takes N = 3 and K = 2 of that: 4 x 2 + 2 x 3 bytes, and 4 x 3 sums of 4 bytes.
    """
    rng, machine = random.Random(seed), None
    while machine is None or any(set(level.holds) != set(ROLES) for level in machine.levels):
        machine = random_machine(rng, memories=2, fanouts=False)
    stores = [
        [Store(memory=level.name, operand=role, double_buffered=level.double_buffered) for role in ROLES]
        for level in machine.levels[1:]
    ]
    loops = [Loop(rank="N", tile=3), Loop(rank="K", tile=2)]
    mapping = Mapping(nodes=(Loop(rank="M", tile=4), *stores[0], *loops, *stores[1]))
    weight, outermost, levels = tile_bytes(mapping, problem(gemm(8, 6, 4)), machine, dict.fromkeys(ROLES, 0))
    one, two = (2 if level.double_buffered else 1 for level in machine.levels[1:])
    assert levels == {1: one * (4 * 4 + 4 * 6 + 4 * 6 * 4), 2: two * (4 * 2 + 2 * 3 + 4 * 3 * 4)}
    assert outermost == levels[1]
    assert weight == 4 * 6


@pytest.mark.parametrize("hardware", ["eyeriss", "nvdla-full", "tesla-dojo-d1", "edge-npu"])
def test_every_memory_on_chip_has_a_peak_within_its_capacity(hardware):
    chip = sim.load_hardware(hardware)
    peaks = sim.estimate(sim.load_workload("gemm", m=128, n=96, k=160), chip).peak_memory_bytes
    for memory in chip.main_unit.memories:
        assert 0 < peaks[memory.name] <= memory.capacity_bytes
