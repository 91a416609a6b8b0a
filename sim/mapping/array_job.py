"""The innermost job: one tile on the array, fed from the innermost memories.

The array reads each operand's patch once per fold that needs it and writes the output once per
pass over the reduction, at accumulator width unless the sum is finished. The ports that feed it bound
the step in which it runs (`StepTable.cost`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.hardware.chip import Dataflow, Folds, Preload, Skew
from sim.mapping.arrays import BINDINGS, ceil_div, fold_cycles
from sim.mapping.machine import ArrayShape
from sim.mapping.problem import INPUT, OUTPUT, ROLES, WEIGHT, Problem
from sim.mapping.steps import READ, ROLE_INDEX, WRITE, Cost, Rows, State, columns


def extents(problem: Problem, sizes: Mapping[str, np.ndarray], letter: str) -> np.ndarray:
    """Product of the class's rank extents (M, N, K or B)."""
    product: np.ndarray = np.ones(1, dtype=np.int64)
    for rank in problem.in_class(letter):
        product = product * sizes[rank]
    return product


def gemm_view(problem: Problem, array: ArrayShape, sizes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Folds and streamed extent of a tile: {"M", "N", "K", "B": extents, "rows", "cols": folds,
    "stream": cycles}. Sparse weights and narrow types shorten the reduction and the stream."""
    view = {letter: extents(problem, sizes, letter) for letter in "MNKB"}
    dense = view["K"]
    view["K"] = np.ceil(dense / problem.reduction_speedup) if np.any(problem.reduction_speedup != 1) else dense
    if array.dataflow == Dataflow.ROW_STATIONARY:
        return view | _row_stationary(problem, array, sizes, view)
    binding = BINDINGS[Dataflow(array.dataflow)]
    view["rows"] = ceil_div(view[binding.rows], array.rows)
    view["cols"] = ceil_div(view[binding.cols], array.cols)
    view["stream"] = np.ceil(view[binding.stream] / array.macs_per_cell)
    return view


def _row_stationary(
    problem: Problem, array: ArrayShape, sizes: Mapping[str, np.ndarray], view: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A set of R filter rows by P output rows computes one (channel, filter) plane; as many sets as
    fit stand on the rows, one output channel each (Chen et al., JSSC 52(1) 2017, section III)."""
    tall = next((r for r in problem.in_class("K") if r in problem.window_ranks), None)  # not heads that share a key
    window = sizes[tall] if tall else np.ones(1, dtype=np.int64)
    planes = problem.in_class("M")
    wide = planes[-2] if len(planes) > 1 and tall else (planes[-1] if planes else None)
    across = sizes[wide] if wide else np.ones(1, dtype=np.int64)
    sets = np.maximum(array.rows // window, 1)
    others = view["M"] // across
    return {
        "rows": ceil_div(view["N"], sets) * ceil_div(window, array.rows),
        "cols": ceil_div(across, array.cols) * others,
        "stream": np.ceil(view["K"] // window / array.macs_per_cell),
    }


def array_time(
    problem: Problem, array: ArrayShape, sizes: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(cycles, of which streaming, of which preload) of a tile job."""
    view = gemm_view(problem, array, sizes)
    folds = view["rows"] * view["cols"] * view["B"]
    drain = None
    if array.drain_bytes_per_cycle:  # what the folds of a job hold in the mean: most are full, or alike
        results = view["M"] * view["N"] * view["B"] / folds
        drain = results * (array.accumulate_bits / 8 / array.drain_bytes_per_cycle)
    per_fold, once = fold_cycles(
        view["stream"],
        rows=array.rows,
        cols=array.cols,
        dataflow=Dataflow(array.dataflow),
        preload=Preload(array.preload),
        folds=Folds(array.folds),
        skew=Skew(array.skew),
        drain_cycles=drain,
    )
    cycles = folds * per_fold + once
    streaming = folds * view["stream"]
    return cycles, streaming, _preload(array, folds, view["stream"])


def _preload(array: ArrayShape, folds: np.ndarray, stream: np.ndarray) -> np.ndarray:
    """Cycles in which a held operand is shifted in and nothing streams."""
    if array.dataflow in (Dataflow.OUTPUT_STATIONARY, Dataflow.ROW_STATIONARY):
        return np.zeros_like(stream)
    if array.preload == Preload.EXPOSED:
        return folds * array.rows
    skew = array.rows + array.cols - 2 if array.skew == Skew.SYSTOLIC else 0
    covered = stream + (skew if array.folds == Folds.SERIAL else 0)
    return array.rows + (folds - 1) * np.maximum(0, array.rows - covered)


def array_accesses(problem: Problem, array: ArrayShape, sizes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Elements that the array takes from its memories in one tile job, and passes over the output.

    Output stationary: input M K per column fold, weights K N per row fold, one pass. Weight
    stationary: weights once, input M K per column fold, one pass per K fold. Input stationary:
    input once, weights K N per column fold. Convolution windows are read out in full (M x K).
    """
    view = gemm_view(problem, array, sizes)
    m, n, b = view["M"], view["N"], view["B"]
    k = extents(problem, sizes, "K")
    one = np.ones(1)
    if array.dataflow == Dataflow.OUTPUT_STATIONARY:
        loads = {"input": view["cols"], "weight": view["rows"], "passes": one}
    elif array.dataflow == Dataflow.WEIGHT_STATIONARY:
        loads = {"input": view["cols"], "weight": one, "passes": view["rows"]}
    elif array.dataflow == Dataflow.INPUT_STATIONARY:
        loads = {"input": one, "weight": view["cols"], "passes": view["rows"]}
    else:  # row stationary: a filter row stays, inputs pass along the diagonals once per row fold
        loads = {"input": view["rows"], "weight": view["cols"], "passes": one}
    return {
        "input": b * m * k * loads["input"]
        if array.dataflow != Dataflow.ROW_STATIONARY
        else problem.elements(INPUT, sizes) * loads["input"],
        "weight": b * k * n * loads["weight"],
        "output": b * m * n,
        "passes": loads["passes"],
    }


def array_job(rows: Rows, state: State) -> Cost:
    """Cost of a batch of tile jobs."""
    problem, machine = rows.problem.at(state.row), rows.machine
    cycles, streaming, preload = array_time(problem, machine.array, state.sizes)
    accesses = array_accesses(problem, machine.array, state.sizes)
    n = len(state.row)
    port_bytes = columns((n,), (len(machine.ports),))
    traffic = columns((n,), (len(machine.levels), len(ROLES), 2))

    def move(role_index: int, level: int, direction: int, moved: np.ndarray) -> None:
        port = machine.levels[level].write_port if direction == WRITE else machine.levels[level].read_port
        port_bytes[:, port] += moved
        traffic[:, level, role_index, direction] += moved

    for role in (INPUT, WEIGHT):
        move(ROLE_INDEX[role], rows.nest.innermost[role], READ, accesses[role.value] * problem.bits[role] / 8)
    level, out = rows.nest.innermost[OUTPUT], accesses["output"]
    wide, narrow = problem.accumulate_bits / 8, problem.bits[OUTPUT] / 8
    passes = accesses["passes"]
    move(ROLE_INDEX[OUTPUT], level, WRITE, out * ((passes - 1) * wide + np.where(state.final, narrow, wide)))
    move(ROLE_INDEX[OUTPUT], level, READ, out * wide * (passes - state.fresh))
    flat = np.broadcast_to(cycles, (n,)).astype(float)
    return Cost(
        time=flat,
        port_bytes=port_bytes,
        port_moves=np.zeros_like(port_bytes),
        traffic=traffic,
        array=flat,
        spatial=np.broadcast_to(streaming, (n,)).astype(float),
        preload=np.broadcast_to(preload, (n,)).astype(float),
        setup=np.zeros(n),
    )
