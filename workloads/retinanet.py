"""RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017): a residual network, a pyramid, two heads.

The defaults are MLPerf inference's detector (ResNeXt-50 32x4d, 800 x 800, the 264 classes of its Open
Images subset); `backbone=resnet50 classes=91` is torchvision's (34.0 M parameters without its frozen norms,
151.5 GMAC); `backbone=resnet34 height=768 width=1280 classes=5` is the one of the Orin DLA's tables,
`head=False` its backbone alone. Boxes are not decoded: the maps of classes and offsets are the output.
"""

from typing import Literal

import torch
from _resnet import Basic, Bottleneck, ResNet, conv_bn
from torch import nn


class ResNextBottleneck(Bottleneck):
    """32 groups of 4 channels in the first stage (Xie et al., CVPR 2017, table 1)."""

    def __init__(self, c_in: int, width: int, stride: int):
        super().__init__(c_in, width, stride)
        inner = 2 * width
        grouped = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=32, bias=False)
        self.conv1 = conv_bn(c_in, inner, 1)
        self.conv2 = nn.Sequential(grouped, nn.BatchNorm2d(inner))
        self.conv3 = conv_bn(inner, width * self.expansion, 1)


class Head(nn.Module):
    """Four convolutions and the prediction, the same for every level."""

    def __init__(self, channels: int, outputs: int):
        super().__init__()
        self.convs = nn.Sequential(
            *(layer for _ in range(4) for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()))
        )
        self.predict = nn.Conv2d(channels, outputs, 3, padding=1)

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self.predict(self.convs(x)) for x in levels]


class RetinaNet(nn.Module):
    def __init__(self, backbone: ResNet, channels: tuple[int, ...], classes: int, anchors: int, head: bool):
        super().__init__()
        backbone.avgpool, backbone.fc = nn.Identity(), nn.Identity()
        self.backbone, self.head = backbone, head
        if head:
            self.lateral = nn.ModuleList(nn.Conv2d(c, 256, 1) for c in channels)
            self.smooth = nn.ModuleList(nn.Conv2d(256, 256, 3, padding=1) for _ in channels)
            self.p6 = nn.Conv2d(256, 256, 3, 2, padding=1)
            self.p7 = nn.Conv2d(256, 256, 3, 2, padding=1)
            self.classes, self.boxes = Head(256, anchors * classes), Head(256, anchors * 4)

    def forward(self, x: torch.Tensor) -> object:
        net = self.backbone
        c3 = net.layer2(net.layer1(net.maxpool(net.relu(net.conv1(x)))))
        c4 = net.layer3(c3)
        features = [c3, c4, net.layer4(c4)]
        if not self.head:
            return features
        merged = [lateral(c) for lateral, c in zip(self.lateral, features, strict=True)]
        for i in (1, 0):
            up = nn.functional.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode="nearest")
            merged[i] = merged[i] + up
        levels = [smooth(m) for smooth, m in zip(self.smooth, merged, strict=True)]
        levels.append(self.p6(levels[-1]))
        levels.append(self.p7(torch.relu(levels[-1])))
        return self.classes(levels), self.boxes(levels)


def build(
    batch: int = 1,
    backbone: Literal["resnet34", "resnet50", "resnext50"] = "resnext50",
    height: int = 800,
    width: int = 800,
    classes: int = 264,
    anchors: int = 9,
    head: bool = True,
):
    if backbone == "resnet34":
        net, channels = ResNet(Basic, (3, 4, 6, 3), 64, 1), (128, 256, 512)
    else:
        block = Bottleneck if backbone == "resnet50" else ResNextBottleneck
        net, channels = ResNet(block, (3, 4, 6, 3), 64, 1), (512, 1024, 2048)
    return RetinaNet(net, channels, classes, anchors, head), (torch.empty(batch, 3, height, width),)
