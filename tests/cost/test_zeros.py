"""What zeros save: a pattern's rate, the channels that it needs, arrays that skip any zero."""

from dataclasses import replace

import pytest

from sim.analytical import estimate
from sim.cost.roofline import roofline
from sim.cost.sparsity import channels, reduction_speedup
from sim.hardware.load import load_hardware
from sim.workload.builders import conv2d, gemm
from sim.workload.graph import EinsumOp, OperandRole


def parts(graph):
    (op,) = (op for op in graph if isinstance(op, EinsumOp))
    return op, graph.tensors[op.einsum.operand(OperandRole.WEIGHT).tensor]


def test_channels_are_those_that_one_output_sums_over():
    assert channels(parts(conv2d(64, 32, 8, 3, padding=1))[0]) == 64
    assert channels(parts(conv2d(64, 64, 8, 3, padding=1, groups=16))[0]) == 4
    assert channels(parts(gemm(4, 8, 96))[0]) == 96


def test_what_an_array_makes_of_a_tensor():
    array = load_hardware("orin-dla").main_unit.array
    (wide, weight), (narrow, _) = parts(conv2d(65, 32, 8, 3)), parts(conv2d(64, 32, 8, 3))
    sparse, zeros = replace(weight, density=0.5, pattern="2:4"), replace(weight, density=0.25, pattern="unstructured")
    assert [reduction_speedup(array, op, sparse) for op in (wide, narrow)] == [2, 1]
    assert reduction_speedup(array, wide, weight) == reduction_speedup(array, wide, zeros) == 1
    skipping = replace(array, skips_zeros=True)
    assert reduction_speedup(skipping, wide, zeros) == 4
    assert reduction_speedup(skipping, narrow, replace(weight, density=0.5, pattern="1:2")) == 2


@pytest.mark.parametrize("pattern", ["unstructured", None])
def test_estimate_and_roofline_skip_the_same_zeros(pattern):
    """A quarter of the weights on an array that skips zeros: a quarter of the array's cycles.

    512 x 512 x 512 in 128-wide folds; what does not shrink (preload, launch) is left out.
    """
    graph = gemm(512, 512, 512)
    _, weight = parts(graph)
    sparse = graph.with_(tensors={**graph.tensors, weight.id: replace(weight, density=0.25, pattern=pattern)})
    chip = load_hardware("systolic")
    unit = chip.main_unit
    skipping = replace(unit.array, skips_zeros=True)
    unit = replace(unit, hierarchy=(*unit.hierarchy[:-1], skipping))
    chip = replace(chip, units=(unit,))

    def compute_s(g):
        return next(v for k, v in estimate(g, chip, calibration="none").breakdown_s.items() if k == "compute")

    assert roofline(sparse, chip).ops[0].resource_s["compute"] == pytest.approx(
        roofline(graph, chip).ops[0].resource_s["compute"] / 4
    )
    assert compute_s(sparse) < 0.6 * compute_s(graph)
