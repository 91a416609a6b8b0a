"""Vision Transformer (Dosovitskiy et al., ICLR 2021, table 1); ViT-B/16 by default.

ViT-B/16 at 224 x 224: 86.57 M parameters, 17.56 GMAC with attention's two products. Token pruning: after a
quarter, half and three quarters of the depth the `keep` share of the patches stays, those of largest norm
(EViT, Liang et al., ICLR 2022, ranks by class attention instead); `exit_layer` leaves after that many blocks.
"""

import torch
from torch import nn


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a norm and added to its input."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    def __init__(
        self, resolution: int, patch: int, width: int, depth: int, heads: int, hidden: int, classes: int, keep: float
    ):
        super().__init__()
        self.keep = keep
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (resolution // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), dim=1) + self.position
        places = {len(self.blocks) * i // 4 for i in (1, 2, 3)} if self.keep < 1 else set()
        for i, block in enumerate(self.blocks):
            x = block(self.pruned(x) if i in places else x)
        return self.head(self.norm(x)[:, 0])

    def pruned(self, x: torch.Tensor) -> torch.Tensor:
        """The class token and the best patches."""
        best = x[:, 1:].norm(dim=-1).topk(max(1, round((x.shape[1] - 1) * self.keep))).indices
        return torch.cat((x[:, :1], x[:, 1:].gather(1, best[..., None].expand(-1, -1, x.shape[2]))), dim=1)


def build(
    batch: int = 1,
    resolution: int = 224,
    patch: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: float = 4.0,
    classes: int = 1000,
    keep: float = 1.0,
    exit_layer: int | None = None,
):
    if exit_layer is not None and not 1 <= exit_layer <= depth:
        raise ValueError(f"exit_layer={exit_layer}: expected 1 to {depth}, the layers that there are")
    model = ViT(resolution, patch, width, exit_layer or depth, heads, int(width * mlp_ratio), classes, keep)
    return model, (torch.empty(batch, 3, resolution, resolution),)
