"""Values and ranges of `dovetail sweep`, and its tables as files."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.cli.sweep import values
from sim.errors import ConfigError, TraceError
from sim.sweep_io import columns_of, write_table


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("16,32,64", [16, 32, 64]),
        ("34 GB/s, 68 GB/s", ["34 GB/s", "68 GB/s"]),
        ("16 MiB:64 MiB:4", ["16 MiB", "32 MiB", "48 MiB", "64 MiB"]),
        ("1:2 GHz:3", ["1 GHz", "1.5 GHz", "2 GHz"]),
        ("1 GHz:2:4", values("1 GHz:2 GHz:4", where="")),
        ("16:64:4", [16, 32, 48, 64]),
    ],
)
def test_values(text: str, found: list[str | int]) -> None:
    assert values(text, where="--set x") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("16,,64", "empty value"),
        ("1:2", "no range"),
        ("1:2:1", "no range"),
        ("1 GHz:2 MHz:3", "begins in GHz and ends in MHz"),
        ("1:2:3", "whole numbers: 1, 1.5, 2"),
        ("a:b:3", "no quantity"),
        ("1:1000000:1000000000", 'x: "1:1000000:1000000000": 1,000,000,000 values, at most 10,000'),
        ("1:2:" + "9" * 5000, "no range"),
    ],
)
def test_values_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        values(text, where="--set x")


class Columns(dict):
    @property
    def columns(self) -> list[str]:
        return list(self)


def test_tables_of_several_chips_are_stacked(tmp_path: Path) -> None:
    first = Columns({"array.rows": ["8", "16"], "latency_s": np.array([2.0, np.inf])})
    second = Columns({"latency_s": np.array([1.0])})
    columns = columns_of(["a", "b"], [first, second])
    assert columns == {
        "hardware": ["a", "a", "b"],
        "array.rows": ["8", "16", None],
        "latency_s": [2.0, None, 1.0],
    }
    path = tmp_path / "table.csv"
    write_table(path, columns)
    with path.open() as file:
        assert list(csv.reader(file))[1:] == [["a", "8", "2.0"], ["a", "16", ""], ["b", "", "1.0"]]


def test_parquet_needs_pyarrow(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    if find_spec("pyarrow") is None:
        with pytest.raises(ConfigError, match=r"pip install \"dovetail-sim\[parquet\]\""):
            write_table(path, {"a": [1]})
    else:
        write_table(path, {"a": [1]})
        assert path.read_bytes().startswith(b"PAR1")
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        write_table(tmp_path / "table.xls", {"a": [1]})


def test_a_range_is_drawn(tmp_path: Path) -> None:
    """Latency and throughput along the batch, one line a chip; nothing numeric to draw is an error."""
    words = ["sweep", "mlp", "--hw", "systolic", "--hw", "edge-npu", "--figure", str(tmp_path / "batch.png")]
    runner = CliRunner()
    done = runner.invoke(app, [*words, "-p", "batch=1,2,4"])
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "batch.png").stat().st_size > 10_000
    refused = runner.invoke(app, words)
    assert refused.exit_code == 2
    assert "nothing numeric varies" in refused.stderr


def test_the_lines_of_a_figure() -> None:
    """By hand: two chips, three batches; the throughput is batch over latency."""
    from sim.view.scaling import lines_of, number_of, scaling_axis, scaling_figure

    columns = {
        "hardware": ["a", "a", "b", "b"],
        "batch": ["4", "2", "2", "4"],
        "latency_s": [0.4, 0.3, 0.1, None],
    }
    assert scaling_axis(columns) == "batch"
    assert lines_of(columns, "batch", "latency_s") == {"a": [(2.0, 0.3), (4.0, 0.4)], "b": [(2.0, 0.1)]}
    assert [number_of(text) for text in ("34 GB/s", 8, "1e3", "int8", True)] == [34.0, 8.0, 1000.0, None, None]
    assert len(scaling_figure(columns, "batch").axes) == 2
    assert scaling_axis({"hardware": ["a", "b"], "latency_s": [1.0, 2.0]}) is None


def test_the_axis_of_a_figure_has_its_unit_and_the_order_of_its_quantities() -> None:
    """512 KiB lies left of 1 MiB; a unit that all share is the axis', different ones stay with their values."""
    from sim.view.scaling import lines_of, scaling_figure

    columns = {"SRAM.capacity": ["512 KiB", "1 MiB", "2 MiB"], "latency_s": [3.0, 2.0, 1.0]}
    assert lines_of(columns, "SRAM.capacity", "latency_s") == {
        "": [(512 * 1024.0, 3.0), (1024 * 1024.0, 2.0), (2048 * 1024.0, 1.0)]
    }
    (ax,) = scaling_figure(columns, "SRAM.capacity").axes
    assert (ax.get_xlabel(), [t.get_text() for t in ax.get_xticklabels()]) == (
        "SRAM.capacity",
        columns["SRAM.capacity"],
    )
    columns = {"clock": ["0.5 GHz", "1.25 GHz"], "latency_s": [3.0, 2.0]}
    (ax,) = scaling_figure(columns, "clock").axes
    assert (ax.get_xlabel(), [t.get_text() for t in ax.get_xticklabels()]) == ("clock [GHz]", ["0.5", "1.25"])
    many = {"window": list(range(30)), "latency_s": [1.0 + k for k in range(30)]}
    (ax,) = scaling_figure(many, "window").axes
    assert (ax.get_xlabel(), ax.get_xscale(), len(ax.get_xticks())) == ("window", "linear", 10)


