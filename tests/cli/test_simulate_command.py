"""`dovetail simulate`: what Ctrl-C leaves behind."""

from __future__ import annotations

import json

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
