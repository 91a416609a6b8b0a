"""The bundled searches: both forms are valid, and the command answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.codesign.checks import limits, physical_metrics
from sim.codesign.space import load_space
from sim.errors import ConfigError
from sim.hardware.designs import Designs
from sim.resources import data_dir
from sim.view.search import write_figures

NAMES = sorted(path.stem for path in data_dir("searches").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_valid(name: str) -> None:
    whole, short = load_space(name), load_space(name, short=True)
    sizes = [float(space.size()[0] * space.size()[1]) for space in (whole, short)]
    assert sizes[0] > 20 * sizes[1]
    assert len(whole.spec.objectives) in (2, 3)


def test_names_are_known() -> None:
    assert {"driving-chip", "edge-vision", "llm-decode"} <= set(NAMES)
    with pytest.raises(ConfigError, match='Did you mean "edge-vision"'):
        load_space("edge-visoin")


def test_dry_run_prints_size_and_ten_samples() -> None:
    result = CliRunner().invoke(app, ["search", "driving-chip", "--dry-run"])
    assert result.exit_code == 0
    assert "9 model sides x 1,152 chips = 10,368 designs" in result.stdout
    assert "10 samples" in result.stdout


def test_the_command_needs_a_folder() -> None:
    result = CliRunner().invoke(app, ["search", "driving-chip"])
    assert result.exit_code != 0


def test_quality_rows_and_functions(tmp_path: Path) -> None:
    """The stand-in of driving-chip: 4089 MMAC at 224 and 64, four times at twice the width."""
    space = load_space("driving-chip")
    from sim.codesign.scenario import make_scenario

    quality = make_scenario(space).quality

    def at(r: int, w: int) -> float:
        return quality(space.choice({"backbone.resolution": r, "backbone.width": w, "precision": "int8"})).value

    assert at(224, 64) == pytest.approx(4089.0)
    assert at(256, 64) / at(192, 64) == pytest.approx((256 / 192) ** 2)


@pytest.mark.parametrize("name", NAMES)
def test_known_designs_meet_the_limits_that_the_chip_alone_decides(name: str) -> None:
    """A search within the real chip's area must allow the real chip."""
    space = load_space(name)
    bounds = limits(space)
    for _, assignment in space.known:
        designs = Designs.rows(space.chip, {path: [value] for path, value in space.overrides(assignment).items()})
        for metric, column in physical_metrics(designs).items():
            assert metric not in bounds or column[0] <= bounds[metric], metric


@pytest.mark.parametrize("name", NAMES)
def test_short_forms_run(name: str, tmp_path: Path) -> None:
    """The whole way: some design is found, each winner is costed again to the last bit and simulated within 2 %."""
    found = sim.search(name, short=True, output=tmp_path)
    assert found.front
    for path in (tmp_path / "winners").glob("*/winner.json"):
        winner = json.loads(path.read_text())
        assert winner["reproduced_exactly"]
        for part in winner["simulated"].values():
            assert abs(part["simulated_s"] / part["estimated_s"] - 1) <= 0.02
    drawn = {path.name for path in write_figures(found, tmp_path)}
    assert drawn == {"frontier.png", "hypervolume.png", "importance.png", "parallel.png"}
