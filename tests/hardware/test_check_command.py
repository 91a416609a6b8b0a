"""`dovetail check` through the command's own function."""

import os

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

import sim
from sim.cli.hardware import check
from sim.errors import CalibrationError, ConfigError
from sim.hardware.describe import uncosted
from sim.hardware.load import hardware_path
from sim.view import inventory

APP = typer.Typer()
APP.command()(check)


def words_of(table):
    console = Console(width=120)
    with console.capture() as found:
        console.print(table)
    return " ".join(found.get().split())


def run(*words):
    return CliRunner().invoke(APP, [str(word) for word in words])


def test_check_says_what_was_understood():
    result = run(hardware_path("tesla-fsd-npu"), "--set", "SRAM.capacity=16 MiB")
    assert result.exit_code == 0
    for part in ("36.86", "SRAM: sram, 16 MiB, reads 384 B/cycle, writes 128 B/cycle", "1 override", "note:"):
        assert part in result.output


def test_check_says_what_crosses_each_link_and_of_how_many_chips_it_is():
    """Of eight H100s: one link between them, one for inputs; a third that nothing crosses says so."""
    output = " ".join(run(hardware_path("h100-sxm-x8"), "--set", "system.pipeline=2").output.split())
    assert "NVLink: chip - DRAM, 450 GB/s, between the chips" in output
    assert "PCIe: host - DRAM, 64 GB/s, inputs come over it" in output
    assert "8 of these chips, switch over NVLink, in 2 stages; peaks, area and power of one" in output
    assert "NVLink: chip - DRAM, 450 GB/s, in area and power alone" in run(hardware_path("h100-sxm")).output


def test_check_and_show_say_of_how_many_copies_a_peak_is():
    """Two NPUs of 96 x 96 MACs at 2 GHz: 73.73 TOPS of both, 36.86 of each."""
    assert "peak TOPS of all 2 (1 MAC = 2 operations): int8 73.73" in run(hardware_path("tesla-fsd")).output
    assert "peak TOPS (1 MAC = 2 operations): int8 36.86" in run(hardware_path("tesla-fsd-npu")).output
    shown = words_of(inventory.chip(sim.load_hardware("tesla-fsd")))
    assert "96 vector lanes; rates of one of 2" in shown
    assert "36.9 TFLOP/s" in shown
    assert "rates of" not in words_of(inventory.chip(sim.load_hardware("tesla-fsd-npu")))


def test_check_names_what_no_cost_reads():
    """As an estimate has it: 5 us of the memory on chip change nothing, with requests they are a rate."""
    graph, path = sim.gemm(64, 64, 64, dtype="int8"), hardware_path("tesla-fsd-npu")
    slow = {"SRAM.latency": "5 us"}
    whole = slow | {"SRAM.outstanding": 1, "SRAM.request": "1 B"}
    time_s = [sim.estimate(graph, sim.load_hardware(path, some)).latency_s for some in ({}, slow, whole)]
    assert time_s[0] == time_s[1] < time_s[2]
    named = [
        [word for key, value in some.items() for word in ("--set", f"{key}={value}")] for some in ({}, slow, whole)
    ]
    told = [run(path, *words).output.partition("in no cost of its ops: ")[2].splitlines()[0] for words in named]
    assert told == ["DRAM.burst", "DRAM.burst, SRAM.latency", "DRAM.burst"]
    gpu, graph = sim.load_hardware("h100-sxm"), sim.gemm(64, 64, 64, dtype="bf16")
    changed = gpu.set("DRAM.efficiency", 0.5).set("SM.multicast", False).set("L2.double_buffered", False)
    assert {"DRAM.latency", "DRAM.efficiency", "SM.multicast"} <= set(uncosted(changed, changed.main_unit))
    same = [sim.estimate(graph, chip, inputs="resident").latency_s for chip in (gpu, changed)]
    assert same[0] == same[1]


