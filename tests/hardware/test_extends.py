"""Chip files that extend another: what becomes of each kind of part."""

from math import inf

import pytest

from sim.errors import ConfigError
from sim.hardware.dump import dump
from sim.hardware.load import load_hardware, loads
from sim.hardware.physical import chip_area_mm2, idle_power_w, peak_power_w


@pytest.fixture
def extended(tmp_path):
    """The chip of a file with these lines that extends a bundled one."""

    def load(base, text):
        path = tmp_path / "mine.yaml"
        path.write_text(f"schema: dovetail.chip/1\nextends: {base}\nname: mine\n{text}\n")
        return load_hardware(path)

    return load


@pytest.mark.parametrize("keys", ["chips: 4", "chips: 4, pipeline: 2", "ports: 16", "topology: ring, chips: 2"])
def test_a_system_is_extended_like_any_part(extended, keys):
    """The numbers restated have a source of their own, the others that of the base."""
    chip = extended("h100-sxm-x8", f'system: {{{keys}, source: "estimated: a test"}}')
    assert chip.system.link == "NVLink"
    stated = {f"system.{key.split(':')[0]}" for key in keys.split(", ")} & {"system.chips", "system.ports"}
    assert {path for path in chip.provenance if path.startswith("system.")} == {"system.chips", "system.ports"}
    assert {path for path in stated if chip.provenance[path] != "estimated: a test"} == set()


def test_names_within_a_system_need_no_source(extended):
    assert extended("h100-sxm-x8", "system: {topology: ring, pipeline: 4}").system.pipeline == 4
    with pytest.raises(ConfigError, match=r"system\.source: missing: chips needs a source of its own"):
        extended("h100-sxm-x8", "system: {chips: 4}")


L1 = 'memory: {name: L1, capacity: 64 KiB, bandwidth: 256 B/cycle, source: "estimated: a test"}'
CORES = 'fanout: {name: core, count: 4, source: "estimated: a test"}'


@pytest.mark.parametrize(
    ("levels", "order"),
    [
        ([CORES], ["SRAM", "core", "array"]),
        ([CORES, L1], ["SRAM", "core", "L1", "array"]),
        (["memory: {name: SRAM}", CORES, L1], ["SRAM", "core", "L1", "array"]),
        ([L1, "memory: {name: SRAM}", CORES], ["SRAM", "core", "L1", "array"]),
    ],
)
def test_a_new_level_follows_the_one_before_it_or_stands_outside_the_array(extended, levels, order):
    listed = "".join(f"\n      - {level}" for level in levels)
    chip = extended("tesla-fsd-npu", f"units:\n  - name: npu\n    hierarchy:{listed}")
    assert [level.name for level in chip.main_unit.hierarchy] == order


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('memories: [{name: Dram, bandwidth: 50 GB/s, source: "estimated: x"}]', 'memories: "Dram" .* mean "DRAM"'),
        ("units: [{name: NPU, count: 2}]", r'units: "NPU" is none of npu .* home, hierarchy, vector .* mean "npu"'),
        (
            'units: [{name: npu, hierarchy: [array: {name: aray, rows: 4, source: "estimated: x"}]}]',
            r'units\.npu\.hierarchy: "aray" is none of SRAM, array .* mean "array"',
        ),
    ],
)
def test_a_misspelt_part_is_told_from_a_new_one(extended, change, said):
    with pytest.raises(ConfigError, match=said):
        extended("tesla-fsd-npu", change)


@pytest.mark.filterwarnings("error")
def test_stated_silicon_of_a_memory_without_end_has_no_share(extended):
    """100 mm2 hold for the file as it stands; of another design nothing is known, and its file can be read back."""
    chip = extended(
        "tesla-fsd-npu",
        'technology: {area: 100 mm2, power: 50 W, source: "estimated: a test"}\n'
        'units: [{name: npu, hierarchy: [memory: {name: SRAM, capacity: inf B, source: "estimated: a test"}]}]',
    )
    wider = chip.set("simd.lanes", 10)
    assert chip_area_mm2(chip) == 100
    assert (chip_area_mm2(wider), peak_power_w(wider)) == (inf, None)
    assert loads(dump(wider)) == wider


@pytest.mark.parametrize(("units", "copies"), [("", 1), ("count: 2, ", 2)])
def test_a_nearer_dram_idles_like_a_home(extended, units, copies):
    """0.1 W for a GiB of HBM (the technology table), in each copy of the unit; its interface does not grow with it."""
    level = 'memory: {{name: HBM, kind: hbm2e, capacity: {} GiB, bandwidth: 400 GB/s, source: "estimated: a test"}}'
    idle = [
        idle_power_w(
            extended(
                "edge-npu",
                f'units: [{{name: npu, {units}source: "estimated: a test", hierarchy: [{level.format(size)}]}}]',
            )
        )
        for size in (16, 32)
    ]
    assert idle[1] - idle[0] == pytest.approx(copies * 1.6)
