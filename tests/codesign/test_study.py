"""Studies: the told rows, determinism, resuming, storages, and workers that are killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.codesign.answer import pareto_columns
from sim.codesign.found import Row
from sim.codesign.scenario import Costing
from sim.codesign.space import build_space
from sim.codesign.study.leases import alive, reclaim, signature
from sim.codesign.study.samplers import default_sampler
from sim.codesign.study.storages import journal, open_storage, open_study
from sim.errors import ConfigError
from sim.hardware.load import load_hardware
from sim.workload.builders import gemm
from sim.workload.serialize import save_graph


def test_same_seed_and_one_worker_same_study(document: dict[str, Any]) -> None:
    found = [sim.search(build_space(document), trials=6) for _ in range(2)]
    assert found[0].rows == found[1].rows
    assert found[0].trials == 6
    other = sim.search(build_space(document), trials=6, seed=4)
    assert [r.parameters for r in other.rows] != [r.parameters for r in found[0].rows]


def test_front_is_that_of_all_designs_once_all_are_seen(document: dict[str, Any]) -> None:
    """32 designs; every told row is on its trial's front, so that a full search ends with the true front.

    Without the guide, which would leave out what it holds for unlikely and come back to a choice."""
    document["sampler"] |= {"name": "qmc", "screen": 0}
    space = build_space(document)
    found = sim.search(space, trials=40)
    costing = Costing(space)
    best: dict[float, float] = {}
    for m in (32, 64):
        for precision in ("int8", "int4"):
            for clock in ("500 MHz", "1 GHz"):
                table = costing.table({"product.m": m, "precision": precision, "clock": clock})
                for latency, area in table.objectives[table.accepted]:
                    best[area] = min(latency, best.get(area, 1.0))
    expected = {
        (lat, area) for area, lat in best.items() if not any(other <= lat and a < area for a, other in best.items())
    }
    assert {row.values for row in found.front} == expected
    assert found.repeats == 40 - 8
    assert sum(found.counts.values()) == found.points


@pytest.mark.parametrize("name", ["nsga2", "nsga3", "tpe", "random", "qmc"])
def test_every_sampler_runs_with_limits(document: dict[str, Any], name: str) -> None:
    document["sampler"] = {"name": name, "population": 2}
    document["constraints"] = {"area": "6 mm2"}
    found = sim.search(build_space(document), trials=6)
    assert found.trials == 6
    assert found.front
    assert all(row.values[1] <= 6 for row in found.front)


def test_default_sampler_is_stated() -> None:
    assert [default_sampler(n, m) for n, m in ((20, 3), (500, 3), (500, 4))] == ["tpe", "nsga2", "nsga3"]


def test_known_designs_come_first_and_exactly(document: dict[str, Any]) -> None:
    document["known"] = [{"name": "as built"}]
    found = sim.search(build_space(document), trials=2)
    first = found.rows[0]
    assert first.known == "as built"
    path = document["workloads"][0]["workload"]
    expected = sim.estimate(sim.load_workload(path, m=32), load_hardware("edge-npu"), precision="int8")
    assert first.values == pytest.approx((expected.latency_s, expected.area_mm2), rel=1e-12)


def test_a_known_design_beyond_a_limit_has_its_true_numbers(document: dict[str, Any]) -> None:
    """It is costed all the same, so that figures show where it stands, and told as beyond the limit."""
    document |= {"known": [{"name": "as built"}], "constraints": {"area": "7 mm2"}}
    first = sim.search(build_space(document), trials=1).rows[0]
    path = document["workloads"][0]["workload"]
    expected = sim.estimate(sim.load_workload(path, m=32), load_hardware("edge-npu"), precision="int8")
    assert first.values == (expected.latency_s, expected.area_mm2)
    assert not first.feasible


def test_no_design_meets_the_limits(document: dict[str, Any]) -> None:
    document["constraints"] = {"deadline": "1 ns"}
    found = sim.search(build_space(document), trials=3)
    assert found.front == ()
    assert found.nearest_miss is not None
    assert found.nearest_miss.violations["latency"] > 0
    assert set(found.counts) == {"latency at its roofline"}


def test_pairs_of_a_choice_that_fits_nowhere_are_all_counted(document: dict[str, Any]) -> None:
    """4 M rows of 64 bytes exceed the largest memory of four chips, 128 MiB, and 32 rows fit each: 4 pairs of 8."""
    document["workloads"][0]["knobs"] = {"m": {"choices": [32, 4_000_000]}}
    document["hardware"] = {
        "DRAM.capacity": {"choices": ["64 MiB", "128 MiB"]}, "array.rows": {"choices": [16, 32]}
    }  # fmt: skip
    document |= {"compression": {"precision": ["int8"]}, "sampler": {"name": "random", "screen": 0}}
    found = sim.search(build_space(document), trials=2)
    assert found.counts["does not fit"] == 4
    assert sum(found.counts.values()) == found.points == 8


def test_a_pattern_that_one_network_cannot_take_ends_no_search(document: dict[str, Any], tmp_path: Path) -> None:
    """2:4 goes along a reduction of 64 and not of 62: of the four model sides one runs on no chip."""
    text = (tmp_path / "product.py").read_text().replace("m: int", "k: int").replace("64", "k").replace("(m,", "(8,")
    (tmp_path / "product.py").write_text(text)
    document["workloads"][0]["knobs"] = {"k": {"choices": [62, 64]}}
    document["compression"] = {"precision": ["int8"], "sparsity": ["none", "2:4"]}
    document["sampler"]["screen"] = 0  # a guide would not propose what runs on no chip
    found = sim.search(build_space(document), trials=12)
    sides = {(row.parameters["product.k"], row.parameters["sparsity"]) for row in found.rows}
    assert sides == {(62, "none"), (64, "none"), (64, "2:4")}
    assert "networks without a weight that takes the pattern" in found.counts


def test_resume_counts_the_total_and_another_space_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    path = str(tmp_path / "s.journal")
    assert sim.search(build_space(document), trials=3, storage=path).trials == 3
    assert sim.search(build_space(document), trials=5, storage=path).trials == 5
    assert sim.search(build_space(document), trials=5, storage=path).trials == 5
    document["hardware"]["array.rows"]["choices"] = [16, 64]
    with pytest.raises(ConfigError, match=r"another space \(it differs in hardware\)"):
        sim.search(build_space(document), trials=6, storage=path)


@pytest.mark.parametrize("changed", ["product.py", "judge.py", "r.yaml"])
def test_a_study_does_not_go_on_with_another_model_or_function(
    document: dict[str, Any], tmp_path: Path, changed: str
) -> None:
    """Designs costed before would stand beside those costed after as if they were of one network; a comment is none."""
    (tmp_path / "judge.py").write_text("def judge(row):\n    return row['m'] * 1.0\n")
    (tmp_path / "r.yaml").write_text("schema: dovetail.recipe/1\nname: r\nsteps: [{technique: sparsify_nm}]\n")
    document["workloads"][0]["workload"] = "product.py"
    document |= {
        "quality": {"method": "callable", "function": "judge.py:judge"}, "objectives": ["latency", "quality"],
        "compression": {"recipe": ["r.yaml", "int8-ptq"]},
    }  # fmt: skip
    path = str(tmp_path / "s.journal")
    sim.search(build_space(document, folder=tmp_path), trials=1, storage=path)
    text = (tmp_path / changed).read_text()
    (tmp_path / changed).write_text(text + "\n# a comment\n")
    assert sim.search(build_space(document, folder=tmp_path), trials=2, storage=path).trials == 2
    changes = {"nn.Linear(64, 32": "nn.Linear(64, 320", "1.0": "0.5", "sparsify_nm": "weight_only"}
    for old, new in changes.items():
        text = text.replace(old, new)
    (tmp_path / changed).write_text(text)
    with pytest.raises(ConfigError, match=rf"another space \(it differs in file {changed}\)"):
        sim.search(build_space(document, folder=tmp_path), trials=3, storage=path)


@pytest.mark.parametrize("url", ["postgresql://nobody@localhost:1/none", "/proc/none/s.journal", "nosuch://x"])
def test_unreachable_storage(url: str) -> None:
    with pytest.raises(ConfigError, match=r"storage .*cannot be"):
        open_storage(url)


def test_a_line_that_a_killed_writer_left_is_cut(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    space = build_space(document)
    study = open_study(journal(path), space)
    study.enqueue_trial({})
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "half')
    study.enqueue_trial({})
    assert len(open_study(journal(path), space).trials) == 2


@pytest.mark.parametrize(("damage", "line", "shown"), [
    (b"garbage\n", -1, "garbage"), (b"garbage", -1, "garbage"), (b"garbage\n", 3, "garbage"), (b"{}\n", 2, "{}"),
    (b"\x00\xff\n", 1, ""), (b'{"op_code":4,"worker_id"\n', 5, '{"op_code":4,"worker_id"'),
])  # fmt: skip
def test_a_damaged_journal_is_refused_with_its_line(
    document: dict[str, Any], write: Any, tmp_path: Path, damage: bytes, line: int, shown: str
) -> None:
    """A line that is no record, at the end or between others: file, line, exit 2, and the file stays as it is."""
    path = tmp_path / "s.journal"
    sim.search(build_space(document), trials=2, storage=str(path))
    lines = path.read_bytes().splitlines(keepends=True)
    place = len(lines) if line < 0 else line - 1
    path.write_bytes(b"".join([*lines[:place], damage, *lines[place:]]))
    before = path.read_bytes()
    words = ["search", str(write(document)), "--storage", str(path), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    (said,) = [text for text in done.stderr.splitlines() if text.startswith("dovetail: ")]
    assert f"storage {path}: line {place + 1}: " in said
    assert shown in said
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == before


def test_a_journal_with_records_taken_out_is_refused(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "s.journal"
    sim.search(build_space(document), trials=2, storage=str(path))
    record = json.loads(path.read_bytes().splitlines()[0])
    path.write_text(json.dumps({"op_code": record["op_code"], "worker_id": "x"}) + "\n")
    with pytest.raises(ConfigError, match=r"s\.journal: its records do not go together"):
        open_storage(str(path))


def test_nothing_finished_is_lost_with_a_torn_last_line(document: dict[str, Any], tmp_path: Path) -> None:
    """The journal cut in the middle of each of its last 12 records, as a kill leaves it: the study goes on, and every
    trial that was told before the cut stays."""
    path = tmp_path / "s.journal"
    space = build_space(document)
    sim.search(space, trials=3, storage=str(path))
    lines = path.read_bytes().splitlines(keepends=True)
    for last in range(len(lines) - 12, len(lines)):
        whole, torn = tmp_path / f"{last}-whole.journal", tmp_path / f"{last}-torn.journal"
        whole.write_bytes(b"".join(lines[:last]))
        torn.write_bytes(b"".join(lines[:last]) + lines[last][: len(lines[last]) // 2])
        told = [[t for t in open_study(journal(p), space).trials if t.state.is_finished()] for p in (whole, torn)]
        assert told[0] == told[1]
        assert told[0]
    found = sim.search(space, trials=4, storage=str(torn))
    assert found.trials == 4


def test_a_dead_workers_trial_is_enqueued_once(document: dict[str, Any]) -> None:
    """The process that signed has ended: its trial fails, its parameters wait to be tried again."""
    space = build_space(document)
    study = open_study(open_storage(None), space, sampler=optuna.samplers.RandomSampler(seed=0))
    code = "from sim.codesign.study.leases import signature; print(signature())"
    dead = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert alive(signature(), 0.0)
    assert not alive(dead, time.time() + 100)
    assert alive("elsewhere:1:2", time.time() + 100)
    assert not alive("elsewhere:1:2", time.time() - 1)
    trial = study.ask()
    trial.suggest_categorical("product.m", [32, 64])
    trial.set_user_attr("worker", dead)
    assert reclaim(study) == [0]
    assert reclaim(study) == []
    states = [t.state.name for t in study.trials]
    assert states == ["FAIL", "WAITING"]
    assert study.trials[1].user_attrs["fixed"] == study.trials[0].params


SLOW = """import time


