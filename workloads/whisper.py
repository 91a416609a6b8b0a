"""Whisper (Radford et al., arXiv:2212.04356, table 1); tiny by default: 37.18 M learned parameters.

`encode` reads 30 s of sound as 80 x 3,000 log-mel features and makes 1,500 states and each decoder
layer's cross-attention keys and values; `decode` makes one token with `context` tokens in the cache
and all 1,500 states to attend to. Learned parameters: 37.18 M tiny, 71.83 M base, 240.6 M small
(the encoder's positions are fixed sines; the head is tied to the embedding).
"""

from typing import Literal

import torch
from torch import nn

SIZES = {"tiny": (384, 6, 4), "base": (512, 8, 6), "small": (768, 12, 12)}
"""Width, heads, layers of the encoder and of the decoder."""
STATES, POSITIONS, VOCABULARY = 1500, 448, 51865


class KeysValues(nn.Module):
    """Keys and values of a sequence, split into heads; keys have no bias."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.k, self.v = heads, nn.Linear(width, width, bias=False), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.k, self.v))
        return k, v


class Attention(nn.Module):
    """Queries of x against given keys and values."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.q, self.out = heads, nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


class Perceptron(nn.Sequential):
    def __init__(self, width: int):
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class EncoderLayer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.attention, self.kv = nn.LayerNorm(width), Attention(width, heads), KeysValues(width, heads)
        self.perceptron = Perceptron(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        x = x + self.attention(y, *self.kv(y))
        return x + self.perceptron(x)


class DecoderLayer(nn.Module):
    """One token: its own cache grows by a row, the cross-attention's is read whole."""

    def __init__(self, width: int, heads: int, batch: int, cached: int):
        super().__init__()
        for name in ("k_cache", "v_cache"):
            cache = torch.zeros(batch, heads, cached + 1, width // heads)
            self.register_buffer(name, cache, persistent=False)
        self.norm1, self.own, self.kv = nn.LayerNorm(width), Attention(width, heads), KeysValues(width, heads)
        self.norm2, self.cross = nn.LayerNorm(width), Attention(width, heads)
        self.perceptron = Perceptron(width)

    def forward(self, x: torch.Tensor, states: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        y = self.norm1(x)
        self.k_cache[:, :, -1:], self.v_cache[:, :, -1:] = self.kv(y)
        x = x + self.own(y, self.k_cache, self.v_cache)
        x = x + self.cross(self.norm2(x), *states)
        return x + self.perceptron(x)


class Encoder(nn.Module):
    """Two convolutions, fixed positions, transformer layers; then the decoder's cross keys and values."""

    def __init__(self, width: int, heads: int, depth: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(80, width, 3, padding=1), nn.Conv1d(width, width, 3, 2, 1)
        self.register_buffer("positions", torch.zeros(STATES, width))
        self.layers = nn.Sequential(*(EncoderLayer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.cross = nn.ModuleList(KeysValues(width, heads) for _ in range(depth))

    def forward(self, features: torch.Tensor):
        x = nn.functional.gelu(self.conv2(nn.functional.gelu(self.conv1(features)))).transpose(1, 2)
        x = self.norm(self.layers(x + self.positions))
        return [cross(x) for cross in self.cross]


class Decoder(nn.Module):
    def __init__(self, width: int, heads: int, depth: int, batch: int, cached: int):
        super().__init__()
        self.embed, self.positions = nn.Embedding(VOCABULARY, width), nn.Embedding(POSITIONS, width)
        self.layers, self.norm = nn.ModuleList(), nn.LayerNorm(width)
        self.layers.extend(DecoderLayer(width, heads, batch, cached) for _ in range(depth))
        self.register_buffer("position", torch.tensor([cached]), persistent=False)

    def forward(self, token_ids: torch.Tensor, states: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        x = self.embed(token_ids) + self.positions(self.position)
        for layer, keys_values in zip(self.layers, states, strict=True):
            x = layer(x, keys_values)
        return nn.functional.linear(self.norm(x), self.embed.weight)


def build(
    size: Literal["tiny", "base", "small"] = "tiny",
    phase: Literal["encode", "decode"] = "encode",
    context: int = 64,
    batch: int = 1,
):
    width, heads, depth = SIZES[size]
    if phase == "encode":
        return Encoder(width, heads, depth), (torch.empty(batch, 80, 2 * STATES),)
    if context >= POSITIONS:
        raise ValueError(f"context={context}: expected less than {POSITIONS} tokens")
    shape = (batch, heads, STATES, width // heads)
    states = [(torch.empty(shape), torch.empty(shape)) for _ in range(depth)]
    return Decoder(width, heads, depth, batch, context), (torch.zeros(batch, 1, dtype=torch.int64), states)
