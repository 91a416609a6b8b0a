"""Sets of numbers as arrays in ascending order.

What NumPy's own `unique` and `isin` test beside it takes longer than the small arrays of a search, and loads what
knows masked arrays.
"""

from __future__ import annotations

import numpy as np


def ascending(values: np.ndarray) -> np.ndarray:
    """The different values of an array (n,) in order."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Whether values (n,) are some of the known ones, which ascend."""
    place = np.searchsorted(known, values)
    inside = np.flatnonzero(place < len(known))
    found = np.zeros(len(values), dtype=bool)
    found[inside] = known[place[inside]] == values[inside]
    return found


__all__ = ["among", "ascending"]
