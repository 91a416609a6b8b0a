"""Groups of a CPU: each op as traced, costed by `sim.cost.cpu` with the machine's calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.compulsory import touched_elements
from sim.cost.cpu import CLASSES, WIDTHS, CpuConstants, CpuMachine, CpuTime, CpuWork, cpu_time
from sim.cost.vector import lane_cycles
from sim.errors import ConfigError
from sim.hardware.calibration import Calibration, calibration_for
from sim.hardware.chip import Chip, Costing, Fanout, Memory
from sim.results import Term
from sim.schedule.groups import GroupCost, bounds, compute_and_widening, vector_count
from sim.schedule.shapes import is_depthwise, is_window
from sim.workload.graph import EinsumOp, Graph, MovementOp, Op, Primitive, Role, ViewOp
from sim.workload.precision import BITS

if TYPE_CHECKING:
    from sim.schedule.network import _Coster


def cpu_calibration(chip: Chip, choice: str) -> Calibration | None:
    """The calibration of a chip that is no GPU. Raises: ConfigError, CalibrationError: a name that does not fit."""
    if chip.main_unit.costing is not Costing.CPU:
        if choice not in ("auto", "none"):
            raise ConfigError(f'calibration "{choice}" is not known for {chip.name}: expected auto or none')
        return None
    return calibration_for(chip.name, chip.calibration, choice, Costing.CPU.value)


def cpu_constants(chip: Chip, choice: str) -> CpuConstants:
    """Fitted constants, or the data sheet's with the chip's own launch time as the host's gap."""
    found = cpu_calibration(chip, choice)
    if found is None:
        return CpuConstants(**{**_datasheet(), "host_s": chip.main_unit.launch_s})
    return CpuConstants(**found.constants)


def _datasheet() -> dict[str, float]:
    bare = CpuConstants.datasheet()
    return {name: getattr(bare, name) for name in CpuConstants.__dataclass_fields__}


def cpu_machine(chip: Chip, threads: int | None = None) -> CpuMachine:
    """Cores, last-level cache and DRAM of a chip's main unit; `options.threads` or all cores work."""
    unit = chip.main_unit
    cores = 1
    for level in unit.hierarchy:
        cores *= level.count if isinstance(level, Fanout) else 1
    shared = [level for level in unit.hierarchy if isinstance(level, Memory)]
    home = chip.memory(unit.home)
    chosen = threads or int(unit.options.get("threads", cores))  # type: ignore[arg-type]
    return CpuMachine(
        name=chip.name,
        cores=cores,
        threads=min(chosen, cores),
        clock_hz=unit.clock_hz,
        dram_bytes_per_s=home.read.at(unit.clock_hz) * unit.clock_hz,
        cache_bytes=shared[0].capacity_bytes if shared else 0.0,
    )


def cpu_work(ops: Sequence[Op], graph: Graph, chip: Chip, coster: _Coster, *, cycle_bytes: float) -> CpuWork:
    """What each op asks of the machine. `cycle_bytes`: weights used between two uses of an op's own."""
    unit = chip.main_unit
    cores = cpu_machine(chip).cores
    columns: dict[str, list[float]] = {name: [] for name in CpuWork.__dataclass_fields__}
    for op in ops:
        macs, rate = 0.0, inf
        if isinstance(op, EinsumOp):
            compute, _ = compute_and_widening(op, coster)
            macs = float(op.einsum.macs)
            rate = unit.array.rows * unit.array.cols * cores * unit.array.macs_per_cycle[compute] * unit.clock_hz
        held, passing = _bytes(op, graph)
        columns["kind"].append(CLASSES.index(_class(op, graph)))
        columns["width"].append(WIDTHS.index(_width(op, graph)))
        columns["macs"].append(macs)
        columns["matrix_s"].append(macs / rate)
        columns["lanes_s"].append(lane_cycles(unit.vector, _primitives(op), chip=chip.name) / unit.clock_hz)
        columns["held_bytes"].append(held)
        columns["passing_bytes"].append(passing)
        columns["cycle_bytes"].append(cycle_bytes)
    return CpuWork(
        **{name: np.array(v, dtype=int if name in ("kind", "width") else float) for name, v in columns.items()}
    )


def _class(op: Op, graph: Graph) -> str:
    if isinstance(op, EinsumOp):
        region = graph.regions.get(op.region or "")
        if region is not None and region.kind == "attention":
            return "attention"
        return "depthwise" if is_depthwise(op) else "conv" if is_window(op) else "gemm"
    return "movement" if isinstance(op, MovementOp) else "vector"


