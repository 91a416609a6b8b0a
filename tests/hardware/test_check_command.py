"""`dovetail check` through the command's own function."""

import typer
from typer.testing import CliRunner

from sim.cli.hardware import check
from sim.errors import ConfigError
from sim.hardware.load import hardware_path

APP = typer.Typer()
APP.command()(check)


def run(*words):
    return CliRunner().invoke(APP, [str(word) for word in words])


def test_check_says_what_was_understood():
    result = run(hardware_path("tesla-fsd-npu"), "--set", "SRAM.capacity=16 MiB")
    assert result.exit_code == 0
    for part in ("36.86", "SRAM: sram, 16 MiB, reads 384 B/cycle, writes 128 B/cycle", "1 override", "note:"):
        assert part in result.output


def test_check_refuses_what_is_not_ours(tmp_path):
    path = tmp_path / "x.yaml"
    for text, part in (("a: 1", "no schema"), ("schema: dovetail.chips/1", "Did you mean"), ("[", "not valid YAML")):
        path.write_text(text)
        error = run(path).exception
        assert isinstance(error, ConfigError)
        assert part in str(error)
    assert "does not exist" in str(run(tmp_path / "none.yaml").exception)
