"""The report's data step and the safety of its page; `test_report_browser` opens it in Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from math import log
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sim
from sim.cli import app
from sim.errors import ResultError
from sim.hardware.dump import chip_hash
from sim.results import Estimate
from sim.view import points, rows
from sim.view.perfetto import chrome_trace
from sim.view.report import page, read_sources, report, verdicts
from sim.view.report.estimates import short
from sim.view.report.others import direction, measured_view, simulation_view, table_view, trace_view
from sim.view.report.page import view
from sim.view.report.sources import Table

MARKUP = '</script><img src=x onerror="alert(1)">&<!--'


def saved(folder: Path, name: str, document: object) -> Path:
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def data_of(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


class Elements(HTMLParser):
    """Names of all elements as a browser reads them, and every address that they load."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.loaded += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action", "data")]


def test_numbers_survive_and_columns_are_whole(tmp_path: Path, estimate: Estimate) -> None:
    text = report([saved(tmp_path, "a.json", estimate.to_dict())])
    (shown,) = data_of(text)["estimates"]
    assert shown["latency_s"] == pytest.approx(estimate.latency_s, rel=1e-5)
    assert sum(shown["ops"]["latency_s"]) == pytest.approx(estimate.latency_s, rel=1e-4)
    assert sum(seconds for _, seconds, _ in shown["terms"]) == pytest.approx(estimate.latency_s, rel=1e-4)
    columns = [values for key, values in shown["ops"].items() if key not in ("terms", "traffic", "held")]
    assert {len(values) for values in columns} == {len(estimate.ops)}
    names = [data_of(text)["texts"][place] for place in shown["ops"]["name"]]
    assert names == [op.name for op in estimate.ops]


def test_several_chips_and_an_infeasible_one(tmp_path: Path, estimate: Estimate) -> None:
    other = replace(
        estimate, hardware_name="small", latency_s=float("inf"), roofline_latency_s=float("inf"), ops=(),
        infeasible={"reason": "SRAM is too small", "tensors": ["w 4 MB"]},
    )  # fmt: skip
    data = data_of(report([saved(tmp_path, "both.json", [estimate.to_dict(), other.to_dict()])]))
    assert [e["feasible"] for e in data["estimates"]] == [True, False]
    assert data["estimates"][1]["infeasible_tensors"] == ["w 4 MB"]
    assert data["title"] == "bottlenecks on toy, small"


def test_one_chip_before_and_after_a_change(tmp_path: Path, estimate: Estimate) -> None:
    documents = [replace(estimate, overrides=changes).to_dict() for changes in ({}, {"array.rows": "64"})]
    data = data_of(report([saved(tmp_path, "both.json", documents)]))
    assert [e["apart"] for e in data["estimates"]] == ["", " (array.rows=64)"]
    assert "array.rows=64" in data["verdicts"][1]


def test_markup_in_names_opens_no_element(tmp_path: Path, estimate: Estimate) -> None:
    """A name that would end the script or load an image adds no element and no address to the page."""
    ops = (replace(estimate.ops[0], name=MARKUP, module=MARKUP, source=MARKUP), *estimate.ops[1:])
    bad = replace(estimate, workload_name=MARKUP, hardware_name=MARKUP, ops=ops, notes=(MARKUP,))
    plain, marked = Elements(), Elements()
    plain.feed(report([saved(tmp_path, "plain.json", estimate.to_dict())]))
    text = report([saved(tmp_path, "marked.json", bad.to_dict())])
    marked.feed(text)
    assert marked.names == plain.names
    assert marked.loaded == ["data:,"]
    assert data_of(text)["estimates"][0]["workload"] == MARKUP


def test_the_script_builds_text_and_never_markup() -> None:
    assets = Path(points.__file__).parent / "report" / "assets"
    for script in assets.glob("*.js"):
        found = re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|https?://(?!www\.w3)",
                           script.read_text())  # fmt: skip
        assert found == [], script.name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"schema": "dovetail.estimate/2"}', "newer Dovetail"),
        ('{"schema": "dovetail.estimate/0"}', "older Dovetail"),
        ('{"schema": "dovetail.estimate/1", "workload"', "no complete JSON"),
        ('{"schema": "dovetail.estimate/1", "version": "1"}', "is missing; the file is truncated or was edited"),
        ('{"hello": 1}', "no result of Dovetail"),
        ("\x00\x01", "no complete JSON"),
    ],
)
def test_files_that_are_not_ours(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=words):
        report([path])
    done = CliRunner().invoke(app, ["report", str(path), "-o", str(tmp_path / "r.html")])
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "r.html").exists()


