"""The roofline: what the data sheet's rates allow, and nothing else.

    P = min(P_peak, I * B)        operational intensity I in FLOP/byte        [1, section 3, figure 1]

A network's roofline is the largest over resources of (sum over its ops of work / rate), where memories
carry only compulsory bytes: the home memory weights, graph inputs, graph outputs and the KV cache, once
each; a memory on chip what every mapping passes through it (`sim.cost.compulsory`); the host link the
inputs, unless they are resident. It is never above the sum of the ops' own rooflines, because the maximum of
sums is never above the sum of maxima and every compulsory byte belongs to at least one op.

The caches of a CPU hold at most their capacity C of the R compulsory bytes of the inference before, so that
R - C come from the home memory at best. Which of them no data sheet says, and each could be among
them; an op's own roofline leaves it that share of its compulsory bytes, C / R, and these sum to the
network's. (One op alone, again and again, finds all its operands where they fit.) Activations that
lie at home were written just before, and may be in the caches up to C.

References: [1] Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from sim._version import __version__
from sim.cost.ceilings import Ceiling, bandwidths, ceilings, instances, macs_per_s, memory_s, primitive_s
from sim.cost.compulsory import Footprint, footprint
from sim.cost.depthwise import depthwise_macs_per_cycle
from sim.cost.flash import op_share
from sim.cost.links import TRANSFER, host_link, host_link_s, link_bound_s
from sim.cost.sparsity import rate_speedup
from sim.cost.vector import primitives
from sim.errors import ResultError
from sim.hardware.chip import Chip, Costing, Fanout, Memory, Unit
from sim.hardware.precisions import precision_on
from sim.workload.graph import CollectiveOp, EinsumOp, Graph, Op, OperandRole, Primitive, Role, ViewOp
from sim.workload.passes.precision import PrecisionPolicy, apply_precision, stored_as
from sim.workload.precision import BITS, Precision

ROOFLINE_SCHEMA = "dovetail.roofline/1"


def attainable_flop_per_s(*, operational_intensity_flop_per_byte, peak_flop_per_s, bandwidth_bytes_per_s):
    """Roofline bound on throughput: P = min(P_peak, I * B).

    Args:
        operational_intensity_flop_per_byte: I, any shape [FLOP/byte], not negative.
        peak_flop_per_s: P_peak, broadcastable [FLOP/s].
        bandwidth_bytes_per_s: B, broadcastable [byte/s].
    Returns: attainable throughput, broadcast shape [FLOP/s].
    Raises: ValueError: negative intensity.
    Assumes: perfect overlap of compute and one memory.
    Example: I = 10, P_peak = 312e12, B = 2.0e12 gives 2.0e13 (memory bound; the ridge is at 156).
    References: [1] of this module.
    """
    if np.any(np.asarray(operational_intensity_flop_per_byte) < 0):
        raise ValueError("operational intensity is negative")
    return np.minimum(peak_flop_per_s, np.multiply(operational_intensity_flop_per_byte, bandwidth_bytes_per_s))


def ridge_point_flop_per_byte(*, peak_flop_per_s, bandwidth_bytes_per_s):
    """The intensity from which on compute binds: P_peak / B [FLOP/byte]; broadcasts.

    Example: 73.7e12 FLOP/s over 68e9 byte/s is 1084 FLOP/byte.
    """
    return np.divide(peak_flop_per_s, bandwidth_bytes_per_s)


def roof_flops(macs: int, vector_ops: int) -> int:
    """Work under the roof that an op, or a network, stands under: the array's where there are MACs, else the lanes'.

    >>> roof_flops(100, 30), roof_flops(0, 30)
    (200, 30)
    """
    return 2 * macs or vector_ops


def _busiest(resource_s: Mapping[str, float]) -> str:
    return max(resource_s, key=lambda name: resource_s[name], default="compute")


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflinePoint:
    """One op under the ceilings. `traffic_bytes` counts each operand once at the memory where it lies; what a CPU's
    caches hold of it lies in the outermost of them.

    An op stands under the roof of one unit: of an op with MACs the array's, so that its intensity and its throughput
    count 2 FLOP a MAC and leave out the `vector_ops` of its epilogue, which the lanes do beside it; of any other op
    the lanes'. The operational intensity is over the traffic of the `home` memory; of an op whose operands all
    lie on chip it is over the traffic there (`intensity_over`), and None where nothing moves.
    """

    name: str
    kind: str
    module: str
    home: str
    macs: int
    vector_ops: int
    traffic_bytes: Mapping[str, float]
    resource_s: Mapping[str, float]
    write_bytes: Mapping[str, float] = field(default_factory=dict)
    """Of `traffic_bytes`, what is written."""

    @property
    def flops(self) -> int:
        return 2 * self.macs + self.vector_ops

    @property
    def roof_flops(self) -> int:
        return roof_flops(self.macs, self.vector_ops)

    @property
    def roofline_s(self) -> float:
        return max(self.resource_s.values(), default=0.0)

    @property
    def bound(self) -> str:
        return _busiest(self.resource_s)

    @property
    def intensity_over(self) -> str | None:
        """The memory, or memories on chip, whose bytes the intensity is over."""
        moved = [name for name, size in self.traffic_bytes.items() if size]
        return self.home if self.home in moved else " and ".join(moved) or None

    @property
    def operational_intensity_flop_per_byte(self) -> float | None:
        moved = self.traffic_bytes.get(self.home) or sum(self.traffic_bytes.values())
        return self.roof_flops / moved if moved else None

    @property
    def attainable_flop_per_s(self) -> float | None:
        return self.roof_flops / self.roofline_s if self.roofline_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """The bound of a network on a chip, its ceilings and every op's place under them.

    `resource_s` maps "compute", "vector" and "memory:<name>" to the time that the whole network
    keeps the resource busy; `latency_s` is the largest. `ridges_flop_per_byte` maps a precision to
    the ridge over each memory.
    """

    workload_name: str
    hardware_name: str
    precision: str
    home: str
    resource_s: Mapping[str, float]
    compulsory_bytes: Mapping[str, float]
    ceilings: tuple[Ceiling, ...]
    ops: tuple[RooflinePoint, ...] = field(repr=False)

    @property
    def latency_s(self) -> float:
        return max(self.resource_s.values(), default=0.0)

    @property
    def bound(self) -> str:
        return _busiest(self.resource_s)

    @property
    def memories(self) -> list[str]:
        """Names of the memories that have a ceiling, outermost first."""
        return [ceiling.name for ceiling in self.ceilings if ceiling.kind == "memory"]

    @property
    def ridges_flop_per_byte(self) -> dict[str, dict[str, float]]:
        memories = [c for c in self.ceilings if c.kind == "memory"]
        return {
            compute.name: {
                m.name: float(ridge_point_flop_per_byte(peak_flop_per_s=compute.rate, bandwidth_bytes_per_s=m.rate))
                for m in memories
            }
            for compute in self.ceilings
            if compute.kind == "compute"
        }

    def to_dict(self) -> dict[str, Any]:
        """The `dovetail.roofline/1` document; `Roofline.from_dict` reads it back."""
        derived = ["flops", "roof_flops", "roofline_s", "bound", "intensity_over"]
        derived += ["operational_intensity_flop_per_byte", "attainable_flop_per_s"]
        return {
            "schema": ROOFLINE_SCHEMA,
            "version": __version__,
            "workload": self.workload_name,
            "hardware": self.hardware_name,
            "precision": self.precision,
            "home": self.home,
            "latency_s": self.latency_s,
            "bound": self.bound,
            "resource_s": dict(self.resource_s),
            "compulsory_bytes": dict(self.compulsory_bytes),
            "ceilings": [asdict(ceiling) for ceiling in self.ceilings],
            "ridges_flop_per_byte": self.ridges_flop_per_byte,
            "ops": [_point_to_dict(point) | {name: getattr(point, name) for name in derived} for point in self.ops],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, where: str = "roofline") -> Roofline:
        """Raises: ResultError: another schema, or a document without one of its keys."""
        if document.get("schema") != ROOFLINE_SCHEMA:
            raise ResultError(f'{where}: schema is "{document.get("schema")}", expected "{ROOFLINE_SCHEMA}"')
        try:
            return cls(
                workload_name=document["workload"],
                hardware_name=document["hardware"],
                precision=document["precision"],
                home=document["home"],
                resource_s=document["resource_s"],
                compulsory_bytes=document["compulsory_bytes"],
                ceilings=tuple(Ceiling(**ceiling) for ceiling in document["ceilings"]),
                ops=tuple(
                    RooflinePoint(**{key: op[key] for key in RooflinePoint.__dataclass_fields__ if key in op})
                    for op in document["ops"]
                ),
            )
        except (KeyError, TypeError) as error:
            raise ResultError(f"{where}: broken {ROOFLINE_SCHEMA} document: {error}") from error


def _point_to_dict(point: RooflinePoint) -> dict[str, Any]:
    fields = {name: getattr(point, name) for name in RooflinePoint.__dataclass_fields__}
    return fields | {name: dict(fields[name]) for name in ("traffic_bytes", "resource_s", "write_bytes")}


def roofline(
    graph: Graph,
    chip: Chip,
    precision: str | Precision | PrecisionPolicy | None = None,
    *,
    homes: Mapping[str, str] | None = None,
    inputs: str = "host",
) -> Roofline:
    """The data sheet's bound of a graph on the chip's main unit.

    Args:
        precision: name such as "int8" or "w4a16", or a policy (see `sim.estimate`); the chip's default when None.
        homes: tensor id -> memory where it lies. By default weights, graph inputs, outputs and the
            KV cache lie in the unit's home memory, and an activation on chip where it fits.
        inputs: "host": they come over the chip's host link, where it has one, as an op of their own; "resident": not.
    Assumes: dense vector work as traced (give the graph that the chip runs, after fusion), but a GPU's
        fused attention skips what its mask hides; all resources overlap perfectly; each operand of an
        op is touched once; a CPU's caches hold what they can of the inference before (see this module).
    Raises: PrecisionError, ConfigError: the array or the vector unit has no rate for what the graph does.
    """
    graph, chosen, called = _typed(graph, precision, chip)
    unit = chip.main_unit
    prints = footprint(graph, chip, unit, chosen, homes or {})
    warm = _Warm.of(unit, prints)
    points = tuple(
        _point(op, graph, chip, unit, chosen, prints, warm) for op in graph.ops if not isinstance(op, ViewOp)
    )
    if inputs == "host" and (over_s := host_link_s(graph, chip, chosen)):
        arrival = RooflinePoint(
            name=TRANSFER, kind=TRANSFER, module="", home=unit.home, macs=0, vector_ops=0, traffic_bytes={},
            resource_s={f"link:{chip.host_link}": over_s},
        )  # fmt: skip
        points = (arrival, *points)
    totals: dict[str, float] = {}
    for point in points:
        for name, seconds in point.resource_s.items():
            if not name.startswith("memory:"):
                totals[name] = totals.get(name, 0.0) + seconds
    read, write = prints.compulsory_bytes()
    totals |= _memories_s(chip, unit, (read, write), prints.passing_bytes())
    return Roofline(
        workload_name=graph.name,
        hardware_name=chip.name,
        precision=called,
        home=unit.home,
        resource_s=totals,
        compulsory_bytes={"read": read, "write": write},
        ceilings=ceilings(chip, unit),
        ops=points,
    )


def _typed(
    graph: Graph, precision: str | Precision | PrecisionPolicy | None, chip: Chip
) -> tuple[Graph, Precision | None, str]:
    """(graph, its one precision, or None where its tensors have the types of a policy, what it is called)."""
    if graph.policy and precision == graph.policy:
        return graph, None, graph.policy
    chosen = precision_on(chip, precision)
    if isinstance(chosen, PrecisionPolicy):
        return apply_precision(graph, chosen), None, chosen.name
    return graph, chosen, chosen.name


def network_bound_s(
    graph: Graph, chips: Sequence[Chip], precision: str | Precision | PrecisionPolicy, inputs: str = "host"
) -> np.ndarray:
    """`roofline(..., inputs=inputs).latency_s` of one graph on many chips of one structure, shape (chips,).

    The same sums in the same order as `roofline`, element by element, so that each value is equal
    to the last bit.
    """
    first, units = chips[0], [chip.main_unit for chip in chips]
    graph, chosen, _ = _typed(graph, precision, first)
    totals: dict[str, np.ndarray] = {}
    if inputs == "host" and (link := host_link(first)):
        totals[f"link:{link.name}"] = np.array([host_link_s(graph, chip, chosen) for chip in chips])
    rates: dict[tuple[str, float, float], np.ndarray] = {}
    ones: dict[Primitive, np.ndarray] = {}
    for op in graph.ops:
        if isinstance(op, ViewOp):
            continue
        share = op_share(op, graph, first.main_unit)
        if isinstance(op, EinsumOp):
            rate = _rate_of(op, graph, first.main_unit, chosen)
            if rate not in rates:
                rates[rate] = np.array([_macs_per_s(u, *rate, chip=c.name) for u, c in zip(units, chips, strict=True)])
            totals["compute"] = totals.get("compute", 0.0) + share * op.einsum.macs / rates[rate]
        work: np.ndarray | float = 0.0
        counts = primitives(op)
        for primitive, count in counts.items():
            if primitive not in ones:
                ones[primitive] = np.array(
                    [
                        primitive_s(u.vector, primitive, clock_hz=u.clock_hz, chip=c.name)
                        for u, c in zip(units, chips, strict=True)
                    ]
                )
            work = work + share * count * ones[primitive]
        if counts:
            totals["vector"] = totals.get("vector", 0.0) + np.asarray(work)
        if isinstance(op, CollectiveOp):
            over = f"link:{first.system_link.name}"
            totals[over] = totals.get(over, 0.0) + np.array([link_bound_s(op, chip) for chip in chips])
    prints = footprint(graph, first, first.main_unit, chosen, {})
    compulsory, passing = prints.compulsory_bytes(), prints.passing_bytes()
    memories = [
        max(_memories_s(chip, unit, compulsory, passing).values()) for chip, unit in zip(chips, units, strict=True)
    ]
    return np.maximum.reduce([np.broadcast_to(total, len(chips)) for total in (*totals.values(), np.array(memories))])


def _point(
    op: Op, graph: Graph, chip: Chip, unit: Unit, precision: Precision | None, prints: Footprint, warm: _Warm
) -> RooflinePoint:
    resources: dict[str, float] = {}
    macs = op.einsum.macs if isinstance(op, EinsumOp) else 0
    share = op_share(op, graph, unit)
    if isinstance(op, EinsumOp):
        resources["compute"] = share * macs / _effective_macs_per_s(op, graph, chip, unit, precision)
    vector_ops = 0
    for primitive, count in primitives(op).items():
        one_s = primitive_s(unit.vector, primitive, clock_hz=unit.clock_hz, chip=chip.name)
        resources["vector"] = resources.get("vector", 0.0) + share * count * one_s
        vector_ops += count
    if isinstance(op, CollectiveOp):
        resources[f"link:{chip.system_link.name}"] = link_bound_s(op, chip)
    rates = bandwidths(chip, unit)
    moved = warm.left(op, prints)
    for table in (moved, prints.passing.get(op.name, {})):
        for memory, (read, write) in table.items():
            rate = rates[memory] if memory == unit.home or not warm.caches else warm.fastest(rates)
            seconds = memory_s(rate, read_bytes=read, write_bytes=write)
            resources[f"memory:{memory}"] = max(resources.get(f"memory:{memory}", 0.0), seconds)
    return RooflinePoint(
        name=op.name,
        kind=op.kind,
        module=op.module,
        home=unit.home,
        macs=macs,
        vector_ops=vector_ops,
        traffic_bytes={memory: read + write for memory, (read, write) in moved.items()},
        resource_s=resources,
        write_bytes={memory: write for memory, (_, write) in moved.items()},
    )


def _memories_s(
    chip: Chip, unit: Unit, compulsory: tuple[float, float], passing: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Resource -> seconds that a network keeps the home memory and those on chip busy at least."""
    rates = bandwidths(chip, unit)
    read, write = _beyond(*compulsory, cached_bytes(unit))
    found = {f"memory:{unit.home}": memory_s(rates[unit.home], read_bytes=read, write_bytes=write)}
    for memory, (read, write) in passing.items():
        found[f"memory:{memory}"] = memory_s(rates[memory], read_bytes=read, write_bytes=write)
    return found


