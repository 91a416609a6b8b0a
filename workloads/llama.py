"""Llama decoders: Llama-3.2-1B by default, Llama-2-7B, Llama-3-8B and Llama-2-70B by `size`.

Parameters: 1.236 B (embedding tied to the head), 6.738 B, 8.030 B, 68.98 B (Touvron et al.,
arXiv:2307.09288; "The Llama 3 Herd of Models", arXiv:2407.21783; Meta's model cards). `prefill`
reads `context` tokens; `decode` makes one token with `context` tokens in the KV cache, all of which
it reads. MACs a token: parameters without the input embedding, plus 2 x layers x width x keys.
`window` keeps the last tokens only (Mistral's sliding window); `exit_layer` leaves after that many
layers (early exit, Schuster et al., NeurIPS 2022).
"""

from typing import Literal

import torch
from torch import nn

SIZES = {  # width, layers, heads, KV heads, head dim, hidden, vocabulary, RoPE base, tied
    "1b": (2048, 16, 32, 8, 64, 8192, 128256, 5e5, True),
    "7b": (4096, 32, 32, 32, 128, 11008, 32000, 1e4, False),
    "8b": (4096, 32, 32, 8, 128, 14336, 128256, 5e5, False),
    "70b": (8192, 80, 64, 8, 128, 28672, 32000, 1e4, False),
}


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, self.weight.shape, self.weight, 1e-5)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding: halves of each head as real and imaginary parts."""
    real, imaginary = x.chunk(2, dim=-1)
    return torch.cat((real * cos - imaginary * sin, imaginary * cos + real * sin), dim=-1)


class Attention(nn.Module):
    """Grouped-query attention; in decode, keys and values join a cache that is updated in place."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_dim: int, batch: int, cached: int, window=None):
        super().__init__()
        self.head_dim, self.window = head_dim, window
        self.q, self.o = (
            nn.Linear(a, b, bias=False) for a, b in ((width, heads * head_dim), (heads * head_dim, width))
        )
        self.k, self.v = (nn.Linear(width, kv_heads * head_dim, bias=False) for _ in range(2))
        self.cached = cached
        if cached:
            for name in ("k_cache", "v_cache"):
                self.register_buffer(name, torch.empty(batch, kv_heads, cached + 1, head_dim), persistent=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        q, k, v = (part(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.cached:
            self.k_cache[:, :, self.cached :] = k
            self.v_cache[:, :, self.cached :] = v
            k, v = self.k_cache, self.v_cache
        mask, causal = self._band(q.shape[2], q.device), not self.cached
        y = nn.functional.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal and mask is None, enable_gqa=True
        )
        return self.o(y.transpose(1, 2).flatten(2))

    def _band(self, length: int, device: torch.device) -> torch.Tensor | None:
        """Each query sees itself and the window - 1 keys before it; None where causality says it all."""
        if self.cached or self.window is None or self.window >= length:
            return None
        ahead = torch.arange(length, device=device) - torch.arange(length, device=device)[:, None]
        return (ahead <= 0) & (ahead > -self.window)


class Layer(nn.Module):
    def __init__(self, width: int, hidden: int, attention: Attention):
        super().__init__()
        self.norm1, self.attention, self.norm2 = RMSNorm(width), attention, RMSNorm(width)
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        y = self.norm2(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, size: str, layers: int, batch: int, context: int, cached: int, window: int | None):
        super().__init__()
        width, _, heads, kv_heads, head_dim, hidden, vocabulary, base, tied = SIZES[size]
        self.embed = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(
            Layer(width, hidden, Attention(width, heads, kv_heads, head_dim, batch, cached, window))
            for _ in range(layers)
        )
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        frequency = base ** (-torch.arange(0, head_dim, 2) / head_dim)
        position = torch.arange(context, context + 1) if cached else torch.arange(context)
        angle = position[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(token_ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.head(self.norm(x[:, -1:]))


def build(
    size: Literal["1b", "7b", "8b", "70b"] = "1b",
    phase: Literal["prefill", "decode"] = "prefill",
    context: int = 2048,
    batch: int = 1,
    layers: int | None = None,
    window: int | None = None,
    exit_layer: int | None = None,
):
    depth = SIZES[size][1] if layers is None else layers
    if window is not None and window < 2:
        raise ValueError(f"window={window}: expected 2 or more tokens")
    if exit_layer is not None and not 1 <= exit_layer <= depth:
        raise ValueError(f"exit_layer={exit_layer}: expected 1 to {depth}, the layers that there are")
    decode = phase == "decode"
    cached = min(context, window - 1 if window else context) if decode else 0
    model = Llama(size, exit_layer or depth, batch, context, cached, window)
    return model, (torch.zeros(batch, 1 if decode else context, dtype=torch.int64),)
