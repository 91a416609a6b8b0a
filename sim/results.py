"""What a costed network looks like: frozen, JSON-able, each breakdown summing to its total.

The fields are those of the `dovetail.estimate/1` document. `sim.analytical` and `sim.events`
fill them; `sim.view` and the command only read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isinf
from typing import Any

from sim.units import Dimension, format_quantity

ESTIMATE_SCHEMA = "dovetail.estimate/1"
SIMULATE_SCHEMA = "dovetail.simulate/1"


class Term(StrEnum):
    """The closed set of latency terms: compute first, then the exposed part of everything else."""

    COMPUTE = "compute"
    EXPOSED_MEMORY = "exposed_memory"
    FILL_DRAIN = "fill_drain"
    PRELOAD = "preload"
    DMA_SETUP = "dma_setup"
    VECTOR = "vector"
    LAUNCH = "launch"
    COMMUNICATION = "communication"
    DEQUANTISE = "dequantise"
    QUEUEING = "queueing"


_TERMS = dict.fromkeys(Term)


def _complete(breakdown: Mapping[Term, float]) -> dict[Term, float]:
    """Every term of the closed set in its order; a term that was not given costs nothing."""
    for term in breakdown.keys() - _TERMS:
        raise ValueError(f"{term!r} is no term of a breakdown")
    return {term: breakdown.get(term, 0.0) for term in _TERMS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    read: float = 0.0
    write: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What fusion and tensors kept on chip save: every op alone with all tensors at home, less the schedule.

    `traffic_bytes` is memory -> Traffic; negative where the schedule moves more (a memory on chip for DRAM)."""

    latency_s: float
    traffic_bytes: Mapping[str, Traffic]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Ops that one unit, or the chips of one stage, runs of every inference, in a steady stream of them."""

    first: str
    last: str
    latency_s: float
    weights_on_chip_bytes: float
    """0 where the stage's weights do not all fit: then they come from home each time"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """One inference after the other on all units of the kind, or the stages of a system of chips: copies of a pipeline.

    `interval_s` is the time between two results, `latency_s` that of one inference, `bound` what sets the interval:
    "stage:<number>" or the resource that the units share."""

    interval_s: float
    latency_s: float
    throughput_per_s: float
    copies: int
    stages: tuple[Stage, ...]
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpEstimate:
    """One op's (or fused group's) part of the network; `latency_s` is its increment of the makespan."""

    name: str
    kind: str
    module: str
    source: str
    macs: int
    vector_ops: int
    latency_s: float
    roofline_s: float
    cycles: float
    bound: str
    """ "compute", "memory:<level>", "vector", "launch" or "link:<name>"."""
    mac_utilization: float | None
    cycles_ladder: Mapping[str, float] | None
    """{"ideal", "spatially_mapped", "compute", "total"}"""
    traffic_bytes: Mapping[str, Mapping[str, Traffic]]
    """memory -> operand -> Traffic"""
    energy_j: float | None
    """Leakage of the chip while it runs included."""
    breakdown_s: Mapping[Term, float]
    mapping: Mapping[str, object] | None
    fused: tuple[str, ...] = ()
    """Names of the ops that ran inside this one."""
    homes: Mapping[str, str] = field(default_factory=dict)
    """tensor id -> memory in which it lives"""
    held_bytes: Mapping[str, float] = field(default_factory=dict)
    """memory -> bytes that lie in it while the op runs; the largest of a network is its `peak_memory_bytes`"""
    saved: Saved | None = None
    """against the ops inside it one by one; None where it was not asked (`what_if`) or the unit is not mapped"""
    precision: str = ""
    """stored types: of the factors of a product ("int8", "w4a16"), of any other op's result; "" in old documents"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "breakdown_s", _complete(self.breakdown_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    resource: str
    factor: float
    latency_s: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A network on a chip. `to_dict` is its JSON form; names and units: docs/nomenclature.md."""

    workload_name: str
    knobs: Mapping[str, object]
    graph_hash: str
    batch: int
    hardware_name: str
    hardware_hash: str
    overrides: Mapping[str, str]
    precision: str
    objective: str
    map_space: str
    buffering: str
    calibration: Mapping[str, object] | None
    latency_s: float
    latency_interval_s: tuple[float, float] | None
    cycles: float
    roofline_latency_s: float
    macs: int
    effective_macs: float
    vector_ops: int
    mac_utilization: float | None
    energy_j: float | None
    power_w: float | None
    area_mm2: float | None
    peak_memory_bytes: Mapping[str, float]
    traffic_bytes: Mapping[str, Traffic]
    breakdown_s: Mapping[Term, float]
    ops: tuple[OpEstimate, ...]
    what_if: tuple[WhatIf, ...] = ()
    infeasible: Mapping[str, object] | None = None
    unsupported: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    energy_breakdown_j: Mapping[str, float] = field(default_factory=dict)
    saved: Saved | None = None
    """the sum over `ops`"""
    steady: Steady | None = None
    """the best stream of inferences; None where it was not asked (`what_if`) or the unit is not mapped"""
    area_breakdown_mm2: Mapping[str, float] = field(default_factory=dict)
    """component -> area; sums to `area_mm2`; empty where no node gives it"""
    die_cost: Mapping[str, object] = field(default_factory=dict)
    """of one die: `usd`, what it is made of, what it `assumes`, or the `reason` why there is none
    (`sim.hardware.money.die_cost`); empty in documents from before the key"""
    roofline: Mapping[str, object] = field(default_factory=dict)
    """The `dovetail.roofline/1` document of the network on this chip (`Roofline.to_dict`), or empty."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "breakdown_s", _complete(self.breakdown_s))

    def __repr__(self) -> str:
        """One line: all fields of a network fill screens (`to_dict` has them, `dovetail report` shows them)."""
        time = "infeasible" if isinf(self.latency_s) else format_quantity(self.latency_s, Dimension.TIME)
        energy = "" if self.energy_j is None else f", {format_quantity(self.energy_j, Dimension.ENERGY)}"
        what = f"{self.workload_name} on {self.hardware_name}, {self.precision}, batch {self.batch}"
        return f"<Estimate of {what}: {time}{energy}, {len(self.ops)} ops>"

    @property
    def workload(self) -> dict[str, object]:
        """As in the document: "name", "knobs", "graph_hash"."""
        return {"name": self.workload_name, "knobs": dict(self.knobs), "graph_hash": self.graph_hash}

    @property
    def hardware(self) -> dict[str, object]:
        """As in the document: "name", "hash", "overrides"."""
        return {"name": self.hardware_name, "hash": self.hardware_hash, "overrides": dict(self.overrides)}

    @property
    def flops(self) -> int:
        return 2 * self.macs + self.vector_ops

    @property
    def throughput_per_s(self) -> float:
        return self.batch / self.latency_s

    @property
    def below_datasheet_roofline(self) -> bool:
        return self.latency_s < self.roofline_latency_s

    def to_dict(self) -> dict[str, Any]:
        """The `dovetail.estimate/1` document; `sim.results_io.from_dict` reads it back."""
        from sim.results_io import to_dict

        return to_dict(self)

    def to_frame(self) -> Any:
        """Tidy long table: one row per op and quantity (see `sim.results_io.to_frame`)."""
        from sim.results_io import to_frame

        return to_frame(self)
