"""Measured beside estimated: per op (or per module of a workload) and in total."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.baseline.cpu_rows import cold_s
from sim.baseline.device import CpuDevice, CudaDevice
from sim.baseline.graphs import OURS, record_graph
from sim.baseline.grid import Point
from sim.baseline.ops import op_spec
from sim.baseline.record import BaselineRecord, Mode, Phase
from sim.errors import MeasurementError
from sim.hardware.chip import Chip, Costing
from sim.results import Estimate, Term
from sim.schedule.cpu import cpu_machine

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the comparison; `estimated_s` is None where the model refused, with `note`."""

    name: str
    measured_s: float | None
    estimated_s: float | None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Estimated over measured: 1 is exact, below 1 the model is too fast."""
        if self.measured_s is None or self.estimated_s is None or self.measured_s == 0:
            return None
        return self.estimated_s / self.measured_s

    def to_dict(self) -> dict[str, object]:
        fields = ("name", "measured_s", "estimated_s", "ratio", "note")
        return {name: getattr(self, name) for name in fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    rows: tuple[Row, ...]
    total: Row
    """Of a workload: the whole forward pass as measured without hooks. Of a grid: sums over rows that have both."""

    def to_dict(self) -> dict[str, object]:
        return {"rows": [row.to_dict() for row in self.rows], "total": self.total.to_dict()}


def one_launch_s(estimate: Estimate) -> float:
    """Latency of all ops of an estimate as one kernel: only the longest launch is paid."""
    launches = [op.breakdown_s.get(Term.LAUNCH, 0.0) for op in estimate.ops]
    return estimate.latency_s - sum(launches) + max(launches)


def _as_written(record: BaselineRecord, chip: Chip, ideal: Estimate) -> tuple[float, str]:
    """One of our kernels: its cost as written, and in words how and what an ideal kernel would take; on chips for which
    it was not compiled the ideal kernel's, which the words say."""
    from sim.baseline.kernels.cost import written_cost
    from sim.cost.gpu.device import device_from_chip

    best_s = one_launch_s(ideal)
    if chip.main_unit.costing is Costing.GPU_KERNELS:
        launch_s = max(op.breakdown_s.get(Term.LAUNCH, 0.0) for op in ideal.ops)
        spec = op_spec(record.target, record.knobs, record.precision)
        cost = written_cost(spec, device_from_chip(chip), launch_s=launch_s)
        if cost is not None:
            return cost.total_s, f"as our kernel is written ({cost.words}); an ideal one takes {best_s * 1e6:.3g} us"
    return best_s, "of an ideal kernel, not as ours is written"


def on_threads(chip: Chip, threads: int | None) -> tuple[Chip, str]:
    """A CPU with as many cores at work as a run had threads, and in words where that is not all of them or too many."""
    if threads is None or chip.main_unit.costing is not Costing.CPU:
        return chip, ""
    machine = cpu_machine(chip)
    if threads == machine.threads:
        return chip, ""
    if threads > machine.cores:
        return chip, f"measured on {threads} threads, estimated on the {machine.cores} cores that {chip.name} has"
    words = f"measured and estimated on {threads} of the {machine.cores} cores of {chip.name}"
    return chip.set(f"{chip.main_unit.name}.options.threads", threads), words


def compare_records(records: Sequence[BaselineRecord], hardware: str, calibration: str = "auto") -> Comparison:
    """Each record beside `sim.estimate` on `hardware`; a refused estimate is a note, not an end. On a CPU what was
    measured with rotated operands is estimated so."""
    import sim
    from sim.errors import DovetailError

    chip = sim.load_hardware(hardware)
    rows = []
    for record in records:
        name = _name(record)
        try:
            graph = record_graph(record)
            used, note = on_threads(chip, record.threads)
            found = sim.estimate(graph, used, precision=record.precision, calibration=calibration, inputs="resident")
            estimated, note = _as_written(record, used, found) if record.op in OURS else (found.latency_s, note)
            if record.phase is Phase.COLD and used.main_unit.costing is Costing.CPU:
                estimated = cold_s(graph, used, precision=record.precision, calibration=calibration)
        except DovetailError as error:
            estimated, note = None, str(error)
        rows.append(Row(name=name, measured_s=record.median_s, estimated_s=estimated, note=note))
    return Comparison(rows=tuple(rows), total=total_row(rows))


