"""Calibration of a CPU from synthetic records: a hidden truth, noise, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sim
from sim.baseline.calibrate import calibrate, held_out
from sim.baseline.cpu_rows import tabulate
from sim.baseline.record import BaselineRecord, Kind, append_record
from sim.baseline.residuals import conformal_score, coverage, likeliest_parts
from sim.cost.cpu import CLASSES, CpuConstants, CpuMachine, CpuWork, cpu_time, work_from_rows
from sim.errors import CalibrationError, MeasurementError
from sim.hardware.calibration import Calibration, Residuals, calibration_from_dict, read_calibration, write_calibration
from sim.workload.graph import Graph

TRUTH = replace(
    CpuConstants.datasheet(), host_s=8e-6, gemm_word=0.7, half_efficiency=0.6, fill_k=20.0, pack_word=1.0,
    pack_narrow=2.0, vector_efficiency=0.3, dram_efficiency=0.75, cache_share=0.6,
    cache_bytes_per_clock_core=12.0, overlap=2.0,
)  # fmt: skip
NOISE = 0.03


def record(op: str | None = None, workload: str | None = None, precision: str = "fp32", **knobs) -> BaselineRecord:
    return BaselineRecord(
        device="xeon-spr", backend="cpu", kind=Kind.MEASURED, op=op, workload=workload, knobs=knobs,
        precision=precision, median_s=1.0, n=9, threads=56,
    )  # fmt: skip


@cache
def _graph(name: str, knobs: tuple) -> Graph:
    values = dict(knobs)
    if name == "gemm":
        return sim.gemm(values["m"], values["n"], values["k"], dtype="fp32")
    return sim.load_workload("mlp", **values)


def graph_of(one: BaselineRecord) -> Graph:
    return _graph(one.target, tuple(sorted(one.knobs.items())))


def ops() -> list[BaselineRecord]:
    sizes = [(n, k) for n in (64, 256, 1024, 4096) for k in (64, 512, 2048)]
    return [
        record("gemm", m=m, n=n, k=k, precision=p) for n, k in sizes for m in (1, 64, 1024) for p in ("fp32", "bf16")
    ]


def models() -> list[BaselineRecord]:
    """Four widths stand for four models."""
    return [record(workload=f"mlp{w}", batch=b, hidden=w) for b in (1, 16, 64) for w in (128, 512, 1024, 2048)]


def measured(records: list[BaselineRecord], seed: int) -> list[BaselineRecord]:
    """Records as a machine with the constants `TRUTH` would give them, with log-normal noise."""
    times = tabulate(records, sim.load_hardware("xeon-spr"), graph_of).predict_s(TRUTH)
    noise = np.random.default_rng(seed).normal(0.0, NOISE, len(records))
    return [replace(r, median_s=float(t * math.exp(e))) for r, t, e in zip(records, times, noise, strict=True)]


def write(path: Path, records: list[BaselineRecord]) -> Path:
    for one in records:
        append_record(path, one)
    return path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Calibration:
    path = write(tmp_path_factory.mktemp("baseline") / "xeon-spr.jsonl", measured(ops() + models(), seed=1))
    return calibrate("xeon-spr", baseline=path, graph_of=graph_of)


def test_the_hidden_truth_is_found(fitted):
    """What the rows pin down comes back: large products pin the efficiency, small ones the host's gap."""
    assert fitted.constants["host_s"] == pytest.approx(TRUTH.host_s, rel=0.05)
    assert fitted.constants["gemm_word"] == pytest.approx(TRUTH.gemm_word, rel=0.1)
    assert fitted.constants["half_efficiency"] == pytest.approx(TRUTH.half_efficiency, rel=0.15)


