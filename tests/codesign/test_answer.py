"""The folder that a search leaves: what is limited is told, old winners go, and nothing found is an answer too."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.codesign.answer import summary, write_answer
from sim.codesign.scenario import Costing
from sim.codesign.space import load_space
from sim.view.report import report


def test_what_is_limited_and_no_objective_is_told(
    document: dict[str, Any], write: Any, tmp_path: Path, reproduced: Any
) -> None:
    """Each design's power and memory stand in the table, and with their limits in the summary."""
    document["constraints"] = {"power": "3 W", "area": "20 mm2", "memory": "1 MiB"}
    found = sim.search(write(document), trials=4, output=tmp_path / "out")
    assert found.limited == ("power", "memory")  # area is an objective
    rows = {row["design"]: row for row in csv.DictReader((tmp_path / "out" / "pareto.csv").open())}
    for folder in sorted((tmp_path / "out" / "winners").iterdir()):
        row, (estimate,) = rows[str(int(folder.name))], reproduced(folder)
        assert float(row["power [W]"]) == pytest.approx(estimate["energy_j"] / estimate["latency_s"], rel=1e-11)
        assert float(row["memory [B]"]) == 32 * 64 // (1 if row["precision"] == "int8" else 2)
    assert "mW of 3 W, memory " in (tmp_path / "out" / "summary.txt").read_text()


def test_the_summary_says_when_the_front_last_grew(document: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """By trials in the order of their numbers; late in the search a longer one may find more."""
    space = load_space(write(document))
    found = sim.search(space, trials=8, output=tmp_path / "out")
    numbers = [number for number, _ in found.reached]
    for at, more in ((1, False), (6, False), (7, True), (8, True)):
        entered = [row for row in found.rows if found.parents.get(row.number, row.number) <= numbers[at - 1]]
        front = [replace(row, number=numbers[at - 1]) for row in entered[-1:]]
        text = summary(replace(found, rows=tuple(front), parents={}), Costing(space), ())
        assert f"1 design; the newest came with number {at} of 8 trials" in text
        assert ("more trials may find better ones" in text) is more


def test_what_a_winner_is_compared_with_is_named_for_what_it_is(
    document: dict[str, Any], write: Any, tmp_path: Path
) -> None:
    """Qualities of 0 (m of 64) and -1 (32): a ratio of the two says nothing, so the value stands there; of a latency
    the ratio does. The other design is the one that differs least, which need not be the second best."""
    (tmp_path / "gain.py").write_text("def gain(row):\n    return row['m'] / 32 - 2\n")
    document |= {"compression": {}, "hardware": {}, "objectives": ["quality", "latency"]}
    document["quality"] = {"method": "callable", "function": "gain.py:gain"}
    sim.search(write(document), trials=2, output=tmp_path / "out")
    lines = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    why = [line.strip() for line in lines if "the nearest that is worse" in line]
    quality, latency = sorted(why, reverse=True)
    assert re.fullmatch(r"quality: product\.m 64 \(not 32\); the nearest that is worse, design \d, has -1", quality)
    assert re.fullmatch(r"latency: product\.m 32 \(not 64\); .*, design \d, is at 1\.\d+ times", latency)


def test_an_answer_that_is_cut_off_leaves_the_one_before(
    document: dict[str, Any], write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle of a file: every document in the folder can still be read."""
    out, space = tmp_path / "out", write(document)
    sim.search(space, trials=2, output=out)
    whole = Path.write_text

    def half(path: Path, text: str, **options: Any) -> int:
        whole(path, text[: len(text) // 2], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="No space"):
        sim.search(space, trials=3, output=out)
    monkeypatch.undo()
    for path in (out / "search.json", *(out / "winners").glob("*/winner.json")):
        assert json.loads(path.read_text())["schema"].startswith("dovetail.")
    assert json.loads((out / "search.json").read_text())["trials"] == 2


def test_a_search_that_goes_on_keeps_no_old_winner(document: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """What the user laid beside an old winner's files stays."""
    space = load_space(write(document))
    folder = tmp_path / "out"
    found = sim.search(space, trials=6, output=folder)
    assert len(found.front) > 2
    before = sorted((folder / "winners").iterdir())
    (before[0] / "notes.md").write_text("mine\n")
    others = replace(
        found, rows=tuple(row for row in found.rows if f"{row.number:05d}" not in {p.name for p in before})
    )
    chosen = write_answer(others, Costing(space), folder)
    now = {path.name for path in (folder / "winners").iterdir()}
    assert now == {winner.id for winner in chosen} | {before[0].name}
    assert [path.name for path in before[0].iterdir()] == ["notes.md"]


def test_where_nothing_meets_the_limits_the_report_says_so(
    document: dict[str, Any], write: Any, tmp_path: Path
) -> None:
    """The command that the search names next works; the summary says which design came nearest."""
    document["constraints"] = {"deadline": "1 ns"}
    folder = tmp_path / "out"
    done = CliRunner().invoke(app, ["search", str(write(document)), "-o", str(folder), "--trials", "3"])
    assert done.exit_code == 1
    text = (folder / "summary.txt").read_text()
    assert "The nearest, design " in text
    assert "\n  product.m " in text
    page = report([folder])
    assert "No design meets all limits." in page
    study = json.loads((folder / "search.json").read_text())
    assert "accepted" not in study["counts"]


def test_a_check_refuses_an_unknown_calibration(document: dict[str, Any], write: Any) -> None:
    document["scenario"] = {"calibration": "nosuch"}
    done = CliRunner().invoke(app, ["check", str(write(document))])
    assert done.exit_code == 2
    assert '"nosuch" is not known for edge-npu' in done.output
