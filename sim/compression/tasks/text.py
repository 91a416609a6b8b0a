"""A byte-level language task on text that every Python ships: `pydoc_data.topics`.

The text differs between Python versions, so its SHA-256 is part of the task's name and of every
result. The last tenth is the test set and the tenth before it the validation set; the metric is bits
per byte over all positions.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sim.compression.training import Score

TEST_SHARE = 0.1
VALIDATION_SHARE = 0.1


@lru_cache(maxsize=1)
def corpus() -> np.ndarray:
    """The bytes of all topics in the order of their titles, uint8."""
    from pydoc_data.topics import topics

    text = "\n\n".join(f"{title}\n{topics[title]}" for title in sorted(topics))
    return np.frombuffer(text.encode(), np.uint8)


def corpus_hash() -> str:
    """First 16 hex digits of the corpus' SHA-256."""
    return hashlib.sha256(corpus().tobytes()).hexdigest()[:16]


class TextTask:
    """Next-byte prediction. Inputs int64 [batch, context], targets the same shifted by one."""

    def __init__(self, *, context: int = 64, batch_size: int = 32, steps: int = 1200) -> None:
        self.context, self.batch_size, self.steps = context, batch_size, steps
        self.learning_rate = 3e-3
        self.name = f"text-{corpus_hash()}"
        last = int(len(corpus()) * (1 - TEST_SHARE))
        first = int(len(corpus()) * (1 - TEST_SHARE - VALIDATION_SHARE))
        self._train = corpus()[:first]
        self._held = {"validation": corpus()[first:last], "test": corpus()[last:]}

    def batch(self, *, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([seed, step])
        return self._windows(self._train, rng.integers(0, len(self._train) - self.context - 1, self.batch_size))

    def _windows(self, text: np.ndarray, starts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        window = torch.from_numpy(text[starts[:, None] + np.arange(self.context + 1)].astype(np.int64))
        return window[:, :-1], window[:, 1:]

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(output.flatten(0, 1), target.flatten())

    def calibration(self, count: int) -> torch.Tensor:
        starts = np.random.default_rng([2**31, count]).integers(0, len(self._train) - self.context - 1, count)
        return self._windows(self._train, starts)[0]

    def evaluate(self, module: nn.Module, *, limit: int | None = None, part: str = "test") -> Score:
        """Bits per byte of consecutive windows; `per_example` is the mean of each window."""
        text = self._held[part]
        starts = np.arange(0, len(text) - self.context - 1, self.context)[:limit]
        module.eval()
        parts = []
        with torch.no_grad():
            for i in range(0, len(starts), 128):
                inputs, targets = self._windows(text, starts[i : i + 128])
                nats = functional.cross_entropy(module(inputs).transpose(1, 2), targets, reduction="none").mean(1)
                parts.append(nats / np.log(2))
        per_example = torch.cat(parts)
        return Score(
            metric="bits per byte", value=per_example.mean().item(), per_example=per_example, higher_is_better=False
        )
