"""Timing statistics with a fake clock; all expected values computed by hand."""

import random
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.baseline.timing import Plan, agree, calls_per_sample, median_interval, quantile, repeat, summarise


class FakeClock:
    """Advances only when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def sampler(clock, durations):
    """Each sample takes the next duration, the last one for ever."""
    taken = []

    def sample() -> float:
        duration = durations[min(len(taken), len(durations) - 1)]
        taken.append(duration)
        clock.now_s += duration
        return duration

    return sample, taken


def test_median_interval_by_hand():
    """n = 6: P(1 <= B <= 5) = 1 - 2/64 = 0.969 >= 0.95 and P(2 <= B <= 4) = 1 - 2 (1 + 6)/64 = 0.78: (x1, x6).
    n = 11: r = 2 gives 1 - 2 (1 + 11)/2048 = 0.988, r = 3 gives 1 - 2 (1 + 11 + 55)/2048 = 0.935: (x2, x10).
    n = 5: 1 - 2/32 = 0.9375 < 0.95: no interval."""
    assert median_interval([1, 2, 3, 4, 5, 6], 0.95) == (1, 6)
    assert median_interval(list(range(1, 12)), 0.95) == (2, 10)
    assert median_interval([1, 2, 3, 4, 5], 0.95) == (-inf, inf)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_median_interval_of_many_samples(monkeypatch, confidence):
    """The normal distribution gives the ranks of the binomial, or one rank further in or out; a million samples take no
    longer than their sorting."""
    for n in (1000, 1001, 1777):
        samples = list(range(n))
        monkeypatch.setattr("sim.baseline.timing.EXACT_SAMPLES", n)
        low, high = median_interval(samples, confidence)
        monkeypatch.setattr("sim.baseline.timing.EXACT_SAMPLES", n - 1)
        near_low, near_high = median_interval(samples, confidence)
        assert abs(near_low - low) <= 1
        assert abs(near_high - high) <= 1
    assert median_interval(range(1_000_001), 0.95) == (500_000 - 980, 500_000 + 980)


def test_median_interval_covers_the_true_median():
    """Of 400 exponential samples of size 25 at least 95 % - 3 sigma (3 x 1.1 %) of the intervals hold ln 2."""
    generator = random.Random(7)
    hits = 0
    for _ in range(400):
        low, high = median_interval(sorted(generator.expovariate(1.0) for _ in range(25)), 0.95)
        hits += low <= 0.6931 <= high
    assert hits / 400 >= 0.95 - 3 * 0.011


def test_quantile_by_hand():
    """Type 7: 1..5 at 0.25 is position 1.0 -> 2; at 0.9 position 3.6 -> 4.6."""
    assert quantile([1, 2, 3, 4, 5], 0.25) == 2
    assert quantile([1, 2, 3, 4, 5], 0.9) == pytest.approx(4.6)


def test_repeat_stops_at_the_minimum_when_samples_agree():
    clock = FakeClock()
    sample, taken = sampler(clock, [0.01])
    timing = repeat(sample, clock=clock, plan=Plan(min_samples=11, warmup_samples=3, warmup_s=0.0))
    assert len(taken) == 14
    assert len(timing.samples_s) == 11
    assert timing.median_s == 0.01
    assert not timing.noisy
    assert timing.spread.mad_s == 0
    assert timing.spread.stated_s == pytest.approx(0.03 * 0.01)


def test_warm_up_lasts_for_its_time():
    """A slow first call of 0.5 s, then 0.125 s each; a warm-up of 1 s takes 1 + 4 of them (0.5 + 4 x 0.125 = 1), and
    none is counted."""
    clock = FakeClock()
    sample, taken = sampler(clock, [0.5, 0.125])
    timing = repeat(sample, clock=clock, plan=Plan(min_samples=11, warmup_samples=1, warmup_s=1.0, time_limit_s=9.0))
    assert max(timing.samples_s) == 0.125
    assert len(taken) - len(timing.samples_s) == 5


def test_repeat_goes_on_until_the_time_is_up_and_says_noisy():
    """Alternating 1 and 2: the interval of the median is (1, 2) whatever n. The sum passes 30 s with the 21st sample
    (10 pairs are 30 s, and the limit must be passed); the median of 11 ones and 10 twos is 1, so that the half-width
    is 50 %."""
    clock = FakeClock()
    sample, _ = sampler(clock, [1.0, 2.0] * 100)
    timing = repeat(sample, clock=clock, plan=Plan(time_limit_s=30.0, warmup_samples=0, warmup_s=0.0))
    assert timing.noisy
    assert "50.0% after 21 samples" in timing.reason
    assert sum(timing.samples_s) == 31


def test_a_slow_point_gets_six_samples():
    """10 s a sample, limit 4 s: the minimum of 11 is waived after twice the limit, but not below six."""
    clock = FakeClock()
    sample, _ = sampler(clock, [10.0])
    timing = repeat(sample, clock=clock, plan=Plan(time_limit_s=4.0, warmup_samples=1, warmup_s=0.0))
    assert len(timing.samples_s) == 6
    assert not timing.noisy


def test_outliers_are_kept_and_marked():
    """Samples 1.00, 1.01, .. with one of 5: MAD 0.02, limit 5 x 1.4826 x 0.02 = 0.148 about the median 1.03."""
    samples = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 5.0]
    timing = summarise(samples, Plan())
    assert timing.median_s == 1.03
    assert timing.outliers_s == (5.0,)
    assert timing.spread.max_s == 5.0
    assert len(timing.samples_s) == 7


def test_drift_between_the_halves_is_noise():
    samples = [1.0] * 10 + [1.2] * 3 + [1.2] * 8
    timing = summarise(samples, Plan(noise_limit=0.15))
    assert timing.noisy
    assert "+20.0%" in timing.reason


def test_agreement_is_within_the_root_sum_of_squares():
    """Spreads 3 and 4 allow a distance of 5."""
    assert agree((100.0, 3.0), (105.0, 4.0))
    assert not agree((100.0, 3.0), (105.1, 4.0))


def test_calls_per_sample_by_hand():
    assert calls_per_sample(1e-6, sample_s=500e-6) == 500
    assert calls_per_sample(1.0, sample_s=500e-6) == 1
    assert calls_per_sample(0.0, sample_s=1e-3, at_most=512) == 512


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60))
def test_order_of_the_summary(samples):
    """min <= q05 <= q25 <= median <= q75 <= q95 <= max, and scaling time scales everything."""
    spread = (timing := summarise(samples, Plan())).spread
    chain = [spread.min_s, spread.q05_s, spread.q25_s, timing.median_s, spread.q75_s, spread.q95_s, spread.max_s]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(chain))
    doubled = summarise([2 * s for s in samples], Plan())
    assert doubled.median_s == 2 * timing.median_s
    assert doubled.noisy == timing.noisy
