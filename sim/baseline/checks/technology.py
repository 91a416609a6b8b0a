"""Technology tables against the publications behind them, and against published chips."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec

from sim.baseline.checks.check import Check, Rule, against, group
from sim.baseline.published import fact

HOROWITZ_SRAM_PJ = {8: 10.0, 32: 20.0, 1024: 100.0}
"""KiB -> energy of a 64-bit read at 45 nm (Horowitz, ISSCC 2014, figure 1.1.9)."""
SRAM_SET_BY_KIB = (8, 32)
"""The law of SRAM energy, 10 pJ sqrt(C / 8 KiB), goes through these: only the third point checks it."""
IDENTITY = "informs: an identity, since the table that gives ours was set to this value"
DRAM_PJ_PER_BIT = {"hbm2": (3.9, "oconnor17"), "ddr3": (20.3, "tpuv4i_isca21, memory")}


def _technology():
    home = "sim.hardware.technology"
    return import_module(home) if find_spec(home) else None


def _sram_pj(kib: int) -> float | None:
    module = _technology()
    if module is None:
        return None
    return float(module.sram_energy_j_per_byte(capacity_bytes=kib * 1024, node_nm=45.0)) * 8e12


def _dram_pj_per_bit(kind: str) -> float | None:
    module = _technology()
    return None if module is None else float(module.dram_energy_j_per_byte(kind=kind)) / 8 * 1e12


def _op_pj(dtype: str, node_nm: float) -> float | None:
    module = _technology()
    return None if module is None else float(module.mac_energy_j(dtype=dtype, node_nm=node_nm)) / 2 * 1e12


@group("technology")
def technology() -> Iterator[Check]:
    """Energies per access and per operation."""
    for kib, value in HOROWITZ_SRAM_PJ.items():
        yield Check(
            id=f"technology.sram.{kib}-kib",
            source="horowitz14, figure 1.1.9 (found-secondary)",
            quantity=f"64-bit read of {kib} KiB SRAM at 45 nm",
            unit="pJ",
            theirs=value,
            tolerance=0.15,
            gate=kib not in SRAM_SET_BY_KIB,
            compute=partial(_sram_pj, kib),
            note=IDENTITY if kib in SRAM_SET_BY_KIB else "the law is set at 8 and 32 KiB",
        )
    for kind, (value, source) in DRAM_PJ_PER_BIT.items():
        yield Check(
            id=f"technology.dram.{kind}",
            source=source,
            quantity=f"{kind} energy per bit",
            unit="pJ/bit",
            theirs=value,
            tolerance=0.10,
            gate=False,
            compute=partial(_dram_pj_per_bit, kind),
            note=IDENTITY,
        )
    yield against(
        fact("simba-1", "energy"),
        partial(_op_pj, "int8", 16.0),
        id="technology.simba.int8",
        tolerance=0.0,
        rule=Rule.AT_MOST,
        quantity="int8 operation at 16 nm, arithmetic alone, not above Simba's whole chip at its best",
    )
