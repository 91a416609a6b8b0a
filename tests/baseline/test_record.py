"""Baseline files: round trip, broken lines, a killed writer, keys."""

import errno
import json
import re
import subprocess
import sys
import threading
import time

import pytest

from sim._version import __version__
from sim.baseline.record import (
    BaselineRecord,
    Kind,
    Mode,
    Spread,
    append_record,
    check_writable,
    claimed,
    read_baseline,
    record_from_dict,
    records_with_numbers,
)
from sim.errors import MeasurementError

SPREAD = Spread(
    mad_s=1e-6,
    q05_s=1e-3,
    q25_s=1e-3,
    q75_s=1.1e-3,
    q95_s=1.2e-3,
    min_s=9e-4,
    max_s=2e-3,
    ci_low_s=1e-3,
    ci_high_s=1.1e-3,
    confidence=0.95,
    stated_s=1e-4,
)


def record(**changes) -> BaselineRecord:
    fields = {
        "device": "cpu-x",
        "backend": "cpu",
        "kind": Kind.MEASURED,
        "op": "gemm",
        "knobs": {"m": 1, "n": 2, "k": 3},
        "precision": "fp32",
        "threads": 2,
        "median_s": 1e-3,
        "spread": SPREAD,
        "n": 11,
        "outliers_s": (2e-3,),
        "marks": ("odd",),
        "env": {"torch": "2"},
    }
    return BaselineRecord(**{**fields, **changes})


def test_round_trip_through_json():
    original = record(mode=Mode.COMPILE, energy_j=0.5, clocks={"core_hz_before": 3e9})
    assert record_from_dict(json.loads(json.dumps(original.to_dict()))) == original


def test_records_say_what_wrote_them_and_old_ones_are_read():
    document = record().to_dict()
    assert (document["schema"], document.pop("version")) == ("dovetail.baseline/1", __version__)
    assert record_from_dict(document) == record()


def test_key_ignores_the_order_of_knobs_and_tells_precisions_apart():
    assert record(knobs={"k": 3, "n": 2, "m": 1}).key == record().key
    assert record(precision="bf16").key != record().key
    assert record(threads=1).key != record().key


def test_broken_lines_are_named_and_skipped(tmp_path):
    path = tmp_path / "x.jsonl"
    good = json.dumps(record().to_dict())
    lines = [
        good,
        good[: len(good) // 2],
        "[1]",
        json.dumps({"schema": "dovetail.baseline/9"}),
        json.dumps({**record().to_dict(), "medain_s": 1}),
        "\x00\xff",
        good.replace('"fp32"', '"bf16"'),
    ]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    read = read_baseline(path)
    assert [r.precision for r in read.records] == ["fp32", "bf16"]
    assert [b.line for b in read.broken] == [2, 3, 4, 5, 6]
    assert "expected a JSON object" in read.broken[1].reason
    assert "dovetail.baseline/9" in read.broken[2].reason
    assert 'Did you mean "median_s"' in read.broken[3].reason
    assert str(read.broken[0]).startswith(f"{path}:2: skipped")


def test_appending_after_a_killed_writer_loses_only_its_line(tmp_path):
    path = tmp_path / "new" / "x.jsonl"
    append_record(path, record())
    with path.open("a") as file:
        file.write('{"schema": "dovetail.base')  # the run died here
    append_record(path, record(precision="bf16"))
    append_record(path, record(precision="int8"))
    read = read_baseline(path)
    assert [r.precision for r in read.records] == ["fp32", "bf16", "int8"]
    assert [b.line for b in read.broken] == [2]


def test_noisy_points_are_not_finished_and_the_last_record_of_a_key_holds(tmp_path):
    path = tmp_path / "x.jsonl"
    append_record(path, record(median_s=None, noisy=True))
    assert read_baseline(path).finished == frozenset()
    append_record(path, record(median_s=2e-3))
    assert read_baseline(path).finished == {record().key}
    append_record(path, record(median_s=3e-3))
    with path.open("a") as file:
        file.write("{\n")
    said = []
    assert [r.median_s for r in records_with_numbers([path], said.append)] == [3e-3]
    assert [line.partition(": skipped")[0] for line in said] == [f"{path}:4"]


def test_missing_file_is_an_empty_baseline(tmp_path):
    assert read_baseline(tmp_path / "none.jsonl").records == ()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("knobs", 5, "knobs is 5, expected an object"),
        ("precision", 8, "precision is 8, expected text"),
        ("median_s", "1 ms", "median_s is '1 ms', expected a number"),
        ("n", 1.5, "n is 1.5, expected a whole number"),
        ("device", None, "device is None, expected text"),
    ],
)
def test_fields_of_another_type_are_refused(field, value, message):
    with pytest.raises(MeasurementError, match=message):
        record_from_dict({**record().to_dict(), field: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": None}, "either an op or a workload"),
        ({"workload": "x"}, "either an op or a workload"),
        ({"median_s": 0.0}, "positive"),
        ({"median_s": None}, "noisy"),
        ({"kind": Kind.PUBLISHED}, "source and licence"),
    ],
)
def test_records_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(MeasurementError, match=message):
        record(**changes)


