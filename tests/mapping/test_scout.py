"""Leaving out blocks of candidates changes no answer."""

import numpy as np
import pytest
from test_narrow import part, space_of

import sim
from sim.mapping import narrow, race, scout
from sim.mapping.race import Search
from sim.mapping.winners import Objective

WHOLE = scout.wanted


def found(space, room, objective):
    """(value, mapping) of each design."""
    won = Search([space], objective, [room]).run()[0]
    values = won.values(objective, space.machine.idle_j_per_cycle)
    return [(value, won.mappings[row] if row >= 0 else None) for value, row in zip(values, won.row, strict=True)]


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("seed", range(1, 8))
def test_what_is_looked_at_holds_the_best(seed, objective, monkeypatch):
    space, room = space_of(200 + seed, designs=4)
    rates = space.machine.rates
    rates *= np.array([1.0, 2.0, 7.0, 0.3])[:, None]
    every = found(space, room, objective)
    monkeypatch.setattr(scout, "FEW", 0)
    assert found(space, room, objective) == every


def test_most_candidates_of_a_layer_are_left_out(monkeypatch):
    looked = []
    monkeypatch.setattr(race, "wanted", lambda *a: looked.append((len(scout.wanted(*a)), len(a[0].pool))) or WHOLE(*a))
    sim.estimate(sim.conv2d(256, 256, 14, 3), "systolic")
    assert looked
    assert all(some < 0.2 * every for some, every in looked if every > scout.FEW)


@pytest.mark.parametrize("seed", range(6))
def test_designs_of_large_spaces_do_not_change_what_others_find(seed, monkeypatch):
    monkeypatch.setattr(scout, "FEW", 0)
    monkeypatch.setattr(race, "EXACT_BELOW", 0)
    space, room = space_of(300 + seed, designs=4)
    space.machine.rates[:] *= np.array([1.0, 1.6, 4.0, 0.3])[:, None]
    alone = [found(part(space, d), room[d : d + 1], Objective.LATENCY)[0] for d in range(4)]
    assert found(space, room, Objective.LATENCY) == alone


@pytest.mark.parametrize("objective", list(Objective))
def test_rooms_that_no_block_fits_whole(objective, monkeypatch):
    """64 bytes hold tiles of a few elements, less than any block; 1 byte holds none."""
    monkeypatch.setattr(scout, "FEW", 0)
    space, _ = space_of(203, designs=3)
    room = np.array([1.0, 64.0, 1e5])
    looked = Search([space], objective, [room]).run()[0]
    monkeypatch.setattr(scout, "FEW", 10**9)
    every = Search([space], objective, [room]).run()[0]
    assert looked.row.tolist() == every.row.tolist()
    idle = space.machine.idle_j_per_cycle
    assert looked.values(objective, idle).tolist() == every.values(objective, idle).tolist()
    assert looked.row[0] < 0 < looked.need_bytes


def test_an_array_with_next_to_no_memory_is_costed_in_every_objective():
    graph = sim.gemm(512, 512, 512, dtype="int8")
    for objective in Objective:
        found = sim.estimate(
            graph, sim.load_hardware("systolic", {"SRAM.capacity": "100 B"}), objective=objective.value
        )
        assert found.infeasible is None


def test_what_does_not_fit_says_what_it_needs():
    """Beside a design that it fits, too: its least tile, not nothing."""
    space, _ = space_of(203, designs=2)
    room = np.array([1.0, 1e5])
    need = Search([space], Objective.LATENCY, [room]).run()[0].need_bytes
    assert narrow.search_narrowed(space, room).need_bytes == need > 0
