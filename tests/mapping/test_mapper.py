"""The mapper against brute force over the same space: every integer tile, every order, every split."""

import gc
import random
import tracemalloc
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from cases import problem, random_einsum, random_machine

import sim
from sim.mapping.evaluate import Rows, evaluate_rows
from sim.mapping.machine import machine
from sim.mapping.mapper import map_problem
from sim.mapping.nest import footprint_bytes, nest
from sim.mapping.problem import INPUT, OUTPUT, ROLES, WEIGHT, Problem
from sim.mapping.search import Choice, Pool, SingleBorder
from sim.mapping.terms import Numbers
from sim.mapping.winners import Objective
from sim.workload.graph import EinsumOp


def splits(p, count, arrays=False):
    """Every way to spread one or two output ranks over at most `count` instances; over `arrays` reduced ones too."""
    yield {}
    for rank in p.tiled_ranks:
        for parts in range(2, count + 1):
            if rank not in p.reduction or arrays:
                yield {rank: parts}
    for one, two in permutations(p.tiled_ranks, 2):
        for a, b in product(range(2, count + 1), repeat=2):
            if a * b <= count and (arrays or p.reduction.isdisjoint((one, two))):
                yield {one: a, two: b}


def even_choices(p, m, space):
    """All even mappings of a machine with one memory: the definition of the space."""
    sizes = {r: int(p.einsum.ranks[r]) for r in p.ranks}
    for tiles in product(*[range(1, sizes[r] + 1) for r in p.tiled_ranks]):
        tile = dict(zip(p.tiled_ranks, tiles, strict=True))
        walked = [r for r in p.tiled_ranks if tile[r] < sizes[r]]
        inside = len(m.levels)
        ways = [(1, split) for split in (splits(p, m.levels[1].fanout) if space.route.stored else [{}])]
        ways += [(inside, split) for split in splits(p, m.array.fanout, arrays=True) if split]
        for level, split in ways:
            parts = tuple((rank, n, level) for rank, n in split.items())
            for order in permutations(walked):
                yield Choice(order, tuple(tile[r] for r in order), parts)


def cost_all(p, m, space, choices):
    """(time, energy, fits) of every choice, costed by the exact evaluator in batches of one order."""
    time, energy, fits = (np.zeros(len(choices)) for _ in range(3))
    for members, n in space.nests(choices):
        k = len(members)
        rows = Rows(
            nest=n,
            problem=p,
            machine=m,
            rates=np.repeat(m.rates[:1], k, 0),
            setup=np.repeat(m.setup_cycles[:1], k),
            latency=np.repeat(m.latency_cycles[:1], k),
        )
        cost = evaluate_rows(rows)
        used = footprint_bytes(n, p, m).get(1, {})
        time[members] = cost.time
        fits[members] = sum(used.values(), np.zeros(1)) <= m.capacity_bytes[0, 1]
        moved = cost.traffic.sum(axis=2)
        energy[members] = (
            (moved[..., 0] * m.read_energy_j_per_byte[0] + moved[..., 1] * m.write_energy_j_per_byte[0]).sum(1)
            + m.mac_energy_j[0] * p.macs
            + m.idle_j_per_cycle[0] * cost.time
        )
    return time, energy, fits.astype(bool)


def exact(p, m, mapping, homes):
    n = nest(mapping, p, m, homes)
    rows = Rows(nest=n, problem=p, machine=m, rates=m.rates[:1], setup=m.setup_cycles[:1], latency=m.latency_cycles[:1])
    used = footprint_bytes(n, p, m).get(1, {})
    fits = sum(float(np.max(b)) for b in used.values()) <= m.capacity_bytes[0, 1]
    return evaluate_rows(rows), fits


def small_case(seed):
    rng = random.Random(seed)
    while True:
        e = random_einsum(rng)
        if np.prod(list(e.ranks.values())) <= 160:
            break
    p = problem(e)
    m = random_machine(rng, memories=1, capacity=rng.choice([20.0, 60.0, 150.0, 1e6]))
    homes = dict.fromkeys(ROLES, 0)
    if rng.random() < 0.3:
        homes[rng.choice(ROLES)] = 1 if m.levels[1].holds >= set(ROLES) else 0
    return p, m, homes, rng.choice(list(Objective))


def check_against_brute_force(seed):
    """Compare one case; True if no optimal mapping has divisor tiles only, None if nothing fits."""
    p, m, homes, objective = small_case(seed)
    space = SingleBorder(p, m, homes)
    choices = list(even_choices(p, m, space))
    time, energy, fits = cost_all(p, m, space, choices)
    value = {"latency": time, "energy": energy, "edp": energy * time}[objective.value]
    value = np.where(fits, value, np.inf)
    best = value.min()
    won = map_problem(p, m, homes, objective=objective)
    context = f"seed {seed} {objective} {dict(p.einsum.ranks)} {m.levels} {m.array}"
    if np.isinf(best):
        assert won.row[0] == -1, context
        return None
    spent = won.energy_j[0] + m.idle_j_per_cycle[0] * won.cost.time[0]
    ours = {"latency": won.cost.time[0], "energy": spent, "edp": spent * won.cost.time[0]}[objective.value]
    assert ours == pytest.approx(best, rel=1e-9), (context, choices[int(value.argmin())], won.mappings[0].nodes)
    again, _ = exact(p, m, won.mappings[0], homes)
    assert again.time[0] == pytest.approx(won.cost.time[0], rel=1e-12), context
    winners = [choices[i] for i in np.flatnonzero(value <= best * (1 + 1e-12))]
    return all(any(p.einsum.ranks[r] % t for r, t in zip(c.order, c.tiles, strict=True)) for c in winners)


