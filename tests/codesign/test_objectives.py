"""Objectives beyond one inference: scenarios, trained quality, speed-up, cost; each once from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import sim
from sim.baseline.record import BaselineRecord, Kind, Mode, append_record
from sim.cli import app
from sim.codesign.choice import ModelChoice, Part, Scenario
from sim.codesign.evaluate import evaluate, one_workload
from sim.codesign.quality import load_function
from sim.codesign.scenario import Costing
from sim.codesign.schema import QualitySpec
from sim.codesign.space import build_space
from sim.codesign.trained import Course, Trained
from sim.errors import ConfigError, InfeasibleError
from sim.hardware.designs import Designs
from sim.hardware.load import load_hardware

STREAMS = {
    "name": "two",
    "hardware": "edge-npu",
    "length": "10 ms",
    "streams": [
        {"name": "first", "workload": "mlp", "arrivals": {"kind": "periodic", "rate": "1 kHz"}, "deadline": "900 us"},
        {"name": "second", "workload": "mlp", "arrivals": {"kind": "periodic", "rate": "1 kHz"}, "deadline": "900 us"},
    ],
}


def driven(document: dict[str, Any], tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """The space with its product as the stream `first`; the objectives are the scenario's."""
    scenario = json.loads(json.dumps(STREAMS)) | changes
    for stream in scenario["streams"]:
        stream["workload"] = document["workloads"][0]["workload"]
    (tmp_path / "two.yaml").write_text(json.dumps(scenario))
    document["workloads"][0]["stream"] = "first"
    document |= {"scenario": {"events": "two.yaml"}, "objectives": ["goodput", "miss_rate", "area"]}
    return document


def test_goodput_and_misses_by_hand(document: dict[str, Any], tmp_path: Path) -> None:
    """Two jobs are released together each millisecond on one unit. With a deadline of 1.5 service times the
    first is always in time and the second never: the worst stream misses all."""
    space = build_space(driven(document, tmp_path), folder=tmp_path)
    judge = Costing(space).scenario.driven
    choice = space.choice({"product.m": 32, "precision": "int8"})
    chip = space.chip
    alone = sim.estimate(choice.graphs()[0], chip, precision="int8").latency_s
    rate = pytest.approx(10 / 10e-3, rel=1e-3)  # ten jobs in the whole length
    assert judge.run(choice, chip) == {"goodput": rate, "miss_rate": 0.0}
    tight = json.loads(json.dumps(judge.raw))
    for stream in tight["streams"]:
        stream["deadline"] = f"{1.5 * alone} s"
    assert replace(judge, raw=tight).run(choice, chip) == {"goodput": rate, "miss_rate": 1.0}
    fast = json.loads(json.dumps(judge.raw))
    fast["streams"][0]["arrivals"]["rate"] = f"{2.0 / alone} Hz"
    with pytest.raises(InfeasibleError, match="the queue grows without bound"):
        replace(judge, raw=fast).run(choice, chip)


@pytest.mark.parametrize("warmup", ["0 s", "3 ms"])
@pytest.mark.parametrize("arrivals", [
    {"kind": "periodic", "rate": "3 kHz", "jitter": "50 us"}, {"kind": "poisson", "rate": "2 kHz"},
    {"kind": "bursts", "rate": "500 Hz", "size": 3}, {"kind": "closed"},
])  # fmt: skip
def test_no_chip_exceeds_the_bound_of_the_goodput(
    document: dict[str, Any], tmp_path: Path, arrivals: Any, warmup: str
) -> None:
    """Nor where jobs released before the warm-up end after it."""
    streams = [{**STREAMS["streams"][0], "arrivals": arrivals, "deadline": "100 ms"}]  # type: ignore[dict-item]
    space = build_space(driven(document, tmp_path, streams=streams, warmup=warmup), folder=tmp_path)
    judge = Costing(space).scenario.driven
    choice = space.choice({"product.m": 32, "precision": "int8"})
    bound = sim.roofline(choice.graphs()[0], space.chip, precision="int8").latency_s
    for seed in range(5):
        again = replace(judge, seed=seed)
        assert again.run(choice, space.chip)["goodput"] <= again.most(choice, np.array([[bound]]))[0]


