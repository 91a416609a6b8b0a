"""Technology: table values by hand, textbook formulas, and physical monotonicity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import ConfigError
from sim.hardware import technology as tech
from sim.hardware import technology_data as data

NODES = st.sampled_from(data.NODES_NM)


def test_energies_at_the_table_nodes():
    """Horowitz at 45 nm: int8 0.2 + 0.1, fp16 with fp32 sums 1.1 + 0.9, fp32 3.7 + 0.9 pJ; TPU v4i at 7 nm:
    int8 0.07 + 0.03, bf16 0.21 + 0.38 pJ."""
    for node, dtype, picojoule in (
        (45, "int8", 0.3), (45, "fp16", 2.0), (45, "fp32", 4.6), (7, "int8", 0.10), (7, "bf16", 0.59),
    ):  # fmt: skip
        assert tech.mac_energy_j(dtype=dtype, node_nm=node) == pytest.approx(picojoule * 1e-12, rel=1e-9)


def test_integer_products_go_with_the_widths():
    """int4 at 45 nm: 0.2 / 4 + 0.1; w4a8 0.2 / 2 + 0.1; the rule puts int32 at 16 x 0.2 = 3.2 against
    3.1 measured. w4a16 multiplies in bf16."""
    assert tech.mac_energy_j(dtype="int4", node_nm=45) == pytest.approx(0.15e-12)
    assert tech.mac_energy_j(dtype="w4a8", node_nm=45) == pytest.approx(0.2e-12)
    assert tech.mac_energy_j(dtype="int32", node_nm=45) == pytest.approx(3.3e-12)
    assert tech.mac_energy_j(dtype="w4a16", node_nm=7) == tech.mac_energy_j(dtype="bf16", node_nm=7)


def test_sram_energy_of_published_sizes():
    """64-bit reads. 45 nm: 10, 20, 100 pJ at 8 KiB, 32 KiB, 1 MiB (the square root is within 13 %); 7 nm:
    7.5, 8.5, 14 pJ (within 6 %)."""
    kib = np.array([8, 32, 1024]) * 1024
    at45 = tech.sram_energy_j_per_byte(capacity_bytes=kib, node_nm=45) * 8e12
    at7 = tech.sram_energy_j_per_byte(capacity_bytes=kib, node_nm=7) * 8e12
    assert at45 == pytest.approx([10, 20, 100], rel=0.135)
    assert at7 == pytest.approx([7.5, 8.5, 14], rel=0.06)


def test_dram_energy():
    """HBM2 3.9 pJ/bit = 31.2 pJ/B (O'Connor 2017); DDR3 64 bits in 1300 pJ = 162.5 pJ/B."""
    assert tech.dram_energy_j_per_byte(kind="hbm2") == pytest.approx(31.2e-12)
    assert tech.dram_energy_j_per_byte(kind="ddr3") == pytest.approx(162.5e-12, rel=0.001)
    with pytest.raises(ConfigError, match='"ddr9"'):
        tech.dram_energy_j_per_byte(kind="ddr9")


def test_newer_dram_needs_what_its_maker_claims_over_the_kind_before():
    """LPDDR5X a fifth less than LPDDR5; HBM4 1.4 times the bits for a joule of HBM3E, GDDR7 1.5 times those of
    GDDR6, within rounding."""
    assert tech.dram_energy_j_per_byte(kind="lpddr5x") == pytest.approx(
        0.8 * tech.dram_energy_j_per_byte(kind="lpddr5")
    )
    assert tech.dram_energy_j_per_byte(kind="hbm4") == pytest.approx(
        tech.dram_energy_j_per_byte(kind="hbm3e") / 1.4, rel=0.03
    )
    gddr = [tech.dram_energy_j_per_byte(kind=kind) for kind in ("gddr6", "gddr7")]
    assert gddr[0] / gddr[1] == pytest.approx(1.5, rel=0.02)


def test_areas_by_hand():
    """An int8 MAC at 45 nm is 282 + 137 = 419 um2; at 14 nm 0.17 of it. 1 MiB at 7 nm without ports is
    8388608 x 0.027 um2 / 0.4 = 0.566 mm2; 16 B/cycle at 45 nm add 128 x 105 um2."""
    assert tech.mac_area_mm2(dtype="int8", node_nm=45) == pytest.approx(419e-6)
    assert tech.mac_area_mm2(dtype="int8", node_nm=14) == pytest.approx(419e-6 * 0.17)
    area = tech.sram_area_mm2(capacity_bytes=2**20, bytes_per_cycle=0, node_nm=7)
    assert area == pytest.approx(8388608 * 0.027e-6 / 0.4)
    ports = tech.sram_area_mm2(capacity_bytes=0, bytes_per_cycle=16, node_nm=45)
    assert ports == pytest.approx(128 * 105e-6)


def test_stillmaker_area_factors_are_the_published_row():
    published = {65: 1.5, 45: 1, 32: 0.46, 20: 0.21, 16: 0.19, 14: 0.17, 10: 0.10, 7: 0.059}
    assert {node: data.LOGIC_AREA[node] for node in published} == published


def test_yield_models_by_hand():
    """100 mm2 at 0.5 defects per cm2: x = 0.5. Poisson e^-0.5 = 0.6065; Murphy ((1 - 0.6065) / 0.5)^2 =
    0.6193; negative binomial with alpha 2: 1.25^-2 = 0.64."""
    at = {"area_mm2": 100.0, "defects_per_cm2": 0.5}
    assert tech.die_yield(model="poisson", **at) == pytest.approx(0.60653, abs=1e-5)
    assert tech.die_yield(model="murphy", **at) == pytest.approx(0.61927, abs=1e-5)
    assert tech.die_yield(model="negative_binomial", alpha=2.0, **at) == pytest.approx(0.64)
    with pytest.raises(ConfigError, match="yield model"):
        tech.die_yield(model="seeds", **at)


def test_die_cost_by_hand():
    """100 mm2 at 7 nm: pi 150^2 / 100 - pi 300 / sqrt(200) = 706.86 - 66.64 = 640.2 dies; yield (1 + 0.1/3)^-3
    = 0.9063; 9346 / (640.2 x 0.9063) = 16.11 USD. Above 858 mm2 there is no single die."""
    assert tech.dies_per_wafer(area_mm2=100.0) == pytest.approx(640.22, abs=0.01)
    assert tech.die_cost_usd(area_mm2=100.0, node_nm=7) == pytest.approx(16.11, abs=0.01)
    assert np.isinf(tech.die_cost_usd(area_mm2=900.0, node_nm=7))


def test_voltage_is_nominal_at_the_maximum_clock_and_has_a_floor():
    """Alpha-power law at 0.8 of nominal: (0.45^1.3 / 0.8) / 0.65^1.3 = 0.775 of the maximum clock."""
    assert tech.voltage_share(clock_hz=2e9, max_clock_hz=2e9) == 1
    assert tech.voltage_share(clock_hz=1.0, max_clock_hz=2e9) == data.FLOOR_SHARE
    speed = (0.45 / 0.65) ** 1.3 / 0.8
    assert tech.voltage_share(clock_hz=speed * 2e9, max_clock_hz=2e9) == pytest.approx(0.8, abs=1e-5)


@given(NODES, st.floats(1, 1e9), st.floats(1.001, 10), st.sampled_from(["int4", "int8", "bf16", "fp32", "w4a8"]))
def test_more_costs_more(node, capacity, factor, dtype):
    more = capacity * factor
    energy = tech.sram_energy_j_per_byte(capacity_bytes=[capacity, more], node_nm=node)
    area = tech.sram_area_mm2(capacity_bytes=[capacity, more], bytes_per_cycle=8, node_nm=node)
    width = tech.sram_area_mm2(capacity_bytes=capacity, bytes_per_cycle=[8, 8 * factor], node_nm=node)
    cost = tech.die_cost_usd(area_mm2=[50.0, 50.0 * min(factor, 9.0)], node_nm=node)
    for low, high in (energy, area, width, cost):
        assert low < high
    assert tech.leakage_w(area_mm2=more, node_nm=node) > tech.leakage_w(area_mm2=capacity, node_nm=node)
    assert tech.mac_energy_j(dtype=dtype, node_nm=node) > 0


@given(st.sampled_from(["int8", "fp16", "bf16", "fp32"]), st.floats(0.6, 0.99))
def test_newer_nodes_and_lower_supplies_need_less_energy(dtype, share):
    energies = tech.mac_energy_j(dtype=dtype, node_nm=data.NODES_NM)
    assert (np.diff(energies) < 0).all()
    assert tech.mac_energy_j(dtype=dtype, node_nm=7, voltage_share=share) == pytest.approx(
        tech.mac_energy_j(dtype=dtype, node_nm=7) * share**2
    )


def test_a_node_outside_the_table_names_the_nearest():
    with pytest.raises(ConfigError, match=r"9 nm is outside the scaling table.*nearest are 8 and 10 nm"):
        tech.mac_energy_j(dtype="int8", node_nm=[7, 9])


def test_every_table_covers_every_node():
    for table in (data.LOGIC_AREA, data.BITCELL_UM2, data.NOMINAL_VOLTAGE_V, data.LEAKAGE_W_PER_MM2, data.WAFER_USD):
        assert set(table) == set(data.NODES_NM)
