"""The quality of the benchmark's perceptrons: a made-up, monotone measure of capacity."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2


def capacity(choice: Mapping[str, object]) -> float:
    """log2 of the weights, one less at int8: every doubling of the network is worth one."""
    hidden, layers = int(choice["hidden"]), int(choice["layers"])  # type: ignore[call-overload]
    weights = 256 * hidden + (layers - 1) * hidden * hidden + 10 * hidden
    return log2(weights) - (1.0 if choice["precision"] == "int8" else 0.0)