def _name(record: BaselineRecord) -> str:
    """What was measured; of mode and phase what tells it from an eager run with warm caches."""
    knobs = [f"{name}={value}" for name, value in record.knobs.items()]
    how = [str(word) for word in (record.mode, record.phase) if word not in (Mode.EAGER, Phase.WARM)]
    return " ".join([record.target, *knobs, record.precision, *how])


def total_row(rows: Sequence[Row]) -> Row:
    """Sums over the rows that have both numbers."""
    both = [
        (row.measured_s, row.estimated_s) for row in rows if row.measured_s is not None and row.estimated_s is not None
    ]
    note = f"{len(both)} of {len(rows)} rows have both"
    return Row(name="total", measured_s=sum(m for m, _ in both), estimated_s=sum(e for _, e in both), note=note)


def compare_workload(
    record: BaselineRecord, module_s: Mapping[str, float], estimate: Estimate, words: str = ""
) -> Comparison:
    """A workload per module: self time measured with hooks beside the sum of the estimate's ops of that module; `words`
    join the note of the total."""
    estimated: dict[str, float] = {}
    for op in estimate.ops:
        estimated[op.module] = estimated.get(op.module, 0.0) + op.latency_s
    names = [*estimated, *(name for name in module_s if name not in estimated)]
    rows = [Row(name=n or "(root)", measured_s=module_s.get(n), estimated_s=estimated.get(n)) for n in names]
    note = "the forward pass as a whole; rows are timed with hooks, which cost some microseconds a module"
    note = "; ".join(filter(None, (note, words)))
    total = Row(name="total", measured_s=record.median_s, estimated_s=estimate.latency_s, note=note)
    return Comparison(rows=tuple(rows), total=total)


def module_times(
    module: torch.nn.Module, run: Callable[[], object], *, synchronise: Callable[[], None], repetitions: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:  # fmt: skip
    """Median self time of each module [s]: its own calls less those of its children.

    Hooks read the clock after `synchronise`, so that a GPU's work is attributed to the module that launched it
    and the sum is above an undisturbed run. Parents and children must run on one thread.
    """
    if repetitions < 1:
        raise MeasurementError(f"repetitions is {repetitions}, expected at least 1")
    totals: list[dict[str, float]] = []
    stack: list[float] = []
    current: dict[str, float] = {}

    def enter(*_: object) -> None:
        synchronise()
        stack.append(clock())
        stack.append(0.0)  # time of the children

    def leave(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            synchronise()
            children, start = stack.pop(), stack.pop()
            inclusive = clock() - start
            current[name] = current.get(name, 0.0) + inclusive - children
            if stack:
                stack[-1] += inclusive

        return hook

    handles = []
    for name, child in module.named_modules():
        handles += [child.register_forward_pre_hook(enter), child.register_forward_hook(leave(name))]
    try:
        for _ in range(repetitions + 1):
            current = {}
            run()
            totals.append(current)
    finally:
        for handle in handles:
            handle.remove()
    kept = totals[1:]  # the first run warms up
    return {name: sorted(t.get(name, 0.0) for t in kept)[len(kept) // 2] for name in kept[0]}


def compare_point_modules(
    point: Point, record: BaselineRecord, *, machine: CpuDevice | CudaDevice, hardware: str, calibration: str = "auto"
) -> Comparison:
    """Build a measured workload again, time its modules with hooks, and put the estimate beside them."""
    import torch

    import sim
    from sim.baseline.workloads import build_module

    name = point.workload_path or point.target
    graph = sim.load_workload(name, **point.knobs)  # type: ignore[arg-type]
    chip, words = on_threads(sim.load_hardware(hardware), record.threads)
    estimate = sim.estimate(graph, chip, precision=point.precision, calibration=calibration, inputs="resident")
    if record.mode != "eager":
        return compare_workload(record, {}, estimate, words)
    with torch.inference_mode():
        module, args, kwargs = build_module(
            name, point.knobs, precision=point.precision, device=machine.backend, free_bytes=machine.free_bytes()
        )
        wait = torch.cuda.synchronize if machine.backend == "cuda" else (lambda: None)
        return compare_workload(
            record, module_times(module, lambda: module(*args, **kwargs), synchronise=wait), estimate, words
        )
