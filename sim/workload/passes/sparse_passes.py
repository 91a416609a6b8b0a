"""Kernels of sparse weights that an array takes in several passes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from sim.workload.graph import Axis, Einsum, EinsumOp, Graph, Op, Operand, OperandRole, Role, Tensor, ViewOp
from sim.workload.passes.dead_code import dead_code

JOIN = "join"
"""Kind of the view that is the whole of what several passes have made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassLimit:
    """What an array takes at once of sparse weights.

    `patterns` are those that it computes with, in layers of at least `min_channels` input channels; one pass holds
    `bytes` of stored weights (positions included), in whole multiples of `kernels`.
    """

    bytes: float
    patterns: Collection[str]
    min_channels: int
    kernels: int


def split_sparse_passes(graph: Graph, limit: PassLimit) -> Graph:
    """Products whose sparse weights exceed one pass become several, each with a share of the kernels.

    Every pass reads the whole input again and writes its own part of the result; a free view joins the parts.

    Needs: precision and patterns applied, epilogues fused. Promises: MACs and vector work as before; weights and
    results in parts that add up to the whole.
    """
    ops: list[Op] = []
    tensors = dict(graph.tensors)
    for op in graph.ops:
        rank = _kernels(op, graph, limit) if isinstance(op, EinsumOp) else None
        if rank is None:
            ops.append(op)
            continue
        assert isinstance(op, EinsumOp)
        weight = graph.tensors[op.einsum.operand(OperandRole.WEIGHT).tensor]
        total = op.einsum.ranks[rank]
        per_pass = _per_pass(weight, total, limit)
        views: list[ViewOp] = []
        starts = range(0, total, per_pass)
        parts = [_part(op, rank, i, start, min(per_pass, total - start), tensors, views)
                 for i, start in enumerate(starts)]  # fmt: skip
        made = tuple(part.outputs[0] for part in parts)
        join = ViewOp(
            name=f"{op.name}.join", kind=JOIN, inputs=made, outputs=op.outputs, module=op.module, source=op.source
        )
        ops += [*views, *parts, join]
    return dead_code(graph.with_(ops=tuple(ops), tensors=tensors)) if len(ops) > len(graph.ops) else graph


def _kernels(op: EinsumOp, graph: Graph, limit: PassLimit) -> str | None:
    """The rank of the kernels of a product that needs several passes; None for any other."""
    e = op.einsum
    weight, data = e.operand(OperandRole.WEIGHT), e.operand(OperandRole.INPUT)
    tensor = graph.tensors[weight.tensor]
    channels = max((e.ranks[rank] for rank in e.reduction_ranks), default=1)
    if tensor.pattern not in limit.patterns or channels < limit.min_channels or tensor.size_bytes <= limit.bytes:
        return None
    free = [rank for rank in (weight.ranks & e.output.ranks) - data.ranks if e.ranks[rank] > 1]
    own = [rank for rank in free if _per_pass(tensor, e.ranks[rank], limit) < e.ranks[rank]]
    return own[0] if len(free) == len(own) == 1 else None


def _per_pass(weight: Tensor, kernels: int, limit: PassLimit) -> int:
    """Kernels of one pass: at least one multiple, whatever it takes."""
    fits = int(limit.bytes / (weight.size_bytes / kernels))
    return max(1, fits // limit.kernels) * limit.kernels


def _part(
    op: EinsumOp, rank: str, index: int, start: int, count: int, tensors: dict[str, Tensor], views: list[ViewOp]
) -> EinsumOp:
    """Pass `index` with `count` kernels from `start` on; its tensors and views of them are added."""
    e = op.einsum
    axis = next(i for i, a in enumerate(e.output.projection) if rank in a.ranks)
    whole = tensors[e.output.tensor]
    names: dict[str, str] = {}

    def cut(key: str, at: int) -> str:
        tensor = tensors[key]
        storage = "" if tensor.role is Role.WEIGHT else tensor.storage or key  # parts of a result lie in it
        names[key] = f"{key}[{start}:{start + count}]"
        shape = (*tensor.shape[:at], count, *tensor.shape[at + 1 :])
        tensors[names[key]] = replace(tensor, id=names[key], shape=shape, storage=storage)
        return names[key]

    def operand(old: Operand) -> Operand:
        at = next((i for i, a in enumerate(old.projection) if rank in a.ranks), None)
        if at is None:
            return old
        sides = tuple(Axis(terms=a.terms, size=count, offset=a.offset) if i == at else a
                      for i, a in enumerate(old.projection))  # fmt: skip
        return replace(old, tensor=cut(old.tensor, at), projection=sides)

    operands = tuple(operand(old) for old in e.operands)
    for key in op.inputs:  # what the epilogue reads beside the operands: a bias, a residual
        shape = tensors[key].shape
        side = axis if shape == whole.shape else 0 if shape == (whole.shape[axis],) else None
        if key not in names and all(key != old.tensor for old in e.operands) and side is not None:
            made = f"{key}[{start}:{start + count}]" in tensors  # by the passes of another product
            part = cut(key, side)
            if not made and tensors[key].role is not Role.WEIGHT:
                views.append(ViewOp(name=f"{op.name}.{index}.part", kind="part", inputs=(key,), outputs=(part,)))
    return replace(
        op,
        name=f"{op.name}.{index}",
        inputs=tuple(names.get(key, key) for key in op.inputs),
        outputs=tuple(names.get(key, key) for key in op.outputs),
        einsum=Einsum(ranks=dict(e.ranks) | {rank: count}, operands=operands),
    )