def wait(row):
    time.sleep(1.5)
    return 0.0
"""


def _slow(document: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A saved graph (no torch to load) at 2 precisions on 8 chips, 1.5 s each, one a trial."""
    (tmp_path / "slow.py").write_text(SLOW)
    save_graph(gemm(32, 32, 64), tmp_path / "graph.json")
    document["workloads"] = [{"workload": str(tmp_path / "graph.json"), "name": "product"}]
    document["constraints"] = {"functions": [str(tmp_path / "slow.py") + ":wait"]}
    document["sampler"]["name"] = "random"
    for spec in document["hardware"].values():
        spec["coarse"] = True
    return document


def _start(path: Path, storage: str, trials: int, workers: int, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "sim", "search", str(path), "--storage", storage, "--trials", str(trials)]
    command += ["--workers", str(workers), "-o", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _running(storage: str, space: Any, count: int) -> list[Any]:
    """Waits until `count` trials are signed and under way."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            trials = open_study(open_storage(storage), space).trials
        except ConfigError:
            trials = []
        found = [t for t in trials if t.state.name == "RUNNING" and "key" in t.user_attrs]
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError("no trial started")


def _check_complete(storage: str, space: Any, trials: int, lost: list[int]) -> None:
    """The total is reached, nothing runs any more, and each lost trial was tried again with its parameters."""
    study = open_study(open_storage(storage), space)
    asked = [t for t in study.trials if t.state.name == "COMPLETE" and "parent" not in t.user_attrs]
    assert len(asked) == trials
    assert not [t for t in study.trials if t.state.name in ("RUNNING", "WAITING")]
    again = {t.user_attrs.get("retry_of"): t for t in study.trials}
    for number in lost:
        assert study.trials[number].state.name == "FAIL"
        before, retry = study.trials[number].params, again[number]
        while retry.state.name == "FAIL":  # the second kill may have met the retry
            retry = again[retry.number]
        assert retry.state.name == "COMPLETE"
        assert before.items() <= retry.params.items()


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_kill_a_worker_then_all(document: dict[str, Any], write: Any, tmp_path: Path, kind: str) -> None:
    """kill -9 of one worker of two, later of the whole search: what ran is tried again, the rest stays."""
    document = _slow(document, tmp_path)
    path, space = write(document), build_space(document)
    storage = str(tmp_path / "s.journal") if kind == "journal" else f"sqlite:///{tmp_path}/s.db"
    search = _start(path, storage, 6, 2, tmp_path / "out")
    victim = _running(storage, space, 2)[0]
    os.kill(int(victim.user_attrs["worker"].rsplit(":", 2)[1]), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while open_study(open_storage(storage), space).trials[victim.number].state.name == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    rest = _running(storage, space, 1)
    os.killpg(search.pid, signal.SIGKILL)
    search.communicate()
    done = {t.number for t in open_study(open_storage(storage), space).trials if t.state.name == "COMPLETE"}
    final = _start(path, storage, 6, 1, tmp_path / "out")
    _, errors = final.communicate(timeout=120)
    assert final.returncode == 0, errors
    lost = [victim.number, *(t.number for t in rest if t.number not in done)]
    _check_complete(storage, space, 6, lost)


def test_a_search_takes_back_the_trials_of_another(document: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """Two searches of one process each on one journal; one is killed. The other reaches the total, the dead one's
    trial among them, without a new start."""
    document = _slow(document, tmp_path)
    path, space, storage = write(document), build_space(document), str(tmp_path / "s.journal")
    doomed = _start(path, storage, 5, 1, tmp_path / "a")
    (lost,) = _running(storage, space, 1)
    other = _start(path, storage, 5, 1, tmp_path / "b")
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    _, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors
    _check_complete(storage, space, 5, [lost.number])


def test_a_trial_that_was_failed_but_not_enqueued(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who took it back died before it enqueued the copy: after a while another does."""
    study = open_study(open_storage(None), build_space(document), sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    trial.suggest_categorical("product.m", [32, 64])
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert reclaim(study) == []
    monkeypatch.setattr("sim.codesign.study.leases.UNSIGNED_S", 0.0)
    assert reclaim(study) == [0]
    assert reclaim(study) == []
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]


def test_every_winner_reproduces(document: dict[str, Any], write: Any, tmp_path: Path, reproduced: Any) -> None:
    """The commands of each winner, run in its folder, give all told objectives to the last digit: means by weight of
    two workloads here, mapped for energy."""
    model = document["workloads"][0]
    document["workloads"] = [model, {**model, "name": "second", "weight": 3, "knobs": {"m": 48}}]
    document |= {"combine": "weighted", "scenario": {"mapping_for": "energy"}}
    document["objectives"] = ["latency", "energy", "area"]
    found = sim.search(write(document), trials=4, output=tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "pareto.csv").open()))
    assert [float(r["latency [s]"]) for r in rows] == [r.values[0] for r in found.front]
    folders = sorted((tmp_path / "out" / "winners").iterdir())
    assert len(folders) == 2
    for folder in folders:
        winner = json.loads((folder / "winner.json").read_text())
        assert winner["reproduced_exactly"] is True
        one, three = reproduced(folder)
        told = winner["objectives"]
        assert told["latency"] == 0.25 * one["latency_s"] + 0.75 * three["latency_s"]
        assert told["energy"] == 0.25 * one["energy_j"] + 0.75 * three["energy_j"]
        assert told["area"] == one["area_mm2"] == three["area_mm2"]
        for part in winner["simulated"].values():
            assert abs(part["simulated_s"] / part["estimated_s"] - 1) <= 0.02
    text = (tmp_path / "out" / "summary.txt").read_text()
    assert "reproduced exactly: yes" in text
    assert "the nearest that is worse" in text


