"""How many choices fell on each class, or elements of a mask are true: counts that a run without data knows in sum.

A mixture of experts counts its choices (`bincount`, `histc`, a mask's sum, ones scattered into zeros) and turns the
counts into numbers: the lengths of its slices. Of the values only their sum is known; the policy's shares deal it out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from sim.workload.trace.choices import memory_of
from sim.workload.trace.policy import ROUNDING, DataPolicy
from sim.workload.trace.rules.registry import tensors_in

_CARRY = {"aten._to_copy", "aten.clone", "aten.sum"}
"""Ops whose result's elements sum up to what their input's do."""
_ZEROS = {"aten.zeros", "aten.zeros_like", "aten.new_zeros"}
_ONES = {"aten.ones", "aten.ones_like", "aten.new_ones"}
_ADDED = {"aten.scatter", "aten.scatter_", "aten.scatter_add", "aten.scatter_add_", "aten.index_add", "aten.index_add_"}

_COMPARED = {
    f"aten.{op.__name__}": op for op in (operator.eq, operator.ne, operator.gt, operator.ge, operator.lt, operator.le)
}
_EXTREMES = {"aten.max": max, "aten.min": min, "aten.amax": max, "aten.amin": min}
"""Of these, those whose result is one element: of all counts."""
_ARITHMETIC = {"aten.add": operator.add, "aten.sub": operator.sub, "aten.mul": operator.mul}
MOST_CLASSES = 4096
"""Of longer tensors the sum alone is remembered: they list choices, not classes."""


class Dealt:
    """Remembers sums of elements, by memory, so that views know them too; of one axis the elements themselves."""

    def __init__(self, policy: DataPolicy, chosen: Callable[[Tensor], int | None]) -> None:
        """`chosen`: how many elements of a mask are true, as its making tells."""
        self._policy = policy
        self._chosen = chosen
        self._totals: dict[int, int] = {}
        self._values: dict[int, Sequence[int]] = {}
        self._truths: dict[int, bool] = {}
        self._kept: list[Tensor] = []  # else another tensor gets the memory, and what is known of it

    def put(self, tensor: Tensor, total: int) -> None:
        """A new tensor's elements sum up to `total`."""
        count = tensor.numel()
        if 0 < count <= MOST_CLASSES and count == max(tensor.shape, default=1):
            self._put_values(tensor, self._deal(total, count))
        else:
            self._totals[memory_of(tensor)] = total
            self._kept.append(tensor)

    def _put_values(self, tensor: Tensor, values: Sequence[int]) -> None:
        self._values[memory_of(tensor)] = values
        self._kept.append(tensor)

    def _forget(self, tensor: Tensor) -> None:
        for table in (self._totals, self._values, self._truths):
            table.pop(memory_of(tensor), None)

    def scattered(self, name: str, args: tuple) -> bool:
        """Whether the call puts something into zeros where indices say."""
        return name in _ADDED and self.total(args[0]) == 0

    def learn(self, name: str, args: tuple, kwargs: dict, outputs: Sequence[Tensor], *, writes: bool) -> None:
        """One ATen call; `writes`: into memory that was there before."""
        sources, out = list(tensors_in((args, kwargs))), outputs[0 if name in _EXTREMES else -1]
        total = self.total(sources[0]) if sources and name in _ADDED | _CARRY else None
        if writes:
            for tensor in outputs:
                self._forget(tensor)
        if name in _ADDED:
            added = self._added(args, kwargs, sources)
            if total is not None and added is not None and _is_whole(out):
                self.put(out, total + added)
        elif writes:
            return
        elif name in _ZEROS:
            self.put(out, 0)
        elif name in _ONES:
            self.put(out, out.numel())
        elif name == "aten.histc":
            self.put(out, sources[0].numel())
        elif sources and (values := self.values(sources[0])) is not None:
            self._learn_values(name, values, args, sources, out)
        elif name in _CARRY and total is not None:
            self.put(out, total)

    def _learn_values(self, name: str, values: list[int], args: tuple, sources: Sequence[Tensor], out: Tensor) -> None:
        if name in _COMPARED:
            if len(values) == 1 and isinstance(args[1], int | float):
                self._truths[memory_of(out)] = _COMPARED[name](values[0], args[1])
                self._kept.append(out)
        elif name == "aten.sum":
            self.put(out, sum(values))
        elif name in _EXTREMES and out.numel() == 1 == len(sources):
            self._put_values(out, [_EXTREMES[name](values)])
        elif (made := self._made(name, values, args, sources)) is not None and len(made) == out.numel():
            self._put_values(out, made)

    def _made(self, name: str, values: list[int], args: tuple, sources: Sequence[Tensor]) -> list[int] | None:
        """The elements of what plain arithmetic makes of counts: starts and ends, a zero before them."""
        if name in _CARRY:
            return values
        if name == "aten.cumsum":
            return list(accumulate(values))
        if name == "aten.cat":
            parts = [self.values(part) for part in sources]
            return None if None in parts else [value for part in parts for value in part or ()]
        if name == "aten.constant_pad_nd":
            (before, after), filling = args[1], int(args[2]) if len(args) > 2 else 0
            return [filling] * before + values + [filling] * after if min(before, after) >= 0 else None
        if name in _ARITHMETIC and len(args) == 2:
            other = self.values(args[1]) if isinstance(args[1], Tensor) else [args[1]]
            if isinstance(args[0], Tensor) and other is not None and len(other) in (1, len(values)):
                pairs = zip(values, other * (len(values) // len(other)), strict=True)
                return [int(_ARITHMETIC[name](*pair)) for pair in pairs]
        return None

    def _added(self, args: tuple, kwargs: dict, sources: list[Tensor]) -> int | None:
        """Sum of what a scatter adds: a number for each index, or a tensor of a known sum."""
        value = args[3] if len(args) > 3 else kwargs.get("value", kwargs.get("src"))
        if isinstance(value, Tensor):
            return self.total(value)
        return int(value) * sources[1].numel() if isinstance(value, int | float) else None

    def truth(self, tensor: Tensor) -> bool | None:
        """The answer of a comparison of one such count with a number."""
        return self._truths.get(memory_of(tensor))

    def total(self, tensor: Tensor) -> int | None:
        """What the elements of a tensor sum up to; of a mask, or a part of one, how many are true."""
        memory, total = memory_of(tensor), None
        if not _is_whole(tensor):
            values = self.values(tensor)
            total = None if values is None else sum(values)
        elif memory in self._values:
            total = sum(self._values[memory])
        else:
            total = self._totals.get(memory)
        if total is None:
            total = self._chosen(tensor)
        if total is None and tensor.dtype is torch.bool:
            total = self._policy.count(tensor.numel(), None, "")
        return total

    def values(self, tensor: Tensor) -> list[int] | None:
        """The elements of a tensor of one axis or of one element, in whole numbers; None where unknown."""
        known = self._values.get(memory_of(tensor))
        if known is None or tensor.dim() > 1 or len(known) != _places(tensor):
            return None
        step, first = tensor.stride(0) if tensor.dim() else 1, tensor.storage_offset()
        return [known[first + step * i] for i in range(tensor.numel())]

    def _deal(self, total: int, classes: int) -> Sequence[int]:
        if total % classes == 0 and not self._policy.shares:
            return (total // classes,) * classes
        spans: list[Any] = [self._policy.share(classes, which) for which in range(classes)]
        return [int(total * last + ROUNDING) - int(total * first + ROUNDING) for first, last in spans]


def _is_whole(tensor: Tensor) -> bool:
    """Whether it has each element of its memory."""
    return tensor.numel() == _places(tensor)


def _places(tensor: Tensor) -> int:
    """Elements of its type that its memory holds."""
    return tensor.untyped_storage().nbytes() // tensor.element_size()
