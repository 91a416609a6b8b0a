"""Overrides on one chip, and designs as columns and rows."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.analytical import estimate
from sim.errors import ConfigError, UnitError
from sim.hardware.chip import Dataflow
from sim.hardware.designs import Designs, read_path
from sim.hardware.dump import chip_hash, dump
from sim.hardware.fields import MOST
from sim.hardware.load import load_hardware, loads
from sim.hardware.physical import chip_area_mm2, idle_power_w, memory_energy_j_per_byte, peak_power_w
from sim.workload.builders import gemm
from sim.workload.graph import OperandRole

FSD = load_hardware("tesla-fsd-npu")
SYSTOLIC = load_hardware("systolic")
TEMPLATE_KEYS = {
    "array.rows": ("128", 128), "array.cols": (16, 16),
    "array.dataflow": ("output_stationary", Dataflow.OUTPUT_STATIONARY),
    "array.preload": ("hidden", "hidden"), "array.folds": ("pipelined", "pipelined"), "array.skew": ("none", "none"),
    "SRAM.capacity": ("8 MiB", 2**23), "SRAM.bandwidth": ("1 KiB/cycle", 1024.0), "DRAM.bandwidth": ("68 GB/s", 68e9),
    "DRAM.efficiency": (0.8, 0.8), "npu.launch": ("2 us", 2e-6), "npu.count": (2, 2), "simd.lanes": (128, 128),
    "simd.rates.exp": (0.5, 0.5), "array.macs_per_cycle.int4": (4, 4.0), "clock": ("1.5 GHz", 1.5e9),
}  # fmt: skip


@pytest.mark.parametrize("path", TEMPLATE_KEYS)
def test_template_keys_can_be_set(path):
    given_, expected = TEMPLATE_KEYS[path]
    chip = SYSTOLIC.set(path, given_)
    found = read_path(chip, path)
    assert found in (expected, getattr(expected, "value", expected)) or expected in (found.per_s, found.per_cycle)
    assert chip.overrides == {path: str(given_)}
    assert loads(dump(chip)) == chip
    assert SYSTOLIC.overrides == {}


def test_units_follow_the_clock_unless_they_have_their_own():
    whole = load_hardware("tesla-fsd").set("clock", "1 GHz")
    assert [unit.clock_hz for unit in whole.units] == [1e9, 2.2e9, 1e9]  # NPU follows; CPU and GPU state theirs
    slower = whole.set("gpu.clock", "500 MHz").set("clock", "1.5 GHz")
    assert [unit.clock_hz for unit in slower.units] == [1.5e9, 2.2e9, 0.5e9]


BAD = [
    ("SRM.capacity", "1 MiB", ['"SRM" is no component of tesla-fsd-npu', 'Did you mean "SRAM"?']),
    ("SRAM.capcity", "1 MiB", ['"capcity" is no field of SRAM', 'Did you mean "capacity"?']),
    ("SRAM", "1 MiB", ["SRAM is a component: expected one of its fields", "SRAM.capacity"]),
    ("SRAM.capacity.x", "1 MiB", ["SRAM.capacity is one value and has no x: set SRAM.capacity"]),
    ("array.rows.x", 3, ["array.rows is one value and has no x"]),
    ("technology.node.x", "7 nm", ["technology.node is one value and has no x"]),
    ("DRAM.kind.a", "hbm", ["DRAM.kind is one value and has no a"]),
    ("npu.launch.a", "1 us", ["npu.launch is one value and has no a"]),
    ("array.rows", 10**30, ["array.rows", "more than any chip has: expected a whole number from 1 to 1,000,000,000"]),
    ("array.rows", "1e400", ["array.rows", "not a finite number"]),
    ("SRAM.bandwidth", "1 TB/s", ["set SRAM.read_bandwidth and SRAM.write_bandwidth"]),
    ("DRAM.read_bandwidth", "1 TB/s", ["set DRAM.bandwidth"]),
    ("SRAM.capacity", "1 GB/s", ['"1 GB/s" is a rate, expected a size']),
    ("SRAM.capacity", 1024, ["1024 has no unit"]),
    ("clock", "3 GHz", ["3 GHz is above technology.max_clock, 2 GHz"]),
    ("npu.clock", "3 GHz", ["3 GHz is above technology.max_clock, 2 GHz"]),
    ("array.dataflow", "output", ['Did you mean "output_stationary"?']),
    ("technology.area", "1 mm2", ['"area" is no field of technology that can be set']),
    ("technology.node", "11 nm", ["outside the scaling table", "10 and 12 nm"]),
    ("npu.name", "x", ['"name" is no field']),
]  # fmt: skip


@pytest.mark.parametrize(("path", "quantity", "parts"), BAD)
def test_bad_overrides_say_where_what_and_how(path, quantity, parts):
    with pytest.raises((ConfigError, UnitError)) as caught:
        FSD.set(path, quantity)
    for part in (f"tesla-fsd-npu: {path}={quantity}", *parts):
        assert part in str(caught.value)


def test_a_path_is_text():
    with pytest.raises(ConfigError, match=r"tesla-fsd-npu: expected the path of an override, .* got 3"):
        FSD.set(3, "1 MiB")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("path", ["array.rows", "array.cols", "npu.count", "simd.lanes"])
def test_the_largest_count_can_be_computed_with(path):
    chip = load_hardware("systolic", {path: MOST})
    found = estimate(gemm(64, 64, 64), chip)
    assert np.isfinite(found.latency_s)
    assert 0 < found.mac_utilization <= 1


def test_hash_is_of_the_machine_and_not_of_its_words():

    assert chip_hash(SYSTOLIC.set("array.rows", 64)) == chip_hash(SYSTOLIC)
    assert chip_hash(SYSTOLIC.set("array.rows", 65)) != chip_hash(SYSTOLIC)


GRID = {"array.rows": [16, 32], "SRAM.capacity": ["1 MiB", "2 MiB", "3 MiB"],
        "DRAM.bandwidth": ["10 GB/s", "16 B/cycle"],
        "clock": ["1 GHz", "1.7 GHz"]}  # fmt: skip
COLUMNS = ["array.rows", "array.cols", "SRAM.capacity", "SRAM.bandwidth", "DRAM.bandwidth", "clock", "npu.clock",
           "simd.lanes", "npu.launch", "array.macs_per_cycle.int8", "technology.node", "DRAM.efficiency"]  # fmt: skip


def test_grid_runs_in_product_order():
    designs = Designs.grid(SYSTOLIC, GRID)
    assert len(designs) == 24
    for i, values in enumerate(product(*GRID.values())):
        chip = SYSTOLIC
        for path, value in zip(GRID, values, strict=True):
            chip = chip.set(path, value)
        assert designs.row(i) == chip


@pytest.mark.parametrize("path", COLUMNS)
def test_columns_are_the_rows_bit_for_bit(path):
    designs = Designs.grid(SYSTOLIC, GRID)
    column = designs.column(path)
    assert column.shape == (24,)
    for i in range(24):
        assert column[i] == Designs(designs.row(i)).column(path)[0]


def test_rates_per_cycle_are_those_of_the_contract():
    designs = Designs.grid(SYSTOLIC, GRID)
    per_cycle = designs.bytes_per_cycle("DRAM.bandwidth", unit="npu")
    for i in range(24):
        chip = designs.row(i)
        assert per_cycle[i] == chip.memory("DRAM").read.at(chip.main_unit.clock_hz)


ANY = st.fixed_dictionaries(
    {},
    optional={
        "array.rows": st.lists(st.integers(1, 300), min_size=1, max_size=3),
        "SRAM.capacity": st.lists(st.integers(1, 64).map("{} MiB".format), min_size=1, max_size=3),
        "SRAM.write_bandwidth": st.lists(st.integers(1, 999).map("{} B/cycle".format), min_size=1, max_size=2),
        "clock": st.lists(st.integers(100, 2000).map("{} MHz".format), min_size=1, max_size=3),
        "technology.node": st.lists(st.sampled_from(["7 nm", "14 nm", "28 nm"]), min_size=1, max_size=2),
    },
)


@settings(max_examples=10, deadline=None)
@given(ANY)
def test_physics_of_designs_is_that_of_their_rows_bit_for_bit(values):
    designs = Designs.grid(FSD, values)
    for model in (chip_area_mm2, peak_power_w, idle_power_w):
        column = model(designs)
        for i in range(len(designs)):
            assert column[i] == model(designs.row(i))
    energies = memory_energy_j_per_byte(designs, "SRAM", "read")
    assert [memory_energy_j_per_byte(designs.row(i), "SRAM", "read") for i in range(len(designs))] == list(energies)


def test_numpy_values_and_endless_quantities():
    chip = SYSTOLIC.set("array.rows", np.int64(128))
    assert chip == SYSTOLIC.set("array.rows", 128)
    endless = SYSTOLIC.set("SRAM.capacity", "inf B").set("DRAM.bandwidth", "inf GB/s")
    assert (endless.main_unit.memories[0].capacity_bytes, endless.memory("DRAM").read.per_s) == (np.inf, np.inf)
    assert chip_area_mm2(endless) == np.inf
    assert memory_energy_j_per_byte(endless, "SRAM", "read") is None


def test_points_instead_of_a_grid():
    designs = Designs.rows(SYSTOLIC, {"array.rows": [8, 16, 8], "array.cols": [1, 2, 3]})
    assert list(designs.column("array.rows")) == [8, 16, 8]
    assert designs.row(2) == SYSTOLIC.set("array.rows", 8).set("array.cols", 3)
    with pytest.raises(ConfigError, match="equally long"):
        Designs.rows(SYSTOLIC, {"array.rows": [8, 16], "array.cols": [1]})


def test_bad_grids_are_refused_at_once():
    with pytest.raises(ConfigError, match="no values"):
        Designs.grid(SYSTOLIC, {"array.rows": []})
    with pytest.raises(ConfigError, match="has no unit"):
        Designs.grid(SYSTOLIC, {"SRAM.capacity": ["1 MiB", 5]})
    with pytest.raises(ConfigError, match="is no component"):
        Designs.grid(SYSTOLIC, {}).column("SRM.capacity")


def test_numbers_that_are_not_stated_are_nan():
    assert np.isnan(Designs(SYSTOLIC).column("SRAM.read_energy")).all()
    assert np.isnan(Designs(SYSTOLIC).column("technology.area")).all()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("DRAM.latency=inf s", '"inf s" has no end, expected a time'),
        ("clock=inf GHz", '"inf GHz" has no end, expected a frequency'),
        ("npu.launch=inf us", '"inf us" has no end, expected a time'),
        ("SRAM.read_energy=inf pJ/bit", "has no end, expected an energy per byte"),
        ("DRAM.burst=inf B", "must be a whole number of bytes"),
    ],
)
def test_quantities_that_must_be_finite(override: str, said: str):
    path, _, quantity = override.partition("=")
    with pytest.raises(ConfigError, match=said):
        SYSTOLIC.set(path, quantity)


@pytest.mark.parametrize(
    ("chip", "path", "width", "words"),
    [
        ("edge-npu", "array.accumulate", "3 bit", "3 bit, narrower than the 8 bit of int8 .* expected 8 bit at least"),
        ("eyeriss", "array.accumulate", "15 bit", "expected 16 bit at least"),
        ("h100-sxm", "tensor_core.accumulate", "15 bit", "expected 16 bit at least"),
        ("epyc-zen4", "fma.accumulate", "31 bit", "expected 32 bit at least"),
    ],
)
def test_an_accumulator_is_as_wide_as_the_factors_in_its_cell(chip, path, width, words):
    """int8 (int16 takes four cells, int4 half of one); int16; bf16 (tf32 takes two cells); fp32 (fp64 takes two)."""
    with pytest.raises(ConfigError, match=words):
        load_hardware(chip, {path: width})
    assert load_hardware(chip, {path: f"{int(width.split()[0]) + 5} bit"})


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("SRAM.holds", "weight", r"holds is a list, which --set cannot give: a chip file .* `extends: systolic`"),
        ("SRAM.holds", "[weight]", "holds is a list"),
        ("array.weight_sparsity", "2:4", r"has a value by key.*--set array\.weight_sparsity\.2:4=VALUE"),
        ("array.macs_per_cycle", "2", r"--set array\.macs_per_cycle\.int8=VALUE"),
    ],
)
def test_lists_and_maps_are_not_one_value(path, value, words):
    """What --set cannot give is told with what to do; Python gives a list as one."""
    with pytest.raises(ConfigError, match=words):
        SYSTOLIC.set(path, value)
    assert OperandRole.WEIGHT not in SYSTOLIC.set("SRAM.holds", ["input", "output"]).component("SRAM").holds


@pytest.mark.parametrize(("pattern", "most"), [("2:4", 2), ("1:4", 4), ("3:4", 4 / 3)])
def test_a_pattern_saves_no_more_than_what_it_leaves_out(pattern, most):
    """N of M products remain, so a reduction is M / N times as short at best."""
    path = f"array.weight_sparsity.{pattern}"
    assert SYSTOLIC.set(path, most).main_unit.array.weight_sparsity[pattern] == most
    kept, of = pattern.split(":")
    words = rf"weight_sparsity\.{pattern} is 1000, but {kept} of {of} weights .* expected {most:g} at most"
    with pytest.raises(ConfigError, match=words):
        SYSTOLIC.set(path, 1000)


def test_a_file_that_extends_another_changes_what_its_numbers_hold_for(tmp_path):
    """As `--set` does: Eyeriss at 28 nm, at 100 MHz or with half the buffer has other energies, another supply and
    other power, in a file that extends such a file too. What a file states itself stays."""
    changes = {
        'technology: {node: 28 nm, source: "estimated: x"}': {"technology.node": "28 nm"},
        'clock: 100 MHz\nsource: "estimated: x"': {"clock": "100 MHz"},
        "units: [{name: core, hierarchy: [{memory: {name: GLB, capacity: 54 kB, source: 'estimated: x'}}]}]": {
            "GLB.capacity": "54 kB"
        },
    }
    child, grandchild = tmp_path / "child.yaml", tmp_path / "grandchild.yaml"
    grandchild.write_text("schema: dovetail.chip/1\nextends: child.yaml\nname: grandchild\n")
    for text, overrides in changes.items():
        child.write_text(f"schema: dovetail.chip/1\nextends: eyeriss\nname: child\n{text}\n")
        changed = load_hardware("eyeriss", overrides)
        for path in (child, grandchild):
            chip = load_hardware(path)
            assert (chip.memories, chip.units) == (changed.memories, changed.units)
            assert chip.technology.voltage_v == changed.technology.voltage_v
            assert peak_power_w(chip) == pytest.approx(peak_power_w(changed), rel=1e-12)

    array = "{name: array, mac_energy: {int16: 1.42 pJ}, source: 'estimated: x'}"
    stated = f"vector: {{energy: {{add: 1 pJ}}, source: 'estimated: x'}}, hierarchy: [{{array: {array}}}]"
    node = 'technology: {node: 28 nm, voltage: 1 V, source: "estimated: x"}'
    child.write_text(
        f"schema: dovetail.chip/1\nextends: eyeriss\nname: child\n{node}\nunits: [{{name: core, {stated}}}]\n"
    )
    chip = load_hardware(child)
    assert (chip.technology.voltage_v, chip.main_unit.array.mac_energy_j["int16"]) == (1.0, 1.42e-12)
    assert chip.main_unit.vector.energy_j["add"] == 1e-12


@pytest.mark.parametrize(
    ("chip", "changes"),
    [
        ("h100-sxm-x8", {"system.pipeline": 3, "system.chips": 6}),  # neither stands on eight chips in four stages
        ("h100-sxm-x8", {"system.pipeline": 16, "system.chips": 16, "system.ports": 16}),
        ("tesla-fsd-npu", {"clock": "2.8 GHz", "technology.max_clock": "3 GHz"}),
        ("tesla-fsd-npu", {"SRAM.read_energy": "1 pJ/B", "SRAM.capacity": "8 MiB", "technology.node": "7 nm"}),
        ("eyeriss", {"clock": "100 MHz", "technology.max_clock": "375 MHz"}),  # it states its supply
    ],
)
def test_the_order_of_overrides_does_not_matter(chip, changes):
    base = sim.load_hardware(chip)
    if "system.pipeline" in changes:
        base = base.set("system.pipeline", 4)
    made = [base.set_all(dict(some)) for some in permutations(changes.items())]
    assert len({chip_hash(one) for one in made}) == 1


def test_an_energy_that_is_set_holds_for_the_chip_in_the_end():
    """1 pJ a byte are meant of the memory of 8 MiB, not of one of another size."""
    chip = sim.load_hardware("tesla-fsd-npu").set_all({"SRAM.read_energy": "1 pJ/B", "SRAM.capacity": "8 MiB"})
    assert read_path(chip, "SRAM.read_energy") == 1e-12


def test_a_row_has_the_supply_of_its_clock_and_fastest_clock():
    chip, grid = sim.load_hardware("eyeriss"), {"clock": ["100 MHz"], "technology.max_clock": ["250 MHz", "375 MHz"]}
    table = sim.sweep("gemm", chip, grid)
    for row in table.rows():
        alone = sim.estimate(sim.load_workload("gemm"), chip.set_all({path: row[path] for path in grid}))
        assert (row["latency_s"], row["energy_j"]) == (alone.latency_s, alone.energy_j)


def test_a_value_may_stand_with_that_of_another_path_alone():
    chip = sim.load_hardware("h100-sxm-x8")
    grid = {"system.pipeline": [1, 16], "system.chips": [8, 16], "system.ports": [8, 16]}
    table = sim.sweep("gemm", chip, grid)
    right = {tuple(row[path] for path in grid): not row["infeasible"] for row in table.rows()}
    assert right[1, 16, 16]
    assert not right[1, 16, 8]
    assert not right[16, 8, 16]
    alone = sim.estimate(sim.load_workload("gemm"), chip.set_all({"system.chips": 16, "system.ports": 16}))
    row = next(row for row in table.rows() if [row[path] for path in grid] == [1, 16, 16])
    assert (row["latency_s"], row["energy_j"], row["area_mm2"]) == (alone.latency_s, alone.energy_j, alone.area_mm2)
    with pytest.raises(ConfigError, match=r"system\.pipeline=7: .* expected one of 1, 2, 4, 8"):
        sim.sweep("gemm", chip, {"system.pipeline": [1, 7], "system.chips": [8, 16], "system.ports": [8, 16]})


def test_a_larger_chip_that_extends_another_leaks_more(tmp_path):
    """TPU v1 states its area and its idle power: with four times the buffer, in a file as by `--set`, it idles at more,
    of which the leakage of what was added is the reason."""
    file, memory = tmp_path / "larger.yaml", "{name: UB, capacity: 96 MiB, source: 'estimated: x'}"
    units = f"units: [{{name: tpu, hierarchy: [{{memory: {memory}}}]}}]"
    file.write_text(f"schema: dovetail.chip/1\nextends: tpu-v1\nname: larger\n{units}\n")
    base, chip = load_hardware("tpu-v1"), load_hardware(file)
    changed = load_hardware("tpu-v1", {"UB.capacity": "96 MiB"})
    assert chip_area_mm2(chip) == pytest.approx(chip_area_mm2(changed), rel=1e-12)
    assert idle_power_w(chip) == pytest.approx(idle_power_w(changed), rel=1e-12)
    assert idle_power_w(chip) > idle_power_w(base) == base.technology.idle_power_w
