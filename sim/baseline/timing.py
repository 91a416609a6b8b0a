"""Timing statistics: repeat until the median is known well enough, and say when it is not.

Everything here is pure arithmetic on samples; the clock is an argument, so that tests use a fake
one. The samplers for CPU and CUDA stand in `sim.baseline.samplers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import comb, floor, inf
from statistics import NormalDist

from sim.baseline.record import Spread

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation to standard deviation for normal samples: 1 / Phi^-1(3/4)."""

OUTLIER_SIGMAS = 5.0
"""A sample farther from the median than this many robust standard deviations is marked."""

EXACT_SAMPLES = 1000
"""Samples up to which the binomial of the median's interval is summed: its whole numbers grow with every sample, and a
profile may hold a million. Beyond, the normal distribution gives them within one rank."""

REPEAT_FLOOR = 0.03
"""Least relative spread that a record states for a repetition in another process. Address-space layout and
clock state differ between processes in ways that no single process sees; estimated."""

HELD_DOWN_FLOOR = 0.15
"""The same where the driver held the clock down. Of a GPU at its power limit a process sees the boost clock or a lower
one, as what ran before left the limiter: on the H200 1.98 GHz or, in the median of the lowered clocks read, 1.75 GHz,
and matrix products in two processes 11 to 14.5 % apart (`baselines/METHOD.md`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When to stop: `half_width` of the median's confidence interval reached, or the time is up.

    `noise_limit` is the relative half-width, and the relative drift between the first and second
    half of the samples, above which no number is given; `between_limit` that of the spread between
    processes.
    """

    confidence: float = 0.95
    half_width: float = 0.01
    noise_limit: float = 0.10
    between_limit: float = 0.25
    min_samples: int = 11
    max_samples: int = 400
    time_limit_s: float = 2.0
    warmup_samples: int = 3
    warmup_s: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Samples in the order they were taken [s], and what they say."""

    samples_s: tuple[float, ...]
    median_s: float
    spread: Spread
    outliers_s: tuple[float, ...]
    noisy: bool
    reason: str
    """Why it is noisy; empty otherwise."""


def quantile(ordered: Sequence[float], q: float) -> float:
    """Linear-interpolation quantile (Hyndman and Fan type 7) of sorted samples, 0 <= q <= 1."""
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def median_interval(ordered: Sequence[float], confidence: float) -> tuple[float, float]:
    """Distribution-free confidence interval of the median from order statistics.

    (x_(r), x_(n+1-r)) with the largest r for which P(r <= B <= n - r) >= confidence, B ~ Binomial(n, 1/2)
    [David and Nagaraja, Order Statistics, 3rd ed., 2003, section 7.1]. Fewer than 6 samples cannot give
    95 %: the interval is then (-inf, inf). Beyond EXACT_SAMPLES the binomial is a normal distribution.

    Example: n = 6: P(1 <= B <= 5) = 1 - 2/64 = 0.969, so 95 % is (min, max).
    """
    n = len(ordered)
    if n > EXACT_SAMPLES:
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * n**0.5 / 2
        rank = max(1, floor((n + 1) / 2 - reach))
        return ordered[rank - 1], ordered[n - rank]
    tail = 0
    rank = 0
    for r in range(1, n // 2 + 1):
        tail += comb(n, r - 1)
        if 1 - 2 * tail / 2**n < confidence:
            break
        rank = r
    if rank == 0:
        return -inf, inf
    return ordered[rank - 1], ordered[n - rank]


def widest_interval(ordered: Sequence[float]) -> tuple[float, float, float]:
    """(least, largest, confidence that the median lies between): all that samples too few for `median_interval` say.

    Example: n = 3: 1 - 2/8 = 0.75; of one sample 0.
    """
    return ordered[0], ordered[-1], 1 - 2.0 ** (1 - len(ordered))


def summarise(samples_s: Sequence[float], plan: Plan) -> Timing:
    """Median, spread, outliers and the verdict on noise. Shapes: one dimension, at least one sample."""
    ordered = sorted(samples_s)
    median = quantile(ordered, 0.5)
    mad = quantile(sorted(abs(s - median) for s in ordered), 0.5)
    low, high = median_interval(ordered, plan.confidence)
    stated = (low, high, plan.confidence) if low > -inf else widest_interval(ordered)
    limit = OUTLIER_SIGMAS * MAD_TO_SIGMA * mad
    outliers = tuple(s for s in samples_s if abs(s - median) > limit > 0)
    q25, q75 = quantile(ordered, 0.25), quantile(ordered, 0.75)
    reason = _noise(samples_s, median=median, low=low, high=high, plan=plan)
    spread = Spread(
        mad_s=mad, q05_s=quantile(ordered, 0.05), q25_s=q25, q75_s=q75, q95_s=quantile(ordered, 0.95),
        min_s=ordered[0], max_s=ordered[-1], ci_low_s=stated[0], ci_high_s=stated[1], confidence=stated[2],
        stated_s=stated_spread_s(median_s=median, q25_s=q25, q75_s=q75),
    )  # fmt: skip
    return Timing(
        samples_s=tuple(samples_s), median_s=median, spread=spread, outliers_s=outliers, noisy=bool(reason),
        reason=reason,
    )  # fmt: skip


def stated_spread_s(*, median_s: float, q25_s: float, q75_s: float) -> float:
    """What a repetition in another process should stay within [s].

    The interquartile range (2 x 0.67 sigma for normal samples), but at least REPEAT_FLOOR of the median.
    """
    return max(q75_s - q25_s, REPEAT_FLOOR * median_s)


def with_floor(spread: Spread, *, median_s: float, floor: float) -> Spread:
    """The spread, stating at least this share of the median."""
    return replace(spread, stated_s=max(spread.stated_s, floor * median_s))


def agree(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two (median_s, stated_s) agree: their distance within the root sum of squares of the spreads."""
    return abs(a[0] - b[0]) <= (a[1] ** 2 + b[1] ** 2) ** 0.5


