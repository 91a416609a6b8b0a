"""How many choices fell on each class: counts that a run without data knows in sum.

A mixture of experts counts its choices (`bincount`, `histc`, a one-hot's sum, ones scattered into zeros) and turns the
counts into numbers: the lengths of its slices. Of the values only their sum is known; the policy's shares deal it out.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class _Counts:
    """Elements of one memory object: what they sum up to, how many they are, whether each includes those before."""

    total: int
    classes: int
    running: bool = False


class Dealt:
    """Remembers sums of elements, by storage, so that views know them too."""

    def __init__(self, policy: DataPolicy) -> None:
        self._policy = policy
        self._counts: dict[int, _Counts] = {}
        self._truths: dict[int, bool] = {}
        self._kept: list[Tensor] = []  # else another tensor gets the memory, and what is known of it

    def put(self, tensor: Tensor, total: int) -> None:
        self._know(tensor, _Counts(total, tensor.numel()))

    def _know(self, tensor: Tensor, counts: _Counts) -> None:
        self._counts[memory_of(tensor)] = counts
        self._kept.append(tensor)

    def learn(self, name: str, args: tuple, kwargs: dict, out: Tensor) -> None:
        """One ATen call."""
        sources = list(tensors_in((args, kwargs)))
        known = self._counts.get(memory_of(sources[0])) if sources else None
        if name in _ZEROS:
            self.put(out, 0)
        elif name in _ONES:
            self.put(out, out.numel())
        elif name == "aten.histc":
            self.put(out, sources[0].numel())
        elif known is None:
            return
        elif name in _COMPARED:
            found = self.values(sources[0])
            if found is not None and len(found) == 1 and isinstance(args[1], int | float):
                self._truths[memory_of(out)] = _COMPARED[name](found[0], args[1])
                self._kept.append(out)
        elif name in _ADDED:
            added = self._added(name, args, kwargs, sources)
            if added is None:
                self._counts.pop(memory_of(out), None)
            else:
                self.put(out, known.total + added)
        elif name == "aten.cumsum" and out.dim() == 1 and not known.running:
            self._know(out, _Counts(known.total, known.classes, running=True))
        elif name in _CARRY:
            self._know(out, _Counts(known.total, out.numel(), known.running and name != "aten.sum"))
        elif name.endswith("_"):
            self._counts.pop(memory_of(out), None)

    def _added(self, name: str, args: tuple, kwargs: dict, sources: list[Tensor]) -> int | None:
        """Sum of what a scatter adds to zeros: a number for each index, or a tensor of a known sum."""
        value = args[3] if len(args) > 3 else kwargs.get("value", kwargs.get("src"))
        if isinstance(value, Tensor):
            found = self._counts.get(memory_of(value))
            return found.total if found else None
        return int(value) * sources[1].numel() if isinstance(value, int | float) else None

    def truth(self, tensor: Tensor) -> bool | None:
        """The answer of a comparison of one such count with a number."""
        return self._truths.get(memory_of(tensor))

    def values(self, tensor: Tensor) -> list[int] | None:
        """The elements of a tensor of one axis or of one element, dealt out in whole numbers; None where unknown."""
        counts = self._counts.get(memory_of(tensor))
        if counts is None or tensor.dim() > 1 or _elements(tensor) != counts.classes:
            return None
        step = tensor.stride(0) if tensor.dim() else 1
        first = tensor.storage_offset()
        return [self._value(counts, first + step * i) for i in range(tensor.numel())]

    def _value(self, counts: _Counts, which: int) -> int:
        if counts.total == counts.classes * (counts.total // max(counts.classes, 1)) and not self._policy.shares:
            each = counts.total // counts.classes
            return each * (which + 1) if counts.running else each
        span: Any = self._policy.share(counts.classes, which)
        first, last = (int(counts.total * edge + ROUNDING) for edge in span)
        return last if counts.running else last - first


def _elements(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()
