"""What `evaluate` is asked: one choice on the model's side, and what counts as good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sim.errors import InfeasibleError, WorkloadError
from sim.workload.graph import Graph, Role
from sim.workload.load import MODEL_FILES
from sim.workload.precision import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One workload with its knobs; `knobs` are sorted pairs, so that equal parts are equal."""

    label: str
    workload: str
    knobs: tuple[tuple[str, Any], ...] = ()
    weight: float = 1.0
    graph: Graph | None = None
    """Given instead of a workload that is traced."""

    @property
    def absolute(self) -> str:
        """The workload so that it is found from any folder."""
        return absolute(self.workload)


def absolute(workload: str) -> str:
    """A model file so that it is found from any folder; a bundled name as it is."""
    path, colon, function = workload.partition(".py:")
    if colon or workload.endswith((".py", *MODEL_FILES)):
        return str(Path(path + ".py" * bool(colon)).resolve()) + (f":{function}" if colon else "")
    return workload


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """What runs: the parts (one, or all that must run), precision and weight sparsity."""

    parts: tuple[Part, ...]
    precision: str
    sparsity: str = "none"
    recipe: str | None = None
    variant: str | None = None

    def facts(self) -> dict[str, Any]:
        """Flat names -> values: what quality rows and user functions see."""
        found: dict[str, Any] = {"precision": self.precision, "sparsity": self.sparsity}
        if self.recipe is not None:
            found["recipe"] = self.recipe
        if len(self.parts) == 1:
            found |= {"workload": self.parts[0].label, **dict(self.parts[0].knobs)}
            if self.variant is not None:
                found["variant"] = self.variant
        for part in self.parts:
            found |= {f"{part.label}.{name}": value for name, value in part.knobs}
        return found

    def graphs(self) -> tuple[Graph, ...]:
        """The dense or sparse graphs of the parts, as traced (precision not applied).

        Raises: WorkloadError, TraceError: a knob combination that the workload refuses; InfeasibleError: a pattern
        that fits none of its weights.
        """
        return tuple(
            _sparse(part.graph, self.sparsity)
            if part.graph is not None
            else _traced(part.workload, part.knobs, self.sparsity)
            for part in self.parts
        )


@lru_cache(maxsize=256)
def _traced(workload: str, knobs: tuple[tuple[str, Any], ...], sparsity: str) -> Graph:
    from sim.workload.load import load_workload

    return _sparse(load_workload(workload, **dict(knobs)), sparsity)


def _sparse(graph: Graph, sparsity: str) -> Graph:
    """Raises: InfeasibleError: no weight of this network takes the pattern, as one of other widths may."""
    from sim.workload.passes.sparsify import sparsify

    try:
        return graph if sparsity == "none" else sparsify(graph, sparsity)
    except WorkloadError as error:
        raise InfeasibleError(f"networks without a weight that takes the pattern: {error}") from error


def stored_bytes(graph: Graph, precision: Precision) -> float:
    """Weights and KV cache as they lie in memory at a precision [bytes], every storage once."""
    from sim.workload.passes.precision import apply_precision

    sizes: dict[str, float] = {}
    for key, tensor in apply_precision(graph, precision).tensors.items():
        if tensor.role in (Role.WEIGHT, Role.KV_CACHE):
            place = tensor.storage or key
            sizes[place] = max(sizes.get(place, 0.0), float(tensor.size_bytes))
    return sum(sizes.values())


LARGER = ("throughput", "speed_up", "goodput")
"""Objectives of which more is better; quality says so itself."""
OFFSETS = {"miss_rate": 1.0}
"""Added to what may be 0."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Objectives, limits and the rules by which several workloads become one number.

    `limits` maps a metric ("latency", "area", ...) to its largest value in base units;
    `quality_min`/`quality_max` bound the quality. `functions` are the user's: row of metrics and
    facts -> violation, feasible at 0 and below.
    """

    objectives: tuple[str, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    quality: Any = None
    """`choice -> Quality`, see `sim.codesign.quality`."""
    quality_higher_is_better: bool = True
    quality_min: float | None = None
    quality_max: float | None = None
    functions: tuple[tuple[str, Any], ...] = ()
    combine: str = "weighted"
    """ "weighted" (mean by weight) or "worst"."""
    baseline_s: float | None = None
    """Seconds per sample of the record that `speed_up` is over."""
    mapping_for: str = "latency"
    map_space: str = "even"
    calibration: str = "auto"
    driven: Any = None
    """`sim.codesign.streams.Driven`: the scenario in which every costed design is simulated."""

    def minimised(self, objective: str, values: np.ndarray | float) -> np.ndarray | float:
        """Values of an objective as what is to be minimised, and never 0: searches look at logarithms."""
        return self.sign(objective) * values + OFFSETS.get(objective, 0.0)

    def sign(self, objective: str) -> float:
        """1 for what is minimised, -1 for what is maximised."""
        up = objective in LARGER or (objective == "quality" and self.quality_higher_is_better)
        return -1.0 if up else 1.0
