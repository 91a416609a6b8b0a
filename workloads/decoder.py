"""Decoder of free shape in the manner of Llama: width, depth, heads, KV heads and hidden size are knobs.

The defaults are Llama-3.2-1B's (see `llama`), the embedding tied to the head. `prefill` reads `context`
tokens; `decode` makes one token with `context` tokens in the KV cache, all of which it reads.
"""

from typing import Literal

import torch
from llama import Attention, Layer, RMSNorm
from torch import nn


class Decoder(nn.Module):
    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        kv_heads: int,
        hidden: int,
        vocabulary: int,
        batch: int,
        context: int,
        cached: int,
    ):
        super().__init__()
        head_dim = width // heads
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(
            Layer(width, hidden, Attention(width, heads, kv_heads, head_dim, batch, cached)) for _ in range(depth)
        )
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight
        frequency = 5e5 ** (-torch.arange(0, head_dim, 2) / head_dim)
        position = torch.arange(cached, cached + 1 if cached else context)
        angle = position[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(token_ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.head(self.norm(x[:, -1:]))


def build(
    width: int = 2048,
    depth: int = 16,
    heads: int = 32,
    kv_heads: int = 8,
    hidden_ratio: float = 4.0,
    vocabulary: int = 128256,
    phase: Literal["prefill", "decode"] = "prefill",
    context: int = 2048,
    batch: int = 1,
):
    if width % heads or heads % kv_heads:
        raise ValueError(f"width {width} must divide by heads {heads}, and heads by kv_heads {kv_heads}")
    decode = phase == "decode"
    hidden = int(width * hidden_ratio)
    cached = context if decode else 0
    model = Decoder(width, depth, heads, kv_heads, hidden, vocabulary, batch, context, cached)
    return model, (torch.zeros(batch, 1 if decode else context, dtype=torch.int64),)
