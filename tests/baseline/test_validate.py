"""The table of checks: its rules, its registry, and that every gate of ours holds."""

import json
import shutil

import numpy as np
import pytest

from sim.baseline import published
from sim.baseline.checks import Check, Rule, all_checks
from sim.baseline.checks import check as registry
from sim.baseline.checks.networks import alexnet, inception_v1, resnet50, vgg16
from sim.baseline.checks.tpu import GENERATORS, applications, random_layers, square_layers
from sim.baseline.compare import Comparison, Row
from sim.baseline.record import BaselineRecord, Kind, Mode, append_record
from sim.baseline.validate import SCHEMA, Validation, against, score, score_document, validate
from sim.errors import CalibrationError, ConfigError, ResultError
from sim.hardware.load import chip_of_device
from sim.resources import data_dir
from sim.view.checks import again, check_table


def _check(ours, **changes) -> Check:
    base = {
        "id": "x", "source": "s", "quantity": "q", "unit": "u", "theirs": 10.0, "tolerance": 0.1, "gate": True,
        "compute": lambda: ours,
    }  # fmt: skip
    return Check(**(base | changes))


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (_check(10.9), "pass"),
        (_check(11.1), "fail"),
        (_check(11.1, gate=False), "info"),
        (_check(None), "info"),
        (_check(11.1, rule=Rule.POINTS, tolerance=2.0), "pass"),
        (_check(12.1, rule=Rule.POINTS, tolerance=2.0), "fail"),
        (_check(9.9, rule=Rule.AT_LEAST), "fail"),
        (_check(9.9, rule=Rule.AT_MOST), "pass"),
    ],
)
def test_verdicts_by_hand(check, verdict):
    assert check.run().verdict == verdict


def test_a_refused_computation_fails_its_gate_with_the_message():
    def refuse():
        raise ConfigError("the chip lacks int8")

    found = _check(None, compute=refuse).run()
    assert (found.verdict, found.ours) == ("fail", None)
    assert "the chip lacks int8" in found.to_dict()["note"]


def test_a_value_that_the_table_was_set_to_gates_nothing():
    """Ours is theirs to the last digits where theirs is the entry itself; such a row says so."""
    rows = {check.id: check for check in all_checks("technology")}
    same = {name for name, check in rows.items() if abs(check.run().ours / check.theirs - 1) < 1e-9}
    assert {"technology.sram.8-kib", "technology.sram.32-kib", "technology.dram.hbm2"} <= same
    assert all(not rows[name].gate and "identity" in rows[name].note for name in same)
    assert rows["technology.sram.1024-kib"].gate
    assert all("no model" in check.note for check in all_checks("peak"))


def test_every_tesla_row_has_a_number():
    assert all(check.run().ours is not None for check in all_checks() if check.id.startswith("tesla.estimate"))


KNOWN_FAILURES: set[str] = set()
"""Gates that do not hold. One that begins to fail, or to hold, must show here."""


def test_gates_hold_but_for_those_that_are_known_not_to():
    found = validate()
    assert {row.check.id for row in found.failed} == KNOWN_FAILURES
    assert len(found.results) >= 40
    assert found.summary["pass"] >= 40


def test_json_has_the_columns_of_the_contract():
    document = json.loads(json.dumps(validate("scale-sim").to_dict("1.2"), allow_nan=False))
    assert document["schema"] == SCHEMA
    wanted = {
        "id",
        "source",
        "quantity",
        "unit",
        "ours",
        "theirs",
        "rel_error",
        "tolerance",
        "gate",
        "verdict",
        "command",
    }
    assert set(wanted) <= set(document["checks"][0])


def test_a_row_on_data_outside_the_package_says_what_it_needs():
    """Its command is complete, and without the data the note says why there is no number."""
    absent = _check(None, needs_data=True).run().to_dict()
    assert absent["command"] == "DOVETAIL_DATA=FOLDER dovetail validate --check x --json"
    assert "no number without the measured rows" in absent["note"]
    assert "no number" not in _check(1.0, needs_data=True).run().to_dict()["note"]
    assert {check.id.partition(".")[0] for check in all_checks() if check.needs_data} == {"gemmini", "kernels"}


