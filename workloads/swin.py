"""Swin Transformer (Liu et al., ICCV 2021, table 7); tiny by default: 28.29 M parameters, 4.49 GMAC at 224 x 224.

Figures as torchvision's model table gives them (swin_t, swin_s, swin_b), attention's products included.
"""

from typing import Literal

import torch
from torch import nn

SIZES = {"tiny": ((2, 2, 6, 2), 96, 3), "small": ((2, 2, 18, 2), 96, 3), "base": ((2, 2, 18, 2), 128, 4)}
"""Blocks a stage, channels and heads of the first stage (both doubled from stage to stage)."""


class WindowAttention(nn.Module):
    """Attention inside windows with a learned bias per relative position; shifted windows need a mask."""

    def __init__(self, width: int, heads: int, window: int, side: int, shift: int):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        row, column = at[:, :, None] - at[:, None, :] + window - 1
        self.register_buffer("index", (row * (2 * window - 1) + column).flatten(), persistent=False)
        if shift:  # pixels that the cyclic shift brought together must not see each other
            part = (torch.arange(side) >= side - window).long() + (torch.arange(side) >= side - shift).long()
            part = self.windows((3 * part[:, None] + part)[None, :, :, None])[0, :, :, 0]
            mask = torch.where(part[:, :, None] == part[:, None, :], 0.0, -100.0)
            self.register_buffer("mask", mask[:, None], persistent=False)

    def windows(self, x: torch.Tensor) -> torch.Tensor:
        """[N, H, W, C] as [N, windows, pixels of a window, C]."""
        n, height, width, c = x.shape
        w = self.window
        parts = x.view(n, height // w, w, width // w, w, c).transpose(2, 3)
        return parts.reshape(n, height * width // w**2, w * w, c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, height, width, c = x.shape
        w, shift = self.window, self.shift
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        q, k, v = self.qkv(self.windows(x)).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.bias[self.index].view(w * w, w * w, -1).permute(2, 0, 1)
        y = nn.functional.scaled_dot_product_attention(q, k, v, bias + self.mask if shift else bias)
        y = self.proj(y.transpose(2, 3).flatten(3))
        y = y.view(n, height // w, width // w, w, w, c).transpose(2, 3).reshape(n, height, width, c)
        return y.roll((shift, shift), (1, 2)) if shift else y


class Block(nn.Module):
    def __init__(self, width: int, attention: WindowAttention):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class Merge(nn.Module):
    """Four neighbours become one pixel of twice the channels."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        four = (x[:, i::2, j::2] for j in (0, 1) for i in (0, 1))
        return self.reduce(self.norm(torch.cat(tuple(four), dim=-1)))


class Swin(nn.Module):
    def __init__(self, depths: tuple[int, ...], width: int, heads: int, resolution: int, window: int, classes: int):
        super().__init__()
        self.patches, self.first_norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        parts: list[nn.Module] = []
        side = resolution // 4
        for stage, depth in enumerate(depths):
            if stage:
                parts.append(Merge(width))
                width, heads, side = 2 * width, 2 * heads, side // 2
            for i in range(depth):
                shift = window // 2 if i % 2 and side > window else 0
                parts.append(Block(width, WindowAttention(width, heads, window, side, shift)))
        self.parts, self.norm, self.head = nn.Sequential(*parts), nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.first_norm(self.patches(image).permute(0, 2, 3, 1))
        return self.head(self.norm(self.parts(x)).mean((1, 2)))


def build(
    batch: int = 1,
    resolution: int = 224,
    size: Literal["tiny", "small", "base"] = "tiny",
    window: int = 7,
    classes: int = 1000,
):
    if resolution % (32 * window):
        raise ValueError(f"resolution={resolution}: expected a multiple of 32 x window = {32 * window}")
    return Swin(*SIZES[size], resolution, window, classes), (torch.empty(batch, 3, resolution, resolution),)
