"""MobileNetV2 (Sandler et al., CVPR 2018, table 2): 3.505 M parameters, 0.301 GMAC at 224 x 224."""

import torch
from torch import nn

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, stride of the first block."""


def channels(value: float) -> int:
    """Rounded to a multiple of 8, never more than 10 % below the value."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def conv_bn_relu(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to its input where the shapes agree."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int):
        super().__init__()
        hidden = c_in * expansion
        parts: list[nn.Module] = [conv_bn_relu(c_in, hidden, 1)] if expansion > 1 else []
        parts += [
            conv_bn_relu(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        ]
        self.conv = nn.Sequential(*parts)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def build(batch: int = 1, resolution: int = 224, width: float = 1.0, classes: int = 1000):
    c_in = channels(32 * width)
    parts: list[nn.Module] = [conv_bn_relu(3, c_in, 3, 2)]
    for expansion, c, blocks, stride in STAGES:
        for i in range(blocks):
            parts.append(InvertedResidual(c_in, channels(c * width), stride if i == 0 else 1, expansion))
            c_in = channels(c * width)
    last = channels(1280 * max(1.0, width))
    parts += [conv_bn_relu(c_in, last, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes)]
    return nn.Sequential(*parts), (torch.empty(batch, 3, resolution, resolution),)
