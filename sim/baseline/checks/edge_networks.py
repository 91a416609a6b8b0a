"""Image classifiers of the Hailo-8 table as layer lists: what is multiplied, batch 1, no torch.

Batch normalisation is folded; activations, sums and pooling are left out. Where a vendor's network
differs from its paper, the variant is the one that gives the vendor's parameters and operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from sim.baseline.checks.networks import ConvLayer, inception_v1, square

Layers = Iterator[ConvLayer]


def conv(c: int, k: int, side: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> ConvLayer:
    """Square convolution named after itself; `side` is that of the output."""
    return square(f"conv{kernel}x{kernel} {c}-{k} @{side}", c, k, side, kernel, stride, groups=groups)


def depthwise(c: int, side: int, kernel: int = 3, stride: int = 1) -> ConvLayer:
    """One filter per channel."""
    return conv(c, c, side, kernel, stride, groups=c)


def linear(c: int, k: int, tokens: int = 1) -> ConvLayer:
    """The same matrix for every token."""
    return ConvLayer(name=f"linear {c}-{k} x{tokens}", c=c, k=k, p=tokens, q=1, r=1, s=1)


def attention(heads: int, dim_key: int, dim_value: int, queries: int, keys: int) -> Layers:
    """The two products per head: queries with keys, then the scores with values. Softmax is left out."""
    score = linear(heads * dim_key, heads * keys, queries)
    yield replace(score, name="queries x keys", groups=heads, stored=False)
    mix = linear(heads * keys, heads * dim_value, queries)
    yield replace(mix, name="scores x values", groups=heads, stored=False)


def divisible(width: float, by: int = 8) -> int:
    """Channels as MobileNet rounds them: nearest multiple, never more than 10 % below (Sandler et al., CVPR 2018)."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * width else rounded


