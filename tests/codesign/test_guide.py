"""The guide: what it predicts, what it picks, and that a search follows it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.codesign.found import logarithmic
from sim.codesign.guide import ENOUGH, POINTS, Guide, Promise
from sim.codesign.ranges import Parameter
from sim.codesign.space import build_space
from sim.codesign.study.run import run_study
from sim.codesign.study.trial import Archive, _most_promising

SIDE = Parameter(name="array.rows", side="chip", values=(8, 16, 32, 64, 128))
FLOW = Parameter(name="array.dataflow", side="chip", values=("output_stationary", "weight_stationary"))


def encoded(guide: Guide, side: int, flow: int) -> np.ndarray:
    return guide.encode({"array.rows": SIDE.values[side], "array.dataflow": FLOW.values[flow]}, {}, 1)


def test_features_by_hand() -> None:
    """A number is its place in its list; a name is one of several; columns override the assignment."""
    guide = Guide((SIDE, FLOW))
    assert encoded(guide, 4, 1).tolist() == [[1.0, 0.0, 1.0]]
    rows = guide.encode({"array.dataflow": "output_stationary"}, {"array.rows": np.array([0, 2])}, 2)
    assert rows.tolist() == [[0.0, 1.0, 0.0], [0.5, 1.0, 0.0]]


def test_nothing_known_is_the_roofline_itself() -> None:
    guide = Guide((SIDE,))
    assert guide.predict(np.zeros((2, 1)), np.array([[1.0, 2.0], [4.0, 1.0]])) == pytest.approx(
        np.log([[1.0, 2.0], [4.0, 1.0]])
    )


def test_predicts_between_what_it_saw_and_doubts_far_from_it() -> None:
    """The ratio of estimate to roofline is exp(position): at a fifth point the prediction lies within the
    doubt, and what the roofline knows exactly stays exact."""
    guide = Guide((SIDE, FLOW))
    seen = np.concatenate([encoded(guide, i, 0) for i in (0, 1, 3, 4)])
    bound = np.array([[1.0, 3.0]] * 4)
    guide.learn(seen, bound, bound * np.exp(np.stack([seen[:, 0], np.zeros(4)], axis=1)))
    predicted = guide.predict(encoded(guide, 2, 0), bound[:1])
    assert 0.3 < predicted[0, 0] <= 0.5 + 0.01
    assert predicted[0, 1] == pytest.approx(np.log(3.0))
    elsewhere = guide.predict(encoded(guide, 2, 1), bound[:1])
    assert elsewhere[0, 0] < predicted[0, 0]  # optimistic where it knows less
    assert elsewhere[0, 0] >= 0.0  # and never below the roofline


def test_the_scale_of_a_quality_keeps_the_order_through_zero() -> None:
    """x itself up to 1, then 1 + log x: 1 + log e = 2 on either side. A logarithm has 0.1 above 5."""
    values = np.array([[-5.0], [-np.e], [-1.0], [-0.1], [0.0], [0.1], [1.0], [np.e], [5.0]])
    scaled = logarithmic(values, signed=(0,))[:, 0]
    assert (np.diff(scaled) > 0).all()
    assert scaled[[1, 2, 3, 4, 7]] == pytest.approx([-2, -1, -0.1, 0, 2])
    assert logarithmic(values, signed=())[[7, 8], 0] == pytest.approx([1, np.log(5)])


def test_a_quality_that_is_a_gain_or_a_loss_is_searched_on_both_sides_of_zero(
    document: dict[str, Any], tmp_path: Path
) -> None:
    """m of 32 to 1024 rows is worth log2(m) - 7.5: from -2.5 to 2.5. Every quality is on the front, since more rows
    take longer and fewer are worth less."""
    (tmp_path / "gain.py").write_text("def gain(row):\n    return row['m'].bit_length() - 8.5\n")
    document["workloads"][0]["knobs"] = {"m": {"choices": [32, 64, 128, 256, 512, 1024]}}
    document |= {
        "compression": {}, "objectives": ["quality", "latency"],
        "hardware": {"array.rows": {"choices": [16, 32]}, "DRAM.bandwidth": {"choices": ["6.4 GB/s", "12.8 GB/s"]}},
        "quality": {"method": "callable", "function": "gain.py:gain"},
    }  # fmt: skip
    found = run_study(
        build_space(document, folder=tmp_path), trials=8, timeout_s=None, storage=None, workers=1, seed=1, output=None,
        progress=None,
    )  # fmt: skip
    assert {row.values[0] for row in found.front} == {-2.5, -1.5, -0.5, 0.5, 1.5, 2.5}
    scaled = found.scaled(found.front)
    assert (np.argsort(scaled[:, 0]) == np.argsort([-row.values[0] for row in found.front])).all()


def test_picks_what_adds_most_first_and_stops() -> None:
    """In the unit square beyond the front {(1, 1)} (in logs): (0, 0.5) covers half of it, (0.5, 0) half,
    together three quarters; (0.5, 0.5), dominated by neither, adds nothing to both."""
    promise = Promise(np.random.default_rng(0).uniform(size=(POINTS, 2)))
    rows = np.array([[0.0, 0.5], [0.5, 0.0], [0.5, 0.5], [2.0, 2.0]])
    picked = promise.pick(rows, 4)
    assert sorted(picked.tolist()) == [0, 1]
    assert promise.best(np.array([[1.0, 1.0]])) is None
    assert promise.best(np.array([[1.0 - ENOUGH / 10, 1.0 - ENOUGH / 10]])) is None


def test_trials_take_the_proposal(document: dict[str, Any]) -> None:
    """No coarse choice is swept twice before all were (the sampler alone repeats itself), and the guided
    search finds the whole front of a small space with fewer estimates than the space has points."""
    document["sampler"] = {"name": "random", "seed": 1, "screen": 0}
    document["budget"] = {"trials": 8, "winners": 1}
    everything = run_study(build_space(document, where="space"), trials=None, timeout_s=None, storage=None, workers=1,
                           seed=None, output=None, progress=None)  # fmt: skip
    assert everything.repeats == 0
    document["sampler"]["screen"] = 8
    guided = run_study(build_space(document, where="space"), trials=None, timeout_s=None, storage=None, workers=1,
                       seed=None, output=None, progress=None)  # fmt: skip
    assert guided.costed < everything.costed
    front = {row.values for row in everything.front}
    assert {row.values for row in guided.front} <= {row.values for row in guided.feasible}
    assert len(front & {row.values for row in guided.front}) >= 0.8 * len(front)


def test_pairs_end_the_search(document: dict[str, Any]) -> None:
    document["budget"] = {"trials": 8, "pairs": 5, "winners": 1}
    found = run_study(build_space(document, where="space"), trials=None, timeout_s=None, storage=None, workers=1,
                      seed=None, output=None, progress=None)  # fmt: skip
    assert found.costed == 5


def test_with_one_objective_each_kind_of_design_keeps_its_best():
    """Of choices without order only ("16" and "8 MiB" have one); several objectives have a front instead."""
    archive = Archive(scenario=None)  # type: ignore[arg-type]
    designs = [("dense", "8 MiB", 3.0), ("depthwise", "8 MiB", 2.0), ("dense", "1 MiB", 2.5), ("dense", "2 MiB", 4.0)]
    for kind, size, value in designs:
        archive._remember_best([value], {"kind": kind, "SRAM": size, "rows": 16})
    assert {key: value for key, (value, _) in archive.best.items()} == {
        ("kind", "dense"): 2.5,
        ("kind", "depthwise"): 2.0,
    }
    assert [design["SRAM"] for design in archive.parents] == ["1 MiB", "8 MiB"]
    drawn = [archive.kind(np.random.default_rng(seed)) for seed in range(200)]
    assert 0.15 < sum(found is not None for found in drawn) / 200 < 0.35
    assert {found[0][1]: float(found[1][0, 0]) for found in drawn if found} == {"dense": 2.5, "depthwise": 2.0}
    several = Archive(scenario=None)  # type: ignore[arg-type]
    several._remember_best([1.0, 2.0], {"kind": "dense"})
    assert several.kind(np.random.default_rng(0)) is None


def test_more_is_hoped_for_before_the_sampler_decides() -> None:
    """The guide's optimism doubles twice where nothing promises anything; each level once for what is known."""
    asked: list[float] = []

    class Stub:
        changes = 0

        def promise(self, guide: Guide) -> tuple[list[Any], np.ndarray, np.ndarray]:
            asked.append(guide.optimism)
            reach = 0.0 if guide.optimism >= reached_at else 2.0
            return [{"array.rows": 8}], np.zeros(1, dtype=int), np.array([[reach, reach]])

    archive, rng = Archive(scenario=None), np.random.default_rng(0)  # type: ignore[arg-type]
    archive.front = np.exp([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    for reached_at, levels in ((4.0, [1.0, 2.0, 4.0]), (8.0, [1.0, 2.0, 4.0]), (8.0, [])):
        asked.clear()
        if levels:
            archive.unpromising.clear()
        guide = Guide((SIDE,))
        found = _most_promising(Stub(), archive, guide, rng)  # type: ignore[arg-type]
        assert asked == levels
        assert (found is not None) == (reached_at == 4.0)
