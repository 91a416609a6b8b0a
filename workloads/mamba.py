"""Mamba (Gu and Dao, "Linear-Time Sequence Modeling with Selective State Spaces", arXiv:2312.00752).

`mamba-130m` by default: 24 layers of width 768, 129.14 M parameters (the authors' released weights),
embedding tied to the head. MACs a token: the products of each layer (3 x 2 width^2 and the small ones
of the scan's parameters), its convolution, and the head on the last token; the scan itself is vector
work, one op in its own region.
"""

from typing import Literal

import torch
from _ops import selective_scan
from llama import RMSNorm
from torch import nn


class Mixer(nn.Module):
    """Gated selective state space: convolution over the last four tokens, then the scan.

    In decode the last inputs and the states are kept and updated in place.
    """

    def __init__(self, width: int, state: int, expand: int, kernel: int, batch: int, decode: bool):
        super().__init__()
        inner, rank = expand * width, -(-width // 16)
        self.sizes = (rank, state, state)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, kernel, groups=inner, padding=0 if decode else kernel - 1)
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.a_log, self.d = nn.Parameter(torch.zeros(inner, state)), nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self.decode = decode
        if decode:
            self.register_buffer("last", torch.zeros(batch, inner, kernel), persistent=False)
            self.register_buffer("state", torch.zeros(batch, inner, state), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        x = x.transpose(1, 2)
        if self.decode:
            self.last.copy_(torch.cat((self.last[:, :, 1:], x), dim=-1))
            x = self.last
        x = nn.functional.silu(self.conv(x)[..., :length]).transpose(1, 2)
        dt, b, c = self.x_proj(x).split(self.sizes, dim=-1)
        delta, a = nn.functional.softplus(self.dt_proj(dt)), -torch.exp(self.a_log)
        y = self.step(x, delta, a, b, c) if self.decode else selective_scan(x, delta, a, b, c, self.d)
        return self.out_proj(y * nn.functional.silu(gate))

    def step(self, x: torch.Tensor, delta: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor):
        """One step of the scan on the kept state."""
        delta, x = delta[:, 0, :, None], x[:, 0, :, None]
        self.state.mul_((delta * a).exp()).add_(delta * b * x)
        return ((self.state * c).sum(-1) + self.d * x[:, :, 0])[:, None]


class Mamba(nn.Module):
    def __init__(self, mixers: list[Mixer], width: int, vocabulary: int):
        super().__init__()
        self.embed, self.mixers = nn.Embedding(vocabulary, width), nn.ModuleList(mixers)
        self.norms, self.last_norm = nn.ModuleList(RMSNorm(width) for _ in mixers), RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(token_ids)
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            x = x + mixer(norm(x))
        return self.head(self.last_norm(x[:, -1:]))


def build(
    phase: Literal["prefill", "decode"] = "prefill",
    context: int = 2048,
    batch: int = 1,
    width: int = 768,
    depth: int = 24,
    state: int = 16,
    expand: int = 2,
    kernel: int = 4,
    vocabulary: int = 50280,
):
    decode = phase == "decode"
    mixers = [Mixer(width, state, expand, kernel, batch, decode) for _ in range(depth)]
    return Mamba(mixers, width, vocabulary), (torch.zeros(batch, 1 if decode else context, dtype=torch.int64),)
