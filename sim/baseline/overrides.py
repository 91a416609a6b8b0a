"""`--override op=1.2ms`: a measured cost in place of the model's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sim.errors import MeasurementError

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

_TIME = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(s|ms|us|µs|ns)$")


def parse_time_s(text: str) -> float:
    """Seconds of "1.2ms", "340 us", "2e-3 s"; a bare number is refused.

    >>> parse_time_s("250 us")
    0.00025
    """
    match = _TIME.match(text.strip())
    if not match or float(match.group(1)) <= 0:
        raise MeasurementError(
            f'"{text}" is no duration: expected a positive number with s, ms, us or ns, such as 1.2ms'
        )
    return float(match.group(1)) * SECONDS[match.group(2)]


def parse_overrides(texts: Iterable[str]) -> Mapping[str, float]:
    """Op name -> seconds, of `op=TIME` texts. The last "=" separates; an op named twice is an error."""
    found: dict[str, float] = {}
    for text in texts:
        name, separator, duration = text.rpartition("=")
        if not separator or not name.strip():
            raise MeasurementError(f'override "{text}": expected op=TIME, such as layer1.0.conv1=1.2ms')
        if name.strip() in found:
            raise MeasurementError(f'override "{text}": {name.strip()} is given twice')
        found[name.strip()] = parse_time_s(duration)
    return found