def test_a_search_over_a_scenario_reproduces(document: dict[str, Any], tmp_path: Path, reproduced: Any) -> None:
    """A winner's scenario, run by its own command on its own chip, gives the told goodput and misses."""
    found = sim.search(build_space(driven(document, tmp_path), folder=tmp_path), trials=3, output=tmp_path / "out")
    assert found.front
    assert all(row.values[1] == 0.0 for row in found.front)
    for folder in (tmp_path / "out" / "winners").iterdir():
        winner = json.loads((folder / "winner.json").read_text())
        run = reproduced(folder)[-1]
        assert run["streams"]["first"]["goodput_per_s"] == winner["objectives"]["goodput"]
        worst = max(stream["miss_rate"] for stream in run["streams"].values())
        assert worst == winner["objectives"]["miss_rate"]


def test_a_winner_finds_the_files_of_its_scenario(
    document: dict[str, Any], tmp_path: Path, reproduced: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is another one than that of the recorded arrivals, three jobs in 10 ms, and of the other's model."""
    monkeypatch.chdir(tmp_path)
    first, second = json.loads(json.dumps(STREAMS["streams"]))
    (tmp_path / "arrivals.txt").write_text("0 ms\n1 ms\n5 ms\n")
    space = driven(document, tmp_path, streams=[first | {"arrivals": {"kind": "file", "path": "arrivals.txt"}}, second])
    scenario = json.loads((tmp_path / "two.yaml").read_text())
    scenario["streams"][1]["workload"] = Path(scenario["streams"][1]["workload"]).name
    (tmp_path / "two.yaml").write_text(json.dumps(scenario))
    sim.search(build_space(space, folder=tmp_path), trials=1, output=tmp_path / "out")
    for folder in (tmp_path / "out" / "winners").iterdir():
        assert reproduced(folder)[-1]["streams"]["first"]["goodput_per_s"] == pytest.approx(3 / 10e-3)


def test_a_served_model(tmp_path: Path) -> None:
    """Requests to a decoder: each of two precisions serves them, none faster than they arrive."""
    serving = {
        "workload": "decoder", "knobs": {}, "max_batch": 2, "prefill_chunk": 16, "ttft_deadline": "1 s",
        "table_batches": [1, 2], "table_contexts": [16, 64], "kv": {"memory": "DRAM"},
        "requests": {"count": 12, "arrivals": {"kind": "poisson", "rate": "200 Hz"}, "prompt_tokens": 16,
                     "output_tokens": 4, "max_tokens": 64},
    }  # fmt: skip
    (tmp_path / "serve.yaml").write_text(json.dumps({"name": "serve", "hardware": "systolic", "serving": serving}))
    space = build_space({
        "schema": "dovetail.search/1", "name": "served",
        "workloads": [{"workload": "decoder", "knobs": {"width": {"choices": [64, 128]}, "depth": 1, "heads": 4,
                                                        "kv_heads": 2, "vocabulary": 500, "phase": "decode"}}],
        "compression": {"precision": ["int8"]}, "chip": "systolic",
        "hardware": {"DRAM.bandwidth": {"choices": ["17 GB/s", "34 GB/s"]}},
        "scenario": {"events": "serve.yaml"}, "objectives": ["goodput", "area"], "constraints": {"miss_rate": 0.5},
        "budget": {"trials": 2, "winners": 1},
    }, folder=tmp_path)  # fmt: skip
    found = sim.search(space, output=tmp_path / "out")
    most = Costing(space).scenario.driven.most(space.choice(found.front[0].parameters), np.ones((1, 1)))
    assert all(0 < row.values[0] <= most[0] for row in found.front)


def test_scenarios_that_do_not_fit_the_space(document: dict[str, Any], tmp_path: Path) -> None:
    driven(document, tmp_path)
    document["workloads"][0]["stream"] = "frist"
    with pytest.raises(ConfigError, match=r'has no stream "frist".*Did you mean "first"'):
        Costing(build_space(document, folder=tmp_path))
    document["scenario"] = {}
    with pytest.raises(ConfigError, match="goodput needs a scenario"):
        build_space(document, folder=tmp_path)


def trained(**changes: Any) -> Trained:
    return Trained(spec=QualitySpec(method="train", steps=20, metric="accuracy", **changes), where="space")


def test_the_best_case_is_the_largest_rise_seen() -> None:
    """Rises from half of the training of 3, 5 and 4 points: 60 may still become 65; of two nothing is known."""
    judge = trained()
    for i, (half, final) in enumerate([(50.0, 53.0), (40.0, 45.0), (70.0, 74.0)]):
        judge.remember(Course(key=str(i), recipe=None, looks=((0.5, half),), final=final))
        known = judge.limit(None, 0.5, 60.0)
        assert known == (65.0 if i == 2 else float("inf"))
    assert judge.limit("int8-ptq", 0.5, 60.0) == float("inf")
    assert Course.of(json.loads(json.dumps(judge.courses["0"].to_dict()))) == judge.courses["0"]


def test_training_ends_where_nothing_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate at 60 after half of the training, at most 65 in the end: stopped where 66 is needed."""
    judge = trained()
    for i in range(3):
        judge.remember(Course(key=str(i), recipe=None, looks=((0.5, 50.0),), final=55.0))
    shown: list[float] = []

    def network(choice: ModelChoice, look: Any) -> None:
        for share, value in ((0.5, 60.0), (1.0, 64.0)):
            shown.append(share)
            if not look(share, value):
                return

    monkeypatch.setattr(judge, "_network", network)
    monkeypatch.setattr(judge, "_compressed", lambda choice: (64.0, 63.0))
    one, two = (ModelChoice(parts=(Part(label="m", workload=w),), precision="fp32") for w in ("a", "b"))
    stopped = judge.judge(one, lambda best: best >= 66)
    assert (stopped.final, stopped.looks) == (None, ((0.5, 60.0),))
    assert shown == [0.5]
    done = judge.judge(two, lambda best: best >= 65)
    assert (done.final, done.test, done.looks) == (64.0, 63.0, ((0.5, 60.0),))


@pytest.mark.parametrize(("body", "message"), [
    ("1 / 0", r"q\.py:judge raised ZeroDivisionError: division by zero \(q\.py, line 2\) for .*m=(32|64)"),
    ("float('nan')", r"q\.py:judge returned nan .*expected a finite number"),
    ("'good'", r"returned 'good'"),
])  # fmt: skip
@pytest.mark.parametrize("role", ["quality", "constraint"])
def test_functions_of_the_user_that_fail(document: Any, tmp_path: Path, body: str, message: str, role: str) -> None:
    (tmp_path / "q.py").write_text(f"def judge(row):\n    return {body}\n")
    if role == "quality":
        document |= {"objectives": ["latency", "quality"], "quality": {"method": "callable", "function": "q.py:judge"}}
    else:
        document["constraints"] = {"functions": ["q.py:judge"]}
    with pytest.raises(ConfigError, match=message):
        sim.search(build_space(document, folder=tmp_path), trials=2)


def test_a_constraint_sees_the_choice_and_the_metrics(document: Any, tmp_path: Path) -> None:
    """The keys that the search page lists; not the columns of functions, its own or another's."""
    code = "SEEN = []\n\n\ndef judge(row):\n    SEEN.append(sorted(row))\n    return 0\n\n\n"
    (tmp_path / "q.py").write_text(code + "def fails(row):\n    return float('nan')\n")
    document["constraints"] = {"functions": ["q.py:judge", "q.py:fails"]}
    with pytest.raises(ConfigError, match=r"q\.py:fails returned nan for precision=.*, latency=") as caught:
        sim.search(build_space(document, folder=tmp_path), trials=2)
    assert "function q.py" not in str(caught.value)
    page = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, flags=re.MULTILINE))
    seen = load_function("q.py:judge", folder=tmp_path, where="space: constraints.functions").__globals__["SEEN"]
    assert seen
    for keys in seen:
        assert {"m", "product.m"} <= set(keys)
        assert set(keys) - {"m", "product.m"} <= set(rows)


