"""Rounds: every point in several fresh processes, minutes apart, and what these say about one more run.

A process sees its own scatter alone. Address-space layout, the clock under a hypervisor and what else runs differ
between processes, so that the spread a record states comes from between them: round 1 over all points, then
round 2, and so on, each in a process of its own.

What others do on the machine only ever delays: of the medians of a point's rounds the least is the time of the work,
the rest came late (Chen and Revels, "Robust benchmarking in noisy environments", 2016, arXiv 1608.04295). How far the
second came after it says how far another run's least may lie: with lateness exponential of mean theta (in logs), that
gap has mean theta / (n - 1), and the least of another n rounds differs by more than w with probability exp(-n w /
theta). (Noise to both sides, normal, has wider gaps for its least: there the interval holds 98 %.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path
from statistics import median

from sim.baseline.grid import Point
from sim.baseline.nvml import held_down
from sim.baseline.record import Baseline, BaselineRecord, Mode, append_record, claimed, read_baseline
from sim.baseline.runner import ONE_PROCESS, describe
from sim.baseline.timing import HELD_DOWN_FLOOR, REPEAT_FLOOR, Plan
from sim.errors import MeasurementError

LEAST_ROUNDS = 3
"""Processes below which no spread between them is stated."""
PRIOR_GAPS = 4
"""Weight of the gap that all points of a run have in common beside a point's own one: a single gap says little (as a
moderated variance: Smyth 2004, Statistical Applications in Genetics 3)."""
PASSES = 2
"""How often a round is started: the second time for the points that were too noisy the first time."""

Start = Callable[[Path, float | None], int]
"""Measures all points into a file in a fresh process, within seconds if given; its exit status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """What the rounds say: one record a point, and the points that too few of them reached."""

    records: tuple[BaselineRecord, ...]
    left: int


def gap(values: Sequence[float]) -> float:
    """By how much the second quickest round is later than the quickest, in logs."""
    first, second = sorted(values)[:2]
    return log(second / first)


def common_gap(rounds_s: Sequence[Sequence[float]]) -> float:
    """The mean gap of a run's points, from their median (ln 2 of the mean); 0 without any of several rounds."""
    several = [gap(values) for values in rounds_s if len(values) > 1]
    return median(several) / log(2) if several else 0.0


def repeat_spread(values: Sequence[float], common: float, confidence: float = 0.95) -> float:
    """Relative half-width within which the least of another run of as many rounds lies with this confidence.

    ln(1 / (1 - confidence)) (n - 1) / n of the gap, the point's own and `PRIOR_GAPS` common ones.
    Example: n = 3 rounds, gaps of 0.03: 3.0 x 2 / 3 x 0.03 in logs, +6.2 %.
    """
    n = len(values)
    mean = (gap(values) + PRIOR_GAPS * common) / (1 + PRIOR_GAPS)
    return exp(mean * -log(1 - confidence) * (n - 1) / n) - 1


def combine(
    records: Sequence[BaselineRecord], common: float, *, limit: float, asked: int, least: int = LEAST_ROUNDS
) -> BaselineRecord:
    """One record of a point from its rounds, noisy ones included: the quickest, with the spread between all of them.
    No number where fewer than `least` rounds have one, or the spread is wider than `limit`. A round in which the
    driver held the clock down keeps the spread at HELD_DOWN_FLOOR: the next run may see the boost clock, or never."""
    good = sorted((r for r in records if r.median_s is not None), key=lambda r: r.median_s or 0.0)
    times = [float(r.median_s or 0.0) for r in good]
    if len(good) < least:
        reasons = dict.fromkeys(mark for r in records if r.median_s is None for mark in r.marks)
        why = f"{len(good)} of {asked} processes gave a number, {least} needed: {'; '.join(reasons)}"
        return replace(records[-1], median_s=None, noisy=True, marks=(why,), rounds_s=tuple(times))
    best = good[0]
    time_s = times[0]
    marks = tuple(dict.fromkeys(mark for r in good for mark in r.marks if mark != ONE_PROCESS))
    between = repeat_spread(times, common)
    relative = max(HELD_DOWN_FLOOR if held_down(marks) else REPEAT_FLOOR, between)
    assert best.spread is not None
    spread = replace(best.spread, stated_s=relative * time_s, within_s=best.spread.stated_s)
    noise = f"another run of {len(times)} processes would lie within +-{relative:.0%}, limit {limit:.0%}"
    noisy = relative > limit
    dates = sorted(r.date for r in good)
    return replace(
        best, median_s=None if noisy else time_s, spread=spread, noisy=noisy, rounds_s=tuple(times),
        n=sum(r.n for r in good), outliers_s=tuple(s for r in good for s in r.outliers_s),
        marks=(noise, *marks) if noisy else marks, date=dates[-1],
        method=f"least of the medians of {len(times)} processes from {dates[0]} to {dates[-1]}; {best.method}",
    )  # fmt: skip


