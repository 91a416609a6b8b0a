"""Area, power and energy of chips: law 9 on every bundled chip, sums, stated points, published floor plans."""

import pytest

import sim
from sim.hardware.chip import Rate
from sim.hardware.designs import read_path
from sim.hardware.dump import rate_text, to_document
from sim.hardware.load import from_document, list_hardware, load_hardware
from sim.hardware.physical import (
    area_breakdown_mm2,
    area_parts_mm2,
    chip_area_mm2,
    idle_power_w,
    link_energy_j_per_byte,
    mac_energy_j,
    memory_energy_j_per_byte,
    peak_power_parts_w,
    peak_power_w,
    power_breakdown_w,
    resource_paths,
    vector_energy_j,
)
from sim.units import Dimension, format_exact

WITH_NODE = [name for name in list_hardware() if load_hardware(name).technology.node_nm is not None]


def _doubled(chip, path):
    """(before, after) with the resource doubled; the clock and the gain of a pattern from half, since files stand at
    their maximum, which is M / N of a pattern N:M."""
    value = read_path(chip, path)
    if ".weight_sparsity." in path:
        before = chip.set(path, value / 2)
        return before, before.set(path, value)
    if path == "clock":
        before = chip.set(path, format_exact(value / 2, Dimension.FREQUENCY))
        return before, before.set(path, format_exact(value, Dimension.FREQUENCY))
    if path.endswith(".macs_per_cycle.fp64"):  # cells that hold whole factors need sums as wide
        chip = chip.set(f"{path.partition('.')[0]}.accumulate", "64 bit")
    if isinstance(value, Rate):
        twice = Rate(per_s=value.per_s and 2 * value.per_s, per_cycle=value.per_cycle and 2 * value.per_cycle)
        return chip, chip.set(path, rate_text(twice))
    if path.endswith((".capacity", ".sparse_pass")):
        return chip, chip.set(path, format_exact(2 * value, Dimension.SIZE))
    if path.endswith(".drain_bandwidth"):
        return chip, chip.set(path, format_exact(2 * value, Dimension.CYCLE_RATE))
    return chip, chip.set(path, 2 * value)


@pytest.mark.parametrize("name", WITH_NODE)
def test_doubling_any_resource_costs_area_or_power(name):
    chip = load_hardware(name)
    for path in resource_paths(chip):
        before, after = _doubled(chip, path)
        area = chip_area_mm2(after) / chip_area_mm2(before)
        power = peak_power_w(after) / peak_power_w(before)
        assert max(area, power) > 1 + 1e-9, path
        assert power > 1 - 1e-9, path
        assert area > 1 - 1e-9 or path == "clock", path


def test_a_faster_clock_at_the_same_work_costs_energy():
    """Supply follows the clock, so energy per MAC and per byte rise with it."""
    slow, fast = (load_hardware("tesla-fsd-npu").set("clock", clock) for clock in ("1.5 GHz", "2 GHz"))
    assert mac_energy_j(slow, "array", "int8") < mac_energy_j(fast, "array", "int8")
    assert memory_energy_j_per_byte(slow, "SRAM", "read") < memory_energy_j_per_byte(fast, "SRAM", "read")


@pytest.mark.parametrize("name", WITH_NODE)
def test_breakdowns_sum_to_the_modelled_total(name):
    """A file's stated area and power hold for the file; without them the total is the sum of its parts."""
    document = to_document(load_hardware(name))
    for field in ("area", "power", "idle_power"):
        document["technology"].pop(field, None)
        document["technology"]["source"].pop(field, None)
    chip = from_document(document, where=name)
    assert chip_area_mm2(chip) == pytest.approx(sum(area_breakdown_mm2(chip).values()), rel=1e-12)
    power = power_breakdown_w(chip)
    assert peak_power_w(chip) == pytest.approx(sum(power.values()), rel=1e-12)
    assert 0 < idle_power_w(chip) < peak_power_w(chip)
    assert power["leakage"] <= idle_power_w(chip)