def test_held_out_errors_are_near_the_noise(fitted):
    """The median of |N(0, 3 %)| is 2.0 %; half a point more for constants fitted on half of the families."""
    assert fitted.error["gemm"]["rows"] == len(ops())
    assert fitted.error["gemm"]["median_error"] < 0.03
    assert fitted.error["networks"]["rows"] == len(models())
    assert fitted.error["networks"]["median_error"] < 0.04
    assert (fitted.residuals.models, fitted.residuals.points) == (4, 12)
    assert fitted.residuals.covered >= 9  # 12 points at 90 %: 9 or more with 97 %


def test_intervals_cover_other_networks(fitted, tmp_path):
    """40 noisy measurements of networks that were not used: the binomial 99 % band of 90 % is 31 to 40."""
    file = tmp_path / "xeon-spr.json"
    write_calibration(file, fitted)
    chip = sim.load_hardware("xeon-spr")
    fresh = [record(workload=f"mlp{w}", batch=b, hidden=w) for b in (2, 4, 8, 32, 128) for w in (192, 256, 384, 640)]
    inside = 0
    for seed in (2, 3):
        for one in measured(fresh, seed):
            found = sim.estimate(graph_of(one), chip, precision="fp32", calibration=str(file))
            assert found.latency_interval_s is not None
            low, high = found.latency_interval_s
            assert low <= found.latency_s <= high
            inside += low <= one.median_s <= high
    assert 31 <= inside <= 40


def test_constants_without_rows_are_named(fitted):
    named = " ".join(fitted.notes)
    for name in ("conv_word", "decode_word", "parallel_share"):
        assert name in named
    assert fitted.constants["conv_word"] == pytest.approx(fitted.constants["gemm_word"], rel=1e-5)


def test_conformal_score_by_hand():
    """Nine scores: rank ceil(10 x 0.9) = 9, the largest; nineteen: rank 18; eight are too few."""
    assert conformal_score(np.arange(1.0, 10.0)) == 9.0
    assert conformal_score(np.arange(1.0, 20.0)) == 18.0
    assert conformal_score(np.arange(1.0, 9.0)) is None


def test_an_op_has_the_interval_of_its_class_by_hand():
    """Class 0.03 and op 0.04 make 0.05; with the quantile 1.6449 of the normal: 2 s times exp(-+0.0822)."""
    ops = SimpleNamespace(labels=lambda: np.array(["gemm"]), measured_s=np.array([2.1]))
    found = SimpleNamespace(residuals=Residuals(device=0.5, classes={"gemm": (0.03, 0.04)}))
    (point,) = held_out(SimpleNamespace(ops=ops, op_s=np.array([2.0]), networks=None, network_s=None), found)
    assert point.interval_s == pytest.approx((2 * math.exp(-0.082245), 2 * math.exp(0.082245)))


def test_coverage_leaves_the_model_out():
    """Forty errors of each of two models, N(0, 0.1), no gaps: a conformal score from forty (rank 37) covers 90 %, and
    an interval of +- 1.645 x 0.1 is 33 % wide."""
    rng = np.random.default_rng(0)
    error = rng.normal(0.0, 0.1, 80)
    shares = np.stack([np.ones(80), np.zeros(80), np.zeros(80)], axis=1)
    covered, width = coverage(error, shares, np.array(["a"] * 40 + ["b"] * 40))
    assert 66 <= covered <= 78  # binomial, 99 %
    assert width == pytest.approx(0.33, rel=0.25)


def test_parts_that_networks_show_are_found():
    """Errors of deviation hypot(0.05, 0.8 x share of gaps), shares 0 to 0.5: both come back within a third."""
    rng = np.random.default_rng(1)
    gaps = rng.uniform(0.0, 0.5, 400)
    error = rng.normal(0.0, np.hypot(0.05, 0.8 * gaps))
    shares = np.stack([np.ones(400), gaps, np.full(400, 1e-3)], axis=1)
    device, found, _ = likeliest_parts(error, shares)
    assert device == pytest.approx(0.05, rel=0.35)
    assert found == pytest.approx(0.8, rel=0.35)