class Stub(Trained):
    """Training whose looks are given."""

    def _network(self, choice: ModelChoice, look: Any) -> None:
        for share, value in ((0.5, 60.0), (1.0, 64.0)):
            if not look(share, value):
                return

    def _compressed(self, choice: ModelChoice) -> tuple[float, float]:
        return 64.0, 63.0


@pytest.mark.parametrize(("reached", "reason"), [
    (65.0, "training stopped at 50%, no chip is worth the rest"), (64.5, None), (None, None),
])  # fmt: skip
def test_an_untrained_quality_is_never_told(reached: float | None, reason: str | None) -> None:
    """At 60 after half and at most 65 in the end, beside a front at zero latency with the given quality: a choice that
    can at best be equal is stopped without a number; all others end at 64."""
    spec = QualitySpec(method="train", steps=20, metric="accuracy")
    judge = Stub(spec=spec, where="space")
    for i in range(3):
        judge.remember(Course(key=str(i), recipe=None, looks=((0.5, 50.0),), final=54.9))
    scenario = Scenario(objectives=("latency", "quality"), quality=judge)
    designs = Designs.grid(load_hardware("edge-npu"), {"array.rows": [16, 32]})
    against = None if reached is None else np.array([[0.0, -reached]])
    table = evaluate(one_workload(sim.gemm(32, 32, 32), "int8"), designs, scenario, against=against)
    if reason is None:
        assert (table.metrics["quality"] == 64.0).all()
        assert table.costed.any()
    else:
        assert set(table.reason) == {reason}
        assert np.isnan(table.metrics["quality"]).all()
        assert not table.costed.any()


