"""Several borders, where a beam serves: more freedom is never slower, an objective is best by its own measure; and
instances of a memory or an array, of which one more never takes a way to share work away."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from cases import gemm, problem, random_machine
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sim
from sim.mapping.search import FEW, split_options
from sim.workload.graph import Graph

sizes = st.integers(2, 700)
BEYOND_SINGLE = 2**24 + 3
"""An extent that single precision rounds up."""
gemms = st.builds(lambda m, n, k: sim.gemm(m, n, k, dtype="int16"), sizes, sizes, sizes)
convs = st.builds(
    lambda c, k, size, window: sim.conv2d(c, k, size, window, padding=window // 2, dtype="int16"),
    st.integers(1, 64), st.integers(1, 96), st.integers(4, 40), st.sampled_from([1, 3]),
)  # fmt: skip
MEASURES = {
    "latency": lambda e: e.latency_s,
    "energy": lambda e: e.energy_j,
    "edp": lambda e: e.energy_j * e.latency_s,
}


def estimate(graph: Graph, capacity: str = "108 kB", **options):
    return sim.estimate(graph, sim.load_hardware("eyeriss", {"GLB.capacity": capacity}), inputs="resident", **options)


def test_extents_beyond_single_precision_are_cut_as_they_are() -> None:
    (op,) = estimate(sim.gemm(BEYOND_SINGLE, 3, 5, dtype="int16")).ops
    assert op.macs == BEYOND_SINGLE * 15
    assert op.mapping is not None
    assert max(loop["tile"] for loop in op.mapping["nodes"] if "tile" in loop) <= BEYOND_SINGLE


def test_what_fits_is_found_in_the_arrays_dataflow() -> None:
    found = estimate(sim.load_workload("conv2d"), map_space="fixed_dataflow")
    assert found.infeasible is None
    assert found.latency_s < 8e-3  # (6.3 ms where any order may win)


@settings(max_examples=6)
@given(st.one_of(gemms, convs), st.sampled_from(["60 kB", "108 kB", "145 kB"]))
@example(sim.gemm(704, 391, 37, dtype="int16"), "108 kB")
@example(sim.gemm(186, 639, 202, dtype="int16"), "145 kB")
def test_more_freedom_is_never_slower(graph: Graph, capacity: str) -> None:
    even, fixed = (estimate(graph, capacity, map_space=space) for space in ("even", "fixed_dataflow"))
    assert even.latency_s <= fixed.latency_s * (1 + 1e-12)


@settings(max_examples=6)
@given(st.one_of(gemms, convs), st.sampled_from(["60 kB", "108 kB", "145 kB"]))
@example(sim.gemm(186, 639, 202, dtype="int16"), "145 kB")
def test_each_objective_is_best_by_its_own_measure(graph: Graph, capacity: str) -> None:
    found = {name: estimate(graph, capacity, objective=name) for name in MEASURES}
    for name, of in MEASURES.items():
        near = 1.03 if name == "latency" else 1.01  # (energies choose after times, and look further)
        assert of(found[name]) <= near * min(of(one) for one in found.values()), name


@settings(max_examples=6)
@given(st.builds(lambda m, n, k: sim.gemm(m, n, k, dtype="bf16"), sizes, sizes, sizes))
@example(sim.gemm(423, 739, 544, dtype="bf16"))
def test_one_more_array_is_never_slower(graph: Graph) -> None:
    times = [
        sim.estimate(graph, sim.load_hardware("tpu-v5e", {"MXU.count": count}), inputs="resident").latency_s
        for count in range(1, FEW + 1)
    ]
    assert all(b <= a * (1 + 1e-9) for a, b in pairwise(times)), times


@pytest.mark.parametrize("sides", [(500, 500, 500), (7, 30, 2), (64, 1, 13)])
def test_one_more_instance_takes_no_way_away(sides: tuple[int, int, int]) -> None:
    """Up to twice `FEW` those of up to `FEW` are all there; beyond, each has one with no fewer parts of any rank."""
    base = random_machine(random.Random(0), memories=1, fanouts=False)
    p = problem(gemm(*sides))
    ways = [
        list(split_options(replace(base, array=replace(base.array, fanout=count)), p, len(base.levels)))
        for count in range(1, 70)
    ]
    for count, (one, more) in enumerate(pairwise(ways), 1):
        if count < FEW:
            assert all(way in more for way in one)
        if count != 2 * FEW:
            assert all(any(all(w.get(r, 1) >= n for r, n in way.items()) for w in more) for way in one), count


def test_several_processes_find_what_one_finds() -> None:
    chip, graph = sim.load_hardware("eyeriss"), sim.load_workload("mlp", batch=4)
    one, several = (sim.estimate(graph, chip, processes=processes) for processes in (1, 3))
    assert several.to_dict() == one.to_dict()
