"""Depthwise convolutions, and the rate of a processor that some chips have for them."""

from __future__ import annotations

from sim.hardware.chip import Array
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


def depthwise_macs_per_cycle(op: EinsumOp, graph: Graph, array: Array) -> float:
    """MACs a cycle of the processor beside the array that takes this op; 0 where the array takes it."""
    if not array.depthwise_macs_per_cycle or not is_depthwise(op, graph):
        return 0.0
    kinds = {graph.tensors[op.einsum.operand(role).tensor].dtype for role in (OperandRole.WEIGHT, OperandRole.INPUT)}
    return array.depthwise_macs_per_cycle.get(kinds.pop(), 0.0) if len(kinds) == 1 else 0.0
