"""The command's frame: what is listed, what is loaded, exit codes, one document on stdout."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import typer
from matplotlib.axes import Axes
from typer.testing import CliRunner

import sim
from sim.baseline.record import BaselineRecord, Kind, Mode, append_record
from sim.cli import COMMANDS, EXIT_BUG, app, common
from sim.errors import ConfigError, DovetailError, InfeasibleError
from sim.hardware.chip import Chip
from sim.results import Estimate
from sim.view import figures
from sim.view.labels import Room
from sim.workload.graph import Graph

runner = CliRunner()


def present() -> list[str]:
    return [name for name, entry in COMMANDS.items() if importlib.util.find_spec(entry.module) is not None]


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch, estimate: Estimate, bottlenecks: Graph, toy_chip: Chip) -> list[dict]:
    """The Python API replaced by made-up answers; returns the options of every call of `estimate`."""
    calls: list[dict] = []

    def answer(graph: Graph, chip: Chip, **options: object) -> Estimate:
        calls.append({"graph": graph, "chip": chip, **options})
        return estimate

    monkeypatch.setitem(sim.__dict__, "estimate", answer)
    monkeypatch.setitem(sim.__dict__, "load_workload", lambda name, **knobs: bottlenecks.with_(knobs=knobs))
    monkeypatch.setitem(sim.__dict__, "load_hardware", lambda name, changes=None: toy_chip)
    return calls


def test_help_loads_neither_torch_nor_numpy() -> None:
    """The overview needs the table of commands alone."""
    code = (
        "import sys\nfrom sim.cli import main\nsys.argv = ['dovetail', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'scipy', 'matplotlib', 'optuna', 'yaml', 'simpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_python_m_sim_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "sim", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"dovetail {sim.__version__}\n"


def test_only_commands_that_are_there_are_listed() -> None:
    """A row of the table whose module is missing is hidden; of the others the function exists."""
    group = typer.main.get_command(app)
    assert sorted(group.commands) == sorted(present())
    for name in present():
        assert callable(getattr(importlib.import_module(COMMANDS[name].module), COMMANDS[name].function))
    shown = " ".join(runner.invoke(app, ["--help"]).stdout.split())
    assert all(COMMANDS[name].help in shown for name in present())


@pytest.mark.parametrize("name", present())
def test_help_of_every_command_has_an_example(name: str) -> None:
    done = runner.invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert f"Example: dovetail {name}" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("list --nonsense", "dovetail list: no such option: --nonsense. Expected one of --json, --quiet, -q, --debug."),
        ("estimate mlp --hw systolic --objectiv edp", 'no such option: --objectiv. Did you mean "--objective"?'),
        ("estimate mlp --hw systolic --objective enery",
         "dovetail estimate: invalid value for '--objective': 'enery' is not one of 'latency', 'energy', 'edp'. Did"),
        ("estimate mlp --hw systolic --objective speed", "'speed' is not one of 'latency', 'energy', 'edp'."),
        ("estimate mlp", "dovetail estimate: missing option '--hw'. Expected: Bundled name or chip.yaml"),
        ("estimate", "dovetail estimate: missing argument 'workload'. Expected: Bundled name, model.py"),
        ("estimate mlp --hw", "dovetail: Option '--hw' requires an argument."),
        ("estimate mlp more --hw systolic", "dovetail estimate: got unexpected extra argument(s) (more)."),
        ("simulate mlp --seed x", "dovetail simulate: invalid value for '--seed': Input should be a valid integer"),
        ("estimat", "dovetail: no such command 'estimat'. Did you mean 'estimate'"),
        ("zzz", "dovetail: no such command 'zzz'. Expected one of list, show, check"),
        ("--nonsense", "dovetail: no such option: --nonsense. Expected one of --version"),
    ],
)  # fmt: skip
def test_words_that_are_not_taken_are_told_in_one_paragraph(words: str, said: str) -> None:
    done = runner.invoke(app, words.split())
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("dovetail")
    assert done.stderr.count("\n") == 1


def test_no_words_at_all_show_the_overview() -> None:
    done = runner.invoke(app, [])
    assert done.exit_code == 2
    assert "Usage: dovetail" in done.stderr


@pytest.mark.parametrize("command", ["estimate mlp", "sweep mlp", "simulate mlp", "roofline mlp"])
def test_an_empty_precision_is_not_the_default(command: str) -> None:
    done = runner.invoke(app, [*command.split(), "--hw", "systolic", "--precision", ""])
    assert done.exit_code == 2
    assert done.stderr.startswith('dovetail: precision "" is unknown: expected one of')


def fail_with(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code"),
    [(ConfigError("chip.yaml: clock:\n  a number"), 2), (InfeasibleError("does not fit"), 1), (DovetailError("no"), 2)],
)
def test_errors_are_one_paragraph(
    monkeypatch: pytest.MonkeyPatch, bundled: list[dict], error: DovetailError, code: int
) -> None:
    monkeypatch.setitem(sim.__dict__, "estimate", fail_with(error))
    done = runner.invoke(app, ["estimate", "w", "--hw", "toy"])
    assert done.exit_code == code
    assert done.stdout == ""
    assert done.stderr == "dovetail: " + " ".join(str(error).split()) + "\n"
    debugged = runner.invoke(app, ["estimate", "w", "--hw", "toy", "--debug"])
    assert "Traceback" in debugged.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    done = runner.invoke(app, ["trace", "mlp", "-o", str(tmp_path / "no" / "graph.json")])
    assert done.exit_code == 2
    assert done.stderr == f"dovetail: {tmp_path / 'no' / 'graph.json'}: No such file or directory\n"


def test_an_unexpected_exception_is_called_a_bug(monkeypatch: pytest.MonkeyPatch, bundled: list[dict]) -> None:
    monkeypatch.setitem(sim.__dict__, "estimate", fail_with(KeyError("x")))
    done = runner.invoke(app, ["estimate", "w", "--hw", "toy"])
    assert done.exit_code == EXIT_BUG
    assert "Traceback" in done.stderr
    assert "bug in Dovetail" in done.stderr


def test_sizes_beyond_the_memory_are_no_bug(monkeypatch: pytest.MonkeyPatch, bundled: list[dict]) -> None:
    monkeypatch.setitem(sim.__dict__, "estimate", fail_with(MemoryError("Unable to allocate 74.5 GiB")))
    done = runner.invoke(app, ["estimate", "w", "--hw", "toy"])
    assert (done.exit_code, "Traceback" in done.stderr) == (2, False)
    assert "too large for this machine's memory (Unable to allocate 74.5 GiB)" in done.stderr


def test_estimate_prints_a_table_or_one_document(bundled: list[dict], estimate: Estimate) -> None:
    table = runner.invoke(app, ["estimate", "w", "--hw", "toy", "--per-op", "--by-module"])
    assert table.exit_code == 0
    assert "Where the time goes" in table.stdout
    one = runner.invoke(app, ["estimate", "w", "--hw", "toy", "--json"])
    assert json.loads(one.stdout) == json.loads(json.dumps(estimate.to_dict()))
    two = runner.invoke(app, ["estimate", "w", "--hw", "toy", "--hw", "toy", "--json"])
    assert [document["schema"] for document in json.loads(two.stdout)] == ["dovetail.estimate/1"] * 2


def test_estimate_hands_its_options_on(bundled: list[dict]) -> None:
    words = """estimate w --hw toy -p batch=4 --set clock=2_GHz --precision bf16 --objective edp --map-space uneven
        --calibration none --allow-unsupported --override conv=1.5_ms""".split()
    done = runner.invoke(app, [word.replace("_GHz", " GHz").replace("_ms", " ms") for word in words])
    assert done.exit_code == 0, done.stderr
    (call,) = bundled
    assert call["graph"].knobs["batch"] == "4"
    assert call["overrides"] == {"conv": 1.5e-3}
    assert (call["precision"], call["objective"], call["map_space"]) == ("bf16", "edp", "uneven")
    assert (call["calibration"], call["allow_unsupported"]) == ("none", True)


def test_fail_over(bundled: list[dict]) -> None:
    """The made-up network takes 63 ms."""
    assert runner.invoke(app, ["estimate", "w", "--hw", "toy", "--fail-over", "30 ms"]).exit_code == 1
    assert runner.invoke(app, ["estimate", "w", "--hw", "toy", "--fail-over", "70ms"]).exit_code == 0
    assert runner.invoke(app, ["estimate", "w", "--hw", "toy", "--fail-over", "30"]).exit_code == 2


def test_mappings_are_saved_and_read_back(bundled: list[dict], tmp_path: Path) -> None:
    path = tmp_path / "mappings.yaml"
    assert runner.invoke(app, ["estimate", "w", "--hw", "toy", "--save-mapping", str(path)]).exit_code == 0
    assert runner.invoke(app, ["estimate", "w", "--hw", "toy", "--mapping", str(path)]).exit_code == 0
    assert bundled[-1]["map_space"] == "even"
    assert bundled[-1]["mapping"]["layer1.0.conv1"].to_dict()["nodes"][0] == {"loop": "K", "tile": 64}
    path.write_text("schema: dovetail.mappings/2")
    assert runner.invoke(app, ["estimate", "w", "--hw", "toy", "--mapping", str(path)]).exit_code == 2


def test_quiet_silences_remarks_only(bundled: list[dict], tmp_path: Path) -> None:
    words = ["estimate", "w", "--hw", "toy", "--save-mapping", str(tmp_path / "m.yaml")]
    assert "written to" in runner.invoke(app, words).stderr
    done = runner.invoke(app, [*words, "--quiet"])
    assert done.stderr == ""
    assert "Where the time goes" in done.stdout


def test_compare_reads_two_results(tmp_path: Path, estimate: Estimate) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(estimate.to_dict()))
    done = runner.invoke(app, ["compare", str(path), str(path)])
    assert done.exit_code == 0
    assert "take the same time" in done.stdout
    document = json.loads(runner.invoke(app, ["compare", str(path), str(path), "--json"]).stdout)
    assert (document["schema"], document["version"]) == ("dovetail.compare/1", sim.__version__)
    (both,) = document["results"]
    assert both["latency_s"] == {"before": estimate.latency_s, "after": estimate.latency_s}
    assert both["hardware"]["before"]["name"] == estimate.hardware_name
    path.write_text("{")
    assert runner.invoke(app, ["compare", str(path), str(path)]).exit_code == 2


def test_list_is_a_document() -> None:
    document = json.loads(runner.invoke(app, ["list", "workloads", "--json"]).stdout)
    assert (document["schema"], document["version"]) == ("dovetail.list/1", sim.__version__)
    assert "resnet50" in document["workloads"]
    assert "hardware" not in document


def test_roofline_writes_figure_csv_and_json(bundled: list[dict], tmp_path: Path) -> None:
    path = tmp_path / "roofline.png"
    done = runner.invoke(app, ["roofline", "w", "--hw", "toy", "-o", str(path)])
    assert done.exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    lines = runner.invoke(app, ["roofline", "w", "--hw", "toy", "--csv"]).stdout.splitlines()
    assert len(lines) == 1 + 96
    document = json.loads(runner.invoke(app, ["roofline", "w", "--hw", "toy", "--json"]).stdout)
    assert document["schema"] == "dovetail.roofline/1"
    assert runner.invoke(app, ["roofline", "w", "--hw", "toy", "-o", "figure.doc"]).exit_code == 2


def test_roofline_states_what_its_estimate_rests_on(bundled: list[dict]) -> None:
    done = runner.invoke(app, ["roofline", "w", "--hw", "toy", "--calibration", "none"])
    assert bundled[-1]["calibration"] == "none"
    assert "data sheet only" in done.stdout
    document = json.loads(runner.invoke(app, ["roofline", "w", "--hw", "toy", "--json"]).stdout)
    assert bundled[-1]["calibration"] == "auto"
    assert document["estimate"] == {"latency_s": document["estimate"]["latency_s"], "calibration": None}


def test_the_roofline_of_what_does_not_fit_is_one_document() -> None:
    """The bound holds whatever the capacity; the estimate beside it has no latency, which JSON calls null."""
    whole, none = (
        json.loads(runner.invoke(app, ["roofline", "gemm", "--hw", "systolic", *words, "--json"]).stdout)
        for words in ([], ["--set", "DRAM.capacity=64 B"])
    )
    assert whole["batch"] == whole["knobs"]["batch"] == 1
    assert whole["estimate"]["latency_s"] > whole["latency_s"] == none["latency_s"]
    assert none["estimate"]["latency_s"] is None


@pytest.mark.parametrize(
    "command", ["estimate", "roofline", "sweep", "simulate", "measure", "validate", "compress", "search"]
)
def test_every_command_that_estimates_takes_a_calibration(command: str) -> None:
    assert "--calibration" in runner.invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout


@pytest.mark.parametrize("word", ["novalue", "=4", "-", ""])
def test_pairs_need_key_and_value(word: str) -> None:
    with pytest.raises(ConfigError, match="expected key=value"):
        common.pairs([word], option="--set")


def test_pairs_keep_what_follows_the_first_equals_sign() -> None:
    assert common.pairs(["a=b=c", "clock=2 GHz"], option="--set") == {"a": "b=c", "clock": "2 GHz"}
    with pytest.raises(ConfigError, match="given twice"):
        common.pairs(["a=1", "a=2"], option="--set")


def values_of(command: str) -> dict[str, str]:
    """Option -> what the help calls its value."""
    click = importlib.import_module("sim.cli")._load(command)
    return {name: option.metavar for option in click.params for name in option.opts if option.metavar}


@pytest.mark.parametrize("command", present())
def test_one_wording_for_the_same_value(command: str) -> None:
    """A chip is CHIP, a knob KNOB=..., a chip key PATH=... in the help of every command; -p and --param are one."""
    values = values_of(command)
    assert values.get("--hw", "CHIP") == "CHIP"
    for option, first in (("-p", "KNOB="), ("--set", "PATH=")):
        assert values.get(option, first).startswith(first)
    assert ("-p" in values) == ("--param" in values)
    assert not [value for value in values.values() if value in ("HW", "PARAM", "OVERRIDES")]
    if command != "sweep":
        assert values.get("--set", "PATH=QUANTITY") == "PATH=QUANTITY"
        assert values.get("-p", "KNOB=VALUE") == "KNOB=VALUE"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--calibration", "none"], "--calibration none: it goes with --against"),
        (["--hw", "h100-sxm"], "--hw h100-sxm: it goes with --against"),
        (["--precision", "bf16"], "--precision bf16: it goes with --against"),
        (["--against", "rows.csv", "--check", "x"], "--check x: it goes with the bundled checks"),
        (["--against", "nvidia-h200", "--precision", "bf16"], "--precision bf16: the records of nvidia-h200 state"),
        (["--against", "amd-epyc-f25m17-avx512-zen4-2c", "--hw", "epyc-zen4", "--calibration", "nonsense"],
         'no calibration "nonsense"'),
    ],
)  # fmt: skip
def test_validate_refuses_what_it_would_ignore(words: list[str], message: str) -> None:
    done = runner.invoke(app, ["validate", *words])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_a_measured_gpu_appears_in_the_roofline_of_its_chip(tmp_path: Path) -> None:
    """The workload at the estimate's precision and knobs; others are refused with what there is."""
    file = str(sim.resources.data_dir("baselines") / "nvidia-h200.jsonl")
    asked = ["roofline", "mlp", "--hw", "h200", "--measured", file, "-o", str(tmp_path / "r.png")]
    done = runner.invoke(app, [*asked, "--precision", "bf16"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "r.png").stat().st_size > 10_000
    refused = runner.invoke(app, [*asked, "--precision", "fp32"])
    assert refused.exit_code == ConfigError.exit_code
    assert "mlp at fp32 with" in refused.output
    assert "there is bf16" in refused.output


def axes_drawn(monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    """The axes of every roofline that is drawn from here on, in order, their labels in place."""
    drawn: list[Axes] = []
    place = figures.place_labels

    def kept(ax: Axes, labels: Sequence[tuple[float, float, str]], room: Room) -> None:
        place(ax, labels, room)
        drawn.append(ax)

    monkeypatch.setattr(figures, "place_labels", kept)
    return drawn


@pytest.mark.parametrize(
    ("hw", "modes", "label"),
    [
        ("h200", ("compile", "graph", "eager"), "measured, 2 ms"),
        ("h200", ("compile", "eager"), "measured (compile), 1 ms"),
        ("h200-torch", ("compile", "graph", "eager"), "measured, 2 ms"),
        ("h200-torch", ("compile", "eager"), None),
    ],
)
def test_the_star_is_of_the_mode_that_the_estimate_speaks_of(tmp_path: Path, monkeypatch, hw, modes, label) -> None:
    """Compiled 1 ms, replayed 2 ms, op by op 3 ms; a broken line is named and skipped."""
    times = {"compile": 1e-3, "graph": 2e-3, "eager": 3e-3}
    file, drawn = tmp_path / "records.jsonl", axes_drawn(monkeypatch)
    for mode in modes:
        knobs = dict(sim.load_workload("mlp").knobs)
        append_record(file, BaselineRecord(device="nvidia-h200", backend="cuda", kind=Kind.MEASURED, workload="mlp",
                      knobs=knobs, precision="bf16", mode=Mode(mode), median_s=times[mode], n=9))  # fmt: skip
    with file.open("a") as out:
        out.write("{\n")
    asked = ["roofline", "mlp", "--hw", hw, "--precision", "bf16", "--measured", str(file)]
    done = runner.invoke(app, [*asked, "-o", str(tmp_path / "r.png")])
    assert f"{file}:{len(modes) + 1}: skipped" in done.stderr
    if label is None:
        assert "mlp at bf16, graph, with" in done.stderr
        assert done.exit_code == ConfigError.exit_code
    else:
        assert label in [text.get_text() for text in drawn[0].texts]


def test_a_star_of_some_cores_says_so_and_one_that_cannot_be_is_told(tmp_path: Path, monkeypatch) -> None:
    """The bound is that of two cores: a run on both goes before a quicker one on one, and one below the bound is no
    time of this work."""
    file, drawn, knobs = tmp_path / "records.jsonl", axes_drawn(monkeypatch), dict(sim.load_workload("mlp").knobs)

    def labels(threads: int | None, median_s: float, mode: Mode = Mode.EAGER) -> tuple[list[str], str]:
        append_record(file, BaselineRecord(device="epyc-zen4", backend="cpu", kind=Kind.MEASURED, workload="mlp", n=9,
                      knobs=knobs, precision="fp32", mode=mode, threads=threads, median_s=median_s))  # fmt: skip
        done = runner.invoke(app, ["roofline", "mlp", "--hw", "epyc-zen4", "--measured", str(file), "-o",
                                   str(tmp_path / "r.png")])  # fmt: skip
        return [text.get_text() for text in drawn[-1].texts], done.stderr

    shown, said = labels(None, 3e-3, Mode.COMPILE)
    assert "measured (compile), 3 ms" in shown
    assert "threads" not in said  # the record does not say on how many it ran
    shown, said = labels(1, 1e-3)
    assert "measured (threads=1), 1 ms" in shown
    assert "mlp ran with threads=1, the bound is that of 2 cores" in said
    shown, said = labels(2, 2e-3)
    assert "measured, 2 ms" in shown
    assert "threads" not in said
    _, said = labels(2, 1e-9)
    assert "mlp took 1e-09 s, below the bound of epyc-zen4" in said


def test_a_star_of_another_device_names_it(tmp_path: Path, monkeypatch) -> None:
    """A CPU's time under a GPU's roof is labelled as what it is; a file that is not there is named."""
    file, drawn, knobs = tmp_path / "records.jsonl", axes_drawn(monkeypatch), dict(sim.load_workload("mlp").knobs)
    append_record(file, BaselineRecord(device="some-cpu", backend="cpu", kind=Kind.MEASURED, workload="mlp", n=9,
                  knobs=knobs, precision="bf16", mode=Mode.EAGER, median_s=2e-3))  # fmt: skip
    asked = ["roofline", "mlp", "--hw", "tpu-v4i", "--precision", "bf16", "-o", str(tmp_path / "r.png"), "--measured"]
    assert runner.invoke(app, [*asked, str(file)]).exit_code == 0
    assert "measured on some-cpu, 2 ms" in [text.get_text() for text in drawn[0].texts]
    absent = runner.invoke(app, [*asked, str(tmp_path / "none.jsonl")])
    assert absent.exit_code == ConfigError.exit_code
    assert "none.jsonl: no such file; expected a baseline file" in absent.stderr
    assert absent.stdout == ""
    other = runner.invoke(app, [*asked, str(file), "-p", "batch=4"])
    assert "mlp at bf16 with inputs=784, hidden=1024, layers=2, outputs=10, batch=4 was not measured" in other.stderr


def test_figures_need_no_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever backend the shell names, even one that Matplotlib does not know."""
    figure = tmp_path / "roofline.png"
    environment = os.environ | {"MPLBACKEND": "nonsense", "PYTHONPATH": str(Path(sim.__file__).parents[1])}
    words = [sys.executable, "-m", "sim", "roofline", "gemm", "--hw", "systolic", "-o", str(figure)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert figure.read_bytes().startswith(b"\x89PNG")
