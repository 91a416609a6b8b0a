"""Rooflines by hand, and the law that ties a network's to its ops'."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.cost.ceilings import primitive_s
from sim.cost.compulsory import touched_elements
from sim.cost.roofline import (
    Roofline,
    RooflinePoint,
    attainable_flop_per_s,
    network_bound_s,
    ridge_point_flop_per_byte,
    roofline,
)
from sim.errors import ConfigError, PrecisionError, ResultError
from sim.hardware.chip import Chip, Costing, Fanout, Rate
from sim.view.points import view_of
from sim.workload.graph import Axis, Einsum, EinsumOp, Graph, Operand, OperandRole, Primitive, Role, Tensor


def product_graph(m: int, n: int, k: int, *, output: Role = Role.OUTPUT) -> Graph:
    sides = {"x": (("M", "K"), OperandRole.INPUT, Role.INPUT), "w": (("K", "N"), OperandRole.WEIGHT, Role.WEIGHT),
             "y": (("M", "N"), OperandRole.OUTPUT, output)}  # fmt: skip
    ranks = {"M": m, "N": n, "K": k}
    tensors = {
        key: Tensor(id=key, shape=tuple(ranks[r] for r in axes), dtype="fp32", bits=32, role=role)
        for key, (axes, _, role) in sides.items()
    }
    operands = tuple(
        Operand(tensor=key, role=role, projection=tuple(Axis(terms=((r, 1),), size=ranks[r]) for r in axes))
        for key, (axes, role, _) in sides.items()
    )
    op = EinsumOp(
        name="mm", kind="aten.mm", inputs=("x", "w"), outputs=("y",), einsum=Einsum(ranks=ranks, operands=operands)
    )
    return Graph(ops=(op,), tensors=tensors, name="product")


def test_product_by_hand(toy_chip: Chip) -> None:
    """64 x 32 x 16 in int8: 32,768 MACs at 64 MAC/cycle and 1 GHz are 512 ns. Bytes: 1,024 in, 512
    weights, 2,048 out = 3,584, at 10 GB/s 358.4 ns. Compute binds; 65,536 FLOP over 3,584 bytes is
    18.29 FLOP/byte, beyond the ridge at 128e9 / 10e9 = 12.8."""
    found = roofline(product_graph(64, 32, 16), toy_chip)
    assert found.latency_s == pytest.approx(512e-9)
    assert found.bound == "compute"
    assert found.resource_s["memory:DRAM"] == pytest.approx(358.4e-9)
    assert found.compulsory_bytes == {"read": 1536, "write": 2048}
    assert found.ops[0].operational_intensity_flop_per_byte == pytest.approx(65536 / 3584)
    assert found.ridges_flop_per_byte["int8"]["DRAM"] == pytest.approx(12.8)


def test_an_epilogue_stands_under_no_roof_of_the_array() -> None:
    """The same product with 2,048 adds behind it: 67,584 operations, but 65,536 on an array of 128 GFLOP/s, which it
    fills for 512 ns, and no more than that is attainable. Without MACs the 2,048 are the lanes'."""
    base = {"name": "mm", "kind": "mm", "module": "", "home": "DRAM", "traffic_bytes": {"DRAM": 3584, "SRAM": 0}}
    point = RooflinePoint(**base, macs=32768, vector_ops=2048, resource_s={"compute": 512e-9, "vector": 32e-9})
    assert (point.flops, point.roof_flops) == (67584, 65536)
    assert point.attainable_flop_per_s == pytest.approx(128e9)
    assert (point.operational_intensity_flop_per_byte, point.intensity_over) == (pytest.approx(65536 / 3584), "DRAM")
    on_chip = {**base, "traffic_bytes": {"DRAM": 0, "SRAM": 1024}}
    adds = RooflinePoint(**on_chip, macs=0, vector_ops=2048, resource_s={"vector": 32e-9})
    assert adds.attainable_flop_per_s == pytest.approx(64e9)
    assert (adds.operational_intensity_flop_per_byte, adds.intensity_over) == (2, "SRAM")


def test_nothing_dense_is_attainable_above_the_peak() -> None:
    """Each layer of ResNet-18 with its fused epilogue, on H100 in bf16; points of the figure alike."""
    found = sim.estimate("resnet18", "h100-sxm", precision="bf16", calibration="none")
    bound = Roofline.from_dict(found.roofline)
    peak = next(c.rate for c in bound.ceilings if c.kind == "compute" and c.name == "bf16")
    products = [op for op in bound.ops if op.macs]
    assert any(op.vector_ops and op.bound == "compute" for op in products)
    assert all(op.attainable_flop_per_s <= peak * (1 + 1e-12) for op in products)
    assert max(point.y for point in view_of(bound).points if point.kind == "convolution") <= peak * (1 + 1e-12)


def test_bf16_doubles_the_bytes_and_halves_the_rate(toy_chip: Chip) -> None:
    found = roofline(product_graph(64, 32, 16), toy_chip, "bf16")
    assert found.latency_s == pytest.approx(1024e-9)
    assert found.compulsory_bytes == {"read": 3072, "write": 4096}


