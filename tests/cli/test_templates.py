"""Templates of `dovetail new` run as they are, and with each commented option taken in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.resources import data_dir

OPTION = {
    ".yaml": re.compile(r"^ *# (- )?[\w]+: ?(?![a-z]+ [a-z]+ )"),
    ".py": re.compile(r"^ *#( |$)"),
}
"""A commented line that is code: in YAML a key (the head of each file is prose); in Python prose begins with "#:"."""


def options(path: Path) -> list[range]:
    """Lines of each commented option, those next to each other together."""
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith(("schema:", "import", "#", '"""')))
    if path.suffix == ".yaml":
        begin = next(i for i, line in enumerate(lines) if line.startswith("schema:"))
    found: list[range] = []
    for i in range(begin, len(lines)):
        is_option = OPTION[path.suffix].match(lines[i]) or (
            path.suffix == ".yaml" and found and found[-1].stop == i and re.match(r"^ *#   +- ", lines[i])
        )
        if not is_option:
            continue
        joined = found and found[-1].stop == i and (path.suffix == ".py" or "links:" in lines[found[-1].start])
        found[-1:] = [range(found[-1].start, i + 1)] if joined else [*found[-1:], range(i, i + 1)]
    return found


def taken_in(text: str, chosen: list[range]) -> str:
    lines = text.splitlines(keepends=True)
    for span in chosen:
        for i in span:
            lines[i] = re.sub(r"# ?", "", lines[i], count=1)
    return "".join(lines)


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, f"{' '.join(words)}: {done.stdout[-500:]}{done.stderr[-500:]}"
    return done.stdout


CHIP = data_dir("hw_configs") / "systolic.yaml"
SEARCH = data_dir("searches") / "template" / "search.yaml"
MODEL = data_dir("workloads") / "template" / "model.py"


def test_the_options_are_found() -> None:
    """What the tests below take in, so that none goes by unseen."""

    def heads(path: Path) -> list[str]:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [lines[span.start].strip("# -").split(":")[0].split("(")[0].strip() for span in options(path)]

    assert heads(CHIP) == [
        "links",
        "fanout",
        "memory",
        "drain_bandwidth",
        "skips_zeros",
        "fallback",
        "energy",
        "buffering",
    ]
    assert heads(SEARCH) == ["combine", "sampler", "known"]
    assert [h.split()[0] for h in heads(MODEL)] == [
        "from",
        "from",
        "POLICY",
        "@torch.library.custom_op",
        "x",
        "size",
        "hidden",
        "def",
    ]


@pytest.mark.parametrize("index", range(8))
def test_each_option_of_the_chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    monkeypatch.chdir(tmp_path)
    run("new", "chip", "my-chip")
    path = Path("my-chip.yaml")
    path.write_text(taken_in(path.read_text(encoding="utf-8"), [options(path)[index]]), encoding="utf-8")
    assert "my-chip" in run("check", "my-chip.yaml")
    assert "latency_s" in run("estimate", "mlp", "--hw", "my-chip.yaml", "--no-what-if", "--json")


def test_the_chip_as_it_is_and_with_all_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("new", "chip", "my-chip")
    path = Path("my-chip.yaml")
    first = run("estimate", "mlp", "--hw", "my-chip.yaml", "--no-what-if", "--json")
    path.write_text(taken_in(path.read_text(encoding="utf-8"), options(path)), encoding="utf-8")
    run("check", "my-chip.yaml")
    assert run("estimate", "mlp", "--hw", "my-chip.yaml", "--no-what-if", "--json") != first


def test_the_workload_as_it_is_and_with_each_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that uses another option (the gate's call) comes with it: imports, the op, its call, then the rest."""
    monkeypatch.chdir(tmp_path)
    run("new", "workload", "my_model")
    path = Path("my_model.py")
    text, spans = path.read_text(encoding="utf-8"), options(path)
    assert "MACs        1,861,632" in run("trace", "my_model.py")
    literal, imports, policy, op, call, size, hidden, head = spans
    for chosen in ([imports], [imports, policy], [imports, op, call], [literal, size, hidden], [head], spans):
        path.write_text(taken_in(text, chosen), encoding="utf-8")
        assert "MACs        1,861,632" in run("trace", "my_model.py")
        run("estimate", "my_model.py", "--hw", "edge-npu", "--no-what-if")
    assert "MACs        10,240" in run("trace", "my_model.py:head")
    assert "int8" in run("estimate", "my_model.py", "-p", "size=large", "--hw", "edge-npu", "--no-what-if")
    assert "hidden" in run("show", "my_model.py")


def test_each_option_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("new", "search", "my-space")
    path = Path("my-space.yaml")
    text, spans = path.read_text(encoding="utf-8"), options(path)
    for chosen in ([], *([span] for span in spans), spans):
        path.write_text(taken_in(text, chosen), encoding="utf-8")
        assert "designs, judged by" in run("check", "my-space.yaml")
        run("search", "my-space.yaml", "--dry-run")


@pytest.mark.parametrize("kind", ["chip", "workload", "search"])
def test_nothing_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    run("new", kind, "mine")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    again = CliRunner().invoke(app, ["new", kind, "mine"])
    assert again.exit_code == 2
    assert "there is such a file" in again.stderr
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_copy_of_each_bundled_file_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("new", "chip", "mine", "--like", "tesla-fsd")
    assert "mine" in run("check", "mine.yaml")
    refused = CliRunner().invoke(app, ["new", "chip", "other", "--like", "tesla-fds"])
    assert refused.exit_code == 2
    assert 'Did you mean "tesla-fsd' in refused.stderr
    assert refused.stderr.count("\n") == 1