def test_documents_round_trip(fitted, tmp_path):
    write_calibration(tmp_path / "a.json", fitted)
    assert read_calibration(tmp_path / "a.json") == fitted
    with pytest.raises(CalibrationError, match='Did you mean "residuals"'):
        calibration_from_dict(fitted.to_dict() | {"residual": {}}, "here")


def test_too_few_records(tmp_path):
    path = write(tmp_path / "xeon-spr.jsonl", ops()[:10])
    with pytest.raises(CalibrationError, match="10 records"):
        calibrate("xeon-spr", baseline=path, graph_of=graph_of)
    with pytest.raises(CalibrationError, match="there is no such file; measure first"):
        calibrate("xeon-spr", baseline=tmp_path / "none.jsonl", graph_of=graph_of)


def test_records_of_another_device_and_contradictions(tmp_path):
    path = write(tmp_path / "a.jsonl", [replace(r, device="epyc-zen4") for r in ops()])
    with pytest.raises(CalibrationError, match="records of epyc-zen4"):
        calibrate("xeon-spr", baseline=path, graph_of=graph_of)
    path = write(tmp_path / "b.jsonl", ops() + [replace(r, median_s=2.0) for r in ops()])
    with pytest.raises(CalibrationError, match="72 of 72 repeated points"):
        calibrate("xeon-spr", baseline=path, graph_of=graph_of)
    with pytest.raises(CalibrationError, match="costed by gpu_kernels"):
        calibrate("h100-sxm", baseline=path, graph_of=graph_of)
    path = write(tmp_path / "c.jsonl", [replace(r, backend="cuda") for r in ops()])
    with pytest.raises(CalibrationError, match="xeon-spr are of another kind of machine: expected backend cpu"):
        calibrate("xeon-spr", baseline=path, graph_of=graph_of)


def test_points_that_cannot_be_are_left_out_and_told(tmp_path):
    """One of 84 points below its bound, and an imported layer: the fit is that of the others. With nine of ten the file
    is refused, and an op that nobody knows is named with its file."""
    good, said = measured(ops() + models(), seed=1), []
    layer = replace(record("conv1 + relu"), kind=Kind.IMPORTED, median_s=1e-3)
    odd = [replace(good[0], median_s=1e-9, bound_s=1e-6, knobs={**good[0].knobs, "m": 2}), layer]
    path = write(tmp_path / "a.jsonl", [*good, *odd])
    found = calibrate("xeon-spr", baseline=path, graph_of=graph_of, note=said.append)
    plain = calibrate("xeon-spr", baseline=write(tmp_path / "b.jsonl", good), graph_of=graph_of)
    assert found.constants == plain.constants
    assert said[0] == f"{path}: 1 imported records left out: a profile's layers state no shapes to fit"
    assert "1 of 85 records lie below their physical bound, the first gemm" in said[1]
    bad = [replace(r, bound_s=10 * r.median_s) for r in good]
    with pytest.raises(CalibrationError, match="84 of 84 records lie below their physical bound"):
        calibrate("xeon-spr", baseline=write(tmp_path / "c.jsonl", bad))
    unknown = replace(good[0], op="gem")
    with pytest.raises(MeasurementError, match=r'd\.jsonl: gem .*: op "gem" is unknown'):
        calibrate("xeon-spr", baseline=write(tmp_path / "d.jsonl", [unknown, *good]))


def test_a_calibration_of_another_costing_is_refused(fitted, tmp_path):
    write_calibration(tmp_path / "a.json", replace(fitted, costing="gpu_kernels"))
    with pytest.raises(CalibrationError, match="constants of gpu_kernels"):
        sim.estimate(_graph("gemm", (("k", 64), ("m", 64), ("n", 64))), sim.load_hardware("xeon-spr"),
                     calibration=str(tmp_path / "a.json"))  # fmt: skip
    with pytest.raises(CalibrationError, match='no calibration "elsewhere"'):
        sim.estimate(_graph("gemm", (("k", 64), ("m", 64), ("n", 64))), sim.load_hardware("xeon-spr"),
                     calibration="elsewhere")  # fmt: skip


