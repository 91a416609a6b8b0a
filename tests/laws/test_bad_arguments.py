"""Wrong arguments as a user of the Python interface meets them: an error of ours that says what belongs there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import sim
from sim.baseline import read_baseline, records_with_numbers
from sim.baseline.import_profile import import_profile
from sim.baseline.validate import against
from sim.compression.study import run_study
from sim.errors import DovetailError
from sim.events.experiment import run_scenario
from sim.events.scenario import load_scenario
from sim.mapping.arrays import array_cycles
from sim.resources import data_dir

GRAPH, CHIP, MODULE = sim.gemm(16, 16, 16), sim.load_hardware("systolic"), torch.nn.Linear(3, 3)
MAPPING = sim.estimate(GRAPH, CHIP).ops[0].mapping
SCENARIO = load_scenario("neighbours")


def _estimate(**options: Any) -> Callable[[], object]:
    return lambda: sim.estimate(GRAPH, CHIP, **options)


def _sweep(grid: Any = None, *, of: Any = GRAPH, **options: Any) -> Callable[[], object]:
    return lambda: sim.sweep(of, CHIP, grid, **options)


ENTRIES: dict[str, Callable[..., Any]] = {
    "estimate": sim.estimate,
    "roofline": sim.roofline,
    "simulate": sim.simulate,
    "evaluate": lambda graph, chip: sim.evaluate(graph, chip, MAPPING),
    "sweep": lambda graph, chip: sim.sweep(graph, chip, {}),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_takes_a_graph_and_a_chip_or_their_names(name: str) -> None:
    call = ENTRIES[name]
    knobs = {"m": 16, "n": 16, "k": 16}
    workload = sim.Workload("gemm", knobs)

    def seconds(found: Any) -> float:
        return float(found["latency_s"][0] if name == "sweep" else found.latency_s)

    first = seconds(call(workload.graph(), CHIP))
    assert (
        first
        == seconds(call(workload, "systolic"))
        == seconds(call(workload, data_dir("hw_configs") / "systolic.yaml"))
    )
    assert seconds(call("mlp" if name != "evaluate" else workload, "systolic")) > 0


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize(
    ("graph", "chip", "said"),
    [
        (MODULE, CHIP, r"first argument: expected a graph \(sim\.trace makes one of a torch module, .* got a Linear"),
        (None, CHIP, r"first argument: expected a graph .*, a sim\.Workload, or its name, got None"),
        (3, CHIP, r"first argument: expected a graph .*, got 3"),
        (GRAPH, GRAPH, r"second argument: expected a chip \(sim\.load_hardware .*, or a chip's name, got a Graph"),
        (GRAPH, 3, r"second argument: expected a chip .*, got 3"),
        (CHIP, GRAPH, r"(first|second) argument: expected a (graph|chip) .*, got a (Chip|Graph)"),
        ("gem", CHIP, r'workload "gem" is unknown.*Did you mean "gemm"'),
        (GRAPH, "systolc", r'chip "systolc" is unknown.*Did you mean "systolic"'),
    ],
)  # fmt: skip
def test_anything_else_is_told(name: str, graph: Any, chip: Any, said: str) -> None:
    with pytest.raises(DovetailError, match=said) as told:
        ENTRIES[name](graph, chip)
    assert told.value.exit_code == 2


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "seed below 0": (lambda: sim.simulate(GRAPH, CHIP, seed=-1), r"seed=-1: expected a whole number from 0 to 9,223"),
    "seed of a search": (lambda: sim.search("edge-vision", short=True, trials=1, seed=-1), r"seed=-1: expected a"),
    "seed of a scenario": (lambda: run_scenario(SCENARIO, CHIP, seed=-1), r"seed=-1: expected a whole number from 0"),
    "seed of training": (lambda: run_study("digits_cnn", ["int8-ptq"], seed=-1), r"seed=-1: expected a whole number"),
    "seed without end": (lambda: run_study("digits_cnn", ["int8-ptq"], seed=2**70), r"seed=1180591620717411303424: "),
    "steps below 0": (
        lambda: run_study("digits_cnn", ["int8-ptq"], train_steps=-1), r"train_steps=-1: expected a whole number from 0"
    ),
    "objective None": (_estimate(objective=None), 'objective "None" is unknown: expected one of latency'),
    "objective 3": (_estimate(objective=3), 'objective "3" is unknown'),
    "simulate objective": (lambda: sim.simulate(GRAPH, CHIP, objective="speed"), 'objective "speed" is unknown'),
    "sweep objective": (_sweep({}, objective="latencies"), 'Did you mean "latency"'),
    "map space": (_estimate(map_space=None), 'map space "None" is unknown: expected one of even'),
    "inputs": (_estimate(inputs=None), 'inputs "None": expected host or resident'),
    "calibration": (_estimate(calibration=["auto"]), 'calibration: expected "auto", .* got a list'),
    "precision 8": (_estimate(precision=8), 'precision: expected a name such as "int8" .*, got 8'),
    "precision dtype": (_estimate(precision=torch.int8), "precision: expected a name .*, got a dtype"),
    "precision list": (_estimate(precision=["int8"]), "precision: expected a name .*, got a list"),
    "precision empty": (_estimate(precision=""), 'precision "" is unknown: expected one of fp32'),
    "roofline precision": (lambda: sim.roofline(GRAPH, CHIP, 8), "precision: expected a name .*, got 8"),
    "overrides unit": (_estimate(overrides={"gemm": "3 MB"}), "--override gemm: .* is a size, expected a time"),
    "overrides None": (_estimate(overrides={"gemm": None}), "--override gemm: expected seconds, .* got None"),
    "overrides True": (_estimate(overrides={"gemm": True}), "--override gemm: expected seconds, .* got True"),
    "overrides list": (_estimate(overrides=[("gemm", 1)]), "overrides: expected a map from op to time .* got a list"),
    "processes 0": (_estimate(processes=0), "processes=0: expected a whole number from 1"),
    "processes 1.5": (_sweep({}, processes=1.5), "processes=1.5: expected a whole number"),
    "grid scalar": (_sweep({"array.rows": 16}), r"array\.rows: expected a list of values such as \[16, 32\].* got 16"),
    "grid text": (_sweep({"DRAM.bandwidth": "34 GB/s"}), r"DRAM\.bandwidth: expected a list .* got '34 GB/s'"),
    "grid list": (_sweep(["array.rows"]), r'what to vary: expected a map such as {"array\.rows".*, got a list'),
    "grid key": (_sweep({3: [1]}), r"systolic: expected the path of an override, .* got 3"),
    "knob scalar": (_sweep(of="gemm", knobs={"m": 4}), "knob m: expected a list of values such as .* got 4"),
    "knobs list": (_sweep(of="gemm", knobs=["m"]), "knobs: expected a map such as .* got a list"),
    "knob empty": (_sweep(of="gemm", knobs={"m": []}), "knob m has no values to vary over"),
    "precisions": (_sweep(precisions="int8"), r"precisions: expected a list of values such as \[\"int8\".* 'int8'"),
    "too many values": (_sweep({"array.rows": range(1, 20_000)}), "19,999 values, at most 10,000 are taken"),
    "too many designs": (
        _sweep({"array.rows": range(1, 1001), "array.cols": range(1, 1001)}),
        r"array\.rows, array\.cols: 1,000,000 combinations, at most 100,000",
    ),
    "too many rows": (
        _sweep({"array.rows": range(1, 101)}, of="gemm", knobs={"m": range(1, 101), "n": range(1, 101)}),
        "knobs, precisions and designs: 1,000,000 combinations",
    ),
    "load a chip": (lambda: sim.load_hardware(CHIP), "load_hardware: expected a chip's name .* got a Chip"),
    "load None": (lambda: sim.load_hardware(None), "load_hardware: expected a chip's name .* got None"),
    "overrides of a chip": (lambda: sim.load_hardware("systolic", ["a"]), "overrides: expected a map .* got a list"),
    "a long chip": (lambda: sim.load_hardware("a" * 5000), 'chip "aaa.* is unknown'),
    "load no workload": (lambda: sim.load_workload(None), "load_workload: expected a bundled name .* got None"),
    "load a module": (lambda: sim.load_workload(MODULE), "sim.trace takes a torch module, got a Linear"),
    "a long workload": (lambda: sim.load_workload("a" * 5000 + ".py"), "no such file"),
    "knobs of a workload": (lambda: sim.Workload("resnet50", ["batch"]), "knobs: expected a map .* got a list"),
    "no workload": (lambda: sim.Workload(None), "Workload: expected a bundled name .* got None"),
    "search": (lambda: sim.search(None), "search: expected a search's name, .* got None"),
    "measure": (lambda: sim.measure(None), "measure: expected the name of an op or a workload, got None"),
    "measure a graph": (lambda: sim.measure(GRAPH), "measure: expected the name of an op or a workload, got a Graph"),
    "measure knobs": (lambda: sim.measure("gemm", knobs=["m"]), "measure: knobs: expected a map .* got a list"),
    "measure mode": (lambda: sim.measure("mlp", mode="eagr"), "mode is 'eagr', .* Did you mean \"eager\""),
    "measure phase": (lambda: sim.measure("mlp", phase=None), "measure: phase is None, expected cold, warm"),
    "measure device": (lambda: sim.measure("mlp", device=None), "measure: device: expected a device .* got None"),
    "measure threads": (lambda: sim.measure("mlp", threads=0), "0 threads asked for: expected 1 to"),
    "calibrate": (lambda: sim.calibrate(None), "calibrate: device: expected the name of a measured .* got None"),
    "calibrate's chip": (lambda: sim.calibrate("nvidia-h200", chip=3), "calibrate: chip: expected a chip .* got 3"),
    "a baseline": (lambda: read_baseline(None), "read_baseline: expected the path of a baseline file, got None"),
    "baselines": (lambda: records_with_numbers("a.jsonl"), r"expected a list of paths of .* 'a\.jsonl'"),
    "a profile": (lambda: import_profile(None, device="d", precision="int8"), "expected the path of a profile, got No"),
    "a profile's device": (lambda: import_profile("p", device=None, precision="int8"), "device: expected a name, got"),
    "an op map": (lambda: import_profile("p", device="d", precision="int8", op_map=["a"]), "op_map: expected a map fr"),
    "against": (lambda: against(None), "against: expected a file, a folder or the name of a device, got None"),
    "validate": (lambda: sim.validate(["tpu-v1"]), "validate: expected a check or a group .* got a list"),
    "nodes 3": (lambda: sim.Mapping(nodes=3), "mapping: nodes is 3: expected a tuple of Loop and Store"),
    "nodes of 3": (lambda: sim.Mapping(nodes=(3,)), "mapping: nodes is a tuple: expected a tuple of Loop and Store"),
    "element type": (lambda: sim.gemm(1, 1, 1, dtype=torch.int8), 'element type "torch.int8" is unknown: one of'),
    "element types": (lambda: sim.gemm(1, 1, 1, dtype=["int8"]), "element type .* is unknown: one of"),
    "a huge size": (lambda: sim.gemm(10**30, 1, 1), "gemm: m=10+: expected a whole number from 1 to 1,000,000,000"),
    "a size of three": (lambda: sim.conv2d(3, 4, (8, 8, 8), 3), r"conv2d: size=\(8, 8, 8\): expected a whole number"),
    "padding": (lambda: sim.conv2d(3, 4, 8, 3, padding="same"), "conv2d: padding='same': expected a whole number"),
    "no rows": (lambda: array_cycles(8, 8, 8, rows=0, cols=8, dataflow="output_stationary"),
                "array_cycles: rows=0: expected numbers of at least 1"),
    "preload": (lambda: array_cycles(8, 8, 8, rows=8, cols=8, dataflow="output_stationary", preload="hiden"),
                'preload=\'hiden\': expected one of exposed, hidden. Did you mean "hidden"'),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_argument_is_told(what: str) -> None:
    call, said = WRONG[what]
    with pytest.raises(DovetailError, match=said) as told:
        call()
    assert told.value.exit_code == 2
    assert "\n" not in str(told.value)


def test_what_numpy_and_units_give_is_taken() -> None:
    assert sim.gemm(np.int64(3), np.int32(4), 5) == sim.gemm(3, 4, 5)
    assert type(sim.gemm(np.int64(3), 4, 5).knobs["m"]) is int
    assert sim.conv2d(np.int64(3), 4, np.int64(8), np.int64(3)) == sim.conv2d(3, 4, 8, 3)
    for known in ("3 ms", 3e-3, np.float64(3e-3)):
        assert sim.estimate(GRAPH, CHIP, overrides={"gemm": known}).latency_s == 3e-3
    one = sim.sweep("gemm", CHIP, {"array.rows": np.array([16, 32])}, knobs={"m": iter([4, 8])}, calibration="none")
    assert list(one["m"]) == [4, 8, 4, 8]
    assert list(one["array.rows"]) == [16, 16, 32, 32]
