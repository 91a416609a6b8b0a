"""ConvNeXt (Liu et al., CVPR 2022); tiny by default: 28.59 M parameters, 4.46 GMAC at 224 x 224."""

from typing import Literal

import torch
from torch import nn

SIZES = {"tiny": ((3, 3, 9, 3), 96), "small": ((3, 3, 27, 3), 96), "base": ((3, 3, 27, 3), 128)}
"""Blocks a stage, channels of the first stage (doubled from stage to stage)."""


class Norm2d(nn.LayerNorm):
    """Layer norm over the channels of [N, C, H, W]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """7x7 depthwise convolution, norm, two linear layers, a learned scale; added to its input."""

    def __init__(self, width: int):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.fc2(nn.functional.gelu(self.fc1(y)))
        return x + y.permute(0, 3, 1, 2)


def build(batch: int = 1, resolution: int = 224, size: Literal["tiny", "small", "base"] = "tiny", classes: int = 1000):
    depths, width = SIZES[size]
    parts: list[nn.Module] = [nn.Conv2d(3, width, 4, 4), Norm2d(width, eps=1e-6)]
    for stage, depth in enumerate(depths):
        if stage:
            parts += [Norm2d(width, eps=1e-6), nn.Conv2d(width, 2 * width, 2, 2)]
            width *= 2
        parts += [Block(width) for _ in range(depth)]
    parts += [nn.AdaptiveAvgPool2d(1), Norm2d(width, eps=1e-6), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*parts), (torch.empty(batch, 3, resolution, resolution),)
