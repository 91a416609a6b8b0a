"""A scenario of the event simulator as an objective: goodput and deadline misses of a design.

The search's workloads take the place of the scenario's streams (or of its language model), with the
knobs and precision of the choice; everything else is as the scenario file says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.codesign.choice import ModelChoice, Part, absolute
from sim.codesign.recipes import effect
from sim.errors import ConfigError, nearest
from sim.events.scenario import (
    Closed,
    Recorded,
    Scenario,
    StreamSpec,
    load_scenario,
    parse_scenario,
    scenarios_dir,
)
from sim.hardware.chip import Chip
from sim.hardware.load import read_yaml

if TYPE_CHECKING:
    from sim.codesign.space import Space


OWN_KNOBS = ("phase", "batch", "context")
"""Knobs that serving sets by itself."""


@dataclass(frozen=True, kw_only=True)
class Driven:
    """`streams` maps the label of a searched workload to its stream; to "" where it is the served model."""

    scenario: Scenario
    streams: Mapping[str, str]
    raw: Mapping[str, Any]
    """What the file says, with models, policies and arrivals in files by their full paths."""
    folder: Path
    """Where it lies."""
    seed: int = 0

    @classmethod
    def of(cls, space: Space) -> Driven | None:
        """Raises: ConfigError: no such scenario, a workload without a stream, sparsity."""
        spec = space.spec.scenario
        if spec.events is None:
            return None
        beside = space.folder / spec.events
        scenario = load_scenario(beside if beside.is_file() else spec.events)
        path = beside if beside.is_file() else Path(spec.events)
        path = path if path.suffix in (".yaml", ".yml") else scenarios_dir() / f"{spec.events}.yaml"
        labels = {label: w.stream or label for label, w in zip(space.labels, space.spec.workloads, strict=True)}
        if scenario.serving is not None:
            if len(labels) > 1 and space.spec.combine != "one_of":
                raise ConfigError(f"{space.where}: scenario {scenario.name} serves one model, not {len(labels)}")
            labels = dict.fromkeys(labels, "")
        names = [s.name for s in scenario.streams]
        for label, stream in labels.items():
            if stream and stream not in names:
                raise ConfigError(
                    f'{space.where}: workloads.{label}: scenario {scenario.name} has no stream "{stream}"; it has '
                    f"{', '.join(names)}: name one as `stream`.{nearest(stream, names)}"
                )
        recipes = (effect(name, wide="bf16", folder=space.folder)[1] for name in space.spec.compression.recipe)
        if any(pattern != "none" for pattern in (*space.spec.compression.sparsity, *recipes)):
            raise ConfigError(f"{space.where}: scenario.events runs dense models; leave sparsity out")
        raw = dict(read_yaml(path))
        if scenario.streams:
            raw["streams"] = [_found_anywhere(*pair) for pair in zip(raw["streams"], scenario.streams, strict=True)]
        return cls(scenario=scenario, streams=labels, seed=spec.seed, raw=raw, folder=path.parent)

    def document(self, choice: ModelChoice) -> dict[str, Any]:
        """The scenario file with the choice's models in it."""
        parts = {self.streams[part.label]: part for part in choice.parts}

        def filled(old: Mapping[str, Any], part: Part | None) -> dict[str, Any]:
            if part is None:
                return dict(old)
            return {**old, "workload": part.absolute, "knobs": dict(part.knobs), "precision": choice.precision}

        changed = dict(self.raw)
        if self.scenario.serving is not None:
            served = filled(self.raw["serving"], parts[""])
            # a search costs one phase at one batch and context; serving goes through all of them
            served["knobs"] = {name: value for name, value in served["knobs"].items() if name not in OWN_KNOBS}
            changed["serving"] = served
        else:
            changed["streams"] = [filled(old, parts.get(old["name"])) for old in self.raw["streams"]]
        return changed

    def filled(self, choice: ModelChoice) -> Scenario:
        """The scenario with the choice's models in it."""
        return parse_scenario(self.document(choice), where=self.scenario.name, folder=self.folder)

    def run(self, choice: ModelChoice, chip: Chip) -> dict[str, float]:
        """`goodput` (jobs or requests a second within their deadlines, of the searched workloads) and `miss_rate`
        (share that misses, of the stream that misses most).

        Raises: InfeasibleError: more is asked of a unit or port than it has, or a deadline below the service time.
        """
        from sim.events.experiment import run_scenario
        from sim.events.serving_scenario import run_serving

        filled = self.filled(choice)
        if filled.serving is not None:
            pooled = run_serving(filled, chip, seed=self.seed, record=0).pooled
            total = len(pooled.requests) + pooled.overdue
            return {"goodput": pooled.goodput_per_s, "miss_rate": sum(pooled.missed().values()) / total}
        found = run_scenario(filled, chip, seed=self.seed, record=0).streams
        searched = [found[self.streams[part.label]] for part in choice.parts]
        return {
            "goodput": sum(result.goodput_per_s for result in searched),
            "miss_rate": max((r.miss_rate for r in found.values() if r.miss_rate is not None), default=0.0),
        }

    def most(self, choice: ModelChoice, latency_s: np.ndarray) -> np.ndarray:
        """Goodput that no chip exceeds, (n,): every job that can end between the warm-up and the length does, in time.

        Args: latency_s (parts, n): bound of each part's latency.
        """
        from sim.events.experiment import generator, released_s

        if self.scenario.serving is not None:
            return np.full(latency_s.shape[1], _served_per_s(self.scenario, self.seed))
        begin, end = self.scenario.warmup, self.scenario.length
        window_s = self.scenario.replications * (end - begin)
        bounds = {self.streams[part.label]: bound for part, bound in zip(choice.parts, latency_s, strict=True)}
        total = np.zeros(latency_s.shape[1])
        for i, spec in enumerate(self.scenario.streams):
            if spec.name not in bounds:
                continue
            bound = bounds[spec.name]
            if isinstance(spec.arrivals, Closed):
                with np.errstate(divide="ignore"):
                    total = total + spec.copies * (1.0 / bound + self.scenario.replications / window_s)
                continue
            late = np.inf if spec.deadline is None else spec.deadline  # what began before the warm-up may end in it
            for replication, copy in product(range(self.scenario.replications), range(spec.copies)):
                rng = generator(self.seed, replication, i, copy)
                times = np.array(released_s(spec, copy, end, rng))[:, None]
                total = total + ((times >= begin - late) & (times + bound <= end)).sum(axis=0) / window_s
        return np.asarray(total)


def _found_anywhere(raw: Mapping[str, Any], spec: StreamSpec) -> dict[str, Any]:
    """A stream of the file whose own files are found from the winner's folder too."""
    changed = {**raw, "workload": absolute(spec.workload)}
    if spec.precision is not None and spec.precision.endswith((".yaml", ".yml")):
        changed["precision"] = str(Path(spec.precision).resolve())
    if isinstance(spec.arrivals, Recorded):
        changed["arrivals"] = {**raw["arrivals"], "path": str(Path(spec.arrivals.path).resolve())}
    return changed


def _served_per_s(scenario: Scenario, seed: int) -> float:
    """Requests after the warm-up over the time in which they arrive."""
    from sim.events.serving_scenario import draw_requests

    assert scenario.serving is not None
    count = window_s = 0.0
    for replication in range(scenario.replications):
        drawn = draw_requests(scenario.serving.requests, seed, replication)
        times = np.array([r.arrival_s for r in drawn if r.arrival_s >= scenario.warmup])
        count, window_s = count + len(times), window_s + times.max(initial=scenario.warmup) - scenario.warmup
    return count / window_s if window_s else count
