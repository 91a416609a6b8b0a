"""One matrix product: out[M, N] = x[M, K] w[K, N], or a batch of them.

MACs: batch x M x N x K; parameters: batch x K x N.
"""

import torch
from torch import nn


class Gemm(nn.Module):
    def __init__(self, n: int, k: int, batch: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(k, n) if batch == 1 else torch.empty(batch, k, n))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def build(m: int = 1024, n: int = 1024, k: int = 1024, batch: int = 1):
    x = torch.empty(m, k) if batch == 1 else torch.empty(batch, m, k)
    return Gemm(n, k, batch), (x,)