def _noise(samples_s: Sequence[float], *, median: float, low: float, high: float, plan: Plan) -> str:
    if low == -inf:
        return f"{len(samples_s)} samples are too few for a {plan.confidence:.0%} interval of the median"
    half_width = (high - low) / 2 / median
    if half_width > plan.noise_limit:
        return (
            f"the {plan.confidence:.0%} interval of the median is +-{half_width:.1%} after {len(samples_s)} samples, "
            f"limit {plan.noise_limit:.0%}"
        )
    half = len(samples_s) // 2
    first, second = (quantile(sorted(part), 0.5) for part in (samples_s[:half], samples_s[half:]))
    drift = second / first - 1
    if abs(drift) > plan.noise_limit:
        return f"the median moved by {drift:+.1%} between the halves of the run, limit {plan.noise_limit:.0%}"
    return ""


def repeat(sample: Callable[[], float], *, clock: Callable[[], float], plan: Plan) -> Timing:
    """Warm up, then sample until the median's interval is narrow enough or time or samples run out.

    Args:
        sample: runs the work once and returns its duration [s].
        clock: monotonic time [s], for the limits only.
    """
    start = clock()
    for count in range(plan.max_samples):
        if count >= plan.warmup_samples and clock() - start >= plan.warmup_s:
            break
        sample()
    samples: list[float] = []
    start = clock()
    while len(samples) < plan.max_samples:
        samples.append(sample())
        if len(samples) < plan.min_samples:
            # one slow point may not hold up a grid: past twice the limit, what there is must do
            if clock() - start > 2 * plan.time_limit_s and len(samples) >= 6:
                break
            continue
        low, high = median_interval(sorted(samples), plan.confidence)
        if (high - low) / 2 <= plan.half_width * quantile(sorted(samples), 0.5):
            break
        if clock() - start > plan.time_limit_s:
            break
    return summarise(samples, plan)


def calls_per_sample(call_s: float, *, sample_s: float, at_least: int = 1, at_most: int = 10_000) -> int:
    """How many calls make one sample of about `sample_s`, so that the clock's own cost vanishes."""
    return max(at_least, min(at_most, round(sample_s / call_s) if call_s > 0 else at_most))
