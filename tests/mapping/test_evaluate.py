"""`evaluate` against an interpreter that walks the loops."""

import numpy as np
import pytest
from agreement import walk_one

from sim import gemm, load_hardware
from sim.mapping.array_job import array_time
from sim.mapping.machine import machine
from sim.mapping.problem import ROLES, Problem
from sim.workload.graph import EinsumOp


@pytest.mark.parametrize("block", range(20))
def test_equals_the_interpreter(block):
    """Law 7: time, array cycles, busy time of every port and traffic of every memory and operand."""
    for seed in range(block * 40, block * 40 + 40):
        (p, _, mapping), gap = walk_one(seed)
        assert gap < 1e-9, f"seed {seed}: {dict(p.einsum.ranks)} {mapping.nodes}"


def test_results_leave_through_the_drain_port() -> None:
    """By hand: 192 x 96 results of K = 10 on 96 x 96 cells, 4 bytes each, 128 bytes a cycle.

    Two folds of 96 x 96 results take 288 cycles each to leave, far more than the 10 that they stream; cut into jobs
    of one fold they leave no faster. One column of results takes 3 cycles a fold.
    """
    npu = load_hardware("tesla-fsd-npu").main_unit.array
    shape = machine([load_hardware("tesla-fsd-npu")], "int8").array
    assert (npu.rows, npu.cols, shape.accumulate_bits, shape.drain_bytes_per_cycle) == (96, 96, 32, 128)

    def cycles(m: int, n: int) -> float:
        einsum = next(op for op in gemm(m, n, 10).ops if isinstance(op, EinsumOp)).einsum
        p = Problem(einsum=einsum, bits=dict.fromkeys(ROLES, 8.0), accumulate_bits=32)
        return float(array_time(p, shape, {r: np.array([s]) for r, s in einsum.ranks.items()})[0][0])

    assert cycles(192, 96) == 2 * 288
    assert cycles(96, 96) == 288
    assert cycles(192, 1) == 2 * 10