def test_the_records_of_a_measurement_with_its_comparison_are_read(tmp_path: Path) -> None:
    record = {"schema": "dovetail.baseline/1", "version": "0.1.0", "device": "mine", "op": "gemm", "median_s": 1e-3}
    path = tmp_path / "measured.json"
    path.write_text(json.dumps({"schema": "dovetail.measure/1", "version": "0.1.0", "records": [record]}))
    assert read_sources([path]).records == [record]


def test_a_broken_line_of_a_baseline_is_named_and_skipped(tmp_path: Path) -> None:
    """As everywhere else where baselines are read; a record of a newer version is refused still."""
    path, out = tmp_path / "cpu.jsonl", tmp_path / "r.html"
    record = {"schema": "dovetail.baseline/1", "version": "0.1.0", "device": "mine", "op": "gemm", "median_s": 1e-3}
    path.write_text(json.dumps(record) + '\n{"schema": "dovetail.base\n' + json.dumps(record) + "\n")
    assert len(read_sources([path]).records) == 2
    done = CliRunner().invoke(app, ["report", str(path), "-o", str(out)])
    assert done.exit_code == 0, done.stderr
    assert f"{path}:2: skipped, no complete JSON" in done.stderr
    path.write_text('{"schema": "dovetail.baseline/2"}\n')
    with pytest.raises(ResultError, match="newer Dovetail"):
        report([path])


def test_other_documents_in_a_folder_are_named_and_skipped(tmp_path: Path) -> None:
    """A graph beside a result; given by its own name it is refused, and a cut or newer result always is."""
    (tmp_path / "graph.json").write_text('{"schema": "dovetail.graph/1", "ops": []}')
    (tmp_path / "mine.json").write_text("[1, 2]")
    (tmp_path / "a.json").write_text(json.dumps(sim.estimate("mlp", "systolic").to_dict()))
    notes: list[str] = []
    assert len(read_sources([tmp_path], notes.append).estimates) == 1
    assert [note.partition(": schema")[0] for note in notes][:1] == [f"skipped: {tmp_path / 'graph.json'}"]
    assert "mine.json" in notes[1]
    with pytest.raises(ResultError, match=r"dovetail\.graph/1"):
        read_sources([tmp_path / "graph.json"])
    for text in ('{"schema": "dovetail.estimate/2"}', '{"schema": "dovetail.est'):
        (tmp_path / "b.json").write_text(text)
        with pytest.raises(ResultError, match=r"newer Dovetail|no complete JSON"):
            read_sources([tmp_path])


def test_an_empty_folder_and_a_ragged_table(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "study.journal").touch()
    with pytest.raises(ResultError, match="a search that has not ended; the same"):
        read_sources([begun])
    with pytest.raises(ResultError, match="no results"):
        report([tmp_path])
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ResultError, match="line 3 has 1 cells, expected 2"):
        report([tmp_path])


def test_a_search_folder(tmp_path: Path) -> None:
    """The table's numbers are numbers, what is empty has none, and a winner's files are found by its id."""
    (tmp_path / "designs.csv").write_text("id,latency_s,quality,chip\nw1,1e-3,70,a\nw2,2e-3,,<b>\n")
    (tmp_path / "winners" / "w1").mkdir(parents=True)
    (tmp_path / "winners" / "w1" / "chip.yaml").write_text("name: w1\n")
    data = data_of(report([tmp_path]))
    (table,) = data["tables"]
    assert table["columns"]["quality"] == [70.0, None]
    assert table["direction"] == {"latency_s": -1, "quality": 1}
    assert data["winners"] == {"w1": {"chip.yaml": "name: w1\n"}}


def test_directions() -> None:
    assert [direction(n) for n in ("latency_s", "throughput_per_s", "mac_utilization", "array.rows", "edp")] == [
        -1, 1, 1, 0, -1,
    ]  # fmt: skip


def test_a_column_of_text_and_numbers_is_text() -> None:
    shown = table_view(Table(name="t", columns={"a": ["1", "x"], "b": [1, None], "c": ["nan", "2"]}))
    assert shown["numeric"] == ["b", "c"]
    assert shown["columns"] == {"a": [1.0, "x"], "b": [1.0, None], "c": [None, 2.0]}


