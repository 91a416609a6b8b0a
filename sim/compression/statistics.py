"""Paired comparisons over seeds and test examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean difference with a bootstrap confidence interval, in the metric's unit."""

    mean: float
    low: float
    high: float
    confidence: float
    seeds: int
    examples: int


def paired_bootstrap(
    differences: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of the mean of paired differences [seeds, examples].

    Seeds and examples are crossed, not nested (all seeds see the same test set), so each
    resample draws both with replacement (Owen, The pigeonhole bootstrap, Annals of Applied
    Statistics 1(2), 2007, doi:10.1214/07-AOAS122), which is conservative.
    """
    differences = np.atleast_2d(np.asarray(differences, float))
    seeds, examples = differences.shape
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        # Counts of a multinomial are a resample; two small products are cheaper than an index.
        by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds))
        by_example = rng.multinomial(examples, np.full(examples, 1 / examples))
        means[i] = by_seed @ differences @ by_example / (seeds * examples)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        mean=float(differences.mean()), low=float(low), high=float(high),
        confidence=confidence, seeds=seeds, examples=examples,
    )  # fmt: skip