def test_equals_brute_force():
    """Law 7 for one memory: latency, energy and EDP, capacity limits, fan-outs, homes on chip."""
    ragged = [check_against_brute_force(seed) for seed in range(48)]
    assert sum(r is True for r in ragged) >= 2  # a mapper that knows divisors only would fail here


@pytest.mark.parametrize("seed", range(60))
def test_bound_never_exceeds_the_exact_time(seed):
    """The search may stop at the bound because of this."""
    p, m, homes, _ = small_case(1000 + seed)
    space = SingleBorder(p, m, homes)
    pool = Pool(space)
    bounds = pool.times(Numbers(m.rates, m.setup_cycles, m.latency_cycles))[0]
    rng = random.Random(seed)
    for position in rng.sample(range(len(pool)), min(40, len(pool))):
        if np.isinf(bounds[position]):
            continue  # no loop of this class is left: the same tiling stands under another class
        for choice in pool.choices(position):
            cost, _ = exact(p, m, space.mapping(choice), homes)
            assert bounds[position] <= cost.time[0] * (1 + 1e-9), (choice, bounds[position], cost.time[0])


@pytest.mark.parametrize("groups", [2, 8])
def test_groups_of_a_convolution_are_cut_like_any_rank(groups):
    """Channels of a traced grouped convolution lie on one axis (group x size + channel). They are tiled as in the
    same convolution with an axis for each: one group at a time fits where the whole tensors do not."""
    graph = sim.conv2d(8, 8, 7, 7, padding=3, groups=groups)
    (op,) = [o for o in graph.ops if isinstance(o, EinsumOp)]
    traced = problem(op.einsum)
    assert {"G"} <= set(traced.tiled_ranks)
    assert not {"R", "S"} & set(traced.tiled_ranks)
    rng = random.Random(0)
    whole = {r: np.asarray(n) for r, n in op.einsum.ranks.items()}
    for _ in range(20):
        tile = {r: np.asarray(rng.randint(1, int(n))) for r, n in whole.items()}
        inputs = tile["G"] * tile.get("C", 1) * np.prod([np.minimum(tile[a] + tile[b] - 1, 7) for a, b in ("PR", "QS")])
        assert traced.elements(INPUT, tile) == inputs
        assert traced.elements(WEIGHT, tile) == np.prod([tile[r] for r in "GKCRS" if r in tile])
        assert traced.elements(OUTPUT, tile) == np.prod([tile[r] for r in "GKPQ" if r in tile])


def test_a_depthwise_layer_larger_than_the_buffer_fits_by_groups():
    """768 channels of 7 x 7 with windows of 7 x 7: input and weights are 37,632 bytes each, of which two copies
    would need 150,528; nvdla-small has a buffer of 131,072."""
    found = sim.estimate(sim.conv2d(768, 768, 7, 7, padding=3, groups=768), sim.load_hardware("nvdla-small"))
    assert found.infeasible is None
    assert found.latency_s >= found.roofline_latency_s


def test_winners_hold_no_candidates():
    """300,000 candidates take ten megabytes while they are searched; what is left of them is the best."""
    graph = sim.gemm(64, 200, 200, dtype="bf16")
    (op,) = graph.ops
    dojo = machine([sim.load_hardware("tesla-dojo-d1")], "bf16")
    gc.disable()
    try:
        tracemalloc.start()
        won = map_problem(problem(op.einsum), dojo, dict.fromkeys(ROLES, 0))
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    finally:
        gc.enable()
    assert won.candidates > 100_000
    assert held < 1e6 < peak / 5


def test_arrays_that_share_a_slow_port_are_bounded_by_it():
    """Two arrays fed by one port of 64 B/cycle: a 3 x 3 convolution of 256 channels on 30 x 30 pixels takes, on 64 x 64
    weight-stationary arrays, its input once per column fold, 900 x 2304 x 4 bytes however the arrays share the work
    (at most two of the four folds at a time), and the search ends with a proof."""
    one = machine([sim.load_hardware("systolic", {"SRAM.bandwidth": "64 B/cycle"})], "int8")
    m = replace(one, array=replace(one.array, fanout=2, fanout_name="core"))
    einsum = next(o.einsum for o in sim.conv2d(256, 256, 30, 3, padding=1).ops if isinstance(o, EinsumOp))
    p = Problem(einsum=einsum, bits=dict.fromkeys(ROLES, 8.0), accumulate_bits=32)
    found = map_problem(p, m, dict.fromkeys(ROLES, 0))
    bound = Pool(SingleBorder(p, m, dict.fromkeys(ROLES, 0))).times(Numbers(m.rates, m.setup_cycles, m.latency_cycles))
    assert bound.min() >= 900 * 2304 * 4 / 64
    assert bound.min() <= found.cost.time[0] <= bound.min() * 1.05
    assert found.proven_gap <= 1e-3
