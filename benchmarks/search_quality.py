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


MOBILENET_V2 = {
    0.35: {96: 45.5, 128: 50.8, 160: 55.7, 192: 58.2, 224: 60.3},
    0.5: {96: 51.2, 128: 57.7, 160: 61.0, 192: 63.9, 224: 65.4},
    0.75: {96: 58.8, 128: 63.2, 160: 66.4, 192: 68.7, 224: 69.8},
    1.0: {96: 60.3, 128: 65.3, 160: 68.8, 192: 70.7, 224: 71.8},
}
"""Width -> pixels -> ImageNet top-1 %: tensorflow/models, research/slim/nets/mobilenet/README.md, V2 checkpoints."""
OTHERS = {"resnet18": 69.758, "resnet50": 76.13, "tiny": 72.2, "small": 79.8}
"""Top-1 % at 224 pixels: torchvision's table of weights (V1) for ResNets; Touvron et al., "Training data-efficient
image transformers", ICML 2021, for DeiT-Ti and DeiT-S. Both recalled."""
LOSS = {
    "fp16": {"mobilenet_v2": 0.0, "resnet18": 0.0, "resnet50": 0.0, "vit": 0.0},
    "int8": {"mobilenet_v2": 0.5, "resnet18": 0.25, "resnet50": 0.25, "vit": 0.5},
    "int4": {"mobilenet_v2": 6.0, "resnet18": 1.0, "resnet50": 1.0, "vit": 3.0},
}
"""Points that a precision costs after quantisation-aware training, estimated: about a quarter of a point at 8 bits in
torchvision's quantised models; at 4 bits published results agree on the order (dense networks least, depthwise ones
most), not on the size."""


def top1(choice: Mapping[str, object]) -> float:
    """ImageNet top-1 % of a published network less the precision's loss."""
    network = str(choice["workload"])
    loss = LOSS[str(choice["precision"])][network]
    if network == "mobilenet_v2":
        return MOBILENET_V2[float(choice["width"])][int(choice["resolution"])] - loss  # type: ignore[call-overload,arg-type]
    return OTHERS[str(choice.get("variant", network))] - loss


def two_kinds(choice: Mapping[str, object]) -> float:
    """log2 of the weights of `search_network.py`, those of depthwise networks counted five times: MobileNet's 4.2 M are
    1.1 points of ImageNet top-1 below the 29.3 M of the same network with dense convolutions (Howard et al.,
    "MobileNets", 2017, table 4). One less at int8; at int4 two less, four of depthwise networks (estimated)."""
    depthwise = choice["kind"] == "depthwise"
    width, blocks = int(choice["width"]), int(choice["blocks"])  # type: ignore[call-overload]
    weights, c_in = 27 * width + 80 * width, width
    for stage in range(4):
        for _ in range(blocks):
            c_out = width << stage
            weights += c_in * (9 + c_out) if depthwise else 9 * c_in * c_out
            c_in = c_out
    loss = {"int4": 4.0 if depthwise else 2.0, "int8": 1.0}.get(str(choice["precision"]), 0.0)
    return log2(weights * (5 if depthwise else 1)) - loss
