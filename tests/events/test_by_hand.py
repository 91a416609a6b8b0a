"""Cases worked out by hand, exact to the tick."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from nests import NS, group, schedule, service, steps

from sim.events.fluid import Demand, max_min_speeds
from sim.events.run import Stream, run
from sim.events.ticks import to_ticks


def log_of(result):
    """(track, what, start ns, end ns) of every tile event."""
    return sorted(
        (s.start // 10**6, s.end // 10**6, s.track.split(".")[1], s.category)
        for s in result.timeline.slices
        if "." in s.track
    )


def test_two_tiles_one_dma_one_array():
    """1 byte = 1 ns. First load 100; step 0: compute 50 beside load 100 (bound by the load); step 1:
    compute 50 beside the store 30 of tile 0 (bound by compute); last store 30. 100+100+50+30 = 280."""
    work = steps(repeat=[1, 1], compute=[50 * NS, 50 * NS], load=[100, 0], store=[0, 30], first=100, last=30)
    result = run([Stream(name="a", schedule=schedule(group(work)))], grain="expand")
    ticks = [
        (0, 100, "dma", "load"),
        (100, 150, "array", "compute"),
        (100, 200, "dma", "load"),
        (200, 230, "dma", "store"),
        (200, 250, "array", "compute"),
        (250, 280, "dma", "store"),
    ]
    assert log_of(result) == sorted(ticks)
    assert to_ticks(result.latency_s) == 280 * 10**6
    assert result.ports["DRAM"].bytes == 260
    assert result.contended_s == 0


def test_setup_latency_and_launch():
    """Launch 7, latency 5, set-up 3 + load 10, then compute 4 + inner 2 in turn (no double buffering),
    set-up 3 + store 6: 7 + 5 + 13 + 6 + 9 = 40."""
    work = steps(
        repeat=[1], compute=[4 * NS], inner=[2], first=10, last=6, setup_s=3 * NS, first_latency_s=5 * NS,
        double_buffered=False,
    )  # fmt: skip
    one = schedule(group(work, launch_s=7 * NS))
    for grain in ("expand", "folded", "summary"):
        assert to_ticks(run([Stream(name="a", schedule=one)], grain=grain).latency_s) == 40 * 10**6


def test_prefetch_uses_the_idle_time_of_the_dma_engine():
    """Group 0: one step of compute 100 without transfers. Group 1: first load 60, of which 40 may come
    early: it hides in the 100, so 20 remain. 100 + 20 + compute 10 = 130."""
    groups = (
        group(steps(repeat=[1], compute=[100 * NS]), name="g0"),
        group(steps(repeat=[1], compute=[10 * NS], first=60), name="g1", deps=(0,), prefetch={"DRAM": 40.0}),
    )
    for grain in ("expand", "folded", "summary"):
        assert to_ticks(run([Stream(name="a", schedule=schedule(*groups))], grain=grain).latency_s) == 130 * 10**6


def memory_bound(bytes_: float, n: int = 1, compute: float = 0.0):
    return schedule(group(steps(repeat=[n], compute=[compute], inner=[bytes_])))


@pytest.mark.parametrize("grain", ["expand", "folded", "summary"])
def test_two_equal_memory_bound_streams_each_take_twice_as_long(grain):
    streams = [Stream(name=n, schedule=memory_bound(1000, 10), place={"NPU": i}) for i, n in enumerate("ab")]
    result = run(streams, grain=grain)
    assert [to_ticks(j.latency_s) for j in result.jobs] == [20_000 * 10**6] * 2
    assert to_ticks(result.contended_s) == 20_000 * 10**6
    assert all(j.contention_s == pytest.approx(10_000 * NS) for j in result.jobs)


@pytest.mark.parametrize("grain", ["expand", "folded"])
def test_compute_bound_beside_memory_bound(grain):
    """A: 100 steps of compute 1000 ns beside 300 bytes; B moves 70,000 bytes at once. A's 300 bytes take
    600 ns at half rate, less than its compute: A keeps its 100 us. B gets 600/2 + 400 = 700 bytes in each
    of A's steps, so it ends with A's hundredth step: 100 us, instead of 70 alone."""
    a, b = memory_bound(300, 100, 1000 * NS), memory_bound(70_000)
    result = run(
        [Stream(name="a", schedule=a, place={"NPU": 0}), Stream(name="b", schedule=b, place={"NPU": 1})], grain=grain
    )
    ends = {j.stream: to_ticks(j.latency_s) for j in result.jobs}
    assert ends == {"a": 100_000 * 10**6, "b": 100_000 * 10**6}
    assert to_ticks(result.contended_s) == 100 * 600 * 10**6


@pytest.mark.parametrize("grain", ["expand", "folded"])
def test_late_comer(grain):
    """A moves 1000 bytes from 0, B 1000 from 400 ns: A has 600 left, shares until 1600, then B has 400 left: 2000."""
    streams = [
        Stream(name="a", schedule=memory_bound(1000), place={"NPU": 0}),
        Stream(name="b", schedule=memory_bound(1000), place={"NPU": 1}, arrivals_s=(400 * NS,)),
    ]
    result = run(streams, grain=grain)
    assert {j.stream: to_ticks(j.finish_s) for j in result.jobs} == {"a": 1600 * 10**6, "b": 2000 * 10**6}


@pytest.mark.parametrize("grain", ["expand", "folded"])
def test_priority_ports_serve_the_urgent_stream_first(grain):
    """B (urgent) arrives at 400 ns, takes the port for 1000 ns; A finishes its last 600 after that, at 2000."""
    streams = [
        Stream(name="a", schedule=memory_bound(1000), place={"NPU": 0}),
        Stream(name="b", schedule=memory_bound(1000), place={"NPU": 1}, arrivals_s=(400 * NS,), priority=1),
    ]
    result = run(streams, grain=grain, port_policy="priority")
    assert {j.stream: to_ticks(j.finish_s) for j in result.jobs} == {"b": 1400 * 10**6, "a": 2000 * 10**6}


def test_bounded_requests_leave_bandwidth_to_others():
    """Each stream can draw 1 GB/s of a 1.5 GB/s port: alone 1000 ns for 1000 bytes, together 0.75 each: 1333.3 ns."""
    streams = [Stream(name=n, schedule=memory_bound(1000), place={"NPU": i}) for i, n in enumerate("ab")]
    result = run(streams, capacity={"DRAM": 1.5e9})
    assert result.latency_s == pytest.approx(1333.333e-9, rel=1e-6)


def test_tie_order_is_release_order():
    """Two jobs at the same tick on one unit: the stream listed first runs first."""
    a, b = service(10 * NS), service(10 * NS)
    streams = [Stream(name="b", schedule=b), Stream(name="a", schedule=a)]
    assert [j.stream for j in run(streams).jobs] == ["b", "a"]


@pytest.mark.parametrize("grain", ["folded", "expand"])
@pytest.mark.parametrize("policy", ["fifo", "priority", "earliest_deadline_first", "rate_monotonic"])
def test_jobs_released_together_run_one_after_another(policy, grain):
    """Three streams alike, each a job of two groups of 10 ns at 0 and at 100 ns: they end at 20, 40 and 60, and at
    120, 140 and 160, in the order of the list. A deadline of 50 ns is missed by the last of each three."""
    job = schedule(*[group(steps(repeat=[1], compute=[10 * NS]), name=f"g{i}") for i in range(2)])
    streams = [
        Stream(name=name, schedule=job, arrivals_s=(0.0, 100 * NS), deadline_s=50 * NS, period_s=100 * NS)
        for name in "cab"
    ]
    found = run(streams, policy=policy, grain=grain)
    ends = sorted((to_ticks(j.finish_s) // 10**6, j.stream, j.missed) for j in found.jobs)
    first = [(20, "c", None), (40, "a", None), (60, "b", "queueing")]
    assert ends == first + [(100 + end, *rest) for end, *rest in first]


def test_preemption_at_group_borders():
    """Low: groups of 100 ns x 3 from 0. High: 50 ns, arrives at 30, waits for the border at 100, ends at 150;
    low goes on and ends at 350. FIFO lets low end first (300), high at 350."""
    low = schedule(*[group(steps(repeat=[1], compute=[100 * NS]), name=f"g{i}") for i in range(3)])
    streams = [
        Stream(name="low", schedule=low),
        Stream(name="high", schedule=service(50 * NS), arrivals_s=(30 * NS,), priority=5, deadline_s=100 * NS),
    ]
    ends = {
        p: {j.stream: to_ticks(j.finish_s) // 10**6 for j in run(streams, policy=p).jobs} for p in ("priority", "fifo")
    }
    assert ends == {"priority": {"high": 150, "low": 350}, "fifo": {"low": 300, "high": 350}}
    missed = run(streams, policy="priority").streams["high"].missed
    assert missed == {"queueing": 1}


@pytest.mark.parametrize("grain", ["folded", "expand"])
def test_the_choice_is_among_all_that_comes_at_a_tick(grain):
    """An urgent closed stream is always there: its next job comes when one ends, and the other waits for the end of the
    run. Of two jobs at the same time the urgent one is first, whichever is listed first."""
    lasting = [
        Stream(name="low", schedule=service(2e-3), closed=True, priority=0),
        Stream(name="high", schedule=service(3e-3), closed=True, priority=1),
    ]
    for streams in (lasting, lasting[::-1]):
        found = run(streams, policy="priority", length_s=30e-3, grain=grain)
        ends = [(job.stream, round(1e3 * job.finish_s)) for job in sorted(found.jobs, key=lambda job: job.finish_s)]
        assert ends == [("high", 3 * k) for k in range(1, 11)] + [("low", 32)]
    once = [replace(stream, closed=False, arrivals_s=[1e-3]) for stream in lasting]
    for streams in (once, once[::-1]):
        found = run(streams, policy="priority", grain=grain)
        assert {job.stream: round(1e3 * job.finish_s) for job in found.jobs} == {"high": 4, "low": 6}


def test_time_partition():
    """Slots of 100 ns for a, 50 for b. b's job of 40 arrives at 0 and waits for 100; a's second group of 60
    does not fit behind the first (60 + 60 > 100) and waits for the next frame at 150."""
    two = schedule(*[group(steps(repeat=[1], compute=[60 * NS]), name=f"g{i}") for i in range(2)])
    from sim.events.policies import TimePartition

    policy = TimePartition((("a", to_ticks(100 * NS)), ("b", to_ticks(50 * NS))))
    streams = [Stream(name="b", schedule=service(40 * NS)), Stream(name="a", schedule=two)]
    result = run(streams, policy=policy)
    assert {j.stream: to_ticks(j.finish_s) // 10**6 for j in result.jobs} == {"b": 140, "a": 210}


def test_schedulability_with_blocking():
    """Rate monotonic, preemption at group borders, deadlines = periods. High: 20 every 50 from 1. Low: 40
    every 100 from 0. Utilisation 0.8 <= 2 (2^0.5 - 1) = 0.828: with full preemption no deadline is missed
    (Liu and Layland 1973). As one group, low holds the unit until 40: high ends at 60, after its deadline
    at 51, in each of 20 frames (its second job runs 60 - 80, due at 101). As ten groups of 4 it blocks for at most 4:
    (4 + 20) / 50 <= 1 and 20/50 + 40/100 <= 0.828, the bound with blocking (Sha, Rajkumar, Lehoczky 1990): no miss."""

    def misses(parts: int) -> int:
        low = schedule(*[group(steps(repeat=[1], compute=[40 / parts * NS]), name=f"g{i}") for i in range(parts)])
        streams = [
            Stream(name="low", schedule=low, arrivals_s=[k * 100 * NS for k in range(20)], period_s=100 * NS,
                   deadline_s=100 * NS),
            Stream(name="high", schedule=service(20 * NS), arrivals_s=[(1 + k * 50) * NS for k in range(40)],
                   period_s=50 * NS, deadline_s=50 * NS),
        ]  # fmt: skip
        result = run(streams, policy="rate_monotonic")
        return sum(sum(s.missed.values()) for s in result.streams.values())

    assert misses(1) == 20
    assert misses(10) == 0


def test_max_min_of_two_ports():
    """A uses D fully and S at 0.3; B uses S fully and D at 0.4. Levels: a = 1 - 0.4 b, b = 1 - 0.3 a,
    so a = 0.6 / 0.88 and b = 0.7 / 0.88."""
    a, b = max_min_speeds([Demand((("D", 1.0), ("S", 0.3))), Demand((("D", 0.4), ("S", 1.0)))])
    assert a == pytest.approx(0.6 / 0.88)
    assert b == pytest.approx(0.7 / 0.88)


def test_document_is_json():
    result = run([Stream(name="a", schedule=service(10 * NS, moved=3.0))])
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["schema"] == "dovetail.simulate/1"


def test_earliest_deadline_first():
    """Three jobs of 10 wait behind one of 20: due at 90, 60 and never; served in the order 60, 90, never."""
    first = Stream(name="first", schedule=service(20 * NS))
    due = {"late": 85 * NS, "soon": 55 * NS, "never": None}
    streams = [first] + [
        Stream(name=n, schedule=service(10 * NS), arrivals_s=(5 * NS,), deadline_s=d) for n, d in due.items()
    ]
    jobs = sorted(run(streams, policy="earliest_deadline_first").jobs, key=lambda j: j.finish_s)
    assert [(j.stream, to_ticks(j.finish_s) // 10**6) for j in jobs] == [
        ("first", 20), ("soon", 30), ("late", 40), ("never", 50),
    ]  # fmt: skip


def test_causes_of_misses():
    """Service 20 of 15 allowed; a wait of 20 before 10; half a port for a job of 10 that would need 10 of 15."""
    long = Stream(name="long", schedule=service(20 * NS), deadline_s=15 * NS)
    waits = Stream(name="waits", schedule=service(10 * NS), deadline_s=15 * NS)
    assert [j.missed for j in run([long, waits]).jobs] == ["service", "queueing"]
    shared = [
        Stream(name=n, schedule=memory_bound(10), place={"NPU": i}, deadline_s=15 * NS) for i, n in enumerate("ab")
    ]
    assert [j.missed for j in run(shared).jobs] == ["contention", "contention"]


def test_a_prefetch_begins_with_the_set_up_of_its_transfer():
    """As above, but the first load waits 25 for set-ups, of which 5 belong to the 40 bytes that come early: 100 + 20 +
    20 + 10 = 150. Where group 0 computes for 30 only, two thirds of these 45 pass: 30 + (25 + 60 - 30) + 10 = 95."""
    for compute, ticks in ((100, 150), (30, 95)):
        after = group(
            steps(repeat=[1], compute=[10 * NS], first=60, first_latency_s=25 * NS),
            name="g1", deps=(0,), prefetch={"DRAM": 40.0}, prefetch_fixed_s=5 * NS,
        )  # fmt: skip
        both = schedule(group(steps(repeat=[1], compute=[compute * NS]), name="g0"), after)
        for grain in ("expand", "folded", "summary"):
            assert to_ticks(run([Stream(name="a", schedule=both)], grain=grain).latency_s) == ticks * 10**6


@pytest.mark.parametrize(
    ("compute", "beside", "ticks"), [(100, False, 110), (10, False, 40), (100, True, 110), (10, True, 42)]
)
def test_a_first_load_from_another_memory_on_chip_may_come_early_too(compute, beside, ticks):
    """Group 1 waits 30 for weights that lie on chip; they come while group 0 computes for 100 (100 + 10), or a third
    of them while it computes for 10 (10 + 20 + 10). With a byte of its own, which takes 2 beside another unit, group 0
    leaves the DMA engine idle for 8 only: 10 + 22 + 10."""
    before = steps(repeat=[1], compute=[compute * NS], inner=[1.0] if beside else None)
    after = steps(repeat=[1], compute=[10 * NS], first_latency_s=30 * NS)
    both = schedule(group(before, name="g0"), group(after, name="g1", deps=(0,), prefetch_fixed_s=30 * NS))
    streams = [Stream(name="a", schedule=both, place={"NPU": 0})]
    streams += [Stream(name="b", schedule=memory_bound(1e3), place={"NPU": 1})] if beside else []
    for grain in ("expand", "folded"):
        first = next(job for job in run(streams, grain=grain).jobs if job.stream == "a")
        assert to_ticks(first.finish_s) == ticks * 10**6
