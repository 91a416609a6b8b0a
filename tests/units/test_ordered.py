"""Sets as ascending arrays against NumPy's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.ordered import among, ascending

numbers = st.lists(st.integers(-5, 5), max_size=12).map(lambda some: np.array(some, dtype=np.int64))


@given(numbers)
def test_ascending_is_unique(values):
    assert np.array_equal(ascending(values), np.unique(values))


@given(numbers, numbers)
def test_among_is_isin(values, known):
    assert np.array_equal(among(values, np.unique(known)), np.isin(values, known))
