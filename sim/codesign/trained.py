"""Quality by training: cheap answers first, and training ends as soon as no chip could be worth it.

A candidate is looked at before training (the file's `cheap` function) and at some shares of it, on
validation data. From a look to the end quality may rise by the largest rise seen so far among finished
candidates of the same recipe (unbounded while fewer than `ENOUGH` are finished). If with that rise every
chip still misses a limit or is beaten, the training stops. The test set is read once per finished
candidate, and never for a choice. Loads torch when the first candidate is trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.codesign.choice import ModelChoice
from sim.codesign.schema import QualitySpec
from sim.compression.quality import Method, Quality, judged
from sim.compression.tasks import load_task
from sim.errors import ConfigError, TraceError

if TYPE_CHECKING:
    from torch import nn

    from sim.compression.training import Task

ENOUGH = 3
"""Finished candidates before one is stopped: the largest rise of fewer says little."""
MODULES = 4
"""Trained networks that are kept, for other recipes on the same network."""

Worth = Callable[[float], bool]
"""Could some chip be on the front if the quality were this?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What training one choice showed: (share of the training, quality on validation data), the end, the test."""

    key: str
    recipe: str | None
    looks: tuple[tuple[float, float], ...]
    final: float | None = None
    """None: stopped at the last look."""
    test: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Course:
        return cls(**{**document, "looks": tuple((s, v) for s, v in document["looks"])})


@dataclass
class Trained:
    """Judges choices by training their one workload on its own task; remembers every course."""

    spec: QualitySpec
    where: str
    cheap: Callable[..., Any] | None = None
    folder: Path | None = None
    """Where recipe files are looked for."""
    courses: dict[str, Course] = field(default_factory=dict)
    _modules: dict[str, tuple[nn.Module, tuple, tuple[tuple[float, float], ...]]] = field(default_factory=dict)

    def key(self, choice: ModelChoice) -> str:
        (part,) = choice.parts
        return json.dumps([part.workload, dict(part.knobs), choice.recipe], sort_keys=True)

    def remember(self, course: Course) -> None:
        self.courses[course.key] = course

    def guess(self, choice: ModelChoice) -> float:
        """What the guide may think of a choice: its quality, else the cheap one's best case, else the best so far."""
        known = self.courses.get(self.key(choice))
        if known is not None:
            return known.final if known.final is not None else known.looks[-1][1]
        finals = [c.final for c in self.courses.values() if c.final is not None]
        if self.cheap is not None:
            cheap = self._cheap(choice)
            most = self.limit(choice.recipe, 0.0, cheap)
            return cheap if abs(most) == inf else most
        return (max if self.spec.higher_is_better else min)(finals, default=1.0)

    def best_case(self, choice: ModelChoice) -> float:
        """The best that the quality may come to, as far as is known before any training."""
        known = self.courses.get(self.key(choice))
        if known is not None and known.final is not None:
            return known.final
        return self.limit(choice.recipe, 0.0, self._cheap(choice)) if self.cheap is not None else self._sign * inf

    def limit(self, recipe: str | None, share: float, value: float) -> float:
        """`value` after `share` of the training plus the largest rise from there that a finished candidate showed."""
        rises = [
            self._sign * (course.final - dict(course.looks)[share])
            for course in self.courses.values()
            if course.final is not None and course.recipe == recipe and share in dict(course.looks)
        ]
        return value + self._sign * (max(rises) if len(rises) >= ENOUGH else inf)

    @property
    def _sign(self) -> float:
        return 1.0 if self.spec.higher_is_better else -1.0

    def _cheap(self, choice: ModelChoice) -> float:
        from sim.codesign.quality import by_function

        assert self.cheap is not None
        return by_function(self.spec, self.cheap, str(self.spec.cheap), choice, self.where).value

    def judge(self, choice: ModelChoice, worth: Worth) -> Course:
        """The course of a choice, trained as far as it is worth it. Raises: ConfigError: the task's metric; the task or
        the network raised, which ends a search: a choice whose network can be traced is not to blame."""
        key = self.key(choice)
        if key not in self.courses:
            try:
                self.remember(self._trained(choice, key, worth))
            except TraceError as error:
                raise ConfigError(f"{self.where}: quality.method train: {error}") from error
        return self.courses[key]

    def _trained(self, choice: ModelChoice, key: str, worth: Worth) -> Course:
        looks = self._looks(choice, worth)
        if looks[-1][0] < 1.0:
            return Course(key=key, recipe=choice.recipe, looks=looks)
        final, test = self._compressed(choice)
        return Course(key=key, recipe=choice.recipe, looks=looks[:-1], final=final, test=test)

    def quality(self, course: Course) -> Quality:
        """Raises: AssertionError: of a course that was stopped."""
        assert course.final is not None
        return Quality(
            metric=self.spec.metric, value=course.final, higher_is_better=self.spec.higher_is_better,
            method=Method.TRAIN,
            source=f"{self.spec.steps} steps on the workload's task, seed {self.spec.seed}, at most "
            f"{self.spec.examples} validation examples",
        )  # fmt: skip

    def _looks(self, choice: ModelChoice, worth: Worth) -> tuple[tuple[float, float], ...]:
        """Looks up to where the training stopped; the last is (1.0, quality) where it was not."""
        looks: list[tuple[float, float]] = []

        def look(share: float, value: float) -> bool:
            looks.append((share, value))
            return share == 1.0 or worth(self.limit(choice.recipe, share, value))

        if self.cheap is not None and not look(0.0, self._cheap(choice)):
            return tuple(looks)
        self._network(choice, look)
        return tuple(looks)

    def _network(self, choice: ModelChoice, look: Callable[[float, float], bool]) -> None:
        """Train the uncompressed network, or go through the looks of when it was trained."""
        (part,) = choice.parts
        name = json.dumps([part.workload, dict(part.knobs)], sort_keys=True)
        if name in self._modules:
            for share, value in self._modules[name][2]:
                if not look(share, value):
                    return
            return
        import torch

        from sim.compression.training import train
        from sim.workload.load import Workload

        task = self._task(part.workload, dict(part.knobs))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            module, inputs = Workload(part.workload, dict(part.knobs)).build()
        taken: list[tuple[float, float]] = []

        def progress(step: int, steps: int, loss: float) -> None:
            due = [s for s in sorted({*self.spec.checks}) if s * steps <= step and s not in dict(taken)]
            if due and step < steps:
                taken.append((due[-1], self._score(module, task)))
                module.train()
                if not look(*taken[-1]):
                    raise _NotWorthItError

        try:
            train(module, task, steps=self.spec.steps, seed=self.spec.seed, progress=progress)
        except _NotWorthItError:
            return
        taken.append((1.0, self._score(module, task)))
        look(*taken[-1])
        self._modules[name] = (module, inputs, tuple(taken))
        if len(self._modules) > MODULES:
            del self._modules[next(iter(self._modules))]

    def _task(self, workload: str, knobs: Mapping[str, Any]) -> Task:
        task = load_task(workload, knobs)
        if task is None:
            raise ConfigError(
                f"{self.where}: quality.method train: {workload} has no task: give its file a function "
                "task, as digits_cnn and byte_gpt have one (docs/compression.md)"
            )
        return task

    def _score(self, module: nn.Module, task: Task) -> float:
        score = judged(module, task, limit=self.spec.examples, part="validation")
        if score.higher_is_better != self.spec.higher_is_better:
            raise ConfigError(
                f"{self.where}: quality.higher_is_better is {str(self.spec.higher_is_better).lower()}, but the task "
                f"{task.name} measures {score.metric}: write {str(score.higher_is_better).lower()}"
            )
        return score.value

    def _compressed(self, choice: ModelChoice) -> tuple[float, float]:
        """(validation, test) quality of the trained network after the choice's recipe."""
        from sim.compression.recipe import apply_recipe, find_recipe
        from sim.workload.load import Workload

        (part,) = choice.parts
        module, inputs, _ = self._modules[json.dumps([part.workload, dict(part.knobs)], sort_keys=True)]
        task = self._task(part.workload, dict(part.knobs))
        if choice.recipe is not None:
            recipe = find_recipe(choice.recipe, folder=self.folder)
            made = apply_recipe(
                module, recipe, example_inputs=inputs, task=task, seed=self.spec.seed,
                build=lambda **changes: Workload(part.workload, {**dict(part.knobs), **changes}).build(),
            )  # fmt: skip
            module = made.module
        return self._score(module, task), judged(module, task).value


class _NotWorthItError(Exception):
    """Nothing that can still come of it is worth the rest of the training."""


__all__ = ["Course", "Trained"]
