"""Law: load(dump(x)) == x. Broken, foreign, older, newer and edited files are refused with the place."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.documents import plain
from sim.errors import ResultError
from sim.results import Estimate, OpEstimate, Term, Traffic, WhatIf
from sim.results_io import from_dict, load_result, load_results, to_frame

number = st.floats(min_value=0, max_value=1e18, allow_nan=False)
share = st.none() | st.floats(min_value=1e-6, max_value=1)
word = st.text(max_size=8)
traffic = st.builds(Traffic, read=number, write=number)
breakdown = st.dictionaries(st.sampled_from(Term), number)
ops = st.builds(
    OpEstimate,
    name=word,
    kind=word,
    module=word,
    source=word,
    macs=st.integers(0, 10**15),
    vector_ops=st.integers(0, 10**15),
    latency_s=number,
    roofline_s=number,
    cycles=number,
    bound=st.sampled_from(["compute", "memory:DRAM", "vector"]),
    mac_utilization=share,
    cycles_ladder=st.none() | st.fixed_dictionaries({"ideal": number, "total": number}),
    traffic_bytes=st.dictionaries(word, st.dictionaries(word, traffic, max_size=2), max_size=2),
    energy_j=st.none() | number,
    breakdown_s=breakdown,
    mapping=st.none() | st.just({"dataflow": "weight_stationary", "nodes": [{"loop": "M", "tile": 3}]}),
    fused=st.tuples(word),
    homes=st.dictionaries(word, word, max_size=2),
)
estimates = st.builds(
    Estimate,
    workload_name=word,
    knobs=st.dictionaries(word, st.integers() | word | st.booleans() | st.tuples(st.integers()), max_size=3),
    graph_hash=word,
    batch=st.integers(1, 99),
    hardware_name=word,
    hardware_hash=word,
    overrides=st.dictionaries(word, word, max_size=2),
    precision=word,
    objective=word,
    map_space=word,
    buffering=word,
    calibration=st.none() | st.just({"device": "h100", "error": 0.05}),
    latency_s=st.floats(min_value=1e-9, max_value=1e3) | st.just(inf),
    latency_interval_s=st.none() | st.tuples(number, number),
    cycles=number,
    roofline_latency_s=number,
    macs=st.integers(0, 10**15),
    effective_macs=number,
    vector_ops=st.integers(0, 10**15),
    mac_utilization=share,
    energy_j=st.none() | number,
    power_w=st.none() | number,
    area_mm2=st.none() | number,
    peak_memory_bytes=st.dictionaries(word, number, max_size=2),
    traffic_bytes=st.dictionaries(word, traffic, max_size=2),
    breakdown_s=breakdown,
    ops=st.lists(ops, max_size=3).map(tuple),
    what_if=st.lists(st.builds(WhatIf, resource=word, factor=number, latency_s=number), max_size=2).map(tuple),
    infeasible=st.none() | st.just({"reason": "too large", "tensors": ["w"]}),
    notes=st.tuples(word),
    energy_breakdown_j=st.dictionaries(word, number, max_size=2),
    area_breakdown_mm2=st.dictionaries(word, number, max_size=2),
    die_cost=st.just({}) | st.just({"usd": 3.5, "assumes": "a wafer", "reason": None}),
)


@given(estimates)
def test_load_of_dump_is_the_same(estimate: Estimate) -> None:
    text = json.dumps(estimate.to_dict(), allow_nan=False)
    assert from_dict(json.loads(text)) == estimate


def test_document_has_every_field_of_the_contract(estimate: Estimate) -> None:
    """The keys of `dovetail.estimate/1`; derived ones follow from their parts: flops = 2 MACs + vector."""
    document = estimate.to_dict()
    contract = [
        "schema",
        "version",
        "workload",
        "batch",
        "hardware",
        "precision",
        "objective",
        "map_space",
        "buffering",
        "calibration",
        "latency_s",
        "latency_interval_s",
        "throughput_per_s",
        "cycles",
        "roofline_latency_s",
        "below_datasheet_roofline",
        "macs",
        "effective_macs",
        "vector_ops",
        "flops",
        "mac_utilization",
        "energy_j",
        "power_w",
        "area_mm2",
        "area_breakdown_mm2",
        "die_cost",
        "peak_memory_bytes",
        "traffic_bytes",
        "breakdown_s",
        "ops",
        "what_if",
        "infeasible",
        "unsupported",
        "notes",
    ]
    assert set(contract) <= set(document)
    assert all(hasattr(estimate, key) for key in contract[2:])  # (schema and version belong to the document)
    assert (estimate.workload, estimate.hardware) == (document["workload"], document["hardware"])
    assert document["flops"] == 2 * estimate.macs + estimate.vector_ops
    assert list(document["breakdown_s"]) == [term.value for term in Term]
    op = [
        "name",
        "kind",
        "module",
        "source",
        "macs",
        "vector_ops",
        "latency_s",
        "roofline_s",
        "cycles",
        "bound",
        "mac_utilization",
        "cycles_ladder",
        "traffic_bytes",
        "energy_j",
        "breakdown_s",
        "mapping",
    ]
    assert set(op) <= set(document["ops"][0])
    assert document["power_w"] is None


def test_infeasible_has_no_numbers(estimate: Estimate) -> None:
    found = replace(estimate, latency_s=inf, infeasible={"reason": "too large"}).to_dict()
    assert found["latency_s"] is None
    assert found["throughput_per_s"] is None


def test_plain_unwraps_numpy_and_infinities() -> None:
    assert plain({"a": np.float64(2), "b": np.arange(2), "c": (inf, np.int64(3))}) == {
        "a": 2.0,
        "b": [0, 1],
        "c": [None, 3],
    }


def _changed(document: dict, key: str, value: object) -> dict:
    return {**document, key: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: _changed(d, "schema", "dovetail.estimate/2"), "newer Dovetail"),
        (lambda d: _changed(d, "schema", "dovetail.estimate/0"), "older Dovetail"),
        (lambda d: _changed(d, "schema", "other/1"), 'schema is "other/1"'),
        (lambda d: {"answer": 42}, "no result of Dovetail"),
        (lambda d: [], "no result of Dovetail"),
        (lambda d: {k: v for k, v in d.items() if k != "ops"}, "`ops` is missing"),
        (lambda d: _changed(d, "latency", 1.0), 'no key of this schema. Did you mean "latency_s"'),
        (lambda d: _changed(d, "latency_s", "fast"), '`latency_s` is "fast", expected a number'),
        (lambda d: _changed(d, "latency_s", 0.0), "`latency_s` is 0, expected a time above 0"),
        (lambda d: _changed(d, "latency_s", -1e-3), "`latency_s` is -0.001, expected a time above 0"),
        (lambda d: _changed(d, "macs", 1.5), "expected a whole number"),
        (lambda d: _changed(d, "ops", [1]), r"ops\[0\]: expected an object"),
    ],
)
def test_what_is_not_ours_is_refused(estimate: Estimate, tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(change(estimate.to_dict())))
    with pytest.raises(ResultError, match=message):
        load_result(path)


def test_truncated_and_missing_files(estimate: Estimate, tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text(json.dumps(estimate.to_dict())[:1000])
    with pytest.raises(ResultError, match=r"cut.json: line 1, column .*no complete JSON"):
        load_result(path)
    with pytest.raises(ResultError, match="cannot be read"):
        load_result(tmp_path / "absent.json")


def test_a_file_with_several(estimate: Estimate, tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    path.write_text(json.dumps([estimate.to_dict(), estimate.to_dict()]))
    assert load_results(path) == [estimate, estimate]
    with pytest.raises(ResultError, match="holds 2 results"):
        load_result(path)


def test_frame_sums_to_the_network(estimate: Estimate) -> None:
    frame = to_frame(estimate)
    columns = {name: list(frame[name]) for name in frame}

    def total(quantity: str, **where: str) -> float:
        keep = [
            i
            for i, name in enumerate(columns["quantity"])
            if name == quantity and all(columns[key][i] == value for key, value in where.items())
        ]
        return sum(columns["value"][i] for i in keep)

    assert total("latency_s") == pytest.approx(estimate.latency_s)
    assert total("breakdown_s") == pytest.approx(estimate.latency_s)
    assert total("traffic_bytes", memory="DRAM", direction="read") == pytest.approx(estimate.traffic_bytes["DRAM"].read)
