"""Lines that reach DRAM: the miss ratio against its equation, small walks by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.waiting import Cache, TileLoops, alias_factor, fetched_lines, miss_ratio


@given(st.floats(1.01, 50))
def test_miss_ratio_solves_its_equation(pressure):
    """1 - m = exp(-m x) with 0 < m <= 1 (in floats)."""
    m = float(miss_ratio(pressure))
    assert 0 < m <= 1
    assert 1 - m == pytest.approx(np.exp(-m * pressure), abs=1e-9)


def test_miss_ratio_against_a_simulated_cache():
    """A cyclic scan of 600 lines over a fully associative cache of 400 with random replacement."""
    rng, lines, ways = np.random.default_rng(1), 600, 400
    slots, where, misses, total = np.full(ways, -1), {}, 0, 0
    for round_ in range(60):
        for line in range(lines):
            if line in where:
                total += round_ >= 20
                continue
            victim = int(rng.integers(ways))
            where.pop(int(slots[victim]), None)
            slots[victim], where[line] = line, victim
            misses += round_ >= 20
            total += round_ >= 20
    assert misses / total == pytest.approx(float(miss_ratio(lines / ways)), abs=0.01)


def test_no_misses_where_it_fits():
    assert miss_ratio([0.0, 0.5, 1.0]).tolist() == [0, 0, 0]


def test_alias_by_hand():
    """1024-byte rows, one line each: one set in 16. 768-byte rows: 12 lines, one in 4. 100-byte rows: no pattern."""
    assert [alias_factor(1024, 16, 64), alias_factor(768, 16, 64), alias_factor(100, 16, 64)] == [16, 4, 1]
    assert alias_factor(1024, 1024, 64) == 1


def _loops(**changes) -> TileLoops:
    sizes = {"C": 64, "K": 128, "P": 8, "Q": 8, "R": 1, "S": 1}
    return TileLoops(**({"sizes": sizes, "tiles": sizes | {"K": 64}, "order": ("K",)} | changes))


def test_walk_by_hand_when_everything_fits():
    """64 pixels of one line; weights: 2 tiles of 64 lines. The input stays over K. Warm, nothing is fetched."""
    big = Cache(capacity_bytes=2**20, line_bytes=64)
    assert fetched_lines(_loops(), big, warm=False) == (64, 128)
    assert fetched_lines(_loops(), big, warm=True) == (0, 0)


def test_walk_by_hand_when_nothing_fits():
    """In a cache of one line the second K tile fetches nearly the whole input again."""
    tiny = Cache(capacity_bytes=64, line_bytes=64)
    inputs, weights = fetched_lines(_loops(), tiny, warm=False)
    assert inputs == pytest.approx(128, rel=1e-6)
    assert weights == 128


def test_narrow_slices_share_lines_only_while_they_stay():
    """K in slices of 16 bytes: 4 slices share a line, 8 tiles of K need 2 lines a row if those stay, else 8."""
    loops = _loops(tiles={"C": 64, "K": 16, "P": 8, "Q": 8, "R": 1, "S": 1})
    big, tiny = Cache(capacity_bytes=2**20, line_bytes=64), Cache(capacity_bytes=64, line_bytes=64)
    assert fetched_lines(loops, big, warm=False)[1] == 2 * 64
    assert fetched_lines(loops, tiny, warm=False)[1] == pytest.approx(8 * 64, rel=1e-6)
