"""Fitted constants by generation, and their transfer to GPUs that nobody measured.

The YAML files in `fitted/` hold one generation each: the device, its clock, the source of the
measurements, the date and the held-out error of the fit, and the constants of each kernel kind.
Transfer (`constants_for`): the device itself, else a GPU of its generation, else the joint set of its
kernel library (fitted over all measured GPUs, `sim.baseline.joint`), else the nearest that has the
kind. Rates of matrix units, lanes, L2 and DRAM come from the chip file, so that a constant is a share of them or a
wait; the few times inside a CTA that remain scale with the clock; what a chip file states of its DRAM and its power
limit replaces what was measured elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from sim.cost.gpu.constants import (
    Constants,
    ConvConstants,
    DecodeConstants,
    GemmConstants,
    PrefillConstants,
    VectorConstants,
)
from sim.cost.gpu.device import CUDA_CORE_DTYPES, LIBRARIES, Generation, GpuDevice
from sim.errors import CalibrationError, nearest

KINDS: Mapping[str, type[Constants]] = {
    "gemm": GemmConstants, "prefill": PrefillConstants, "decode": DecodeConstants, "conv": ConvConstants,
    "vector_binary": VectorConstants, "vector_unary": VectorConstants,
    "vector_softmax": VectorConstants, "vector_layer_norm": VectorConstants,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSet:
    """What was fitted on one device."""

    name: str
    generation: Generation
    clock_hz: float
    date: str
    source: str
    constants: Mapping[str, Any]
    """kernel kind -> its constants, of the class that KINDS gives"""
    error: Mapping[str, Mapping[str, float]]
    """kernel kind -> held-out rows, median, mean, p90, bias (fractions)"""
    joint: bool = False
    """Fitted over several GPUs; `generation` and `clock_hz` are those of the library's GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuConstants:
    """One GPU's constants for every kernel kind, with where each came from."""

    gemm: GemmConstants
    prefill: PrefillConstants
    decode: DecodeConstants
    conv: ConvConstants
    vector: Mapping[str, VectorConstants]
    """class of vector kernels (`sim.cost.gpu.vector.kernel_class`) -> constants"""
    lane_efficiency: float | None = None
    """`gemm.matrix_efficiency` of products on the CUDA cores: stated by the chip file, or that of the measured GPU."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """kernel kind -> "a100-sxm, measured" | "..., same generation" | "..., generation changed" | "data sheet" """

    def gemm_for(self, dtype: str) -> GemmConstants:
        """Constants of products in `dtype`: what a power limit leaves of the matrix units says nothing of fp32."""
        if self.lane_efficiency is None or dtype not in CUDA_CORE_DTYPES:
            return self.gemm
        return replace(self.gemm, matrix_efficiency=self.lane_efficiency)


def parse_set(document: Mapping[str, Any], where: str) -> FittedSet:
    """Check one file. Raises CalibrationError: unknown kind or constant, a missing one, with its place."""
    constants = {}
    for kind, values in document["constants"].items():
        if kind not in KINDS:
            raise CalibrationError(f'{where}: unknown kernel kind "{kind}".{nearest(kind, KINDS)}')
        known = [f.name for f in fields(KINDS[kind])]
        for name in values:
            if name not in known:
                raise CalibrationError(f'{where}: {kind} has no constant "{name}".{nearest(name, known)}')
        missing = [name for name in known if name not in values]
        if missing:
            raise CalibrationError(f"{where}: {kind} lacks {', '.join(missing)}")
        constants[kind] = KINDS[kind](**{name: float(value) for name, value in values.items()})
    return FittedSet(
        name=document["name"],
        generation=Generation(document["generation"]),
        clock_hz=float(document["clock_hz"]),
        date=str(document["date"]),
        source=document["source"],
        constants=constants,
        error=document["error"],
        joint=bool(document.get("joint", False)),
    )


@lru_cache(maxsize=1)
def fitted_sets() -> Mapping[str, FittedSet]:
    """Every bundled set by name."""
    folder = resources.files("sim.cost.gpu") / "fitted"
    sets = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            found = parse_set(yaml.safe_load(file.read_text(encoding="utf-8")), file.name)
            sets[found.name] = found
    return sets


def _distance(fitted: FittedSet, device: GpuDevice) -> tuple:
    """Order of preference: the device itself, its generation, the library's joint set, the library, age."""
    order = list(Generation)
    return (
        fitted.name != device.name,
        fitted.joint or fitted.generation is not device.generation,
        LIBRARIES[fitted.generation].warp_specialised is not device.library.warp_specialised,
        not fitted.joint,
        abs(order.index(fitted.generation) - order.index(device.generation)),
        fitted.name,
    )


def constants_for(device: GpuDevice, calibration: str = "auto") -> GpuConstants:
    """The constants to cost `device` with.

    Args:
        calibration: "auto" = each kind from the nearest fitted device; "none" = data sheet, perfect
            efficiency and no overhead (never faster than the roofline); or the name of a fitted set
            (kinds that it lacks come from the nearest).
    Raises: CalibrationError: unknown name.
    """
    if calibration == "none":
        bare = {kind: family.datasheet() for kind, family in KINDS.items()}
        return _bundle(bare, dict.fromkeys(KINDS, "data sheet"))
    sets = fitted_sets()
    if calibration != "auto" and calibration not in sets:
        raise CalibrationError(
            f'no fitted GPU constants "{calibration}": expected auto, none, {", ".join(sets)}.'
            f"{nearest(calibration, sets)}"
        )
    chosen, origin, lanes = {}, {}, None
    for kind in KINDS:
        candidates = [s for s in sets.values() if kind in s.constants]
        best = min(candidates, key=lambda s: (s.name != calibration, _distance(s, device)))
        constants = best.constants[kind]
        if best.name == device.name and best.clock_hz == device.clock_hz:
            origin[kind] = f"{best.name}, measured"
        else:
            same = best.generation is device.generation and not best.joint
            origin[kind] = f"{best.name}, {'same generation' if same else 'generation changed'}"
            lanes = device.stated.get("lane_efficiency", constants.matrix_efficiency) if kind == "gemm" else lanes
            constants = _stated(kind, constants.at_clock(device.clock_hz / best.clock_hz), device)
        chosen[kind] = constants
    return replace(_bundle(chosen, origin), lane_efficiency=lanes)


def _stated(kind: str, constants: Any, device: GpuDevice) -> Any:
    """The constants with what the chip file states: DRAM's in every kind, the matrix rate's in products alone
    (attention draws less power: its softmax leaves the matrix units idle)."""
    names = [n for n in device.stated if hasattr(constants, n) and (n == "dram_efficiency" or kind == "gemm")]
    return replace(constants, **{n: device.stated[n] for n in names})


def _bundle(chosen: Mapping[str, Any], origin: Mapping[str, str]) -> GpuConstants:
    vector = {kind.removeprefix("vector_"): c for kind, c in chosen.items() if kind.startswith("vector_")}
    return GpuConstants(
        gemm=chosen["gemm"], prefill=chosen["prefill"], decode=chosen["decode"], conv=chosen["conv"],
        vector=vector, origin=dict(origin),
    )  # fmt: skip
