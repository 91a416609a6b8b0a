"""Every shipped measurement against the physical bound of what it did, and the bounds against work and peaks."""

from collections.abc import Mapping
from math import inf

import pytest
import torch

from sim.baseline.ops import WINOGRAD_GAIN, op_spec
from sim.baseline.peaks import GPU_PEAKS, bound_s, cpu_peaks
from sim.baseline.record import BaselineRecord, Kind, Phase, read_baseline
from sim.baseline.workloads import workload_work
from sim.resources import data_dir

FILES = sorted(data_dir("baselines").glob("*.jsonl"))

EXCEPTIONS: Mapping[str, str] = {}
"""Key of a record that beats its bound -> why it may. None does: cold operands are rotated, and work counts no byte
twice."""

UNBOUNDED = {"detr": "its work could not be counted in inference mode when the CPUs were measured"}
"""Workload without a bound in the files of CPUs -> why; checked below at a clock that no core of them reaches."""


def records(file) -> list[BaselineRecord]:
    return list(read_baseline(file).latest.values())


def test_cpus_and_a_gpu_are_measured() -> None:
    backends = {file.stem: {r.backend for r in records(file)} for file in FILES}
    assert backends["nvidia-h200"] == {"cuda"}
    assert sum(found == {"cpu"} for found in backends.values()) == 3


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_no_measured_time_beats_its_physical_bound(file) -> None:
    """Of no process that measured it, with a number or without."""
    found = [r for r in records(file) if r.bound_s is not None]
    assert len(found) >= 100
    assert all(r.kind is Kind.MEASURED for r in found)
    times = {r.key: [*r.rounds_s, *([] if r.median_s is None else [r.median_s])] for r in found}
    bounds = {r.key: r.bound_s for r in found}
    assert {key for key, several in times.items() if several and min(several) < bounds[key]} == set(EXCEPTIONS)


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_records_without_a_bound_are_explained(file) -> None:
    assert {r.target for r in records(file) if r.bound_s is None and r.backend == "cpu"} <= set(UNBOUNDED)
    assert not [r.key for r in records(file) if r.bound_s is None and r.backend != "cpu"]


@pytest.mark.parametrize("file", [f for f in FILES if "nvidia" not in f.stem], ids=lambda path: path.stem)
def test_records_without_a_bound_are_above_that_of_a_faster_core(file) -> None:
    simd = "amx" if "amx" in file.stem else "avx512-zen4"
    peaks = cpu_peaks(simd=simd, cores=2, clock_hz=6e9, memory_bytes_per_s=None, cache_bytes=0)
    for record in [r for r in records(file) if r.bound_s is None]:
        with torch.inference_mode():  # as a point is measured
            work = workload_work(record.target, record.knobs, record.precision)
        assert work is not None
        rate = peaks.flop_per_s[record.precision] * work.algorithm_gain
        assert min([*record.rounds_s, record.median_s or inf]) > 2 * work.macs / rate, record.key


def test_gpu_bounds_are_those_of_the_work_at_todays_peaks() -> None:
    """Of ops the work is counted anew; networks keep theirs, and may use Winograd where they convolve."""
    for record in records(data_dir("baselines") / "nvidia-h200.jsonl"):
        if record.bound_s is None:
            continue
        gains = [1.0, WINOGRAD_GAIN]
        if record.op is not None:
            work = op_spec(record.target, record.knobs, record.precision).work
            assert dict(record.work) == work.to_dict(), record.key
            gains = [work.algorithm_gain]
        again = [
            bound_s(
                macs=record.work["macs"], in_bytes=record.work["in_bytes"], out_bytes=record.work["out_bytes"],
                precision="int4" if record.precision == "w4a16" else record.precision,
                cold=record.phase is Phase.COLD, peaks=GPU_PEAKS["H200"], algorithm_gain=gain,
            )
            for gain in gains
        ]  # fmt: skip
        assert any(one == pytest.approx(record.bound_s, rel=1e-9) for one in again), record.key


def test_what_streams_from_memory_comes_near_its_bound() -> None:
    """A bound that no kernel approaches would catch nothing: a decoder's head and a decode's cache lie within 15 %."""
    found = records(data_dir("baselines") / "nvidia-h200.jsonl")
    near = {r.target for r in found if r.median_s and r.bound_s and r.median_s < 1.15 * r.bound_s}
    assert {"gemm", "attention_decode"} <= near
