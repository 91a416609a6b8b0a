"""How far off a network's latency may be: residuals of device, op class and op, joint over the network.

log(measured / estimated) of op i of class c is d + g_c + e_i, three independent normal parts; the gaps between
ops have an error h of their own. A network's time is the sum of its ops', so to first order
log T = d + sqrt(H (1 - H)) h + sum_c W_c g_c + sum_i w_i e_i with w_i the op's share of the time, W_c the class's
and H that of the gaps: what ops share does not average out. Equal problems are one problem: their e_i is the same
number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, hypot, sqrt

COVERAGE = 0.9
Z90 = 1.6449
"""Two-sided 90 % quantile of the standard normal."""


def gap_weight(share: float) -> float:
    """How much the part of the gaps weighs where they take this share of the time: sqrt(share (1 - share)).

    Largest where gaps and short kernels are alike, as each then hides or lengthens the other; none for a network of
    gaps alone, whose calls are known, or of kernels alone. Example: 0.2: 0.4.
    """
    return sqrt(max(0.0, share * (1.0 - share)))


def log_deviation(
    times_s: Sequence[float],
    classes: Sequence[str],
    problems: Sequence[object],
    *,
    device: float,
    parts: Mapping[str, tuple[float, float]],
    gaps: float = 0.0,
) -> float:
    """Standard deviation of log(measured / estimated) of a network.

    Args:
        times_s, classes, problems: per op its time, its class, and what it computes (equal = the same error).
        device: standard deviation of the device's part; parts: class -> (class, op); gaps: of what the gaps
            between ops add, `gap_weight` included.
            A row may stand for several equal ops: their times add, as their errors do.
    Raises: KeyError: a class without residuals.
    Example: two equal times of one class, other problems, device 0, class 0, op 0.1: 0.1 / sqrt(2) = 0.0707.
    """
    total = sum(times_s)
    if total <= 0:
        return 0.0
    by_class: dict[str, float] = {}
    by_problem: dict[tuple[str, object], float] = {}
    for time, name, problem in zip(times_s, classes, problems, strict=True):
        by_class[name] = by_class.get(name, 0.0) + time / total
        by_problem[name, problem] = by_problem.get((name, problem), 0.0) + time / total
    shared = sum((share * parts[name][0]) ** 2 for name, share in by_class.items())
    own = sum((share * parts[name][1]) ** 2 for (name, _), share in by_problem.items())
    return hypot(device, gaps, sqrt(shared + own))


def interval_s(latency_s: float, deviation: float, score: float | None = None) -> tuple[float, float]:
    """(low, high) at 90 %: latency times exp(-+ score x deviation); `score` is conformal, or the normal's.

    Example: 1 s with deviation 0.1: exp(-0.16449) = 0.848 to exp(0.16449) = 1.179.
    """
    reach = deviation * (Z90 if score is None else score)
    return latency_s * exp(-reach), latency_s * exp(reach)
