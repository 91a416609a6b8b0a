"""SSD, CenterNet and DETR as layer lists without decoding of boxes; every network of the Hailo-8 tables by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from math import ceil

from sim.baseline.checks.edge_networks import (
    Layers,
    attention,
    basic_trunk,
    bottleneck_trunk,
    conv,
    depthwise,
    efficientnet_edge,
    efficientnet_lite,
    inception_slim,
    linear,
    mobilenet_v1,
    mobilenet_v1_trunk,
    mobilenet_v2,
    mobilenet_v2_trunk,
    mobilenet_v3_edge,
    repvgg,
    resmlp_12,
    resnet_50_slim,
    resnet_basic,
    resnext,
    vit,
)
from sim.baseline.checks.edge_yolo import CLASSES, damoyolo_m, tiny_yolov3, tiny_yolov4, yolo11, yolov10x
from sim.baseline.checks.networks import ConvLayer

SSD_CLASSES, DETR_CLASSES = 91, 92
"""COCO's numbers run to 90; with background, and with DETR's empty class."""
SSD_BOXES = (3, 6, 6, 6, 6, 6)
"""Boxes per cell of the six maps (TensorFlow object detection, `ssd_mobilenet_*_coco`)."""


def ssd_mobilenet_v1() -> Layers:
    """SSD at 300 pixels: heads of 1x1 on maps of 19, 10, 5, 3, 2 and 1 (Liu et al., ECCV 2016)."""
    yield from mobilenet_v1_trunk(300)
    maps, c, side = [(512, 19), (1024, 10)], 1024, 10
    for mid, k in ((256, 512), (128, 256), (128, 256), (64, 128)):
        yield conv(c, mid, side)
        side = ceil(side / 2)
        yield conv(mid, k, side, 3, 2)
        maps.append((k, side))
        c = k
    for (channels, at), boxes in zip(maps, SSD_BOXES, strict=True):
        yield conv(channels, boxes * (4 + SSD_CLASSES), at)


def ssd_mobilenet_v2() -> Layers:
    """SSDLite at 300 pixels: separable heads and extra maps (Sandler et al., CVPR 2018, section 6.2)."""
    yield from mobilenet_v2_trunk(300)
    maps, c, side = [(576, 19), (1280, 10)], 1280, 10
    for mid, k in ((256, 512), (128, 256), (128, 256), (64, 128)):
        yield conv(c, mid, side)
        side = ceil(side / 2)
        yield depthwise(mid, side, 3, 2)
        yield conv(mid, k, side)
        maps.append((k, side))
        c = k
    for (channels, at), boxes in zip(maps, SSD_BOXES, strict=True):
        for outputs in (4, SSD_CLASSES):
            yield depthwise(channels, at)
            yield conv(channels, boxes * outputs, at)


def upsampling(c: int, k: int, side: int) -> ConvLayer:
    """Transposed convolution 4x4, stride 2, of a map of this side: per input pixel four outputs of 2x2 taps."""
    return replace(conv(c, 4 * k, side, 2), name=f"transposed {c}-{k} @{2 * side}")


def centernet(trunk: Iterable[ConvLayer], c: int) -> Layers:
    """CenterNet at 512 pixels: three times 3x3 and doubling, three heads (Zhou et al., 2019; GluonCV, no deformable).

    The vendor counts 5 G operations more: those of all 16 taps per output of the transposed convolutions, of
    which 12 meet an inserted zero.
    """
    yield from trunk
    side = 16
    for k in (256, 128, 64):
        yield conv(c, k, side, 3)
        yield upsampling(k, k, side)
        c, side = k, 2 * side
    for outputs in (CLASSES, 2, 2):
        yield conv(64, 64, side, 3)
        yield conv(64, outputs, side)


def multi_head(dim: int, heads: int, queries: int, keys: int) -> Layers:
    """Projections of queries, keys and values, the two products, and the output's projection."""
    yield linear(dim, dim, queries)
    yield linear(dim, dim, keys)
    yield linear(dim, dim, keys)
    yield from attention(heads, dim // heads, dim // heads, queries, keys)
    yield linear(dim, dim, queries)


def detr(trunk: Iterable[ConvLayer], c: int) -> Layers:
    """DETR at 800 pixels: six encoders over 25 x 25 tokens, six decoders of 100 queries (Carion et al., ECCV 2020).

    On ResNet-50 it has the vendor's parameters; those of the vendor's ResNet-18 file are 3.6 M more, part of
    them positions kept as constants.
    """
    dim, heads, hidden, queries, tokens = 256, 8, 2048, 100, 25 * 25
    yield from trunk
    yield conv(c, dim, 25)
    for _ in range(6):
        yield from multi_head(dim, heads, tokens, tokens)
        yield linear(dim, hidden, tokens)
        yield linear(hidden, dim, tokens)
    for _ in range(6):
        yield from multi_head(dim, heads, queries, queries)
        yield from multi_head(dim, heads, queries, tokens)
        yield linear(dim, hidden, queries)
        yield linear(hidden, dim, queries)
    yield linear(dim, DETR_CLASSES, queries)
    for outputs in (dim, dim, 4):
        yield linear(dim, outputs, queries)


EDGE_NETWORKS: Mapping[str, Callable[[], Layers]] = {
    "efficientnet_l": partial(efficientnet_edge, 300, width=1.2, depth=1.4),
    "efficientnet_m": partial(efficientnet_edge, 240, width=1.0, depth=1.1),
    "inception_v1": inception_slim,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2_1.0": partial(mobilenet_v2, 1.0),
    "mobilenet_v2_1.4": partial(mobilenet_v2, 1.4),
    "mobilenet_v3": mobilenet_v3_edge,
    "repvgg_a1": partial(repvgg, 1.0, 2.5),
    "repvgg_a2": partial(repvgg, 1.5, 2.75),
    "resmlp12_relu": resmlp_12,
    "resnet_v1_34": partial(resnet_basic, (3, 4, 6, 3)),
    "resnet_v1_50": resnet_50_slim,
    "resnext26_32x4d": partial(resnext, (2, 2, 2, 2)),
    "resnext50_32x4d": partial(resnext, (3, 4, 6, 3)),
    "vit_base_bn": partial(vit, 768, 12),
    "vit_tiny_bn": partial(vit, 192, 3),
    "centernet_resnet_v1_18_postprocess": lambda: centernet(basic_trunk((2, 2, 2, 2), 512), 512),
    "centernet_resnet_v1_50_postprocess": lambda: centernet(bottleneck_trunk((3, 4, 6, 3), 512), 2048),
    "damoyolo_tinynasL35_M": damoyolo_m,
    "detr_resnet_v1_18_bn": lambda: detr(basic_trunk((2, 2, 2, 2), 800), 512),
    "ssd_mobilenet_v1": ssd_mobilenet_v1,
    "ssd_mobilenet_v2": ssd_mobilenet_v2,
    "tiny_yolov3": tiny_yolov3,
    "tiny_yolov4": tiny_yolov4,
    "yolov10x": yolov10x,
    "yolov11s": partial(yolo11, 0.5, 1024, deep=False),
    "yolov11m": partial(yolo11, 1.0, 512, deep=True),
}
"""By the vendor's name; input sides are those of the vendor's tables."""

HELD_OUT: Mapping[str, Callable[[], Layers]] = {
    "detr_resnet_v1_50": lambda: detr(bottleneck_trunk((3, 4, 6, 3), 800), 2048),
    "efficientnet_lite0": partial(efficientnet_lite, 224, width=1.0, depth=1.0),
    "efficientnet_lite1": partial(efficientnet_lite, 240, width=1.0, depth=1.1),
    "efficientnet_lite2": partial(efficientnet_lite, 260, width=1.1, depth=1.2),
    "efficientnet_lite3": partial(efficientnet_lite, 280, width=1.2, depth=1.4),
    "efficientnet_lite4": partial(efficientnet_lite, 300, width=1.4, depth=1.8),
    "efficientnet_s": partial(efficientnet_edge, 224, width=1.0, depth=1.0),
    "resnet_v1_18": partial(resnet_basic, (2, 2, 2, 2)),
    "vit_small_bn": partial(vit, 384, 6),
    "yolov11n": partial(yolo11, 0.25, 1024, deep=False),
}
"""Networks of the same tables that were described and estimated only after the model of the chip stood: those that
the generators of the others give, and EfficientNet-lite."""
