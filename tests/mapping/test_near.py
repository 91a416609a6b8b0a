"""Searches over several borders that start from a mapping at hand: never worse than it, and they find what fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import sim
from sim.hardware.chip import Chip
from sim.mapping.api import Question, cost_mapping, map_einsums
from sim.mapping.winners import Objective
from sim.schedule import asking
from sim.workload.graph import Graph

sizes = st.integers(2, 500)
gemms = st.builds(lambda m, n, k: sim.gemm(m, n, k, dtype="int16"), sizes, sizes, sizes)
convs = st.builds(
    lambda c, k, size, window: sim.conv2d(c, k, size, window, padding=window // 2, dtype="int16"),
    st.integers(1, 64), st.integers(1, 96), st.integers(4, 30), st.sampled_from([1, 3]),
)  # fmt: skip
MORE = {"DRAM.bandwidth": "4 GB/s", "GLB.capacity": "300 kB", "array.rows": 24}


def asked(graph: Graph, chip: Chip, space: str = "even", objective: str = "latency") -> Question:
    """The only question of a graph with one einsum."""
    found: list[Question] = []
    with pytest.MonkeyPatch.context() as patch:

        def record(questions: list[Question], **how) -> Iterator:
            found.extend(questions)
            return map_einsums(questions, **how)

        patch.setattr(asking, "map_einsums", record)
        sim.estimate(graph, chip, inputs="resident", map_space=space, objective=objective)
    return found[0]


def near(question: Question, mapping, space: str = "even"):
    return map_einsums([replace(question, near=mapping)], space=space)[0]


@settings(max_examples=5)
@given(st.one_of(gemms, convs), st.sampled_from(sorted(MORE)), st.sampled_from(["even", "fixed_dataflow"]))
@example(sim.gemm(186, 439, 202, dtype="int16"), "array.rows", "even")
def test_it_is_never_slower_than_the_mapping_at_hand(graph: Graph, path: str, space: str) -> None:
    chip = sim.load_hardware("eyeriss")
    here = asked(graph, chip, space)
    mapping = map_einsums([here], space=space)[0].mappings[0]
    there = asked(graph, chip.set(path, MORE[path]), space)
    kept = cost_mapping(mapping, there.problem, there.machine, there.homes)
    assert near(there, mapping, space).cost.time[0] <= kept.cost.time[0] * (1 + 1e-12)


PES = """
schema: dovetail.chip/1
extends: systolic
name: pes
units:
  - name: npu
    hierarchy:
      - memory: {name: SRAM, capacity: 512 KiB, bandwidth: 64 B/cycle, source: "estimated: a test"}
      - fanout: {name: pe, count: 16, source: "estimated: a test"}
      - memory: {name: WRF, capacity: 8 KiB, bandwidth: 32 B/cycle, holds: [weight], source: "estimated: a test"}
      - memory: {name: ORF, capacity: 1 KiB, bandwidth: 64 B/cycle, holds: [output], source: "estimated: a test"}
      - array:
          {name: array, rows: 8, cols: 8, skew: none, folds: pipelined, preload: hidden, source: "estimated: a test"}
"""


@pytest.mark.parametrize("more", [17, 20, 32])
def test_more_instances_keep_the_parts_that_fewer_take(more: int, tmp_path: Path) -> None:
    """Seven parts of 53 channels are no way of 20 instances; those that stand idle beside them cost no time."""
    (tmp_path / "pes.yaml").write_text(PES)
    graph, chip = sim.conv2d(37, 53, 29, 3, padding=1), sim.load_hardware(tmp_path / "pes.yaml")
    here, there = (asked(graph, chip.set("pe.count", count)) for count in (16, more))
    mapping = map_einsums([here])[0].mappings[0]
    kept = cost_mapping(mapping, there.problem, there.machine, there.homes)
    assert near(there, mapping).cost.time[0] <= kept.cost.time[0] * (1 + 1e-12)


@settings(max_examples=5)
@given(st.one_of(gemms, convs), st.sampled_from([1 / 2, 1 / 3, 1 / 10]))
def test_tiles_shrink_where_there_is_less_room(graph: Graph, share: float) -> None:
    """No answer is faster than the roofline of its traffic, and it fits: whatever it costs by `evaluate` it costs."""
    chip = sim.load_hardware("eyeriss")
    mapping = map_einsums([asked(graph, chip)])[0].mappings[0]
    there = asked(graph, chip.set("GLB.capacity", f"{108e3 * share} B"))
    found = near(there, mapping)
    again = cost_mapping(found.mappings[0], there.problem, there.machine, there.homes)  # raises if it does not fit
    assert again.cost.time[0] == found.cost.time[0]


def test_it_costs_energy_where_that_is_asked_for() -> None:
    graph, chip = sim.gemm(186, 439, 202, dtype="int16"), sim.load_hardware("eyeriss")
    here = asked(graph, chip, objective="energy")
    fast = map_einsums([asked(graph, chip)])[0].mappings[0]
    assert here.objective is Objective.ENERGY
    idle = here.machine.idle_j_per_cycle
    kept = cost_mapping(fast, here.problem, here.machine, here.homes)
    assert np.all(near(here, fast).values(Objective.ENERGY, idle) <= kept.values(Objective.ENERGY, idle) * (1 + 1e-12))
