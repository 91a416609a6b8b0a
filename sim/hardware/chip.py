"""The chip: memories, units that compute, links. Frozen data in base units, no formulas of cost.

`sim.hardware.load` makes a `Chip` from YAML through a strict schema; this module is the contract
between it and everything that costs work on a chip. A *unit* is a thing that computes (an NPU, a
GPU, a host CPU). Its `hierarchy` goes from the outside in: memories and fan-outs, then one array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from math import inf

from sim.workload.graph import OperandRole


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A rate, stated per second or per cycle of the unit's clock; exactly one is set."""

    per_s: float | None = None
    per_cycle: float | None = None

    def at(self, clock_hz: float) -> float:
        """The rate per cycle at `clock_hz` (1/cycle)."""
        return self.per_cycle if self.per_cycle is not None else self.per_s / clock_hz  # type: ignore[operator]


class Buffering(StrEnum):
    """Whether a tile's loads may begin before its job does: `atomic`: no; `continuous`: yes. It is kept and shown; all
    costs so far are those of `atomic`."""

    ATOMIC = "atomic"
    """A child's job starts empty-handed: its first load waits for the job to begin."""
    CONTINUOUS = "continuous"
    """The lower link runs ahead into the next job."""


class Dataflow(StrEnum):
    """Which operand rests in the cells of an array while the others stream past: the output, the weights, the input,
    or rows of filters (Eyeriss)."""

    OUTPUT_STATIONARY = "output_stationary"
    WEIGHT_STATIONARY = "weight_stationary"
    INPUT_STATIONARY = "input_stationary"
    ROW_STATIONARY = "row_stationary"

    @classmethod
    def _missing_(cls, value: object) -> Dataflow | None:
        """The field's initials, as in SCALE-Sim's files: os, ws, is, rs."""
        return next((flow for flow in cls if "".join(word[0] for word in flow.split("_")) == value), None)


class Skew(StrEnum):
    """How operands reach the cells: `systolic`: they march one cell a cycle, which takes rows + cols - 2 cycles to
    fill; `none`: they are broadcast."""

    SYSTOLIC = "systolic"
    """Operands march one cell a cycle: R + C - 2 cycles of fill."""
    NONE = "none"
    """Operands are broadcast."""


class Folds(StrEnum):
    """When the next patch of a product (a fold) begins: `serial`: after the one before has drained; `pipelined`: while
    it drains."""

    SERIAL = "serial"
    PIPELINED = "pipelined"


class Preload(StrEnum):
    """When weights (or inputs) that rest in the cells are loaded: `exposed`: before each fold, a cycle for each row;
    `hidden`: behind the fold before."""

    EXPOSED = "exposed"
    HIDDEN = "hidden"


