"""Models of which systems of chips run a part each."""

from __future__ import annotations

import torch
from torch import nn


class Mlp(nn.Module):
    """x + down(relu(up(x)))"""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))
