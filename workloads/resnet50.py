"""ResNet-50 v1.5 (He et al., CVPR 2016): 25.557 M parameters, 4.089 GMAC at 224 x 224."""

import torch
from _resnet import Bottleneck, ResNet


def build(batch: int = 1, resolution: int = 224, width: int = 64, classes: int = 1000):
    return ResNet(Bottleneck, (3, 4, 6, 3), width, classes), (torch.empty(batch, 3, resolution, resolution),)
