"""Blocks of large spaces: their bounds hold for all candidates inside, and what is left out was not the best."""

import random

import numpy as np
import pytest
from cases import conv, gemm, problem, random_machine

from sim.mapping import narrow
from sim.mapping.api import map_einsum
from sim.mapping.blocks import ROUNDED, blocks
from sim.mapping.problem import ROLES
from sim.mapping.race import Search
from sim.mapping.search import Pool, SingleBorder
from sim.mapping.terms import Numbers
from sim.mapping.winners import Objective


def space_of(seed, designs=1):
    """(space, room of each design) of a problem with some thousand candidates."""
    rng = random.Random(seed)
    while True:
        if rng.random() < 0.4:
            e = gemm(rng.randint(5, 40), rng.randint(5, 40), rng.randint(5, 40), rng.choice([1, 1, 4]))
        else:
            side, window = rng.randint(2, 7), rng.randint(1, 3)
            e = conv(
                n=rng.choice([1, 3]), k=rng.randint(2, 12), c=rng.randint(1, 12), p=side, q=side, r=window, s=window,
                g=rng.choice([1, 1, 3]), stride=rng.choice([1, 2]), dilation=rng.choice([1, 1, 2]),
            )  # fmt: skip
        m = random_machine(rng, memories=1, designs=designs)
        homes = dict.fromkeys(ROLES, 0)
        if rng.random() < 0.3 and m.levels[1].holds >= set(ROLES):
            homes[rng.choice(ROLES)] = 1
        space = SingleBorder(problem(e), m.awake(homes), homes)
        if 200 < space.candidates < 3000:
            return space, np.array([rng.choice([300.0, 1e3, 1e5]) for _ in range(designs)])


@pytest.mark.parametrize("seed", range(30))
def test_a_block_is_bounded_below_all_that_is_in_it(seed):
    space, _ = space_of(seed)
    m, pool = space.machine, Pool(space)
    times = pool.times(Numbers(m.rates, m.setup_cycles, m.latency_cycles))[0]
    found, counted = blocks(pool.bounds, 2 + seed % 2), 0
    bound = narrow.bounds(found, m)
    for i, number in enumerate(found.grid.tolist()):
        shape, start = space.grids[number][1].shape, int(pool.starts[number])
        inside = tuple(slice(a, b) for a, b in zip(found.first[:, i], found.end[:, i], strict=True))
        mine = start + np.arange(np.prod(shape)).reshape(shape)[inside].ravel()
        assert bound[i] <= times[mine].min() * (1 + ROUNDED)
        assert found.footprint[i] <= pool.footprint[mine].min() <= pool.footprint[mine].max() <= found.roof[i]
        assert set(found.positions(np.array([i]))[0].tolist()) == set(mine.tolist())
        counted += len(mine)
    assert counted == found.candidates.sum() == space.candidates


@pytest.mark.parametrize("seed", range(8))
def test_what_is_left_holds_the_best(seed, monkeypatch):
    monkeypatch.setattr(narrow, "LOOK", 30)
    monkeypatch.setattr(narrow, "LARGE", 200)
    space, room = space_of(100 + seed, designs=3)
    found, whole = narrow.search_narrowed(space, room), Search([space], Objective.LATENCY, [room]).run()[0]
    assert (found.row >= 0).tolist() == (whole.row >= 0).tolist()
    fits = np.flatnonzero(found.row >= 0)
    assert found.cost.time[found.row[fits]] == pytest.approx(whole.cost.time[whole.row[fits]], rel=1e-9)
    assert (found.proven_gap, found.candidates) == (0.0, whole.candidates)
    assert len(fits) == 3 or found.need_bytes == pytest.approx(whole.need_bytes)
    alone = [narrow.search_narrowed(part(space, d), room[d : d + 1]) for d in fits]
    assert [one.cost.time[0] for one in alone] == found.cost.time[found.row[fits]].tolist()


def part(space, d):
    return SingleBorder(space.problem, space.machine.take(np.array([d])), space.homes)


def test_winners_stand_beside_each_other():
    """Three designs asked at once, and one of them apart: the same costs and mappings, in the same order."""
    m = random_machine(random.Random(3), memories=1, designs=3)
    m.rates[:] *= np.array([1.0, 2.0, 0.5])[:, None]
    p = problem(gemm(13, 7, 11))
    homes = dict.fromkeys(ROLES, 0)
    mine = np.array([True, False, True])
    every = map_einsum(p, m, homes)
    both = map_einsum(p, m.take(mine), homes).beside(map_einsum(p, m.take(~mine), homes), mine)
    for d in range(3):
        assert both.cost.time[both.row[d]] == every.cost.time[every.row[d]]
        assert both.mappings[int(both.row[d])] == every.mappings[int(every.row[d])]
        assert both.first_bytes[both.row[d]].tolist() == every.first_bytes[every.row[d]].tolist()
