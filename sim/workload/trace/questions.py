"""Questions about data during a run without data: recognised here, answered by the policy."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sim.errors import TraceError
from sim.workload.trace.builder import GraphBuilder
from sim.workload.trace.choices import Choices, memory_of
from sim.workload.trace.dealt import Dealt
from sim.workload.trace.loops import Loops
from sim.workload.trace.policy import DataPolicy
from sim.workload.trace.source import user_line
from sim.workload.trace.sure import Sure

_SCALARS = {
    Tensor.__bool__: bool,
    Tensor.__int__: int,
    Tensor.__index__: int,
    Tensor.__float__: float,
    Tensor.item: None,
    Tensor.is_nonzero: bool,
}
_NO_ANSWER = {Tensor.numpy, Tensor.__array__}
_NONZERO = {torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere}
_MASKED = {torch.masked_select, Tensor.masked_select}
_UNIQUE = {torch.unique, Tensor.unique, torch.unique_consecutive, Tensor.unique_consecutive}
_BINCOUNT = {torch.bincount, Tensor.bincount}
_REPEATS = (torch.repeat_interleave, Tensor.repeat_interleave)
_CLOSE = {torch.allclose, Tensor.allclose, torch.equal, Tensor.equal}


class Questions:
    """Answers from what is known of masks and indices, and asks the policy for the rest."""

    def __init__(self, builder: GraphBuilder, policy: DataPolicy) -> None:
        self._builder = builder
        self._policy = policy
        self._choices = Choices(policy)
        self._loops = Loops()
        self._dealt = Dealt(policy, self._choices.chosen)
        self._held: dict[int, tuple[Tensor, Tensor]] = {}
        self._lost: list[Tensor] = []
        self._sure = Sure()
        self._made: dict[Any, Callable[..., object]] = {
            F_ONE_HOT: self._one_hot,
            **dict.fromkeys(_REPEATS, self._repeat),
        }
        self._last: tuple[str, bool, int] | None = None
        self.kept_none = False
        """A mask kept nothing, or a list of choices left some out: what works on those is not in the graph."""

    def learn(self, name: str, args: tuple, kwargs: dict, outputs: tuple, *, writes: bool) -> None:
        """What the results of an ATen call inherit; `writes`: into memory that was there before."""
        self._choices.learn(name, args, kwargs, outputs)
        if self._dealt.scattered(name, args):
            self._choices.mark_scattered(outputs[-1], args[1], args[2])
        self._dealt.learn(name, args, kwargs, outputs, writes=writes)
        self._sure.learn(name, args, outputs, writes=writes)
        for tensor in outputs if writes else ():
            self._choices.wrote(tensor)
            number, _ = self._held.pop(memory_of(tensor), (None, None))
            self._lost += [number] if number is not None else []

    def hold(self, twin: Tensor, number: Tensor) -> None:
        """A meta tensor stands for a number that the model holds: it is known where one is asked for, as a stride."""
        self._held[memory_of(twin)] = (number, twin)

    def lost(self, found: Collection[Tensor]) -> bool:
        """Whether one of them was such a number, and data was written into it."""
        return any(tensor is number for number in self._lost for tensor in found)

    def answer(self, func: Any, args: tuple, kwargs: dict, recorder: Any) -> object:
        """The policy's answer, or NotImplemented when `func` asks nothing about data."""
        if func in _SCALARS:
            return self.scalar(_SCALARS[func], args[0])
        if func is Tensor.tolist:
            return self._list(args[0])
        if func in _NO_ANSWER:
            if args[0].dim() == 1 and self._dealt.values(args[0]) is not None:
                return np.array(self._list(args[0]))
            raise TraceError(f"{user_line()}: the model turns a tensor into an array; a run without data has no values")
        if func in _NONZERO:
            return self._nonzero(args[0], kwargs.get("as_tuple", False), recorder)
        if func is torch.where and len(args) == 1 and not kwargs:
            return self._nonzero(args[0], True, recorder)
        if func in _MASKED:
            return self._select(args[0], args[1], recorder)
        if func is Tensor.__getitem__:
            return self._getitem(args[0], args[1], recorder)
        if func in _UNIQUE:
            return self._unique(recorder, *args, **kwargs)
        if func in _BINCOUNT:
            return self._bincount(recorder, *args, **kwargs)
        if func in _CLOSE:
            return self.scalar(bool, args[0])
        if func is torch._nested_tensor_from_mask_left_aligned:
            self._builder.notes[f"{user_line()}: padded tokens are worked on as the others are"] = None
            return False
        made = self._made.get(func)
        return NotImplemented if made is None else made(recorder, func, *args, **kwargs)

    def _note(self, question: str, value: object, place: str = "") -> None:
        self._builder.notes[f"{place or user_line()}: {question} assumed to be {value}"] = None

    def _stated(self) -> bool:
        """Whether the user answers for this line: that goes before all that is known."""
        return user_line() in self._policy.at

    def scalar(self, kind: type | None, tensor: Tensor) -> int | float | bool:
        """The policy's value of a one-element tensor; `kind` None: as its element type says."""
        if kind is None:
            kind = bool if tensor.dtype is torch.bool else float if tensor.dtype.is_floating_point else int
        known = self._choices.truth(tensor) if kind is bool else self._choices.value(tensor) if kind is int else None
        if kind is int and memory_of(tensor) in self._held:
            known = int(self._held[memory_of(tensor)][0])  # as it is by now
        if known is None and (sure := self._finite(tensor)) is not None and (kind is bool or not sure):
            known = kind(sure)
        if known is not None and not self._stated():
            return known
        if kind is bool and (loop := self._loops.asked()):
            return self._goes_on(*loop)
        counted = self._dealt.truth(tensor) if kind is bool and not self._stated() else None
        if counted is not None:
            self._note("comparison of a count with a number", counted)
        if counted is None and tensor.numel() == 1 and (found := self._counted(tensor)):
            counted = kind(found[0])
        if counted is not None:
            return counted
        value = self._policy.scalar(kind, user_line())
        self._note(f"{kind.__name__} of a tensor", value)
        if isinstance(value, bool):
            self._last = (user_line(), value, len(self._builder.ops))
        return value

    def blamed(self) -> str:
        """What to do where the model raised right behind an answer about data, as its checks do."""
        if self._last is None or self._last[2] != len(self._builder.ops):
            return ""
        line, value, _ = self._last
        return (
            f"; behind a question about data, which was answered {value}: if the data say otherwise, answer "
            f'POLICY = DataPolicy(at={{"{line}": {not value}}})'
        )

    def _finite(self, mask: Tensor) -> bool | None:
        """What all elements of a mask are where data are finite; None where that does not tell."""
        found = self._sure.truth(mask)
        if found is not None and self._stated():
            return None
        if found is not None:
            self._builder.notes[f"{user_line()}: data assumed to be finite"] = None
        return found

    def _goes_on(self, rounds: int, negated: bool) -> bool:
        """The condition of a `while`: true (false behind `not`) for as many rounds as `number` says."""
        limit = int(self._policy.scalar(int, user_line()))
        self._note("rounds of a loop", limit)
        if rounds >= limit:
            self._loops.over()
        return (rounds < limit) is not negated

    def steps(self, most: int) -> int:
        """Steps of each sequence of a packed batch."""
        count = self._policy.count(most, None, user_line())
        self._note(f"steps of each packed sequence, of at most {most},", count)
        return count

    def rounds(self, condition: Tensor) -> int:
        """How often a loop with this condition runs."""
        count = int(self._policy.scalar(int, user_line()))
        self._note("rounds of a loop", count)
        return count

    def size(self, most: int, place: str) -> int:
        """Length of a custom op's result, of at most `most` (boxes that survive NMS), called at `place`."""
        count = self._policy.count(most, None, place)
        self._note(f"results of an op, of at most {most},", count, place)
        return count

    def _counted(self, tensor: Tensor) -> list[int] | None:
        """Counts of which the sum is known, dealt out to the classes; None of anything else, or where the user answers
        otherwise."""
        found = None if self._stated() else self._dealt.values(tensor)
        if found:
            told = str(found[0]) if len(set(found)) == 1 else f"between {min(found)} and {max(found)}"
            self._note("choices of a class or true elements of a mask, of a known sum,", told)
        return found

    def _list(self, tensor: Tensor) -> object:
        """Nested lists of the scalar answer, in the tensor's shape; counts of a known sum as they are dealt out."""
        if tensor.dim() == 0:
            return self.scalar(None, tensor)
        if tensor.dim() == 1 and (found := self._counted(tensor)) is not None:
            return found
        known, strides = None if self._stated() else self._choices.listed(tensor), tensor.stride()
        value = None if known else self.scalar(None, tensor.new_empty(()))

        def nested(axis: int, place: int) -> Any:
            if axis == tensor.dim():
                return known[place] if known else value
            return [nested(axis + 1, place + i * strides[axis]) for i in range(tensor.shape[axis])]

        return nested(0, tensor.storage_offset())

    def _count(self, mask: Tensor) -> int:
        sure = self._finite(mask)
        if sure is not None:
            return self._kept(mask, mask.numel() if sure else 0)
        return self._kept(mask, self._policy.count(mask.numel(), self._choices.share(mask), user_line()))

    def _kept(self, mask: Tensor, count: int) -> int:
        self._note(f"true elements of a mask of {mask.numel()}", count)
        self.kept_none |= count == 0
        return count

    def _met(self, known: list[int] | None, classes: int) -> list[int] | None:
        """Classes that are chosen at all, where the user does not answer otherwise."""
        if known is None or self._stated():
            return None
        self.kept_none |= len(known) < classes
        return known

    def _nonzero(self, mask: Tensor, as_tuple: bool, recorder: Any) -> Any:
        met, axes = self._met(self._choices.met(mask), mask.numel()), mask.dim()
        count = self._count(mask) if met is None else self._kept(mask, len(met))
        with recorder.dispatch.paused():
            parts = tuple(torch.empty(count, dtype=torch.int64, device="meta") for _ in range(axes))
            whole = torch.empty((count, axes), dtype=torch.int64, device="meta")
        outputs = parts if as_tuple else (whole,)
        if met is not None:
            self._choices.mark_met(outputs[0], met)
        recorder.record("aten.nonzero", (mask,), {}, outputs)
        return parts if as_tuple else whole

    def _unique(
        self,
        recorder: Any,
        x: Tensor,
        sorted: bool = True,  # noqa: A002 (torch's own name)
        return_inverse: bool = False,
        return_counts: bool = False,
        dim: int | None = None,
    ) -> Any:
        """Distinct elements (or slices along `dim`): as many as a mask of their number keeps."""
        total = x.numel() if dim is None else x.shape[dim]
        met = self._met(self._choices.distinct(x), self._choices.levels(x) or 0) if dim is None else None
        count = self._policy.count(total, None, user_line()) if met is None else len(met)
        self._note(f"distinct elements of {total}", count)
        with recorder.dispatch.paused():
            shape = (count,) if dim is None else (*x.shape[:dim], count, *x.shape[dim % x.dim() + 1 :])
            whole = x.shape if dim is None else (total,)
            found = [x.new_empty(shape)]
            found += [x.new_empty(whole, dtype=torch.int64)] if return_inverse else []
            found += [x.new_empty((count,), dtype=torch.int64)] if return_counts else []
        if met is not None:
            self._choices.mark_met(found[0], met)
        if return_counts:
            self._dealt.put(found[-1], total)
        recorder.record("aten._unique2", (x,), {}, tuple(found))
        return found[0] if len(found) == 1 else tuple(found)

    def _bincount(self, recorder: Any, x: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        """Bins: `minlength`, or as many as the indices are known to range over, or one an element."""
        bins = minlength or int(self._choices.levels(x) or x.numel())
        self._note("bins of a bincount", bins)
        with recorder.dispatch.paused():
            out = torch.empty(bins, dtype=weights.dtype if weights is not None else torch.int64, device="meta")
        recorder.record("aten.bincount", (x,) if weights is None else (x, weights), {}, (out,))
        if weights is None:
            self._dealt.put(out, x.numel())
        return out

    def _select(self, tensor: Tensor, mask: Tensor, recorder: Any) -> Tensor:
        count = self._count(mask)
        with recorder.dispatch.paused():
            out = tensor.new_empty((count, *tensor.shape[mask.dim() :]))
        recorder.record("aten.masked_select", (tensor, mask), {}, (out,))
        return out

    def _getitem(self, tensor: Tensor, index: object, recorder: Any) -> object:
        """x[mask]: boolean masks inside a longer index become positions first."""
        if isinstance(index, Tensor) and index.dtype is torch.bool and index.dim():
            return self._select(tensor, index, recorder)
        if isinstance(index, tuple) and any(isinstance(i, Tensor) and i.dtype is torch.bool for i in index):
            flat: list[object] = []
            for i in index:
                if isinstance(i, Tensor) and i.dtype is torch.bool:
                    flat.extend(self._nonzero(i, True, recorder))
                else:
                    flat.append(i)
            return tensor[tuple(flat)]
        return NotImplemented

    def _repeat(
        self,
        recorder: Any,
        func: Any,
        x: Tensor,
        repeats: Any = None,
        dim: int | None = None,
        *,
        output_size: int | None = None,
    ) -> object:
        """How often each element (or slice along `dim`) comes; of a list of such numbers alone: its places."""
        times = x if repeats is None else repeats
        if output_size is not None or not isinstance(times, Tensor):
            return NotImplemented
        if repeats is not None and memory_of(times) in self._held:
            return func(x, int(self.scalar(int, times)), dim=dim)
        total = self._dealt.total(times)
        if total is None:
            count = x.numel() if dim is None else x.shape[dim]
            total = count * int(self._policy.scalar(int, user_line()))
        self._note("elements after a repetition, in sum,", total)
        return func(*(x,) if repeats is None else (x, repeats, dim), output_size=total)

    def _one_hot(self, recorder: Any, func: Any, index: Tensor, num_classes: Any = -1) -> Tensor:
        classes = int(self.scalar(int, num_classes)) if isinstance(num_classes, Tensor) else num_classes
        if classes < 0:
            classes = self._choices.levels(index) or -1
            if classes < 0:
                raise TraceError(f"{user_line()}: one_hot needs num_classes when the model is traced without data")
        with recorder.dispatch.paused():
            out = torch.empty((*index.shape, classes), dtype=torch.int64, device="meta")
        recorder.record("aten.one_hot", (index,), {}, (out,))
        self._choices.mark(out, classes)
        self._dealt.put(out, index.numel())
        return out


F_ONE_HOT = torch.nn.functional.one_hot
