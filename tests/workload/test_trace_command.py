"""`dovetail trace`, as typer runs it."""

import json

import pytest
import typer
from typer.testing import CliRunner

from sim.cli.workloads import trace
from sim.workload.load import load_workload
from sim.workload.serialize import load_graph
from sim.workload.summary import knobs_of


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("DOVETAIL_CACHE", str(tmp_path / "cache"))
    app = typer.Typer()
    app.command()(trace)
    return lambda *args: CliRunner().invoke(app, args)


def test_summary_json_and_file_tell_the_same_graph(run, tmp_path):
    path = tmp_path / "g.json"
    graph = load_workload("gemm", m=4, n=8, k=16)
    told = run("gemm", "-p", "m=4", "-p", "n=8", "-p", "k=16", "-o", str(path))
    assert told.exit_code == 0, told.output
    assert f"MACs        {4 * 8 * 16:,}" in told.output
    assert load_graph(path) == graph
    printed = run("gemm", "-p", "m=4", "-p", "n=8", "-p", "k=16", "--json")
    assert json.loads(printed.stdout)["ops"][0]["type"] == "einsum"


@pytest.mark.parametrize("text", ["batch", "=4"])
def test_knobs_need_a_name_and_a_value(text):
    with pytest.raises(Exception, match="expected knob=value"):
        knobs_of([text])