def test_check_names_what_a_home_memory_cannot_say(tmp_path):
    """Everything lies at home, whatever it is said to hold."""
    graph, path = sim.gemm(512, 512, 512, dtype="int8"), tmp_path / "x.yaml"
    path.write_text("""
schema: dovetail.chip/1
extends: tesla-fsd-npu
name: mine
memories: [{name: DRAM, holds: [weight], double_buffered: false, residency: false, source: "estimated: x"}]
""")
    assert "ops: DRAM.burst, DRAM.double_buffered, DRAM.residency, DRAM.holds" in run(path).output
    assert sim.estimate(graph, path).latency_s == sim.estimate(graph, "tesla-fsd-npu").latency_s


def test_check_says_which_constants_cost_the_chip(tmp_path):
    """A name that no fitted GPU has is refused, here and by the estimate, and not taken for the nearest GPU's."""
    path = tmp_path / "x.yaml"
    for own, base, told in (("a100-sxm", "h100-sxm", "on a100-sxm"), ("x", "systolic", "data sheet only")):
        path.write_text(f"schema: dovetail.chip/1\nextends: {base}\nname: mine\ncalibration: {own}\n")
        assert told in run(path).output.splitlines()[-1]
    path.write_text("schema: dovetail.chip/1\nextends: h100-sxm\nname: mine\ncalibration: h100-smx\n")
    assert isinstance(error := run(path).exception, CalibrationError)
    assert 'mine: its calibration "h100-smx" is not there' in str(error)
    assert str(error).endswith('Did you mean "h100-sxm"?')
    graph = sim.gemm(64, 64, 64, dtype="bf16")
    with pytest.raises(CalibrationError, match="is not there"):
        sim.estimate(graph, path)
    assert sim.estimate(graph, path, calibration="none").calibration is None


def test_check_refuses_what_is_not_ours(tmp_path):
    path = tmp_path / "x.yaml"
    for text, part in (("a: 1", "no schema"), ("schema: dovetail.chips/1", "Did you mean"), ("[", "not valid YAML")):
        path.write_text(text)
        error = run(path).exception
        assert isinstance(error, ConfigError)
        assert part in str(error)
    assert "does not exist" in str(run(tmp_path / "none.yaml").exception)


def test_a_folder_in_place_of_a_chip_file_is_not_said_to_be_absent(tmp_path):
    """Nor is what is there but no plain file, such as the pipe that a shell makes of `<(...)`."""
    folder, pipe = tmp_path / "chip.yaml", tmp_path / "pipe.yaml"
    folder.mkdir()
    os.mkfifo(pipe)
    for path, part in ((folder, "is a folder, no file"), (pipe, "is no plain file")):
        assert str(run(path).exception) == f'file "{path}" {part}'
        with pytest.raises(ConfigError, match=f'chip file ".*" {part}$'):
            sim.load_hardware(path)


def test_check_reads_grids_and_scenarios_that_name_their_schema(tmp_path):
    """Two sizes in two precisions are four points; another version of a scenario is refused with its place."""
    path = tmp_path / "x.yaml"
    path.write_text("""
schema: dovetail.grid/1
name: mine
points:
  - {op: gemm, product: {m: [64, 128], n: [64], k: [64]}, precision: [fp32, bf16]}
""")
    assert "mine: 4 points" in run(path).output
    scenario = """
schema: dovetail.scenario/{}
name: s
hardware: systolic
streams: [{{name: a, workload: mlp, arrivals: {{kind: closed}}}}]
"""
    path.write_text(scenario.format(1))
    assert "stream a: mlp on the main unit" in run(path).output
    path.write_text(scenario.format(2))
    assert "dovetail.scenario/2" in str(run(path).exception)


def test_check_names_an_energy_of_a_type_without_a_rate(tmp_path):
    """4-bit weights run at the rate of w4a8, which the array has, and so at its energy."""
    path = tmp_path / "mine.yaml"
    energies = "mac_energy: {int4: 0.1 pJ, int8: 0.2 pJ}"
    array = f'array: {{name: array, macs_per_cycle: {{int8: 1, w4a8: 2}}, {energies}, source: "estimated: a test"}}'
    path.write_text(
        f"schema: dovetail.chip/1\nextends: tesla-fsd-npu\nname: mine\nunits: [{{name: npu, hierarchy: [{array}]}}]\n"
    )
    assert "in no cost of its ops: DRAM.burst, array.mac_energy.int4" in " ".join(run(path).output.split())
