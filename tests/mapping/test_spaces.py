"""The named map spaces against brute force, and worked examples of `uneven` and `fixed_dataflow`."""

import random

import numpy as np
import pytest
from cases import gemm, problem, random_einsum, random_machine
from exhaustive import best, case, check, cost, fits, mappings
from interpreter import Interpreter

import sim
from sim.mapping.api import map_einsum
from sim.mapping.machine import ArrayShape, Level, Machine
from sim.mapping.nested import map_nested
from sim.mapping.problem import ROLES, Problem
from sim.mapping.search import SingleBorder
from sim.mapping.terms import Numbers
from sim.mapping.uneven_bound import UnevenBound
from sim.mapping.winners import Objective

HOME = dict.fromkeys(ROLES, 0)


def one_buffer(capacity_bytes, *, rows=16, dataflow="output_stationary"):
    """DRAM at 1 byte a cycle, a single-buffered SRAM whose ports never wait, 1 J a byte of DRAM."""
    return Machine(
        levels=(
            Level(name="DRAM", holds=frozenset(ROLES), double_buffered=True, read_port=0, write_port=0),
            Level(name="SRAM", holds=frozenset(ROLES), double_buffered=False, read_port=1, write_port=1),
        ),
        ports=("DRAM", "SRAM"),
        array=ArrayShape(
            rows=rows, cols=rows, dataflow=dataflow, skew="none", folds="serial", preload="hidden",
            macs_per_cell=1, accumulate_bits=8, drain_bytes_per_cycle=None,
        ),
        rates=np.array([[1.0, 1e9]]),
        capacity_bytes=np.array([[1e12, capacity_bytes]]),
        clock_hz=np.array([1e9]),
        latency_cycles=np.zeros(1),
        setup_cycles=np.zeros(1),
        read_energy_j_per_byte=np.array([[1.0, 0.0]]),
        write_energy_j_per_byte=np.array([[1.0, 0.0]]),
        mac_energy_j=np.zeros(1),
        idle_j_per_cycle=np.zeros(1),
    )  # fmt: skip


def test_resident_weights():
    """GEMM 64 x 32 x 64 with one-byte words and a buffer of 2,120 words.

    Operands: 64 x 64 inputs (4,096), 64 x 32 weights (2,048), 64 x 32 outputs (2,048). Uneven: the
    weights stay (2,048), a row of outputs (32) and 40 inputs fit beside them, 2,120 words; each word
    moves once, 8,192. Even: one tile m x n x k with mk + kn + mn <= 2,120; whole weights leave 72
    words, which no row of inputs and outputs (96) fits, so some operand moves twice: at best the
    inputs and outputs are once there and the weights twice, 4,096 + 2,048 + 4,096 = 10,240.
    """
    p = Problem(einsum=gemm(64, 32, 64), bits=dict.fromkeys(ROLES, 8.0), accumulate_bits=8)
    m = one_buffer(2120)
    even = map_einsum(p, m, HOME, objective=Objective.ENERGY)
    assert even.cost.traffic[0, 0].sum() == 10_240
    assert map_einsum(p, m, HOME, objective=Objective.ENERGY, space="uneven").cost.traffic[0, 0].sum() == 8_192
    uneven = map_einsum(p, m, HOME, space="uneven")  # the fastest moves no more
    assert fits(p, m, uneven.mappings[0])
    walked = Interpreter(p, m, uneven.mappings[0], HOME)
    books = walked.run()
    assert walked.traffic[0].sum() == 8_192
    assert uneven.cost.time[0] == pytest.approx(books.time)


@pytest.mark.parametrize("block", range(6))
def test_uneven_through_the_interpreter(block):
    """The optimum of brute force whose costs come from walking the loops, one memory, small problems."""
    for seed in range(block * 2, block * 2 + 2):
        rng = random.Random(7000 + seed)
        while True:
            p, m, homes, _ = case(rng, 1, 12)
            found = [x for x in mappings(p, m, homes, "uneven") if fits(p, m, x)]
            if 0 < len(found) < 250:
                break
        times = [Interpreter(p, m, mapping, homes).run().time for mapping in found]
        won = map_einsum(p, m, homes, space="uneven")
        assert won.cost.time[0] == pytest.approx(min(times)), f"seed {seed}"


