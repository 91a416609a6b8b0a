"""When jobs arrive: periodic with phase and jitter, Poisson, bursts, a recorded file."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np

from sim.errors import ConfigError, UnitError, why
from sim.units import Dimension, parse_quantity

_ROUNDING = 1e-12
"""A whole number of periods in the length may come out this share too large: 1 / (1 / 49) is above 49."""


def periodic(
    *, period_s: float, phase_s: float, jitter_s: float, length_s: float, rng: np.random.Generator
) -> np.ndarray:
    """phase + k period + U(0, jitter), in order of time, below `length_s` before jitter."""
    count = max(0, ceil((length_s - phase_s) / period_s * (1 - _ROUNDING)))
    nominal = phase_s + period_s * np.arange(count)
    return np.sort(nominal + rng.uniform(0.0, jitter_s, len(nominal))) if jitter_s else nominal


def poisson(*, rate_hz: float, length_s: float, rng: np.random.Generator) -> np.ndarray:
    """Independent exponential gaps of mean 1 / rate."""
    expected = rate_hz * length_s
    times = np.cumsum(rng.exponential(1.0 / rate_hz, int(expected + 10 * np.sqrt(expected) + 20)))
    while times[-1] < length_s:
        times = np.concatenate([times, times[-1] + np.cumsum(rng.exponential(1.0 / rate_hz, len(times)))])
    return times[times < length_s]


def bursts(*, rate_hz: float, size: int, gap_s: float, length_s: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson bursts of `size` jobs, `gap_s` apart."""
    begins = poisson(rate_hz=rate_hz, length_s=length_s, rng=rng)
    times = np.sort((begins[:, None] + gap_s * np.arange(size)).ravel())
    return times[times < length_s]


def recorded(path: str | Path, *, length_s: float) -> np.ndarray:
    """One time with its unit per line ("12.5 ms"), in order; empty lines and # comments are skipped.

    Raises:
        ConfigError: no such file, or a broken line, with its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"arrivals file {path}: cannot be read ({why(error)})") from error
    times: list[float] = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        try:
            at = parse_quantity(text, Dimension.TIME)
        except UnitError as error:
            raise ConfigError(f"{path}:{number}: {error}") from error
        if times and at < times[-1]:
            raise ConfigError(f"{path}:{number}: {text} lies before the arrival above it; sort the file by time")
        times.append(at)
    if not times:
        raise ConfigError(f"{path}: holds no arrival; expected one time a line, such as 12.5 ms")
    found = np.array(times)
    return found[found < length_s]
