"""Custom ops: those whose result is as large as the data say, and those that only a file knows.

The shape function of the first (torchvision's NMS) asks torch for a context
(`torch.library.get_ctx().new_dynamic_size()`), which torch refuses on the meta device. Here the context
is ours, and the policy answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch._library.fake_impl import set_ctx_getter
from torch._library.simple_registry import singleton

from sim.workload.trace.questions import Questions
from sim.workload.trace.rules.registry import tensors_in
from sim.workload.trace.source import user_line


class _Sizes:
    """What a shape function asks: the policy's share of the largest size that it names, or of the first
    input's first axis."""

    def __init__(self, questions: Questions, most: int) -> None:
        self._questions, self._most, self._place = questions, most, user_line()

    def new_dynamic_size(self, *, min: int = 0, max: int | None = None) -> int:  # noqa: A002 (torch's own names)
        size = self._questions.size(self._most if max is None else max, self._place)
        return size if size > min else min

    create_unbacked_symint = new_dynamic_size


def run_op(questions: Questions, func: Any, args: tuple, kwargs: dict) -> Any:
    """The op's result on meta; sizes that depend on data are the policy's."""
    if func is torch.ops.aten.linalg_lstsq.default:
        return _least_squares(*args[:2])
    if func.namespace in ("aten", "prim", "prims"):
        return func(*args, **kwargs)
    kernel = singleton.find(f"{func.namespace}::{func._schema.name.rpartition('::')[2]}").fake_impl.kernel
    if kernel is None:
        return func(*args, **kwargs)
    first = next(tensors_in((args, kwargs)), None)
    sizes = _Sizes(questions, first.shape[0] if first is not None and first.dim() else 1)
    with set_ctx_getter(lambda: sizes):
        return kernel(*args, **kwargs)


def _least_squares(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Solution, and residuals, rank and singular values that the default driver does not tell; torch has no shape
    function for it."""
    vectors = b.dim() == 1 or (a.dim() - 1 == b.dim() and a.shape[:-1] == b.shape)
    sides = () if vectors else b.shape[-1:]
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[: -1 if vectors else -2])
    nothing = a.new_empty(0)
    return a.new_empty(*batch, a.shape[-1], *sides), nothing, a.new_empty(0, dtype=torch.int64), nothing.clone()


def results_of(func: Any, args: tuple, kwargs: dict, out: Any) -> tuple[torch.Tensor, ...]:
    """The tensors that an op makes: what it returns, and the arguments that it writes and does not return.

    An op that returns nothing works all the same (`torch._foreach_mul_`, a custom op with `mutates_args`). Of torch's
    own ops that return something the results are enough: the running statistics of a norm do not change in inference.
    """
    returned = tuple(tensors_in(out if isinstance(out, list | tuple) else (out,)))
    if not func._schema.is_mutable or (returned and func.namespace == "aten"):
        return returned
    memory = {t.untyped_storage()._cdata for t in returned}
    return (*returned, *(t for t in written(func, args, kwargs) if t.untyped_storage()._cdata not in memory))


def written(func: Any, args: tuple, kwargs: dict) -> list[torch.Tensor]:
    """The arguments that an op's schema says it writes."""
    given = {a.name: value for a, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    marked = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return list(tensors_in([given[name] for name in marked if name in given]))


_DTYPES = sorted((t for t in vars(torch).values() if isinstance(t, torch.dtype)), key=str)
_LIBRARIES: dict[str, torch.library.Library] = {}


def foreign(domain: str, kind: str, inputs: Sequence[torch.Tensor], results: Sequence[torch.Tensor]) -> tuple:
    """One call of an op that torch does not know, "domain.kind" to the recorder; results are like `results`."""
    namespace, name = (re.sub(r"\W", "_", text) for text in (domain, kind))
    if not hasattr(getattr(torch.ops, namespace), name):
        library = _LIBRARIES.setdefault(namespace, torch.library.Library(namespace, "FRAGMENT"))
        library.define(f"{name}(Tensor[] inputs, int[] axes, int[] sizes, int[] types) -> Tensor[]")
        library.impl(name, _like, "Meta")
    shapes = [list(t.shape) for t in results]
    types = [_DTYPES.index(t.dtype) for t in results]
    op = getattr(getattr(torch.ops, namespace), name)
    if not inputs:  # an op without tensors would run nowhere
        return tuple(results)
    return tuple(op(list(inputs), [len(s) for s in shapes], [n for shape in shapes for n in shape], types))


def _like(inputs: Sequence[torch.Tensor], axes: list[int], sizes: list[int], types: list[int]) -> list[torch.Tensor]:
    left, out = list(sizes), []
    for count, dtype in zip(axes, types, strict=True):
        out.append(torch.empty(left[:count], dtype=_DTYPES[dtype], device="meta"))
        del left[:count]
    return out


__all__ = ["foreign", "results_of", "run_op", "written"]
