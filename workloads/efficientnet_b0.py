"""EfficientNet-B0 (Tan and Le, ICML 2019, tables 1 and 2): 5.29 M parameters, 0.39 GMAC at 224 x 224."""

import torch
from torch import nn

STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
"""Expansion, channels, blocks, stride of the first block, kernel."""


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(c_out)]


class SqueezeExcite(nn.Module):
    """Each channel scaled by a gate made of all channels' means (Hu et al., CVPR 2018)."""

    def __init__(self, width: int, squeezed: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.expand(nn.functional.silu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class MBConv(nn.Module):
    """Widen, filter each channel, gate, narrow; added to its input where the shapes agree."""

    def __init__(self, c_in: int, c_out: int, stride: int, expansion: int, kernel: int):
        super().__init__()
        hidden = c_in * expansion
        widen = [*conv_bn(c_in, hidden, 1), nn.SiLU(inplace=True)] if expansion > 1 else []
        filtered = [*conv_bn(hidden, hidden, kernel, stride, hidden), nn.SiLU(inplace=True)]
        gated = SqueezeExcite(hidden, max(1, c_in // 4))
        self.block = nn.Sequential(*widen, *filtered, gated, *conv_bn(hidden, c_out, 1))
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.residual else self.block(x)


def build(batch: int = 1, resolution: int = 224, classes: int = 1000):
    parts: list[nn.Module] = [*conv_bn(3, 32, 3, 2), nn.SiLU(inplace=True)]
    c_in = 32
    for expansion, c, blocks, stride, kernel in STAGES:
        for i in range(blocks):
            parts.append(MBConv(c_in, c, stride if i == 0 else 1, expansion, kernel))
            c_in = c
    parts += [*conv_bn(c_in, 1280, 1), nn.SiLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(1280, classes)), (torch.empty(batch, 3, resolution, resolution),)