def test_an_activation_stays_on_chip_where_it_fits(toy_chip: Chip) -> None:
    """2,048 bytes of output fit the 1 MiB of SRAM; 1 MiB + 32 bytes do not, and go to DRAM."""
    small = roofline(product_graph(64, 32, 16, output=Role.ACTIVATION), toy_chip)
    assert small.ops[0].traffic_bytes == {"DRAM": 1536, "SRAM": 2048}
    large = roofline(product_graph(2**15 + 1, 32, 1, output=Role.ACTIVATION), toy_chip)
    assert large.ops[0].traffic_bytes == {"DRAM": 2**15 + 1 + 32 + 32 * (2**15 + 1)}


def test_what_feeds_the_array_passes_the_memory_on_chip(toy_chip: Chip) -> None:
    """1,024 + 512 bytes are read at 128 B/ns, 2,048 written by another port: 16 ns. At 2 B/ns it is 1,024 ns, twice
    what the array takes; what passes there is also the op's own. Of a
    GPU's or CPU's nothing is known."""
    graph = product_graph(64, 32, 16)
    assert roofline(graph, toy_chip).resource_s["memory:SRAM"] == pytest.approx(16e-9)
    unit = toy_chip.main_unit
    sram = replace(unit.memories[0], read=Rate(per_cycle=2.0), write=Rate(per_cycle=2.0))
    slow = replace(toy_chip, units=(replace(unit, hierarchy=(sram, unit.hierarchy[1])),))
    found = roofline(graph, slow)
    assert (found.bound, found.latency_s) == ("memory:SRAM", pytest.approx(1024e-9))
    assert found.ops[0].roofline_s == found.latency_s == network_bound_s(graph, [toy_chip, slow], "int8")[1]
    for costing in (Costing.CPU, Costing.GPU_KERNELS, Costing.ROOFLINE):
        other = replace(slow, units=(replace(slow.main_unit, costing=costing),))
        assert roofline(graph, other).bound == "compute"


def test_the_caches_of_a_cpu_hold_no_byte_twice(toy_chip: Chip) -> None:
    """Each product has 1 MiB of weights, 1 KiB of inputs and of outputs; the cache has 1 MiB. Alone a product finds all
    but 1 KiB of what it reads. Two of them read 2 MiB + 2 KiB, of which 1 MiB is there: each loads one half of
    1 MiB + 2 KiB, which is what its intensity is over."""
    cpu = replace(toy_chip, units=(replace(toy_chip.main_unit, costing=Costing.CPU),))
    kib, mib = 2**10, 2**20
    one = product_graph(1, kib, kib)
    alone = roofline(one, cpu)
    assert alone.ops[0].traffic_bytes == {"DRAM": 2 * kib, "SRAM": mib}
    assert alone.resource_s["memory:DRAM"] == pytest.approx(2 * kib / 10e9)
    other = next(op for op in one.ops if isinstance(op, EinsumOp))
    operands = tuple(replace(o, tensor=f"{o.tensor}2") for o in other.einsum.operands)
    other = replace(
        other, name="mm2", inputs=("x2", "w2"), outputs=("y2",), einsum=replace(other.einsum, operands=operands)
    )
    tensors = {**one.tensors, **{f"{key}2": replace(t, id=f"{key}2") for key, t in one.tensors.items()}}
    found = roofline(replace(one, ops=(*one.ops, other), tensors=tensors), cpu)
    assert found.resource_s["memory:DRAM"] == pytest.approx((mib + 4 * kib) / 10e9)
    for point in found.ops:
        assert point.traffic_bytes == {"DRAM": pytest.approx(mib / 2 + 2 * kib), "SRAM": pytest.approx(mib / 2)}
        assert point.roofline_s == pytest.approx(max((mib / 2 + 2 * kib) / 10e9, mib / 64e9))
        assert point.operational_intensity_flop_per_byte == pytest.approx(2 * mib / (mib / 2 + 2 * kib))


def test_cores_multiply_the_peak(toy_chip: Chip) -> None:
    unit = toy_chip.main_unit
    many = replace(unit, hierarchy=(unit.hierarchy[0], Fanout(name="core", count=4), unit.hierarchy[1]))
    chip = replace(toy_chip, units=(many,))
    assert roofline(product_graph(64, 32, 16), chip).resource_s["compute"] == pytest.approx(128e-9)


def test_fallback_of_a_primitive(toy_chip: Chip) -> None:
    """exp = 4 add + 2 compare, each 1 / (64 lanes x 1 GHz): 6 / 64e9 s."""
    vector = toy_chip.main_unit.vector
    assert primitive_s(vector, Primitive.EXP, clock_hz=1e9, chip="toy") == pytest.approx(6 / 64e9)
    with pytest.raises(ConfigError, match="no rate for tanh"):
        primitive_s(vector, Primitive.TANH, clock_hz=1e9, chip="toy")


def test_a_precision_without_a_rate(toy_chip: Chip) -> None:
    with pytest.raises(PrecisionError, match="no rate for fp16; it has int8, bf16"):
        roofline(product_graph(4, 4, 4), toy_chip, "fp16")


