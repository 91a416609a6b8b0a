"""Every example of the help is a command that the tool takes; progress counts steps and stays off pipes."""

from __future__ import annotations

import shlex

import pytest
import typer
from typer.testing import CliRunner

from sim.cli import COMMANDS, _load, app
from sim.cli.progress import Progress, time_left
from sim.hardware.load import list_hardware
from sim.resources import data_dir
from sim.workload.load import list_workloads


def bundled() -> set[str]:
    """Every name that an example may use."""
    names = set(list_hardware()) | {found.path.stem for found in list_workloads()}
    for folder in ("searches", "workloads/recipes", "workloads/scenarios", "baselines"):
        first, _, rest = folder.partition("/")
        names |= {path.stem for path in (data_dir(first) / rest).glob("*.*")}
    return names


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_each_command_is_taken(name: str) -> None:
    """It parses, and its bare words are bundled names: what it reads otherwise has an ending."""
    words = shlex.split(COMMANDS[name].example)
    assert words[:2] == ["dovetail", name]
    command = _load(name)
    values = command.make_context(name, words[2:], parent=typer.Context(typer.main.get_command(app))).params
    named = [values.get(key) for key in ("workload", "hw", "recipe", "space", "device", "what") if values.get(key)]
    for value in [one for entry in named for one in (entry if isinstance(entry, list | tuple) else [entry])]:
        assert value in bundled() | {"cpu", "hardware", "nvidia-h200"}, value


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_and_shows_what_a_value_is(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert f"Example: dovetail {name}" in shown
    options = shown.partition("Options:")[2]
    assert "<str>" not in options
    assert "<list" not in options


@pytest.mark.parametrize(
    ("share", "elapsed_s", "text"),
    [
        (0.0, 3.0, "3 s"),
        (1 / 3, 12.0, "12 s, about 24 s left"),
        (0.5, 300.0, "5 min, about 5 min left"),
        (1.0, 4.0, "4 s"),
    ],
)
def test_time_left_by_hand(share: float, elapsed_s: float, text: str) -> None:
    assert time_left(share, elapsed_s) == text


def test_steps_count_as_equally_long(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress("tracing", steps=4) as progress:
        progress.step("mapping")
        progress(0.5)
        assert progress.share == pytest.approx((1 + 0.5) / 4)
        progress.step("reading")
        assert progress.share == pytest.approx(0.5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("dovetail esti", {"estimate"}),
        ("dovetail estimate resnet", {"resnet18", "resnet50"}),
        ("dovetail estimate resnet50 --hw tesla-f", {"tesla-fsd", "tesla-fsd-npu"}),
        ("dovetail simulate autop", {"autopilot"}),
        ("dovetail compress digits_cnn --recipe int8-p", {"int8-ptq"}),
        ("dovetail search edge", {"edge-vision"}),
        ("dovetail estimate resnet50 --objective ", {"latency", "energy", "edp"}),
        ("dovetail search --dry", {"--dry-run"}),
        ("dovetail estimate ./my_mod", set()),  # a path: the shell's own
    ],
)
def test_the_shell_completes_commands_options_and_names(line: str, found: set[str]) -> None:
    """As the script that --install-completion writes asks for it."""
    words = {"_DOVETAIL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    shown = CliRunner().invoke(app, [], env=words, prog_name="dovetail").stdout
    assert set(shown.split()) == found
