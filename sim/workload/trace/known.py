"""Values that a run without data knows all the same: masks and positions made of constants only.

What `arange`, `ones`, comparisons and the like make without any input or weight is the same for all
data. Such calls are remembered, not computed; when attention gets a mask made of them, the mask is
computed and its form read off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sim.workload.trace.rules.registry import tensors_in

LARGEST_ELEMENTS = 1 << 25
"""Larger masks are not computed (8,192 tokens squared would be twice this)."""

_SOURCES = {"aten.arange", "aten.ones", "aten.zeros", "aten.full", "aten.scalar_tensor", "aten.new_ones"}
_SOURCES |= {"aten.new_zeros", "aten.new_full", "aten.zeros_like", "aten.ones_like", "aten.full_like"}
_STEPS = {"add", "sub", "rsub", "mul", "lt", "le", "gt", "ge", "eq", "ne", "bitwise_and", "bitwise_or", "bitwise_not"}
_STEPS |= {"logical_and", "logical_or", "logical_not", "__and__", "__or__", "where", "masked_fill", "tril", "triu"}
_STEPS |= {
    "_to_copy",
    "clone",
    "view",
    "expand",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "permute",
    "transpose",
    "t",
}
_STEPS |= {
    "alias",
    "detach",
    "_unsafe_view",
    "cat",
    "repeat",
    "floor_divide",
    "div",
    "remainder",
    "abs",
    "neg",
    "index",
}


class Known:
    """Remembers how constants were made; `value` computes one."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, tuple, dict, Tensor]] = {}
        self._memory: dict[int, set[int]] = {}
        self._values: dict[int, Tensor] = {}

    def learn(self, func: Any, args: tuple, kwargs: dict, outputs: tuple) -> None:
        """Remember one ATen call; a write into memory makes what is known of it void."""
        name = func._schema.name.replace("::", ".")
        if func._schema.is_mutable:
            self.forget(outputs)
            return
        if len(outputs) != 1:
            return
        step = name.removeprefix("aten.") in _STEPS and all(id(t) in self._made for t in tensors_in((args, kwargs)))
        if name in _SOURCES or step:
            out = outputs[0]
            self._made[id(out)] = (func, args, kwargs, out)
            self._memory.setdefault(out.untyped_storage()._cdata, set()).add(id(out))

    def forget(self, written: tuple) -> None:
        """What was known of memory that is written."""
        for tensor in written:
            for key in self._memory.pop(tensor.untyped_storage()._cdata, ()):
                self._made.pop(key, None)
                self._values.pop(key, None)

    def form(self, mask: Tensor | None) -> dict[str, object]:
        """What attention is told of a mask (`form_of`), nothing of one that is unknown."""
        values = self.value(mask) if mask is not None else None
        if values is None:
            return {}
        causal, window = form_of(values)
        return {"mask_causal": causal, "mask_window": window}

    def value(self, tensor: Tensor) -> Tensor | None:
        """The tensor's value on the CPU, None when it is unknown or too large."""
        if id(tensor) not in self._made or tensor.numel() > LARGEST_ELEMENTS:
            return None
        if id(tensor) not in self._values:
            func, args, kwargs, _ = self._made[id(tensor)]
            if func._schema.name in ("aten::zeros_like", "aten::ones_like", "aten::full_like") or "new_" in func.name():
                args = (torch.empty(args[0].shape, dtype=args[0].dtype, device="cpu"), *args[1:])
            args, kwargs = self._filled(args), self._filled(kwargs)
            if kwargs.get("device") is not None or name_of(func) in _SOURCES:
                kwargs = {**kwargs, "device": torch.device("cpu")}
            self._values[id(tensor)] = func(*args, **kwargs)
        return self._values[id(tensor)]

    def _filled(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.value(value) if id(value) in self._made else value
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._filled(item) for item in value)
        return value


def name_of(func: Any) -> str:
    return func._schema.name.replace("::", ".")


def form_of(mask: Tensor) -> tuple[bool, int]:
    """(causal, window) of a mask [..., L, S] with values: boolean, or added to the scores.

    Queries are the last L of S positions. Causal: query i sees no key after it. Window: how many keys
    up to its own position it sees at most, 0 for all of them. Anything else is (False, 0).
    """
    seen = mask if mask.dtype is torch.bool else mask > -1e4
    if any(size != 1 for size in seen.shape[:-2]) or seen.dim() < 2:
        return False, 0
    seen = seen.reshape(seen.shape[-2:])
    length, keys = seen.shape
    if not 1 < length <= keys:
        return False, 0
    ahead = torch.arange(keys, device="cpu") - torch.arange(keys - length, keys, device="cpu")[:, None]
    if torch.equal(seen, ahead <= 0):
        return True, 0
    window = int(seen[-1].sum())
    if window and torch.equal(seen, (ahead <= 0) & (ahead > -window)):
        return True, window
    return False, 0
