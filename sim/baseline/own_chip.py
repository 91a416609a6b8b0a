"""A description of the machine under test: the bundled CPU of its instruction sets with its own sizes, or a GPU as its
framework drives it."""

from __future__ import annotations

from dataclasses import replace
from math import floor

from sim.baseline.device import CpuDevice, CudaDevice
from sim.errors import CalibrationError
from sim.hardware.chip import Chip, Costing

TEMPLATES = {"amx": "xeon-emr-2c", "avx512": "epyc-zen5", "avx512-zen4": "epyc-zen4", "avx2": "epyc-zen4"}
"""Instruction sets -> bundled chip. Rates that a CPU lacks (bf16 below avx2) end as low efficiencies of the fit."""
CLOCK_STEP_HZ = 1e7
"""The measured clock is stated to 10 MHz."""


def own_gpu(machine: CudaDevice, chip: Chip | None) -> Chip:
    """The bundled chip that this GPU calibrates, or the given one run op by op, named after the machine.

    Raises: CalibrationError: no chip is given and none is bundled for it, or the given one is no GPU.
    """
    from sim.baseline.calibrate import bundled_chip

    found = chip or bundled_chip(machine.key)
    if found is None:
        raise CalibrationError(
            f"{machine.key}: no bundled chip is calibrated on it: give its description with --hw, for example h100-sxm"
        )
    if not found.main_unit.costing.gpu:
        raise CalibrationError(f"{found.name} is costed by {found.main_unit.costing.value}: {machine.key} is a GPU")
    if found.calibration == machine.key:
        return found
    options = {name: value for name, value in found.main_unit.options.items() if name in ("generation", "launch")}
    unit = replace(found.main_unit, costing=Costing.GPU_EAGER, options=options)
    units = tuple(unit if u is found.main_unit else u for u in found.units)
    return replace(found, name=machine.key, calibration=None, units=units)


def own_chip(machine: CpuDevice) -> Chip:
    """The bundled chip that this machine calibrates, or its template with this machine's cores, clock, shared cache,
    memory and lanes, named after the machine.

    Raises: CalibrationError: instruction sets that no bundled chip describes.
    """
    import sim
    from sim.baseline.calibrate import bundled_chip

    found = bundled_chip(machine.key)
    if found is not None:
        return found
    if machine.simd not in TEMPLATES:
        raise CalibrationError(
            f"{machine.key}: no bundled chip describes a CPU with {machine.simd or 'its instruction sets'} "
            f"(there are {', '.join(TEMPLATES)}): give its description with --hw FILE.yaml"
        )
    template = sim.load_hardware(TEMPLATES[machine.simd])
    vector, technology = template.main_unit.vector, template.technology
    assert vector is not None
    assert technology is not None
    lanes_per_core = vector.lanes / template.component("core").count  # type: ignore[attr-defined]
    cores, clock_hz = len(machine.cores), floor(machine.best_clock_hz / CLOCK_STEP_HZ) * CLOCK_STEP_HZ
    own = sim.load_hardware(
        TEMPLATES[machine.simd],
        {
            "core.count": cores,
            "simd.lanes": int(lanes_per_core * cores),
            "technology.max_clock": f"{max(clock_hz, technology.max_clock_hz or 0.0) / 1e9:g} GHz",
            "clock": f"{clock_hz / 1e9:g} GHz",
            "L3.capacity": f"{machine.cache_bytes} B",
            "DRAM.capacity": f"{machine.free_bytes() // 2**20} MiB",
        },
    )
    return replace(own, name=machine.key, calibration=None)
