"""Physical bounds: what no run of an op can beat on a device, whatever the library does.

Ceilings, not targets: where a source leaves a choice, the larger rate is taken, so that a time
below the bound is a mistake in the measurement or in the count of work, and needs an explanation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Ceilings of a device.

    `flop_per_s` is dense, by compute precision, at the highest clock. `near_bytes_per_s` bounds
    operands that caches may hold (level-1 or L2 bandwidth), `far_bytes_per_s` operands in memory.
    """

    flop_per_s: Mapping[str, float] = field(default_factory=dict)
    near_bytes_per_s: float | None = None
    far_bytes_per_s: float | None = None
    cache_bytes: float = 0.0
    """Last-level cache: output, and reused input, up to this size need not reach memory."""
    source: str = ""


def _tensor_core(
    *,
    fp32: float,
    tf32: float | None,
    fp16: float,
    fp8: float | None,
    int8: float,
    hbm: float,
    l2: float,
    cache: float,
    source: str,
) -> Peaks:
    """Dense peaks in TFLOP/s, memory in TB/s; fp32 is allowed the TF32 rate only under that name."""
    rates = {"fp32": fp32, "tf32": tf32, "bf16": fp16, "fp16": fp16, "fp8_e4m3": fp8, "int8": int8, "int4": fp16}
    return Peaks(
        flop_per_s=MappingProxyType({name: rate * 1e12 for name, rate in rates.items() if rate}),
        near_bytes_per_s=l2 * 1e12, far_bytes_per_s=hbm * 1e12, cache_bytes=cache, source=source,
    )  # fmt: skip


_HOPPER: dict[str, Any] = {
    "fp32": 66.9, "tf32": 535.3, "fp16": 1070.5, "fp8": 2141.0, "int8": 2141.0, "l2": 30.0, "cache": 60 * 2**20
}  # fmt: skip
"""132 SMs x 4,096 FLOP (fp16) a cycle x 1.98 GHz: the data sheet's 989.4 TFLOP/s hold at 1.83 GHz, but the driver
boosts to 1.98 (read on the H200 while it was measured)."""
_AMPERE: dict[str, Any] = {
    "fp32": 19.5, "tf32": 156.0, "fp16": 312.0, "fp8": None, "int8": 624.0, "l2": 15.0, "cache": 40 * 2**20
}  # fmt: skip

GPU_PEAKS: Mapping[str, Peaks] = MappingProxyType(
    {
        "H200": _tensor_core(
            **_HOPPER, hbm=4.917,
            source="NVIDIA H200 data sheet, 2024, at 1.98 GHz; memory 2 x 3,201 MHz (as the driver reads) x 6,144 bit, "
            "the sheet rounds to 4.8 TB/s; L2 rate estimated generously",
        ),
        "H100 PCIe": _tensor_core(
            fp32=51.2, tf32=409.7, fp16=819.5, fp8=1639.0, int8=1639.0, l2=30.0, cache=50 * 2**20, hbm=2.039,
            source="NVIDIA H100 data sheet, 2023: 114 SMs, tensor rates at the boost clock of 1.755 GHz instead of "
            "1.62; L2 rate estimated generously",
        ),
        "H100": _tensor_core(
            **_HOPPER, hbm=3.352, source="NVIDIA H100 data sheet, 2023, at 1.98 GHz; L2 rate estimated generously"
        ),
        "A100-SXM4-80GB": _tensor_core(**_AMPERE, hbm=2.039, source="NVIDIA A100 data sheet, 2021; L2 estimated"),
        "A100": _tensor_core(**_AMPERE, hbm=1.935, source="NVIDIA A100 80 GB PCIe data sheet, 2021; L2 estimated"),
        "L40S": _tensor_core(
            fp32=91.6, tf32=183.2, fp16=366.4, fp8=732.8, int8=732.8, l2=15.0, cache=96 * 2**20, hbm=0.864,
            source="NVIDIA L40S data sheet, 2023: 142 SMs x 1,024 FLOP (fp16) a cycle at the boost clock of 2.52 GHz; "
            "L2 rate estimated generously",
        ),
        "V100": _tensor_core(
            fp32=15.7, tf32=None, fp16=125.0, fp8=None, int8=62.8, l2=6.0, cache=6 * 2**20, hbm=0.9,
            source="NVIDIA V100 data sheet, 2020; L2 rate estimated generously",
        ),
    }
)  # fmt: skip
"""By a part of the CUDA device name; the first that matches holds."""

