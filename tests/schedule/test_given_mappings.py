"""Mappings handed over: in every form of ours, never unused in silence, under homes that they fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.errors import ConfigError, InfeasibleError, MappingError
from sim.mapping.mapping import Loop, Store
from sim.workload.graph import OperandRole

runner = CliRunner()

WHOLE = sim.Mapping(nodes=tuple(Store(memory="SRAM", operand=role, double_buffered=False) for role in OperandRole))
SLOW = sim.Mapping(nodes=(Loop(rank="M", tile=1), *WHOLE.nodes))
"""One row at a time: no search would choose it."""


def slow_gemm() -> tuple:
    return sim.load_workload("gemm", m=8, n=64, k=64), sim.load_hardware("systolic")


FORMS = {
    "one": lambda name: SLOW,
    "one document": lambda name: SLOW.to_dict(),
    "of an op": lambda name: {"dataflow": "weight_stationary", **SLOW.to_dict()},
    "by name": lambda name: {name: SLOW},
    "documents by name": lambda name: {name: SLOW.to_dict()},
    "for all": lambda name: {"*": {"nodes": SLOW.to_dict()["nodes"]}},
    "and none": lambda name: {name: SLOW, "a view": None},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_mapping_is_taken(form) -> None:
    graph, chip = slow_gemm()
    best = sim.estimate(graph, chip)
    (name,) = (op.name for op in best.ops if op.macs)
    found = sim.estimate(graph, chip, mapping=form(name))
    mapping = next(op.mapping for op in found.ops if op.name == name)
    assert sim.Mapping.from_dict(mapping) == SLOW
    assert found.latency_s > best.latency_s
    assert found.map_space == "given"
    run = sim.simulate(graph, chip, mapping=form(name))
    assert run.latency_s == pytest.approx(found.latency_s, rel=1e-6)
    assert run.map_space == "given"


def test_what_an_op_says_of_its_mapping_is_a_mapping() -> None:
    graph, chip = slow_gemm()
    found = sim.estimate(graph, chip, map_space="fixed_dataflow")
    again = sim.estimate(graph, chip, mapping={op.name: op.mapping for op in found.ops})
    assert (again.latency_s, again.map_space) == (found.latency_s, "given")
    assert sim.evaluate(graph, chip, SLOW.to_dict()).latency_s == sim.evaluate(graph, chip, SLOW).latency_s
    best = next(op for op in found.ops if op.mapping)
    assert sim.evaluate(graph, chip, best.mapping).mapping == best.mapping


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ("m.yaml", "expected a sim.Mapping, .* got str"),
        ([SLOW], "got list"),
        ({"*": "m.yaml"}, 'mapping for "\\*": expected a sim.Mapping, .* got str'),
        ({"*": {"loops": []}}, 'mapping for "\\*": expected a list under `nodes`'),
        ({"nodes": [{"loop": "M"}]}, r"nodes\[0\]: tile is None"),
    ],
)
def test_anything_else_is_refused(mapping: object, said: str) -> None:
    graph, chip = slow_gemm()
    for door in (sim.estimate, sim.simulate, sim.evaluate):
        with pytest.raises(MappingError, match=said):
            door(graph, chip, mapping=mapping)


def test_no_mapping_to_evaluate() -> None:
    with pytest.raises(MappingError, match="no mapping to cost"):
        sim.evaluate(*slow_gemm(), None)


@pytest.mark.parametrize(
    ("hardware", "said"),
    [("h100-sxm", "gpu is costed by the kernels"), ("xeon-spr", "by the loops"), ("jetson-orin", "by roofline")],
)
def test_units_that_are_not_mapped_take_none(hardware: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps(SLOW.to_dict()))
    done = runner.invoke(app, ["estimate", "gemm", "--hw", hardware, "--mapping", str(path)])
    assert done.exit_code == 2
    assert said in done.stderr
    graph = sim.load_workload("gemm")
    with pytest.raises(MappingError, match=said):
        sim.simulate(graph, sim.load_hardware(hardware), mapping=SLOW)
    none = {op.name: op.mapping for op in sim.estimate(graph, sim.load_hardware(hardware)).ops}
    assert sim.estimate(graph, sim.load_hardware(hardware), mapping=none).map_space == "even"


def test_the_map_space_given_needs_mappings(tmp_path: Path) -> None:
    graph, chip = slow_gemm()
    with pytest.raises(ConfigError, match="`mapping=`, or --mapping"):
        sim.estimate(graph, chip, map_space="given")
    with pytest.raises(ConfigError, match="`mapping=`, or --mapping"):
        sim.sweep(graph, chip, {"clock": ["1 GHz"]}, map_space="given")
    with pytest.raises(MappingError, match=r'map space "evn" is unknown: .* Did you mean "even"'):
        sim.estimate(graph, sim.load_hardware("h100-sxm"), map_space="evn")
    assert sim.estimate(graph, chip, map_space="given", mapping=SLOW).map_space == "given"
    words = ["estimate", "gemm", "--hw", "systolic", "--map-space", "given"]
    done = runner.invoke(app, words)
    assert (done.exit_code, "--mapping" in done.stderr) == (2, True)
    path = str(tmp_path / "m.yaml")
    assert runner.invoke(app, [*words[:-2], "--save-mapping", path]).exit_code == 0
    done = runner.invoke(app, [*words, "--mapping", path])
    assert (done.exit_code, "best of the given mappings" in done.stdout) == (0, True)
    done = runner.invoke(app, [*words[:-1], "evn"])
    assert (done.exit_code, 'Did you mean "even"?' in done.stderr) == (2, True)


def test_ops_left_out_are_searched_and_told() -> None:
    graph, chip = sim.load_workload("mlp"), sim.load_hardware("systolic")
    best = sim.estimate(graph, chip)
    first = next(op for op in best.ops if op.mapping)
    found = sim.estimate(graph, chip, mapping={first.name: first.mapping}, map_space="fixed_dataflow")
    assert any("no mapping given for" in note and "best fixed_dataflow ones" in note for note in found.notes)


def test_a_mapping_that_fits_no_homes_is_an_error() -> None:
    """Told of the operands at home, where a mapping lacks no room to other tensors."""
    graph = sim.load_workload("mlp")
    with pytest.raises(MappingError, match='no memory "SRM"'):
        sim.estimate(graph, sim.load_hardware("systolic"), mapping={"nodes": [{"store": "weight", "memory": "SRM"}]})
    with pytest.raises(InfeasibleError, match="bytes in SRAM, capacity 1024"):
        sim.estimate(graph, sim.load_hardware("systolic", {"SRAM.capacity": "1 KiB"}), mapping=WHOLE)


@pytest.mark.parametrize("left_out", list(OperandRole))
def test_a_memory_that_holds_an_operand_is_not_passed_by(left_out: OperandRole) -> None:
    """Else the array would read its weights from DRAM as if no buffer stood between, without a set-up."""
    nodes = tuple(node for node in WHOLE.nodes if node.operand is not left_out)
    with pytest.raises(MappingError, match=f"no store of {left_out.value} in SRAM, which holds it: .* out of `holds`"):
        sim.estimate(*slow_gemm(), mapping=sim.Mapping(nodes=nodes))


def test_a_given_mapping_has_the_room_that_kept_tensors_leave() -> None:
    """A layer whose tiles just fill the buffer: then its input and output do not stay there."""
    graph = sim.load_workload("mlp")
    best = sim.estimate(graph, sim.load_hardware("systolic"))
    op = max((op for op in best.ops if set(op.homes.values()) == {"DRAM", "SRAM"}), key=lambda op: op.macs)
    sides = next(one for one in graph.ops if one.name == op.name).einsum.ranks
    size = op.macs + sides["K"] + 4 * sides["N"]  # one row in int8, its sums in int32
    chip = sim.load_hardware("systolic", {"SRAM.capacity": f"{size} B"})
    found = sim.estimate(graph, chip, mapping={op.name: WHOLE})
    assert found.peak_memory_bytes["SRAM"] <= size
    assert set(next(one for one in found.ops if one.name == op.name).homes.values()) == {"DRAM"}