def _width(op: Op, graph: Graph) -> str:
    bits = BITS.get(graph.tensors[op.inputs[0]].dtype, 32) if op.inputs else 32
    return "word" if bits >= 32 else "half" if bits > 8 else "byte"


def _primitives(op: Op) -> Mapping[Primitive, float]:
    if isinstance(op, EinsumOp):
        elements = 1
        for axis in op.einsum.output.projection:
            elements *= axis.size
        return {primitive: count * elements for primitive, count in op.epilogue.items()}
    return getattr(op, "primitives", {})


def _bytes(op: Op, graph: Graph) -> tuple[float, float]:
    """(bytes of weights and caches, bytes of activations) that it touches, each operand once."""
    amounts: dict[str, float] = {k: float(graph.tensors[k].size_bytes) for k in (*op.inputs, *op.outputs)}
    if isinstance(op, EinsumOp):
        for o in op.einsum.operands:
            tensor = graph.tensors[o.tensor]
            amounts[o.tensor] = touched_elements(op.einsum, o.role) * tensor.bits * tensor.density / 8
    if isinstance(op, MovementOp):
        amounts = {k: float(op.read_bytes.get(k, 0) + op.write_bytes.get(k, 0)) for k in amounts}
    held = {k for k in amounts if graph.tensors[k].role in (Role.WEIGHT, Role.KV_CACHE)}
    return sum(amounts[k] for k in held), sum(n for k, n in amounts.items() if k not in held)


def weight_bytes(graph: Graph) -> float:
    """Bytes of all weights and caches, each storage once."""
    found: dict[str, float] = {}
    for tensor in graph.tensors.values():
        if tensor.role in (Role.WEIGHT, Role.KV_CACHE):
            key = tensor.storage or tensor.id
            found[key] = max(found.get(key, 0.0), float(tensor.size_bytes))
    return sum(found.values())


def _times(coster: _Coster) -> tuple[list[CpuTime], CpuWork, dict[int, int]]:
    """Times of all ops per chip, once per network."""
    if ("cpu",) not in coster.mapped:
        positions = [i for i, op in enumerate(coster.graph.ops) if not isinstance(op, ViewOp)]
        ops = [coster.graph.ops[i] for i in positions]
        cycle = weight_bytes(coster.graph)
        works = [cpu_work(ops, coster.graph, chip, coster, cycle_bytes=cycle) for chip in coster.chips]
        times = [
            cpu_time(work, cpu_machine(chip), cpu_constants(chip, coster.options.calibration))
            for work, chip in zip(works, coster.chips, strict=True)
        ]
        coster.mapped[("cpu",)] = (times, works[0], {position: i for i, position in enumerate(positions)})
    return coster.mapped[("cpu",)]  # type: ignore[return-value]


def cost_cpu(op: Op, position: int, coster: _Coster) -> GroupCost:
    """One op on every design."""
    times, work, index = _times(coster)
    i, n = index[position], len(coster.chips)

    def column(name: str) -> np.ndarray:
        return np.array([getattr(time, name)[i] for time in times])

    compute, vector, exposed = column("compute_s"), column("vector_s"), column("exposed_s")
    home = coster.unit.home
    resources = {"compute": compute, "vector": vector, f"memory:{home}": column("memory_s")}
    clock = np.array([c.main_unit.clock_hz for c in coster.chips])
    time, zero = compute + vector + exposed, np.zeros(n)
    slots = None
    if isinstance(op, EinsumOp):
        rate, _ = compute_and_widening(op, coster)
        cores = np.array([cpu_machine(c).cores for c in coster.chips])
        slots = float(op.einsum.macs) / coster.unit.array.macs_per_cycle[rate] / cores
    return GroupCost(
        op=op,
        name=op.name,
        launch_s=column("host_s"),
        time_s=time,
        terms_s={Term.COMPUTE: compute, Term.VECTOR: vector, Term.EXPOSED_MEMORY: exposed},
        traffic_bytes={home: {"all": (column("far_bytes"), zero)}},
        home_busy_s=np.minimum(time, column("memory_s")),
        extra_home_s=zero,
        prefetch_s=zero,
        first_weight_bytes=zero,
        first_weight_s=zero,
        footprint_bytes=zero,
        held_bytes=zero,
        capacity_bytes=np.full(n, np.inf),
        energy_j=np.full(n, np.nan),
        cycles=time * clock,
        macs=op.einsum.macs if isinstance(op, EinsumOp) else 0,
        effective_macs=float(op.einsum.macs) if isinstance(op, EinsumOp) else 0.0,
        vector_ops=vector_count(op),
        mac_slots=slots,
        bound=bounds(resources, n),
        resources_s=resources,
        cost_class=CLASSES[int(work.kind[i])],
    )
