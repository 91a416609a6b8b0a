"""What-ifs that keep mappings: an upper bound of what a new search finds, from the longest einsum on."""

from __future__ import annotations

import pytest

import sim
from sim import whatif
from sim.schedule.network import Shared


@pytest.fixture(scope="module")
def answers() -> dict[float, dict[tuple[str, float], float]]:
    """Budget -> answers of a small network."""
    graph, chip = sim.load_workload("digits_cnn"), sim.load_hardware("tesla-fsd-npu")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for budget in (0.0, 40_000.0, float("inf")):
            patch.setattr(whatif, "SEARCHED", budget)
            found[budget] = {(w.resource, w.factor): w.latency_s for w in whatif.what_if(graph, chip)}
    return found


def test_a_kept_mapping_is_never_faster_than_a_new_search(answers):
    """Nor slower than today by more than rounding, where only rates have grown."""
    graph, chip = sim.load_workload("digits_cnn"), sim.load_hardware("tesla-fsd-npu")
    today_s = sim.estimate(graph, chip).latency_s
    kept, searched = answers[0.0], answers[float("inf")]
    assert kept.keys() == searched.keys()
    for what, latency_s in kept.items():
        assert latency_s >= searched[what] * (1 - 1e-3), what
        if what[0].endswith("bandwidth"):
            assert latency_s <= today_s * (1 + 1e-9), what


def test_a_budget_lies_between(answers):
    some = answers[40_000.0]
    for what, latency_s in some.items():
        assert answers[float("inf")][what] * (1 - 1e-3) <= latency_s <= answers[0.0][what] * (1 + 1e-3), what


def test_the_estimate_says_what_was_kept(monkeypatch):
    graph, chip = sim.load_workload("digits_cnn"), sim.load_hardware("tesla-fsd-npu")
    found = sim.estimate(graph, chip)
    assert not any("are kept" in note for note in whatif.with_what_if(found, graph, chip).notes)
    monkeypatch.setattr(whatif, "SEARCHED", 0.0)
    shared = Shared()
    notes = whatif.with_what_if(found, graph, chip, shared=shared).notes
    assert f"what if: the mappings of {len(shared.again.kept)} einsums are kept" in notes[-1]
    assert "too slow, a sixth has been seen; --set with that resource" in notes[-1]


def test_what_binds_is_searched_first():
    """All einsums of the MLP wait for DRAM; of the other rates of this chip none changes the time of a mapping, so that
    the budget goes to twice the DRAM, whose answer is that of a chip with it."""
    graph, chip = sim.load_workload("mlp"), sim.load_hardware("tpu-v1")
    answers = {(w.resource, w.factor): w.latency_s for w in whatif.what_if(graph, chip)}
    anew = sim.estimate(graph, chip.set("DRAM.bandwidth", "68 GB/s"))
    assert answers["DRAM.bandwidth", 2.0] == pytest.approx(anew.latency_s, rel=1e-3)
