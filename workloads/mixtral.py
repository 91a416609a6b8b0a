"""Mixtral 8x7B (Jiang et al., arXiv:2401.04088): 46.70 B parameters, 12.88 B of them met by a token.

Llama-like decoder whose perceptron is one of `experts`, `active` of them for each token. `prefill` reads
`context` tokens; `decode` makes one token a sequence with `context` tokens in the KV cache, or the last
`window` of them. `dispatch=grouped` sorts tokens by expert and runs one grouped product (load even over
the experts); `loop` runs expert by expert on the tokens that the trace policy gives it
(`DataPolicy.shares` states another load). MACs a token: 12.75 B + 2 x layers x width x keys, keys <= window.
"""

from typing import Literal

import torch
from llama import Attention, RMSNorm
from torch import nn


class Experts(nn.Module):
    """Gated perceptrons; a router chooses `active` of them for each token."""

    def __init__(self, width: int, hidden: int, experts: int, active: int, dispatch: str):
        super().__init__()
        self.active, self.dispatch = active, dispatch
        self.router = nn.Linear(width, experts, bias=False)
        self.gate_up = nn.Parameter(torch.empty(experts, width, 2 * hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(0, 1)
        weight, chosen = self.router(tokens).softmax(-1).topk(self.active)
        weight = weight / weight.sum(-1, keepdim=True)
        run = self.grouped if self.dispatch == "grouped" else self.loop
        return run(tokens, weight, chosen).view(x.shape)

    def grouped(self, tokens: torch.Tensor, weight: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        order = chosen.flatten().argsort()
        counts = (chosen.flatten()[:, None] == torch.arange(len(self.down), device=chosen.device)).sum(0)
        ends = counts.cumsum(0).int()
        gate, up = torch._grouped_mm(tokens[order // self.active], self.gate_up, offs=ends).chunk(2, dim=-1)
        y = torch._grouped_mm(nn.functional.silu(gate) * up, self.down, offs=ends)
        y = y * weight.flatten()[order, None]
        return torch.zeros_like(tokens).index_add(0, order // self.active, y)

    def loop(self, tokens: torch.Tensor, weight: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        out = torch.zeros_like(tokens)
        for expert in range(len(self.down)):
            token, slot = torch.where(chosen == expert)
            gate, up = (tokens[token] @ self.gate_up[expert]).chunk(2, dim=-1)
            y = nn.functional.silu(gate) * up @ self.down[expert]
            out.index_add_(0, token, y * weight[token, slot, None])
        return out


class Layer(nn.Module):
    def __init__(self, attention: Attention, experts: Experts, width: int):
        super().__init__()
        self.norm1, self.attention, self.norm2, self.experts = RMSNorm(width), attention, RMSNorm(width), experts

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.experts(self.norm2(x))


class Mixtral(nn.Module):
    def __init__(self, layers: list[Layer], width: int, vocabulary: int, positions: torch.Tensor, head_dim: int):
        super().__init__()
        self.embed, self.layers, self.norm = nn.Embedding(vocabulary, width), nn.ModuleList(layers), RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        angle = positions[:, None] * 1e6 ** (-torch.arange(0, head_dim, 2) / head_dim)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(token_ids)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.head(self.norm(x[:, -1:]))


def build(
    phase: Literal["prefill", "decode"] = "prefill",
    context: int = 2048,
    batch: int = 1,
    layers: int = 32,
    width: int = 4096,
    hidden: int = 14336,
    experts: int = 8,
    active: int = 2,
    window: int | None = None,
    dispatch: Literal["grouped", "loop"] = "grouped",
):
    if window is not None and window < 2:
        raise ValueError(f"window={window}: expected 2 or more tokens")
    decode, heads, kv_heads, head_dim = phase == "decode", width // 128, max(1, width // 512), 128
    cached = min(context, window - 1 if window else context) if decode else 0
    blocks = [
        Layer(
            Attention(width, heads, kv_heads, head_dim, batch, cached, None if decode else window),
            Experts(width, hidden, experts, active, dispatch),
            width,
        )
        for _ in range(layers)
    ]
    positions = torch.arange(context, context + 1) if decode else torch.arange(context)
    model = Mixtral(blocks, width, 32000, positions, head_dim).bfloat16()
    return model, (torch.zeros(batch, len(positions), dtype=torch.int64),)
