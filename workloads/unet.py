"""The denoising U-Net of Stable Diffusion 1 (Rombach et al., CVPR 2022): 859.52 M parameters.

One denoising step on `resolution` / 8 latents with 77 text tokens of width 768. Kim et al. (BK-SDM,
arXiv:2305.15798, table 1) give 860 M parameters and 339 GMAC a step at 512 x 512 without attention's
two products, which add 63.0 GMAC.
"""

import torch
from torch import nn


class Residual(nn.Module):
    """Two convolutions with group norms; the time step's embedding is added between them."""

    def __init__(self, c_in: int, c_out: int, time: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time, c_out)
        self.norm2, self.conv2 = nn.GroupNorm(32, c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.around = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        y = self.conv1(nn.functional.silu(self.norm1(x)))
        y = y + self.time(nn.functional.silu(time))[:, :, None, None]
        return self.around(x) + self.conv2(nn.functional.silu(self.norm2(y)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, source: int):
        super().__init__()
        self.heads = heads
        self.q, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width)
        self.k, self.v = (nn.Linear(source, width, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        projected = (self.q(x), self.k(source), self.v(source))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Spatial(nn.Module):
    """Pixels attend to each other, then to the text, then pass a gated perceptron."""

    def __init__(self, width: int, heads: int, text: int):
        super().__init__()
        self.norm, self.enter, self.leave = (
            nn.GroupNorm(32, width),
            nn.Conv2d(width, width, 1),
            nn.Conv2d(width, width, 1),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross = Attention(width, heads, width), Attention(width, heads, text)
        self.up, self.down = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        y = self.enter(self.norm(x)).flatten(2).transpose(1, 2)
        z = self.norms[0](y)
        y = y + self.own(z, z)
        y = y + self.cross(self.norms[1](y), text)
        value, gate = self.up(self.norms[2](y)).chunk(2, dim=-1)
        y = y + self.down(value * nn.functional.gelu(gate))
        return x + self.leave(y.transpose(1, 2).reshape(x.shape))


class Sample(nn.Module):
    """Half the resolution by stride, or twice by nearest neighbours and a convolution."""

    def __init__(self, width: int, up: bool):
        super().__init__()
        self.up, self.conv = up, nn.Conv2d(width, width, 3, 1 if up else 2, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else x)


class UNet(nn.Module):
    """Down, middle, up; each step up also reads what its step down made."""

    def __init__(self, width: int, multiples: tuple[int, ...], blocks: int, heads: int, text: int):
        super().__init__()
        time = 4 * width
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, time), nn.SiLU(), nn.Linear(time, time))
        self.first = nn.Conv2d(4, width, 3, padding=1)
        down, up, skips, c = [], [], [width], width
        for level, multiple in enumerate(multiples):
            attends = level < len(multiples) - 1
            for _ in range(blocks):
                down.append(self.stage(c, multiple * width, time, heads, text, attends))
                c = multiple * width
                skips.append(c)
            if attends:
                down.append(nn.ModuleList([Sample(c, False)]))
                skips.append(c)
        self.middle = nn.ModuleList([Residual(c, c, time), Spatial(c, heads, text), Residual(c, c, time)])
        for level, multiple in reversed(tuple(enumerate(multiples))):
            for block in range(blocks + 1):
                parts = self.stage(c + skips.pop(), multiple * width, time, heads, text, level < len(multiples) - 1)
                c = multiple * width
                up.append(nn.ModuleList([*parts, Sample(c, True)]) if level and block == blocks else parts)
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.norm, self.last = nn.GroupNorm(32, c), nn.Conv2d(c, 4, 3, padding=1)

    @staticmethod
    def stage(c_in: int, c_out: int, time: int, heads: int, text: int, attends: bool) -> nn.ModuleList:
        return nn.ModuleList([Residual(c_in, c_out, time), *([Spatial(c_out, heads, text)] if attends else [])])

    def forward(self, latents: torch.Tensor, step: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        half = torch.arange(self.width // 2, device=step.device, dtype=step.dtype) / (self.width // 2)
        angle = step[:, None] * torch.exp(-9.21 * half)
        time = self.time(torch.cat((angle.cos(), angle.sin()), dim=-1))
        x = self.first(latents)
        kept = [x]
        for stage in self.down:
            x = run(stage, x, time, text)
            kept.append(x)
        x = run(self.middle, x, time, text)
        for stage in self.up:
            x = run(stage, torch.cat((x, kept.pop()), dim=1), time, text)
        return self.last(nn.functional.silu(self.norm(x)))


def run(parts: nn.ModuleList, x: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    for part in parts:
        x = part(x, time, text)
    return x


def build(batch: int = 1, resolution: int = 512, width: int = 320, blocks: int = 2, heads: int = 8, tokens: int = 77):
    model = UNet(width, (1, 2, 4, 4), blocks, heads, 768)
    side = resolution // 8
    return model, (torch.empty(batch, 4, side, side), torch.empty(batch), torch.empty(batch, tokens, 768))
