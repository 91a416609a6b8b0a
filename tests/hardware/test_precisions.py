"""What a precision means on a chip."""

from __future__ import annotations

import re

import pytest

import sim
from sim.errors import PrecisionError
from sim.hardware.load import list_hardware, load_hardware
from sim.hardware.precisions import precision_on

MIXED = [
    (name, dtype)
    for name in list_hardware()
    for dtype in load_hardware(name).main_unit.array.macs_per_cycle
    if re.fullmatch(r"w\d+a\d+", dtype)
]
DECODER = {"width": 64, "depth": 1, "heads": 8, "kv_heads": 8, "vocabulary": 64, "context": 32}


@pytest.mark.parametrize(
    ("chip", "sixteen"), [("v100-pcie-32gb", "fp16"), ("t4", "fp16"), ("tpu-v1", "int16"), ("h100-sxm", "bf16")]
)
def test_sixteen_bits_are_a_type_that_the_chip_has(chip: str, sixteen: str) -> None:
    """V100 and T4 multiply fp16 and no bf16, TPU v1 integers alone."""
    found = precision_on(load_hardware(chip), "w8a16kv16")
    assert (found.weight, found.activation, found.kv) == ("int8", sixteen, sixteen)


@pytest.mark.parametrize(("name", "dtype"), MIXED)
def test_a_mixed_type_that_a_file_lists_runs_a_whole_decoder(name: str, dtype: str) -> None:
    """Its attention multiplies activations with activations, in a type that the array must have too; the other rungs
    take the precision alike."""
    graph, chip = sim.load_workload("decoder", **DECODER), sim.load_hardware(name)
    found = sim.estimate(graph, chip, precision=dtype)
    assert found.infeasible is None
    assert sim.simulate(graph, chip, precision=dtype).estimate_latency_s == found.latency_s
    assert sim.sweep(graph, chip, {}, precisions=[dtype])["latency_s"][0] == found.latency_s
    assert sim.roofline(graph, chip, dtype).precision == dtype


def test_a_rate_that_no_network_is_costed_in_is_no_unknown_word():
    """epyc-zen4 lists fp64, of which area and power know; a network in it is refused for what it is."""
    with pytest.raises(PrecisionError, match='precision "fp64" is no type that networks are costed in, whatever rate'):
        sim.estimate(sim.gemm(8, 8, 8, dtype="fp32"), "epyc-zen4", precision="fp64")
    with pytest.raises(PrecisionError, match='precision "fp65" is unknown'):
        sim.estimate(sim.gemm(8, 8, 8, dtype="fp32"), "epyc-zen4", precision="fp65")


def test_a_default_of_sixteen_bits_is_a_type_that_the_chip_has(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("schema: dovetail.chip/1\nextends: t4\nname: mine\ndefault_precision: w16a16\n")
    assert precision_on(load_hardware(path), None).compute == "fp16"


@pytest.mark.parametrize("chip", ["tpu-v5e", "jetson-orin", "mi300x", "epyc-zen4"])
def test_every_refusal_of_a_precision_names_one_to_run_in(chip: str) -> None:
    """Mapped, by roofline and as a CPU: what the estimate says, the roofline says too, and it is no guess at a
    misspelt word."""
    graph, found = sim.gemm(8, 8, 8, dtype="fp32"), load_hardware(chip)
    lacking = next(name for name in ("fp8_e4m3", "int4") if name not in found.main_unit.array.macs_per_cycle)
    first = next(iter(found.main_unit.array.macs_per_cycle))
    for costed in (sim.estimate, sim.roofline):
        with pytest.raises(PrecisionError, match=rf"no rate for {lacking}.*; choose --precision {first}$"):
            costed(graph, found, precision=lacking)
    assert sim.estimate(graph, found, precision=first).latency_s > 0
