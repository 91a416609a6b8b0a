"""The laws under a precision policy: types as the file says, bounds, sweep rows, the simulator, each way of costing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_rows_and_documents import COLUMNS, same
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.results_io import from_dict, to_dict
from sim.workload.graph import EinsumOp

MIXED = """\
schema: dovetail.precision/1
name: ends-wide
default: int8
ops: {"0": bf16}
"""
CHIPS = ("systolic", "h100-sxm", "xeon-emr-2c", "jetson-orin")
"""Mapped, kernels of a GPU, a CPU, a roofline."""


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    path = tmp_path / "mixed.yaml"
    path.write_text(MIXED)
    return str(path)


@pytest.mark.parametrize("name", CHIPS)
def test_bounds_and_readings_under_a_policy(name: str, mixed: str) -> None:
    """roofline <= estimate, roofline <= simulate, and both readings within 2 %; no MAC appears or goes."""
    graph, chip = sim.load_workload("mlp"), sim.load_hardware(name)
    found = sim.estimate(graph, chip, precision=mixed, calibration="none")
    assert (found.precision, found.macs) == ("ends-wide", graph.macs)
    assert found.roofline["precision"] == "ends-wide"
    assert found.roofline_latency_s <= found.latency_s
    assert not found.below_datasheet_roofline
    run = sim.simulate(graph, chip, precision=mixed, calibration="none")
    assert (run.precision, run.estimate_latency_s) == ("ends-wide", found.latency_s)
    assert found.roofline_latency_s <= run.latency_s * (1 + 1e-9)
    assert run.contended_s > 0 or run.latency_s == pytest.approx(found.latency_s, rel=0.02)
    assert from_dict(to_dict(found)) == found


@pytest.mark.parametrize("name", CHIPS)
def test_every_op_states_its_types(name: str, mixed: str) -> None:
    """Module 0 in bf16, the others with int8 weights; a CPU keeps the activations around int8 layers in fp32."""
    graph, chip = sim.load_workload("mlp"), sim.load_hardware(name)
    found = sim.estimate(graph, chip, precision=mixed)
    others = "w8a32" if name.startswith("xeon") else "int8"
    assert {op.module: op.precision for op in found.ops if op.macs} == {"0": "bf16", "2": others, "4": others}
    run = sim.simulate(graph, chip, precision=mixed).to_dict()
    assert {op["name"]: op["precision"] for op in run["ops"]} == {  # type: ignore[attr-defined, index]
        op.name: op.precision or None for op in found.ops
    }


@pytest.mark.parametrize("name", CHIPS)
def test_one_precision_by_patterns_is_that_precision(name: str, tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text('schema: dovetail.precision/1\ndefault: bf16\nops: {"*": int8}\n')
    graph, chip = sim.load_workload("byte_gpt"), sim.load_hardware(name)
    patterned, plain = (sim.estimate(graph, chip, precision=p) for p in (str(path), "int8"))
    for column in COLUMNS:
        if column not in ("roofline_latency_s", "below_datasheet_roofline"):
            assert getattr(patterned, column) == getattr(plain, column), column
    assert [op.latency_s for op in patterned.ops] == [op.latency_s for op in plain.ops]
    if not name.startswith("xeon"):  # whose bound reads what is stored, fp32 between layers
        assert patterned.roofline_latency_s == plain.roofline_latency_s


@pytest.mark.parametrize("name", CHIPS)
def test_rows_of_a_sweep_are_estimates(name: str, mixed: str) -> None:
    graph, chip = sim.load_workload("mlp"), sim.load_hardware(name)
    memory = chip.main_unit.home
    table = sim.sweep(graph, chip, {f"{memory}.latency": ["100 ns", "400 ns"]}, precisions=[mixed, "int8"])
    assert list(table["precision"]) == ["ends-wide", "int8", "ends-wide", "int8"]
    assert table.settings["precision"] == ["ends-wide", "int8"]
    for i, precision in enumerate((mixed, "int8", mixed, "int8")):
        row = {f"{memory}.latency": table[f"{memory}.latency"][i]}
        alone = sim.estimate(graph, sim.load_hardware(name, row), precision=precision)
        for column in COLUMNS:
            assert same(table[column][i], getattr(alone, column)), (column, i)


def test_the_compute_roof_by_hand(mixed: str) -> None:
    """Each product at the rate of its own type: sum over ops of MACs / (cells x MACs per cycle x clock)."""
    graph, chip = sim.load_workload("mlp"), sim.load_hardware("systolic")
    array, clock = chip.main_unit.array, chip.main_unit.clock_hz
    rate = {name: array.rows * array.cols * array.macs_per_cycle[name] * clock for name in ("bf16", "int8")}
    products = [op for op in graph.ops if isinstance(op, EinsumOp)]
    by_hand = sum(op.einsum.macs / rate["bf16" if op.module == "0" else "int8"] for op in products)
    assert sim.roofline(graph, chip, mixed).resource_s["compute"] == pytest.approx(by_hand, rel=1e-12)


def test_what_if_tries_each_precision_of_the_array(mixed: str) -> None:
    chip = sim.load_hardware("systolic")
    found = sim.estimate(sim.load_workload("mlp"), chip, precision=mixed, what_if=True)
    tried = {w.resource for w in found.what_if if w.resource.startswith("precision")}
    assert {"precision int8", "precision bf16"} <= tried


@pytest.mark.parametrize("command", ["estimate", "roofline", "simulate", "sweep"])
def test_commands_take_a_policy(command: str, mixed: str) -> None:
    runner = CliRunner()
    words = [command, "mlp", "--hw", "systolic", "--precision", mixed, "--json"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    stated = document["precision"]
    assert stated == ({"systolic": ["ends-wide"]} if command == "sweep" else "ends-wide")
    Path(mixed).write_text(MIXED.replace('"0"', '"first"'))
    refused = runner.invoke(app, words)
    assert refused.exit_code == 2
    assert f'{mixed}: ops: "first" matches no op' in refused.stderr
