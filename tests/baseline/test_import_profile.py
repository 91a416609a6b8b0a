"""Importers on small hand-written profiles, and overrides."""

import gzip
import json

import pytest
from typer.testing import CliRunner

from sim.baseline.import_profile import import_profile, parse_profile, read_op_map
from sim.baseline.record import Kind, append_record, records_with_numbers
from sim.cli import app
from sim.errors import MeasurementError, PrecisionError

TENSORRT = [
    {"count": 100},
    {"name": "conv1 + relu", "timeMs": 12.0, "averageMs": 0.12, "medianMs": 0.119, "percentage": 60.0},
    {"name": "reshape (folded)", "timeMs": 0.0, "averageMs": 0.0, "percentage": 0.0},
    {"name": "fc", "timeMs": 8.0, "averageMs": 0.08, "percentage": 40.0},
]


def event(name, cat, ts, dur, tid=1):
    return {"ph": "X", "name": name, "cat": cat, "ts": ts, "dur": dur, "pid": 1, "tid": tid}


def save(tmp_path, text, name="p"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_tensorrt_layers(tmp_path):
    """The median of 100 runs where the file has it, else their mean, and the record says which; the folded layer has
    no time and is left out; the map renames and says so."""
    path = save(tmp_path, json.dumps(TENSORRT))
    records = import_profile(
        path, device="nvidia-x", precision="int8", workload="net", op_map={"conv1 + relu": "layer1.conv1"}
    )
    assert [(r.op, r.median_s, r.n) for r in records] == [
        ("layer1.conv1", pytest.approx(1.19e-4), 100), ("fc", pytest.approx(8e-5), 100),
    ]  # fmt: skip
    assert [r.method.split()[0] for r in records] == ["median", "mean"]
    assert records[0].kind is Kind.IMPORTED
    assert records[0].backend == "tensorrt"
    assert records[0].scenario == "net"
    assert records[0].marks == ('profile calls it "conv1 + relu"',)


@pytest.mark.parametrize(
    "packed",
    [gzip.compress, lambda data: data.decode().encode("utf-16"), lambda data: data.decode().encode("utf-8-sig")],
    ids=["gzip", "utf-16", "utf-8 with a mark"],
)
def test_packed_and_marked_files_are_read(tmp_path, packed):
    """As torch.profiler writes NAME.json.gz, and as a Windows shell and an editor write text."""
    path = tmp_path / "p"
    path.write_bytes(packed(json.dumps(TENSORRT).encode()))
    assert [r.op for r in import_profile(path, device="d", precision="fp16")] == ["conv1 + relu", "fc"]
    path.write_bytes(gzip.compress(b"op,latency_ms\nconv,1\n")[:-12])
    with pytest.raises(MeasurementError, match="cannot be read as text: Compressed file ended"):
        import_profile(path, device="d", precision="fp16")


def test_torch_trace_of_a_gpu_takes_kernels_only(tmp_path):
    """Two runs of a kernel, 10 and 30 us: median 20 us; the host's cpu_op is not counted."""
    events = [
        event("aten::mm", "cpu_op", 0, 100),
        event("gemm_kernel", "kernel", 5, 10),
        event("gemm_kernel", "kernel", 50, 30),
        {"ph": "M", "name": "process_name"},
    ]
    (record,) = import_profile(save(tmp_path, json.dumps({"traceEvents": events})), device="d", precision="bf16")
    assert (record.op, record.n) == ("gemm_kernel", 2)
    assert record.median_s == pytest.approx(20e-6)


def test_torch_trace_of_a_cpu_takes_the_own_time_of_every_op(tmp_path):
    """linear (0..100) holds addmm (10..80), which holds empty (20..25): own 30, 65 and 5 us, which sum to linear's 100.
    relu (100..120) holds clamp (100..120) and spends nothing outside it. The same interval on another thread holds
    nothing."""
    events = [
        event("aten::linear", "cpu_op", 0, 100),
        event("aten::addmm", "cpu_op", 10, 70),
        event("aten::empty", "cpu_op", 20, 5),
        event("aten::relu", "cpu_op", 100, 20),
        event("aten::clamp", "cpu_op", 100, 20),
        event("aten::copy_", "cpu_op", 15, 5, tid=2),
    ]
    kind, timed = parse_profile(json.dumps(events), where="x")
    assert kind == "torch"
    assert {t.name: t.samples_s for t in timed} == {
        "aten::linear": (pytest.approx(30e-6),),
        "aten::addmm": (pytest.approx(65e-6),),
        "aten::empty": (pytest.approx(5e-6),),
        "aten::clamp": (pytest.approx(20e-6),),
        "aten::copy_": (pytest.approx(5e-6),),
    }


def test_a_real_cpu_trace_says_what_torch_says(tmp_path):
    """Own times sum to torch's own sum, and the product, which calls other ops, is there."""
    torch = pytest.importorskip("torch")
    layer, x = torch.nn.Linear(256, 256), torch.ones(64, 256)
    with torch.inference_mode(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(3):
            torch.softmax(layer(x), -1)
    profile.export_chrome_trace(str(tmp_path / "t.json"))
    _, timed = parse_profile((tmp_path / "t.json").read_text(), where="x")
    ours, theirs = {t.name: sum(t.samples_s) * 1e6 for t in timed}, profile.key_averages()
    addmm = next(a for a in theirs if a.key == "aten::addmm")
    assert ours["aten::addmm"] == pytest.approx(addmm.self_cpu_time_total, rel=0.01, abs=1)
    assert sum(ours.values()) == pytest.approx(sum(a.self_cpu_time_total for a in theirs), rel=0.01, abs=5)


def test_tensorrt_without_averages_takes_the_time_of_all_runs_over_their_count():
    """100 runs in 12 ms: 0.12 ms."""
    layer = {"name": "conv1", "timeMs": 12.0, "percentage": 100.0}
    kind, (timed,) = parse_profile(json.dumps([{"count": 100}, layer]), where="x")
    assert (kind, timed.samples_s, timed.count) == ("tensorrt", (pytest.approx(1.2e-4),), 100)
    with pytest.raises(MeasurementError, match=r'entry 0 has timeMs.*expected an entry \{"count": runs\} before it'):
        parse_profile(json.dumps([layer]), where="x")


def test_a_record_says_how_its_number_came_about(tmp_path):
    """One run is no mean; three runs give the median's interval at 1 - 2/8 = 75 %, and too few for one at 95 %."""
    text = "op,latency_ms\nfc,0.5\nconv,1\nconv,2\nconv,3\n"
    once, thrice = import_profile(save(tmp_path, text), device="d", precision="fp32")
    assert once.method == "the profile's single run"
    assert (thrice.spread.ci_low_s, thrice.spread.ci_high_s, thrice.spread.confidence) == (1e-3, 3e-3, 0.75)
    assert thrice.marks == (
        "measured here it would have no number: 3 samples are too few for a 95% interval of the median",
    )


def test_layers_of_two_networks_that_bear_one_name_are_two_points(tmp_path):
    """An import replaces what came before of its own network alone."""
    file = tmp_path / "d.jsonl"
    for name, time_ms in (("a", 1), ("b", 2), ("a", 3)):
        path = save(tmp_path, f"op,latency_ms\nconv1,{time_ms}\n")
        for record in import_profile(path, device="d", precision="fp32", workload=name):
            append_record(file, record)
    assert [r.median_s for r in records_with_numbers([file])] == [3e-3, 2e-3]


def test_csv_with_units_in_the_header(tmp_path):
    """Rows of one op are its runs: 1, 2, 3 ms."""
    records = import_profile(
        save(tmp_path, "op, latency_ms\nconv,1\nconv,3\nfc,0.5\nconv,2\n"), device="d", precision="fp32", backend="npu"
    )
    assert [(r.op, r.median_s, r.n, r.backend) for r in records] == [("conv", 2e-3, 3, "npu"), ("fc", 5e-4, 1, "npu")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ('{"a": 1}', "unknown form.*trtexec"),
        ("[1, 2", "broken"),
        ("[" * 100_000, "broken"),
        ("some words\nand more\n", "unknown format"),
        ("op,latency\nconv,1\n", "unknown format"),
        ("op,latency_ms,time_us\nconv,1,1\n", "unknown format"),
        ("op,latency_ms\nconv,fast\n", ":2: latency_ms is 'fast'"),
        ("op,latency_ms\nconv\n", ":2: latency_ms is None"),
        ('{"traceEvents": []}', "no op"),
        ('[{"count": 3}, {"name": "x", "averageMs": 1}, {"foo": 1}]', "entry 2"),
        ('[{"count": 0}, {"name": "x", "averageMs": 1}]', "entry 0: count=0: expected a whole number from 1"),
        ('[{"count": "a"}, {"name": "x", "averageMs": 1}]', "entry 0: count='a': expected a whole number"),
        (
            '[{"name": "x", "averageMs": 1}, {"name": "y", "averageMs": "z"}]',
            "entry 1: averageMs is 'z', expected a nu",
        ),
        ('[{"name": "x", "averageMs": -1}]', "entry 0: averageMs is -1, expected a number, 0 or more"),
        ('[{"name": "x", "averageMs": NaN}]', "entry 0: averageMs is nan"),
        ('[{"name": "x", "averageMs": Infinity}]', "entry 0: averageMs is inf"),
        ('[{"name": null, "averageMs": 1}]', "entry 0: name is None, expected the name of an op"),
        ('[{"ph": "X", "cat": "kernel", "name": "x", "ts": 0, "dur": "1"}]', "event 0: dur is '1'"),
        ('[{"ph": "X", "cat": "kernel", "name": "x", "ts": 0}]', "event 0: dur is None"),
        ('[{"ph": "X", "cat": "cpu_op", "dur": 1, "ts": 0}]', "event 0: name is None"),
        ('[{"ph": "X", "cat": "cpu_op", "dur": 1, "name": "x"}]', "event 0: ts is None"),
        ('{"traceEvents": {}}', "traceEvents is a dict, expected a list"),
        ("op,latency_ms\nconv,inf\n", ":2: latency_ms is 'inf'"),
        ("op,latency_ms\nconv,1,2\n", ":2: more cells than the 2 of the header"),
        ("latency_ms,op\n1\n", ":2: name is None"),
        ("op,latency_ms\n ,1\n", ":2: name is ' '"),
        (f"op,latency_ms\n{'x' * 200_000},1\n", ":1: not CSV: field larger"),
    ],
)
def test_profiles_that_cannot_be_read_say_why(tmp_path, text, message):
    with pytest.raises(MeasurementError, match=message):
        import_profile(save(tmp_path, text), device="d", precision="fp32")


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(PrecisionError, match="fp99"):
        import_profile(tmp_path / "absent.csv", device="x", precision="fp99")


def test_op_maps(tmp_path):
    path = save(tmp_path, "profile,ours\nconv1 + relu,layer1.conv1\n", "map.csv")
    assert read_op_map(path) == {"conv1 + relu": "layer1.conv1"}
    with pytest.raises(MeasurementError, match="Did you mean"):
        import_profile(save(tmp_path, "op,latency_ms\nconv1,1\n"), device="d", precision="fp32", op_map={"conv_1": "x"})
    for text, message in [
        ("a,b\n", "profile,ours"), ("profile,ours\n\na,b,c\n", ":3: expected an op of the profile and ours"),
        ("profile,ours\na,\n", ":2: expected an op"), ("profile,ours\na,b\na,c\n", ':3: "a" stands twice, for b too'),
    ]:  # fmt: skip
        with pytest.raises(MeasurementError, match=message):
            read_op_map(save(tmp_path, text, "bad.csv"))
    with pytest.raises(MeasurementError, match="cannot be read"):
        read_op_map(tmp_path / "absent.csv")


def test_ops_of_the_profile_that_are_one_of_ours_are_added_up(tmp_path):
    """A copy of 1, 2, 9 ms and a product of 10, 20, 30 ms: 11, 22, 39 ms, not the last of the two."""
    text = "op,latency_ms\ncopy,1\ncopy,2\ncopy,9\nmm,10\nmm,20\nmm,30\nrelu,5\n"
    path, ours = save(tmp_path, text), {"copy": "fc", "mm": "fc"}
    records = import_profile(path, device="d", precision="fp32", op_map=ours)
    assert [(r.op, r.median_s, r.n) for r in records] == [("fc", pytest.approx(22e-3), 3), ("relu", 5e-3, 1)]
    assert records[0].marks[0] == 'profile calls it "copy + mm"'
    with pytest.raises(MeasurementError, match='one fc of ops that ran "mm" 3, "relu" 1 times: expected equally many'):
        import_profile(path, device="d", precision="fp32", op_map={"mm": "fc", "relu": "fc"})


def test_a_byte_order_mark_and_blank_lines_are_no_error(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbfop,latency_ms\r\nconv,1\r\n\r\nconv,3\r\n")
    (record,) = import_profile(path, device="d", precision="fp32")
    assert (record.op, record.n) == ("conv", 2)


@pytest.mark.parametrize("device", ["", "../x", "a b", ".x"])
def test_a_device_is_a_name_that_a_file_may_have(tmp_path, device):
    with pytest.raises(MeasurementError, match="is no name: expected letters"):
        import_profile(save(tmp_path, "op,latency_ms\nconv,1\n"), device=device, precision="fp32")


def test_a_profile_is_shown_without_device_and_precision(tmp_path, monkeypatch):
    """conv ran twice, 1 and 2 ms; nothing is written. What asks for records needs both."""
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path, "op,latency_ms\nconv,1\nconv,2\nfc,0.2\n")
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(app, ["import-profile", str(path)])
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines() if "ms" in line] == [["conv", "2", "1.5", "ms"]]
    assert "give --device and --precision" in done.stderr
    for words in (["--json"], ["--device", "d", "-o", "a.jsonl"], ["--precision", "int8", "--workload", "mlp"]):
        assert CliRunner().invoke(app, ["import-profile", str(path), *words]).exit_code == 2
    assert sorted(tmp_path.iterdir()) == before
