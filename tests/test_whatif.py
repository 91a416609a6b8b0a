"""What-ifs: none is missing without a word, and each is the estimate of the changed chip."""

import pytest

import sim
from sim.whatif import FACTORS, _scaled, resources

GRAPH = sim.gemm(96, 128, 64, dtype="int8")
KINDS = ("edge-npu", "tesla-fsd-npu", "a100-sxm", "xeon-icx")
"""A generic NPU, the FSD chip's, a GPU, a CPU."""


@pytest.mark.parametrize("name", KINDS)
def test_every_resource_is_tried_and_is_true(name):
    chip = sim.load_hardware(name)
    found = sim.estimate(GRAPH, chip, what_if=True)
    answers = {(w.resource, w.factor): w.latency_s for w in found.what_if}
    assert [w.latency_s for w in found.what_if] == sorted(answers.values())
    tried = {path: (value, unit) for path, value, unit in resources(chip)}
    kinds = {"clock"} | {f"{m.name}.capacity" for m in chip.main_unit.memories}
    assert kinds | {f"{chip.main_unit.vector.name}.lanes"} <= tried.keys()
    assert any(path.startswith(chip.main_unit.home) and "bandwidth" in path for path in tried)
    for path, (value, unit) in tried.items():
        for factor in FACTORS:
            if (path, factor) not in answers:
                assert any(note.startswith(f"what if: {path} x ") for note in found.notes)
                continue
            changed = sim.load_hardware(name, {path: _scaled(value, unit, factor)})
            assert answers.pop((path, factor)) == sim.estimate(GRAPH, changed).latency_s
    for resource, _ in answers:
        precision = resource.removeprefix("precision ")
        assert answers[resource, 1.0] == sim.estimate(GRAPH, chip, precision=precision).latency_s
    assert len(answers) == len(chip.main_unit.array.macs_per_cycle) - 1


def test_a_type_that_no_network_is_asked_for_in_is_no_answer():
    """`--precision fp64` there is not, whatever rate the file states: no note says that the network does not run."""
    chip = sim.load_hardware("epyc-zen4")
    assert "fp64" in chip.main_unit.array.macs_per_cycle
    found = sim.estimate(GRAPH, chip, what_if=True)
    assert {w.resource for w in found.what_if if w.factor == 1} == {"precision bf16", "precision int8"}
    assert not [note for note in found.notes if note.startswith("what if: precision")]


def test_a_clock_above_the_highest_is_said():
    found = sim.estimate(GRAPH, sim.load_hardware("edge-npu"), what_if=True)
    (note,) = [note for note in found.notes if note.startswith("what if")]
    assert note.startswith("what if: clock x 1.25 is left out: 1.25 GHz is above technology.max_clock, 1 GHz")


def test_it_does_not_matter_how_many_processes_ask():
    graph, chip = sim.load_workload("digits_cnn"), sim.load_hardware("tesla-fsd-npu")
    alone, beside = (sim.estimate(graph, chip, what_if=True, processes=n) for n in (1, 3))
    assert alone == beside


def test_precisions_wider_than_the_chips_own_are_searched_where_the_first_mapping_no_longer_fits() -> None:
    """16-bit tiles need twice the room: on NVDLA some int8 mappings of ResNet-18 leave too little of it.

    NVDLA has several memory borders, over which a limited number of mappings is looked at: each of two searches may
    find what the other does not, within the 0.1 % that a result without a note promises."""
    found = sim.estimate(sim.load_workload("resnet18"), sim.load_hardware("nvdla-full"), what_if=True)
    answers = {w.resource: w.latency_s for w in found.what_if if w.factor == 1.0}
    assert set(answers) == {"precision int16", "precision fp16"}
    alone = sim.estimate(sim.load_workload("resnet18"), sim.load_hardware("nvdla-full"), precision="fp16").latency_s
    assert alone * (1 - 1e-3) <= answers["precision fp16"] <= 1.1 * alone  # some mappings may be kept


@pytest.mark.parametrize("name", ["h100-sxm", "tesla-dojo-d1"])
def test_every_type_that_an_array_states_is_a_precision(name: str) -> None:
    found = sim.estimate(sim.gemm(96, 128, 64, dtype="bf16"), sim.load_hardware(name), what_if=True)
    assert any(w.resource == "precision fp8_e5m2" for w in found.what_if)
    assert not any("precision" in note for note in found.notes)


def test_more_cores_of_a_cpu_come_with_their_lanes() -> None:
    """The file states the lanes of all cores: twice the cores alone are slower, for each has half of them. That is no
    answer to "more cores", and a note says which two fields are; with them the network is faster."""
    graph, chip = sim.load_workload("resnet18"), sim.load_hardware("xeon-spr")
    found = sim.estimate(graph, chip, what_if=True)
    assert not [w for w in found.what_if if w.resource == "core.count"]
    both = {"core.count": 112, "simd.lanes": 2 * chip.main_unit.vector.lanes}
    (note,) = [note for note in found.notes if note.startswith("what if: core.count x ")]
    assert note.endswith(" and ".join(f"{path}={value}" for path, value in both.items()))
    alone, together = (
        sim.estimate(graph, sim.load_hardware("xeon-spr", changes)) for changes in ({"core.count": 112}, both)
    )
    assert together.latency_s < found.latency_s < alone.latency_s
