"""The bundled searches: both forms are valid, and the command answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.codesign.space import load_space
from sim.errors import ConfigError
from sim.resources import data_dir

NAMES = sorted(path.stem for path in data_dir("searches").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_valid(name: str) -> None:
    whole, short = load_space(name), load_space(name, short=True)
    sizes = [float(space.size()[0] * space.size()[1]) for space in (whole, short)]
    assert sizes[0] > 20 * sizes[1]
    assert len(whole.spec.objectives) == 3


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
