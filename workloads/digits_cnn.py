"""A small residual CNN for the cluttered-digits task (24 x 24 grey images, ten classes)."""

import torch
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions with a residual connection; the first may have a stride."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.shortcut = nn.Identity()
        if stride != 1 or channels != channels_in:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DigitsCnn(nn.Module):
    def __init__(self, width: int, blocks: int, stages: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        body, channels = [], width
        for stage in range(stages):
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                body.append(Block(channels, width << stage, stride))
                channels = width << stage
        self.body = nn.Sequential(*body)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, 10)

    def forward(self, x):
        x = self.body(self.relu(self.norm(self.stem(x))))
        return self.head(self.pool(x).flatten(1))


def build(batch: int = 1, width: int = 12, blocks: int = 1, stages: int = 3):
    """A residual CNN: `stages` of `blocks` blocks, `width` channels in the first, doubled in each."""
    return DigitsCnn(width, blocks, stages), (torch.zeros(batch, 1, 24, 24),)


def task():
    """What `dovetail compress` and a search with `method: train` teach it and judge it by."""
    from sim.compression.tasks.digits import DigitsTask

    return DigitsTask()
