"""Fitting a GPU that a framework drives op by op: synthetic records of a known truth, and profiles of its kernels."""

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import sim
from sim.baseline.calibrate import calibrate
from sim.baseline.gpu_rows import EAGER_GPU, kernel_sums, profile_sums, tabulate
from sim.baseline.own_chip import own_gpu
from sim.baseline.record import BaselineRecord, Kind, Mode, append_record
from sim.cost.gpu.eager import EagerConstants
from sim.errors import CalibrationError
from sim.hardware.dump import dump
from sim.resources import data_dir

TRUTH = replace(
    EagerConstants.datasheet(), gap_s=4e-7, gemm_s=2e-6, gemm_efficiency=0.8, vector_s=1e-6, vector_efficiency=0.6,
    host_product_s=2e-5, host_light_s=8e-6, host_view_s=5e-7,
)  # fmt: skip
NOISE = 0.02


def record(op=None, workload=None, mode=Mode.GRAPH, **knobs) -> BaselineRecord:
    return BaselineRecord(
        device="nvidia-h200", backend="cuda", kind=Kind.MEASURED, op=op, workload=workload, knobs=knobs,
        precision="bf16", mode=mode, median_s=1.0, n=9,
    )  # fmt: skip


@cache
def _graph(name: str, knobs: tuple):
    values = dict(knobs)
    if name == "gemm":
        return sim.gemm(values["m"], values["n"], values["k"], dtype="bf16")
    return sim.load_workload("mlp", **values)


def graph_of(one: BaselineRecord):
    return _graph("gemm" if one.op else "mlp", tuple(sorted(one.knobs.items())))


def records() -> list[BaselineRecord]:
    ops = [record("gemm", m=m, n=n, k=k) for n in (256, 1024, 4096) for k in (512, 2048, 8192) for m in (1, 64, 4096)]
    models = [(w, b, mode) for w in (256, 512, 1024, 2048) for b in (1, 64, 16384) for mode in (Mode.GRAPH, Mode.EAGER)]
    return ops + [record(workload=f"mlp{w}", batch=b, hidden=w, mode=mode) for w, b, mode in models]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """Records as a machine with the constants `TRUTH` would give them, with log-normal noise; a broken line in the file
    and in that of the kernels."""
    path = tmp_path_factory.mktemp("baseline") / "nvidia-h200.jsonl"
    times = tabulate(records(), sim.load_hardware("h200-torch"), graph_of).predict_s(TRUTH)
    noise = np.random.default_rng(3).normal(0.0, NOISE, len(times))
    for one, time, error in zip(records(), times, noise, strict=True):
        append_record(path, replace(one, median_s=float(time * math.exp(error))))
    with path.open("a") as file:
        file.write('{"schema": "dovetail.baseline/1"\n')  # the run died here
    (path.parent / "kernels").mkdir()
    (path.parent / "kernels" / path.name).write_text('{"knobs": 5}\n')
    return path


def test_the_hidden_truth_is_found_and_broken_lines_are_named(baseline):
    chip, said = sim.load_hardware("h200-torch"), []
    found = calibrate("nvidia-h200", chip=chip, baseline=baseline, graph_of=graph_of, note=said.append)
    assert [line.partition(": skipped")[0] for line in said] == [
        f"{baseline}:{len(records()) + 1}", f"{baseline.parent / 'kernels' / baseline.name}:1",
    ]  # fmt: skip
    assert found.costing == "gpu_eager"
    assert found.constants["gemm_efficiency"] == pytest.approx(TRUTH.gemm_efficiency, rel=0.05)
    assert found.constants["gemm_s"] + found.constants["gap_s"] == pytest.approx(TRUTH.gemm_s + TRUTH.gap_s, rel=0.1)
    host_s = 3 * found.constants["host_product_s"] + 2 * found.constants["host_light_s"]  # a perceptron shows the sum
    assert host_s == pytest.approx(3 * TRUTH.host_product_s + 2 * TRUTH.host_light_s, rel=0.1)
    assert found.error["networks, graph"]["median_error"] < 2 * NOISE
    assert found.error["networks, eager"]["median_error"] < 2 * NOISE


def test_eager_records_take_the_longer_of_host_and_device():
    """Tiny batches: three products, two rectifiers and their views are the host's; at 262,144 rows the device's."""
    chip = sim.load_hardware("h200-torch")
    pairs = [record(workload="mlp", batch=b, hidden=256, mode=m) for b in (1, 262144) for m in (Mode.GRAPH, Mode.EAGER)]
    table = tabulate(pairs, chip, graph_of)
    small, small_eager, large, large_eager = table.predict_s(TRUTH)
    views = float((table.times.work.views * table.count)[table.owner == 1].sum())
    assert small_eager == pytest.approx(3 * TRUTH.host_product_s + 2 * TRUTH.host_light_s + views * TRUTH.host_view_s)
    assert small < small_eager
    assert large_eager == pytest.approx(large)


