"""BERT base, uncased (Devlin et al., NAACL 2019): 12 layers, width 768, 109.48 M parameters with pooler.

MACs at sequence length L: 12 (7,077,888 L + 1,536 L^2) + 589,824 (pooler, one token); 11.17 GMAC at 128.
"""

import torch
from torch import nn


class Layer(nn.Module):
    """Attention and a two-layer perceptron, each added to its input and then normalised."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], self.heads, -1)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = self.norm1(x + self.output(y))
        return self.norm2(x + self.fc2(nn.functional.gelu(self.fc1(x))))


class Bert(nn.Module):
    def __init__(self, vocabulary: int, positions: int, width: int, depth: int, heads: int, hidden: int):
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.types = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(width, heads, hidden) for _ in range(depth))
        self.pooler = nn.Linear(width, width)

    def forward(self, token_ids: torch.Tensor, type_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        position = torch.arange(token_ids.shape[1], device=token_ids.device)
        x = self.norm(self.words(token_ids) + self.positions(position) + self.types(type_ids))
        for layer in self.layers:
            x = layer(x)
        return x, torch.tanh(self.pooler(x[:, 0]))


def build(
    batch: int = 1,
    context: int = 128,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    hidden: int = 3072,
    vocabulary: int = 30522,
    positions: int = 512,
):
    ids = torch.zeros(batch, context, dtype=torch.int64)
    return Bert(vocabulary, positions, width, depth, heads, hidden), (ids, torch.zeros_like(ids))
