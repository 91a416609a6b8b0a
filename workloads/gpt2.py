"""GPT-2 small (Radford et al., 2019; OpenAI's model card): 124.44 M parameters, head tied to the embedding.

Prefill of `context` tokens. MACs: layers x (12 width^2 L + 2 width L^2) + vocabulary x width (last token).
"""

import torch
from torch import nn


class Block(nn.Module):
    """Causal attention and a two-layer perceptron, each after a norm and added to its input."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], self.heads, -1)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(x.shape))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class GPT2(nn.Module):
    def __init__(self, vocabulary: int, positions: int, width: int, depth: int, heads: int):
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.words.weight

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        position = torch.arange(token_ids.shape[1], device=token_ids.device)
        x = self.blocks(self.words(token_ids) + self.positions(position))
        return self.head(self.norm(x[:, -1:]))


def build(
    batch: int = 1,
    context: int = 1024,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    vocabulary: int = 50257,
    positions: int = 1024,
):
    ids = torch.zeros(batch, context, dtype=torch.int64)
    return GPT2(vocabulary, positions, width, depth, heads), (ids,)
