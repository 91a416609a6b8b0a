"""Baseline records of a CPU as rows of work that its constants are fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sim.baseline.record import BaselineRecord, Mode, Phase
from sim.baseline.table import GraphOf, Library, Table, stack_rows
from sim.cost.columns import from_table, to_table
from sim.cost.cpu import CLASSES, INDEX_COLUMNS, CpuConstants, CpuMachine, CpuTime, CpuWork, cpu_time
from sim.hardware.chip import Chip, Costing
from sim.schedule.cpu import cpu_constants, cpu_machine, own_calibration
from sim.schedule.cpu_work import library_work
from sim.schedule.prepare import Manner, prepare
from sim.workload.graph import Graph, ViewOp
from sim.workload.precision import BITS, parse_precision


def tabulate(records: Sequence[BaselineRecord], chip: Chip, graph_of: GraphOf) -> Table:
    """Every op of every record as one array of work; equal ops of a record are one row."""
    blocks = []
    graphs: dict[tuple, Graph] = {}
    for record in records:
        key = (record.target, str(sorted(record.knobs.items())), record.workload or record.precision)
        if key not in graphs:
            graphs[key] = graph_of(record)
        graph = graphs[key]
        work = library_work(prepare(graph, parse_precision(record.precision), manner=Manner(eager=True)), chip)
        if record.phase is Phase.COLD:
            work = _cold(work, graph, record.precision)
        blocks.append(to_table(work))
    stacked, owner, count = stack_rows(blocks)
    work = from_table(CpuWork, stacked, index=INDEX_COLUMNS)
    machine = cpu_machine(chip)
    threads = np.array([min(r.threads or machine.cores, machine.cores) for r in records], dtype=float)[owner]
    host = np.array([r.mode is Mode.EAGER for r in records])[owner]
    return Table(
        records=tuple(records), owner=owner, count=count, kind=work.kind, classes=CLASSES, weight=work.macs,
        times=partial(_times, work, replace(machine, threads=threads), host),
    )  # fmt: skip


def _times(work: CpuWork, machine: CpuMachine, host: np.ndarray, constants: CpuConstants) -> CpuTime:
    return cpu_time(work, machine, constants, host=host)


def cold_s(graph: Graph, chip: Chip, *, precision: str, calibration: str) -> float:
    """Estimated time of a graph whose operands were rotated; `sim.estimate` speaks of operands that are used again,
    and is this but for `_cold`."""
    fitted = own_calibration(chip, calibration)
    prepared = prepare(graph, parse_precision(precision), manner=Manner(eager=True))
    work = _cold(library_work(prepared, chip, calibrated=fitted is not None), graph, precision)
    machine = replace(cpu_machine(chip), fitted_threads=fitted.threads if fitted is not None else None)
    return float(np.sum(cpu_time(work, machine, cpu_constants(chip, calibration)).total_s))


def _cold(work: CpuWork, graph: Graph, precision: str) -> CpuWork:
    """Operands were rotated, so that no input stays in a cache; outputs go where the allocator's memory lies."""
    element_bytes = BITS[parse_precision(precision).activation] / 8
    ops = [op for op in graph.ops if not isinstance(op, ViewOp)]
    written = [element_bytes * sum(graph.tensors[key].elements for key in op.outputs) for op in ops]
    out = np.minimum(np.array(written), work.passing_bytes)
    held = work.held_bytes + work.passing_bytes - out
    return replace(
        work, held_bytes=held, passing_bytes=out, passing_cycle_bytes=out, cycle_bytes=np.full(out.shape, np.inf)
    )


CPU = Library(
    costing=Costing.CPU,
    constants=CpuConstants,
    classes=CLASSES,
    modes=frozenset({Mode.EAGER}),
    tabulate=tabulate,
    held={"overlap": 2.0},  # no fit moved the errors with it; what both measured machines gave (1.7 and 2.0)
    start={name: CpuConstants.__dataclass_fields__[name].metadata["datasheet"]
           for name in ("parallel_share", "core_bytes_per_s")},
    fallback={
        "conv_word": "gemm_word", "half_efficiency": "gemm_word", "byte_efficiency": "half_efficiency",
        "layer_byte": "byte_efficiency", "attention_half": "half_efficiency", "decode_word": "gemm_word",
        "decode_half": "attention_half",
    },
    scaling={"parallel_share": 0.9, "core_bytes_per_s": 1e10},
)  # fmt: skip
"""PyTorch with oneDNN on a CPU. A class without rows takes its efficiency from a related one."""