def _one(kind: str = "gemm", **columns: float) -> CpuWork:
    return work_from_rows([{"kind": CLASSES.index(kind), **columns}])


MACHINE = CpuMachine(
    name="cpu", cores=4, threads=4, clock_hz=1e9, dram_bytes_per_s=1e10, cache_bytes=1e6, private_bytes=0.0,
    private_bytes_per_clock=0.0,
)  # fmt: skip


def test_products_by_hand():
    """40 ms of one core at efficiency 0.5 on 4 cores: 20 ms, plus two calls of 10 us. With half of it serial:
    0.08 (0.5 + 0.5 / 4) = 50 ms. A reduction as long as `fill_k` takes twice as long. 4e6 weights packed at one a
    clock: 1 ms. 100 MB of weights at 0.5 of 10 GB/s: 20 ms alone."""
    half = replace(CpuConstants.datasheet(), gemm_word=0.5, host_s=1e-5)
    product = _one(macs=1e9, matrix_s=4e-2, calls=2)
    assert cpu_time(product, MACHINE, half).total_s == pytest.approx([0.02002])
    serial = cpu_time(product, MACHINE, replace(half, parallel_share=0.5), host=False)
    assert serial.total_s == pytest.approx([0.05])
    short = cpu_time(_one(matrix_s=4e-2, reduction=16.0), MACHINE, replace(half, fill_k=16.0), host=False)
    assert short.total_s == pytest.approx([0.04])
    packed = cpu_time(_one(packed=4e6), MACHINE, replace(half, pack_word=1.0), host=False)
    assert packed.total_s == pytest.approx([1e-3])
    moved = cpu_time(_one(held_bytes=1e8), MACHINE, replace(half, dram_efficiency=0.5), host=False)
    assert moved.total_s == pytest.approx([0.02], rel=1e-5)


def test_one_row_is_a_stream_on_the_threads_that_it_gets():
    """1e8 weights (0.4 GB) in one row at a quarter of 10 GB/s, which is what one of four threads asks for: 160 ms. On
    all four threads: a quarter of that."""
    row = _one(streamed=1e8, held_bytes=4e8, cycle_bytes=np.inf)
    alone = replace(CpuConstants.datasheet(), one_row_share=0.0)
    assert cpu_time(row, MACHINE, alone, host=False).total_s == pytest.approx([0.16])
    spread = replace(alone, one_row_share=1.0)
    assert cpu_time(row, MACHINE, spread, host=False).total_s == pytest.approx([0.04])


def test_what_one_core_draws_does_not_shrink_beside_cores_that_nobody_measured():
    """0.4 GB at half of 10 GB/s, what one of the two cores drew on which it was fitted: 80 ms, on 64 threads as
    on one; with half of it spread, 40 + 20 ms. Of what a cache holds, one core gets the rate of its own port as before.
    """
    fitted, c = replace(MACHINE, fitted_threads=2), replace(CpuConstants.datasheet(), one_row_share=0.0)
    row = _one(streamed=1e8, held_bytes=4e8, cycle_bytes=np.inf)
    for threads in (1, 2, 4, 64):
        machine = replace(fitted, threads=threads, cores=64)
        assert cpu_time(row, machine, c, host=False).total_s == pytest.approx([0.08])
    half = replace(c, one_row_share=0.5)
    assert cpu_time(row, fitted, half, host=False).total_s == pytest.approx([0.04 + 0.02])
    near, cached = _one(streamed=1e3, held_bytes=4e3), replace(c, cache_share=1.0, cache_bytes_per_clock_core=16.0)
    times = [cpu_time(near, one, cached, host=False).total_s for one in (MACHINE, fitted)]
    assert times[0] == times[1] > 0