def test_the_front_as_parquet_is_the_table(document: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """Same columns and rows as pareto.csv, numbers as numbers."""
    parquet = pytest.importorskip("pyarrow.parquet")
    found = sim.search(write(document), trials=4, output=tmp_path / "out")
    table = parquet.read_table(tmp_path / "out" / "pareto.parquet").to_pydict()
    header, *rows = csv.reader((tmp_path / "out" / "pareto.csv").open())
    assert list(table) == header
    assert [[str(value) for value in row] for row in zip(*table.values(), strict=True)] == rows
    assert table["latency [s]"] == [row.values[0] for row in found.front]
    assert table["array.rows"] == [row.parameters["array.rows"] for row in found.front]


def test_columns_of_the_front_hold_one_kind_each(document: dict[str, Any]) -> None:
    """A parameter that does not count has no value; of choices of several kinds each is told as text."""
    row = Row(number=3, parameters={"a": 1, "b": "x"}, values=(1.0, 2.0))
    other = Row(number=4, parameters={"a": "auto", "c": 0.5}, values=(2.0, 1.0))
    found = replace(sim.search(build_space(document), trials=1), rows=(row, other))
    assert pareto_columns(found) == {
        "design": [3, 4], "a": ["1", "auto"], "b": ["x", None], "c": [None, 0.5], "latency [s]": [1.0, 2.0],
        "area [mm2]": [2.0, 1.0],
    }  # fmt: skip


def test_calibration_of_a_search_is_stated_and_checked(document: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """In the summary and in the winners' commands; an unknown name is refused with the nearest ones."""
    from sim.codesign.space import load_space
    from sim.errors import DovetailError

    path = write(document)
    sim.search(load_space(path, calibration="none"), trials=2, output=tmp_path / "out")
    assert "calibration none: data sheet only" in (tmp_path / "out" / "summary.txt").read_text()
    commands = [f.read_text() for f in (tmp_path / "out" / "winners").glob("*/command.txt")]
    assert commands
    assert all("--calibration none" in text for text in commands)
    with pytest.raises(DovetailError, match="nosuch"):
        sim.search(load_space(path, calibration="nosuch"), trials=2, output=tmp_path / "other")


def test_same_seed_and_one_worker_same_bytes(document: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """Every file of the answer but the journal (process numbers, dates) and the CPU seconds."""
    path = write(document)
    contents = []
    for name in ("a", "b"):
        folder = tmp_path / name
        sim.search(path, trials=4, output=folder)
        files = {
            str(p.relative_to(folder)): p.read_bytes()
            for p in folder.rglob("*")
            if p.suffix != ".journal" and p.is_file()
        }
        files["summary.txt"] = b"".join(line for line in files["summary.txt"].splitlines() if b"CPU s" not in line)
        study = json.loads(files.pop("search.json"))
        assert study.pop("spent_cpu_s").keys() == {"estimates", "bounds", "guide", "traces", "optuna"}
        contents.append((files, study))
    assert contents[0] == contents[1]
    assert len(contents[0][0]) >= 2 + 2 * 3  # table, text; chip, numbers and command of two winners


def test_table_and_law_searches_load_no_torch(document: dict[str, Any], write: Any, tmp_path: Path) -> None:
    """With the trace in the cache a search with quality by table loads no torch."""
    document["quality"] = {"method": "table", "rows": [{"when": {}, "value": 1.0, "source": "made up"}]}
    document["objectives"] = ["latency", "quality"]
    path = write(document)
    code = (
        "import sys, sim; from sim.codesign.space import load_space; from sim.codesign.scenario import Costing; "
        f"c = Costing(load_space({str(path)!r})); "
        "c.table({'product.m': 32, 'precision': 'int8', 'clock': '1 GHz'}); print('torch' in sys.modules)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[1].stdout.strip() == "False"


def test_a_search_over_how_many_chips(tmp_path: Path) -> None:
    """12 heads split over one or four chips, not over eight; neither one nor four make eight stages: of six systems two
    are answers, as in a sweep, and none ends the search."""
    document = {
        "schema": "dovetail.search/1",
        "name": "systems",
        "workloads": [{"workload": "vit", "knobs": {"depth": 2, "batch": 32}}],
        "chip": "h100-sxm-x8",
        "hardware": {"system.chips": {"choices": [1, 4, 8]}, "system.pipeline": {"choices": [1, 8]}},
        "objectives": ["latency", "area", "peak_power"],
        "constraints": {"area": "6000 mm2", "peak_power": "5 kW"},
        "budget": {"trials": 12, "winners": 1},
    }
    found = sim.search(build_space(document, folder=tmp_path))
    table = sim.sweep(sim.load_workload("vit", depth=2, batch=32), "h100-sxm-x8", {"system.chips": [1, 4]})
    assert {row.parameters["system.chips"]: row.values[:2] for row in found.front} == {
        chips: (table["latency_s"][i], table["area_mm2"][i]) for i, chips in enumerate((1, 4))
    }
    assert {row.values[2] / row.parameters["system.chips"] for row in found.front} == {700.0}
