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


@pytest.mark.parametrize("gpu", ["h100-sxm", "h200-torch"])
@pytest.mark.parametrize(
    ("pattern", "min_channels", "skips_zeros", "saved"),
    [("2:4", 8192, False, 2), ("2:4", 8193, False, 1), ("unstructured", 1, False, 1), ("unstructured", 1, True, 2)],
)
def test_kernels_of_a_gpu_save_what_its_array_does(gpu, pattern, min_channels, skips_zeros, saved):
    """8192^3 sums over 8,192 channels, and half of its weights is zero: twice as fast at best, never beyond the bound
    that the data sheet sets."""
    graph = gemm(8192, 8192, 8192)
    _, weight = parts(graph)
    sparse = graph.with_(tensors={**graph.tensors, weight.id: replace(weight, density=0.5, pattern=pattern)})
    chip = load_hardware(gpu)
    unit = chip.main_unit
    array = replace(unit.array, sparse_min_channels=min_channels, skips_zeros=skips_zeros)
    chip = replace(chip, units=(replace(unit, hierarchy=(*unit.hierarchy[:-1], array)),))
    found = estimate(sparse, chip, precision="bf16", calibration="none", inputs="resident")
    assert found.latency_s >= found.roofline_latency_s
    assert found.roofline_latency_s == pytest.approx(roofline(graph, chip, "bf16").resource_s["compute"] / saved)
    assert found.effective_macs == found.macs / saved
    assert all(0 < op.mac_utilization <= 1 for op in found.ops if op.macs)


@pytest.mark.parametrize(("chip", "precision"), [("jetson-orin", "int8"), ("h100-sxm", "bf16"), ("systolic", "int8")])
def test_effective_macs_are_those_that_zeros_leave(chip, precision):
    """Whatever the unit is costed by: 2:4 weights leave half of 1,024 x 1,024 x 1,024."""
    graph = gemm(1024, 1024, 1024)
    _, weight = parts(graph)
    sparse = graph.with_(tensors={**graph.tensors, weight.id: replace(weight, density=0.5, pattern="2:4")})
    found = estimate(sparse, load_hardware(chip), precision=precision)
    assert (found.macs, found.effective_macs) == (2**30, 2**29)


@pytest.mark.parametrize(("precision", "saved"), [("bf16", 2), ("tf32", 2), ("fp32", 1)])
@pytest.mark.parametrize("gpu", ["h100-sxm", "h200-torch", "jetson-orin"])
def test_a_pattern_saves_nothing_beside_the_matrix_units(gpu, precision, saved):
    """A GPU multiplies fp32 on its CUDA cores, which know no 2:4."""
    graph, chip = gemm(8192, 8192, 8192, dtype="fp32"), load_hardware(gpu)
    _, weight = parts(graph)
    sparse = graph.with_(tensors={**graph.tensors, weight.id: replace(weight, density=0.5, pattern="2:4")})
    dense_s = roofline(graph, chip, precision, inputs="resident").latency_s
    assert roofline(sparse, chip, precision, inputs="resident").latency_s == pytest.approx(dense_s / saved)
    found = estimate(sparse, chip, precision=precision, calibration="none", inputs="resident")
    assert found.latency_s >= found.roofline_latency_s
    assert found.latency_s >= dense_s / saved
    tight = estimate(sparse, chip.set("DRAM.capacity", "1 MB"), precision=precision, calibration="none")
    assert tight.infeasible
    assert found.effective_macs == tight.effective_macs == found.macs / saved