@pytest.mark.parametrize(("width", "dropped"), [(80, {"tolerance", "quantity", "source"}), (240, set())])
def test_the_table_shows_unit_quantity_and_how_to_compute_a_row_again(width, dropped):
    """Ids are whole at every width, since the command asks for them."""
    validation = Validation(
        results=tuple(_check(1.0, id="i" * 36, quantity="q" * 60, needs_data=True).run() for _ in "ab")
    )
    table = check_table(validation)
    assert {column.title for column in table.columns} - {column.title for column in table.kept(width)} == dropped
    shown = dict(zip((column.title for column in table.kept(width)), table.widths(width), strict=True))
    assert shown["check"] == 36
    assert "a row of " + "i" * 36 + ": DOVETAIL_DATA=FOLDER dovetail validate --check CHECK" in again(validation)


@pytest.mark.parametrize(("rule", "ours", "shown"), [(Rule.AT_LEAST, 65.1, "≥ 10"), (Rule.AT_MOST, 1.0, "≤ 10")])
def test_a_one_sided_row_says_so_where_the_tolerance_has_no_room(rule, ours, shown):
    """551 % above a bound of 10 passes because it is one, which 80 columns must tell as well."""
    table = check_table(Validation(results=(_check(ours, rule=rule, id="i" * 36, quantity="q" * 60).run(),)))
    kept = {column.title: column.cells[0].plain for column in table.kept(80)}
    assert "tolerance" not in kept
    assert (kept["theirs"], kept["verdict"]) == (shown, "pass")


def test_a_failed_gate_is_counted():
    found = Validation(results=(_check(20.0).run(), _check(10.0, id="y").run()))
    assert [row.check.id for row in found.failed] == ["x"]
    assert found.summary == {"checks": 2, "pass": 1, "fail": 1, "info": 0, "without_number": 0}


def test_recalled_facts_never_gate():
    recalled = {f.id for f in published.load_published().values() if f.confidence.startswith("memory")}
    assert recalled
    gated = [check for check in all_checks() if check.gate and "(memory" in check.source]
    assert gated == []


def test_unknown_check_and_registry_errors():
    with pytest.raises(ResultError, match=r'no check or group "scale-sims"; the groups are .*Did you mean "scale-sim"'):
        list(all_checks("scale-sims"))
    with pytest.raises(ResultError, match=r'"foo"; the groups are scale-sim, .*kernels.*begins with its group: scale-'):
        list(all_checks("foo"))
    with pytest.raises(ResultError, match=r'Did you mean "gemmini.left-out.spearman"'):
        list(all_checks("gemmini.left-out.spearmann"))
    with pytest.raises(ResultError, match="registered twice"):
        registry.group("scale-sim")(lambda: ())
    with pytest.raises(ResultError, match="0 published facts"):
        published.fact("tpu-v1", "nothing")


def test_layer_counts_and_macs_of_the_papers():
    """MACs and convolution weights as published: AlexNet 0.666 G / 2.33 M, VGG-16 15.35 G / 14.71 M,
    ResNet-50 4.09 G / 25.5 M with classifier, GoogLeNet 1.58 G / 7.0 M."""
    for layers, macs_g, weights_m in (
        (alexnet(), 0.666, 2.33), (vgg16(), 15.35, 14.71), (resnet50(), 4.09, 25.5), (inception_v1(), 1.58, 6.99),
    ):  # fmt: skip
        assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(macs_g, rel=3e-3)
        assert sum(layer.weights for layer in layers) / 1e6 == pytest.approx(weights_m, rel=3e-3)


def test_generators_keep_weights_and_layers():
    for app, table in applications().items():
        for layers in (square_layers(app), random_layers(app, GENERATORS - 1)):
            assert len(layers) == table["fc"] + table["conv"]
            assert sum(a * b for a, b in layers) == pytest.approx(table["weights_M"] * 1e6)