def combine_rounds(rounds: Sequence[Baseline], points: Mapping[str, Point], *, asked: int) -> Combined:
    """The points (key -> point) that the rounds hold, in their order. A point that fewer rounds reached than asked
    is left for the next run."""
    latest = [r.latest for r in rounds]
    found = {key: [r[key] for r in latest if key in r] for key in points}
    reached = {key: records for key, records in found.items() if len(records) == asked}
    common = _common_gaps(reached.values(), LEAST_ROUNDS)
    combined = tuple(
        combine(records, common[records[0].mode], limit=points[key].plan.between_limit, asked=asked)
        for key, records in reached.items()
    )
    return Combined(records=combined, left=len(points) - len(reached))


def _common_gaps(points: Iterable[Sequence[BaselineRecord]], least: int) -> Mapping[Mode, float]:
    """By mode: what is launched call by call depends on the host, whose pace a replayed graph does not feel."""
    values: dict[Mode, list[list[float]]] = {}
    for records in points:
        numbers = [float(r.median_s) for r in records if r.median_s is not None]
        values.setdefault(records[0].mode, []).extend([numbers] if len(numbers) >= least else [])
    return {mode: common_gap(several) for mode, several in values.items()}


def combine_processes(processes: Sequence[Baseline], *, least: int = LEAST_ROUNDS) -> tuple[BaselineRecord, ...]:
    """Files of single processes as one record a point, in the order of the first: for runs on a machine that gave no
    time for `measure_rounds`. Points that fewer than `least` processes reached stay out.

    The common gap of points that n processes reached is that of these points: it shrinks with n.
    """
    latest = [process.latest for process in processes]
    keys = dict.fromkeys(key for one in latest for key in one)
    found = {key: [one[key] for one in latest if key in one] for key in keys}
    common = {
        n: _common_gaps((records for records in found.values() if len(records) == n), least)
        for n in range(least, len(processes) + 1)
    }
    limit = Plan().between_limit
    return tuple(
        combine(records, common[len(records)][records[0].mode], limit=limit, asked=len(records), least=least)
        for records in found.values()
        if len(records) >= least
    )


def measure_rounds(
    points: Mapping[str, Point], *, output: Path, rounds: int, start: Start, command: str = "",
    progress: Callable[[str], None] = lambda line: None, time_limit_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Combined:  # fmt: skip
    """Measure what `output` lacks in `rounds` processes, and append one record a point.

    Each round has a file of its own in `<output>.rounds/`, so that a killed run goes on where it stopped; points
    that were too noisy are measured again once. What lies there is used again, and told: remove the folder to start
    anew. The rounds of a point that `output` refuses for them are used up, so that running again measures it again.

    Raises: MeasurementError: too few rounds, a file that cannot be written, or a process that ended badly and left
        nothing.
    """
    if rounds < LEAST_ROUNDS:
        raise MeasurementError(
            f"{rounds} rounds: expected 1 (one process, no spread between), or {LEAST_ROUNDS} and more"
        )
    with claimed(output, progress):
        return _measure_rounds(points, output, rounds, start, command, progress, time_limit_s, clock)


def _measure_rounds(
    points: Mapping[str, Point], output: Path, rounds: int, start: Start, command: str,
    progress: Callable[[str], None], time_limit_s: float | None, clock: Callable[[], float],
) -> Combined:  # fmt: skip
    held = read_baseline(output)
    held.name_broken(progress)
    finished = held.finished
    missing = {key: point for key, point in points.items() if key not in finished}
    if not missing:
        return Combined(records=(), left=0)
    folder = output.with_name(output.name + ".rounds")
    files = [folder / f"round-{k}.jsonl" for k in range(1, rounds + 1)]
    for file in files:
        _forget_refused(file, {key: record for key, record in held.latest.items() if key in missing}, progress)
    begun = clock()
    for number, file in enumerate(files * PASSES):
        if missing.keys() <= read_baseline(file).finished:
            if number < rounds:
                progress(f"round {number + 1} of {rounds}: {file} has it; remove it to measure anew")
            continue
        left_s = None if time_limit_s is None else time_limit_s - (clock() - begun)
        if left_s is not None and left_s <= 0:
            break
        again = " again, points that were too noisy" if number >= rounds else ""
        progress(f"round {number % rounds + 1} of {rounds}{again}: a fresh process")
        share = None if left_s is None else left_s / (rounds - number if number < rounds else 1)
        status = start(file, share)
        if status not in (0, 1) and not read_baseline(file).records:
            raise MeasurementError(f"the process of round {number % rounds + 1} ended with status {status}; see above")
    combined = combine_rounds([read_baseline(file) for file in files], missing, asked=rounds)
    for record in combined.records:
        append_record(output, replace(record, command=command or record.command))
        progress(f"{points[record.key]}: {describe(record)}")
    return combined


def _forget_refused(file: Path, refused: Mapping[str, BaselineRecord], progress: Callable[[str], None]) -> None:
    """Take out of a round's file what a record without a number was made of, else it would be made of the same for
    ever. By a rename: a run killed here leaves the old file or the new one."""
    if not file.exists():
        return
    with claimed(file, progress):  # what a killed run left running may still write into it
        records = read_baseline(file).records
        used = {key: {None, *record.rounds_s} for key, record in refused.items()}
        kept = [r for r in records if r.median_s not in used.get(r.key, ())]
        if len(kept) < len(records):
            anew = file.with_suffix(".anew")
            anew.write_text("")
            for record in kept:
                append_record(anew, record)
            anew.replace(file)
