"""Rounds of a measurement with stubbed processes: every file is written by the test, nothing is timed."""

import math
import random
from dataclasses import replace

import pytest

from sim.baseline.grid import make_point
from sim.baseline.record import Baseline, BaselineRecord, Kind, Mode, Spread, append_record, read_baseline
from sim.baseline.rounds import combine_processes, combine_rounds, common_gap, gap, measure_rounds, repeat_spread
from sim.baseline.runner import ONE_PROCESS
from sim.baseline.timing import HELD_DOWN_FLOOR, REPEAT_FLOOR, Plan, agree
from sim.errors import MeasurementError


def points(count):
    some = [make_point(op="relu", workload=None, knobs={"rows": i + 1, "columns": 8}, precision="fp32", plan=Plan())
            for i in range(count)]  # fmt: skip
    return {p.key("fake", 1): p for p in some}


def record(point, time_s):
    """A process that sees 1 % of scatter within itself; None: it was too noisy for a number."""
    spread = Spread(mad_s=0, q05_s=0, q25_s=0, q75_s=0, q95_s=0, min_s=0, max_s=0, ci_low_s=0, ci_high_s=0,
                    confidence=0.95, stated_s=0.01 * (time_s or 1))  # fmt: skip
    return BaselineRecord(
        device="fake", backend="cpu", kind=Kind.MEASURED, op=point.op, knobs=point.knobs, precision="fp32", threads=1,
        median_s=time_s, noisy=time_s is None, spread=spread, n=11, date="2026-01-01T00:00:00Z",
        marks=() if time_s else ("other processes used 50 % of the cores",),
    )  # fmt: skip


def process(points, time_of):
    """A stand-in for a fresh process: measures what its file lacks; `time_of(key, round)` is the median or None."""

    def start(file, time_limit_s):
        del time_limit_s
        finished = read_baseline(file).finished
        for key, point in points.items():
            if key not in finished:
                append_record(file, record(point, time_of(key, int(file.stem[-1]))))
        return 0

    return start


def test_spread_by_hand():
    """Logs 0, 0.06, 0.2: a gap of 0.06. With four of 0.01 in common: 0.02; of three rounds the least stays within
    0.02 x 2/3 x ln 20 = 0.0399."""
    values = [math.exp(0.2), 1.0, math.exp(0.06)]
    assert gap(values) == pytest.approx(0.06)
    assert repeat_spread(values, 0.01) == pytest.approx(math.exp(0.03994) - 1, rel=1e-3)


def test_common_gap_is_that_which_made_the_points():
    """The gap of three rounds, each late by 0.05 in the mean, is 0.025 in the mean."""
    generator = random.Random(3)
    rounds = [[math.exp(generator.expovariate(20)) for _ in range(3)] for _ in range(4000)]
    assert common_gap(rounds) == pytest.approx(0.025, rel=0.05)
    assert common_gap([[1.0], []]) == 0.0


def late(generator):
    """One process in four is disturbed; all differ by a little."""
    return 1e-3 * math.exp(generator.expovariate(12) * (generator.random() < 0.25) + generator.expovariate(50))


@pytest.mark.parametrize("rounds", [3, 5])
@pytest.mark.parametrize(
    "time", [late, lambda g: 1e-3 * math.exp(g.expovariate(25)), lambda g: 1e-3 * math.exp(g.gauss(0, 0.04))],
    ids=["disturbed", "exponential", "normal"],
)  # fmt: skip
def test_two_runs_agree_within_what_they_state(tmp_path, rounds, time):
    """Processes differ by 4 % although each sees 1 %, late or to both sides: 95 % of the points are asked to agree."""
    some, generator = points(120), random.Random(rounds)

    def run(name):
        measure_rounds(some, output=tmp_path / name, rounds=rounds, start=process(some, lambda key, k: time(generator)))
        return read_baseline(tmp_path / name).latest

    first, second = run("a.jsonl"), run("b.jsonl")
    pairs = [(a, second[key]) for key, a in first.items()]
    assert all(a.spread.within_s < a.spread.stated_s for a, _ in pairs)
    said = [agree((a.median_s, a.spread.stated_s), (b.median_s, b.spread.stated_s)) for a, b in pairs]
    assert sum(said) / len(said) >= 0.95


