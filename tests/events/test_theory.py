"""Queueing theory: simulated means lie inside their own confidence intervals around the known values."""

from __future__ import annotations

import numpy as np
import pytest
from nests import group, schedule, service, steps

from sim.events.run import Stream, run
from sim.events.statistics import rate_upper_bound, t_interval

RATE = 0.7e6
"""Arrivals a second; the mean service is 1 us, so the utilisation is 0.7."""

LEVEL = 0.999
"""With fixed seeds a right simulator fails such an interval once in a thousand choices of seed."""

REPLICATIONS, JOBS = 10, 3000


def interval(make_streams):
    """t interval over replications of the mean queueing time in us, first tenth left out."""
    means = []
    for seed in range(REPLICATIONS):
        jobs = run(make_streams(np.random.default_rng(seed)), record=0).jobs
        kept = [j for j in jobs if j.release_s > 0.1 * JOBS / RATE]
        means.append(1e6 * float(np.mean([j.queueing_s + j.contention_s for j in kept])))
    return t_interval(means, LEVEL)


def arrivals(rng, rate=RATE, jobs=JOBS):
    return np.cumsum(rng.exponential(1 / rate, jobs)).tolist()


def single_jobs(rng, service_us):
    """One stream per job length would be slow to build: a stream per distinct length."""
    times, lengths = arrivals(rng), service_us(rng)
    by_length: dict[float, list[float]] = {}
    for at, length in zip(times, lengths, strict=True):
        by_length.setdefault(float(length), []).append(at)
    return [
        Stream(name=f"s{i}", schedule=service(us * 1e-6), arrivals_s=ats)
        for i, (us, ats) in enumerate(by_length.items())
    ]


def exponential_grid(rng):
    """Exponential service in 100 equally likely steps, each the mean of its hundredth: mean 1 us.

    Returns lengths; the grid's own second moment enters the expected value, so nothing is approximated.
    """
    return rng.choice(GRID, JOBS)


_EDGES = -np.log1p(-np.arange(100) / 100)
_X = np.append((_EDGES + 1) * np.exp(-_EDGES), 0.0)
GRID = np.round(100 * (_X[:-1] - _X[1:]), 6)
"""Conditional means of Exp(1) on its percentiles: integral of x e^-x over each, times 100."""


def pollaczek_khinchine_us(lengths_us):
    """W = lambda E[S^2] / (2 (1 - rho)) for M/G/1, first come first served."""
    lam = RATE * 1e-6
    return lam * np.mean(lengths_us**2) / (2 * (1 - lam * np.mean(lengths_us)))


def inside(found, theory):
    assert abs(found.mean - theory) <= found.half_width, (found, theory)


def test_m_m_1():
    """W = rho / (1 - rho) x 1 us = 2.333 us with exponential service; the grid's own value is within 2 %."""
    theory = pollaczek_khinchine_us(GRID)
    assert theory == pytest.approx(0.7 / 0.3, rel=0.02)
    inside(interval(lambda rng: single_jobs(rng, exponential_grid)), theory)


def test_m_d_1():
    """W = rho / (2 (1 - rho)) = 1.1667 us."""
    inside(interval(lambda rng: single_jobs(rng, lambda _: np.ones(JOBS))), 0.7 / 0.6)


def test_m_g_1():
    """Two lengths, 0.5 us (3 of 4) and 2.5 us: mean 1, E[S^2] = 1.75, W = 0.7 x 1.75 / 0.6 = 2.0417 us."""
    inside(interval(lambda rng: single_jobs(rng, lambda r: r.choice([0.5, 0.5, 0.5, 2.5], JOBS))), 0.7 * 1.75 / 0.6)


def test_processor_sharing_port():
    """M/G/1-PS: T = S / (1 - rho) whatever the distribution; each job here has a unit of its own, so that
    the port alone is shared. Mean delay beyond service: 1 / 0.3 - 1 = 2.333 us."""
    units = {"NPU": 200}

    def streams(rng):
        made = []
        for stream in single_jobs(rng, lambda r: r.choice([0.5, 0.5, 0.5, 2.5], JOBS)):
            moved = steps(repeat=[1], compute=[0.0], inner=[stream.schedule.groups[0].steps.compute_s[0] * 1e9])
            one = schedule(group(moved), units=units)
            made.append(Stream(name=stream.name, schedule=one, arrivals_s=stream.arrivals_s, place={"NPU": None}))
        return made

    inside(interval(streams), 1 / 0.3 - 1)


def test_work_is_conserved():
    """Busy time = sum of service, and queueing + service + contention = latency for every job."""
    result = run(single_jobs(np.random.default_rng(3), lambda r: r.choice([0.5, 2.5], 500).repeat(6)[:JOBS]))
    busy = sum(use.busy_s for use in result.engines.values())
    assert busy == pytest.approx(sum(j.service_s for j in result.jobs), rel=1e-9)
    for job in result.jobs[:200]:
        assert job.queueing_s + job.service_s + job.contention_s == pytest.approx(job.latency_s, abs=1e-14)


def test_rule_of_three():
    """0 of 300: 1 - 0.05^(1/300) = 0.009936; all of them: 1."""
    assert rate_upper_bound(missed=0, jobs=300) == pytest.approx(1 - 0.05 ** (1 / 300), rel=1e-9)
    assert rate_upper_bound(missed=5, jobs=5) == 1.0


def test_t_interval():
    """1, 2, 3: mean 2, s = 1, t_2(0.975) = 4.3027: half width 4.3027 / sqrt 3 = 2.4841."""
    found = t_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(2.4841, abs=1e-4)
    assert t_interval([1.0]).half_width is None
