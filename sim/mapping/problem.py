"""An einsum as the mapper sees it: GEMM-like rank classes, operand extents, element widths.

Ranks fall into four classes by the operands that depend on them:

| class | input | weight | output | example (convolution) |
|---|---|---|---|---|
| M | yes | no | yes | batch N, output row P, output column Q |
| N | no | yes | yes | output channel K |
| K | yes | yes | no | input channel C, window R, S |
| B | yes | yes | yes | group G, attention head |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from typing import Any

import numpy as np

from sim.errors import MappingError
from sim.workload.graph import Axis, Einsum, OperandRole

INPUT, WEIGHT, OUTPUT = OperandRole.INPUT, OperandRole.WEIGHT, OperandRole.OUTPUT
ROLES = (INPUT, WEIGHT, OUTPUT)
_CLASS_OF = {
    (True, False, True): "M",
    (False, True, True): "N",
    (True, True, False): "K",
    (True, True, True): "B",
    # A rank that only one factor has is summed within it, or spreads it over the output.
    (True, False, False): "K",
    (False, True, False): "K",
    (False, False, True): "M",
}


def _parts(axis: Axis, einsum: Einsum, weight: Collection[str]) -> tuple[Axis, ...]:
    """An axis per rank where the ranks, all of the weight, are the digits of its index; the axis itself otherwise."""
    size, terms = 1, sorted(axis.terms, key=lambda term: (term[1], einsum.ranks[term[0]]))
    for rank, coefficient in terms:
        if coefficient != size or rank not in weight:
            return (axis,)
        size *= einsum.ranks[rank]
    if len(terms) == 1 or size != axis.size or axis.offset:
        return (axis,)
    return tuple(Axis(terms=((rank, 1),), size=einsum.ranks[rank]) for rank, _ in axis.terms)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An einsum with the stored widths of its operands.

    `bits` are the stored bits per element (density included) at the operand's home; a partial sum
    has `accumulate_bits`. Extents count padding inside a tile as data, but never more than the
    tensor has on that axis: exact for an untiled axis, at most the padding too much for a tiled one.
    """

    einsum: Einsum
    bits: Mapping[OperandRole, float]
    accumulate_bits: int
    reduction_speedup: float = 1.0
    """Dense over executed reduction steps: 2 for 2:4 weights on an array that skips them."""

    @cached_property
    def ranks(self) -> tuple[str, ...]:
        return tuple(self.einsum.ranks)

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.array([self.einsum.ranks[r] for r in self.ranks], dtype=np.int64)

    @cached_property
    def axes(self) -> Mapping[OperandRole, tuple[Axis, ...]]:
        """Operand -> its axes; those on which no rank lies (broadcast) hold one element.

        Channels of a grouped convolution (group x size + channel) are two axes, so that tiles may cut both.
        """
        weight = self.einsum.operand(WEIGHT).ranks
        return {
            role: tuple(
                part
                for axis in self.einsum.operand(role).projection
                if axis.terms
                for part in _parts(axis, self.einsum, weight)
            )
            for role in ROLES
        }

    @cached_property
    def relevant(self) -> Mapping[OperandRole, frozenset[str]]:
        """Operand -> ranks on which it depends."""
        return {role: self.einsum.operand(role).ranks for role in ROLES}

    @cached_property
    def rank_class(self) -> Mapping[str, str]:
        table = {}
        for rank in self.ranks:
            key = tuple(rank in self.relevant[role] for role in ROLES)
            if key not in _CLASS_OF:
                raise MappingError(f"rank {rank} of the einsum belongs to no operand")
            table[rank] = _CLASS_OF[key]
        return table

    def in_class(self, letter: str) -> tuple[str, ...]:
        return self._classes[letter]

    @cached_property
    def _classes(self) -> Mapping[str, tuple[str, ...]]:
        return {letter: tuple(r for r in self.ranks if self.rank_class[r] == letter) for letter in "MNKB"}

    @cached_property
    def reduction(self) -> frozenset[str]:
        return frozenset(self.ranks) - self.relevant[OUTPUT]

    @cached_property
    def window_ranks(self) -> frozenset[str]:
        """Ranks of the weight that slide over another rank's axis; untiled above the array.

        A convolution's window slides over its input, a transposed convolution's over its output.
        """
        shared = {r for role in (INPUT, OUTPUT) for axis in self.axes[role] if len(axis.terms) > 1 for r in axis.ranks}
        return frozenset(shared & self.relevant[WEIGHT])

    @cached_property
    def owned(self) -> Mapping[OperandRole, Mapping[str, tuple[Axis, ...]]]:
        """Operand -> class -> its axes that the class owns: by their non-window rank (a window's, if that is all)."""
        found: dict[OperandRole, dict[str, tuple[Axis, ...]]] = {role: dict.fromkeys("MNKB", ()) for role in ROLES}
        for role in ROLES:
            for axis in self.axes[role]:
                plain = [r for r in axis.ranks if r not in self.window_ranks] or list(axis.ranks)
                letter = self.rank_class[plain[0]]
                found[role][letter] = (*found[role][letter], axis)
        return found

    def slides(self, role: OperandRole) -> bool:
        """Whether boxes of the operand may overlap in part."""
        return any(len(axis.terms) > 1 for axis in self.axes[role])

    @cached_property
    def tiled_ranks(self) -> tuple[str, ...]:
        """Ranks that the map spaces tile: more than one element, no window."""
        return tuple(r for r in self.ranks if self.einsum.ranks[r] > 1 and r not in self.window_ranks)

    def axis_extent(self, axis: Axis, sizes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Elements that a box of rank extents `sizes` touches on `axis`, capped at the tensor."""
        return np.minimum(self._box(axis, sizes), axis.size)

    def _box(self, axis: Axis, sizes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Extent before the cap. A stride beyond the window touches only the pixels it needs."""
        if len(axis.terms) == 1:
            return np.asarray(sizes[axis.terms[0][0]])
        extent = 1 + sum((sizes[r] - 1) * c for r, c in axis.terms if r in self.window_ranks)
        for rank, coefficient in axis.terms:
            if rank not in self.window_ranks:
                extent = (sizes[rank] - 1) * np.minimum(coefficient, extent) + extent
        return np.asarray(extent)

    def elements(self, role: OperandRole, sizes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Elements of the operand's tile for rank extents `sizes` (any broadcastable shapes)."""
        return np.asarray(prod(self.axis_extent(axis, sizes) for axis in self.axes[role]))

    def overlap(
        self,
        role: OperandRole,
        old: Mapping[str, np.ndarray],
        new: Mapping[str, np.ndarray],
        shift: Mapping[str, np.ndarray],
    ) -> np.ndarray:
        """Elements that two boxes share; `shift` is the step of the start per rank.

        The product over axes of the overlap of two intervals (sliding window, wrap included).
        """
        return np.asarray(prod(self.axis_overlap(axis, old, new, shift) for axis in self.axes[role]))

    def axis_overlap(
        self, axis: Axis, old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray], shift: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Indices of an axis that two boxes share."""
        old_extent, new_extent = self._box(axis, old), self._box(axis, new)
        moved = shift[axis.terms[0][0]] if len(axis.terms) == 1 else sum(shift[r] * c for r, c in axis.terms)
        common = np.minimum(old_extent, moved + new_extent) - np.maximum(0, moved)
        if len(axis.terms) > 1:
            window = 1 + sum((old[r] - 1) * c for r, c in axis.terms if r in self.window_ranks)
            steps = [np.asarray(c) for r, c in axis.terms if r not in self.window_ranks]
            skipping = np.logical_and(window < reduce(np.maximum, steps, np.asarray(1)), moved != 0)
            common = np.where(skipping, 0, common)  # pixels between windows were never loaded
        return np.clip(common, 0, np.minimum(new_extent, axis.size))

    @cached_property
    def whole(self) -> Mapping[str, np.ndarray]:
        return {r: np.asarray(n, dtype=np.int64) for r, n in self.einsum.ranks.items()}

    def size_bytes(self, role: OperandRole) -> float:
        """Bytes of the whole operand that the einsum touches (compulsory traffic)."""
        return float(self.elements(role, self.whole)) * self.bits[role] / 8

    @property
    def macs(self) -> int:
        return self.einsum.macs

    @cached_property
    def form(self) -> tuple:
        """Equal for problems that differ in numbers only."""
        return (self.ranks, tuple(tuple(axis.ranks for axis in self.axes[role]) for role in ROLES))

    def at(self, rows: np.ndarray) -> Problem:
        """The problem of some rows: this one (see `Stack`)."""
        return self


@dataclass(frozen=True)
class Family:
    """Problems of one form on one array, and their numbers side by side (one number where all have the same)."""

    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.problems)

    @cached_property
    def bits(self) -> Mapping[OperandRole, Any]:
        return {role: _beside([p.bits[role] for p in self.problems]) for role in ROLES}

    @cached_property
    def reduction_speedup(self) -> Any:
        return _beside([p.reduction_speedup for p in self.problems])

    @cached_property
    def sizes(self) -> np.ndarray:
        """(ranks, problems)"""
        return np.stack([p.sizes for p in self.problems], axis=1)

    @cached_property
    def axes(self) -> Mapping[OperandRole, list[tuple[Any, list[tuple[str, Any]]]]]:
        """(size, [(rank, coefficient)]) of every axis."""

        def merged(axes: Sequence[Axis]) -> tuple[Any, list[tuple[str, Any]]]:
            terms = zip(*(axis.terms for axis in axes), strict=True)
            return _beside([axis.size for axis in axes]), [
                (same[0][0], _beside([c for _, c in same])) for same in terms
            ]

        return {role: list(map(merged, zip(*(p.axes[role] for p in self.problems), strict=True))) for role in ROLES}


def _beside(values: Sequence[float]) -> Any:
    return values[0] if len(set(values)) == 1 else np.array(values)


@dataclass(frozen=True, kw_only=True)
class Stack(Problem):
    """Problems of one family as one, each row having its own: numbers are arrays over rows.

    `einsum` gives the form alone.
    """

    family: Family
    number: np.ndarray
    """(rows,) which of the problems each row has"""

    @classmethod
    def of(cls, family: Family, number: np.ndarray) -> Problem:
        """The stack of problems of a family; the problem itself if there is only one."""
        first = family.problems[0]
        if len(family) == 1:
            return first
        return cls(
            einsum=first.einsum,
            bits={role: _taken(column, number) for role, column in family.bits.items()},
            accumulate_bits=first.accumulate_bits,
            reduction_speedup=_taken(family.reduction_speedup, number),
            family=family,
            number=number,
        )

    @cached_property
    def sizes(self) -> np.ndarray:
        """(ranks, rows)"""
        return self.family.sizes[:, self.number]

    @cached_property
    def axes(self) -> Mapping[OperandRole, tuple[Axis, ...]]:
        """As of a problem, with coefficients and sizes that are arrays where problems differ."""

        def axis(size: Any, terms: list[tuple[str, Any]]) -> Axis:
            return Axis(
                size=_taken(size, self.number), terms=tuple((rank, _taken(c, self.number)) for rank, c in terms)
            )

        return {role: tuple(axis(*one) for one in axes) for role, axes in self.family.axes.items()}

    @cached_property
    def whole(self) -> Mapping[str, np.ndarray]:
        return dict(zip(self.ranks, self.sizes, strict=True))

    def at(self, rows: np.ndarray) -> Problem:
        return self.of(self.family, self.number[rows])


def _taken(column: Any, number: np.ndarray) -> Any:
    """Of each row, of a column of a family."""
    return column[number] if isinstance(column, np.ndarray) else column