def test_more_cores_of_a_fitted_cpu_are_no_slower():
    """A vocabulary's product with one row streams its weights: more cores share them, on chips fitted on a few."""
    graph = sim.gemm(1, 50257, 768, dtype="fp32")
    for name in ("epyc-zen4", "xeon-emr-2c"):
        chips = [sim.load_hardware(name, {"core.count": n}) for n in (1, 2, 4, 8, 64)]
        times = [sim.estimate(graph, chip, precision="fp32", inputs="resident").latency_s for chip in chips]
        assert times == sorted(times, reverse=True)


def test_the_host_pays_for_calls_modules_and_primitives():
    """2 calls of 3 us, one from Python at 7 us, 4 primitives of 10 us: 53 us; compiled, nothing."""
    c = replace(CpuConstants.datasheet(), host_s=3e-6, module_s=7e-6, primitive_s=10e-6)
    row = _one("conv", calls=2.0, module_calls=1.0, primitives=4.0)
    assert cpu_time(row, MACHINE, c).host_s == pytest.approx([53e-6])
    assert cpu_time(row, MACHINE, c, host=False).host_s == [0.0]


def test_layouts_and_scalar_work_by_hand():
    """1e6 elements at 4 clocks: 1 ms on four cores; 2e6 compares at 2 clocks, as long; on one thread where the work is
    worth no more."""
    c = replace(CpuConstants.datasheet(), layout_clocks=4.0, compare_clocks=2.0)
    assert cpu_time(_one("movement", permuted=1e6), MACHINE, c, host=False).memory_s == pytest.approx([1e-3])
    assert cpu_time(_one("vector", compares=2e6), MACHINE, c, host=False).vector_s == pytest.approx([1e-3])
    assert cpu_time(_one("vector", compares=2e6, grains=1.0), MACHINE, c, host=False).vector_s == pytest.approx([4e-3])


def test_caches_by_hand():
    """1 MB that fits the whole 10 MB share: at 10 B a clock and core, 25 us on four cores; 100 MB come from DRAM."""
    machine = replace(MACHINE, cache_bytes=1e7)
    c = replace(CpuConstants.datasheet(), cache_share=1.0, cache_bytes_per_clock_core=10.0)
    near = cpu_time(_one("vector", passing_bytes=1e6, passing_cycle_bytes=1e6), machine, c, host=False)
    assert near.total_s == pytest.approx([25e-6], rel=1e-3)
    far = cpu_time(_one("vector", passing_bytes=1e8, passing_cycle_bytes=1e8), machine, c, host=False)
    assert far.far_bytes == pytest.approx([1e8], rel=1e-3)
    assert far.total_s == pytest.approx([0.01], rel=1e-3)
    others = cpu_time(_one("vector", passing_bytes=1e6, passing_cycle_bytes=1e8), machine, c, host=False)
    assert others.far_bytes == pytest.approx([1e6], rel=1e-3)  # small, but 100 MB of others pass between two uses


def test_terms_sum_and_datasheet_is_the_bound():
    """With the data sheet's constants an op is never below the larger of its lanes and its bytes."""
    work = _one("vector", lanes_s=4e-2, passing_bytes=1.2e8)
    time = cpu_time(work, MACHINE, CpuConstants.datasheet())
    assert time.total_s >= 1.2e-2 * (1 - 1e-6)
    parts = time.host_s + time.compute_s + time.vector_s + time.border_s + time.memory_s
    assert time.total_s == pytest.approx(parts)


OWN_OPS = """
schema: dovetail.grid/1
name: own-ops
points:
  - op: gemm
    precision: [fp32, bf16]
    mode: [eager]
    phase: [warm]
    product: {m: [1, 8, 64, 256], n: [64, 256, 1024], k: [64, 512, 2048]}
"""
OWN_MODELS = """
schema: dovetail.grid/1
name: own-models
points:
  - workload: mlp
    precision: [fp32]
    mode: [eager]
    phase: [warm]
    product: {batch: [1, 4, 16, 64], hidden: [128, 512, 1024]}
"""