@pytest.mark.parametrize(
    ("space", "memories", "cases", "largest"),
    [
        ("even", 1, 12, 200), ("even", 2, 6, 24), ("even", 3, 6, 7), ("uneven", 1, 10, 40), ("uneven", 2, 3, 5),
        ("fixed_dataflow", 1, 12, 200), ("fixed_dataflow", 2, 6, 24),
    ],
)  # fmt: skip
def test_equals_brute_force(space, memories, cases, largest):
    """Law 7 for every named space and one to three memories on chip; `benchmarks/mapper_exactness.py`
    runs hundreds."""
    ratios = {s: check(500_000 + s, space, memories, largest, most=4000)[0] for s in range(cases)}
    assert all(r == pytest.approx(1, rel=1e-9) for r in ratios.values()), ratios


def test_a_listed_search_is_never_worse_than_even():
    """Beyond enumeration `uneven` contains `even` by construction; capacity makes it better somewhere."""
    p = problem(gemm(48, 40, 56))
    gains = []
    for capacity in (700, 2_600, 5_000):
        m = one_buffer(capacity)
        even, uneven = map_einsum(p, m, HOME), map_einsum(p, m, HOME, space="uneven")
        gains.append(even.cost.time[0] / uneven.cost.time[0])
    assert min(gains) >= 1
    assert max(gains) > 1


def test_the_uneven_bound_never_exceeds_the_exact_time():
    """Every mapping that a candidate stands for takes at least its bound."""
    for seed in range(20):
        rng = random.Random(seed)
        p = problem(random_einsum(rng))
        m = random_machine(rng, memories=1)
        space = SingleBorder(p, m, HOME)
        if not space.route.stored:
            continue
        bound = UnevenBound(space, Numbers(m.rates, m.setup_cycles, m.latency_cycles), np.inf)
        for candidate in rng.sample(bound.best(np.inf, 400), 5):
            for choice in list(bound.choices(candidate, all_places=True))[:4]:
                exact = cost(p, m, HOME, [space.mapping(choice)], "latency")[0]
                assert candidate.value <= exact * (1 + 1e-9), (seed, candidate, choice)


def test_fixed_dataflow_keeps_its_class_innermost():
    """Weight stationary: no loop of another class stands inside a loop over M; the optimum of the
    restricted space is never better than the free one, and here it is worse."""
    p = problem(gemm(12, 12, 12))
    ratios = []
    for dataflow, fixed in (("output_stationary", "K"), ("weight_stationary", "M"), ("input_stationary", "N")):
        m = one_buffer(150, rows=4, dataflow=dataflow)
        free, won = map_einsum(p, m, HOME), map_einsum(p, m, HOME, space="fixed_dataflow")
        walked = [node.rank for node in won.mappings[0].nodes if hasattr(node, "rank")]
        assert fixed not in walked or walked[-1] == fixed
        least, _, _ = best(p, m, HOME, "fixed_dataflow", "latency", 60_000)
        assert won.cost.time[0] == pytest.approx(least)
        ratios.append(won.cost.time[0] / free.cost.time[0])
    assert min(ratios) >= 1
    assert max(ratios) > 1


def test_the_beam_finds_the_optimum_of_small_problems():
    """Two memories on chip, all mappings costed against the beam that larger problems get: within 5 %."""
    for seed in range(4):
        rng = random.Random(seed)
        p = problem(gemm(*(rng.randint(2, 4) for _ in range(3))))
        m = random_machine(rng, memories=2, fanouts=False)
        m.capacity_bytes[:, 1:] = 1.5 * sum(p.size_bytes(r) for r in ROLES)
        every = map_nested(p, m, HOME, all_below=10**9, most=None).cost.time[0]
        beam = map_nested(p, m, HOME, all_below=0).cost.time[0]
        assert every <= beam * (1 + 1e-9)
        assert beam <= 1.05 * every, seed


@pytest.mark.parametrize(
    ("workload", "name"), [("resnet18", "systolic"), ("mobilenet_v2", "systolic"), ("digits_cnn", "tpu-v1")]
)
def test_uneven_is_never_slower_than_even(workload, name):
    """Its space holds the even mappings; nor is a network, in which an op that is faster alone may hide less."""
    graph, chip = sim.load_workload(workload), sim.load_hardware(name)
    even, uneven = (sim.estimate(graph, chip, map_space=space, calibration="none") for space in ("even", "uneven"))
    assert uneven.latency_s <= even.latency_s