def test_rounds_that_disagree_give_no_number(tmp_path):
    """Rounds that differ by a half of the time each: refused, with the width and the limit; their medians stay in the
    record."""
    some = points(5)
    start = process(some, lambda key, k: {1: 1e-3, 2: 2e-3, 3: 1.5e-3}[k])
    found = measure_rounds(some, output=tmp_path / "a.jsonl", rounds=3, start=start)
    assert all(r.noisy and r.median_s is None for r in found.records)
    assert found.records[0].rounds_s == (1e-3, 1.5e-3, 2e-3)
    assert "limit 25%" in found.records[0].marks[0]


def test_a_refused_point_is_measured_anew_when_run_again(tmp_path):
    """Rounds that disagree, and later ones that agree: the second run measures every round of the refused point, and
    not of those with a number; a third has nothing to do. What each point came to is told."""
    some, asked, told = points(3), [], []
    first = next(iter(some))
    apart = {1: 1e-3, 2: 20e-3, 3: 15e-3}

    def time_of(key, k):
        asked.append((key, k))
        return apart[k] if key == first and asked.count((key, k)) == 1 else 3e-3

    runs = [
        measure_rounds(some, output=tmp_path / "a.jsonl", rounds=3, start=process(some, time_of), progress=told.append)
        for _ in range(3)
    ]
    assert [[r.median_s for r in run.records] for run in runs] == [[None, 3e-3, 3e-3], [3e-3], []]
    assert sorted(asked) == sorted([(key, k) for key in some for k in apart] + [(first, k) for k in apart])
    assert any("rows=1" in line and "too noisy for a number [another run of 3 processes" in line for line in told)
    assert any("rows=2" in line and "3000.0 us +-" in line for line in told)


def test_rounds_of_a_killed_run_survive_a_refusal_by_a_single_process(tmp_path):
    """One round is done, then `--rounds 1` is refused as too noisy: the finished round is used, and told."""
    some, told = points(1), []
    append_record(tmp_path / "a.jsonl.rounds" / "round-1.jsonl", record(next(iter(some.values())), 1e-3))
    append_record(tmp_path / "a.jsonl", record(next(iter(some.values())), None))
    start = process(some, lambda key, k: 2e-3)
    (found,) = measure_rounds(some, output=tmp_path / "a.jsonl", rounds=3, start=start, progress=told.append).records
    assert found.rounds_s == (1e-3, 2e-3, 2e-3)
    assert any(line.startswith("round 1 of 3: ") and "round-1.jsonl" in line for line in told)


def test_noisy_rounds_are_measured_again_once_and_named(tmp_path):
    some, asked = points(2), []
    first = next(iter(some))

    def time_of(key, k):
        asked.append((key, k))
        return None if key == first and (k == 3 or asked.count((key, k)) == 1) else 1e-3

    found = measure_rounds(some, output=tmp_path / "a.jsonl", rounds=3, start=process(some, time_of))
    bad, good = sorted(found.records, key=lambda r: r.median_s is not None)
    assert "2 of 3 processes gave a number, 3 needed: other processes used 50 % of the cores" in bad.marks[0]
    assert good.median_s == 1e-3
    assert asked.count((first, 3)) == 2


def test_a_killed_run_goes_on_and_a_finished_one_measures_nothing(tmp_path):
    some, started = points(4), []
    whole = process(some, lambda key, k: 1e-3)

    def dying(file, limit_s):
        started.append(file.stem)
        if file.stem == "round-2":
            raise KeyboardInterrupt
        return whole(file, limit_s)

    with pytest.raises(KeyboardInterrupt):
        measure_rounds(some, output=tmp_path / "a.jsonl", rounds=3, start=dying)
    started.clear()
    going_on = lambda file, limit_s: (started.append(file.stem), whole(file, limit_s))[1]  # noqa: E731
    found = measure_rounds(some, output=tmp_path / "a.jsonl", rounds=3, start=going_on)
    assert started == ["round-2", "round-3"]
    assert len(found.records) == 4
    assert measure_rounds(some, output=tmp_path / "a.jsonl", rounds=3, start=going_on).records == ()
    assert started == ["round-2", "round-3"]