def test_measured_meets_the_estimate_of_the_same_run(estimate: Estimate) -> None:
    record = {"workload": "bottlenecks", "knobs": {"batch": 1}, "precision": "int8", "median_s": 2e-3, "device": "d"}
    others = [record | {"knobs": {"batch": 2}}, record | {"precision": "fp32"}, record | {"workload": "w"}]
    ((label, theirs, ours),) = measured_view([record, *others], [estimate])
    assert "measured on d, on toy" in label
    assert (theirs, ours) == (2e-3, pytest.approx(estimate.latency_s, rel=1e-5))
    modes = measured_view([record | {"mode": mode} for mode in ("graph", "eager")], [estimate])
    assert ["(graph)" in label for label, _, _ in modes] == [True, False]  # else two lines of one name


def test_a_trace_becomes_tracks_and_steps() -> None:
    """2 us + 1 us on one thread, and a counter that steps at 0 and 3 us, in seconds."""
    names: list[Mapping] = [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "args": {"name": "NPU[0]"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "args": {"name": "groups"}},
        {"ph": "X", "name": "conv", "pid": 1, "tid": 1, "ts": 2.0, "dur": 1.0, "args": {"stream": "cam"}},
        {"ph": "C", "name": "SRAM", "pid": 0, "tid": 0, "ts": 0.0, "args": {"bytes": 5}},
        {"ph": "C", "name": "SRAM", "pid": 0, "tid": 0, "ts": 3.0, "args": {"bytes": 0}},
    ]
    shown = trace_view("t", {"traceEvents": names})
    assert shown["slices"] == [["NPU[0] groups", "conv", 2e-6, 1e-6, "cam"]]
    assert shown["counters"] == [["SRAM", "bytes", [[0.0, 5.0], [3e-6, 0.0]]]]
    run = sim.simulate("mlp", "tesla-fsd-npu")
    held = trace_view("t", chrome_trace(run.timeline))["counters"]
    assert [unit for _, unit, _ in held] == ["bytes"] * len(held)
    assert max(steps[1] for name, _, points in held if name == "DRAM" for steps in points) == pytest.approx(
        run.peak_memory_bytes["DRAM"], rel=1e-4
    )


def test_a_simulation_that_lacks_a_key() -> None:
    with pytest.raises(ResultError, match="`latency_s` is missing"):
        simulation_view({"schema": "dovetail.simulate/1", "ops": []})


def test_a_timeline_begins_with_its_first_op() -> None:
    """A job that is released after 2 s is drawn from there, not at the end of 2 s of nothing."""
    document = sim.simulate("mlp", "tesla-fsd-npu").to_dict()
    ops = [op | {"start_s": op["start_s"] + 2} for op in document["ops"]]  # type: ignore[attr-defined]
    assert simulation_view(document | {"ops": ops})["timeline"]["start_s"] == 2
    assert simulation_view(document | {"ops": []})["timeline"]["start_s"] == 0


def test_bars_of_several_streams_stand_in_order_of_time() -> None:
    """The page leaves out bars thinner than a pixel beside one that is drawn, which it can tell in this order alone:
    a stream whose ops stand behind those of another was not drawn at all."""
    document = sim.simulate("mlp", "tesla-fsd-npu").to_dict()
    ops = document["ops"]
    twice = [*({**op, "stream": "first"} for op in ops), *({**op, "stream": "second"} for op in ops)]  # type: ignore[attr-defined]
    slices = simulation_view(document | {"ops": twice})["timeline"]["slices"]
    assert [start for _, _, start, _, _ in slices] == sorted(start for _, _, start, _, _ in slices)
    assert [stream for *_, stream in slices[:2]] == ["first", "second"]
    bars = [{"ph": "X", "pid": 1, "tid": 1, "name": "op", "ts": at, "dur": 1} for at in (5, 3, 4)]
    assert [start for _, _, start, _, _ in trace_view("t", {"traceEvents": bars})["slices"]] == [3e-6, 4e-6, 5e-6]


