"""ResNet-18 (He et al., CVPR 2016): 11.69 M parameters, 1.814 GMAC at 224 x 224."""

import torch
from _resnet import Basic, ResNet


def build(batch: int = 1, resolution: int = 224, width: int = 64, classes: int = 1000):
    return ResNet(Basic, (2, 2, 2, 2), width, classes), (torch.empty(batch, 3, resolution, resolution),)