def test_a_line_of_brackets_breaks_itself_alone(tmp_path):
    """A hundred thousand of them are deeper than Python's JSON reader goes."""
    path = tmp_path / "x.jsonl"
    path.write_text("[" * 100_000 + "\n" + json.dumps(record().to_dict()) + "\n")
    read = read_baseline(path)
    assert (len(read.records), [b.line for b in read.broken]) == (1, [1])


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("median_s", float("inf"), "median_s is inf, expected a number"),
        ("energy_j", float("nan"), "energy_j is nan, expected a number"),
        ("n", True, "n is True, expected a whole number"),
        ("noisy", "no", "noisy is 'no', expected true or false"),
        ("marks", "clock", "marks is 'clock', expected a list"),
        ("marks", [1], r"marks\[0\] is 1, expected text"),
        ("rounds_s", ["1 ms"], r"rounds_s\[0\] is '1 ms', expected a number"),
        ("clocks", {"core_hz_before": "3 GHz"}, r"clocks\[core_hz_before\] is '3 GHz', expected a number"),
        ("date", 20260101, "date is 20260101, expected text"),
    ],
)
def test_a_field_of_another_type_breaks_its_line_alone(tmp_path, field, value, said):
    path = tmp_path / "x.jsonl"
    good = record().to_dict()
    path.write_text("\n".join(json.dumps(d) for d in (good, {**good, field: value}, {**good, "precision": "bf16"})))
    read = read_baseline(path)
    assert [r.precision for r in read.records] == ["fp32", "bf16"]
    (broken,) = read.broken
    assert re.match(said, broken.reason)


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 0), ("threads", 0), ("energy_j", -1.0), ("power_w", -1.0), ("bound_s", -1e-3)],
)
def test_a_value_that_cannot_be_is_a_broken_line(tmp_path, field, value):
    (tmp_path / "x.jsonl").write_text(json.dumps({**record().to_dict(), field: value}))
    (broken,) = read_baseline(tmp_path / "x.jsonl").broken
    assert f"{field} is {value!r}, expected" in broken.reason


def test_a_file_that_is_measured_into_is_one_process_s_own(tmp_path):
    """The second waits, and says so; what cannot be written shows at once, and nothing empty is left."""
    path, said = tmp_path / "new" / "x.jsonl", []
    with claimed(path):
        second = threading.Thread(target=lambda: _measured(path, said))
        second.start()
        while not said:
            time.sleep(0.01)
        append_record(path, record())
    second.join()
    assert said == [f"{path}: another process measures into it, waiting for its end", 1]
    with claimed(tmp_path / "empty.jsonl"):
        pass
    assert not (tmp_path / "empty.jsonl").exists()
    (tmp_path / "file").write_text("")
    for check in (check_writable, lambda where: claimed(where).__enter__()):
        with pytest.raises(MeasurementError, match=r"x\.jsonl: cannot be written: .*; give another file with -o"):
            check(tmp_path / "file" / "x.jsonl")


def test_a_file_is_measured_into_where_the_file_system_has_no_locks(tmp_path, monkeypatch):
    """That nothing keeps a second process off is told; the file is written all the same."""
    fcntl = pytest.importorskip("fcntl")
    path, said = tmp_path / "x.jsonl", []

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with claimed(path, said.append):
        append_record(path, record())
    assert said == [
        f"{path}: cannot be locked (No locks available): see that no other process measures into it meanwhile"
    ]
    assert len(read_baseline(path).records) == 1


def test_records_are_read_where_the_platform_has_no_locks():
    """Windows has no such module: scores and rooflines read the bundled records there too."""
    code = "import sys; sys.modules['fcntl'] = None; import sim.baseline.record, sim.baseline.validate"
    subprocess.run([sys.executable, "-c", code], check=True)


def _measured(path, said):
    with claimed(path, said.append):
        said.append(len(read_baseline(path).records))
