"""Einsums as matrix products: what libraries make of them."""

from __future__ import annotations

from dataclasses import dataclass

from sim.mapping.problem import INPUT, OUTPUT, WEIGHT
from sim.workload.graph import EinsumOp

FUSED_CELLS = ("lstm",)
"""Cells of recurrent layers for which a framework on a CPU has one kernel a layer (oneDNN, as PyTorch calls it)."""
FUSED_CELLS_OF_GPUS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""The same on a GPU: all modes of cuDNN's recurrent layers (cudnnRNNMode_t)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An einsum as `batch` products of m x k by k x n."""

    batch: int
    m: int
    n: int
    k: int


def product_shape(op: EinsumOp) -> Shape:
    """Ranks by the operands that they index: all three = batch, input and output = m, weight and
    output = n, the rest is reduced. A convolution becomes its implicit GEMM."""
    e = op.einsum
    ranks = {role: e.operand(role).ranks for role in (INPUT, WEIGHT, OUTPUT)}
    sizes = {"batch": 1, "m": 1, "n": 1, "k": 1}
    for rank, size in e.ranks.items():
        first, second, out = (rank in ranks[role] for role in (INPUT, WEIGHT, OUTPUT))
        part = ("batch" if first and second else "m" if first else "n") if out else "k"
        sizes[part] *= size
    return Shape(**sizes)


def is_window(op: EinsumOp) -> bool:
    """Whether it slides a window: an axis of the input depends on an output and a window rank."""
    return any(
        len(axis.terms) > 1 and {"R", "S", "T"} & set(axis.ranks) for axis in op.einsum.operand(INPUT).projection
    )


def is_depthwise(op: EinsumOp) -> bool:
    """A convolution with one output channel a group."""
    shape = product_shape(op)
    return is_window(op) and shape.batch > 1 and shape.n == 1