def test_an_infeasible_simulation_is_a_result(tmp_path: Path) -> None:
    """Weights of 256 x 256 bytes in a DRAM of 32 KiB: the page and the table say so, beside a run that fits."""
    chip = {"DRAM.capacity": "32 KiB"}
    run = sim.simulate(sim.gemm(256, 256, 256, dtype="int8"), sim.load_hardware("edge-npu", chip), must_fit=False)
    fits = sim.simulate(sim.gemm(256, 256, 256, dtype="int8"), "edge-npu")
    no, yes = saved(tmp_path, "no.json", run.to_dict()), saved(tmp_path, "yes.json", fits.to_dict())
    shown, other = data_of(report([no, yes]))["simulations"]
    assert shown["infeasible"] == run.infeasible
    assert (shown["latency_s"], other["infeasible"]) == (None, None)
    told = CliRunner().invoke(app, ["compare", str(no), str(yes)])
    assert told.exit_code == 0
    assert "do not fit DRAM" in " ".join(told.stdout.split())
    document = json.loads(CliRunner().invoke(app, ["compare", str(no), str(yes), "--json"]).stdout)
    assert document["results"][0]["latency_s"] == {"before": None, "after": fits.latency_s}


def test_a_simulation_shows_what_it_rests_on() -> None:
    """Hash, estimate, objective and calibration of a run; of an old document the calibration in its own words."""
    chip = sim.load_hardware("tesla-fsd-npu")
    run = sim.simulate(sim.load_workload("mlp"), chip)
    shown = simulation_view(json.loads(json.dumps(run.to_dict())))
    lines = dict(shown["provenance"])
    assert shown["estimate_s"] == short(run.estimate_latency_s)
    assert lines["chip"] == f"tesla-fsd-npu {chip_hash(chip)}"
    assert lines["estimate"] == rows.time_text(run.estimate_latency_s)
    assert lines["objective"] == "latency, best of the even mappings, atomic buffering"
    assert lines["calibration"] == "none: data sheet only"
    old = {key: value for key, value in run.to_dict().items() if key not in ("objective", "map_space", "buffering")}
    old |= {"calibration": "calibrated on h100-sxm, measured", "hardware": {"name": "h100-sxm", "hash": ""}}
    old["estimate_latency_s"] = None
    lines = dict(simulation_view(old)["provenance"])
    assert lines["calibration"] == "calibrated on h100-sxm, measured"
    assert not {"estimate", "objective"} & set(lines)
    assert lines["chip"] == "h100-sxm"


def test_rounding_keeps_six_digits() -> None:
    assert short(1.23456789e-5) == 1.23457e-5
    assert short(float("inf")) is None


def test_merging_is_that_of_all_pairs(estimate: Estimate) -> None:
    """The cells of `_merge` find the group that a search over all earlier groups finds."""
    made = [
        points.Point(1.02 ** (i * 7 % 40), 1.03 ** (i * 11 % 50), 0.01, "vector", str(i), False) for i in range(300)
    ]
    groups: list[list[points.Point]] = []
    for point in made:
        near = (
            g for g in groups if abs(log(point.x / g[0].x)) < points.SAME and abs(log(point.y / g[0].y)) < points.SAME
        )
        group = next(near, None)
        if group is None:
            groups.append([point])
        else:
            group.append(point)
    assert [p.share for p in points._merge(made)] == pytest.approx([0.01 * len(g) for g in groups])


def test_a_page_stays_small(tmp_path: Path, estimate: Estimate) -> None:
    """5,000 ops of distinct names on three chips: below 5 MB."""
    ops = tuple(replace(estimate.ops[i % len(estimate.ops)], name=f"stage.block{i}.op") for i in range(5000))
    many = replace(estimate, ops=ops, latency_s=sum(op.latency_s for op in ops))
    content = read_sources([saved(tmp_path, "many.json", [many.to_dict()])])
    content.estimates *= 3
    assert len(page(content).encode()) < 5e6
    assert len(view(content)["estimates"]) == 3


