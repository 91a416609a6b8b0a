"""Structured N:M sparsity on weights."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from sim.errors import WorkloadError
from sim.workload.graph import EinsumOp, Graph, OperandRole, Role, Tensor
from sim.workload.passes.stored import with_stored


def metadata_bits(n: int, m: int) -> float:
    """Bits per *stored* element that say where it stood: ceil(log2 m) each (2 for 2:4).

    Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378, section 3.
    """
    return float((m - 1).bit_length()) if n < m else 0.0


def position_bits(tensor: Tensor) -> float:
    """Bits that a stored element of a sparse tensor spends on where it stood: N:M, or a bitmap of the dense tensor."""
    if tensor.pattern is None:
        return 0.0
    return 1 / tensor.density if tensor.pattern == "unstructured" else metadata_bits(*_parse(tensor.pattern))


def sparsify(graph: Graph, pattern: str = "2:4", *, ops: str = "*") -> Graph:
    """Weights of einsums whose name or module matches `ops` keep n of each m elements.

    The stored fraction `density` becomes n / m and `bits` grows by the metadata, so that
    `size_bytes` is what is stored and moved. MACs stay dense; `effective_macs` counts those done.
    A weight is taken if the channels that it sums over (a GEMM's K, a convolution's C, no positions of
    its window) divide by m; others stay dense, as pruning tools do.

    Needs: dense weights. Promises: ops, shapes and dense MACs as before.
    Raises: WorkloadError: a pattern that is not "N:M" with 0 < N <= M, or one that fits no weight.
    """
    n, m = _parse(pattern)
    chosen: set[str] = set()
    for op in graph.ops:
        if isinstance(op, EinsumOp) and (fnmatchcase(op.name, ops) or fnmatchcase(op.module, ops)):
            weight = op.einsum.operand(OperandRole.WEIGHT)
            tensor = graph.tensors[weight.tensor]
            reduced = [op.einsum.ranks[rank] for rank in op.einsum.channel_ranks & weight.ranks]
            if tensor.role is Role.WEIGHT and any(size % m == 0 for size in reduced):
                chosen.add(tensor.storage or tensor.id)
    if not chosen:
        raise WorkloadError(f'sparsity {pattern}: no weight of ops "{ops}" sums over channels that divide by {m}')
    tensors = {
        key: replace(t, density=n / m, pattern=pattern, bits=t.bits + metadata_bits(n, m))
        if (t.storage or t.id) in chosen and t.pattern is None
        else t
        for key, t in graph.tensors.items()
    }
    return with_stored(graph, tensors)


def effective_macs(graph: Graph) -> int:
    """MACs after skipping what sparse weights do not store."""
    total = 0.0
    for op in graph.ops:
        if isinstance(op, EinsumOp):
            weight = graph.tensors[op.einsum.operand(OperandRole.WEIGHT).tensor]
            total += op.einsum.macs * weight.density
    return round(total)


def _parse(pattern: str) -> tuple[int, int]:
    left, _, right = pattern.partition(":")
    if not (left.isdigit() and right.isdigit() and 0 < int(left) <= int(right)):
        raise WorkloadError(f'sparsity "{pattern}": expected "N:M" with 0 < N <= M such as "2:4"')
    return int(left), int(right)
