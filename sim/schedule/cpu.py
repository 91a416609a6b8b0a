"""Groups of a CPU: each op as traced, costed by `sim.cost.cpu` with the machine's calibration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from sim.cost.cpu import CLASSES, CpuConstants, CpuMachine, CpuTime, CpuWork, cpu_time
from sim.cost.gpu.constants import Constants
from sim.errors import CalibrationError, ConfigError
from sim.hardware.calibration import Calibration, calibration_for
from sim.hardware.chip import Chip, Fanout, Memory
from sim.results import Term
from sim.schedule.cpu_work import compute_type, library_work
from sim.schedule.groups import GroupCost, bounds, vector_count
from sim.workload.graph import EinsumOp, Op, ViewOp

if TYPE_CHECKING:
    from sim.schedule.network import _Coster


def own_calibration(chip: Chip, choice: str) -> Calibration | None:
    """The calibration of a chip whose device was measured by records of its own: a CPU, or a GPU that a framework
    drives. None for others and without one. Raises: ConfigError, CalibrationError: a name that does not fit."""
    if not chip.main_unit.costing.eager:
        if choice not in ("auto", "none"):
            raise ConfigError(f'calibration "{choice}" is not known for {chip.name}: expected auto or none')
        return None
    return calibration_for(chip.name, chip.calibration, choice, chip.main_unit.costing.value)


def cpu_constants(chip: Chip, choice: str) -> CpuConstants:
    """Fitted constants, or the data sheet's with the chip's own launch time as the host's gap.

    Raises: CalibrationError: constants of another version, with their names."""
    if own_calibration(chip, choice) is None:
        return replace(CpuConstants.datasheet(), host_s=chip.main_unit.launch_s)
    return own_constants(chip, choice, CpuConstants)


C = TypeVar("C", bound=Constants)


def own_constants(chip: Chip, choice: str, family: type[C]) -> C:
    """The constants of a chip's own calibration. Raises: CalibrationError: those of another version, by name."""
    found = own_calibration(chip, choice)
    assert found is not None
    known = set(family.__dataclass_fields__)
    if known != set(found.constants):
        raise CalibrationError(
            f"calibration {found.device}: constants {', '.join(sorted(known ^ set(found.constants)))} are not of this "
            f"version; fit it again: dovetail calibrate --device {found.device}"
        )
    return family(**found.constants)


def cpu_machine(chip: Chip, threads: int | None = None) -> CpuMachine:
    """Cores, last-level cache and DRAM of a chip's main unit; `options.threads` or all cores work."""
    unit = chip.main_unit
    cores = 1
    for level in unit.hierarchy:
        cores *= level.count if isinstance(level, Fanout) else 1
    fan = next((i for i, level in enumerate(unit.hierarchy) if isinstance(level, Fanout)), len(unit.hierarchy))
    shared = [level for level in unit.hierarchy[:fan] if isinstance(level, Memory)]
    private = [level for level in unit.hierarchy[fan:] if isinstance(level, Memory)]
    home = chip.memory(unit.home)
    chosen = threads or int(unit.options.get("threads", cores))  # type: ignore[arg-type]
    return CpuMachine(
        name=chip.name,
        cores=cores,
        threads=min(chosen, cores),
        clock_hz=unit.clock_hz,
        dram_bytes_per_s=home.read.at(unit.clock_hz) * unit.clock_hz,
        cache_bytes=shared[0].capacity_bytes if shared else 0.0,
        private_bytes=private[0].capacity_bytes if private else 0.0,
        private_bytes_per_clock=private[0].read.at(unit.clock_hz) if private else 0.0,
    )


def _times(coster: _Coster) -> tuple[list[CpuTime], CpuWork, dict[int, int]]:
    """Times of all ops per chip, once per network."""
    if ("cpu",) not in coster.mapped:
        positions = [i for i, op in enumerate(coster.graph.ops) if not isinstance(op, ViewOp)]
        choice = coster.options.calibration
        fitted = [own_calibration(c, choice) for c in coster.chips]
        works = [
            library_work(coster.graph, c, calibrated=f is not None) for c, f in zip(coster.chips, fitted, strict=True)
        ]
        machines = [
            replace(cpu_machine(c), fitted_threads=f.threads if f is not None else None)
            for c, f in zip(coster.chips, fitted, strict=True)
        ]
        times = [
            cpu_time(work, machine, cpu_constants(chip, choice))
            for work, machine, chip in zip(works, machines, coster.chips, strict=True)
        ]
        coster.mapped[("cpu",)] = (times, works[0], {position: i for i, position in enumerate(positions)})
    return coster.mapped[("cpu",)]  # type: ignore[return-value]


def cost_cpu(op: Op, position: int, coster: _Coster) -> GroupCost:
    """One op on every design."""
    times, work, index = _times(coster)
    i, n = index[position], len(coster.chips)

    def column(name: str) -> np.ndarray:
        return np.array([getattr(time, name)[i] for time in times])

    compute, vector, memory, border = (column(f"{name}_s") for name in ("compute", "vector", "memory", "border"))
    home = coster.unit.home
    resources = {"compute": compute, "vector": vector + border, f"memory:{home}": memory}
    clock = np.array([c.main_unit.clock_hz for c in coster.chips])
    time, zero = compute + vector + memory + border, np.zeros(n)
    slots = None
    if isinstance(op, EinsumOp):
        rate = compute_type(op, coster.graph, coster.chips[0])
        cores = np.array([cpu_machine(c).cores for c in coster.chips])
        slots = float(work.macs[i]) / coster.unit.array.macs_per_cycle[rate] / cores
    return GroupCost(
        op=op,
        name=op.name,
        launch_s=column("host_s"),
        time_s=time,
        terms_s={Term.COMPUTE: compute, Term.VECTOR: vector, Term.EXPOSED_MEMORY: memory, Term.DEQUANTISE: border},
        traffic_bytes={home: {"all": (column("far_bytes"), zero)}},
        home_busy_s=memory,
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