@pytest.mark.parametrize(
    ("words", "code", "reasons"),
    [
        (
            "llama -p size=1b,70b -p layers=1 -p phase=decode -p context=16 --hw systolic --set DRAM.capacity=1GB",
            0,
            ["", "do not fit DRAM"],
        ),
        ("mlp --hw systolic --set DRAM.capacity=1kB", 1, ["do not fit DRAM"]),
        ("mlp --hw systolic --set SRAM.capacity=1B,1MiB", 0, ["bytes in SRAM, 1 are free", ""]),
        ("mlp --hw h100-sxm --set DRAM.capacity=1kB", 1, ["do not fit DRAM"]),
        ("bessel.py -p width=8,16 --hw systolic --calibration none", 0, ["1 op has no cost rule", ""]),
        ("bessel.py --hw systolic", 1, ["1 op has no cost rule"]),
    ],
)
def test_what_cannot_run_is_a_row_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int, reasons: list[str]
) -> None:
    """The table is written whatever runs; exit code 1 where nothing does."""
    monkeypatch.chdir(tmp_path)
    Path("bessel.py").write_text(BESSEL)
    done = CliRunner().invoke(app, ["sweep", *words.split(), "-o", "t.csv"])
    assert done.exit_code == code, done.stderr
    with Path("t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, reason in zip(rows, reasons, strict=True):
        assert row["infeasible"] == str(bool(reason))
        assert reason in row["reason"]
        assert (row["latency_s"] == "", row["energy_j"] == "") == (bool(reason), bool(reason))


@pytest.mark.parametrize("command", ["roofline", "simulate", "sweep"])
def test_ops_without_a_rule_are_costed_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The refusal names the option; with it there is an answer, which lists the op (a roofline shows it as a point).
    The counts of a table are whole numbers: 2 x 8 x 8 MACs."""
    monkeypatch.chdir(tmp_path)
    Path("bessel.py").write_text(BESSEL)
    words = [command, "bessel.py", "--hw", "systolic"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1
    assert "--allow-unsupported" in " ".join((refused.stderr + refused.stdout).split())
    shown = CliRunner().invoke(app, [*words, "--allow-unsupported"])
    assert shown.exit_code == 0, shown.stderr
    assert "bessel_j0" in shown.stdout
    document = json.loads(CliRunner().invoke(app, [*words, "--allow-unsupported", "--json"]).stdout)
    if command == "roofline":
        assert any("bessel_j0" in point["kind"] for point in document["ops"])
    else:
        assert document["unsupported"] == ["aten.special_bessel_j0 at bessel.py:12"]
    if command == "sweep":
        assert json.dumps(document["columns"]["macs"]) == json.dumps(document["columns"]["effective_macs"]) == "[128]"


def test_columns_are_those_of_python() -> None:
    """Counts and knobs are numbers in the document, as in the table of the same sweep from Python; quantities texts."""
    words = ["sweep", "mlp", "--hw", "systolic", "--set", "array.rows=16,32", "--set", "clock=1 GHz", "-p", "batch=1,2"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    columns = json.loads(done.stdout)["columns"]
    table = sim.sweep("mlp", "systolic", {"array.rows": [16, 32], "clock": ["1 GHz"]}, knobs={"batch": [1, 2]})
    for name in table.parameters:
        assert columns[name] == table[name].tolist(), name
    assert (columns["array.rows"], columns["batch"]) == ([16, 16, 32, 32], [1, 2, 1, 2])


def test_a_scenario_has_no_ops_to_allow() -> None:
    done = CliRunner().invoke(app, ["simulate", "neighbours", "--allow-unsupported"])
    assert done.exit_code == 2
    assert "--allow-unsupported is for a workload" in " ".join(done.stderr.split())


BESSEL = """
import torch


class Model(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = torch.nn.Linear(width, width)

    def forward(self, x):
        y = self.layer(x)
        return torch.special.bessel_j0(y) if x.shape[-1] == 8 else y


def build(width: int = 8):
    return Model(width), (torch.empty(2, width),)
"""
"""A model with an op without a cost rule, unless it is wide."""


def test_values_that_do_not_go_together_are_rows_with_a_reason() -> None:
    """1020 = 12 x 85 channels do not split over 8 heads; four chips make no eight stages, and a product has no cuts."""
    knobs = {"heads": [12, 8], "width": [1020, 1024], "depth": [1]}
    table = sim.sweep("vit", "systolic", knobs=knobs)
    assert table["infeasible"].tolist() == [False, True, True, False]
    assert ["is invalid for input of size" in reason for reason in table["reason"]] == [False, True, True, False]
    assert (
        table["latency_s"][0]
        == sim.estimate(sim.load_workload("vit", heads=12, width=1020, depth=1), "systolic").latency_s
    )

    grid = {"system.chips": [4, 8], "system.pipeline": [1, 8]}
    table = sim.sweep(sim.gemm(64, 64, 64), "h100-sxm-x8", grid)
    assert table["infeasible"].tolist() == [False, True, False, True]
    assert "4 chips do not divide into 8 pipeline stages" in table["reason"][1]
    assert "fewer places to cut than 8" in table["reason"][3]
    assert np.isnan(table["area_mm2"][1])
    assert table["area_mm2"][2] == 2 * table["area_mm2"][0]


def test_clocks_that_depend_on_each_other_are_those_of_their_row() -> None:
    """A unit keeps a clock of its own, whatever the chip's is, and no clock is above the greatest of its row."""
    graph, chip = sim.gemm(256, 256, 256), sim.load_hardware("systolic")
    table = sim.sweep(graph, chip, {"clock": ["0.5 GHz", "1 GHz"], "npu.clock": ["0.25 GHz", "2 GHz"]})
    alone = [sim.estimate(graph, chip.set("npu.clock", clock)).latency_s for clock in ("0.25 GHz", "2 GHz")]
    assert table["latency_s"].tolist() == alone * 2

    table = sim.sweep(graph, chip, {"clock": ["1 GHz", "1.9 GHz"], "technology.max_clock": ["1.5 GHz", "2 GHz"]})
    assert table["infeasible"].tolist() == [False, False, True, False]
    assert "1.9 GHz is above technology.max_clock, 1.5 GHz" in table["reason"][2]


def test_what_is_wrong_with_every_combination_is_an_error() -> None:
    with pytest.raises(TraceError, match="is invalid for input of size"):
        sim.sweep("vit", "systolic", knobs={"heads": [7, 8], "width": [1020], "depth": [1]})
    with pytest.raises(ConfigError, match="4 chips do not divide into 8"):
        sim.sweep(sim.gemm(64, 64, 64), "h100-sxm-x8", {"system.chips": [4], "system.pipeline": [8]})
    with pytest.raises(ConfigError, match=r"array\.rows=0"):  # wrong by itself
        sim.sweep("mlp", "systolic", {"array.rows": [16, 0]})


def test_the_command_tells_reasons_the_most_frequent_first() -> None:
    words = "sweep gemm --hw h100-sxm-x8 --set system.chips=4,8 --set system.pipeline=1,4,8"
    done = CliRunner().invoke(app, words.split())
    text = " ".join(done.stdout.split())
    assert done.exit_code == 0
    assert "4 of 6 do not run: gemm: fewer places to cut than 4 pipeline stages need" in text
    assert "(2); h100-sxm-x8: system.chips=4, system.pipeline=8:" in text
