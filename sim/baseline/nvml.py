"""The six NVML readings that a record needs, through ctypes: the driver ships the library."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping

_SM, _MEMORY = 1, 2
"""nvmlClockType_t"""

THROTTLE = {
    0x4: "software power cap", 0x8: "hardware slowdown", 0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown", 0x80: "hardware power brake",
}  # fmt: skip
"""nvmlClocksEventReasons; idle (0x1) and application clocks (0x2) are no throttling."""


def held_down(marks: Iterable[str]) -> bool:
    """Whether the driver said of a point that something held its clock down."""
    return any(word in mark for mark in marks for word in THROTTLE.values())


class Nvml:
    """One GPU. Every reading is None (or empty) where the driver does not give it."""

    def __init__(self, uuid: str) -> None:
        self._library = self._handle = None
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        handle = ctypes.c_void_p()
        uuid = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        if library.nvmlInit_v2() == 0 and library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) == 0:
            self._library, self._handle = library, handle

    def _read(self, function: str, kind: type, *arguments: object) -> int | None:
        if self._library is None:
            return None
        value = kind()
        status = getattr(self._library, function)(self._handle, *arguments, ctypes.byref(value))
        return int(value.value) if status == 0 else None

    def energy_j(self) -> float | None:
        """Energy since the driver was loaded; the counter is in millijoules."""
        value = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if value is None else value * 1e-3

    def power_w(self) -> float | None:
        value = self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        return None if value is None else value * 1e-3

    def temperature_c(self) -> int | None:
        return self._read("nvmlDeviceGetTemperature", ctypes.c_uint, 0)

    def clocks(self) -> Mapping[str, float]:
        found = {
            "core_hz": self._read("nvmlDeviceGetClockInfo", ctypes.c_uint, _SM),
            "memory_hz": self._read("nvmlDeviceGetClockInfo", ctypes.c_uint, _MEMORY),
        }
        return {name: value * 1e6 for name, value in found.items() if value is not None}

    def throttled(self) -> str:
        """Active reasons for which the clock is held down, in words."""
        reasons = self._read("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong) or 0
        return ", ".join(word for bit, word in THROTTLE.items() if reasons & bit)

    def driver(self) -> str | None:
        if self._library is None:
            return None
        text = ctypes.create_string_buffer(96)
        return text.value.decode() if self._library.nvmlSystemGetDriverVersion(text, 96) == 0 else None