@given(
    out=st.integers(1, 6),
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 3),
    size=st.integers(1, 12),
)
def test_touched_elements_equal_counting(
    out: int, window: int, stride: int, dilation: int, padding: int, size: int
) -> None:
    """Distinct pixels of a convolution's row, counted one by one; padding and skipped pixels are none."""
    axis = Axis(terms=(("P", stride), ("R", dilation)), size=size, offset=-padding)
    operand = Operand(tensor="x", role=OperandRole.INPUT, projection=(axis,))
    einsum = Einsum(ranks={"P": out, "R": window}, operands=(operand,))
    counted = {stride * p + dilation * r - padding for p, r in product(range(out), range(window))}
    assert touched_elements(einsum, OperandRole.INPUT) == len({i for i in counted if 0 <= i < size})


sizes = st.tuples(st.integers(1, 400), st.integers(1, 400), st.integers(1, 400))


@given(st.lists(sizes, min_size=1, max_size=5))
def test_the_network_is_never_above_the_sum_of_its_ops(toy_chip: Chip, shapes: list[tuple[int, int, int]]) -> None:
    """Law: max over resources of sums <= sum of maxima, and it is at least each resource alone."""
    parts = [product_graph(*shape) for shape in shapes]
    tensors, ops = {}, []
    for i, part in enumerate(parts):
        op = part.ops[0]
        assert isinstance(op, EinsumOp)
        renamed = {key: f"{key}{i}" for key in part.tensors}
        tensors |= {renamed[key]: replace(t, id=renamed[key]) for key, t in part.tensors.items()}
        operands = tuple(replace(o, tensor=renamed[o.tensor]) for o in op.einsum.operands)
        einsum = Einsum(ranks=op.einsum.ranks, operands=operands)
        ops.append(replace(op, name=f"mm{i}", inputs=(f"x{i}", f"w{i}"), outputs=(f"y{i}",), einsum=einsum))
    found = roofline(Graph(ops=tuple(ops), tensors=tensors), toy_chip)
    assert found.latency_s <= sum(op.roofline_s for op in found.ops) * (1 + 1e-12)
    assert found.latency_s == max(found.resource_s.values())
    assert found.resource_s["compute"] == pytest.approx(sum(m * n * k for m, n, k in shapes) / 64e9)


def test_tied_weights_are_read_once_by_the_network(toy_chip: Chip) -> None:
    """Two ops share one weight of 512 bytes: the network reads it once, each op reads it."""
    base = product_graph(64, 32, 16)
    op = base.ops[0]
    graph = replace(base, ops=(op, replace(op, name="again")))
    found = roofline(graph, toy_chip)
    assert found.compulsory_bytes["read"] == 1536
    assert sum(point.traffic_bytes["DRAM"] for point in found.ops) == 2 * 3584


@given(st.floats(0, 1e4), st.floats(1, 1e15), st.floats(1, 1e13))
def test_attainable_is_the_lower_of_both_roofs(intensity: float, peak: float, bandwidth: float) -> None:
    found = attainable_flop_per_s(
        operational_intensity_flop_per_byte=intensity, peak_flop_per_s=peak, bandwidth_bytes_per_s=bandwidth
    )
    assert found == min(peak, intensity * bandwidth)
    ridge = ridge_point_flop_per_byte(peak_flop_per_s=peak, bandwidth_bytes_per_s=bandwidth)
    assert (found == peak) == (intensity * bandwidth >= peak)
    assert ridge * bandwidth == pytest.approx(peak)


def test_attainable_broadcasts_and_refuses_negative_intensity() -> None:
    found = attainable_flop_per_s(
        operational_intensity_flop_per_byte=np.array([[10.0], [1000.0]]),
        peak_flop_per_s=np.array([312e12, 1e12]),
        bandwidth_bytes_per_s=2e12,
    )
    np.testing.assert_allclose(found, [[2e13, 1e12], [312e12, 1e12]])
    with pytest.raises(ValueError, match="negative"):
        attainable_flop_per_s(operational_intensity_flop_per_byte=-1, peak_flop_per_s=1, bandwidth_bytes_per_s=1)


def test_round_trip(bottlenecks: Graph, toy_chip: Chip) -> None:
    found = roofline(bottlenecks, toy_chip)
    assert Roofline.from_dict(found.to_dict()) == found
    with pytest.raises(ResultError, match="schema"):
        Roofline.from_dict({"schema": "dovetail.roofline/9"})
    broken = found.to_dict()
    del broken["ceilings"]
    with pytest.raises(ResultError, match="ceilings"):
        Roofline.from_dict(broken)


def test_a_unit_by_roofline_writes_its_results():
    """A product of 64 x 32 x 16 in bf16 reads 64 x 16 + 16 x 32 elements and writes 64 x 32, wherever they lie."""
    found = sim.estimate(sim.gemm(64, 32, 16, dtype="bf16"), "jetson-orin", precision="bf16", inputs="resident")
    (op,) = found.ops
    moved = [one for table in op.traffic_bytes.values() for one in table.values()]
    assert sum(table.read for table in moved) == 2 * (64 * 16 + 16 * 32)
    assert sum(table.write for table in moved) == 2 * 64 * 32
