"""The quality of the benchmark's perceptrons: a made-up, monotone measure of capacity."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2


def capacity(choice: Mapping[str, object]) -> float:
    """log2 of the weights, one less at int8: every doubling of the network is worth one."""
    hidden, layers = int(choice["hidden"]), int(choice["layers"])  # type: ignore[call-overload]
    weights = 256 * hidden + (layers - 1) * hidden * hidden + 10 * hidden
    return log2(weights) - (1.0 if choice["precision"] == "int8" else 0.0)


def convolutional(choice: Mapping[str, object]) -> float:
    """The same of the residual networks of `digits_cnn`: log2 of the weights of its 3x3 convolutions, one less at
    int8 and two at int4."""
    width, blocks, stages = (int(choice[name]) for name in ("width", "blocks", "stages"))  # type: ignore[call-overload]
    weights = sum(9 * (width << stage) ** 2 * (2 * blocks - (0.5 if stage else 0.0)) for stage in range(stages))
    return log2(weights) - {"int4": 2.0, "int8": 1.0}.get(str(choice["precision"]), 0.0)