TRAIN = {
    "schema": "dovetail.search/1", "name": "trained",
    "workloads": [{"workload": "byte_gpt", "knobs": {
        "width": {"choices": [8, 16]}, "depth": 1, "heads": 2, "kv_heads": 2, "context": 16}}],
    "compression": {"recipe": ["int8-ptq"]}, "chip": "edge-npu", "hardware": {"array.rows": {"choices": [16, 32]}},
    "objectives": ["quality", "energy"], "budget": {"trials": 2, "winners": 2},
    "quality": {"method": "train", "metric": "bits a byte", "higher_is_better": False, "steps": 20, "examples": 200},
}  # fmt: skip


def test_a_network_that_was_trained_in_vain_is_not_asked_for_again(tmp_path: Path) -> None:
    """No byte model comes near 1 bit a byte in 5 steps: each of three trials trains another of the three."""
    space = json.loads(json.dumps(TRAIN)) | {"constraints": {"quality": {"max": 1.0}}}
    space["workloads"][0]["knobs"]["width"] = {"choices": [8, 16, 24]}
    space["quality"]["steps"] = 5
    found = sim.search(build_space(space, folder=tmp_path), trials=3)
    assert not found.front
    assert sorted(row.parameters["byte_gpt.width"] for row in found.rows) == [8, 16, 24]


SPARSE = """
schema: dovetail.recipe/1
name: sparse
steps: [{technique: sparsify_nm}]
"""


@pytest.mark.parametrize("recipe", ["int8-ptq", "sparse.yaml"])
def test_a_search_that_trains(tmp_path: Path, reproduced: Any, recipe: str) -> None:
    """Two byte models trained for 20 steps: the told quality is that of `dovetail compress` with the same seed,
    which measures on the test set what the search keeps beside its validation quality. A recipe file lies beside the
    search file, and `compress` takes the model, not the graph of its sparse form."""
    (tmp_path / "sparse.yaml").write_text(SPARSE)
    found = sim.search(
        build_space(TRAIN | {"compression": {"recipe": [recipe]}}, folder=tmp_path), output=tmp_path / "out"
    )
    assert all(1 < row.values[0] < 9 for row in found.front)
    winner = json.loads(next((tmp_path / "out" / "winners").glob("*/winner.json")).read_text())
    course = winner["training"]
    assert course["final"] == winner["objectives"]["quality"]
    assert [share for share, _ in course["looks"]] == [0.25, 0.5]
    again = reproduced(tmp_path / "out" / "winners" / f"{winner['trial']:05d}")[-1]
    assert again["results"][0]["quality"]["value"] == course["test"]


@pytest.mark.parametrize(("change", "message"), [
    ({"compression": {"precision": ["int8"]}}, "nothing says what int8 costs"),
    ({"compression": {"precision": ["bf16"], "sparsity": ["none", "2:4"]}}, "nothing says what 2:4 costs"),
    ({"compression": {"recipe": ["sparse-2to4"]}, "chip": "tesla-fsd-npu", "hardware": {}, "objectives": ["quality"]},
     "sparse-2to4 rounds nothing, tesla-fsd-npu computes int8 at most"),
    ({"workloads": [{"workload": "mlp"}]}, "mlp has no task: give its file a function task"),
    ({"quality": TRAIN["quality"] | {"higher_is_better": True}}, "measures bits per byte: write false"),
])  # fmt: skip
def test_training_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sim.search(build_space({**TRAIN, **change}), trials=1)


def test_a_record_is_named_by_its_mode(document: dict[str, Any]) -> None:
    """The same network, knobs and device ran eager and compiled: two records until the mode is said, which the list
    of them shows; their seconds differ, and so does the speed-up."""
    device = "amd-epyc-f25m17-avx512-zen4-2c"
    record = {"device": device, "workload": "mlp", "precision": "fp32", "knobs": {"batch": 64}}
    document["objectives"] = [{"speed_up": record}, "area"]
    with pytest.raises(ConfigError, match=r"2 baseline records .* mode=eager .*batch=64; mlp fp32 mode=compile .*=64$"):
        build_space(document)
    seconds = {}
    for mode in ("eager", "compile"):
        document["objectives"] = [{"speed_up": {**record, "mode": mode}}, "area"]
        seconds[mode] = Costing(build_space(document)).scenario.baseline_s
    assert seconds["eager"] != seconds["compile"]
    document["baselines"] = [{**record, "mode": "eager"}]
    assert sim.search(build_space(document), trials=1).baselines[0].name == f"{device} mlp fp32 eager"