FLOP_PER_CYCLE: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "amx": {"fp32": 64, "bf16": 1024, "fp16": 1024, "int8": 2048},
        "avx512-zen4": {"fp32": 32, "bf16": 64, "fp16": 32, "int8": 128},
        "avx512": {"fp32": 64, "bf16": 128, "fp16": 128, "int8": 256},
        "avx2": {"fp32": 32, "bf16": 32, "fp16": 32, "int8": 64},
    }
)
"""Per core. avx512: two 512-bit FMA pipes (Intel 64 and IA-32 Optimization Manual, Skylake server and later);
bf16 VDPBF16PS doubles, VNNI quadruples. avx512-zen4: 512-bit operations are issued as two 256-bit halves on two pipes
(AMD Software Optimization Guide for Zen 4, 2023, section 2.11). amx: TDPBF16PS makes
16 x 16 x 32 MACs in 16 cycles, TDPBSSD twice that; fp16 as where the unit has it."""

LOAD_BYTES_PER_CYCLE: Mapping[str, int] = MappingProxyType({"amx": 192, "avx512-zen4": 96, "avx512": 192, "avx2": 96})
"""Per core, level-1 loads plus stores (Zen 4: 64 loaded and 32 stored; avx512: two loads and a store of 64 B)."""


def cpu_peaks(*, simd: str, cores: int, clock_hz: float, memory_bytes_per_s: float | None, cache_bytes: float) -> Peaks:
    """Ceilings of a CPU: cores x clock x work per cycle.

    Example: 2 cores of avx512-zen4 at 3.5 GHz: fp32 2 x 3.5e9 x 32 = 224 GFLOP/s.
    """
    if simd not in FLOP_PER_CYCLE:
        return Peaks(far_bytes_per_s=memory_bytes_per_s, cache_bytes=cache_bytes, source=f"no table for {simd}")
    rate = cores * clock_hz
    return Peaks(
        flop_per_s=MappingProxyType({name: rate * n for name, n in FLOP_PER_CYCLE[simd].items()}),
        near_bytes_per_s=rate * LOAD_BYTES_PER_CYCLE[simd], far_bytes_per_s=memory_bytes_per_s,
        cache_bytes=cache_bytes, source=f"{cores} cores x {clock_hz / 1e9:.2f} GHz x {simd} instruction widths",
    )  # fmt: skip


def bound_s(
    *,
    macs: float,
    in_bytes: float,
    out_bytes: float,
    precision: str,
    cold: bool,
    peaks: Peaks,
    algorithm_gain: float = 1.0,
) -> float | None:
    """Lower bound of the time [s], or None where no peak is known.

    max(2 macs / (gain x peak), near bytes / near rate, far bytes / far rate). Far bytes: a cold input comes
    from memory; of a warm input, and of an output, what exceeds the cache must. `algorithm_gain` is the
    reduction of multiplications that an exact algorithm may reach (Winograd F(4x4, 3x3): 4).

    Example: cold copy of 1 GB in and out, 4.8 TB/s, cache 60 MB: (1 + 0.94) GB / 4.8 TB/s = 404 us.
    """
    parts = []
    peak = peaks.flop_per_s.get(precision)
    if peak and macs:
        parts.append(2 * macs / (peak * algorithm_gain))
    if peaks.near_bytes_per_s:
        parts.append((in_bytes + out_bytes) / peaks.near_bytes_per_s)
    if peaks.far_bytes_per_s:
        from_memory = in_bytes if cold else max(0.0, in_bytes - peaks.cache_bytes)
        far = from_memory + max(0.0, out_bytes - peaks.cache_bytes)
        parts.append(far / peaks.far_bytes_per_s)
    return max(parts) if parts else None