def test_biases_and_casts_belong_to_what_they_serve():
    kernels = [
        {"op": "aten::cudnn_convolution", "shapes": [[1, 3, 8, 8], [4, 3, 3, 3]], "us": 5.0},
        {"op": "aten::add_", "shapes": [[1, 4, 8, 8], [1, 4, 1, 1]], "us": 2.0},
        {"op": "aten::native_batch_norm", "shapes": [[1, 4, 8, 8], [4]], "us": 3.0},
        {"op": "aten::copy_", "shapes": [[4], [4]], "us": 1.0},
        {"op": "aten::add", "shapes": [[1, 4, 8, 8], [1, 4, 8, 8]], "us": 1.5},
    ]
    assert kernel_sums(kernels) == pytest.approx({"conv": 7e-6, "batch_norm": 4e-6, "other": 1.5e-6})


def test_the_bundled_profile_is_near_the_graphs_that_it_explains():
    """Kernels fill between 85 % and 101 % of a replayed graph: the rest is gaps. (An LSTM's steps overlap.)"""
    from sim.baseline.record import read_baseline

    folder = data_dir("baselines")
    graphs = {
        (r.workload, str(sorted(r.knobs.items())), r.precision): float(r.median_s)
        for r in read_baseline(folder / "nvidia-h200.jsonl").latest.values()
        if r.workload and r.mode is Mode.GRAPH and r.median_s
    }
    shares = {}
    for line in (folder / "kernels" / "nvidia-h200.jsonl").read_text().splitlines():
        found = json.loads(line)
        key = (found["workload"], str(sorted(found["knobs"].items())), found["precision"])
        shares[key] = sum(kernel_sums(found["kernels"]).values()) / graphs[key]
    assert len(shares) >= 35
    assert all(0.85 <= share <= 1.01 for key, share in shares.items() if key[0] != "lstm")


def test_a_broken_profile_is_named_and_skipped(tmp_path):
    """Lines that are no records, and fields of the wrong type; the good line between them counts."""
    table = tabulate([record(workload="mlp", batch=1, hidden=256)], sim.load_hardware("h200-torch"), graph_of)
    kernel = {"op": "aten::addmm", "shapes": [[1, 256]], "us": 40.0}
    good = {"schema": "dovetail.kernels/1", "workload": "mlp", "knobs": {"batch": 1, "hidden": 256},
            "precision": "bf16", "kernels": [kernel]}  # fmt: skip
    lines = [
        ("{", "skipped, Expecting"),
        ("[]", "expected a JSON object, found list"),
        ('{"schema": "dovetail.kernels/2"}', 'expected "dovetail.kernels/1"'),
        (json.dumps({**good, "knobs": 5}), "knobs is 5, expected a JSON object"),
        (json.dumps({**good, "kernels": [{**kernel, "us": "4"}]}), "kernels[0].us is '4', expected a number"),
        (json.dumps({**good, "kernels": [{"op": "aten::mm", "us": 1}]}), "kernels[0].shapes is missing"),
        (json.dumps({**good, "kernels": [{**kernel, "shapes": [1]}]}), "expected a list of lists"),
        (json.dumps({**good, "kernels": [{**kernel, "us": float("nan")}]}), "kernels[0].us is nan"),
    ]
    file, said = tmp_path / "kernels.jsonl", []
    file.write_text("\n".join([*(text for text, _ in lines), json.dumps(good)]) + "\n")
    found = profile_sums(file, table, said.append)
    assert found is not None
    assert found.measured_s.tolist() == pytest.approx([40e-6])
    assert len(said) == len(lines)
    for number, (line, (_, reason)) in enumerate(zip(said, lines, strict=True), 1):
        assert line.startswith(f"{file}:{number}: skipped, ")
        assert reason in line
    assert profile_sums(tmp_path / "none.jsonl", table) is None


def test_every_constant_of_the_library_has_a_range_and_a_start():
    assert set(EAGER_GPU.start) <= set(EagerConstants.__dataclass_fields__)


class Gpu:
    key = "nvidia-h100-80gb-hbm3"


def test_a_gpu_of_ones_own_is_its_chip_run_op_by_op(tmp_path):
    """Named after the machine, with the data sheet's numbers; what replaced constants of other GPUs is gone."""
    chip = own_gpu(Gpu(), sim.load_hardware("l40s"))
    assert (chip.name, chip.calibration, chip.main_unit.costing.value) == (Gpu.key, None, "gpu_eager")
    assert set(chip.main_unit.options) == {"generation"}
    file = tmp_path / "own.yaml"
    file.write_text(dump(chip))
    again = sim.load_hardware(str(file))
    found = sim.estimate(sim.gemm(512, 512, 512), again, precision="bf16", calibration="none")
    assert found.latency_s > 0
    known = Gpu()
    known.key = "nvidia-h200"
    assert own_gpu(known, None).name == "h200-torch"
    with pytest.raises(CalibrationError, match="give its description with --hw"):
        own_gpu(Gpu(), None)
    with pytest.raises(CalibrationError, match="systolic is costed by mapped"):
        own_gpu(Gpu(), sim.load_hardware("systolic"))
