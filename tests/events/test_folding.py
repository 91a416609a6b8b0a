"""Laws: folded equals expanded, both equal the closed form alone, bytes are conserved, same seed same bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nests import random_schedule

from sim.events.fluid import Demand, max_min_speeds
from sim.events.run import Stream, run
from sim.events.ticks import TICKS_PER_S, to_ticks
from sim.events.work import Ports, compile_group

FOLDED_TOLERANCE = 0.005
SUMMARY_TOLERANCE = 0.10
"""Of the network summary under contention, on nests with few and coarse steps: the worst of 200 was 8.5 %."""


def two(seed: int, groups: int = 4):
    rng = np.random.default_rng(seed)
    a, b = random_schedule(rng, groups=groups), random_schedule(rng, groups=groups)
    late = float(rng.integers(0, 20_000)) * 1e-9
    return [
        Stream(name="a", schedule=a, place={"NPU": 0}),
        Stream(name="b", schedule=b, place={"NPU": 1}, arrivals_s=(late,), priority=1),
    ]


def ends(result):
    return {job.stream: job.finish_s for job in result.jobs}


def formula_s(group, rates):
    """T = x_0 + sum max(c, x + y + z) + y_n of the schedule's own docstring, in plain floats."""
    s = group.steps

    def time(moved, setup):
        t = max((b / rates[p] for p, b in moved.items()), default=0.0)
        return t + (setup if t > 0 else 0.0)

    first = time(s.first_load_bytes, s.setup_s)
    total = group.launch_s + first + (s.first_latency_s if first else 0.0)
    for j, n in enumerate(s.repeat):
        x, y, z = ({p: b[j] for p, b in of.items()} for of in (s.next_load_bytes, s.store_bytes, s.inner_bytes))
        moves = time(x, s.setup_s) + time(y, s.setup_s) + time(z, 0.0)
        total += n * (max(s.compute_s[j], moves) if s.double_buffered else s.compute_s[j] + moves)
    return total + time(s.last_store_bytes, s.setup_s)


@pytest.mark.parametrize("seed", range(25))
def test_alone_it_is_the_closed_form(seed):
    """Law 1 for one model on one unit, without prefetch: exact but for the rounding of phases to ticks."""
    made = random_schedule(np.random.default_rng(seed), groups=4, prefetch=False)
    closed = sum(formula_s(g, made.ports) for g in made.groups)
    works = [compile_group(g, Ports(rates=made.ports)) for g in made.groups]
    assert sum(w.launch + w.total for w in works) / TICKS_PER_S == pytest.approx(closed, rel=1e-9)
    for grain in ("expand", "folded", "summary"):
        result = run([Stream(name="a", schedule=made)], grain=grain)
        assert result.latency_s == pytest.approx(closed, rel=1e-9)
        assert result.contended_s == 0


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("port_policy", ["fair", "priority"])
def test_two_contending_networks_folded(seed, port_policy):
    streams = two(seed)
    expanded = run(streams, grain="expand", port_policy=port_policy)
    folded = run(streams, port_policy=port_policy)
    for name, end in ends(expanded).items():
        assert ends(folded)[name] == pytest.approx(end, rel=FOLDED_TOLERANCE)
    assert folded.events < expanded.events / 10
    for port, use in expanded.ports.items():
        assert folded.ports[port].bytes == pytest.approx(use.bytes, rel=1e-9)
    assert folded.contended_s == pytest.approx(expanded.contended_s, rel=FOLDED_TOLERANCE, abs=1e-9)


def test_folding_is_exact_to_a_few_ticks():
    """Stronger than asked: the two readings share only the compiled phases and the fair speeds."""
    for seed in range(10):
        streams = two(seed, groups=3)
        a, b = ends(run(streams, grain="expand")), ends(run(streams))
        assert all(abs(to_ticks(a[n]) - to_ticks(b[n])) <= 1000 for n in a)


@pytest.mark.parametrize("seed", range(15))
def test_summary_under_contention(seed):
    streams = two(seed)
    fine, coarse = ends(run(streams)), ends(run(streams, grain="summary"))
    for name, end in fine.items():
        assert coarse[name] == pytest.approx(end, rel=SUMMARY_TOLERANCE)


def test_three_streams_of_several_jobs():
    """Queueing on a unit and contention on the ports at once."""
    rng = np.random.default_rng(5)
    streams = [
        Stream(name=str(i), schedule=random_schedule(rng, groups=3), place={"NPU": i % 2},
               arrivals_s=np.cumsum(rng.exponential(2e-4, 6)).tolist())
        for i in range(3)
    ]  # fmt: skip
    a, b = run(streams, grain="expand"), run(streams)
    assert len(a.jobs) == len(b.jobs) == 18
    for x, y in zip(
        sorted(a.jobs, key=lambda j: (j.stream, j.number)),
        sorted(b.jobs, key=lambda j: (j.stream, j.number)),
        strict=True,
    ):
        assert y.finish_s == pytest.approx(x.finish_s, rel=FOLDED_TOLERANCE)


@pytest.mark.parametrize("grain", ["expand", "folded", "summary"])
def test_bytes_are_conserved(grain):
    """Bytes on a port = what the schedules say, prefetched or not."""
    streams = two(11)
    result = run(streams, grain=grain)
    for port in ("DRAM", "SRAM"):
        asked = sum(
            compile_group(g, Ports(rates=s.schedule.ports)).moved_bytes.get(port, 0.0)
            for s in streams
            for g in s.schedule.groups
        )
        assert result.ports[port].bytes == pytest.approx(asked, rel=1e-9)
        assert result.ports[port].utilization <= 1 + 1e-9


def test_never_faster_than_alone():
    for seed in range(10):
        for job in run(two(seed)).jobs:
            assert job.contention_s >= -1e-13


def test_same_seed_same_bytes():
    streams = two(7)
    first, second = (json.dumps(run(streams, grain="expand").to_dict()) for _ in range(2))
    assert first == second
    assert run(streams).timeline == run(streams).timeline


demands = st.lists(
    st.builds(
        lambda d, s, p: Demand(tuple((n, u) for n, u in (("D", d), ("S", s)) if u > 0), p),
        st.floats(0.01, 1.0),
        st.one_of(st.just(0.0), st.floats(0.01, 1.0)),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=6,
)


@given(demands)
@settings(max_examples=200, deadline=None)
def test_max_min_is_feasible_and_leaves_nothing(of):
    """No port gives more than it has; who runs below 1 has a full port, as fair shares must."""
    speeds = max_min_speeds(of)
    used = {p: sum(u * s for d, s in zip(of, speeds, strict=True) for q, u in d.uses if q == p) for p in ("D", "S")}
    assert all(0 <= s <= 1 for s in speeds)
    assert all(u <= 1 + 1e-9 for u in used.values())
    for demand, speed in zip(of, speeds, strict=True):
        assert speed == 1.0 or any(used[p] >= 1 - 1e-6 for p, _ in demand.uses)


@given(demands, st.randoms())
@settings(max_examples=50, deadline=None)
def test_order_of_listing_changes_nothing(of, random):
    mixed = list(range(len(of)))
    random.shuffle(mixed)
    speeds, other = max_min_speeds(of), max_min_speeds([of[i] for i in mixed])
    assert [other[mixed.index(i)] for i in range(len(of))] == pytest.approx(speeds, abs=1e-9)
