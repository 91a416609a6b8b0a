"""DETR, detection with transformers (Carion et al., ECCV 2020, table 1): ResNet-50, 41.3 M parameters.

The paper's 86 GFLOP (multiply-adds) are a mean over COCO images of about 800 x 1,200 pixels (default).
Post-processing keeps the best `kept` of `queries` boxes.
"""

import torch
from _resnet import Bottleneck, ResNet
from torch import nn


class Attention(nn.Module):
    """Positions are added to queries and keys, not to values."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        projected = (self.q(query), self.k(key), self.v(value))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Perceptron(nn.Sequential):
    def __init__(self, width: int, hidden: int):
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Norms after each part, as in the first transformers."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attention, self.perceptron = Attention(width, heads), Perceptron(width, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        x = self.norm1(x + self.attention(x + position, x + position, x))
        return self.norm2(x + self.perceptron(x))


class DecoderLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.own, self.cross, self.perceptron = (
            Attention(width, heads),
            Attention(width, heads),
            Perceptron(width, hidden),
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: torch.Tensor, query: torch.Tensor, memory: torch.Tensor, position: torch.Tensor):
        x = self.norm1(x + self.own(x + query, x + query, x))
        x = self.norm2(x + self.cross(x + query, memory + position, memory))
        return self.norm3(x + self.perceptron(x))


class Detr(nn.Module):
    def __init__(self, tokens: int, width: int, heads: int, depth: int, hidden: int, queries: int, kept: int):
        super().__init__()
        self.kept = kept
        self.backbone = ResNet(Bottleneck, (3, 4, 6, 3), 64, 1)
        self.backbone.avgpool, self.backbone.fc = nn.Identity(), nn.Identity()
        self.enter = nn.Conv2d(2048, width, 1)
        self.register_buffer("position", torch.zeros(1, tokens, width), persistent=False)
        self.query = nn.Parameter(torch.zeros(1, queries, width))
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, hidden) for _ in range(depth))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, hidden) for _ in range(depth))
        self.norm, self.classes = nn.LayerNorm(width), nn.Linear(width, 92)
        self.boxes = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4), nn.Sigmoid()
        )

    def features(self, image: torch.Tensor) -> torch.Tensor:
        part = self.backbone
        x = part.maxpool(part.relu(part.conv1(image)))
        return self.enter(part.layer4(part.layer3(part.layer2(part.layer1(x))))).flatten(2).transpose(1, 2)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        memory = self.features(image)
        for layer in self.encoder:
            memory = layer(memory, self.position)
        x = torch.zeros_like(self.query).expand(image.shape[0], -1, -1)
        for layer in self.decoder:
            x = layer(x, self.query, memory, self.position)
        x = self.norm(x)
        score, label = self.classes(x).softmax(-1)[..., :-1].max(-1)
        score, best = score.topk(self.kept)
        boxes = self.boxes(x).gather(1, best[..., None].expand(-1, -1, 4))
        return score, label.gather(1, best), boxes


def build(
    batch: int = 1,
    height: int = 800,
    width: int = 1184,
    depth: int = 6,
    channels: int = 256,
    queries: int = 100,
    kept: int = 100,
):
    tokens = -(-height // 32) * -(-width // 32)
    model = Detr(tokens, channels, 8, depth, 8 * channels, queries, kept)
    return model, (torch.empty(batch, 3, height, width),)
