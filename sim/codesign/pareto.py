"""Pareto sets and hypervolumes; every objective is minimised."""

from __future__ import annotations

import numpy as np

BLOCK = 256
"""Rows compared at once: 256 x n x m booleans stay in the cache for the n of a study."""


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Mask of the rows that no other row dominates; equal rows are all kept. NaN rows are never kept.

    Args: values (n, m). A row dominates another when it is nowhere larger and somewhere smaller.
    """
    values = np.asarray(values, dtype=float)
    usable = np.flatnonzero(~np.isnan(values).any(axis=1))
    order = usable[np.lexsort(values[usable].T[::-1])]
    kept = np.zeros(len(values), dtype=bool)
    front = np.empty((0, values.shape[1]))
    for start in range(0, len(order), BLOCK):
        rows = order[start : start + BLOCK]
        block = values[rows]
        # in lexicographic order a row is dominated only by rows before it (or in its own block)
        alive = ~dominated_by(block, front) & ~dominated_by(block, block)
        kept[rows[alive]] = True
        front = np.concatenate([front, block[alive]])
    return kept


def dominated_by(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mask (n,) of the rows of `values` (n, m) that some row of `others` (k, m) dominates."""
    values, others = np.asarray(values, dtype=float), np.asarray(others, dtype=float)
    result = np.zeros(len(values), dtype=bool)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        no_worse = np.ones((len(block), len(others)), dtype=bool)
        better = np.zeros_like(no_worse)
        for k in range(values.shape[1]):  # one objective at a time: reducing along a short last axis is slow
            no_worse &= others[:, k] <= block[:, k, None]
            better |= others[:, k] < block[:, k, None]
        result[start : start + BLOCK] = np.any(no_worse & better, axis=1)
    return result


def hypervolume(values: np.ndarray, reference: np.ndarray) -> float:
    """Volume that the rows dominate below `reference` (m,), exact: slices along the last objective.

    Time grows as n^(m-1): meant for fronts of hundreds of rows and up to four objectives.
    Example: the one point (1, 1) under (3, 3) covers 4.
    """
    values, reference = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    inside = values[(values < reference).all(axis=1)] if len(values) else values
    if not len(inside):
        return 0.0
    return _volume(np.unique(inside[non_dominated(inside)], axis=0), reference)


def _volume(front: np.ndarray, reference: np.ndarray) -> float:
    if front.shape[1] == 1:
        return float(reference[0] - front[:, 0].min())
    if front.shape[1] == 2:
        ordered = front[np.lexsort(front.T[::-1])]
        lowest = np.minimum.accumulate(ordered[:, 1])
        right = np.append(ordered[1:, 0], reference[0])
        return float(np.sum((right - ordered[:, 0]) * (reference[1] - lowest)))
    ordered = front[np.argsort(front[:, -1], kind="stable")]
    heights = np.append(ordered[1:, -1], reference[-1]) - ordered[:, -1]
    total = 0.0
    for i, height in enumerate(heights):
        if height > 0:
            base = ordered[: i + 1, :-1]
            total += float(height) * _volume(base[non_dominated(base)], reference[:-1])
    return total


def spread(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` rows that represent a front: the extremes, then the loneliest.

    Crowding distance of Deb et al., IEEE Trans. Evol. Comput. 6(2), 2002, section III-B.
    """
    values = np.asarray(values, dtype=float)
    if len(values) <= count:
        return np.arange(len(values))
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        width = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if width > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / width
    return np.sort(np.argsort(-distance, kind="stable")[:count])


def nadir(fronts: np.ndarray, *, margin: float = 0.1) -> np.ndarray:
    """A reference point (m,): the worst of every objective, moved out by `margin` of the range (or 1)."""
    fronts = np.asarray(fronts, dtype=float)
    low, high = fronts.min(axis=0), fronts.max(axis=0)
    return high + margin * np.where(high > low, high - low, 1.0)