def test_one_command_measures_fits_and_says_how_to_use_it(tmp_path, monkeypatch):
    """`dovetail calibrate --device cpu` on a machine that no bundled chip describes, its clock replaced by a rule:
    10 us a call and 50 GMAC/s. The files that it writes give an estimate."""
    from typer.testing import CliRunner

    import sim.baseline.runner
    import sim.cli.calibrate
    from sim.baseline.device import CpuDevice
    from sim.cli import app

    def by_rule(point, machine, run):
        del run
        macs = math.prod(point.knobs[name] for name in "mnk") if point.op else point.knobs["batch"] * 1e6
        calls = 1 if point.op else 5
        return BaselineRecord(
            device=machine.key, backend="cpu", kind=Kind.MEASURED, op=point.op, workload=point.workload,
            knobs=point.knobs, precision=point.precision, threads=machine.threads,
            median_s=calls * 1e-5 + macs / 5e10, n=3,
        )  # fmt: skip

    started = CpuDevice.__init__

    def unknown(self, *words, **options):
        started(self, *words, **options)
        self.key, self.simd = "some-cpu-avx512", "avx512"

    for name, text in (("ops", OWN_OPS), ("models", OWN_MODELS)):
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(CpuDevice, "__init__", unknown)
    monkeypatch.setattr(sim.baseline.runner, "measure_point", by_rule)
    monkeypatch.setattr(sim.baseline.runner, "prepare_process", lambda machine: None)
    monkeypatch.setattr(sim.cli.calibrate, "GRIDS", {"cpu": (("ops.yaml", 600.0), ("models.yaml", 600.0))})
    done = CliRunner().invoke(app, ["calibrate", "--device", "cpu", "--figure", "held-out.png"])
    assert done.exit_code == 0, done.output
    assert "--hw some-cpu-avx512.yaml --calibration some-cpu-avx512.json" in done.stderr
    assert "72 ops and 12 whole networks" in done.stderr
    assert (tmp_path / "held-out.png").is_file()
    words = "estimate mlp -p batch=64 --precision fp32 --no-what-if --json --hw some-cpu-avx512.yaml".split()
    found = CliRunner().invoke(app, [*words, "--calibration", "some-cpu-avx512.json"])
    assert found.exit_code == 0, found.output
    assert '"device": "some-cpu-avx512"' in found.stdout

    def refused(point, machine, run):
        raise MeasurementError("not on this machine")

    file = tmp_path / "baselines" / "some-cpu-avx512.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    monkeypatch.setattr(sim.baseline.runner, "measure_point", refused)
    again = CliRunner().invoke(app, ["calibrate", "--device", "cpu"])  # all that is left has no number: fits the others
    assert "1 skipped" in again.stderr
    assert again.exit_code == 0, again.output
    assert "71 ops and 12 whole networks" in again.stderr


@pytest.mark.parametrize("clock_hz", [2.504e9, 5.287e9])
@pytest.mark.parametrize("simd", ["avx512", "avx2"])
def test_a_machine_of_any_clock_has_a_description(simd, clock_hz, monkeypatch):
    """Templates have 5 and 3.7 GHz at most: a faster machine of the class is one all the same."""
    from sim.baseline.device import CpuDevice
    from sim.baseline.own_chip import own_chip

    machine = CpuDevice(threads=1)
    monkeypatch.setattr(CpuDevice, "best_clock_hz", clock_hz)
    machine.key, machine.simd = "some-cpu", simd
    found = own_chip(machine)
    assert found.clock_hz == clock_hz // 1e7 * 1e7  # stated to 10 MHz
    assert found.technology.max_clock_hz == max(found.clock_hz, {"avx512": 5e9, "avx2": 3.7e9}[simd])


def test_a_device_without_a_chip_is_told_which_were_measured():
    with pytest.raises(CalibrationError, match=r'device "nvidia-h20": .*Did you mean "nvidia-h200"\?'):
        calibrate("nvidia-h20")
