"""The bundled chips: they load, every number has a source, and their peaks are the published ones."""

from dataclasses import fields, is_dataclass

import pytest

from sim.hardware.chip import Array, Fanout, Link, Memory, Unit, VectorUnit
from sim.hardware.describe import describe, peak_macs_per_s
from sim.hardware.dump import chip_hash, dump
from sim.hardware.load import list_hardware, load_hardware, loads
from sim.hardware.schema import SOURCE_WORDS
from sim.workload.graph import Primitive

NAMES = list_hardware()
DEMANDED = {
    "systolic", "tesla-fsd-npu", "tesla-fsd", "tpu-v1", "tpu-v5e", "eyeriss", "gemmini-16", "h100-sxm", "epyc-zen4",
    "v100-pcie-32gb", "a100-sxm", "a100-pcie-40gb", "a100-pcie-80gb", "h200", "b200", "l40s", "l4", "t4", "mi300x",
    "tesla-dojo-d1", "tpu-v4i", "tpu-v6e", "nvdla-small", "nvdla-full", "edge-npu", "jetson-orin", "xeon-spr",
}  # fmt: skip
FIELDS = {
    "capacity_bytes": "capacity", "latency_s": "latency", "burst_bytes": "burst", "request_bytes": "request",
    "read_energy_j_per_byte": "read_energy", "write_energy_j_per_byte": "write_energy",
    "drain_bytes_per_cycle": "drain_bandwidth", "sparse_pass_bytes": "sparse_pass",
    "mac_energy_j": "mac_energy", "energy_j": "energy",
    "clock_hz": "clock", "launch_s": "launch", "dma_setup_s": "dma_setup", "energy_j_per_byte": "energy",
    "node_nm": "node", "max_clock_hz": "max_clock", "area_mm2": "area", "power_w": "power",
    "idle_power_w": "idle_power", "voltage_v": "voltage",
}  # fmt: skip
NAMED = {"name", "kind", "holds", "dataflow", "skew", "folds", "preload", "accumulate_bits", "multicast", "home",
         "hierarchy", "vector", "costing", "buffering", "ends", "shared_port"}  # fmt: skip


def test_every_chip_that_was_promised_is_there():
    assert set(NAMES) >= DEMANDED


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_round_trips(name):
    chip = load_hardware(name)
    assert chip.name == name
    assert loads(dump(chip)) == chip
    assert chip_hash(loads(dump(chip))) == chip_hash(chip)
    assert describe(chip)[0] == f"{name}: {chip.title}"


def _stated(prefix, part):
    """Paths of the part's numbers that differ from their defaults, found in the chip and not in the loader."""
    for field in fields(part):
        value = getattr(part, field.name)
        if field.name in NAMED or value == field.default or value in ({}, None, ()):
            continue
        if field.name in ("read", "write", "bandwidth"):
            shared = getattr(part, "shared_port", True)
            yield f"{prefix}.bandwidth" if shared else f"{prefix}.{field.name}_bandwidth"
        elif not is_dataclass(value):
            yield f"{prefix}.{FIELDS.get(field.name, field.name)}"


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source(name):
    chip = load_hardware(name)
    paths = {"clock", *_stated("technology", chip.technology)}
    for component, part in chip.components():
        assert isinstance(part, Memory | Fanout | Array | VectorUnit | Unit | Link)
        paths |= set(_stated(component, part))
    inherited = {f"{unit.name}.clock" for unit in chip.units if unit.clock_hz == chip.clock_hz}
    inherited |= {f"{unit.name}.count" for unit in chip.units if unit.count == 1}
    for path in paths - inherited:
        sources = [text for key, text in chip.provenance.items() if key == path or key.startswith(path + ".")]
        assert sources, path
        for text in sources:
            word, _, why = text.partition(":")
            assert word in chip.sources or (word in SOURCE_WORDS and (why.strip() or word == "unverified")), (
                path,
                text,
            )


@pytest.mark.parametrize("name", NAMES)
def test_every_primitive_can_be_costed(name):
    for unit in load_hardware(name).units:
        for primitive in Primitive:
            parts = unit.vector.fallback.get(primitive, {primitive: 1})
            assert all(unit.vector.rates[part] > 0 for part in parts)


# chip, dtype, published rate in operations per second (1 MAC = 2), relative tolerance, source
PEAKS = [
    ("tesla-fsd-npu", "int8", 36.864e12, 0, "WikiChip: 96 x 96 at 2 GHz"),
    ("tesla-fsd", "int8", 73.728e12, 0, "Hot Chips 31: two NPUs"),
    ("tpu-v1", "int8", 92e12, 0.003, "ISCA 2017"),
    ("h100-sxm", "bf16", 989.4e12, 0.001, "data sheet, dense"),
    ("h100-sxm", "fp8_e4m3", 1978.9e12, 0.001, "data sheet, dense"),
    ("h100-sxm", "tf32", 494.7e12, 0.001, "data sheet, dense"),
    ("h200", "bf16", 989.4e12, 0.001, "as H100"),
    ("a100-sxm", "bf16", 311.9e12, 0.001, "data sheet"),
    ("a100-sxm", "int8", 623.7e12, 0.001, "data sheet"),
    ("b200", "bf16", 2250e12, 0.005, "data sheet, dense"),
    ("l4", "fp16", 121e12, 0.005, "data sheet, dense"),
    ("t4", "fp16", 65e12, 0.005, "data sheet"),
    ("l40s", "bf16", 362e12, 0.015, "data sheet, dense"),
    ("v100-pcie-32gb", "fp16", 112e12, 0.015, "data sheet"),
    ("mi300x", "fp8_e4m3", 2615e12, 0.001, "data sheet, dense"),
    ("tpu-v5e", "bf16", 197e12, 0.003, "Google Cloud documentation"),
    ("tpu-v5e", "int8", 393e12, 0.003, "Google Cloud documentation"),
    ("tpu-v6e", "bf16", 918e12, 0.001, "Google Cloud documentation"),
    ("tpu-v4i", "bf16", 138e12, 0.003, "ISCA 2021"),
    ("tesla-dojo-d1", "bf16", 362e12, 0.002, "IEEE Micro 2023"),
    ("tesla-dojo-d1", "fp32", 22.6e12, 0.003, "AI Day 2021"),
    ("eyeriss", "int16", 2 * 33.6e9, 0, "JSSC 2017: 33.6 GMAC/s"),
    ("xeon-spr", "int8", 56 * 2048 * 2.0e9, 0, "2048 operations a cycle and core"),
    ("jetson-orin", "int8", 85.5e12, 0.005, "JetPack notes: 171 TOPS sparse"),
]


@pytest.mark.parametrize(("name", "dtype", "published", "tolerance", "source"), PEAKS)
def test_peak_rates_are_the_published_ones(name, dtype, published, tolerance, source):
    unit = load_hardware(name).main_unit
    assert 2 * peak_macs_per_s(unit, dtype) == pytest.approx(published, rel=tolerance or 1e-12), source


def test_orin_dla_peak():
    """52.5 dense TOPS of two DLAs (105 sparse)."""
    unit = next(unit for unit in load_hardware("jetson-orin").units if unit.name == "dla")
    assert 2 * peak_macs_per_s(unit, "int8") == pytest.approx(52.5e12, rel=0.005)
