"""How a split axis is carried through views and einsums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

from sim.workload.graph import Axis, Einsum, Operand, Tensor


def _strides(tensor: Tensor) -> list[int]:
    """Elements between neighbours of each axis, as if the tensor were dense in its layout."""
    strides, step = [0] * len(tensor.shape), 1
    for axis in reversed(tensor.layout or range(len(tensor.shape))):
        strides[axis], step = step, step * tensor.shape[axis]
    return strides


def follow_view(before: Tensor, after: Tensor, axis: int, chips: int) -> int | None:
    """The axis of `after`, a view of `before` (or the other way round), that carries its split; None where none does.

    Reshapes and transposes are followed by address: an axis covers addresses [stride, stride x size). It may be
    merged with inner ones (heads x head dim) or come apart (features into heads): which features a chip has is
    free, so the outermost part that divides is taken (of a fused QKV the heads, not the three). Slices and
    selections keep the axis, and so does what they are taken from; equal chunks of the split axis itself stay split
    (fused QKV again).

    Example: (1, 197, 2304) split at 2, seen as (1, 197, 3, 12, 64), on 4 chips: axis 3, three heads a chip.
    """
    if before.elements == after.elements:
        return _same_elements(before, after, axis, chips)
    size = before.shape[axis]
    if len(before.shape) == len(after.shape):
        other = after.shape[axis]
        chunk = max(size, other) % min(size, other) == 0 if min(size, other) else False
        return axis if chunk and other % chips == 0 else None
    if len(before.shape) > len(after.shape):  # of what is left of a selection
        kept = _part_of(after.shape, before.shape, axis)
        found = kept.index(axis) if axis in kept else None
    else:  # back to what was selected from: a stack of experts, the caches of all layers
        kept = _part_of(before.shape, after.shape)
        found = kept[axis] if kept else None
    return found if found is not None and after.shape[found] == size else None


def follow_reduction(before: Tensor, after: Tensor, axis: int) -> int | None:
    """Where the split axis `axis` of what is reduced is in the result; None where it is reduced itself, or may be.

    Reduced axes are left with one element, or left out.
    """
    if len(before.shape) == len(after.shape):
        return axis if after.shape[axis] == before.shape[axis] else None
    every = combinations(range(len(before.shape)), len(after.shape))
    ways = [kept for kept in every if tuple(before.shape[at] for at in kept) == after.shape]
    return ways[0].index(axis) if len(ways) == 1 and axis in ways[0] else None


def _part_of(part: tuple[int, ...], whole: tuple[int, ...], needed: int | None = None) -> tuple[int, ...]:
    """The axes of `whole` that those of a part of it are, in order; () where it is none.

    Of the ways to drop the others that keep axis `needed`: the one with the most whole axes, outermost ones dropped.
    """
    ways = [
        kept
        for kept in combinations(range(len(whole)), len(part))
        if (needed is None or needed in kept) and all(n <= whole[at] for n, at in zip(part, kept, strict=True))
    ]
    return max(ways, key=lambda kept: (sum(n == whole[at] for n, at in zip(part, kept, strict=True)), kept), default=())


def _same_elements(before: Tensor, after: Tensor, axis: int, chips: int) -> int | None:
    low = _strides(before)[axis]
    high = low * before.shape[axis]
    fits = []
    for at, (stride, size) in enumerate(zip(_strides(after), after.shape, strict=True)):
        inside = stride >= low and stride * size <= high
        merged = stride <= low and stride * size == high
        if size % chips == 0 and (inside or merged):
            fits.append((stride, at))
    return max(fits)[1] if fits else None


def rank_of(e: Einsum, operand: Operand, axis: int, chips: int) -> str | None:
    """The rank whose split splits an operand's axis: the outermost of the axis, where it divides; else None."""
    terms, size = operand.projection[axis].terms, operand.projection[axis].size
    if not terms or operand.projection[axis].offset:
        return None
    rank, coefficient = max(terms, key=lambda term: term[1])
    covers = coefficient * e.ranks[rank] == size
    return rank if covers and e.ranks[rank] % chips == 0 else None


def with_rank(e: Einsum, operand: Operand, rank: str) -> int | None:
    """The axis of an operand on which `rank` is outermost; None where it is on none."""
    for at, axis in enumerate(operand.projection):
        if rank in axis.ranks and rank_of(e, operand, at, 1) == rank:
            return at
    return None


def share_of(e: Einsum, rank: str, chips: int, new: Mapping[str, str]) -> Einsum:
    """The einsum with `rank` divided, on the local tensors."""

    def local(axis: Axis) -> Axis:
        return replace(axis, size=axis.size // chips) if rank in axis.ranks else axis

    operands = tuple(
        Operand(tensor=new.get(o.tensor, o.tensor), role=o.role, projection=tuple(map(local, o.projection)))
        for o in e.operands
    )
    return Einsum(ranks={**e.ranks, rank: e.ranks[rank] // chips}, operands=operands)
