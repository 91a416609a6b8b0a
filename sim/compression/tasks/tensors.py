"""A task on tensors in memory: one's own data, a loss, and what an example scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from sim.compression.training import Score
from sim.errors import WorkloadError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorTask:
    """Inputs and targets of three parts; the module is called with the inputs of a batch.

    Args:
        name: says which data and loss: a checkpoint is bound to it.
        data: part ("train", "validation", "test") -> (inputs [n, ...], targets [n, ...]).
        criterion: (outputs, targets) -> loss, a scalar that can be derived.
        score: (outputs, targets) -> quality of each example [b], in the metric's unit.
        metric: what the mean score is called, with its unit, such as "accuracy %".
        steps: of a full training, each on `batch_size` examples; `learning_rate` is the peak.
    Raises: WorkloadError: a part is missing or empty or no pair of tensors of one length, or a batch is larger than
        "train".
    """

    name: str
    data: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    metric: str
    higher_is_better: bool
    steps: int
    learning_rate: float = 1e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        for part in PARTS:
            pair = self.data.get(part, ())
            found = [_length(one) for one in pair] if isinstance(pair, tuple | list) else [_length(pair)]
            if len(found) != 2 or found[0] != found[1] or not isinstance(found[0], int) or not found[0]:
                raise WorkloadError(
                    f'task {self.name}: data["{part}"]: expected inputs and as many targets, got '
                    f"{' and '.join(map(str, found)) or 'nothing'}"
                )
        if self.batch_size < 1:
            raise WorkloadError(f"task {self.name}: batch_size {self.batch_size} must be at least 1")
        if self.batch_size > len(self.data["train"][0]):
            raise WorkloadError(
                f"task {self.name}: batch_size {self.batch_size} is more than the {len(self.data['train'][0])} "
                'examples of data["train"]'
            )

    def batch(self, *, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = self.data["train"]
        epoch, position = divmod(step, len(inputs) // self.batch_size)
        order = shuffled(seed, epoch, len(inputs))[position * self.batch_size :][: self.batch_size]
        return inputs[order], targets[order]

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Raises: WorkloadError: the criterion gives no tensor of one number."""
        loss = self.criterion(output, target)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise WorkloadError(f"task {self.name}: criterion gave {_shape(loss)}, expected one number: its mean")
        return loss

    def calibration(self, count: int) -> torch.Tensor:
        return self.data["train"][0][:count]

    def evaluate(self, module: nn.Module, *, limit: int | None = None, part: str = "test") -> Score:
        """Mean score over a part. Raises: WorkloadError: `score` gives no number for each example."""
        inputs, targets = (tensor[:limit] for tensor in self.data[part])
        module.eval()
        with torch.no_grad():
            scores = [
                self._scores(module(x), y)
                for x, y in zip(inputs.split(self.batch_size), targets.split(self.batch_size), strict=True)
            ]
        per_example = torch.cat(scores)
        return Score(
            metric=self.metric,
            value=per_example.mean().item(),
            per_example=per_example,
            higher_is_better=self.higher_is_better,
        )

    def _scores(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        found = self.score(output, target)
        if not isinstance(found, torch.Tensor) or found.shape != (len(target),):
            raise WorkloadError(
                f"task {self.name}: score gave {_shape(found)} for {len(target)} examples: expected one number for each"
            )
        return found.float()


def _length(one: object) -> int | str:
    """Examples of a tensor, or what is none."""
    if not isinstance(one, torch.Tensor):
        return f"a {type(one).__name__} (no tensor)"
    return len(one) if one.dim() else "a tensor without axes"


def _shape(one: object) -> str:
    return f"shape {list(one.shape)}" if isinstance(one, torch.Tensor) else f"a {type(one).__name__}"


@lru_cache(maxsize=2)
def shuffled(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The order of `count` examples in an epoch of the run with this seed."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))
