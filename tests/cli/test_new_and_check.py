"""Files to start from are written whole, are checked, and run as they are; relative names hold from anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.codesign.space import load_space
from sim.cost.gpu.device import Generation
from sim.hardware.load import load_hardware
from sim.hardware.options import CHOICES
from sim.resources import data_dir
from sim.schedule.gpu_eager import LAUNCHES


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_a_new_search_is_checked_and_brings_the_function_that_it_names(tmp_path: Path, monkeypatch) -> None:
    """324 designs: 3 widths x 3 depths x 2 precisions, and 3 x 3 x 2 chips."""
    monkeypatch.chdir(tmp_path)
    run("new", "search", "my-space")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-space.yaml", "my_space_quality.py"]
    shown = run("check", "my-space.yaml")
    assert "324 designs, judged by latency, area, quality" in shown
    assert "mlp.layers: 1, 2, 3" in shown
    assert "18 model sides x 18 chips = 324 designs" in run("search", "my-space.yaml", "--dry-run")
    again = CliRunner().invoke(app, ["new", "search", "my-space"])
    assert again.exit_code == 2
    assert "there is such a file" in again.stderr


@pytest.mark.parametrize("like", ["driving-chip", "edge-vision"])
def test_a_copy_of_a_bundled_search_stands_alone(tmp_path: Path, monkeypatch, like: str) -> None:
    monkeypatch.chdir(tmp_path)
    run("new", "search", "mine", "--like", like)
    assert "designs, judged by" in run("check", "mine.yaml")


@pytest.mark.parametrize(
    ("kind", "like", "words"),
    [
        ("scenario", None, "stream frames: driving on npu"),
        ("scenario", "llm-serving-h100", "serving llama"),
        ("recipe", None, "quantise"),
        ("recipe", "sparse-2to4-int8", "sparsify_nm"),
    ],
)
def test_a_scenario_and_a_recipe_to_start_from(tmp_path: Path, monkeypatch, kind: str, like: str | None, words) -> None:
    monkeypatch.chdir(tmp_path)
    run("new", kind, "mine", *(("--like", like) if like else ()))
    shown = run("check", "mine.yaml")
    assert shown.startswith("mine: ")
    assert words in shown


def test_a_model_beside_the_search_file_is_found_from_elsewhere(tmp_path: Path, monkeypatch) -> None:
    """And the search stays the same one, from wherever it is run."""
    monkeypatch.chdir(tmp_path)
    run("new", "search", "my-space")
    run("new", "workload", "my_model")
    text = Path("my-space.yaml").read_text().replace("workload: mlp ", "workload: my_model.py ")
    Path("my-space.yaml").write_text(text)
    here = load_space("my-space.yaml").identity()
    monkeypatch.chdir(data_dir("searches"))
    assert load_space(tmp_path / "my-space.yaml").identity() == here


def test_check_knows_scenarios_and_recipes() -> None:
    scenarios, recipes = data_dir("workloads") / "scenarios", data_dir("workloads") / "recipes"
    assert "stream planner: decoder on npu" in run("check", str(scenarios / "autopilot.yaml"))
    assert "serving llama" in run("check", str(scenarios / "llm-serving-h100.yaml"))
    assert "quantise" in run("check", str(recipes / "int8-ptq.yaml"))


def test_check_says_what_a_model_is_made_of(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("new", "workload", "my_model")
    assert "MACs        1,861,632" in run("check", "my_model.py")
    assert run("check", "my_model.py:build") == run("check", "my_model.py")


def test_check_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: x\nhardware: tesla-fsd\nstreams: []\n")
    refused = CliRunner().invoke(app, ["check", str(path)])
    assert refused.exit_code == 2
    assert "either streams or serving" in refused.stderr
    refused = CliRunner().invoke(app, ["check", str(data_dir("searches") / "edge-vision.yaml"), "--set", "clock=1 GHz"])
    assert refused.exit_code == 2
    assert "is for a chip file" in refused.stderr


@pytest.mark.parametrize(
    ("base", "unit", "message"),
    [
        (
            "h200-torch",
            "options: {launch: eagre}",
            'launch is "eagre", expected one of graph, eager. Did you mean "eager"',
        ),
        ("h200-torch", "options: {generation: foo}", 'generation is "foo", expected one of volta,'),
        ("h200", "options: {dram_efficiency: 12}", "dram_efficiency is 12, expected a share"),
        ("edge-npu", "costing: gpu_eager", "costing is gpu_eager, and options.generation is missing"),
        ("systolic", "{costing: gpu_kernels, options: {generation: hopper}}", "no fan-out over SMs"),
    ],
)
def test_check_refuses_what_an_estimate_would_refuse_of_a_gpu(
    tmp_path: Path, base: str, unit: str, message: str
) -> None:
    name = load_hardware(base).main_unit.name
    words = unit if unit.startswith("{") else f"{{{unit}}}"
    file = tmp_path / "mine.yaml"
    change = words.replace("{", f"{{name: {name}, source: mine, ", 1)
    file.write_text(f"schema: dovetail.chip/1\nextends: {base}\nname: mine\nunits: [{change}]\n")
    done = CliRunner().invoke(app, ["check", str(file)])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_the_words_of_a_gpus_options_are_those_that_its_costing_reads() -> None:
    assert CHOICES["generation"] == tuple(Generation)
    assert CHOICES["launch"] == LAUNCHES


def test_an_interrupted_search_says_that_it_goes_on(tmp_path: Path, monkeypatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sim, "search", stopped, raising=False)
    run("new", "search", "mine")
    done = CliRunner().invoke(app, ["search", "mine.yaml", "-o", "found"])
    assert done.exit_code == 130
    assert "the same command goes on" in done.stderr
