"""What each parameter of a search explains: the joint fit of additive effects, its gain shared out among them.

Rows of a search are no designed experiment: where the search chose large arrays it may also have chosen fast memories.
The variance that one parameter's group means explain alone then counts the same variance twice. Here all parameters
are fitted together, and a parameter's share is the mean over orders of what R^2 gains when it joins those before
it [1]: never negative, in sum the joint R^2, which is at most 1. What two parameters explain alike is split between
them. (The drop in R^2 without a parameter can add up to more than 1, and is 0 for both of two that always agree.
Optuna's evaluators fit trees to the trials and marginalise over designs that no trial resembles.)

References: [1] Lindeman, Merenda, Gold, Introduction to Bivariate and Multivariate Analysis, 1980, p. 119 ff.;
Groemping, The American Statistician 61(2), 2007, doi:10.1198/000313007X188252.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import factorial

import numpy as np

ORDERS = 200
"""Orders drawn where there are more; each sums to the joint R^2, so the shares do too."""
NOTHING = 1e-9
"""A column whose rest is smaller than this share of it follows from those before it."""


def levels(groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Parameter -> how many values it takes in the rows; each beyond the first is a fitted effect."""
    return {name: len(set(column)) for name, column in groups.items()}


def shares(groups: Mapping[str, Sequence[str]], values: np.ndarray, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameter -> (objectives,) share of the variance of each column of `values`, (rows, objectives).

    Example: y = 0, 1, 1, 2 over a = 0, 0, 1, 1 and b = 0, 1, 0, 1 -> 0.5 each.
    """
    values = np.asarray(values, dtype=float)
    found = {name: np.zeros(values.shape[1]) for name in groups}
    moving = [name for name, count in levels(groups).items() if count > 1]
    if not moving:
        return found
    centred = values - values.mean(axis=0)
    total = (centred**2).sum(axis=0)
    known = total > NOTHING**2 * np.maximum((values**2).sum(axis=0), NOTHING)
    codes = [_codes(groups[name]) for name in moving]
    # the triangle has the same inner products in fewer rows
    triangle = np.linalg.qr(np.hstack([*codes, centred]), mode="r")
    *parts, centred = np.split(triangle, np.cumsum([block.shape[1] for block in codes]), axis=1)
    blocks = dict(zip(moving, parts, strict=True))
    if factorial(len(moving)) <= ORDERS:
        orders = list(permutations(moving))
    else:
        rng = np.random.default_rng(seed)
        orders = [tuple(moving[i] for i in rng.permutation(len(moving))) for _ in range(ORDERS)]
    for order in orders:
        for name, gain in zip(order, _gains([blocks[name] for name in order], centred), strict=True):
            found[name] += np.where(known, gain / np.where(known, total, 1.0), 0.0) / len(orders)
    return found


def _codes(column: Sequence[str]) -> np.ndarray:
    """(rows, levels - 1) centred indicator columns."""
    names, index = np.unique(column, return_inverse=True)
    codes = np.eye(len(names))[index][:, 1:]
    return np.asarray(codes - codes.mean(axis=0))


def _gains(blocks: Sequence[np.ndarray], values: np.ndarray) -> list[np.ndarray]:
    """Sum of squares that each block explains beyond those before it, (objectives,): Gram-Schmidt, dependent columns
    left out."""
    basis = np.empty((len(values), 0))
    gains = []
    for block in blocks:
        before = basis.shape[1]
        for column in block.T:
            rest = column
            for _ in range(2):  # the second round removes what rounding left
                rest = rest - basis @ (basis.T @ rest)
            size = float(np.linalg.norm(rest))
            if size > NOTHING * float(np.linalg.norm(column)):
                basis = np.column_stack([basis, rest / size])
        gains.append(((basis[:, before:].T @ values) ** 2).sum(axis=0))
    return gains