def test_score_by_hand():
    """Ratios 1.1, 0.9, 1.0, 1.4: errors 0.1, 0.1, 0, 0.4."""
    measured = np.array([10.0, 20.0, 30.0, 40.0])
    found = score(measured * [1.1, 0.9, 1.0, 1.4], measured, path="f", kind="k")
    assert (found.rows, found.spearman) == (4, 1.0)
    assert found.mean_error == pytest.approx(0.15)
    assert found.median_error == pytest.approx(0.1)
    assert found.bias == pytest.approx(0.05)
    assert found.p90_error == pytest.approx(0.1 + 0.7 * 0.3)


def test_score_refuses_nonsense():
    with pytest.raises(ResultError, match="not a positive number"):
        score(np.array([1.0, np.nan]), np.array([1.0, 2.0]), path="f", kind="k")


def test_against_a_file_of_rows(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(
        "N,C,K,P,Q,R,S,Hstride,Wstride,mapping,measured_cycles_given_mapping\n"
        "1,32,32,8,8,1,1,1,1,L3[WIO] Q2 - L2[WI] K16X - L1[O] K2 C2 Q4 C16X - L0[W] P8,1000\n"
    )
    (found,) = against(str(tmp_path))
    document = score_document(found, "1.2")
    assert (document["schema"], document["kind"], document["rows"]) == (SCHEMA, "gemmini", 1)
    assert document["spearman"] is None
    with pytest.raises(CalibrationError, match=r"rows\.csv: .* carry their own machine.*leave --hw out"):
        against(str(tmp_path), hw="a100-sxm")
    with pytest.raises(ResultError, match="no such file"):
        against(str(tmp_path / "absent.csv"))
    for given in ({"precision": "int8"}, {"calibration": "none"}):
        with pytest.raises(ConfigError, match=r"rows of kind gemmini .* carry their own"):
            against(str(file), **given)


def test_records_of_a_device_are_scored_with_the_calibration_that_was_asked(monkeypatch):
    """The calibration reaches every estimate, and the score says which it was."""
    import sim

    asked = []

    def answer(graph, chip, **options):
        asked.append(options["calibration"])
        raise ConfigError("not now")

    monkeypatch.setitem(sim.__dict__, "estimate", answer)
    with pytest.raises(ResultError, match="none of"):
        against("amd-epyc-f25m17-avx512-zen4-2c", hw="epyc-zen4", calibration="none")
    assert set(asked) == {"none"}


def test_a_measured_gpu_finds_its_chip_and_is_scored_on_replayed_records(monkeypatch):
    """Device nvidia-h200 is the chip h200; what a host launches one by one is no estimate's claim."""
    seen, row = {}, Row(name="x", measured_s=2.0, estimated_s=1.0)

    def compared(records, hardware, calibration):
        seen.update(modes={r.mode.value for r in records}, hardware=hardware)
        return Comparison(rows=(row,), total=row)

    monkeypatch.setattr("sim.baseline.compare.compare_records", compared)
    (found,) = against("nvidia-h200")
    assert seen == {"modes": {"graph"}, "hardware": "h200"}
    assert (found.hardware, found.median_error) == ("h200", 0.5)


def test_a_baseline_file_is_scored_like_its_device_and_broken_lines_are_named(monkeypatch, tmp_path):
    seen, said = {}, []

    def compared(records, hardware, calibration):
        seen.update(devices={r.device for r in records}, hardware=hardware)
        return Comparison(rows=(row,), total=row)

    row = Row(name="x", measured_s=2.0, estimated_s=1.0)
    monkeypatch.setattr("sim.baseline.compare.compare_records", compared)
    file = tmp_path / "mine.jsonl"
    file.write_bytes((data_dir("baselines") / "nvidia-h200.jsonl").read_bytes() + b"{\n")
    (found,) = against(str(file), note=said.append)
    assert seen == {"devices": {"nvidia-h200"}, "hardware": "h200"}
    assert (found.path, found.kind, found.rows) == (str(file), "records", 1)
    assert [line.partition(": skipped")[0] for line in said] == [f"{file}:{len(file.read_text().splitlines())}"]
    with pytest.raises(ConfigError, match="state their own precisions"):
        against(str(file), precision="bf16")
    with pytest.raises(ResultError, match="no such file; expected a baseline file"):
        against(str(tmp_path / "none.jsonl"))
    with pytest.raises(ResultError, match="expected one device"):
        against(str(data_dir("baselines") / "published" / "gpu-models.jsonl"))


def test_a_score_says_which_records_are_not_in_it(monkeypatch, tmp_path):
    """Seven of a CPU: two eager and scored, one of which is refused, one compiled, two without a number, one in less
    than is possible; a second record of a point replaces the first."""
    points = [({"rows": 1}, "eager", 1.0), ({"rows": 2}, "eager", 1.0), ({"rows": 1}, "compile", 1.0),
              ({"rows": 3}, "eager", None), ({"rows": 4}, "eager", 1.0), ({"rows": 4}, "eager", None),
              ({"rows": 5}, "eager", 1e-9)]  # fmt: skip
    for knobs, mode, median_s in points:
        found = BaselineRecord(device="epyc-zen4", backend="cpu", kind=Kind.MEASURED, op="relu", precision="fp32", n=9,
                               knobs=knobs, mode=Mode(mode), median_s=median_s, bound_s=1e-6,
                               noisy=median_s is None)  # fmt: skip
        append_record(tmp_path / "x.jsonl", found)
    rows = (Row(name="a", measured_s=1.0, estimated_s=2.0), Row(name="b", measured_s=1.0, estimated_s=None, note="no"))
    monkeypatch.setattr(
        "sim.baseline.compare.compare_records",
        lambda records, *_: Comparison(rows=rows[: len(records)], total=rows[0]),
    )
    (score,) = against(str(tmp_path / "x.jsonl"), hw="epyc-zen4")
    assert score.rows == 1
    assert score.note == (
        "2 of 6 records left out: too noisy for a number; 1 of 6 records left out: below their physical bound; "
        "1 of 6 records left out: of a mode (compile) that the estimate does not speak of; "
        "1 of 6 records left out: not estimated, the first b: no"
    )


def test_devices_and_chips():
    assert [chip_of_device(name) for name in ("nvidia-h200", "h200", "nvidia-h100-80gb-hbm3", "cpu")] == [
        "h200", "h200", None, None,
    ]  # fmt: skip


def test_a_measured_cpu_finds_the_chip_that_is_calibrated_on_it(monkeypatch, tmp_path):
    row, seen = Row(name="x", measured_s=2.0, estimated_s=1.0), []

    def compared(records, hardware, calibration):
        seen.append(hardware)
        return Comparison(rows=(row,), total=row)

    monkeypatch.setattr("sim.baseline.compare.compare_records", compared)
    device = "amd-epyc-f25m17-avx512-zen4-2c"
    file = tmp_path / "other.jsonl"
    shutil.copy(data_dir("baselines") / f"{device}.jsonl", file)
    assert [against(one)[0].hardware for one in (device, str(file))] == ["epyc-zen4"] * 2
    assert seen == ["epyc-zen4"] * 2
    file.write_text(file.read_text().replace(device, "some-cpu"))
    with pytest.raises(ResultError, match=r"other.jsonl: no bundled chip is the device some-cpu: give --hw"):
        against(str(file))


def test_records_that_cannot_be_estimated_say_why():
    """Published results state knobs that no workload has."""
    with pytest.raises(
        ResultError, match=r'none of 8 records can be estimated on l40s \(resnet50 .*: .* no knob "chips"'
    ):
        against("l40s")


@pytest.mark.parametrize("hw", ["h200-torch", "systolic", "epyc-zen4"])
def test_kernels_are_scored_on_chips_that_are_costed_by_kernels(tmp_path, hw):
    file = tmp_path / "rows_bf16.csv"
    file.write_text("m,n,k,latency_ms\n1024,1024,1024,0.01\n")
    with pytest.raises(
        CalibrationError, match=rf"single kernels of a GPU, and {hw} is costed by .*: expected a chip of"
    ):
        against(str(file), hw=hw)
    assert against(str(file), hw="h200")[0].statistics.rows == 1


def test_a_published_row_without_a_chip_file_says_so():
    (row,) = validate("gpu.resnet50.h100-pcie.12").results
    assert row.ours is None
    assert row.note == "no number: no chip file describes h100-pcie"
