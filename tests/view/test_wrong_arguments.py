"""A first argument of another kind is refused in one paragraph that says what belongs there, by every `sim.plot`."""

from __future__ import annotations

from typing import Any

import pytest

import sim
from sim.errors import ConfigError

GRAPH, CHIP = sim.gemm(16, 16, 16), sim.load_hardware("systolic")
ESTIMATE = sim.estimate(GRAPH, CHIP)
TABLE = sim.sweep(GRAPH, CHIP, {"array.rows": [16, 32], "array.cols": [16, 32]})
MORE: dict[str, tuple[Any, ...]] = {"heat_map": ("array.rows", "array.cols"), "pareto": ("latency_s", "energy_j")}


@pytest.mark.parametrize("name", sim.plot.__all__)
@pytest.mark.parametrize("wrong", [None, 3, "resnet50", GRAPH, [], [None], {}])
def test_what_is_no_result_is_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^sim\.plot\.{name}: (first argument|the table has no column)"):
        getattr(sim.plot, name)(wrong, *MORE.get(name, ()))


WRONG: dict[str, tuple[Any, str]] = {
    "a document": (lambda: sim.plot.roofline(ESTIMATE.to_dict()), "an estimate or a roofline, as .* got a dict"),
    "a validation": (lambda: sim.plot.validation(sim.validate("technology")), "as `dovetail validate --json` prints"),
    "a simulation": (lambda: sim.plot.timeline(sim.simulate(GRAPH, CHIP)), r"such as `sim\.simulate.*timeline`"),
    "one of several": (lambda: sim.plot.breakdown([ESTIMATE, None]), "expected an estimate, .* got None"),
    "a column": (lambda: sim.plot.heat_map(TABLE, "array.row", "array.cols"), 'no column .* Did you mean "array.rows"'),
    "a value": (lambda: sim.plot.heat_map(TABLE, "array.rows", "array.cols", value="latency"), 'mean "latency_s"'),
    "pareto": (lambda: sim.plot.pareto(TABLE, "latency_s", "energy"), 'Did you mean "energy_j"'),
    "a time": (lambda: sim.plot.measured_against_estimated({"a": (0.0, 1.0)}), r"a: expected two positive times"),
    "one time": (lambda: sim.plot.measured_against_estimated({"a": 1.0}), r"a: expected two positive times.* got 1\.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_near_is_told_what_it_lacks(case: str) -> None:
    call, said = WRONG[case]
    with pytest.raises(ConfigError, match=said):
        call()
