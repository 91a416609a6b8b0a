"""The measuring loop with a fake measurement, and one real point without an assertion on its time."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from sim.baseline.compare import Comparison, Row, compare_records, module_times, total_row
from sim.baseline.device import open_device
from sim.baseline.grid import in_turn, make_point
from sim.baseline.record import BaselineRecord, Kind, Mode, Phase, append_record, read_baseline
from sim.baseline.runner import Origin, measure_points, origin, prepare, prepare_process, resolved
from sim.baseline.timing import Plan
from sim.cli import app
from sim.cli import measure as command
from sim.errors import MeasurementError


class FakeMachine:
    key, backend, threads = "fake", "cpu", 1


def points(count):
    plan = Plan()
    return [
        make_point(op="relu", workload=None, knobs={"rows": i + 1, "columns": 8}, precision="fp32", plan=plan)
        for i in range(count)
    ]


def fake_record(point, machine, run):
    return BaselineRecord(
        device=machine.key, backend="cpu", kind=Kind.MEASURED, op=point.op, knobs=point.knobs, precision="fp32",
        threads=machine.threads, median_s=1e-6 * point.knobs["rows"], n=11,
    )  # fmt: skip


def run_points(some, output, measure_one=fake_record, **extra):
    lines = []
    outcome = measure_points(
        some,
        machine=FakeMachine(),
        output=output,
        run=Origin(),
        progress=lines.append,
        measure_one=measure_one,
        **extra,
    )
    return outcome, lines


def test_a_killed_run_resumes_after_a_truncated_line(tmp_path):
    """Five points; the run dies while it writes the third. The second run names the broken line, skips the two that
    are finished and measures three."""
    output = tmp_path / "fake.jsonl"

    def dying(point, machine, run):
        if point.knobs["rows"] == 3:
            raise KeyboardInterrupt
        return fake_record(point, machine, run)

    with pytest.raises(KeyboardInterrupt):
        run_points(points(5), output, dying)
    with output.open("a") as file:
        file.write('{"schema":"dovetail.baseline/1","device":"fa')
    outcome, lines = run_points(points(5), output)
    assert outcome.already == 2
    assert len(outcome.records) == 3
    assert lines[0].startswith(f"{output}:3: skipped")
    assert [r.knobs["rows"] for r in read_baseline(output).records] == [1, 2, 3, 4, 5]
    assert run_points(points(5), output)[0].already == 5


def test_points_that_cannot_be_measured_are_skipped_with_the_reason(tmp_path):
    def poor(point, machine, run):
        if point.knobs["rows"] == 2:
            raise MeasurementError("too little memory: 9 GiB needed")
        return fake_record(point, machine, run)

    outcome, lines = run_points(points(3), tmp_path / "x.jsonl", poor)
    assert [(p.knobs["rows"], reason) for p, reason in outcome.skipped] == [(2, "too little memory: 9 GiB needed")]
    assert len(outcome.records) == 2
    assert "skipped, too little memory" in lines[1]


def test_the_time_limit_leaves_the_rest_for_the_next_run(tmp_path):
    """Each point takes 10 s of the fake clock; with a limit of 15 s two points are begun (at 0 and 10 s)."""
    now = [0.0]

    def slow(point, machine, run):
        now[0] += 10
        return fake_record(point, machine, run)

    outcome, lines = run_points(points(5), tmp_path / "x.jsonl", slow, time_limit_s=15.0, clock=lambda: now[0])
    assert len(outcome.records) == 2
    assert outcome.left == 3
    assert "40 s left" in lines[1]
    assert "run again" in lines[2]


def test_combinations_that_a_cpu_lacks_are_refused():
    machine = open_device("cpu", 1)
    for changes, message in (
        ({"precision": "tf32"}, "tf32"),
        ({"mode": Mode.GRAPH}, "CUDA"),
        ({"phase": Phase.COLD}, "too small"),
        ({"phase": Phase.COLD, "mode": Mode.COMPILE}, "warm|too small"),
    ):
        arguments = {
            "op": "relu",
            "workload": None,
            "knobs": {"rows": 1, "columns": 8},
            "precision": "fp32",
            "plan": Plan(),
        }
        with pytest.raises(MeasurementError, match=message):
            prepare(make_point(**{**arguments, **changes}), machine)
    gemm = make_point(op="gemm_int4", workload=None, knobs={"m": 1, "n": 64, "k": 128}, precision="w4a16", plan=Plan())
    with pytest.raises(MeasurementError, match="runs on cuda"):
        prepare(gemm, machine)


def test_too_little_memory_is_told_before_it_is_taken():
    machine = open_device("cpu", 1)
    machine.free_bytes = lambda: 10**6
    point = make_point(op="relu", workload=None, knobs={"rows": 1000, "columns": 1000}, precision="fp32", plan=Plan())
    with pytest.raises(MeasurementError, match="too little memory"):
        prepare(point, machine)


def test_a_real_point_is_recorded_whole(tmp_path, monkeypatch):
    """Whatever the machine does meanwhile: the record says what was measured, how, and on what; a number is missing
    only if it is marked noisy."""
    machine = open_device("cpu", 1)
    monkeypatch.setattr(machine, "pin", lambda: None)
    threads = torch.get_num_threads()
    prepare_process(machine)
    try:
        plan = Plan(time_limit_s=0.05, warmup_s=0.0)
        point = make_point(op="gemm", workload=None, knobs={"m": 8, "n": 8, "k": 8}, precision="fp32", plan=plan)
        run = origin(machine, command="test", commit="abc")
        measure_points([point], machine=machine, output=tmp_path / "x.jsonl", run=run)
    finally:
        torch.set_num_threads(threads)
    (record,) = read_baseline(tmp_path / "x.jsonl").records
    assert record.device == machine.key
    assert record.work["macs"] == 512
    assert record.commit == "abc"
    assert record.n >= 6
    assert record.env["torch"] == torch.__version__
    assert "perf_counter_ns" in record.method
    assert record.noisy == (record.median_s is None)


def test_module_times_are_self_times():
    """The clock moves 3 s in the child and 2 s in the parent around it."""
    now = [0.0]

    class Child(torch.nn.Module):
        def forward(self, x):
            now[0] += 3
            return x

    class Parent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.child = Child()

        def forward(self, x):
            now[0] += 1
            x = self.child(x)
            now[0] += 1
            return x

    module = Parent()
    found = module_times(module, lambda: module(1), synchronise=lambda: None, clock=lambda: now[0])
    assert found == {"": 2.0, "child": 3.0}


def test_total_sums_rows_that_have_both():
    rows = [
        Row(name="a", measured_s=2.0, estimated_s=1.0),
        Row(name="b", measured_s=1.0, estimated_s=None),
        Row(name="c", measured_s=2.0, estimated_s=3.0),
    ]
    total = total_row(rows)
    assert (total.measured_s, total.estimated_s, total.ratio) == (4.0, 4.0, 1.0)
    assert rows[0].ratio == 0.5
    assert rows[1].ratio is None
    assert "2 of 3" in total.note


def test_points_take_turns_when_the_time_is_limited():
    """r1 r2 r3 g1 g2 in turn: r1 g1 r2 g2 r3."""
    gemms = [
        make_point(op="gemm", workload=None, knobs={"m": m, "n": 8, "k": 8}, precision="fp32", plan=Plan())
        for m in (1, 2)
    ]
    found = [(p.op, next(iter(p.knobs.values()))) for p in in_turn([*points(3), *gemms])]
    assert found == [("relu", 1), ("gemm", 1), ("relu", 2), ("gemm", 2), ("relu", 3)]


def test_a_run_that_was_too_noisy_is_not_compared(tmp_path, monkeypatch, capsys):
    """It says so, and neither builds the model nor prints a table."""
    monkeypatch.setattr("sim.baseline.compare.compare_point_modules", lambda *_, **__: pytest.fail("compared"))
    machine, file = FakeMachine(), tmp_path / "x.jsonl"
    point = resolved(make_point(op=None, workload="mlp", knobs={}, precision="fp32", plan=Plan()))
    noisy = BaselineRecord(device=machine.key, backend="cpu", kind=Kind.MEASURED, workload="mlp", knobs=point.knobs,
                           precision="fp32", threads=machine.threads, median_s=None, n=9, noisy=True)  # fmt: skip
    append_record(file, noisy)
    assert command._comparisons([point], machine, file, "epyc-zen4", "auto") == []
    assert "too noisy for a number, so not compared" in capsys.readouterr().err


def test_ratios_have_two_digits_and_the_note_of_the_sum_stands_below(capsys):
    rows = (Row(name="a", measured_s=1.0, estimated_s=0.00123), Row(name="b", measured_s=1.0, estimated_s=123.0))
    total = Row(name="total", measured_s=2.0, estimated_s=2.0, note="a long note that says what the sum is of")
    command._show_comparison(Comparison(rows=rows, total=total), "chip")
    shown = capsys.readouterr().out
    assert [line.split()[-1] for line in shown.splitlines() if line.split()[:1] in (["a"], ["b"], ["total"])] == [
        "0.0012", "120", "1.0",
    ]  # fmt: skip
    assert "total: a long note that says what the sum is of" in shown


def test_a_run_on_some_cores_is_compared_with_an_estimate_on_as_many():
    """One of two cores takes longer than both; more threads than the chip has cores are said; a GPU has none."""

    def compared(threads, hardware="epyc-zen4"):
        record = BaselineRecord(device="d", backend="cpu", kind=Kind.MEASURED, op="gemm", precision="fp32", n=9,
                                knobs={"m": 256, "n": 256, "k": 256}, threads=threads, median_s=1e-3)  # fmt: skip
        return compare_records([record], hardware).rows[0]

    both, one = compared(2), compared(1)
    assert one.estimated_s > 1.8 * both.estimated_s
    assert one.note == "measured and estimated on 1 of the 2 cores of epyc-zen4"
    assert both.note == compared(None).note == ""
    assert compared(None).estimated_s == both.estimated_s
    assert compared(4).note == "measured on 4 threads, estimated on the 2 cores that epyc-zen4 has"
    assert compared(4, "h200").note == ""


def test_rotated_operands_are_compared_with_an_estimate_of_rotated_operands():
    """A product of one row reads its 16 MiB of weights from the DRAM at 0.96 ms measured, from the cache of 32 MiB in a
    third of that. What tells its row from the warm one is in its name."""
    knobs = {"m": 1, "n": 2048, "k": 2048}

    def compared(phase):
        record = BaselineRecord(device="d", backend="cpu", kind=Kind.MEASURED, op="gemm", precision="fp32", n=9,
                                knobs=knobs, threads=2, median_s=1e-3, phase=Phase(phase))  # fmt: skip
        return compare_records([record], "epyc-zen4").rows[0]

    warm, cold = compared("warm"), compared("cold")
    assert cold.estimated_s > 2 * warm.estimated_s
    assert 0.8 < cold.estimated_s / 0.96e-3 < 1.2
    assert (warm.name, cold.name) == ("gemm m=1 n=2048 k=2048 fp32", "gemm m=1 n=2048 k=2048 fp32 cold")


def test_one_note_of_many_rows_is_said_once(capsys):
    rows = [Row(name=name, measured_s=1.0, estimated_s=1.0, note="on 1 of 2 cores") for name in "ab"]
    rows.append(Row(name="c", measured_s=1.0, estimated_s=None, note="refused"))
    command._show_comparison(
        Comparison(rows=tuple(rows), total=Row(name="total", measured_s=2.0, estimated_s=2.0)), "x"
    )
    shown = capsys.readouterr().out
    assert shown.count("cores") == 1
    assert "2 rows: on 1 of 2 cores" in shown
    assert "c: refused" in shown


def test_json_with_a_comparison_is_one_document(tmp_path, monkeypatch):
    def measured(points, *, machine, output, run, **rest):
        record = fake_record(points[0], machine, run)
        append_record(output, record)
        return SimpleNamespace(records=(record,), skipped=(), left=0)

    monkeypatch.setattr("sim.baseline.runner.measure_points", measured)
    monkeypatch.setattr("sim.baseline.runner.prepare_process", lambda machine: None)
    words = ["measure", "relu", "-p", "rows=8", "-p", "columns=8", "--rounds", "1", "-o", str(tmp_path / "a.jsonl")]
    done = CliRunner().invoke(app, [*words, "--json", "--compare", "epyc-zen4"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["schema"], found["hardware"], len(found["records"])) == ("dovetail.measure/1", "epyc-zen4", 1)
    (row,) = found["comparison"]["rows"]
    assert row["ratio"] == pytest.approx(row["estimated_s"] / found["records"][0]["median_s"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cpu-ops", "--precision", "bf16"], "--precision is for a single workload or op"),
        (["cpu-ops", "--mode", "eager"], "--mode is for a single workload or op"),
        (["mlp", "--threads", "0"], "0 threads asked for: expected 1 to"),
        (["mlp", "--time-limit", "0"], "--time-limit 0: expected a number of seconds above 0"),
        (["mlp", "--mode", "fast"], "--mode fast: expected eager, compile, graph"),
    ],
)
def test_options_that_would_be_ignored_are_refused(words, said):
    done = CliRunner().invoke(app, ["measure", *words])
    assert done.exit_code == MeasurementError.exit_code
    assert said in done.stderr


@pytest.mark.parametrize(("noisy", "status"), [(1, 1), (0, 0)])
def test_a_run_that_has_no_number_fails(tmp_path, monkeypatch, noisy, status):
    """A point that was too noisy is one that was asked for and has no time."""

    def measured(points, *, machine, output, run, **rest):
        (point,) = points
        found = fake_record(point, machine, run)
        found = replace(found, median_s=None, noisy=True) if noisy else found
        return SimpleNamespace(records=(found,), skipped=(), left=0)

    monkeypatch.setattr("sim.baseline.runner.measure_points", measured)
    monkeypatch.setattr("sim.baseline.runner.prepare_process", lambda machine: None)
    words = ["measure", "relu", "-p", "rows=8", "-p", "columns=8", "--rounds", "1", "-o", str(tmp_path / "a.jsonl")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == status, done.output


def test_a_workload_on_nothing_is_not_measured(tmp_path):
    """A batch of 0 has a time, and it is that of no network."""
    point = make_point(op=None, workload="mlp", knobs={"batch": 0}, precision="fp32", plan=Plan())
    machine = open_device("cpu", 1)
    outcome = measure_points(
        [point], machine=machine, output=tmp_path / "x.jsonl", run=Origin(command="", commit="", env={})
    )
    assert not outcome.records
    assert "mlp works on nothing: its inputs have no elements; is a knob of it 0?" in outcome.skipped[0][1]


@pytest.mark.parametrize(("left_s", "word"), [(0.33, "0.330"), (1e-5, "0.001"), (12.5, "12.500")])
def test_a_round_gets_its_share_of_the_time_however_short(tmp_path, monkeypatch, left_s, word):
    """A third of a second is no limit of 0 seconds, which the round would refuse."""
    ran = []
    monkeypatch.setattr("subprocess.run", lambda words, **_: ran.append(words) or SimpleNamespace(returncode=0))
    assert command._one_round(["mlp"], tmp_path / "x.jsonl", left_s) == 0
    assert ran[0][-2:] == ["--time-limit", word]