class Costing(StrEnum):
    """How a unit is costed: `mapped`: the best tiles and loop orders are searched, waiting included; `roofline`: the
    bound of each op plus its launch, which every result says; `gpu_kernels`, `cpu`: as the libraries of GPUs and CPUs
    run it; `gpu_eager`: a GPU as a framework drives it, op by op."""

    MAPPED = "mapped"
    """The mapper finds tiles and orders; waiting is modelled."""
    ROOFLINE = "roofline"
    """Roofline plus launch floor only: marked so in every result."""
    GPU_KERNELS = "gpu_kernels"
    """Kernel tiles, waves, split-K, occupancy (`sim.cost.gpu`)."""
    CPU = "cpu"
    """Library efficiencies, cores, caches, host gaps (`sim.cost.cpu`)."""
    GPU_EAGER = "gpu_eager"
    """One kernel or a few per op, nothing fused but attention, launches by the host (`sim.cost.gpu.eager`)."""

    @property
    def eager(self) -> bool:
        """Whether a framework runs the graph op by op: no epilogue is fused."""
        return self in (Costing.CPU, Costing.GPU_EAGER)

    @property
    def gpu(self) -> bool:
        """Whether its kernels are those of a GPU."""
        return self in (Costing.GPU_KERNELS, Costing.GPU_EAGER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """One memory level. With `bandwidth` in the file, `read` is `write` and `shared_port` is true.

    `holds` lists the einsum operands that it keeps; the others pass by. Energies are J/byte and
    None where the file states none.
    """

    name: str
    kind: str = "sram"
    capacity_bytes: float = inf
    read: Rate = Rate(per_s=inf)
    write: Rate = Rate(per_s=inf)
    shared_port: bool = False
    latency_s: float = 0.0
    efficiency: float = 1.0
    """Share of the stated bandwidth that long transfers reach (0, 1]."""
    burst_bytes: int | None = None
    outstanding: int | None = None
    """Requests in flight; with `request_bytes` bounds the rate by latency (Little's law)."""
    request_bytes: int | None = None
    holds: frozenset[OperandRole] = frozenset(OperandRole)
    double_buffered: bool = True
    residency: bool = True
    """Whether tensors may stay in it from one op to the next."""
    read_energy_j_per_byte: float | None = None
    write_energy_j_per_byte: float | None = None

    def reached(self, clock_hz: float) -> tuple[float, float]:
        """(read, write) bytes per cycle after efficiency and the latency bound (Little's law)."""
        bound = inf
        if self.outstanding and self.request_bytes and self.latency_s:
            bound = self.outstanding * self.request_bytes / (self.latency_s * clock_hz)
        read, write = (min(rate.at(clock_hz) * self.efficiency, bound) for rate in (self.read, self.write))
        return read, write

    def busy_s(self, read_bytes: float, write_bytes: float, *, clock_hz: float) -> float:
        """How long its port, or the longer of its two, takes for so many bytes."""
        read, write = self.reached(clock_hz)
        times = (read_bytes / (read * clock_hz), write_bytes / (write * clock_hz))
        return sum(times) if self.shared_port else max(times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fanout:
    """`count` copies of everything below (cores, SMs, clusters)."""

    name: str
    count: int
    multicast: bool = True
    """One read of the parent serves every instance that needs the same data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """A rows x cols array of multiply-accumulate cells.

    `macs_per_cycle` maps a compute dtype ("int8", "bf16", "w4a8") to MACs per cell and cycle.
    `weight_sparsity` maps an N:M pattern to its speed-up of the reduction, which holds for einsums
    that reduce over at least `sparse_min_channels` channels (of a group). If `sparse_pass_bytes` is given, kernels
    whose stored sparse weights are more than that are computed in several passes, each reading the input anew.
    `drain_bytes_per_cycle` bounds results leaving an output-stationary array (None: they shift
    out along the rows in `rows` cycles). `depthwise_macs_per_cycle` maps compute dtypes to MACs per cycle of a
    processor beside the array that takes depthwise convolutions (empty: the array takes them).
    """

    name: str
    rows: int
    cols: int
    dataflow: Dataflow
    skew: Skew
    folds: Folds
    preload: Preload
    macs_per_cycle: Mapping[str, float]
    accumulate_bits: int = 32
    weight_sparsity: Mapping[str, float] = field(default_factory=dict)
    sparse_min_channels: int = 1
    sparse_pass_bytes: float | None = None
    skips_zeros: bool = False
    depthwise_macs_per_cycle: Mapping[str, float] = field(default_factory=dict)
    drain_bytes_per_cycle: float | None = None
    mac_energy_j: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorUnit:
    """`lanes` lanes in the whole unit; `rates` in primitives per lane and cycle; `fallback` builds a primitive
    from others ({"exp": {"add": 8, "mul": 8}})."""

    name: str
    lanes: int
    rates: Mapping[str, float]
    fallback: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    energy_j: Mapping[str, float] = field(default_factory=dict)
    """Energy per primitive."""


Level = Memory | Fanout | Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """`count` equal things that compute, all on the chip-level memory `home`."""

    name: str
    count: int
    home: str
    hierarchy: tuple[Level, ...]
    vector: VectorUnit
    clock_hz: float
    costing: Costing = Costing.MAPPED
    buffering: Buffering = Buffering.ATOMIC
    launch_s: float = 0.0
    """Fixed cost per group of ops (kernel launch, job descriptor)."""
    dma_setup_s: float = 0.0
    """Fixed cost per tile transfer that is not empty."""
    options: Mapping[str, float | int | str | bool | tuple] = field(default_factory=dict)
    """Named options of the costing (`gpu_kernels` constants and the like), checked by the loader."""

    @property
    def array(self) -> Array:
        return self.hierarchy[-1]  # type: ignore[return-value]

    @property
    def memories(self) -> tuple[Memory, ...]:
        return tuple(level for level in self.hierarchy if isinstance(level, Memory))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A path between components or chips (PCIe, NVLink, ring)."""

    name: str
    ends: tuple[str, ...]
    bandwidth: Rate
    latency_s: float = 0.0
    energy_j_per_byte: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DmaEngines:
    """`count` DMA engines that several units queue for, first come first served, a transfer at a time.

    A unit that stands in none has engines of its own, one per instance.
    """

    name: str
    count: int
    units: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Technology:
    """Node and physical limits; what energy, area and V-f scaling derive from."""

    node_nm: float | None = None
    max_clock_hz: float | None = None
    area_mm2: float | None = None
    power_w: float | None = None
    idle_power_w: float | None = None
    voltage_v: float | None = None
    dies: int = 1
    """How many make up the chip."""
    area_fit: float | None = None
    """Stated over modelled area at the file's own design; an override replaces `area_mm2` by it."""
    power_fit: float | None = None
    idle_power_fit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Several equal chips on one `link` of `Chip.links`, whose bandwidth is what one chip sends per second over all
    its links together (it receives as much), and whose latency is that of one hop.

    `pipeline` stages of `tensor_parallel` chips each: layers are cut into stages, and each layer is split within one.
    """

    chips: int
    topology: str
    """ "ring" (two neighbours) or "switch" (any pair at full rate)."""
    link: str
    ports: int | None = None
    """Of the switch: no more chips than this. A ring uses none."""
    pipeline: int = 1

    @property
    def tensor_parallel(self) -> int:
        return self.chips // self.pipeline


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A whole chip. `sources` maps source keys to references; `provenance` maps a dotted path to
    the source key of its number, or to "estimated: why" or "unverified"."""

    name: str
    title: str
    clock_hz: float
    default_precision: str
    memories: tuple[Memory, ...]
    units: tuple[Unit, ...]
    links: tuple[Link, ...] = ()
    dma_engines: tuple[DmaEngines, ...] = ()
    technology: Technology = Technology()
    sources: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    system: System | None = None
    algorithms: tuple[str, ...] = ("direct",)
    host_link: str | None = None
    calibration: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    """What `set` changed: path -> quantity as given."""

    def __repr__(self) -> str:
        """One line: `dovetail show` has the parts."""
        units = ", ".join(f"{unit.name} x {unit.count}" for unit in self.units)
        memories = ", ".join(memory.name for memory in self.memories)
        changed = "".join(f", {path}={quantity}" for path, quantity in self.overrides.items())
        return f"<Chip {self.name}{changed}: {units} on {memories}, {self.default_precision}>"

    @cached_property
    def memo(self) -> dict[str, float]:
        """Values derived from this chip that are dear to derive again; a chip never changes."""
        return {}

    def components(self) -> Iterator[tuple[str, object]]:
        """(name, component) of everything that has a name; names are unique in a chip."""
        for memory in self.memories:
            yield memory.name, memory
        for unit in self.units:
            yield unit.name, unit
            for level in unit.hierarchy:
                yield level.name, level
            yield unit.vector.name, unit.vector
        for link in self.links:
            yield link.name, link

    def component(self, name: str) -> object:
        return dict(self.components())[name]

    def memory(self, name: str) -> Memory:
        return next(m for m in self.memories if m.name == name)

    def set(self, path: str, quantity: object) -> Chip:
        """The chip with `path` ("SRAM.capacity", "array.rows", "clock") set; see `override.set_path`."""
        from sim.hardware.override import set_path  # the loader stands above this contract

        return set_path(self, path, quantity)

    def set_all(self, changes: Mapping[str, object]) -> Chip:
        """The chip with every path of `changes` set, whatever their order; see `override.set_paths`."""
        from sim.hardware.override import set_paths

        return set_paths(self, changes)

    @property
    def system_link(self) -> Link:
        """The link between the chips of a system."""
        assert self.system is not None
        name = self.system.link
        return next(link for link in self.links if link.name == name)

    @property
    def main_unit(self) -> Unit:
        """The unit that a single model runs on: the first in the file."""
        return self.units[0]
