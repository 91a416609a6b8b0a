"""A supply bears a clock by the V-f curve, or the design does not run: one chip, a sweep, a search."""

import numpy as np
import pytest

import sim
from sim.codesign.evaluate import evaluate, one_workload
from sim.codesign.scenario import Scenario
from sim.errors import ConfigError
from sim.hardware.designs import Designs
from sim.hardware.dump import to_document
from sim.hardware.load import from_document, list_hardware, load_hardware
from sim.hardware.supply import supply_problems, supply_share
from sim.hardware.technology import clock_share, voltage_share
from sim.workload.builders import gemm

VOLTAGE = "technology.voltage"


@pytest.mark.parametrize(
    ("voltage", "words"),
    [
        # 16 nm: nominal 0.8 V, at which the file's maximum of 1 GHz holds; 0.6 x 0.8 = 0.48 V; 1.3 x 0.8 = 1.04 V
        ("0.01 V", "0.01 V is below the 0.8 V that a clock of 1 GHz needs at 16 nm"),
        ("1000 V", "1000 V is above the 1.04 V that 16 nm stands"),
    ],
)
def test_a_supply_that_does_not_bear_the_clock_is_refused(voltage, words):
    with pytest.raises(ConfigError, match=words) as found:
        load_hardware("edge-npu", {VOLTAGE: voltage})
    assert f"{VOLTAGE}: " in str(found.value)
    assert "expected 0.8 to 1.04 V" in str(found.value)


def test_a_low_supply_names_the_clock_that_it_bears():
    """0.64 V is 0.8 of nominal: (0.45^1.3 / 0.8) / 0.65^1.3 = 0.775 of the maximum clock."""
    with pytest.raises(ConfigError, match=r"or a clock of at most 0\.775 GHz"):
        load_hardware("edge-npu", {VOLTAGE: "0.64 V"})
    chip = load_hardware("edge-npu", {VOLTAGE: "0.64 V", "clock": "774 MHz"})
    assert supply_share(Designs(chip))[0] == pytest.approx(0.8)
    with pytest.raises(ConfigError, match=r"none runs below 0\.48 V"):
        load_hardware("edge-npu", {"clock": "1 MHz", VOLTAGE: "0.4 V"})


def test_clock_and_supply_are_inverse():
    shares = np.linspace(0.6, 1.0, 41)
    assert voltage_share(clock_hz=clock_share(voltage_share=shares), max_clock_hz=1.0) == pytest.approx(shares)


def test_a_stated_supply_is_the_same_whatever_is_overridden_after_it():
    orders = [{VOLTAGE: "0.7 V", "clock": "500 MHz"}, {"clock": "500 MHz", VOLTAGE: "0.7 V"}]
    assert {load_hardware("edge-npu", order).technology.voltage_v for order in orders} == {0.7}


def test_the_fastest_unit_needs_its_supply():
    chip = load_hardware("jetson-orin").set("clock", "1 GHz")
    slow = chip.set("dla.clock", "800 MHz")
    lowest = float(voltage_share(clock_hz=1e9, max_clock_hz=1.6e9)) * 0.75
    voltage = f"{lowest + 0.001:.4f} V"
    assert supply_problems([chip.set(VOLTAGE, voltage), slow.set(VOLTAGE, voltage)]).keys() == {0}


def test_a_units_own_clock_raises_the_supply_as_the_chips_does():
    """One supply bears the fastest clock: `npu.clock` at 2 GHz costs what `clock` at 2 GHz costs, and not what
    half of it did."""
    whole, unit, behind = (
        load_hardware("systolic", clocks)
        for clocks in ({"clock": "2 GHz"}, {"npu.clock": "2 GHz"}, {"npu.clock": "2 GHz", "clock": "100 MHz"})
    )
    assert [supply_share(Designs(chip))[0] for chip in (whole, unit, behind)] == [1, 1, 1]
    dear, same, slow = (sim.estimate(gemm(128, 128, 128), chip) for chip in (whole, unit, behind))
    assert (same.latency_s, same.energy_j) == (dear.latency_s, dear.energy_j) == (slow.latency_s, slow.energy_j)


def test_a_stated_supply_moves_with_the_fastest_clock():
    """eyeriss states 1 V at 200 MHz, here its maximum: a unit at half of it leaves the supply, both lower it."""
    chip = load_hardware("eyeriss", {"technology.max_clock": "200 MHz"})
    unit = chip.main_unit.name
    assert chip.set(f"{unit}.clock", "100 MHz").technology.voltage_v == chip.technology.voltage_v
    both = chip.set(f"{unit}.clock", "100 MHz").set("clock", "100 MHz")
    assert both.technology.voltage_v == pytest.approx(chip.set("clock", "100 MHz").technology.voltage_v)


def test_without_a_maximum_clock_only_the_nominal_supply_is_known_to_do():
    document = to_document(load_hardware("edge-npu"))
    document["technology"] = {"node": "16 nm", "source": "estimated: as the class"}
    chip = from_document(document, where="here")
    assert not supply_problems([chip.set(VOLTAGE, "0.8 V")])
    assert "without technology.max_clock" in supply_problems([chip.set(VOLTAGE, "0.79 V")])[0]


@pytest.mark.parametrize("name", list_hardware())
def test_bundled_chips_run(name):
    assert not supply_problems([load_hardware(name)])


def test_the_node_moves_a_stated_supply_with_its_nominal_one():
    """Eyeriss states 1 V at 65 nm, whose nominal is 1 V; at 7 nm it is 0.75 V."""
    assert load_hardware("eyeriss", {"technology.node": "7 nm"}).technology.voltage_v == pytest.approx(0.75)


GRID = {VOLTAGE: ["0.01 V", "0.6 V", "0.8 V", "2 V"], "clock": ["500 MHz", "1 GHz"]}
"""500 MHz needs 0.489 V, 1 GHz 0.8 V."""
RUNS = [False, False, True, False, True, True, False, False]


def test_in_a_sweep_such_designs_are_infeasible_rows():
    chip, graph = load_hardware("edge-npu"), gemm(64, 64, 64)
    table = sim.sweep(graph, chip, GRID)
    assert table["infeasible"].tolist() == [not runs for runs in RUNS]
    assert np.isnan(table["energy_j"]).tolist() == [not runs for runs in RUNS]
    designs = Designs.grid(chip, GRID)
    for i, runs in enumerate(RUNS):
        alone = sim.estimate(graph, designs.row(i))
        assert (alone.infeasible is None) == runs
        if runs:
            assert (alone.latency_s, alone.energy_j) == (table["latency_s"][i], table["energy_j"][i])
        else:
            assert alone.infeasible["reason"] == table["reason"][i]
            assert VOLTAGE in table["reason"][i]


@pytest.mark.parametrize("always", [False, True])
def test_a_search_takes_none_of_them(always):
    designs = Designs.grid(load_hardware("edge-npu"), GRID)
    table = evaluate(one_workload(gemm(64, 64, 64), "int8"), designs, Scenario(objectives=("energy",)), always=always)
    assert not table.accepted[~np.array(RUNS)].any()
    assert table.accepted.any()
    assert all(VOLTAGE in str(text) for text in table.reason[~np.array(RUNS)])
