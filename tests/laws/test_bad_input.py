"""Bad input as a user meets it: one paragraph with the place, the expectation and the nearest fix."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.errors import InfeasibleError
from sim.mapping.mapping import Mapping
from sim.resources import data_dir
from sim.results_io import from_dict

runner = CliRunner()

CHIP = 'schema: dovetail.chip/1\nextends: systolic\nname: mine\nsource: "estimated: a test"\n'
RAISING = """
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("weights were never loaded")

def build(width: int = 4):
    return Model(), (torch.empty(2, width),)
"""
STORES = "".join(f"- {{store: {role}, memory: {{}}}}\n" for role in ("weight", "input", "output"))
MAPPING = "schema: dovetail.mapping/1\nnodes:\n"
FILES = {
    "key.yaml": CHIP + "clok: 1 GHz\n",
    "unit.yaml": CHIP + "clock: 1000000000\n",
    "raising.py": RAISING,
    "whole.yaml": MAPPING + STORES.replace("{}", "SRAM"),
    "rank.yaml": MAPPING + "- {loop: Z, tile: 4}\n" + STORES.replace("{}", "SRAM"),
    "memory.yaml": MAPPING + STORES.replace("{}", "SRM"),
    "other.yaml": "schema: dovetail.chip/1\n",
    "beside.yaml": MAPPING + "- {store: weight, memory: SRAM, beside: 3}\n",
    "bare.yaml": re.sub(r"(?ms)^technology:.*?\n(?=\S)", "", (data_dir("hw_configs") / "systolic.yaml").read_text()),
    "operand.yaml": MAPPING + "- {store: weights, memory: SRAM}\n",
}

CASES = [
    ("mlp --hw key.yaml", 2, ["key.yaml: clok", "unknown key", 'Did you mean "clock"?']),
    ("mlp --hw unit.yaml", 2, ["unit.yaml: clock", "1000000000 has no unit", 'expected a frequency such as "2 GHz"']),
    ("mlp --hw systolic --set SRAM.capcity=1MiB", 2, ["SRAM.capcity", "expected one of", 'Did you mean "capacity"?']),
    ("mlp --hw systolic --set SRM.capacity=1MiB", 2, ["SRM.capacity", "expected one of", 'Did you mean "SRAM"?']),
    ("mlp --hw systolic --set SRAM.capacity=1048576", 2, ["SRAM.capacity=1048576", "no unit", "a size such as"]),
    ("mlp --hw systolic --set DRAM.bandwidth=34GB", 2, ["DRAM.bandwidth=34GB", "is a size", "expected a rate such as"]),
    ("mlp --hw systolc", 2, ['chip "systolc"', "expected a path", 'Did you mean "systolic"?']),
    ("mpl --hw systolic", 2, ['workload "mpl"', "expected a bundled name", 'Did you mean "mlp"?']),
    ("mlp --hw systolic -p hiden=8", 2, ["mlp.py", 'no knob "hiden"', 'Did you mean "hidden"?']),
    ("mlp --hw systolic -p batch=many", 2, ["knob batch='many'", "expected int"]),
    ("mlp --hw tesla-fsd-npu --precision fp32", 2, ["tesla-fsd-npu", "no rate for fp32", "choose --precision int8"]),
    ("mlp --hw systolic --precision int9", 2, ['precision "int9"', "expected one of", 'Did you mean "int8"?']),
    ("mlp --hw systolic -p batch=0", 2, ["0.addmm (aten.addmm) works on nothing", "rank M has size 0"]),
    ("gemm --hw systolic --mapping beside.yaml", 2, ["beside.yaml: nodes[0]: beside is 3, expected true or false"]),
    ("gemm --hw bare.yaml --objective energy", 2, ["energy is asked of systolic", "array.mac_energy", "technology"]),
    ("gemm --hw mi300x --objective energy", 2, ["energy is asked of mi300x", "gpu is costed by roofline", "latency"]),
    ("gemm --hw jetson-orin --objective edp", 2, ["energy is asked of jetson-orin", "gpu is costed by roofline"]),
    ("gemm --hw xeon-spr --objective energy", 2, ["energy is asked of xeon-spr", "cpu is costed as a CPU"]),
    ("raising.py --hw systolic", 2, ["raising.py:6 in forward", "RuntimeError: weights were never loaded"]),
    ("gemm --hw systolic --mapping rank.yaml", 2, ["mm: mapping node 0", 'rank "Z"', "M, N, K"]),
    ("gemm --hw systolic --mapping memory.yaml", 2, ['no memory "SRM"', "DRAM, SRAM", 'Did you mean "SRAM"?']),
    ("gemm --hw systolic --mapping operand.yaml", 2, ["operand.yaml: nodes[0]", "expected input, weight or output"]),
    ("gemm --hw systolic --mapping other.yaml", 2, ["other.yaml: expected `schema: dovetail.mappings/1`"]),
    ("gemm --hw systolic --override mm=infs", 2, ["--override mm: inf s is no latency: expected a finite time"]),
    ("gemm --hw systolic --override mm=0s", 2, ["--override mm: 0 s each", "expected a time above 0 for one of them"]),
    ("gemm --hw systolic --mapping absent.yaml", 2, ["absent.yaml: cannot be read"]),
    ("mlp --hw systolic --override 0.admm=1ms", 2, ['no op "0.admm"', "expected one of", 'Did you mean "0.addmm"?']),
    ("mlp --hw systolic --override 0.addmm=3", 2, ["--override 0.addmm", "3 has no unit", "expected a time such as"]),
    ("mlp --hw systolic --fail-over 30", 2, ["--fail-over", "30 has no unit", "expected a time such as"]),
    ("mlp --hw systolic --fail-over 30MB", 2, ["--fail-over", "is a size", "expected a time such as"]),
    ("mlp --hw systolic --fail-over 0ms", 2, ["--fail-over 0ms", "expected a time above 0"]),
    ("raising.py:biuld --hw systolic", 2, ["no function biuld", "build(**knobs)", 'Did you mean "build"?']),
    ("mlp --hw systolic --calibration h1000", 2, ['calibration "h1000"', "expected auto or none"]),
    ("gemm --hw systolic --set SRAM.capacity=16KiB --mapping whole.yaml", 1,
     ["mm: mapping needs 12582912 bytes in SRAM", "capacity 16384", "use smaller tiles"]),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "code", "said"), CASES, ids=[words for words, _, _ in CASES])
def test_an_error_is_one_paragraph(folder: Path, words: str, code: int, said: list[str]) -> None:
    done = runner.invoke(app, ["estimate", *words.split()])
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr.startswith("dovetail: ")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    for text in said:
        assert text in done.stderr


def test_the_same_errors_stop_the_other_commands(folder: Path) -> None:
    for words in ("simulate mlp --hw systolc", "sweep mlp --hw systolic --set SRAM.capcity=1MiB,2MiB -o t.csv",
                  "roofline mlp --hw tesla-fsd-npu --precision fp32", "check key.yaml"):  # fmt: skip
        done = runner.invoke(app, words.split())
        assert done.exit_code == 2, words
        assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("workload", "hardware"),
    [("digits_cnn", "tesla-fsd-npu"), ("byte_gpt", "systolic"), ("digits_cnn", "gemmini-16"), ("resnet18", "eyeriss")],
)
def test_a_saved_mapping_costs_the_same(folder: Path, workload: str, hardware: str) -> None:
    """ResNet-18's on Eyeriss are for a network with every tensor in DRAM, and fit no homes in the buffer."""
    words = ["estimate", workload, "--hw", hardware, "--no-what-if", "--json"]
    first = runner.invoke(app, [*words, "--save-mapping", "m.yaml"])
    second = runner.invoke(app, [*words, "--mapping", "m.yaml"])
    assert (first.exit_code, second.exit_code) == (0, 0)
    one, two = json.loads(first.stdout), json.loads(second.stdout)
    assert two["latency_s"] == one["latency_s"]
    assert [op["latency_s"] for op in two["ops"]] == [op["latency_s"] for op in one["ops"]]
    assert two["traffic_bytes"] == one["traffic_bytes"]


