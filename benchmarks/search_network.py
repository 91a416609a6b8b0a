"""The network of `search-edp-wide-space.yaml`, of two kinds: dense 3x3 convolutions, or depthwise 3x3 with 1x1."""

from typing import Literal

import torch
from torch import nn


def unit(kind: str, c_in: int, c_out: int, stride: int) -> nn.Sequential:
    if kind == "dense":
        return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())
    depthwise = nn.Conv2d(c_in, c_in, 3, stride, padding=1, groups=c_in, bias=False)
    pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(c_in), nn.ReLU(), pointwise, nn.BatchNorm2d(c_out), nn.ReLU())


def build(kind: Literal["dense", "depthwise"] = "dense", width: int = 32, blocks: int = 2):
    """96 x 96 pixels; four stages of `blocks` units, each half as large and twice as wide as the one before."""
    parts: list[nn.Module] = [unit("dense", 3, width, 2)]
    c_in = width
    for stage in range(4):
        for i in range(blocks):
            c_out = width * 2**stage
            parts.append(unit(kind, c_in, c_out, 2 if stage and not i else 1))
            c_in = c_out
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 10)]
    return nn.Sequential(*parts).eval(), (torch.empty(1, 3, 96, 96),)
