"""Answers that hold for all sane data: its numbers are finite, so that no guard against NaN or infinity strikes.

Models ask (`if torch.isnan(x).any(): raise`, `assert x.isfinite().all()`), and the worst case of another question would
end the run.
"""

from __future__ import annotations

import math
import operator

from torch import Tensor

from sim.workload.trace.choices import memory_of
from sim.workload.trace.rules.registry import tensors_in

_NEVER = {"aten.isnan", "aten.isinf", "aten.isneginf", "aten.isposinf"}
_ALIKE = {"aten.any", "aten.all", "aten.max", "aten.amax", "aten.min", "aten.amin", "aten.clone", "aten.select"}
_NOT = {"aten.logical_not", "aten.bitwise_not"}
_OR = {"aten.logical_or", "aten.bitwise_or", "aten.__or__"}
_AND = {"aten.logical_and", "aten.bitwise_and", "aten.__and__", "aten.mul"}
_COMPARED = {f"aten.{op.__name__}": op for op in (operator.eq, operator.ne, operator.gt, operator.ge, operator.lt)}


class Sure:
    """Masks, by memory, that are false, or true, everywhere; a sum of what is false everywhere is 0."""

    def __init__(self) -> None:
        self._truths: dict[int, bool] = {}
        self._kept: list[Tensor] = []  # else another tensor gets the memory, and what is known of it

    def put(self, mask: Tensor, truth: bool | None) -> None:
        if truth is not None:
            self._truths[memory_of(mask)] = truth
            self._kept.append(mask)

    def truth(self, mask: Tensor) -> bool | None:
        """What all its elements are; None where its making does not tell."""
        return self._truths.get(memory_of(mask))

    def learn(self, name: str, args: tuple, outputs: tuple, *, writes: bool) -> None:
        """One ATen call; `writes`: into memory that was there before."""
        if writes:
            for tensor in outputs:
                self._truths.pop(memory_of(tensor), None)
        elif name in _NEVER:
            self.put(outputs[0], False)
        elif name in ("aten.ne", "aten.eq") and args[0] is args[1]:  # x != x asks for NaN
            self.put(outputs[0], name == "aten.eq")
        elif name in ("aten.ne", "aten.eq") and isinstance(args[1], float) and args[1] == math.inf:
            self.put(outputs[0], name == "aten.ne")
        elif self._truths:
            self.put(outputs[0], self._made(name, args))

    def _made(self, name: str, args: tuple) -> bool | None:
        found = [self.truth(tensor) for tensor in tensors_in(args)]
        if not found or found.count(None) == len(found):
            return None
        if name in _OR | _AND:
            decides = name in _OR
            return decides if decides in found else None if None in found else not decides
        if name in _NOT:
            return not found[0]
        if name in _COMPARED and found == [False] and isinstance(args[1], int | float):
            return bool(_COMPARED[name](0, args[1]))
        return found[0] if name in _ALIKE or (name == "aten.sum" and found == [False]) else None
