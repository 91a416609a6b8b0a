"""One 2-d convolution without bias.

MACs: batch x out_channels x in_channels / groups x P x Q x kernel^2, where P and Q are
(size + 2 padding - dilation (kernel - 1) - 1) / stride + 1, rounded down.
"""

import torch
from torch import nn


def build(
    in_channels: int = 64,
    out_channels: int = 64,
    size: int = 56,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
    groups: int = 1,
    batch: int = 1,
):
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=False)
    return conv, (torch.empty(batch, in_channels, size, size),)
