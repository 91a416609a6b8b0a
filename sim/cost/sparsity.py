"""What zeros in a tensor save on an array. Pure functions."""

from __future__ import annotations

from math import prod

from sim.cost.gpu.device import CUDA_CORE_DTYPES
from sim.hardware.chip import Array, Unit
from sim.workload.graph import EinsumOp, Graph, OperandRole, Tensor


def reduction_speedup(array: Array, op: EinsumOp, tensor: Tensor) -> float:
    """Dense over executed reduction steps that a factor of the einsum brings; 1 where the array cannot.

    An N:M pattern that the array lists brings its rate if the einsum reduces over enough channels
    (`sparse_min_channels`); an array that skips zeros skips those of any other tensor.

    Example: 2:4 on an array with {"2:4": 2} -> 2; density 0.25 on one that skips zeros -> 4.
    """
    rate = array.weight_sparsity.get(tensor.pattern or "")
    if rate is not None:
        return rate if channels(op) >= array.sparse_min_channels else 1.0
    return 1.0 / tensor.density if array.skips_zeros else 1.0


def op_speedup(array: Array, op: EinsumOp, graph: Graph) -> float:
    """Dense over executed MACs of an einsum: what zeros in both of its factors bring."""
    factors = (graph.tensors[op.einsum.operand(role).tensor] for role in (OperandRole.INPUT, OperandRole.WEIGHT))
    return prod(reduction_speedup(array, op, tensor) for tensor in factors)


def rate_speedup(unit: Unit, op: EinsumOp, graph: Graph, compute: str) -> float:
    """`op_speedup` on a unit at one of its rates: patterns are the matrix units', and a GPU has types beside them.

    (One that is costed by its roofline is known by its generation.)
    """
    gpu = unit.costing.gpu or "generation" in unit.options
    beside = gpu and compute in CUDA_CORE_DTYPES
    return 1.0 if beside else op_speedup(unit.array, op, graph)


def channels(op: EinsumOp) -> int:
    """Channels that one output sums over, a GEMM's K or a convolution's C: of several such ranks the largest."""
    return max((op.einsum.ranks[rank] for rank in op.einsum.channel_ranks), default=1)
