"""Several searches on one page: each keeps its name and its winners, and their fronts meet in one figure."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.view.report import report

STUDY = {"schema": "dovetail.study/1", "version": "0", "trials": 1, "points": 4, "costed": 3,
         "better": {"latency [s]": -1, "quality": 1}, "counts": {"accepted": 1}}  # fmt: skip


def search_folder(folder: Path, row: str, chip: str, **more: Any) -> Path:
    (folder / "winners" / "00007").mkdir(parents=True)
    (folder / "winners" / "00007" / "chip.yaml").write_text(f"name: {chip}\n")
    (folder / "pareto.csv").write_text(f"trial,sparsity,array.rows,latency [s],quality\n7,{row}\n8,none,64,1e-2,90\n")
    (folder / "search.json").write_text(json.dumps({**STUDY, "space": "same", **more}))
    return folder


def shown(*folders: Path) -> dict:
    found = re.search(r'id="data">(.*?)</script>', report(folders), re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return search_folder(tmp_path / "one", "2:4,16,1e-3,70", "first")


def test_winners_of_the_same_number_stay_apart(tmp_path: Path, one: Path) -> None:
    data = shown(one, search_folder(tmp_path / "two", "none,32,2e-3,80", "second"))
    assert data["winners"] == {
        "one/00007": {"chip.yaml": "name: first\n"},
        "two/00007": {"chip.yaml": "name: second\n"},
    }
    assert [table["name"] for table in data["tables"]] == ["All searches together", "one/pareto.csv", "two/pareto.csv"]
    together, first, second = data["tables"]
    assert together["group"] == "search"
    assert together["columns"]["search"] == ["one", "one", "two", "two"]
    assert together["columns"]["quality"] == [70.0, 90.0, 80.0, 90.0]
    assert together["direction"]["quality"] == 1
    assert (first["home"], second["home"]) == ("one/", "two/")
    assert data["verdicts"][0].startswith("same (one): 1 trials")
    assert ["folder", "two"] in data["studies"][1]


def test_searches_for_other_objectives_share_no_figure(tmp_path: Path, one: Path) -> None:
    other = search_folder(tmp_path / "two", "none,32,2e-3,80", "second", better={"latency [s]": -1})
    assert [table["name"] for table in shown(one, other)["tables"]] == ["one/pareto.csv", "two/pareto.csv"]


def test_folders_of_one_name_are_told_by_their_paths(tmp_path: Path, one: Path) -> None:
    other = search_folder(tmp_path / "later" / "one", "none,32,2e-3,80", "second")
    assert set(shown(one, other)["winners"]) == {f"{one}/00007", f"{other}/00007"}


def test_one_search_alone_keeps_its_short_names_and_tells_its_sparsity(one: Path) -> None:
    data = shown(one)
    assert list(data["winners"]) == ["00007"]
    assert [table["name"] for table in data["tables"]] == ["pareto.csv"]
    assert "The fastest takes 1 ms (sparsity 2:4, array.rows 16)." in data["verdicts"][1]


def test_compare_names_the_command_for_searches(one: Path) -> None:
    done = CliRunner().invoke(app, ["compare", str(one), str(one / "pareto.csv")])
    assert done.exit_code == 2
    assert "dovetail report" in done.output
