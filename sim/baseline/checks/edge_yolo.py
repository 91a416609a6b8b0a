"""YOLO detectors of the Hailo-8 table as layer lists without decoding of boxes."""

from __future__ import annotations

from sim.baseline.checks.edge_networks import Layers, attention, conv, depthwise

CLASSES = 80
"""Of COCO."""


def tiny_yolov3() -> Layers:
    """YOLOv3-tiny at 416 pixels (darknet's `yolov3-tiny.cfg`)."""
    c = 3
    for k, side in ((16, 416), (32, 208), (64, 104), (128, 52), (256, 26), (512, 13), (1024, 13)):
        yield conv(c, k, side, 3)
        c = k
    yield conv(1024, 256, 13)
    yield conv(256, 512, 13, 3)
    yield conv(512, 255, 13)
    yield conv(256, 128, 13)
    yield conv(128 + 256, 256, 26, 3)
    yield conv(256, 255, 26)


def tiny_yolov4() -> Layers:
    """YOLOv4-tiny at 416 pixels: three blocks whose second half of the channels passes by (`yolov4-tiny.cfg`)."""
    yield conv(3, 32, 208, 3, 2)
    yield conv(32, 64, 104, 3, 2)
    for k, side in ((64, 104), (128, 52), (256, 26)):
        yield conv(k, k, side, 3)
        yield conv(k // 2, k // 2, side, 3)
        yield conv(k // 2, k // 2, side, 3)
        yield conv(k, k, side)
    yield conv(512, 512, 13, 3)
    yield conv(512, 256, 13)
    yield conv(256, 512, 13, 3)
    yield conv(512, 255, 13)
    yield conv(256, 128, 13)
    yield conv(128 + 256, 256, 26, 3)
    yield conv(256, 255, 26)


def csp_stage(c: int, k: int, side: int, blocks: int) -> Layers:
    """DAMO-YOLO's fusion block: two 1x1, pairs of 3x3, one 1x1 over all of them (Xu et al., 2022)."""
    half = k // 2
    yield conv(c, half, side)
    yield conv(c, half, side)
    for _ in range(2 * blocks):
        yield conv(half, half, side, 3)
    yield conv(half * (blocks + 1), k, side)


def damoyolo_m() -> Layers:
    """DAMO-YOLO-M at 640 pixels: TinyNAS-L35 (kxkx), GiraffeNeckV2 at depth 1.5, ZeroHead.

    Its repository states 28.2 M parameters and 61.8 G operations; the vendor's 33.98 M are of another count.
    """
    yield conv(12, 32, 320, 3)
    c = 32
    for k, btn, side, blocks, spp in (
        (128, 64, 160, 1, False),
        (128, 64, 80, 3, False),
        (256, 256, 40, 7, False),
        (512, 256, 20, 2, True),
    ):
        yield conv(c, k, side, 3, 2)
        if spp:
            yield conv(k, k // 2, side)
            yield conv(2 * k, k, side)
        yield conv(k, k // 2, side)
        yield conv(k, k // 2, side)
        for _ in range(blocks):
            yield conv(k // 2, btn, side, 3)
            yield conv(btn, k // 2, side, 3)
        yield conv(k, k, side)
        c = k
    low, mid, high, blocks = 128, 256, 512, 4
    yield conv(mid, mid, 20, 3, 2)
    yield from csp_stage(mid + high, high, 20, blocks)
    yield conv(low, low, 40, 3, 2)
    yield from csp_stage(low + mid + high, mid, 40, blocks)
    yield from csp_stage(low + mid, low, 80, blocks)
    yield conv(low, low, 40, 3, 2)
    yield from csp_stage(low + mid, mid, 40, blocks)
    yield conv(mid, mid, 20, 3, 2)
    yield conv(mid, mid, 20, 3, 2)
    yield from csp_stage(2 * mid + high, high, 20, blocks)
    for k, side in ((low, 80), (mid, 40), (high, 20)):
        yield conv(k, CLASSES + 1, side, 3)
        yield conv(k, 4 * 17, side, 3)


def yolo_bottleneck(c: int, mid: int, side: int) -> Layers:
    """Two 3x3 (Ultralytics' `Bottleneck`)."""
    yield conv(c, mid, side, 3)
    yield conv(mid, c, side, 3)


def c3k2(c: int, k: int, side: int, *, deep: bool, ratio: float = 0.5) -> Layers:
    """YOLO11's block with one inner block; deep: the inner one is itself a split with two bottlenecks."""
    mid = int(k * ratio)
    yield conv(c, 2 * mid, side)
    if deep:
        inner = mid // 2
        yield conv(mid, inner, side)
        yield conv(mid, inner, side)
        for _ in range(2):
            yield from yolo_bottleneck(inner, inner, side)
        yield conv(2 * inner, mid, side)
    else:
        yield from yolo_bottleneck(mid, mid // 2, side)
    yield conv(3 * mid, k, side)


def sppf(c: int, side: int) -> Layers:
    """1x1, three poolings in turn, 1x1 over the four maps."""
    yield conv(c, c // 2, side)
    yield conv(2 * c, c, side)


def psa(c: int, side: int) -> Layers:
    """Half of the channels through one attention block (heads of 64, keys of 32) and its feed-forward."""
    dim = c // 2
    heads = dim // 64
    yield conv(c, 2 * dim, side)
    yield conv(dim, dim + 2 * 32 * heads, side)
    yield from attention(heads, 32, 64, side * side, side * side)
    yield depthwise(dim, side)
    yield conv(dim, dim, side)
    yield conv(dim, 2 * dim, side)
    yield conv(2 * dim, dim, side)
    yield conv(2 * dim, c, side)


def yolo_head(channels: tuple[int, int, int]) -> Layers:
    """Boxes by two 3x3, classes by separable pairs, at strides 8, 16 and 32 of 640 pixels."""
    boxes, classes = max(16, channels[0] // 4, 64), max(channels[0], CLASSES)
    for c, side in zip(channels, (80, 40, 20), strict=True):
        yield conv(c, boxes, side, 3)
        yield conv(boxes, boxes, side, 3)
        yield conv(boxes, 64, side)
        yield depthwise(c, side)
        yield conv(c, classes, side)
        yield depthwise(classes, side)
        yield conv(classes, classes, side)
        yield conv(classes, CLASSES, side)


def yolo11(width: float, top: int, *, deep: bool) -> Layers:
    """YOLO11 at 640 pixels, one block per stage; `top` bounds the channels before `width` (`yolo11.yaml`).

    `deep`: the larger sizes have the deep block in every stage, the smaller in the last ones.
    """
    w64, w128, w256, w512, w1024 = (int(min(c, top) * width) for c in (64, 128, 256, 512, 1024))
    yield conv(3, w64, 320, 3, 2)
    yield conv(w64, w128, 160, 3, 2)
    yield from c3k2(w128, w256, 160, deep=deep, ratio=0.25)
    yield conv(w256, w256, 80, 3, 2)
    yield from c3k2(w256, w512, 80, deep=deep, ratio=0.25)
    yield conv(w512, w512, 40, 3, 2)
    yield from c3k2(w512, w512, 40, deep=True)
    yield conv(w512, w1024, 20, 3, 2)
    yield from c3k2(w1024, w1024, 20, deep=True)
    yield from sppf(w1024, 20)
    yield from psa(w1024, 20)
    yield from c3k2(w1024 + w512, w512, 40, deep=deep)
    yield from c3k2(2 * w512, w256, 80, deep=deep)
    yield conv(w256, w256, 40, 3, 2)
    yield from c3k2(w256 + w512, w512, 40, deep=deep)
    yield conv(w512, w512, 20, 3, 2)
    yield from c3k2(w512 + w1024, w1024, 20, deep=True)
    yield from yolo_head((w256, w512, w1024))


def c2f(c: int, k: int, side: int, blocks: int, *, separable: bool = False) -> Layers:
    """YOLOv10's block; separable: three depthwise and two 1x1 per inner block (Wang et al., 2024)."""
    mid = k // 2
    yield conv(c, 2 * mid, side)
    for _ in range(blocks):
        if separable:
            yield depthwise(mid, side)
            yield conv(mid, 2 * mid, side)
            yield depthwise(2 * mid, side)
            yield conv(2 * mid, mid, side)
            yield depthwise(mid, side)
        else:
            yield from yolo_bottleneck(mid, mid, side)
    yield conv((2 + blocks) * mid, k, side)


def downsampling(c: int, k: int, side: int) -> Layers:
    """1x1 on the large map, then depthwise to a map of this side."""
    yield conv(c, k, 2 * side)
    yield depthwise(k, side, 3, 2)


def yolov10x() -> Layers:
    """YOLOv10-X at 640 pixels (`yolov10x.yaml`, width 1.25, channels up to 640).

    With the one-to-one head alone: 29.5 M parameters as the authors state; the vendor counts both heads.
    """
    yield conv(3, 80, 320, 3, 2)
    yield conv(80, 160, 160, 3, 2)
    yield from c2f(160, 160, 160, 3)
    yield conv(160, 320, 80, 3, 2)
    yield from c2f(320, 320, 80, 6)
    yield from downsampling(320, 640, 40)
    yield from c2f(640, 640, 40, 6, separable=True)
    yield from downsampling(640, 640, 20)
    yield from c2f(640, 640, 20, 3, separable=True)
    yield from sppf(640, 20)
    yield from psa(640, 20)
    yield from c2f(1280, 640, 40, 3, separable=True)
    yield from c2f(960, 320, 80, 3)
    yield conv(320, 320, 40, 3, 2)
    yield from c2f(960, 640, 40, 3, separable=True)
    yield from downsampling(640, 640, 20)
    yield from c2f(1280, 640, 20, 3, separable=True)
    yield from yolo_head((320, 640, 640))
