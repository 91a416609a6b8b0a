"""What is joined or reduced beside the split axis stays split: attention with sinks, maxima and norms of each head."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sim.workload.graph import CollectiveOp, Graph, VectorOp
from sim.workload.passes import tensor_parallel
from sim.workload.trace import trace

HEADS, TOKENS, DEPTH = 4, 6, 8
WIDTH = HEADS * DEPTH


class Attention(nn.Module):
    """By hand, with what a family of models does to queries and keys, and to the scores."""

    def __init__(self, norm: Callable[[Tensor], Tensor], scores: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.norm, self.scores = norm, scores
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.sinks = nn.Parameter(torch.zeros(HEADS))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(1, TOKENS, HEADS, DEPTH).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scores = self.norm(q) @ self.norm(k).transpose(2, 3)
        shares = self.scores(scores, self.sinks)[..., :TOKENS]
        return self.o((shares @ v).transpose(1, 2).reshape(1, TOKENS, WIDTH))


def same(x: Tensor) -> Tensor:
    return x


def rms(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def without_axis(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1)[..., None]


def plain(scores: Tensor, sinks: Tensor) -> Tensor:
    return scores.softmax(-1)


def sinks(scores: Tensor, sinks: Tensor) -> Tensor:
    return torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(1, HEADS, TOKENS, 1)], -1).softmax(-1)


def safe_sinks(scores: Tensor, sinks: Tensor) -> Tensor:
    joined = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(1, HEADS, TOKENS, 1)], -1)
    return (joined - joined.max(-1, keepdim=True).values).softmax(-1)


def across_heads(scores: Tensor, sinks: Tensor) -> Tensor:
    return (scores - scores.amax(1, keepdim=True)).softmax(-1)


def parts(norm: Callable, scores: Callable, chips: int) -> tuple[Graph, Graph, list[str]]:
    """(the graph, one chip's part, its collectives)"""
    graph = trace(Attention(norm, scores).eval(), (torch.randn(1, TOKENS, WIDTH),))
    part = tensor_parallel(graph, chips)
    return graph, part, [op.collective.value for op in part.ops if isinstance(op, CollectiveOp)]


@pytest.mark.parametrize("chips", [2, 4])
@pytest.mark.parametrize(
    ("norm", "scores"), [(same, plain), (same, sinks), (same, safe_sinks), (rms, sinks), (without_axis, plain)]
)
def test_the_heads_of_a_chip_need_no_others(norm: Callable, scores: Callable, chips: int) -> None:
    """One sum completes the output; a chip does its part of all vector work, within a rounding for each op."""
    graph, part, collectives = parts(norm, scores, chips)
    assert collectives == ["all_reduce"]
    whole, own = (sum(sum(op.primitives.values()) for op in g.ops if isinstance(op, VectorOp)) for g in (graph, part))
    assert whole <= chips * own <= whole + chips * 2 * len(graph.ops)


def test_a_maximum_over_the_heads_needs_them_all() -> None:
    assert "all_gather" in parts(same, across_heads, 2)[2]