def test_die_cost_says_what_it_assumes(document: dict[str, Any], tmp_path: Path) -> None:
    """Once in the summary and once on the page of a search that asks for it, as an objective or a limit; of other
    searches nothing."""
    from sim.view.report import report

    small = document | {"workloads": [{"workload": "mlp"}], "compression": {"precision": ["int8"]}}
    small["hardware"] = {"array.rows": {"choices": [16, 32]}}
    for number, (objectives, constraints, times) in enumerate([
        (["latency", "die_cost"], {}, 1), (["latency", "area"], {"die_cost_usd": 50.0}, 1), (["latency"], {}, 0),
    ]):  # fmt: skip
        folder = tmp_path / str(number)
        space = build_space(small | {"objectives": objectives, "constraints": constraints})
        sim.search(space, trials=2, output=folder)
        summary = (folder / "summary.txt").read_text(encoding="utf-8")
        assert summary.count("negative binomial yield with 0.1 defects/cm2") == times
        assert report([folder]).count("negative binomial yield with 0.1 defects/cm2") == times


def test_speed_up_die_cost_and_throughput(document: dict[str, Any]) -> None:
    """ResNet-18 at 64 pixels: throughput is 1 / latency, speed-up the record's seconds over the latency, die cost
    that of the area."""
    from sim.codesign.scenario import find_record, seconds_per_sample
    from sim.hardware.technology import die_cost_usd

    record = {"device": "h200", "workload": "llama3.1-8b", "precision": "fp8", "knobs": {"batch": 1}}
    document |= {
        "workloads": [{"workload": "resnet18", "knobs": {"resolution": 64}}], "compression": {"precision": ["int8"]},
        "objectives": ["throughput", "die_cost", {"speed_up": record}, "latency", "peak_power"],
    }  # fmt: skip
    document["hardware"] = {"array.rows": {"choices": [16, 32]}}
    space = build_space(document)
    found = sim.search(space, trials=1)
    row = found.rows[0]
    throughput, cost, speed_up, latency, peak = row.values
    assert throughput == pytest.approx(1 / latency)
    spec = space.spec.objectives[2].speed_up  # type: ignore[union-attr]
    assert speed_up == pytest.approx(seconds_per_sample(find_record(spec, space)) / latency)
    chip = space.chip.set("array.rows", row.parameters["array.rows"])
    assert cost == pytest.approx(die_cost_usd(area_mm2=sim.estimate(sim.gemm(8, 8, 8), chip).area_mm2,
                                              node_nm=chip.technology.node_nm))  # fmt: skip
    assert peak > 0


def test_broken_lines_of_a_baseline_file_are_named(document: dict[str, Any], write: Callable[..., Path]) -> None:
    """Once per search, whoever asks: Python, `search` with its answers, the dry run and `check`."""
    record = BaselineRecord(device="mine", backend="cpu", kind=Kind.MEASURED, workload="product", precision="int8",
                            mode=Mode.EAGER, median_s=1e-3, n=9)  # fmt: skip
    named = {"device": "mine", "workload": "product", "precision": "int8", "file": "mine.jsonl"}
    space = write(document | {"objectives": ["latency", {"speed_up": named}], "baselines": [named]})
    file, folder = space.with_name("mine.jsonl"), space.with_name("answers")
    append_record(file, record)
    with file.open("a") as out:
        out.write("{\n")
    said: list[str] = []
    sim.search(space, trials=1, output=folder, progress=said.append)
    assert said[0].startswith(f"{file}:2: skipped")
    assert sum("skipped" in line for line in said) == 1
    assert (folder / "summary.txt").read_text(encoding="utf-8").count(f"{file}:2: skipped") == 1
    again = ["search", str(space), "--trials", "1", "-o", str(folder)]
    for command in (again, ["search", str(space), "--dry-run"], ["check", str(space)]):
        assert CliRunner().invoke(app, command).stderr.count(f"{file}:2: skipped") == 1
    with pytest.raises(ConfigError, match=r"none\.jsonl: no such file; expected a baseline file"):
        build_space(document | {"baselines": [named | {"file": "none.jsonl"}]})
