"""RegNetX (Radosavovic et al., CVPR 2020, table 2); 1.6GF by default: 9.19 M parameters, 1.60 GMAC at 224 x 224.

400MF: 5.50 M and 0.41 GMAC, 3.2GF: 15.30 M and 3.18 GMAC (torchvision's model table).
"""

from typing import Literal

import torch
from torch import nn

SIZES = {
    "400mf": ((32, 64, 160, 400), (1, 2, 7, 12), 16),
    "1.6gf": ((72, 168, 408, 912), (2, 4, 10, 2), 24),
    "3.2gf": ((96, 192, 432, 1008), (2, 6, 15, 2), 48),
}
"""Channels and blocks of the four stages, channels of a group."""


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


class Block(nn.Module):
    """1x1, grouped 3x3, 1x1, and the way around them."""

    def __init__(self, c_in: int, c_out: int, stride: int, group: int):
        super().__init__()
        self.conv1, self.conv2 = conv_bn(c_in, c_out, 1), conv_bn(c_out, c_out, 3, stride, c_out // group)
        self.conv3 = conv_bn(c_out, c_out, 1)
        self.around = conv_bn(c_in, c_out, 1, stride) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x)))))
        return torch.relu(y + self.around(x))


class Trunk(nn.Module):
    """Stem and four stages; gives the results of the stages at strides 4, 8, 16 and 32."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], group: int):
        super().__init__()
        self.stem = conv_bn(3, 32, 3, 2)
        stages, c_in = [], 32
        for width, depth in zip(widths, depths, strict=True):
            blocks = [Block(width if i else c_in, width, 1 if i else 2, min(group, width)) for i in range(depth)]
            stages.append(nn.Sequential(*blocks))
            c_in = width
        self.stages = nn.ModuleList(stages)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        x, results = torch.relu(self.stem(image)), []
        for stage in self.stages:
            x = stage(x)
            results.append(x)
        return results


class RegNet(nn.Module):
    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], group: int, classes: int):
        super().__init__()
        self.trunk, self.head = Trunk(widths, depths, group), nn.Linear(widths[-1], classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(image)[-1].mean((2, 3)))


def build(
    batch: int = 1, resolution: int = 224, size: Literal["400mf", "1.6gf", "3.2gf"] = "1.6gf", classes: int = 1000
):
    return RegNet(*SIZES[size], classes), (torch.empty(batch, 3, resolution, resolution),)
