"""A description of the machine under test: the bundled CPU of its instruction sets, with its own sizes."""

from __future__ import annotations

from dataclasses import replace
from math import floor

from sim.baseline.device import CpuDevice
from sim.errors import CalibrationError
from sim.hardware.chip import Chip

TEMPLATES = {"amx": "xeon-emr-2c", "avx512": "xeon-emr-2c", "avx512-zen4": "epyc-zen4", "avx2": "epyc-zen4"}
"""Instruction sets -> bundled chip. Rates that a CPU lacks (AMX below avx512) end as low efficiencies of the fit."""
CLOCK_STEP_HZ = 1e7
"""The measured clock is stated to 10 MHz."""


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
    vector = template.main_unit.vector
    assert vector is not None
    lanes_per_core = vector.lanes / template.component("core").count  # type: ignore[attr-defined]
    cores = len(machine.cores)
    own = sim.load_hardware(
        TEMPLATES[machine.simd],
        {
            "core.count": cores,
            "simd.lanes": int(lanes_per_core * cores),
            "clock": f"{floor(machine.best_clock_hz / CLOCK_STEP_HZ) * CLOCK_STEP_HZ / 1e9:g} GHz",
            "L3.capacity": f"{machine.cache_bytes} B",
            "DRAM.capacity": f"{machine.free_bytes() // 2**20} MiB",
        },
    )
    return replace(own, name=machine.key, calibration=None)
