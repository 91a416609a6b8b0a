"""`evaluate` against an interpreter that walks the loops."""

from dataclasses import replace
from functools import partial

import cases
import numpy as np
import pytest
from agreement import cost_of, walk_one

from sim import gemm, load_hardware
from sim.errors import MappingError
from sim.hardware.chip import Folds
from sim.mapping.api import map_einsum
from sim.mapping.array_job import array_time
from sim.mapping.machine import ArrayShape, Level, Machine, machine
from sim.mapping.mapping import Loop, Mapping, Store
from sim.mapping.nest import footprint_bytes, nest
from sim.mapping.problem import INPUT, OUTPUT, ROLES, WEIGHT, Problem
from sim.workload.graph import EinsumOp

HOME = dict.fromkeys(ROLES, 0)


@pytest.mark.parametrize("block", range(20))
def test_equals_the_interpreter(block):
    """Law 7: time, array cycles, busy time of every port and traffic of every memory and operand."""
    for seed in range(block * 40, block * 40 + 40):
        (p, _, mapping), gap = walk_one(seed)
        assert gap < 1e-9, f"seed {seed}: {dict(p.einsum.ranks)} {mapping.nodes}"


def test_results_leave_through_the_drain_port() -> None:
    """By hand: 192 x 96 results of K = 10 on 96 x 96 cells, 4 bytes each, 128 bytes a cycle.

    Two folds of 96 x 96 results take 288 cycles each to leave, far more than the 10 that they stream; cut into jobs
    of one fold they leave no faster. One column of results takes 3 cycles a fold. Serial folds wait for each.
    """
    npu = load_hardware("tesla-fsd-npu").main_unit.array
    pipelined = machine([load_hardware("tesla-fsd-npu")], "int8").array
    assert (npu.rows, npu.cols, pipelined.accumulate_bits, pipelined.drain_bytes_per_cycle) == (96, 96, 32, 128)

    def cycles(m: int, n: int, shape: ArrayShape = pipelined) -> float:
        einsum = next(op for op in gemm(m, n, 10).ops if isinstance(op, EinsumOp)).einsum
        p = Problem(einsum=einsum, bits=dict.fromkeys(ROLES, 8.0), accumulate_bits=32)
        return float(array_time(p, shape, {r: np.array([s]) for r, s in einsum.ranks.items()})[0][0])

    assert cycles(192, 96) == 2 * 288
    assert cycles(96, 96) == 288
    assert cycles(192, 1) == 2 * 10
    serial = replace(pipelined, folds=Folds.SERIAL)
    assert cycles(192, 96, serial) == 2 * (10 + 288)
    assert cycles(192, 1, serial) == 2 * (10 + 3)


def two_pairs() -> Machine:
    """DRAM, two SRAMs, in each two arrays of 2 x 2 cells that hold weights; a byte a cycle on every port."""
    return Machine(
        levels=(
            Level(name="DRAM", holds=frozenset(ROLES), double_buffered=True, read_port=0, write_port=0),
            Level(
                name="SRAM", holds=frozenset(ROLES), double_buffered=True, read_port=1, write_port=2,
                fanout=2, fanout_name="core", multicast=True,
            ),
        ),
        ports=("DRAM", "SRAM.read", "SRAM.write"),
        array=ArrayShape(
            rows=2, cols=2, dataflow="weight_stationary", skew="none", folds="serial", preload="exposed",
            macs_per_cell=1, accumulate_bits=32, drain_bytes_per_cycle=None, fanout=2, fanout_name="arrays",
        ),
        rates=np.ones((1, 3)),
        capacity_bytes=np.full((1, 2), 1e9),
        clock_hz=np.array([1e9]),
        latency_cycles=np.zeros(1),
        setup_cycles=np.zeros(1),
        read_energy_j_per_byte=np.zeros((1, 2)),
        write_energy_j_per_byte=np.zeros((1, 2)),
        mac_energy_j=np.zeros(1),
        idle_j_per_cycle=np.zeros(1),
    )  # fmt: skip


STORED = tuple(Store(memory="SRAM", operand=role) for role in ROLES)