def _beyond(read: float, write: float, cached: float) -> tuple[float, float]:
    """What is left of bytes when so many, reads first, lie in a cache."""
    kept = min(read, cached)
    return read - kept, max(0.0, write - (cached - kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Warm:
    """What the caches of a CPU hold of an op's operands; without caches (other units) nothing. See this module."""

    caches: tuple[str, ...]
    cached_bytes: float
    read_left: float
    """Share of the compulsory reads that comes from the home memory all the same."""
    write_left: float

    @staticmethod
    def of(unit: Unit, prints: Footprint) -> _Warm:
        cached, (read, write) = cached_bytes(unit), prints.compulsory_bytes()
        read_left, write_left = _beyond(read, write, cached)
        return _Warm(
            caches=tuple(memory.name for memory in unit.memories) if unit.costing is Costing.CPU else (),
            cached_bytes=cached,
            read_left=read_left / read if read else 1.0,
            write_left=write_left / write if write else 1.0,
        )

    def left(self, op: Op, prints: Footprint) -> dict[str, tuple[float, float]]:
        """Memory -> (read, write) bytes of an op, each operand where it lies."""
        if not self.caches:
            return prints.of(op)
        at_home = [row for row in prints.touched[op.name] if prints.homes[row[0]] == prints.home]
        reads = sum(read for storage, read, _ in at_home if storage in prints.external)
        writes = sum(write for storage, _, write in at_home if storage in prints.kept)
        own_reads = sum(read for storage, read, _ in at_home if storage not in prints.external)
        own_writes = sum(write for storage, _, write in at_home if storage not in prints.kept)
        own_left = _beyond(own_reads, own_writes, self.cached_bytes)
        left = (self.read_left * reads + own_left[0], self.write_left * writes + own_left[1])
        found = prints.of(op)
        if prints.home in found:
            whole, near = found[prints.home], found.get(self.caches[0], (0.0, 0.0))
            found[prints.home] = left
            found[self.caches[0]] = (near[0] + whole[0] - left[0], near[1] + whole[1] - left[1])
        return found

    def fastest(self, rates: Mapping[str, tuple[float, float, bool]]) -> tuple[float, float, bool]:
        """(read, write [byte/s], one port) of the fastest cache: nothing says in which of them an operand lies."""
        return max((rates[name] for name in self.caches), key=lambda rate: rate[:2])


def cached_bytes(unit: Unit) -> float:
    """What the caches of a CPU may hold of an inference's operands from the one before: at most all that they have.

    0 for other units: their memories on chip hold what the schedule says, and nothing from before.
    """
    if unit.costing is not Costing.CPU:
        return 0.0
    total, copies = 0.0, 1
    for level in unit.hierarchy:
        if isinstance(level, Fanout):
            copies *= level.count
        elif isinstance(level, Memory) and isfinite(level.capacity_bytes):
            total += copies * level.capacity_bytes
    return total


def _effective_macs_per_s(op: EinsumOp, graph: Graph, chip: Chip, unit: Unit, precision: Precision | None) -> float:
    """Dense MAC/s equivalent: the array's peak times what its sparsity support saves."""
    return _macs_per_s(unit, *_rate_of(op, graph, unit, precision), chip=chip.name)


def _macs_per_s(unit: Unit, compute: str, speed_up: float, beside: float, *, chip: str) -> float:
    """Of the array, or of the processors that take depthwise convolutions `beside` it (MACs a cycle of one)."""
    if beside:
        return beside * instances(unit)[unit.array.name] * unit.clock_hz
    return speed_up * macs_per_s(unit, compute, chip=chip)


def _rate_of(op: EinsumOp, graph: Graph, unit: Unit, precision: Precision | None) -> tuple[str, float, float]:
    """(array rate that the op uses, what its sparsity saves on this array, MACs a cycle of a processor beside it that
    takes the op instead or 0)."""
    compute = rate_type(op, graph, unit, precision)
    return compute, rate_speedup(unit, op, graph, compute), depthwise_macs_per_cycle(op, graph, unit.array, compute)


def rate_type(op: EinsumOp, graph: Graph, unit: Unit, precision: Precision | None) -> str:
    """The array rate of a product, by the types of its factors as a precision stores them (as they stand, without one):
    that of the activations where the array has no mixed rate. On a CPU, which keeps 8 bits as fp32 between layers, a
    layer of such weights quantises what comes in; beside 16 bits it widens the weights."""
    weight, value = (graph.tensors[op.einsum.operand(role).tensor] for role in (OperandRole.WEIGHT, OperandRole.INPUT))
    held, given = (stored_as(tensor, precision)[0] if precision else tensor.dtype for tensor in (weight, value))
    if held == given:
        return given
    if unit.costing is Costing.CPU and weight.role is Role.WEIGHT:
        kept = "fp32" if BITS[given] <= 8 else given
        return held if BITS[held] <= 8 and BITS[kept] >= 32 else kept
    mixed = f"w{BITS[held]}a{BITS[given]}"
    return mixed if mixed in unit.array.macs_per_cycle else given
