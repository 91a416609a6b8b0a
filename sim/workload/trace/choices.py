"""What is known of masks and indices without data: which experts a model chose, whatever view of the choice it asks."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from sim.workload.trace.policy import DataPolicy, Span
from sim.workload.trace.rules.registry import tensors_in

_PLACES = {"aten.topk", "aten.argmax", "aten.argmin", "aten.argsort", "aten.sort"}
"""Ops whose (last) result are places along an axis of their input."""
_AMONG_ALL = {"aten.argmax", "aten.argmin"}
"""Of these, those that without an axis tell the place among all elements."""
_NUMBERS = {"aten.arange", "aten.remainder"}
"""Ops whose result is whole numbers below one of their arguments."""
_FILLED = {"aten.full", "aten.full_like"}
_JOINED = {"aten.cat", "aten.stack"}
_EXTREMES = {"aten.max", "aten.min"}
"""Of these only the forms with places beside the values: others give values alone."""
_CARRY = {"aten.index", "aten.select", "aten.gather", "aten.index_select"}
"""Ops whose result is as dense, or ranges over as many values, as their first input."""
_COPY = {"aten.clone", "aten._to_copy"}
"""Of these, those whose result has the same elements at the same places."""
_ANY = {"aten.any", "aten.sum"}
"""Of a mask of choices: who chose at all, how many did. Choices of one token differ, so none counts twice."""
_COMPARE = {"aten.eq", "aten.ne", "aten.gt", "aten.ge", "aten.lt", "aten.le"}


@dataclass(frozen=True, slots=True)
class OneHot:
    """Of a memory: the class of an element is its place / `stride`, modulo `classes`."""

    classes: int
    stride: int = 1
    times: float = 1.0
    """Elements that `any`, `sum` or a scatter made one of."""

    def which(self, view: Tensor) -> int | None:
        """The one class of all elements of a view; None where they are of several."""
        within = view.storage_offset() % self.stride
        for size, stride in zip(view.shape, view.stride(), strict=True):
            if stride % (self.classes * self.stride):
                within += (size - 1) * stride
        return view.storage_offset() // self.stride % self.classes if within < self.stride else None

    def axis(self, view: Tensor) -> int | None:
        """The axis along which a view has the classes, all of them in order; None where it has none."""
        if view.storage_offset() // self.stride % self.classes:
            return None
        found = zip(view.shape, view.stride(), strict=True)
        return next((i for i, one in enumerate(found) if one == (self.classes, self.stride)), None)

    def copied(self, view: Tensor, out: Tensor) -> OneHot | None:
        """Of a result with an element for each of a view; None where that has not all classes."""
        at = self.axis(view)
        return None if at is None or view.shape != out.shape else replace(self, stride=out.stride(at))

    def reduced(self, view: Tensor, out: Tensor, axes: tuple[int, ...]) -> OneHot | None:
        """Of `any` or `sum` of a view over some axes; None where the classes are among them (no axis: all are)."""
        at, gone = self.axis(view), {axis % view.dim() for axis in axes}
        if at is None or not gone or at in gone:
            return None
        if out.dim() < view.dim():
            at -= sum(axis < at for axis in gone)
        return replace(self, stride=out.stride(at), times=self.times * view.numel() / max(out.numel(), 1))


class Choices:
    """By memory, so that views know it too: one-hot masks, how dense others are, what indices range over, which number
    fills them, and which classes a list of them has."""

    def __init__(self, policy: DataPolicy) -> None:
        self._policy = policy
        self._one_hot: dict[int, OneHot] = {}
        self._density: dict[int, float | Span] = {}
        self._levels: dict[int, int] = {}
        self._filled: dict[int, int] = {}
        self._met: dict[int, list[int]] = {}
        self._truth: dict[int, bool] = {}
        self._kept: list[Tensor] = []  # else another tensor gets the memory, and what is known of it

    def learn(self, name: str, args: tuple, kwargs: dict, outputs: tuple) -> None:
        """What an ATen op's result inherits."""
        source, out = next(tensors_in(args), None), outputs[-1]
        if name in _NUMBERS:
            self._put(self._levels, out, _numbers(args))
        elif name in _FILLED and isinstance(args[1], int) and not out.is_floating_point():
            self._put(self._filled, out, args[1])
        elif name in _JOINED:
            self._put(self._levels, out, self._joined(args[0]))
        if source is None or memory_of(source) == memory_of(out):
            return
        levels = self._levels.get(memory_of(source))
        if name in _PLACES or (name in _EXTREMES and len(outputs) == 2):
            self._put(self._levels, out, _places(name, source, args, kwargs))
        elif name in _CARRY | _COPY:
            self._put(self._levels, out, levels)
            self._carry(source, out, self._indexed(*args[:2]) if name == "aten.index" else None, name in _COPY)
        elif name in _ANY:
            self._reduce(source, out, args[1] if len(args) > 1 else kwargs.get("dim"))
        elif name in _COMPARE and (one := self.value(source)) is not None and isinstance(args[1], int):
            self._put(self._truth, out, getattr(operator, name.removeprefix("aten."))(one, args[1]))
        elif name == "aten.eq" and levels is not None and source.shape[-1:] == (1,) and out.shape[-1:] == (levels,):
            self.mark(out, levels)  # compared with all classes in order
        elif name == "aten.eq" and levels is not None:
            self._put(self._density, out, self._policy.share(levels, self.value(args[1])))
        elif name in _COMPARE:
            self._compared(source, out, getattr(operator, name.removeprefix("aten.")), args[1])

    def wrote(self, tensor: Tensor) -> None:
        """No number fills it any more."""
        self._filled.pop(memory_of(tensor), None)

    def mark(self, one_hot: Tensor, classes: int) -> None:
        """A new one-hot result, its classes along the last axis."""
        self._put(self._one_hot, one_hot, OneHot(classes, stride=one_hot.stride(-1)))

    def mark_scattered(self, mask: Tensor, axis: int, index: Tensor) -> None:
        """Zeros with something at the classes along an axis that indices say: several of one token are in one row."""
        if mask.dim() > 1 and mask.shape[axis] == self.levels(index):
            times = float(index.shape[axis])
            self._put(self._one_hot, mask, OneHot(mask.shape[axis], stride=mask.stride(axis), times=times))

    def share(self, mask: Tensor) -> float | Span | None:
        """Share of its elements that are true; None where its making does not tell."""
        hot = self._one_hot.get(memory_of(mask))
        return self._density.get(memory_of(mask)) if hot is None else self._of_class(hot, hot.which(mask))

    def chosen(self, mask: Tensor) -> int | None:
        """How many of its elements are true; None where its making does not tell."""
        share = self.share(mask)
        return None if share is None else self._policy.count(mask.numel(), share, "")

    def levels(self, index: Tensor) -> int | None:
        """How many values indices range over."""
        return self._levels.get(memory_of(index))

    def met(self, mask: Tensor) -> list[int] | None:
        """Places that are true in a mask with one element a class: the classes that are chosen at all."""
        hot = self._one_hot.get(memory_of(mask))
        if hot is None or mask.dim() != 1 or hot.axis(mask) != 0:
            return None
        return [one for one in range(hot.classes) if self._policy.count(1, self._of_class(hot, one), "")]

    def distinct(self, index: Tensor) -> list[int] | None:
        """The values of indices that range over classes."""
        levels = self.levels(index)
        if levels is None:
            return None
        shares = [self._policy.share(levels, one) for one in range(levels)]
        return [one for one, share in enumerate(shares) if self._policy.count(index.numel(), share, "")]

    def mark_met(self, places: Tensor, met: list[int]) -> None:
        """A list of classes, as `met` or `distinct` told it."""
        self._put(self._met, places, met)

    def listed(self, classes: Tensor) -> list[int] | None:
        """Such a list, by place in memory."""
        return self._met.get(memory_of(classes))

    def value(self, one: object) -> int | None:
        """A class, as a number or an element of a list of them."""
        if isinstance(one, Tensor):
            met = self._met.get(memory_of(one))
            return met[one.storage_offset()] if met and one.numel() == 1 else None
        return one if isinstance(one, int) else None

    def truth(self, one: Tensor) -> bool | None:
        """How a comparison of such an element came out."""
        return self._truth.get(memory_of(one))

    def _joined(self, parts: Sequence[Tensor]) -> int | None:
        """How many values several lists range over: each over as many as is known, or up to its own one number; a
        number below 0 is none of them, such as that of what is left out."""
        found = [self._filled[m] + 1 if (m := memory_of(one)) in self._filled else self.levels(one) for one in parts]
        known = [levels for levels in found if levels is not None]
        return max(known) if len(known) == len(found) and max(known, default=0) > 0 else None

    def _put(self, table: dict[int, Any], tensor: Tensor, known: Any) -> None:
        if known is not None:
            table[memory_of(tensor)] = known
            self._kept.append(tensor)

    def _of_class(self, hot: OneHot, which: int | None) -> float | Span:
        return _scaled(self._policy.share(hot.classes, which), hot.times)

    def _carry(self, source: Tensor, out: Tensor, share: float | Span | None, same_places: bool) -> None:
        hot = self._one_hot.get(memory_of(source))
        copied = hot.copied(source, out) if hot and same_places else None
        self._put(self._one_hot, out, copied)
        if copied is None:
            self._put(self._density, out, self.share(source) if share is None else share)

    def _compared(self, source: Tensor, out: Tensor, compare: Callable[[Any, Any], Any], with_: object) -> None:
        """A mask compared with a number: as dense as it is, unless what is not chosen, 0, comes out true."""
        if not (isinstance(with_, int | float) and compare(0, with_)):
            self._carry(source, out, None, True)
        elif (share := self.share(source)) is not None:
            chosen = share[1] - share[0] if isinstance(share, tuple) else share
            self._put(self._density, out, 1.0 if compare(1, with_) else max(0.0, 1.0 - chosen))

    def _reduce(self, source: Tensor, out: Tensor, axes: Any) -> None:
        hot, share = self._one_hot.get(memory_of(source)), self.share(source)
        over = () if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
        reduced = hot.reduced(source, out, over) if hot else None
        self._put(self._one_hot, out, reduced)
        if reduced is None and share is not None:
            self._put(self._density, out, _scaled(share, source.numel() / max(out.numel(), 1)))

    def _indexed(self, mask: Tensor, indices: Any) -> float | Span | None:
        """Share of hot[i], where i is an element of a list of classes."""
        hot, which = self._one_hot.get(memory_of(mask)), self.value(indices[0]) if len(indices) == 1 else None
        return None if hot is None or which is None or hot.axis(mask) != 0 else self._of_class(hot, which)


def _numbers(args: tuple) -> int | None:
    """How many whole numbers from 0 on there are, of the arguments of arange or of x % n; None of other numbers."""
    end = args[0] if len(args) == 1 else args[1]
    from_zero = isinstance(args[0], Tensor) or len(args) == 1 or (args[0] == 0 and args[2:3] in ((), (1,)))
    whole = isinstance(end, int) and not (isinstance(args[0], Tensor) and args[0].is_floating_point())
    return end if from_zero and whole and end > 0 else None


def _places(name: str, source: Tensor, args: tuple, kwargs: dict) -> int | None:
    """How many places there are: along an axis (the last, if none is given), or among all elements."""
    at = 2 if name == "aten.topk" else 1
    dim = args[at] if len(args) > at else kwargs.get("dim")
    if not source.dim() or (dim is None and name in _AMONG_ALL):
        return source.numel()
    return source.shape[dim if isinstance(dim, int) and not isinstance(dim, bool) else -1]


def _scaled(known: float | Span, by: float) -> float | Span:
    return (known[0] * by, known[1] * by) if isinstance(known, tuple) else min(known * by, 1.0)


def memory_of(tensor: Tensor) -> int:
    """A number of the memory that a tensor and its views share."""
    return tensor.untyped_storage()._cdata