@pytest.mark.parametrize("name", WITH_NODE)
def test_parts_sum_to_the_stated_or_modelled_total(name):
    """Also of a design that an override made: what the file stated becomes a factor of all parts."""
    chip = load_hardware(name)
    clock = format_exact(chip.clock_hz / 2, Dimension.FREQUENCY)
    for one in (chip, chip.set("clock", clock)):
        for parts, total in ((area_parts_mm2, chip_area_mm2), (peak_power_parts_w, peak_power_w)):
            found = parts(one)
            assert sum(found.values()) == pytest.approx(total(one), rel=1e-12)
            assert all(value > 0 for value in found.values())
    shares = {k: v / area_parts_mm2(chip)["control"] for k, v in area_parts_mm2(chip).items()}
    model = area_breakdown_mm2(chip)
    assert shares == pytest.approx({k: v / model["control"] for k, v in model.items() if v})


def test_stated_points_hold_for_the_file_and_scale_for_overrides():
    """The FSD chip states 260 mm2: the file has just that, setting a number to what it is changes nothing,
    and twice the NPUs' SRAM adds the model's share of SRAM."""
    chip = load_hardware("tesla-fsd")
    parts = area_breakdown_mm2(chip)
    assert chip_area_mm2(chip) == 260
    assert chip_area_mm2(chip.set("SRAM.capacity", "32 MiB")) == pytest.approx(260, rel=1e-12)
    wide = chip.set("SRAM.capacity", "64 MiB")
    grown = sum(area_breakdown_mm2(wide).values()) / sum(parts.values())
    assert chip_area_mm2(wide) == pytest.approx(260 * grown, rel=1e-12)
    back = wide.set("SRAM.capacity", "32 MiB")
    assert chip_area_mm2(back) == pytest.approx(260, rel=1e-12)
    assert peak_power_w(back) == pytest.approx(36, rel=1e-12)


def test_stated_energies_scale_with_capacity_and_supply():
    """Eyeriss states 4.26 pJ/B for its buffer. Four times the capacity at 65 nm (exponent as at 45 nm, 0.5)
    doubles it, and the way back restores it; an energy that is set stays as set."""
    chip = load_hardware("eyeriss")
    assert memory_energy_j_per_byte(chip, "GLB", "read") == pytest.approx(4.26e-12)
    wide = chip.set("GLB.capacity", "432 kB")
    assert memory_energy_j_per_byte(wide, "GLB", "read") == pytest.approx(8.52e-12, rel=1e-9)
    assert memory_energy_j_per_byte(wide.set("GLB.capacity", "108 kB"), "GLB", "read") == pytest.approx(4.26e-12)
    assert memory_energy_j_per_byte(wide.set("GLB.read_energy", "1 pJ/B"), "GLB", "read") == 1e-12
    slow = chip.set("clock", "100 MHz")
    assert mac_energy_j(slow, "array", "int16") < mac_energy_j(chip, "array", "int16") == pytest.approx(1.42e-12)


def test_without_a_node_nothing_is_invented():
    document = to_document(load_hardware("eyeriss"))
    for field in ("node", "area"):
        document["technology"].pop(field)
        document["technology"]["source"].pop(field)
    chip = from_document(document, where="no-node")
    assert area_breakdown_mm2(chip) is None
    assert chip_area_mm2(chip) is None
    assert vector_energy_j(chip, "relu", "add") is None
    assert mac_energy_j(chip, "array", "int16") == pytest.approx(1.42e-12)  # stated
    wide = chip.set("GLB.capacity", "432 kB")
    assert memory_energy_j_per_byte(wide, "GLB", "read") is None  # cannot be scaled any more
    assert peak_power_w(wide) is None
    assert link_energy_j_per_byte(load_hardware("tpu-v1"), "PCIe") == pytest.approx(40e-12)


