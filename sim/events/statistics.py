"""Confidence: t intervals over replications, exact bounds on a miss rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """mean +- half_width at `level`; half_width is None with one replication, which tells nothing of spread."""

    mean: float
    half_width: float | None
    level: float
    replications: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of the mean of independent replications: mean +- t_{n-1} s / sqrt(n)."""
    from scipy.special import stdtrit

    x = np.asarray(values, dtype=float)
    half = None
    if len(x) > 1:
        half = float(stdtrit(len(x) - 1, 0.5 + level / 2) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(mean=float(x.mean()), half_width=half, level=level, replications=len(x))


def rate_upper_bound(*, missed: int, jobs: int, level: float = 0.95) -> float:
    """One-sided Clopper-Pearson bound on a rate: the largest p not refuted by `missed` of `jobs`.

    Zero of 300 gives 0.00994, the "rule of three". Jobs of one run are not independent; the bound
    states what so many jobs could show at best.
    """
    from scipy.special import betaincinv

    return 1.0 if missed >= jobs else float(betaincinv(missed + 1, jobs - missed, level))
