"""Baseline records of a CPU as rows of work that its constants are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from sim.baseline.record import BaselineRecord, Mode, Phase
from sim.cost.cpu import CLASSES, INDEX_COLUMNS, CpuConstants, CpuMachine, CpuTime, CpuWork, cpu_time
from sim.hardware.chip import Chip
from sim.schedule.cpu import cpu_machine
from sim.schedule.cpu_work import library_work
from sim.schedule.prepare import prepare
from sim.workload.graph import Graph, ViewOp
from sim.workload.precision import BITS, parse_precision

CUSTOM_KERNELS = frozenset({"detection_postprocess"})
"""Measured ops that are kernels of our own: the tracer sees no ATen op in them to fit."""
SIZE_KNOBS = frozenset({"m", "batch", "rows", "length", "context"})
"""Knobs that do not tell families of shapes apart."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Records as ops of one machine: `owner` maps each row to its record, `count` says how many equal ops it is."""

    records: tuple[BaselineRecord, ...]
    work: CpuWork
    owner: np.ndarray
    count: np.ndarray
    machine: CpuMachine
    host: np.ndarray

    @property
    def measured_s(self) -> np.ndarray:
        return np.array([float(r.median_s or np.nan) for r in self.records])

    def times(self, constants: CpuConstants) -> CpuTime:
        """Time of one op of each row."""
        return cpu_time(self.work, self.machine, constants, host=self.host)

    def predict_s(self, constants: CpuConstants) -> np.ndarray:
        """Estimated time of each record."""
        total = self.times(constants).total_s * self.count
        return np.bincount(self.owner, weights=total, minlength=len(self.records))

    def classes(self) -> np.ndarray:
        """Per record the class that takes most of its MACs, or its first op's."""
        names = []
        for record in range(len(self.records)):
            at = np.flatnonzero(self.owner == record)
            names.append(CLASSES[int(self.work.kind[at[np.argmax((self.work.macs * self.count)[at])]])])
        return np.array(names)


def family(record: BaselineRecord) -> tuple:
    """What records of one shape family share: op, and knobs other than sizes of the batch."""
    return (record.target, tuple(sorted((k, str(v)) for k, v in record.knobs.items() if k not in SIZE_KNOBS)))


def record_graph(record: BaselineRecord) -> Graph:
    """The graph that a record measured."""
    import sim
    from sim.baseline.compare import op_graph
    from sim.baseline.ops import op_spec

    if record.workload is not None:
        return sim.load_workload(record.workload, **dict(record.knobs))  # type: ignore[arg-type]
    return op_graph(op_spec(str(record.op), record.knobs, record.precision))  # type: ignore[arg-type]


def tabulate(records: Sequence[BaselineRecord], chip: Chip, graph_of: Callable[[BaselineRecord], Graph]) -> Table:
    """Every op of every record as one array of work; equal ops of a record are one row."""
    columns = [f.name for f in fields(CpuWork)]
    blocks, owner, count = [], [], []
    graphs: dict[tuple, Graph] = {}
    for number, record in enumerate(records):
        key = (record.target, str(sorted(record.knobs.items())), record.workload or record.precision)
        if key not in graphs:
            graphs[key] = graph_of(record)
        graph = graphs[key]
        work = library_work(prepare(graph, parse_precision(record.precision), eager=True), chip)
        if record.phase is Phase.COLD:
            work = _cold(work, graph, record)
        found = np.stack([getattr(work, name).astype(float) for name in columns], axis=1)
        unique, counts = np.unique(found, axis=0, return_counts=True)
        blocks.append(unique)
        owner += [number] * len(unique)
        count += list(counts)
    stacked = np.concatenate(blocks)
    work = CpuWork(
        **{n: stacked[:, i].astype(int if n in INDEX_COLUMNS else float) for i, n in enumerate(columns)}
    )  # fmt: skip
    machine, of = cpu_machine(chip), np.array(owner)
    threads = np.array([min(r.threads or machine.cores, machine.cores) for r in records], dtype=float)
    return Table(
        records=tuple(records), work=work, owner=of, count=np.array(count, dtype=float),
        machine=replace(machine, threads=threads[of]), host=np.array([r.mode is Mode.EAGER for r in records])[of],
    )  # fmt: skip


def _cold(work: CpuWork, graph: Graph, record: BaselineRecord) -> CpuWork:
    """Operands were rotated, so that no input stays in a cache; outputs go where the allocator's memory lies."""
    element_bytes = BITS[parse_precision(record.precision).activation] / 8
    ops = [op for op in graph.ops if not isinstance(op, ViewOp)]
    written = [element_bytes * sum(graph.tensors[key].elements for key in op.outputs) for op in ops]
    out = np.minimum(np.array(written), work.passing_bytes)
    held = work.held_bytes + work.passing_bytes - out
    return replace(
        work, held_bytes=held, passing_bytes=out, passing_cycle_bytes=out, cycle_bytes=np.full(out.shape, np.inf)
    )
