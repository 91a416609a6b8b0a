"""SSD-ResNet-34 at 1,200 x 1,200, MLPerf inference's heavy detector (v0.5 to v2.1): 216 GMAC.

The backbone is ResNet-34 up to its third stage, which keeps the resolution (stride 1), so that most
of the work is 256 channels at 150 x 150. Extra stages and heads as in the benchmark's reference model
(Liu et al., SSD, ECCV 2016); boxes are not decoded.
"""

import torch
from _resnet import Basic, ResNet
from torch import nn

EXTRA = ((256, 512, 2), (256, 512, 2), (128, 256, 2), (128, 256, 2), (128, 256, 1))
"""Inner channels, outputs and stride of the stages after the backbone."""
ANCHORS = (4, 6, 6, 6, 4, 4)
HEAD_STRIDES = (3, 3, 2, 2, 2, 2)
"""The heads look at every third or second position of their map."""


def extra(c_in: int, inner: int, c_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, inner, 1), nn.ReLU(), nn.Conv2d(inner, c_out, 3, stride, padding=stride - 1), nn.ReLU()
    )


class SsdResNet34(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        net = ResNet(Basic, (3, 4, 6, 3), 64, 1)
        first = net.layer3[0]
        first.conv1[0].stride = first.downsample[0].stride = (1, 1)
        self.backbone = nn.Sequential(net.conv1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3)
        channels = [256, *(c_out for _, c_out, _ in EXTRA)]
        self.extras = nn.ModuleList(extra(c_in, *shape) for c_in, shape in zip(channels, EXTRA, strict=False))
        heads = list(zip(channels, ANCHORS, HEAD_STRIDES, strict=True))
        self.boxes = nn.ModuleList(nn.Conv2d(c, 4 * a, 3, s, padding=1) for c, a, s in heads)
        self.classes = nn.ModuleList(nn.Conv2d(c, classes * a, 3, s, padding=1) for c, a, s in heads)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        levels = [self.backbone(x)]
        for stage in self.extras:
            levels.append(stage(levels[-1]))
        boxes = [head(level) for head, level in zip(self.boxes, levels, strict=True)]
        return boxes, [head(level) for head, level in zip(self.classes, levels, strict=True)]


def build(batch: int = 1, resolution: int = 1200, classes: int = 81):
    return SsdResNet34(classes), (torch.empty(batch, 3, resolution, resolution),)
