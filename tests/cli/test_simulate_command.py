"""`dovetail simulate`: what Ctrl-C leaves behind, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.events.machine import Job, Machine

ONE = ["simulate", "mlp", "--hw", "tesla-fsd-npu"]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as the first job of each run is released; the next one goes on."""
    submit, stopped = Machine.submit, []

    def stop(machine: Machine, job: Job) -> None:
        stopped.append(job)
        if len(stopped) % 2:
            raise KeyboardInterrupt
        submit(machine, job)

    monkeypatch.setattr(Machine, "submit", stop)


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_run_reports_what_it_has_and_ends_with_130() -> None:
    shown = CliRunner().invoke(app, ONE)
    assert shown.exit_code == 130
    assert "PARTIAL: interrupted" in shown.stdout
    document = CliRunner().invoke(app, [*ONE, "--json", "--expand"])
    assert document.exit_code == 130
    assert json.loads(document.stdout)["partial"] is True


def test_expand_shows_both_event_counts() -> None:
    shown = CliRunner().invoke(app, [*ONE, "--expand"])
    assert shown.exit_code == 0
    assert "folded: " in shown.stderr
    assert "events; expanded: " in shown.stderr
    document = json.loads(CliRunner().invoke(app, [*ONE, "--expand", "--json"]).stdout)
    assert document["folded"]["latency_s"] == pytest.approx(document["latency_s"], rel=1e-9)
    assert document["folded"]["events"] < document["events"]
    assert "folded" not in json.loads(CliRunner().invoke(app, [*ONE, "--json"]).stdout)


def test_a_scenario_with_every_tile_has_the_folded_one_beside_it_in_words_and_as_a_document(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "schema: dovetail.scenario/1\nname: s\nhardware: tesla-fsd-npu\n"
        "length: 2 ms\nstreams: [{name: a, workload: mlp, arrivals: {kind: closed}}]\n"
    )
    shown = CliRunner().invoke(app, ["simulate", str(path), "--expand"])
    assert "a: mean latency folded / expanded - 1 = " in shown.stderr
    document = json.loads(CliRunner().invoke(app, ["simulate", str(path), "--expand", "--json"]).stdout)
    folded = document["folded"]
    assert abs(folded["latency_mean_rel_error"]["a"]) < 1e-6
    assert f"folded: {folded['events']:,} events; expanded: " in shown.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["autopilto"], 'Did you mean "autopilot"'),
        (["autopilot", "-p", "cameras=4"], "-p is for a workload"),
        (["autopilot", "--find-limit", "rate", "--expand"], "--expand is for one"),
        (["llm-serving-h100", "--expand"], "--expand is for streams"),
        (
            ["autopilot", "--hw", "tesla-fsd-npu"],
            'streams[0] (frames): stage "image processing": unknown resource "cpu"',
        ),
    ],
)
def test_options_that_do_not_apply_are_refused(command: list[str], words: str) -> None:
    shown = CliRunner().invoke(app, ["simulate", *command])
    assert shown.exit_code == 2
    assert words in " ".join(shown.stderr.split())


def test_what_does_not_fit_is_one_document_with_null_where_nothing_is_known() -> None:
    """As `estimate` has it, with the same reason and tensors; exit code 1, and the words on stderr."""
    words = ["resnet50", "--hw", "edge-npu", "--set", "DRAM.capacity=8 MiB", "--json"]
    done = CliRunner().invoke(app, ["simulate", *words])
    estimated = json.loads(CliRunner().invoke(app, ["estimate", *words]).stdout)
    document = json.loads(done.stdout)
    assert done.exit_code == 1
    assert document["schema"] == "dovetail.simulate/1"
    same = ("workload", "batch", "hardware", "precision", "objective", "map_space", "buffering", "infeasible")
    assert {key: document[key] for key in same} == {key: estimated[key] for key in same}
    times = ("latency_s", "estimate_latency_s", "throughput_per_s", "contended_s", "energy_j", "power_w")
    assert {document[key] for key in times} == {None}
    assert "do not fit DRAM of 8 MiB" in done.stderr


def test_a_run_that_fits_has_no_reason() -> None:
    assert json.loads(CliRunner().invoke(app, [*ONE, "--json"]).stdout)["infeasible"] is None


def test_a_scenario_that_cannot_run_is_one_document(tmp_path: Path) -> None:
    """A deadline of 1 ns, below any service time."""
    file = tmp_path / "hasty.yaml"
    stream = "{name: a, workload: mlp, arrivals: {kind: periodic, rate: 10 Hz}, deadline: 1 ns}"
    file.write_text(f"name: hasty\nhardware: edge-npu\nlength: 1 s\nstreams: [{stream}]\n")
    done = CliRunner().invoke(app, ["simulate", str(file), "--json"])
    document = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (document["scenario"], document["latency_s"]) == ("hasty", None)
    assert document["workloads"]["a"]["name"] == "mlp"
    assert document["infeasible"]["tensors"] == []
    assert "shorter than the service time alone" in document["infeasible"]["reason"]
