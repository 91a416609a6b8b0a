"""Depthwise convolutions, and the rate of a processor that some chips have for them."""

from __future__ import annotations

import numpy as np

from sim.hardware.chip import Array
from sim.mapping.array_job import array_time
from sim.mapping.machine import array_shape
from sim.mapping.problem import ROLES, Problem
from sim.workload.graph import EinsumOp, Graph, OperandRole, Role


def is_depthwise(op: EinsumOp, graph: Graph) -> bool:
    """Whether each output channel is a window of one input channel, weighed by parameters of its own.

    In terms of ranks: the channel is in all three operands, and what the weights sum over besides are the taps of
    a window, ranks that move along the input together with a position of the output.
    """
    e = op.einsum
    weight, data = e.operand(OperandRole.WEIGHT), e.operand(OperandRole.INPUT)
    if graph.tensors[weight.tensor].role is not Role.WEIGHT:
        return False
    wide = {rank for rank, size in e.ranks.items() if size > 1}
    positions = e.output.ranks - weight.ranks
    taps = {rank for axis in data.projection if positions.intersection(axis.ranks) for rank in axis.ranks}
    shared = weight.ranks & data.ranks & e.output.ranks & wide
    return bool(shared) and (e.reduction_ranks & wide) <= taps


def depthwise_macs_per_cycle(op: EinsumOp, graph: Graph, array: Array, compute: str) -> float:
    """MACs a cycle of the processor beside the array that takes this op; 0 where the array takes it.

    The processor takes the layers that it computes in no more cycles than the array would (which it may, where
    windows are large); `compute`: the type of the factors as they are multiplied.
    """
    rate = array.depthwise_macs_per_cycle.get(compute, 0.0)
    if not rate or not is_depthwise(op, graph):
        return 0.0
    problem = Problem(
        einsum=op.einsum,
        bits=dict.fromkeys(ROLES, 8.0),
        accumulate_bits=array.accumulate_bits,
        reduction_speedup=1.0,
    )
    whole = {rank: np.array([size]) for rank, size in op.einsum.ranks.items()}
    cycles, _, _ = array_time(problem, array_shape(array, compute, chip=array.name), whole)
    return rate if op.einsum.macs <= rate * float(cycles[0]) else 0.0
