"""Training that a kill does not undo, and fine-tuning that keeps masks and grids.

A task gives data and a loss (`Task`). Batches depend on (seed, step) alone and every random
choice of a step is seeded by it, so a run resumed from a checkpoint ends in the same bytes as an
uninterrupted one.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn.utils import parametrize

from sim.compression.fakequant import Grid, fake_quantise_weight
from sim.compression.model import CompressedModel, quantisers
from sim.errors import WorkloadError
from sim.workload.raised import foreign_code, told

Progress = Callable[[int, int, float], None]
"""Called as progress(step, steps, loss) about twenty times a run."""
WARMUP_SHARE = 0.1
"""Share of the steps in which the learning rate rises linearly to its peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A metric over a test set; `per_example` serves paired comparisons.

    `higher_is_better` is true for accuracy, false for bits per byte.
    """

    metric: str
    value: float
    per_example: torch.Tensor
    higher_is_better: bool

    def loss_against(self, other: Score) -> float:
        """How much worse this is than `other`, in the metric's unit; negative when better."""
        return (other.value - self.value) if self.higher_is_better else (self.value - other.value)


class Task(Protocol):
    """Data, loss and test of a workload, given by the function `task` of its file. Shapes are the task's own."""

    name: str
    steps: int
    """Steps of a full training run."""
    learning_rate: float

    def batch(self, *, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]: ...

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor: ...

    def calibration(self, count: int) -> torch.Tensor: ...

    def evaluate(self, module: nn.Module, *, limit: int | None = None, part: str = "test") -> Score:
        """Quality on the first `limit` examples of "test", or of "validation", on which choices may be made."""
        ...