@pytest.mark.parametrize(
    ("words", "said"),
    [("systolic --set SRAM.capacity=1B", "bytes in SRAM, 1 are free"),
     ("gemmini-16 --set scratchpad.capacity=1B", "bytes in scratchpad, 1 are free"),
     ("eyeriss --set psum_spad.capacity=1B", "bytes in psum_spad, 1 are free"),
     ("systolic --map-space uneven --set SRAM.capacity=1B", "bytes in SRAM, 1 are free")],
)  # fmt: skip
def test_a_tile_that_fits_nowhere_is_an_answer(folder: Path, words: str, said: str) -> None:
    """Infeasible: the memory, what the smallest tile needs of it, the tensors; exit code 1."""
    done = runner.invoke(app, ["estimate", "mlp", "--hw", *words.split()])
    assert done.exit_code == 1
    text = " ".join(done.stdout.split())
    assert "infeasible: 0.addmm: the smallest tile needs" in text
    assert said in text
    assert done.stderr == ""


def test_a_sweep_marks_what_fits_nowhere(folder: Path) -> None:
    """One row that fits, one whose memory holds less than the weights."""
    done = runner.invoke(app, "sweep mlp --hw systolic --set DRAM.capacity=1KiB,8GiB -o t.csv".split())
    assert done.exit_code == 0, done.stderr
    with (folder / "t.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["infeasible"] for row in rows] == ["True", "False"]
    assert rows[0]["latency_s"] == ""
    assert "do not fit DRAM" in rows[0]["reason"]
    assert float(rows[1]["latency_s"]) > 0


@pytest.mark.parametrize(
    ("hardware", "why"),
    [("mi300x", "gpu is costed by roofline"), ("xeon-spr", "cpu is costed as a CPU"),
     ("bare.yaml", "the chip file states no array.mac_energy, SRAM.read_energy")],
)  # fmt: skip
def test_why_energy_is_unknown(folder: Path, hardware: str, why: str) -> None:
    """The reason that holds: the unit's cost model, or what neither the file nor a node gives."""
    done = runner.invoke(app, ["estimate", "gemm", "--hw", hardware, "--no-what-if", "--json"])
    document = json.loads(done.stdout)
    assert document["energy_j"] is None
    assert [note for note in document["notes"] if note.startswith(f"energy is unknown: {why}")]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["DRAM.capacity=1MiB"], "do not fit DRAM of 1 MiB on tesla-fsd-npu (11 times as much)"),
        (["SRAM.capacity=64B"], "the smallest tile needs 204 bytes in SRAM, 64 are free"),
        (["DRAM.capacity=12MiB", "SRAM.capacity=64KiB"], "do not fit DRAM of 12 MiB on tesla-fsd-npu (over by 2%)"),
    ],
    ids=["weights", "a tile", "activations"],
)
def test_what_fits_nowhere_is_one_document(changes: list[str], said: str) -> None:
    """Weights that fit no DRAM, activations that do not fit beside them, a tile: the same document, no numbers."""
    words = ["estimate", "resnet18", "--hw", "tesla-fsd-npu", "--no-what-if"]
    words += [word for change in changes for word in ("--set", change)]
    done = runner.invoke(app, [*words, "--json"])
    assert (done.exit_code, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    assert said in document["infeasible"]["reason"]
    assert document["infeasible"]["tensors"]
    known = {"macs", "effective_macs", "vector_ops", "flops", "batch", "roofline_latency_s", "area_mm2"}
    assert {key for key, value in document.items() if isinstance(value, float | int) and value is not False} == known
    assert document["macs"] == sum(op["macs"] for op in document["ops"]) > 0
    assert all(op["latency_s"] is op["energy_j"] is None for op in document["ops"])
    found = from_dict(document)
    assert found.to_dict() == document
    shown = runner.invoke(app, words)
    assert shown.exit_code == 1
    assert said in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [("gemm --hw systolic --set DRAM.capacity=1KiB", ["3 MiB of weights", "do not fit DRAM of 1 KiB", "3,072 times"]),
     ("llama -p size=70b --hw tesla-fsd-npu --quiet", ["do not fit DRAM", "8 GiB on tesla-fsd-npu", "embed"]),
     ("llama -p size=8b -p layers=1 --hw l40s --set DRAM.capacity=2GB", ["DRAM of 1.86 GiB", "precision int8 ("])],
)  # fmt: skip
def test_a_network_that_fits_nowhere_is_an_answer(words: str, said: list[str]) -> None:
    done = runner.invoke(app, ["estimate", *words.split()])
    assert done.exit_code == 1
    text = " ".join(done.stdout.split())
    assert all(part in text for part in said), text