def test_points_that_a_round_did_not_reach_are_left(tmp_path):
    """The time is up in round 2 after one of three points: that one has a record, two are left."""
    some, now = points(3), [0.0]

    def start(file, limit_s):
        reached = dict(list(some.items())[: 3 if file.stem == "round-1" else 1])
        now[0] += 10.0
        assert limit_s == pytest.approx({"round-1": 10.0, "round-2": 10.0, "round-3": 10.0}[file.stem])
        return process(reached, lambda key, k: 1e-3)(file, limit_s)

    found = measure_rounds(
        some, output=tmp_path / "a.jsonl", rounds=3, start=start, time_limit_s=30.0, clock=lambda: now[0]
    )
    assert (len(found.records), found.left) == (1, 2)


def test_two_rounds_are_refused_and_a_broken_process_is_named(tmp_path):
    with pytest.raises(MeasurementError, match="2 rounds: expected 1"):
        measure_rounds(points(1), output=tmp_path / "a.jsonl", rounds=2, start=lambda file, limit_s: 0)
    with pytest.raises(MeasurementError, match="round 1 ended with status 70"):
        measure_rounds(points(1), output=tmp_path / "a.jsonl", rounds=3, start=lambda file, limit_s: 70)


def test_the_quickest_process_gives_the_number(tmp_path):
    some = points(1)
    files = [tmp_path / f"{k}.jsonl" for k in range(4)]
    for file, time_s in zip(files, (1.01e-3, 1.00e-3, 1.03e-3, 1.04e-3), strict=True):
        append_record(file, record(next(iter(some.values())), time_s))
    (found,) = combine_rounds([read_baseline(file) for file in files], some, asked=4).records
    assert found.median_s == pytest.approx(1.00e-3)
    assert found.rounds_s == (1.00e-3, 1.01e-3, 1.03e-3, 1.04e-3)
    assert found.n == 44


def process_file(times, **changes):
    """Points 0, 1, ... of one process, with these medians; None: not reached."""
    found = [record(point, time_s) for point, time_s in zip(points(len(times)).values(), times, strict=True) if time_s]
    return Baseline(records=tuple(replace(one, **changes) for one in found))


def test_a_clock_that_was_held_down_keeps_the_spread_wide():
    """Three equal processes: 3 % where the clock was free, 15 % where one of them met the power limit."""
    calm, capped = process_file([1e-3]), process_file([1e-3], marks=("software power cap",))
    for third, floor in ((calm, REPEAT_FLOOR), (capped, HELD_DOWN_FLOOR)):
        (found,) = combine_processes([calm, calm, third])
        assert found.spread.stated_s == pytest.approx(floor * 1e-3)
        assert found.marks == third.records[0].marks


def test_what_the_host_paces_has_a_gap_of_its_own():
    """Nine replayed points without a gap, nine launched ones with gaps of 0.1 (in logs): neither widens the other."""
    graph = [process_file([1e-3] * 9, mode=Mode.GRAPH) for _ in range(3)]
    eager = [process_file([1e-3 * math.exp(0.1 * k)] * 9) for k in range(3)]
    files = [Baseline(records=g.records + e.records) for g, e in zip(graph, eager, strict=True)]
    for one in combine_processes(files):
        # common gap 0.1 / ln 2 in four of five parts, times ln 20 x 2/3
        apart = math.exp((0.1 + 4 * 0.1 / math.log(2)) / 5 * math.log(20) * 2 / 3) - 1
        assert one.spread.stated_s / 1e-3 == pytest.approx(REPEAT_FLOOR if one.mode is Mode.GRAPH else apart)
        assert (one.median_s is None) == (apart > 0.25 and one.mode is Mode.EAGER)


def test_processes_are_combined_as_far_as_they_reached():
    files = [process_file([1.0e-3, 2e-3, 3e-3]), process_file([1.01e-3, 2e-3]), process_file([1.02e-3])]
    assert [len(r.rounds_s) for r in combine_processes(files, least=2)] == [3, 2]
    assert [len(r.rounds_s) for r in combine_processes(files)] == [3]


def test_the_mark_of_a_single_process_goes_with_it():
    files = [process_file([1e-3], marks=(ONE_PROCESS, "another")) for _ in range(3)]
    (found,) = combine_processes(files)
    assert found.marks == ("another",)
