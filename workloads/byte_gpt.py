"""A GPT on bytes: pre-norm blocks, learned positions, grouped keys and values."""

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, width // heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.v = nn.Linear(width, kv_heads * self.head_dim, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x):
        batch, length, width = x.shape
        q = self.q(x).view(batch, length, self.heads, self.head_dim).transpose(1, 2)
        k = self.k(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.v(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv_heads != self.heads)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, expansion: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, kv_heads)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(expansion * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class ByteGpt(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, kv_heads: int, expansion: int, context: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, width)
        self.position = nn.Embedding(context, width)
        self.register_buffer("positions", torch.arange(context), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, kv_heads, expansion) for _ in range(depth)))
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
):
    """A byte-level GPT over `context` bytes; `kv_heads` 0 means as many as `heads`."""
    model = ByteGpt(width, depth, heads, kv_heads or heads, expansion, context)
    return model, (torch.zeros(batch, context, dtype=torch.int64),)