def test_what_fits_nowhere_says_what_would_run() -> None:
    """Twice the memory of the tile runs, and is told with its latency."""
    done = runner.invoke(app, "estimate resnet18 --hw tesla-fsd-npu --set SRAM.capacity=150B".split())
    assert done.exit_code == 1
    assert "It would run with SRAM.capacity x 2 (1.66 s)." in done.stdout


@pytest.mark.parametrize(("path", "value"), [("DRAM.capacity", "1KiB"), ("SRAM.capacity", "1B")])
def test_a_sweep_of_which_nothing_runs_says_why(path: str, value: str) -> None:
    """One design too: a row with the reason of its estimate, and exit code 1."""
    done = runner.invoke(app, ["sweep", "mlp", "--hw", "systolic", "--set", f"{path}={value}"])
    assert done.exit_code == 1, done.stderr
    assert "None of them runs: " in done.stdout
    table = sim.sweep("mlp", sim.load_hardware("systolic"), {path: [value]})
    found = sim.estimate(sim.load_workload("mlp"), sim.load_hardware("systolic", {path: value}))
    assert found.infeasible is not None
    assert (bool(table["infeasible"][0]), table["reason"][0]) == (True, found.infeasible["reason"])
    assert table["macs"][0] == found.macs


def test_weights_that_cannot_fit_are_told_before_anything_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("mapped for nothing")

    monkeypatch.setattr("sim.schedule.asking.map_einsums", never)
    chip = sim.load_hardware("edge-npu", {"DRAM.capacity": "8 MiB"})
    found = sim.estimate(sim.load_workload("resnet50"), chip)
    assert "do not fit DRAM" in found.infeasible["reason"]  # type: ignore[index]
    with pytest.raises(InfeasibleError, match="do not fit DRAM"):
        sim.simulate(sim.load_workload("resnet50"), chip)
    with pytest.raises(InfeasibleError, match="do not fit DRAM"):
        sim.evaluate(sim.gemm(8192, 8192, 8192), chip, Mapping(nodes=()))
