"""A word-level LSTM language model, the "medium" one of Zaremba et al. (arXiv:1409.2329): 19.78 M parameters.

Two layers of 650, vocabulary 10,000. By hand: embedding 6,500,000, each layer 4 x 650 x (650 + 650) +
8 x 650 = 3,385,200, head 6,510,000. MACs a token: 2 x 3,380,000 + 6,500,000 = 13,260,000.
"""

import torch
from torch import nn


class LanguageModel(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embed(token_ids))
        return self.head(states)


def build(batch: int = 1, context: int = 35, width: int = 650, layers: int = 2, vocabulary: int = 10000):
    return LanguageModel(vocabulary, width, layers), (torch.zeros(batch, context, dtype=torch.int64),)
