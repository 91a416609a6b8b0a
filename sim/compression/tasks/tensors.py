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
    Raises: WorkloadError: a part is missing or empty, its tensors differ in length, or a batch is larger than "train".
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
            lengths = [len(tensor) for tensor in self.data.get(part, ())]
            if len(lengths) != 2 or lengths[0] != lengths[1] or not lengths[0]:
                raise WorkloadError(
                    f'task {self.name}: data["{part}"]: expected inputs and as many targets, got '
                    f"{' and '.join(map(str, lengths)) or 'nothing'}"
                )
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
        """Raises: WorkloadError: the criterion gives more than one number."""
        loss = self.criterion(output, target)
        if loss.numel() != 1:
            raise WorkloadError(
                f"task {self.name}: criterion gave shape {list(loss.shape)}, expected one number: its mean"
            )
        return loss

    def calibration(self, count: int) -> torch.Tensor:
        return self.data["train"][0][:count]

    def evaluate(self, module: nn.Module, *, limit: int | None = None, part: str = "test") -> Score:
        """Mean score over a part. Raises: WorkloadError: `score` gives no number for each example."""
        inputs, targets = (tensor[:limit] for tensor in self.data[part])
        module.eval()
        with torch.no_grad():
            scores = [
                self.score(module(x), y).float()
                for x, y in zip(inputs.split(self.batch_size), targets.split(self.batch_size), strict=True)
            ]
        if [tuple(found.shape) for found in scores] != [(len(y),) for y in targets.split(self.batch_size)]:
            raise WorkloadError(
                f"task {self.name}: score gave shape {list(scores[0].shape)} for {len(targets[: self.batch_size])} "
                "examples: expected one number for each"
            )
        per_example = torch.cat(scores)
        return Score(
            metric=self.metric,
            value=per_example.mean().item(),
            per_example=per_example,
            higher_is_better=self.higher_is_better,
        )


@lru_cache(maxsize=2)
def shuffled(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The order of `count` examples in an epoch of the run with this seed."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(count))
