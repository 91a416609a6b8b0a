"""Tables of event-driven runs: whole numbers with units within 60 columns, alike copies in one line."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

import sim
from sim.events.experiment import ScenarioResult, run_scenario
from sim.events.result import EngineUse, Simulation
from sim.events.scenario import parse_scenario
from sim.events.statistics import Interval
from sim.view import rows, simulation


def text_of(parts: list, width: int) -> str:
    out = StringIO()
    console = Console(file=out, width=width, highlight=False)
    for part in parts:
        console.print(part)
    return out.getvalue()


@pytest.fixture(scope="module")
def scenario() -> ScenarioResult:
    def stream(name: str, rate: str) -> dict[str, object]:
        arrivals = {"kind": "periodic", "rate": rate}
        return {"name": name, "workload": "gemm", "target": "npu", "arrivals": arrivals, "deadline": "20 ms"}

    document = {"name": "two", "hardware": "edge-npu", "length": "40 ms", "replications": 2,
                "streams": [stream("a-camera-with-a-long-name", "100 Hz"), stream("planner", "75 Hz")]}  # fmt: skip
    return run_scenario(parse_scenario(document, where="test"), sim.load_hardware("edge-npu"))


@pytest.fixture(scope="module")
def alone() -> Simulation:
    return sim.simulate(sim.gemm(256, 256, 256, dtype="int8"), sim.load_hardware("edge-npu"))


@pytest.mark.parametrize("width", [60, 100])
def test_tables_stay_within_the_terminal_and_keep_their_numbers(scenario: ScenarioResult, width: int) -> None:
    shown = text_of(simulation.scenario(scenario), width)
    assert max(map(len, shown.splitlines())) <= width
    for stream in scenario.streams.values():
        assert rows.time_text(stream.latency_mean_s or 0.0) in shown
        assert rows.time_text(stream.latency_p99_s or 0.0) in shown
    assert ("p95" in shown.splitlines()[2]) == (width == 100)


def test_one_run_says_its_latency_and_use(alone: Simulation) -> None:
    shown = text_of(simulation.one(alone), 60)
    assert rows.time_text(alone.latency_s) in shown
    assert "npu[0]" in shown


def test_equally_busy_copies_share_a_line(alone: Simulation) -> None:
    """Eight cores at 3.6 % and two units at 52 and 51 %: three lines."""
    busy = {f"cpu[{i}]": 0.036 for i in range(8)} | {"npu[0]": 0.52, "npu[1]": 0.51}
    engines = {name: EngineUse(busy_s=0.0, utilization=share, groups=1) for name, share in busy.items()}
    names = [name for name, _ in simulation._alike(replace(alone, engines=engines))]
    assert names == ["cpu[0..7]", "npu[0]", "npu[1]"]


def test_intervals_in_the_unit_of_the_quantity() -> None:
    def of(mean: float, half: float | None) -> Interval:
        return Interval(mean=mean, half_width=half, level=0.95, replications=3)

    assert simulation.spread(of(0.0297, 7.2e-6), "latency_mean_s") == "29.7 ms ± 7.2 µs"
    assert simulation.spread(of(35.75, 0.01), "goodput_per_s") == "35.75 ± 0.01 /s"
    assert simulation.spread(of(0.02, None), "miss_rate") == "2.0 %"
    assert simulation.spread(None, "miss_rate") == "-"