def test_a_search_folder_says_what_was_searched_and_what_is_best(tmp_path: Path) -> None:
    """The files that `search -o` writes: numbers of designs name winners, objectives carry their unit in brackets."""
    head = "design,workload,precision,array.rows,quality,energy [J],area [mm2]\n"
    rows = "0,mobilenet_v2,int8,32,71.66,0.00045,7.7\n1,resnet18,int8,16,69.49,0.0014,4.5\n"
    (tmp_path / "pareto.csv").write_text(head + rows)
    (tmp_path / "summary.txt").write_text("edge-vision: what & <why>\n")
    counts = {"accepted": 3, "beaten even at its roofline": 1}
    study = {
        "schema": "dovetail.study/1",
        "version": "0",
        "space": "edge-vision",
        "trials": 3,
        "points": 4,
        "costed": 3,
    }
    saved(
        tmp_path,
        "search.json",
        study | {"counts": counts, "sampler": "nsga2", "seed": 0, "spent_cpu_s": {"bounds": 5.0, "estimates": 40.0}},
    )
    text = report([tmp_path])
    shown = data_of(text)
    assert shown["title"] == "Search: edge-vision"
    searched, best = shown["verdicts"]
    assert searched == "edge-vision: 3 trials settled 4 model-chip pairs, 3 of them by a full estimate."
    assert best.startswith("pareto.csv holds 2 designs, all with precision int8. The")
    assert "The best quality is 71.66 (workload mobilenet_v2, array.rows 32)." in best
    assert "The most frugal takes 450 µJ (workload mobilenet_v2, array.rows 32)." in best
    assert "The smallest has 4.5 mm² (workload resnet18, array.rows 16)." in best
    assert shown["summaries"] == ["edge-vision: what & <why>\n"]
    (found,) = shown["tables"]
    assert [found["direction"][name] for name in ("quality", "energy [J]", "area [mm2]")] == [1, -1, -1]
    assert ["reasons", "3 accepted; 1 beaten even at its roofline"] in shown["studies"][0]
    assert ["CPU time of trials", "45 s"] in shown["studies"][0]


def test_a_quality_may_be_a_loss(tmp_path: Path) -> None:
    """Which way is better says the search itself; a file alone is read by its column's name."""
    (tmp_path / "pareto.csv").write_text("trial,precision,energy [J],quality\n0,int8,1e-3,4.6\n1,bf16,2e-3,2.7\n")
    study = {"schema": "dovetail.study/1", "version": "0", "space": "decoder", "trials": 2, "points": 2, "costed": 2}
    saved(tmp_path, "search.json", study | {"better": {"energy [J]": -1, "quality": -1}})
    shown = data_of(report([tmp_path]))
    assert "The best quality is 2.7 (precision bf16)." in shown["verdicts"][1]
    assert shown["tables"][0]["direction"]["quality"] == -1
    alone = data_of(report([tmp_path / "pareto.csv"]))
    assert alone["tables"][0]["direction"]["quality"] == 1


def test_verdicts_of_runs_and_checks() -> None:
    streams = {
        "camera": {"deadline_s": 0.02, "latency_max_s": 0.025, "miss_rate": 0.1},
        "planner": {"deadline_s": 0.1, "latency_max_s": 0.05, "miss_rate": 0.0},
    }
    run = {
        "scenario": "cameras",
        "hardware": {"name": "npu"},
        "latency_s": 1.0,
        "contended_s": 0.0064,
        "streams": streams,
    }
    run |= {"units": {"npu[0]": {"utilization": 0.62}}, "ports": {"DRAM": {"utilization": None}}}
    assert verdicts.simulation(run) == (
        "cameras on npu, event by event: camera misses 10 % of its deadlines; camera comes nearest, its slowest job "
        "takes 25 ms of 20 ms. npu[0] is busiest, 62 % of the time. Transfers lost 6.4 ms to each other."
    )
    checks = [{"id": f"a.{i}", "verdict": verdict} for i, verdict in enumerate(("pass", "pass", "fail", "info"))]
    assert verdicts.validation({"checks": checks}) == "2 of 4 checks pass, 1 inform without a gate; 1 fail: a.2."


def test_a_compression_and_a_limit_are_tables_of_designs(tmp_path: Path) -> None:
    """One row for the model as trained on each chip, one a recipe; one row a trial of a limit."""
    cost = {"precision": "int8", "latency_s": 1e-3, "energy_j": None, "dram_bytes": 10.0, "weight_bytes": 5.0}
    quality = {"metric": "accuracy %", "value": 90.0, "higher_is_better": True}
    result = {"recipe": "<int8>", "quality": quality | {"value": 89.0}, "parameter_bytes": 5.0,
              "benefits": [{"chip": "npu", "before": cost | {"latency_s": 2e-3}, "after": cost}]}  # fmt: skip
    document = {"schema": "dovetail.compress/1", "version": "0", "quality": quality, "parameter_bytes": 20.0,
                "workload": "net", "knobs": {"batch": 64}}  # fmt: skip
    saved(tmp_path, "c.json", document | {"results": [result]})
    trials = [{"value": 1.0, "jobs": 300, "missed": 0, "upper_bound": 0.01, "passed": True}]
    limit = {"schema": "dovetail.simulate/1", "version": "0", "quantity": "rate", "trials": trials}
    saved(tmp_path, "l.json", limit)
    compressed, tried = data_of(report([tmp_path]))["tables"]
    assert compressed["name"] == "c.json, net (batch=64), quality is accuracy %"
    assert compressed["columns"]["recipe"] == ["as trained", "<int8>"]
    assert compressed["columns"]["quality"] == [90.0, 89.0]
    assert compressed["columns"]["latency_s"] == [2e-3, 1e-3]
    assert compressed["direction"]["quality"] == 1
    assert tried["columns"]["rate"] == [1.0]