def basic_trunk(blocks: tuple[int, ...], side: int) -> Layers:
    """ResNet-18 or -34 without its classifier on an image of this side (He et al., CVPR 2016)."""
    yield conv(3, 64, side // 2, 7, 2)
    c = 64
    for stage, count in enumerate(blocks):
        k, out = 64 << stage, side // (4 << stage)
        for block in range(count):
            stride = 2 if block == 0 and stage else 1
            yield conv(c, k, out, 3, stride)
            yield conv(k, k, out, 3)
            if c != k:
                yield conv(c, k, out, 1, stride)
            c = k


def bottleneck_trunk(
    blocks: tuple[int, ...], side: int, *, width: int = 64, groups: int = 1, stride_last: bool = False
) -> Layers:
    """ResNet-50 or ResNeXt trunk. `stride_last`: a stage halves in its last block, as TensorFlow-Slim's v1 does."""
    yield conv(3, 64, side // 2, 7, 2)
    c, out = 64, side // 4
    for stage, count in enumerate(blocks):
        mid, k = width << stage, 256 << stage
        for block in range(count):
            halves = (block == count - 1 and stage < len(blocks) - 1) if stride_last else (block == 0 and stage > 0)
            stride = 2 if halves else 1
            yield conv(c, mid, out)
            out //= stride
            yield conv(mid, mid, out, 3, stride, groups)
            yield conv(mid, k, out)
            if c != k:
                yield conv(c, k, out, 1, stride)
            c = k


def resnet_basic(blocks: tuple[int, ...]) -> Layers:
    """ResNet-18 or -34 at 224 pixels."""
    yield from basic_trunk(blocks, 224)
    yield linear(512, 1000)


def resnet_50_slim() -> Layers:
    """ResNet-50 v1 of TensorFlow-Slim: fewer operations than v1.5, since stages halve early."""
    yield from bottleneck_trunk((3, 4, 6, 3), 224, stride_last=True)
    yield linear(2048, 1000)


def resnext(blocks: tuple[int, ...]) -> Layers:
    """ResNeXt 32x4d (Xie et al., CVPR 2017)."""
    yield from bottleneck_trunk(blocks, 224, width=128, groups=32)
    yield linear(2048, 1000)


def repvgg(a: float, b: float) -> Layers:
    """RepVGG-A as deployed, plain 3x3 convolutions (Ding et al., CVPR 2021, table 2)."""
    c, side = 3, 224
    for count, width in ((1, 64), (2, int(64 * a)), (4, int(128 * a)), (14, int(256 * a)), (1, int(512 * b))):
        side //= 2
        for index in range(count):
            yield conv(c, width, side, 3, 1 if index else 2)
            c = width
    yield linear(c, 1000)


def inception_slim() -> Layers:
    """Inception-v1 of TensorFlow-Slim, which has 3x3 in place of 5x5."""
    for layer in inception_v1():
        yield replace(layer, r=3, s=3) if layer.r == 5 else layer


MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Output channels and stride of the separable blocks (Howard et al., 2017, table 1)."""


def mobilenet_v1_trunk(side: int) -> Layers:
    """The separable blocks on an image of this side."""
    out, c = ceil(side / 2), 32
    yield conv(3, c, out, 3, 2)
    for k, stride in MOBILENET_V1:
        out = ceil(out / stride)
        yield depthwise(c, out, 3, stride)
        yield conv(c, k, out)
        c = k


def mobilenet_v1() -> Layers:
    """MobileNet v1 at 224 pixels."""
    yield from mobilenet_v1_trunk(224)
    yield linear(1024, 1000)


def inverted(c: int, mid: int, k: int, side: int, kernel: int = 3, stride: int = 1) -> Layers:
    """Inverted bottleneck from a map of this side: 1x1 unless nothing is expanded, depthwise, 1x1."""
    if mid != c:
        yield conv(c, mid, side)
    out = ceil(side / stride)
    yield depthwise(mid, out, kernel, stride)
    yield conv(mid, k, out)


Stages = tuple[tuple[int, int, int, int, int], ...]
"""Expansion, channels, blocks, stride, kernel."""

MOBILENET_V2: Stages = (
    *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3)),
    *((6, 96, 3, 1, 3), (6, 160, 3, 2, 3), (6, 320, 1, 1, 3)),
)
"""Sandler et al., CVPR 2018, table 2."""


def inverted_stages(c: int, side: int, stages: Stages, width: float) -> Layers:
    """Stages of inverted bottlenecks from a map of this side."""
    for expansion, channels, blocks, first, kernel in stages:
        k = divisible(channels * width)
        for block in range(blocks):
            stride = first if block == 0 else 1
            yield from inverted(c, c * expansion, k, side, kernel, stride)
            c, side = k, ceil(side / stride)


def mobilenet_v2_trunk(side: int, width: float = 1.0) -> Layers:
    """Inverted bottlenecks and the last 1x1 on an image of this side."""
    stem = divisible(32 * width)
    yield conv(3, stem, ceil(side / 2), 3, 2)
    yield from inverted_stages(stem, ceil(side / 2), MOBILENET_V2, width)
    yield conv(divisible(320 * width), divisible(1280 * width), ceil(side / 32))


def mobilenet_v2(width: float) -> Layers:
    """MobileNet v2 at 224 pixels."""
    yield from mobilenet_v2_trunk(224, width)
    yield linear(divisible(1280 * width), 1000)


MOBILENET_V3_EDGE = (
    *((True, 3, 8, 32, 2), *((True, 3, 4, 32, 1),) * 3, (True, 3, 8, 48, 2), *((True, 3, 4, 48, 1),) * 3),
    *((False, 3, 8, 96, 2), *((False, 3, 4, 96, 1),) * 3, (False, 3, 8, 96, 1), *((False, 3, 4, 96, 1),) * 3),
    *((False, 5, 8, 160, 2), *((False, 5, 4, 160, 1),) * 3, (False, 3, 8, 192, 1)),
)
"""Fused, kernel, expansion, channels, stride of MobileNetEdgeTPU (TensorFlow-Slim's V3_EDGETPU): of MobileNet-v3's
variants the one with the vendor's 4.07 M parameters and 2 G operations."""


def mobilenet_v3_edge() -> Layers:
    """MobileNetEdgeTPU at 224 pixels."""
    yield conv(3, 32, 112, 3, 2)
    yield conv(32, 16, 112)
    side, c = 112, 16
    for fused, kernel, expansion, k, stride in MOBILENET_V3_EDGE:
        mid = c * expansion
        if fused:
            yield conv(c, mid, side // stride, kernel, stride)
            yield conv(mid, k, side // stride)
        else:
            yield from inverted(c, mid, k, side, kernel, stride)
        c, side = k, side // stride
    yield conv(c, 1280, side)
    yield linear(1280, 1000)


EFFICIENTNET_EDGE = (
    *((True, 3, 4, 24, 1, 1), (True, 3, 8, 32, 2, 2), (True, 3, 8, 48, 4, 2)),
    *((False, 5, 8, 96, 5, 2), (False, 5, 8, 144, 4, 1), (False, 5, 8, 192, 2, 2)),
)
"""Fused, kernel, expansion, channels, blocks, stride of EfficientNet-EdgeTPU (Gupta and Tan, 2019)."""


def efficientnet_edge(side: int, *, width: float, depth: float) -> Layers:
    """EfficientNet-EdgeTPU: the first block expands its own 24 channels, not the stem's 32.

    A fused block halves in its 1x1, after the full convolution, which gives the vendor's operations.
    """
    stem, out = divisible(32 * width), side // 2
    yield conv(3, stem, out, 3, 2)
    c, base = stem, divisible(24 * width)
    for fused, kernel, expansion, channels, blocks, first in EFFICIENTNET_EDGE:
        k = divisible(channels * width)
        for block in range(ceil(blocks * depth)):
            stride = first if block == 0 else 1
            mid = base * expansion
            if fused:
                yield conv(c, mid, out, kernel)
                yield conv(mid, k, out // stride, 1, stride)
            else:
                yield from inverted(c, mid, k, out, kernel, stride)
            c, base, out = k, k, ceil(out / stride)
    yield conv(c, divisible(1280 * width), out)
    yield linear(divisible(1280 * width), 1000)


EFFICIENTNET_B0: Stages = (
    *((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3)),
    *((6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
)
"""Tan and Le, ICML 2019, table 1."""


def efficientnet_lite(side: int, *, width: float, depth: float) -> Layers:
    """EfficientNet-lite: no squeeze; stem, head, and the depth of the first and last stage keep their size."""
    last = len(EFFICIENTNET_B0) - 1
    stages = tuple(
        (expansion, channels, blocks if index in (0, last) else ceil(blocks * depth), stride, kernel)
        for index, (expansion, channels, blocks, stride, kernel) in enumerate(EFFICIENTNET_B0)
    )
    yield conv(3, 32, ceil(side / 2), 3, 2)
    yield from inverted_stages(32, ceil(side / 2), stages, width)
    yield conv(divisible(320 * width), 1280, ceil(side / 32))
    yield linear(1280, 1000)


def resmlp_12() -> Layers:
    """ResMLP-S12: 196 patches of 384 channels (Touvron et al., 2021)."""
    yield conv(3, 384, 14, 16, 16)
    for _ in range(12):
        yield linear(196, 196, 384)
        yield linear(384, 1536, 196)
        yield linear(1536, 384, 196)
    yield linear(384, 1000)


def vit(dim: int, heads: int, *, blocks: int = 12, tokens: int = 197) -> Layers:
    """Vision transformer, patches of 16 at 224 pixels and a class token (Dosovitskiy et al., ICLR 2021)."""
    yield conv(3, dim, 14, 16, 16)
    for _ in range(blocks):
        yield linear(dim, 3 * dim, tokens)
        yield from attention(heads, dim // heads, dim // heads, tokens, tokens)
        yield linear(dim, dim, tokens)
        yield linear(dim, 4 * dim, tokens)
        yield linear(4 * dim, dim, tokens)
    yield linear(dim, 1000)
