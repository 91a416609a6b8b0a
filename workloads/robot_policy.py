"""A robot policy after pi0 (Black et al., arXiv:2410.24164): vision encoder, language backbone, action expert.

SigLIP So400m/14 (Zhai et al., ICCV 2023: 27 layers of 1,152, 412.4 M parameters without its pooling
head) reads each camera; Gemma 2B (arXiv:2403.08295, 2.506 B parameters) reads 256 tokens a camera and
the words of the task; a smaller expert (311 M) attends to the backbone's keys and values and moves
`horizon` noisy actions in `steps` Euler steps towards actions (flow matching). `phase=prefix` is the
images and words, `act` the loop of steps on the kept keys and values, `policy` both. Token pruning: each
camera keeps the `keep` share of its tokens (largest norm, as in top-k pruning); early exit: the
backbone and the expert leave after `exit_layer` layers.
"""

from typing import Literal

import torch
from llama import RMSNorm, rotate
from torch import nn
from torch.nn import functional
from vit import Block

KV_HEADS, HEAD_DIM, VOCABULARY = 1, 256, 256000
Pair = tuple[torch.Tensor, torch.Tensor]


class Vision(nn.Module):
    """Patches, transformer, projection to the backbone's width; the best tokens of each camera stay."""

    def __init__(self, resolution: int, width: int, depth: int, heads: int, hidden: int, out: int, keep: float):
        super().__init__()
        tokens = (resolution // 14) ** 2
        self.kept, self.tokens = max(1, round(tokens * keep)), tokens
        self.patches, self.position = nn.Conv2d(3, width, 14, 14), nn.Parameter(torch.zeros(tokens, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm, self.project = nn.LayerNorm(width), nn.Linear(width, out)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2) + self.position
        x = self.norm(self.blocks(x))
        if self.kept < self.tokens:
            best = x.norm(dim=-1).topk(self.kept).indices
            x = x.gather(1, best[..., None].expand(-1, -1, x.shape[-1]))
        return self.project(x).flatten(0, 1)[None]


class Layer(nn.Module):
    """Gemma layer; keys and values of an earlier sequence stand before its own."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q, self.o = nn.Linear(width, heads * HEAD_DIM, bias=False), nn.Linear(heads * HEAD_DIM, width, bias=False)
        self.k, self.v = (nn.Linear(width, KV_HEADS * HEAD_DIM, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor, turn: Pair, kept: Pair | None):
        y = self.norm1(x)
        q, k, v = (part(y).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = rotate(q, *turn), rotate(k, *turn)
        if kept is not None:
            k, v = torch.cat((kept[0], k), dim=2), torch.cat((kept[1], v), dim=2)
        y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(functional.gelu(self.gate(y), approximate="tanh") * self.up(y)), (k, v)


def turns(start: int, length: int, like: torch.Tensor) -> Pair:
    """Cosine and sine of each position's rotary angles, on the device and in the dtype of `like`."""
    position = torch.arange(start, start + length, device=like.device)
    angle = position[:, None] * 1e4 ** (-torch.arange(0, HEAD_DIM, 2, device=like.device) / HEAD_DIM)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


class Backbone(nn.Module):
    """Camera tokens and words; gives each layer's keys and values, and the last states."""

    def __init__(self, vision: Vision, width: int, heads: int, hidden: int, depth: int):
        super().__init__()
        self.vision, self.embed = vision, nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width, heads, hidden) for _ in range(depth))
        self.norm = RMSNorm(width)

    def forward(self, images: torch.Tensor, words: torch.Tensor) -> tuple[list[Pair], torch.Tensor]:
        x = torch.cat((self.vision(images), self.embed(words)), dim=1)
        turn, kept = turns(0, x.shape[1], x), []
        for layer in self.layers:
            x, keys_values = layer(x, turn, None)
            kept.append(keys_values)
        return kept, self.norm(x)


class Expert(nn.Module):
    """Denoises a chunk of actions in a loop; every step reads the backbone's keys and values."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int, joints: int, horizon: int, steps: int):
        super().__init__()
        self.shape, self.steps = (1, horizon, joints), steps
        self.state, self.enter = nn.Linear(joints, width), nn.Linear(joints, width)
        self.time = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(Layer(width, heads, hidden) for _ in range(depth))
        self.norm, self.leave = RMSNorm(width), nn.Linear(width, joints)
        self.register_buffer("moments", torch.zeros(steps, width), persistent=False)

    def forward(self, state: torch.Tensor, kept: list[Pair]) -> torch.Tensor:
        actions = torch.randn(self.shape, device=state.device, dtype=state.dtype)
        turn = turns(kept[0][0].shape[2], self.shape[1] + 1, state)
        for step in range(self.steps):
            moment = self.moments[step].expand(1, self.shape[1], -1)
            x = self.time(torch.cat((self.enter(actions), moment), dim=-1))
            x = torch.cat((self.state(state)[:, None], x), dim=1)
            for layer, keys_values in zip(self.layers, kept, strict=True):
                x, _ = layer(x, turn, keys_values)
            actions = actions + self.leave(self.norm(x[:, 1:])) / self.steps
        return actions


class Policy(nn.Module):
    def __init__(self, backbone: Backbone, expert: Expert):
        super().__init__()
        self.backbone, self.expert = backbone, expert

    def forward(self, images: torch.Tensor, words: torch.Tensor, state: torch.Tensor):
        kept, states = self.backbone(images, words)
        return self.expert(state, kept), states


def build(
    phase: Literal["policy", "prefix", "act"] = "policy",
    cameras: int = 3,
    resolution: int = 224,
    words: int = 48,
    joints: int = 32,
    horizon: int = 50,
    steps: int = 10,
    vision_width: int = 1152,
    vision_depth: int = 27,
    width: int = 2048,
    depth: int = 18,
    expert_width: int = 1024,
    keep: float = 1.0,
    exit_layer: int | None = None,
):
    if exit_layer is not None and not 1 <= exit_layer <= depth:
        raise ValueError(f"exit_layer={exit_layer}: expected 1 to {depth}, the layers that there are")
    depth, heads = exit_layer or depth, width // HEAD_DIM
    vision = Vision(
        resolution, vision_width, vision_depth, vision_width // 72, vision_width * 4304 // 1152, width, keep
    )
    expert = Expert(expert_width, heads, 4 * expert_width, depth, joints, horizon, steps)
    images, ids, state = (
        torch.empty(cameras, 3, resolution, resolution),
        torch.zeros(1, words).long(),
        torch.empty(1, joints),
    )
    if phase == "act":
        tokens = cameras * vision.kept + words
        kept = [tuple(torch.empty(1, KV_HEADS, tokens, HEAD_DIM) for _ in range(2)) for _ in range(depth)]
        return expert, (state, kept)
    backbone = Backbone(vision, width, heads, 8 * width, depth)
    return (backbone, (images, ids)) if phase == "prefix" else (Policy(backbone, expert), (images, ids, state))