SERVING = {
    "schema": "dovetail.simulate/1", "version": "0", "scenario": "chat", "hardware": {"name": "h100"},
    "latency_s": 100.0, "requests": 50, "tokens_per_s": 30.0, "goodput_per_s": 0.5, "missed": {"ttft": 2},
    **{
        key: dict.fromkeys(("mean", "p50", "p95", "p99", "max"), seconds)
        for key, seconds in (("ttft_s", 0.02), ("tpot_s", 0.004), ("queueing_s", 0.001))
    },
    "mean_batch": 1.5, "offered": 0.25, "peak_memory_bytes": {"kv_cache": 2**20}, "preemptions": 0, "energy_j": 100.0,
}  # fmt: skip


def test_a_serving_run_is_shown_and_compared(tmp_path: Path) -> None:
    """How long it was simulated (100 s against 25) says nothing: times of requests stand side by side."""
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    paths[0].write_text(json.dumps(SERVING))
    paths[1].write_text(json.dumps(SERVING | {"scenario": "code", "latency_s": 25.0}))
    shown, _ = data_of(report(paths))["simulations"]
    assert shown["times"][0] == ["first token", *[0.02] * 5]
    assert dict(shown["facts"])["energy a request"] == "2 J"
    assert verdicts.simulation(SERVING) == (
        "chat on h100, event by event, in the mean: first token 20 ms (p99 20 ms), per token 4 ms (p99 4 ms), queueing "
        "1 ms (p99 1 ms). 50 requests, 30 tokens a second; deadlines missed: 2 ttft. Requests ask for 25 % of a full "
        "batch."
    )
    compared = CliRunner().invoke(app, ["compare", *map(str, paths)]).stdout
    assert re.search(r"first token, mean +20 ms +20 ms", compared)
    assert "faster" not in compared
    told = json.loads(CliRunner().invoke(app, ["compare", *map(str, paths), "--json"]).stdout)["results"][0]
    assert told["ttft_s"]["after"]["mean"] == 0.02


def test_requests_of_one_token_have_no_time_per_token(tmp_path: Path) -> None:
    one = SERVING | {"tpot_s": dict.fromkeys(("mean", "p50", "p95", "p99", "max"))}
    path = tmp_path / "one.json"
    path.write_text(json.dumps(one))
    assert "per token" not in verdicts.simulation(one)
    assert data_of(report([path]))["simulations"][0]["times"][1] == ["per token", *[None] * 5]
    compared = CliRunner().invoke(app, ["compare", str(path), str(path)])
    assert compared.exit_code == 0
    assert re.search(r"per token, mean +- +-", compared.stdout)


def test_streams_are_compared_by_stream_and_not_with_estimates(tmp_path: Path) -> None:
    stream = {"latency_mean_s": 0.007, "latency_p99_s": 0.008, "deadline_s": 0.01, "miss_rate": 0.02,
              "goodput_per_s": 30.0, "energy_j_per_job": None}  # fmt: skip
    run = {"schema": "dovetail.simulate/1", "version": "0", "scenario": "car", "hardware": {"name": "npu"},
           "streams": {"frames": stream}, "units": {}, "ports": {}, "power_w": 4.0, "latency_s": 1.0}  # fmt: skip
    path, other = tmp_path / "run.json", tmp_path / "other.json"
    path.write_text(json.dumps(run))
    compared = CliRunner().invoke(app, ["compare", str(path), str(path)]).stdout
    assert re.search(r"frames: missed +2.0 % +2.0 %", compared)
    assert re.search(r"power +4 W +4 W", compared)
    for document, words in (
        (sim.estimate(sim.gemm(8, 8, 8, dtype="int8"), sim.load_hardware("edge-npu")).to_dict(), "nothing in common"),
        (run | {"trials": []}, "trials for a limit"),
    ):
        other.write_text(json.dumps(document))
        done = CliRunner().invoke(app, ["compare", str(path), str(other)])
        assert done.exit_code == 2
        assert words in done.output