# Modelled area without any fit against published dies: (chip, low, high, why the range)
def test_stated_actions_alone_give_an_energy_without_leakage():
    """A MAC of 1 pJ and a byte at 8 x (10, 20) pJ of DRAM, 8 x (2, 3) pJ of SRAM; no node, so no leakage: told."""
    document = to_document(load_hardware("systolic"))
    del document["technology"]
    (dram,), (unit,) = document["memories"], document["units"]
    sram, array = unit["hierarchy"][0]["memory"], unit["hierarchy"][1]["array"]
    dram |= {"read_energy": "10 pJ/bit", "write_energy": "20 pJ/bit"}
    sram |= {"read_energy": "2 pJ/bit", "write_energy": "3 pJ/bit"}
    array["mac_energy"] = {"int8": "1 pJ"}
    unit["vector"]["energy"] = dict.fromkeys(unit["vector"]["rates"], "7 pJ")
    for part in (dram, sram, array, unit["vector"]):
        part["source"] = "estimated: round figures of a test"
    found = sim.estimate(sim.gemm(64, 32, 128, dtype="int8"), from_document(document, where="stated"))
    moved = found.traffic_bytes
    per_bit = 10 * moved["DRAM"].read + 20 * moved["DRAM"].write + 2 * moved["SRAM"].read + 3 * moved["SRAM"].write
    assert found.energy_j == pytest.approx(1e-12 * (64 * 32 * 128 + 8 * per_bit))
    assert [note for note in found.notes if note.startswith("energy is without leakage")]


DIES = [
    ("tpu-v1", 120, 331, "ISCA 2017: at most half of 662 mm2, of which buffers and compute are 67 %"),
    ("tpu-v4i", 140, 400, "ISCA 2021: below 400 mm2, of which CMEM and MXU are 39 %"),
    ("h100-sxm", 400, 814, "no front ends, schedulers or register files are modelled"),
    ("tesla-fsd", 90, 260, "no camera, video, security blocks are modelled"),
]


@pytest.mark.parametrize(("name", "low", "high", "why"), DIES)
def test_modelled_area_stays_below_the_die_and_in_its_order(name, low, high, why):
    assert low < sum(area_breakdown_mm2(load_hardware(name)).values()) < high, why


def test_the_weights_of_a_sparse_pass_take_a_buffer():
    """256 KiB more at 8 nm: 2^18 x 8 bits of 0.034 um2, bitcells being 0.4 of a buffer: 0.178 mm2, which leak."""
    own = load_hardware("orin-dla")
    more = own.set("array.sparse_pass", "512 KiB")
    assert "array.sparse_pass" in resource_paths(own)
    assert chip_area_mm2(more) - chip_area_mm2(own) == pytest.approx(2**18 * 8 * 0.034e-6 / 0.4)
    assert idle_power_w(more) > idle_power_w(own)


def test_a_primitive_made_of_others_takes_their_energy():
    """An exponential of eight additions and ten products takes what these take, not what a table takes; what the file
    states of it goes before. Time and energy are of the same work."""
    document = to_document(load_hardware("edge-npu"))
    vector = document["units"][0]["vector"]
    rates = {key: rate for key, rate in vector["rates"].items() if key != "exp"}
    vector |= {"rates": rates, "fallback": {"exp": {"add": 8, "mul": 10}}, "source": "estimated: a test"}
    chip = from_document(document, where="test")
    add_j, mul_j = (vector_energy_j(chip, "simd", part) for part in ("add", "mul"))
    assert vector_energy_j(chip, "simd", "exp") == pytest.approx(8 * add_j + 10 * mul_j)
    vector["energy"] = {"exp": "4 pJ"}
    assert vector_energy_j(from_document(document, where="test"), "simd", "exp") == pytest.approx(4e-12)


@pytest.mark.parametrize(("read", "write"), [("1 pJ/B", "3 pJ/B"), ("3 pJ/B", "1 pJ/B")])
def test_a_port_of_both_ways_is_busy_with_the_dearer_one(read, write):
    """Peak power bounds what a network may draw: 256 B at 1 GHz of 3 pJ each are 0.768 W, whichever way they go."""
    chip = load_hardware("systolic").set("SRAM.read_energy", read).set("SRAM.write_energy", write)
    assert power_breakdown_w(chip)["SRAM"] == pytest.approx(0.768)
