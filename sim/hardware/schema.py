"""The schema of a chip file (`dovetail.chip/1`): strict, frozen, every number with a source.

Names here are those of the YAML; `sim.hardware.compile` turns a `ChipSpec` into a `Chip`. Each
component says in `source` where its numbers come from: a key of `sources` (a locator may follow,
"isca17: table 2"), "estimated: why", "derived: how", "unverified[: what]", or a map from field to
one of these, with `default` for the rest. What each key means: `sim.hardware.meanings`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from sim.errors import nearest
from sim.hardware import fields as f
from sim.hardware.chip import Buffering, Costing, Dataflow, Folds, Preload, Skew
from sim.hardware.options import KNOWN_OPTIONS, gpu_problem, unknown_options
from sim.hardware.technology import operand_bits
from sim.hardware.technology_data import DRAM_PJ_PER_BIT, NODES_NM, SRAM_KINDS, nearest_nodes
from sim.workload.graph import OperandRole, Primitive

CHIP_SCHEMA = "dovetail.chip/1"
SOURCE_WORDS = ("estimated", "derived", "unverified", "override")
"""What may stand in `source` in place of a key; all but "unverified" are followed by ": why"."""

Source = str | dict[str, str]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


def _explained(schema: dict[str, Any], spec: type[BaseModel]) -> None:
    """Puts what each key means into the JSON Schema of a part; checking a file needs none of it."""
    from sim.hardware.meanings import MEANINGS

    for key, meaning in MEANINGS[spec.__name__].items():
        schema["properties"][key].update(meaning)


class Spec(BaseModel):
    """Base of all parts of a chip file. `unsourced` are fields that are names, not facts."""

    # building one validator for the whole file, at its first use, takes half the time of one per part
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, json_schema_extra=_explained)
    unsourced: ClassVar[frozenset[str]] = frozenset({"name", "source"})

    def stated(self) -> list[str]:
        """The fields of this component, as written in the file, that need a source."""
        return [name for name in type(self).model_fields if name in self.model_fields_set - self.unsourced]


class MemorySpec(Spec):
    """A memory: one that all units share, or a level of a unit."""

    unsourced = frozenset({"name", "source", "kind", "holds"})
    name: Name
    kind: str = "sram"
    capacity: f.Size
    bandwidth: f.Bandwidth | None = None
    read_bandwidth: f.Bandwidth | None = None
    write_bandwidth: f.Bandwidth | None = None
    latency: f.Time = 0.0
    efficiency: f.Share = 1.0
    burst: f.Bytes | None = None
    outstanding: f.Count | None = None
    request: f.Bytes | None = None
    holds: tuple[OperandRole, ...] = tuple(OperandRole)
    double_buffered: bool = True
    residency: bool = True
    read_energy: f.EnergyPerByte | None = None
    write_energy: f.EnergyPerByte | None = None
    source: Source

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        known = sorted(SRAM_KINDS | set(DRAM_PJ_PER_BIT))
        if kind not in known:
            raise ValueError(
                f'"{kind}" is no kind of memory: expected one of {", ".join(known)}.{nearest(kind, known)}'
            )
        return kind

    @model_validator(mode="after")
    def _one_way_of_stating_bandwidth(self) -> MemorySpec:
        both = self.read_bandwidth is not None and self.write_bandwidth is not None
        either = self.read_bandwidth is not None or self.write_bandwidth is not None
        if self.bandwidth is not None and either:
            raise ValueError(
                "bandwidth (both directions together) stands beside read_bandwidth or write_bandwidth: state either "
                "bandwidth, or both read_bandwidth and write_bandwidth"
            )
        if self.bandwidth is None and not both:
            raise ValueError("no bandwidth: state either bandwidth, or both read_bandwidth and write_bandwidth")
        if self.capacity <= 0:
            raise ValueError("capacity must be above 0")
        if not self.holds or len(set(self.holds)) != len(self.holds):
            raise ValueError("holds must name each operand once: some of input, weight, output")
        return self


class FanoutSpec(Spec):
    """Copies of everything that follows in the hierarchy: cores, clusters, multiprocessors."""

    unsourced = frozenset({"name", "source", "multicast"})
    name: Name
    count: f.Count
    multicast: bool = True
    source: Source


class ArraySpec(Spec):
    """Cells that multiply and accumulate, the innermost level of a unit."""

    unsourced = frozenset({"name", "source", "dataflow", "skew", "folds", "preload", "accumulate"})
    name: Name
    rows: f.Count
    cols: f.Count
    dataflow: Dataflow
    skew: Skew
    folds: Folds
    preload: Preload
    macs_per_cycle: dict[f.ComputeDtype, f.Number] = Field(min_length=1)
    accumulate: f.Accumulator = 32
    weight_sparsity: dict[f.SparsityPattern, f.Number] = {}
    sparse_min_channels: f.Count = 1
    sparse_pass: f.Size | None = None
    skips_zeros: bool = False
    depthwise_macs_per_cycle: dict[f.ComputeDtype, f.Number] = {}
    drain_bandwidth: f.CycleRate | None = None
    mac_energy: dict[f.ComputeDtype, f.Energy] = {}
    source: Source

    @model_validator(mode="after")
    def _sums_as_wide_as_factors(self) -> ArraySpec:
        """Cells that join for a wide type (less than one of its MACs a cycle each) join their sums too."""
        widths = {dtype: operand_bits(dtype) * min(1.0, rate) for dtype, rate in self.macs_per_cycle.items()}
        widest = max(widths, key=widths.__getitem__)
        if self.accumulate < widths[widest]:
            raise ValueError(
                f"accumulate is {self.accumulate} bit, narrower than the {widths[widest]:g} bit of {widest} factors in "
                f"one cell, whose products it sums: expected {widths[widest]:g} bit at least, as int32 for int8"
            )
        return self

    @model_validator(mode="after")
    def _patterns_save_what_they_leave_out(self) -> ArraySpec:
        for pattern, factor in self.weight_sparsity.items():
            kept, of = map(int, pattern.split(":"))
            if factor > of / kept:
                raise ValueError(
                    f"weight_sparsity.{pattern} is {factor:g}, but {kept} of {of} weights remain to be multiplied: "
                    f"expected {of / kept:g} at most"
                )
            if factor < 1:
                raise ValueError(
                    f"weight_sparsity.{pattern} is {factor:g}, with which the pattern would take longer than dense "
                    f"weights: expected how many times shorter the reduction gets, 1 to {of / kept:g}"
                )
        return self

    @model_validator(mode="after")
    def _types_are_the_arrays(self) -> ArraySpec:
        for dtype in self.depthwise_macs_per_cycle:
            if dtype not in self.macs_per_cycle:
                raise ValueError(
                    f"depthwise_macs_per_cycle.{dtype}: expected a type that the array has: "
                    f"{', '.join(self.macs_per_cycle)}.{nearest(dtype, self.macs_per_cycle)}"
                )
        return self


def _primitive(value: object) -> str:
    names = [p.value for p in Primitive]
    if value not in names:
        raise f._fail(f'"{value}" is no primitive: expected one of {", ".join(names)}.{nearest(str(value), names)}')
    return str(value)


PrimitiveName = Annotated[str, BeforeValidator(_primitive)]


class VectorSpec(Spec):
    """The lanes of a unit: what no matrix product is."""

    name: Name
    lanes: f.Count
    rates: dict[PrimitiveName, f.Number] = Field(min_length=1)
    fallback: dict[PrimitiveName, dict[PrimitiveName, f.Number]] = {}
    energy: dict[PrimitiveName, f.Energy] = {}
    source: Source

    @model_validator(mode="after")
    def _every_primitive_has_a_rate(self) -> VectorSpec:
        missing = [p.value for p in Primitive if p.value not in self.rates and p.value not in self.fallback]
        if missing:
            raise ValueError(f"no rate for {', '.join(missing)}: give rates, or a fallback that makes them from others")
        for name, parts in self.fallback.items():
            loose = [part for part in parts if part not in self.rates]
            if loose:
                raise ValueError(f"fallback.{name} is made from {', '.join(loose)}, which has no rate of its own")
        return self


class LevelSpec(Spec):
    """One level of a hierarchy: exactly one of the three."""

    memory: MemorySpec | None = None
    fanout: FanoutSpec | None = None
    array: ArraySpec | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> LevelSpec:
        if len(self.model_fields_set) != 1:
            raise ValueError("a level is exactly one of memory, fanout, array")
        return self


class OverheadsSpec(Spec):
    """Times that work pays whatever its size."""

    launch: f.Time = 0.0
    dma_setup: f.Time = 0.0
    source: Source


def _option(value: object) -> Any:
    if isinstance(value, list):
        return tuple(_option(item) for item in value)
    if isinstance(value, bool | int | float | str):
        return value
    raise f._fail(f"{value!r} is not a number, word or list of these")


class UnitSpec(Spec):
    """What computes: an NPU, a GPU, a CPU."""

    unsourced = frozenset({"name", "source", "home", "hierarchy", "vector", "costing", "buffering", "overheads"})
    name: Name
    count: f.Count = 1
    home: str
    clock: f.Frequency | None = None
    costing: Costing = Costing.MAPPED
    buffering: Buffering = Buffering.ATOMIC
    hierarchy: tuple[LevelSpec, ...]
    vector: VectorSpec
    overheads: OverheadsSpec | None = None
    options: dict[str, Annotated[Any, BeforeValidator(_option)]] = {}
    source: Source | None = None

    @model_validator(mode="after")
    def _well_formed(self) -> UnitSpec:
        kinds = ["array" if level.array else "fanout" if level.fanout else "memory" for level in self.hierarchy]
        if kinds.count("array") != 1 or kinds[-1] != "array":
            raise ValueError("hierarchy goes from the outside in and ends with its one array")
        array = self.hierarchy[-1].array
        if array and array.depthwise_macs_per_cycle and self.costing is not Costing.MAPPED:
            raise ValueError(
                f"depthwise_macs_per_cycle is read of mapped units, and {self.name} is costed by {self.costing.value}"
            )
        unknown = unknown_options(self.costing, list(self.options))
        if unknown:
            known = KNOWN_OPTIONS[self.costing]
            raise ValueError(f'option "{unknown[0]}" is unknown to {self.costing.value}.{nearest(unknown[0], known)}')
        problem = gpu_problem(self.options, kinds) if self.costing.gpu else None
        if problem:
            raise ValueError(f"costing is {self.costing.value}, and {problem}")
        if self.clock is not None and self.clock <= 0:
            raise ValueError("clock must be above 0")
        return self


class LinkSpec(Spec):
    """A path between components, to the host, or between chips."""

    unsourced = frozenset({"name", "source", "ends"})
    name: Name
    ends: tuple[str, ...] = Field(min_length=2)
    bandwidth: f.Bandwidth
    latency: f.Time = 0.0
    energy: f.EnergyPerByte | None = None
    source: Source


class DmaEnginesSpec(Spec):
    """Engines that several units queue for in `simulate`, first come first served, one transfer at a time each. A unit
    that no entry names has engines of its own."""

    unsourced = frozenset({"name", "source", "units"})
    name: Name
    count: f.Count = 1
    units: tuple[str, ...] = Field(min_length=1)
    source: Source


class TechnologySpec(Spec):
    """What energy, area and power derive from. Without a node they are `null`, but for what the file states."""

    node: f.Node | None = None
    max_clock: f.Frequency | None = None
    area: f.Area | None = None
    power: f.Power | None = None
    idle_power: f.Power | None = None
    voltage: f.Voltage | None = None
    dies: f.Count = 1
    area_fit: f.Number | None = None
    power_fit: f.Number | None = None
    idle_power_fit: f.Number | None = None
    source: Source

    @field_validator("node")
    @classmethod
    def _node_in_table(cls, node: float | None) -> float | None:
        if node is not None and node not in NODES_NM:
            raise ValueError(nearest_nodes(node))
        return node

    @field_validator("max_clock", "area", "power")
    @classmethod
    def _above_zero(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError("must be above 0")
        return value

    @model_validator(mode="after")
    def _idle_is_part_of_busy(self) -> TechnologySpec:
        if self.power is not None and self.idle_power is not None and self.idle_power > self.power:
            raise ValueError(
                f"idle_power is {self.idle_power:g} W, above the {self.power:g} W of power, which is with everything "
                "busy: expected a part of it"
            )
        return self


class SystemSpec(Spec):
    """Several equal chips that run one model together."""

    unsourced = frozenset({"name", "source", "topology", "link", "pipeline"})
    chips: f.Count
    topology: Literal["ring", "switch"]
    link: str
    ports: f.Count | None = None
    pipeline: f.Count = 1
    source: Source

    @model_validator(mode="after")
    def _topology_fits_the_chips(self) -> SystemSpec:
        if self.topology == "switch" and self.ports is not None and self.ports < self.chips:
            raise ValueError(f"{self.chips} chips do not fit a switch of {self.ports} ports")
        if self.chips % self.pipeline:
            near = [n for n in range(1, self.chips + 1) if self.chips % n == 0]
            raise ValueError(
                f"{self.chips} chips do not divide into {self.pipeline} pipeline stages: expected one of "
                f"{', '.join(map(str, near))}"
            )
        return self


class ChipSpec(Spec):
    unsourced = frozenset(
        {"schema_", "name", "title", "sources", "notes", "default_precision", "memories", "units", "links"}
        | {"dma_engines"}
        | {"technology", "overheads", "system", "algorithms", "host_link", "calibration", "overrides", "source"}
    )
    schema_: Literal["dovetail.chip/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str
    sources: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    clock: f.Frequency
    source: Source
    default_precision: str
    memories: tuple[MemorySpec, ...] = Field(min_length=1)
    units: tuple[UnitSpec, ...] = Field(min_length=1)
    links: tuple[LinkSpec, ...] = ()
    dma_engines: tuple[DmaEnginesSpec, ...] = ()
    technology: TechnologySpec | None = None
    overheads: OverheadsSpec | None = None
    system: SystemSpec | None = None
    algorithms: tuple[Literal["direct", "winograd_2x2", "winograd_4x4"], ...] = ("direct",)
    host_link: str | None = None
    calibration: str | None = None
    overrides: dict[str, str] = {}


SPECS: dict[str, type[Spec]] = {
    "memories": MemorySpec, "memory": MemorySpec, "fanout": FanoutSpec, "array": ArraySpec, "vector": VectorSpec,
    "units": UnitSpec, "hierarchy": LevelSpec, "overheads": OverheadsSpec, "links": LinkSpec,
    "dma_engines": DmaEnginesSpec, "technology": TechnologySpec, "system": SystemSpec,
}  # fmt: skip
"""The key under which a part stands in the file -> its schema; for naming the nearest key."""
