"""A GPT on bytes: pre-norm blocks, learned positions, grouped keys and values."""

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal attention; in decode, keys and values join a cache that is updated in place."""

    def __init__(self, width: int, heads: int, kv_heads: int, cached: int, batch: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.v = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.cached = cached
        if cached:
            for name in ("k_cache", "v_cache"):
                cache = torch.zeros(batch, kv_heads, cached + 1, self.head_dim)
                self.register_buffer(name, cache, persistent=False)

    def forward(self, x):
        batch, length, width = x.shape
        q = self.q(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        if self.cached:
            self.k_cache[:, :, self.cached :] = k
            self.v_cache[:, :, self.cached :] = v
            k, v = self.k_cache, self.v_cache
        causal = not self.cached
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=self.kv_heads != self.heads)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, expansion: int, cached: int, batch: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, kv_heads, cached, batch)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(expansion * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class ByteGpt(nn.Module):
    def __init__(
        self, width: int, depth: int, heads: int, kv_heads: int, expansion: int, context: int, cached: int, batch: int
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.position = nn.Embedding(context, width)
        self.register_buffer("positions", torch.arange(context)[cached:], persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, kv_heads, expansion, cached, batch) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens) + self.position(self.positions)
        return self.head(self.norm(self.blocks(x)))


def build(
    batch: int = 1,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    kv_heads: int = 0,
    expansion: int = 4,
    context: int = 64,
    phase: str = "prefill",
):
    """A byte-level GPT; `kv_heads` 0 means as many as `heads`.

    `prefill` reads `context` bytes at once; `decode` makes the last of them with the others in the
    KV cache.
    """
    if phase not in ("prefill", "decode"):
        raise ValueError(f'phase "{phase}": expected prefill or decode')
    if width % heads or heads % (kv_heads or heads):
        raise ValueError(f"width {width} must divide by heads {heads}, and heads by kv_heads {kv_heads}")
    cached = context - 1 if phase == "decode" else 0
    model = ByteGpt(width, depth, heads, kv_heads or heads, expansion, context, cached, batch)
    return model, (torch.zeros(batch, context - cached, dtype=torch.int64),)


def task(context: int):
    """What `dovetail compress` and a search with `method: train` teach it and judge it by."""
    from sim.compression.tasks.text import TextTask

    return TextTask(context=context)