@pytest.mark.parametrize(("k", "passes", "cycles"), [(4, 2, 5), (5, 3, 10), (7, 4, 10)])
def test_arrays_share_a_reduction(k: int, passes: int, cycles: int) -> None:
    """By hand: 3 x 2 results of K = k, of which one array takes the larger half and the other what is left.

    A fold of two rows of weights takes 2 + 3 cycles. Halves of 2 and 2 take a fold each; of 3 and 2 two and one; of
    4 and 3 two each: so many passes add to the 6 results, the first of all finds nothing there, and the last of all
    writes them at one byte instead of four. DRAM sees each operand once.
    """
    p, m = cases.problem(cases.gemm(3, 2, k)), two_pairs()
    shared = Mapping(nodes=(*STORED, Loop(rank="K", tile=-(-k // 2), fanout="arrays")))
    cost = cost_of(p, m, shared, HOME)
    read, written = cost.traffic[0, 1, :, 0], cost.traffic[0, 1, :, 1]
    assert cost.array[0] == cycles
    assert dict(zip(ROLES, read - [0, 0, 6], strict=True)) == {
        INPUT: 3 * k, WEIGHT: 2 * k, OUTPUT: 6 * 4 * (passes - 1)
    }  # fmt: skip
    assert written[ROLES.index(OUTPUT)] == 6 * 4 * (passes - 1) + 6
    assert cost.traffic[0, 0].sum() == 3 * k + 2 * k + 6
    assert footprint_bytes(nest(shared, p, m, HOME), p, m)[1][OUTPUT] == 2 * 6 * 4


def test_what_may_not_share_a_reduction() -> None:
    """Memories have partial sums of their own, which nothing adds up; nor does anything inside the arrays' fan-out."""
    p, m = cases.problem(cases.gemm(3, 2, 4)), two_pairs()
    with pytest.raises(MappingError, match=r"rank K is reduced; splitting it over core .* SRAM of its own"):
        nest(Mapping(nodes=(Loop(rank="K", tile=2, fanout="core"), *STORED)), p, m, HOME)
    split = Loop(rank="K", tile=2, fanout="arrays")
    with pytest.raises(MappingError, match=r"arrays share a reduction; .* output .* outside"):
        nest(Mapping(nodes=(split, Loop(rank="M", tile=1), *STORED)), p, m, HOME)


CORES, ARRAYS = (partial(Loop, fanout=name) for name in ("core", "arrays"))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((CORES(rank="M", tile=4), CORES(rank="N", tile=4), *STORED), "4 instances of core are needed, the chip has 2"),
        ((CORES(rank="M", tile=4), Loop(rank="M", tile=2), CORES(rank="N", tile=4), *STORED), "4 instances of core"),
        (
            (*STORED, ARRAYS(rank="M", tile=4), Loop(rank="K", tile=2), ARRAYS(rank="N", tile=4)),
            "4 instances of arrays",
        ),
        ((*STORED, CORES(rank="M", tile=4)), "core stand inside a store in SRAM, of which each of them has"),
        ((*STORED[1:], CORES(rank="M", tile=4), STORED[0]), "core stand inside a store in SRAM"),
        ((ARRAYS(rank="M", tile=4), *STORED), "stored in SRAM inside loops over arrays, which share it"),
        ((ARRAYS(rank="M", tile=4), CORES(rank="N", tile=4), *STORED), "stored in SRAM inside loops over arrays"),
    ],
)
def test_no_more_instances_than_there_are_each_with_its_own_memory(nodes: tuple, message: str) -> None:
    """Two SRAMs, one for each core, with two arrays each: there are no more of them, and no halves of an SRAM."""
    with pytest.raises(MappingError, match=message):
        nest(Mapping(nodes=nodes), cases.problem(cases.gemm(8, 8, 4)), two_pairs(), HOME)


def test_all_instances_at_once_take_the_ideal_time() -> None:
    """8 x 8 x 4 MACs on 2 x 2 arrays of 2 x 2 cells, each with 4 x 4 x 4 of them: 16 rounds."""
    whole = Mapping(nodes=(CORES(rank="M", tile=4), *STORED, ARRAYS(rank="N", tile=4)))
    assert cost_of(cases.problem(cases.gemm(8, 8, 4)), two_pairs(), whole, HOME).spatial[0] == 16


def test_nine_rounds_on_four_arrays() -> None:
    """N and K of 768 are 6 x 6 blocks of 128 x 128: with both halved, four arrays take them in 3 x 3 rounds of 197."""
    p = cases.problem(cases.gemm(197, 768, 768))
    won = map_einsum(p, machine([load_hardware("tpu-v4i")], "int8"), HOME)
    assert won.cost.spatial[0] == 9 * 197
