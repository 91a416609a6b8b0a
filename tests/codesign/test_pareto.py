"""Pareto sets and hypervolumes against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.codesign.pareto import hypervolume, nadir, non_dominated, spread

grids = st.integers(2, 4).flatmap(
    lambda m: st.lists(st.lists(st.integers(0, 4), min_size=m, max_size=m), min_size=1, max_size=12)
)


@given(grids)
def test_non_dominated_is_brute_force(rows: list[list[int]]) -> None:
    expected = [
        not any(all(a <= b for a, b in zip(other, row, strict=True)) and other != row for other in rows) for row in rows
    ]
    assert non_dominated(np.array(rows)).tolist() == expected


@given(grids)
def test_hypervolume_counts_unit_cells(rows: list[list[int]]) -> None:
    """Integer points under (5, ..., 5): the volume is the number of unit cells above some point."""
    m = len(rows[0])
    cells = sum(any(all(r <= c for r, c in zip(row, cell, strict=True)) for row in rows)
                for cell in product(range(5), repeat=m))  # fmt: skip
    assert hypervolume(np.array(rows, dtype=float), np.full(m, 5.0)) == pytest.approx(cells)


def test_many_rows_across_blocks() -> None:
    """1000 rows on x + y = 1 dominate nothing of each other, and all of the same rows moved by one."""
    x = np.linspace(0, 1, 1000)
    front = np.stack([x, 1 - x], axis=1)
    kept = non_dominated(np.concatenate([front + 1, front]))
    assert kept.tolist() == [False] * 1000 + [True] * 1000


def test_ties_nan_and_outside() -> None:
    rows = np.array([[1.0, 2.0], [1.0, 2.0], [np.nan, 0.0], [2.0, 2.0]])
    assert non_dominated(rows).tolist() == [True, True, False, False]
    assert hypervolume(np.array([[6.0, 1.0]]), np.array([5.0, 5.0])) == 0.0
    assert hypervolume(np.array([[1.0, 1.0]]), np.array([3.0, 3.0])) == 4.0


def test_spread_keeps_extremes() -> None:
    """Five points on a line, the middle one lonely: the ends stay, then the widest gap's point."""
    rows = np.array([[0.0, 10.0], [1.0, 9.0], [5.0, 5.0], [9.0, 1.0], [10.0, 0.0]])
    assert spread(rows, 3).tolist() == [0, 2, 4]
    assert spread(rows, 9).tolist() == [0, 1, 2, 3, 4]


def test_nadir_is_worst_plus_margin() -> None:
    assert nadir(np.array([[0.0, 2.0], [10.0, 2.0]])).tolist() == [11.0, 2.1]
