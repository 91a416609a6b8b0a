"""Constants of the GPU kernel models: which set a device takes, and what a chip file states."""

from dataclasses import replace

import pytest
from gpus import A100, H100

from sim.baseline.fit import PROBLEMS
from sim.baseline.joint import DEVICE_CONSTANTS, LIBRARY_CONSTANTS
from sim.cost.gpu.device import Generation, GpuDevice, device_from_chip
from sim.cost.gpu.sets import constants_for, fitted_sets, parse_set
from sim.errors import CalibrationError, ConfigError, PrecisionError
from sim.hardware.chip import (
    Array,
    Chip,
    Costing,
    Dataflow,
    Fanout,
    Folds,
    Memory,
    Preload,
    Rate,
    Skew,
    Unit,
    VectorUnit,
)  # fmt: skip


def h100_chip(**options) -> Chip:
    """132 SMs of 4 tensor cores; 989.4e12 = 2 * 132 * cells * rate * clock."""
    array = Array(
        name="tensor_core", rows=16, cols=8, dataflow=Dataflow.OUTPUT_STATIONARY, skew=Skew.NONE,
        folds=Folds.PIPELINED, preload=Preload.HIDDEN, macs_per_cycle={"bf16": 4.0},
    )  # fmt: skip
    unit = Unit(
        name="gpu", count=1, home="HBM", clock_hz=1.755e9, costing=Costing.GPU_KERNELS,
        vector=VectorUnit(name="cuda", lanes=128, rates={}),
        hierarchy=(
            Memory(name="L2", capacity_bytes=50e6), Fanout(name="SM", count=132),
            Memory(name="smem", capacity_bytes=228 * 1024), Fanout(name="subcore", count=4), array,
        ),
        options=options or {"generation": "hopper"},
    )  # fmt: skip
    rate = Rate(per_s=3.35e12)
    memory = Memory(name="HBM", kind="hbm3", capacity_bytes=80e9, read=rate, write=rate)
    return Chip(
        name="h100-sxm", title="", clock_hz=1.755e9, default_precision="bf16", memories=(memory,), units=(unit,)
    )


def test_device_from_chip_reads_the_data_sheet():
    """2 FLOP x 132 SMs x 4 cores x 128 cells x 4 MAC x 1.755 GHz = 949 TFLOP/s."""
    device = device_from_chip(h100_chip())
    assert (device.sms, device.l2_bytes, device.dram_bytes_per_s) == (132, 50e6, 3.35e12)
    assert device.peak("bf16") == pytest.approx(2 * 132 * 4 * 128 * 4 * 1.755e9)
    assert device.peak("fp16") == device.peak("bf16")
    with pytest.raises(PrecisionError, match="int8"):
        device.peak("int8")
    with pytest.raises(ConfigError, match='mean "hopper"'):
        device_from_chip(h100_chip(generation="hoper"))


def test_transfer_says_where_constants_come_from():
    """H200 takes H100's (same generation); B200 and L40S the joint set of their library. Times inside a CTA go
    with the clock, launch floors do not."""

    def named(name, generation, clock_hz=1.83e9):
        return GpuDevice(**{n: getattr(H100, n) for n in H100.__dataclass_fields__}
                         | {"name": name, "generation": generation, "clock_hz": clock_hz})  # fmt: skip

    assert constants_for(H100).origin["gemm"] == "h100-sxm, measured"
    h200 = constants_for(named("h200", Generation.HOPPER, 2 * 1.83e9))
    assert h200.origin["gemm"] == "h100-sxm, same generation"
    assert h200.prefill.token_s == pytest.approx(constants_for(H100).prefill.token_s / 2)
    assert h200.gemm.launch_s == constants_for(H100).gemm.launch_s
    assert h200.gemm.matrix_efficiency == constants_for(H100).gemm.matrix_efficiency
    assert constants_for(named("b200", Generation.BLACKWELL)).origin["decode"] == "wgmma, generation changed"
    l40s = constants_for(named("l40s", Generation.ADA, 2.82e9))
    assert l40s.origin["prefill"] == "mma-sync, generation changed"
    assert l40s.prefill.token_s == pytest.approx(fitted_sets()["mma-sync"].constants["prefill"].token_s / 2)
    assert constants_for(named("v", Generation.VOLTA)).origin["vector_binary"].startswith("v100-pcie-32gb")
    with pytest.raises(CalibrationError, match="h100-sxm"):
        constants_for(H100, "h100-smx")


def test_what_a_chip_file_states_replaces_what_another_gpu_measured():
    """DRAM's share in every kind, the matrix rate's in products alone; a measured GPU keeps its own."""

    def stating(name, generation):
        return GpuDevice(**{n: getattr(H100, n) for n in H100.__dataclass_fields__}
                         | {"name": name, "generation": generation,
                            "stated": {"dram_efficiency": 0.86, "matrix_efficiency": 0.7}})  # fmt: skip

    c = constants_for(stating("new", Generation.ADA))
    assert {c.gemm.dram_efficiency, c.decode.dram_efficiency, c.vector["unary"].dram_efficiency} == {0.86}
    assert (c.gemm.matrix_efficiency, c.prefill.matrix_efficiency) == (0.7, 0.95)
    assert c.gemm_for("bf16").matrix_efficiency == 0.7
    assert c.gemm_for("fp32").matrix_efficiency == fitted_sets()["mma-sync"].constants["gemm"].matrix_efficiency
    assert constants_for(stating("h100-sxm", Generation.HOPPER)).gemm == constants_for(H100).gemm
    assert constants_for(stating("new", Generation.ADA), "none").gemm.dram_efficiency == 1.0


def test_a_stated_share_above_the_data_sheet_is_refused():
    chip = h100_chip()
    unit = replace(chip.main_unit, options={"generation": "ada", "dram_efficiency": 86})
    with pytest.raises(ConfigError, match=r"options.dram_efficiency is 86, expected a share"):
        device_from_chip(replace(chip, units=(unit,)))


def test_joint_sets_differ_in_the_librarys_constants_alone():
    """One fit over both libraries: what is neither the library's nor the memory's, and both have, is one number."""
    one, two = (fitted_sets()[name].constants for name in ("mma-sync", "wgmma"))
    for kind, own in LIBRARY_CONSTANTS.items():
        differ = {f for f in one[kind].__dataclass_fields__ if getattr(one[kind], f) != getattr(two[kind], f)}
        held = set(PROBLEMS[kind].fixed(A100)) ^ set(PROBLEMS[kind].fixed(H100))
        assert set(own) <= differ <= {*own, *DEVICE_CONSTANTS} | held


def test_fitted_constants_lie_inside_their_physical_range():
    for name, fitted in fitted_sets().items():
        assert all((fitted.source, fitted.date, fitted.error))
        for kind, constants in fitted.constants.items():
            for field_name, spec in constants.__dataclass_fields__.items():
                value, meta = getattr(constants, field_name), spec.metadata
                inside = meta["low"] * 0.999 <= value <= meta["high"] * 1.001
                assert inside or value == 0, f"{name}: {kind}.{field_name} = {value}"


def test_a_set_with_a_wrong_constant_is_refused():
    document = {"constants": {"conv": {"launch_us": 1.0}}}
    with pytest.raises(CalibrationError, match='conv has no constant "launch_us"'):
        parse_set(document, "x.yaml")