def train(
    module: nn.Module,
    task: Task,
    *,
    steps: int | None = None,
    seed: int = 0,
    learning_rate: float | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 100,
    progress: Progress | None = None,
    objective: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    origin: str = "",
) -> nn.Module:
    """Train `module` in place with AdamW under a warm-up and cosine schedule; returns it.

    Args:
        checkpoint: file to resume from when it exists and to write (atomically) every
            `checkpoint_every` steps; it is bound to task, steps, seed, learning rate and `origin`.
        origin: what else the run depends on (`fingerprint`): the model that fine-tuning starts from.
        objective: loss of (module, inputs, targets); default the task's loss of the output.
    Raises: WorkloadError: the checkpoint is of another run; the loss is not finite; TraceError: the task or the
        module raised.
    """
    steps = task.steps if steps is None else steps
    peak = task.learning_rate if learning_rate is None else learning_rate
    optimiser = torch.optim.AdamW(module.parameters(), lr=peak, weight_decay=0.01)
    run = {"task": task.name, "steps": steps, "seed": seed, "learning_rate": peak, "origin": origin}
    first = _resume(checkpoint, run, module, optimiser) if checkpoint else 0
    module.train()
    for step in range(first, steps):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((seed << 32) + step)
            with _guarded(task):
                inputs, targets = task.batch(seed=seed, step=step)
                loss = objective(module, inputs, targets) if objective else task.loss(module(inputs), targets)
        for group in optimiser.param_groups:
            group["lr"] = peak * schedule(step, steps)
        optimiser.zero_grad(set_to_none=True)
        with _guarded(task):
            if not torch.isfinite(loss):
                raise WorkloadError(f"task {task.name}: loss is {loss.item()} at step {step}: lower the learning rate")
            loss.backward()
        optimiser.step()
        if progress and (step + 1) % max(1, steps // 20) == 0:
            progress(step + 1, steps, loss.item())
        if checkpoint and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            _save(checkpoint, run | {"step": step + 1}, module, optimiser)
    return module.eval()


def calibration_inputs(task: Task, count: int) -> torch.Tensor:
    """Inputs of `count` training examples. Raises: TraceError: the task raised."""
    with _guarded(task):
        return task.calibration(count)


def _guarded(task: Task) -> AbstractContextManager[None]:
    return foreign_code(lambda error: f"task {task.name}: {told(error)}")


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to 0."""
    warmup = max(1, round(steps * WARMUP_SHARE))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + cos(pi * (step - warmup) / max(1, steps - warmup)))


def _save(path: Path, run: dict, module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    torch.save({"run": run, "module": module.state_dict(), "optimiser": optimiser.state_dict()}, partial)
    os.replace(partial, path)  # a kill leaves the old or the new file, never half of one


def _resume(path: Path, run: dict, module: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    saved = {key: state["run"].get(key, "") for key in run}
    if saved != run:
        raise WorkloadError(
            f"checkpoint {path} is of another run ({saved}); this one is {run}: name another file, or delete this one"
        )
    try:
        module.load_state_dict(state["module"])
    except RuntimeError as error:  # other knobs: other shapes
        raise WorkloadError(
            f"checkpoint {path} is of another model: {str(error).splitlines()[-1].strip()}; name another file"
        ) from error
    optimiser.load_state_dict(state["optimiser"])
    return state["run"]["step"]


def fingerprint(*modules: nn.Module, settings: object = "") -> str:
    """16 hex digits of the modules' tensors, of the quantisers on their layers and of the settings: two runs that
    differ in any of them have others."""
    content = hashlib.sha256(repr(settings).encode())
    for module in modules:
        content.update("".join(f"{name}: {hook.settings}\n" for name, hook in quantisers(module)).encode())
        for name, tensor in module.state_dict().items():
            numbers = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)  # (numpy knows no bf16)
            content.update(name.encode() + numbers.numpy().tobytes())
    return content.hexdigest()[:16]


def finetune(
    model: CompressedModel,
    task: Task,
    *,
    steps: int,
    learning_rate: float,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> CompressedModel:
    """Train the module of `model` (in place) with its masks and weight grids held at every step.

    The forward sees masked and fake-quantised weights, the gradient goes straight through the
    rounding to full-precision copies; afterwards the weights lie on mask and grid again.
    A `checkpoint` is bound to the model, masks and grids that the run starts from.
    """
    with held(model.module, model.masks, model.grids):
        train(
            model.module,
            task,
            steps=steps,
            seed=seed,
            learning_rate=learning_rate,
            progress=progress,
            checkpoint=checkpoint,
            origin=fingerprint(model.module, settings=sorted(model.grids.items())) if checkpoint else "",
        )
    return model


@contextmanager
def held(module: nn.Module, masks: Mapping[str, torch.Tensor], grids: Mapping[str, Grid]) -> Iterator[None]:
    """Within the context, the named weights pass through their mask, then their grid, wherever they are read: the
    embedding of a language model may be the weight of its head."""
    places = _places(module)
    named = {name: places[module.get_parameter(name)] for name in (*masks, *grids)}
    for name, owners in named.items():
        for owner, parameter in owners:
            what = _Held(masks.get(name), grids.get(name))
            parametrize.register_parametrization(owner, parameter, what, unsafe=True)
    try:
        yield
    finally:
        for owner, parameter in dict.fromkeys(place for owners in named.values() for place in owners):
            parametrize.remove_parametrizations(owner, parameter, leave_parametrized=True)


def _places(module: nn.Module) -> dict[nn.Parameter, list[tuple[nn.Module, str]]]:
    """Parameter -> (layer, name there) of all that have it."""
    found: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False, remove_duplicate=False):
            found.setdefault(parameter, []).append((layer, name))
    return found


class _Held(nn.Module):
    def __init__(self, mask: torch.Tensor | None, grid: Grid | None) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.grid = grid

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if self.mask is not None:
            weight = weight * self.mask
        return weight if self.grid is None else fake_quantise_weight(weight, self.grid)


def trained(task: Task, build: Callable[[], nn.Module], **options: object) -> nn.Module:
    """A module built and trained from one seed (`options` as of `train`)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(options.get("seed", 0)))  # type: ignore[call-overload]
        module = build()
    return train(module, task, **options)  # type: ignore[arg-type]


def clone(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module)
