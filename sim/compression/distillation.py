"""Distillation: a small student learns the outputs and the features of a large teacher.

References: [1] Hinton, Vinyals, Dean, arXiv 1503.02531: soft targets at a temperature, scaled by
T^2. [2] Romero et al., FitNets, ICLR 2015 (arXiv 1412.6550): hints through a learned projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from sim.compression.model import CompressedModel, Report, as_compressed
from sim.compression.training import Progress, Task, fingerprint, held, train
from sim.errors import ConfigError, nearest
from sim.workload.raised import foreign_code, told


def distil(
    student: nn.Module | CompressedModel,
    teacher: nn.Module,
    task: Task,
    *,
    steps: int,
    learning_rate: float,
    temperature: float = 4.0,
    soft_weight: float = 0.7,
    features: Mapping[str, str] | None = None,
    feature_weight: float = 1.0,
    seed: int = 0,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    knobs: Mapping[str, object] | None = None,
) -> CompressedModel:
    """Train a copy of `student` against labels, the teacher's logits and, if named, its features.

    loss = (1 - w) task + w T^2 KL(teacher/T || student/T) + v sum of feature errors      [1, 2]

    The classes of the logits are on the last axis. A feature error is the mean squared difference
    of the two layers' outputs, the student's through a learned linear map, each divided by the
    teacher's mean square, so that v is free of scale.

    Args:
        features: student layer -> teacher layer whose outputs are compared (channels on axis 1 of
            a 4-D map, else on the last).
        knobs: what the student was built with: a checkpoint is bound to them, since others may make another network
            of the same weights.
    Raises: ConfigError: a named layer does not exist, temperature or weight out of range, or outputs
            that are no logits of one shape; TraceError: the task, the teacher or the student raised.
    """
    if temperature <= 0 or not 0 <= soft_weight <= 1:
        raise ConfigError(f"distil: temperature {temperature} must be above 0 and soft_weight {soft_weight} in [0, 1]")
    out = as_compressed(student)
    teacher = teacher.eval()
    with foreign_code(lambda error: f"distil, task {task.name}: {told(error)}"):
        _check_logits(teacher, out.module, task.calibration(1))
        pairs = _Hints(out.module, teacher, features or {}, task)
    holder = nn.ModuleDict({"student": out.module, "maps": pairs.maps})

    def objective(_: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher(inputs)
        logits = out.module(inputs)
        loss = (1 - soft_weight) * task.loss(logits, targets)
        loss = loss + soft_weight * soft_loss(logits, wanted, temperature)
        return loss + feature_weight * pairs.error()

    settings = (
        temperature, soft_weight, sorted((features or {}).items()), feature_weight, sorted(out.grids.items()),
        sorted((knobs or {}).items()),
    )  # fmt: skip
    try:
        with held(out.module, out.masks, out.grids):
            train(
                holder,
                task,
                steps=steps,
                learning_rate=learning_rate,
                seed=seed,
                progress=progress,
                objective=objective,
                checkpoint=checkpoint,
                origin=fingerprint(teacher, holder, settings=settings) if checkpoint else "",
            )
    finally:
        pairs.remove()
    details = {"steps": steps, "temperature": temperature, "soft_weight": soft_weight, "features": dict(features or {})}
    treated = tuple(name for name, _ in out.module.named_children())
    return out.with_(Report(technique="distil", treated=treated, details=details))


def _check_logits(teacher: nn.Module, student: nn.Module, inputs: torch.Tensor) -> None:
    with torch.no_grad():
        shapes = [
            list(made.shape) if isinstance(made, torch.Tensor) else f"a {type(made).__name__}"
            for made in (teacher(inputs), student.eval()(inputs))
        ]
    if isinstance(shapes[0], str) or shapes[0] != shapes[1]:
        raise ConfigError(
            f"distil: the teacher gives {shapes[0]} and the student {shapes[1]}: expected logits, one tensor of the "
            "same shape from both"
        )


def soft_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), averaged over all but the last axis."""
    s = functional.log_softmax(student.flatten(0, -2) / temperature, -1)
    t = functional.log_softmax(teacher.flatten(0, -2) / temperature, -1)
    return temperature**2 * functional.kl_div(s, t, reduction="batchmean", log_target=True)


class _Hints:
    """Pairs of layers whose outputs are compared, with a learned map from student to teacher width."""

    def __init__(self, student: nn.Module, teacher: nn.Module, features: Mapping[str, str], task: Task) -> None:
        self._seen: dict[tuple[str, str], torch.Tensor] = {}
        self._names = list(features.items())
        self._hooks = []
        for mine, theirs in self._names:
            self._hooks.append(_layer(student, mine, "student").register_forward_hook(self._keep("s", mine)))
            self._hooks.append(_layer(teacher, theirs, "teacher").register_forward_hook(self._keep("t", theirs)))
        self.maps = nn.ModuleList()
        if self._names:
            student.eval()  # a probe must not move running statistics
            with torch.no_grad():
                probe = task.calibration(2)
                student(probe), teacher(probe)
            for mine, theirs in self._names:
                a, b = _last(self._seen["s", mine]), _last(self._seen["t", theirs])
                if a.shape[:-1] != b.shape[:-1]:
                    raise ConfigError(
                        f"distil: student {mine} gives {tuple(a.shape)} and teacher {theirs} {tuple(b.shape)} "
                        "(channels last); all but the channels must agree"
                    )
                self.maps.append(nn.Linear(a.shape[-1], b.shape[-1], bias=False))
                nn.init.eye_(self.maps[-1].weight)

    def _keep(self, side: str, name: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _args: tuple, output: torch.Tensor) -> None:
            self._seen[side, name] = output

        return hook

    def error(self) -> torch.Tensor:
        total = torch.zeros(())
        for (mine, theirs), project in zip(self._names, self.maps, strict=True):
            wanted = _last(self._seen["t", theirs]).detach()
            got = project(_last(self._seen["s", mine]))
            total = total + functional.mse_loss(got, wanted) / wanted.square().mean().clamp(min=1e-12)
        return total

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1) if x.dim() == 4 else x


def _layer(module: nn.Module, name: str, side: str) -> nn.Module:
    found = dict(module.named_modules())
    if name not in found:
        raise ConfigError(f'distil: the {side} has no layer "{name}".{nearest(name, found)}')
    return found[name]
