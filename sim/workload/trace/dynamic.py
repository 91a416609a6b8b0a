"""Custom ops whose result is as large as the data say (torchvision's NMS): the policy answers how large.

Such an op's shape function asks torch for a context (`torch.library.get_ctx().new_dynamic_size()`),
which torch refuses on the meta device. Here the context is ours.
"""

from __future__ import annotations

from typing import Any

from torch._library.fake_impl import set_ctx_getter
from torch._library.simple_registry import singleton

from sim.workload.trace.questions import Questions
from sim.workload.trace.rules.registry import tensors_in


class _Sizes:
    """What a shape function asks: the policy's share of the largest size that it names, or of the first
    input's first axis."""

    def __init__(self, questions: Questions, most: int) -> None:
        self._questions, self._most = questions, most

    def new_dynamic_size(self, *, min: int = 0, max: int | None = None) -> int:  # noqa: A002 (torch's own names)
        size = self._questions.size(self._most if max is None else max)
        return size if size > min else min

    create_unbacked_symint = new_dynamic_size


def run_op(questions: Questions, func: Any, args: tuple, kwargs: dict) -> Any:
    """The op's result on meta; sizes that depend on data are the policy's."""
    if func.namespace in ("aten", "prim", "prims"):
        return func(*args, **kwargs)
    kernel = singleton.find(f"{func.namespace}::{func._schema.name.rpartition('::')[2]}").fake_impl.kernel
    if kernel is None:
        return func(*args, **kwargs)
    first = next(tensors_in((args, kwargs)), None)
    sizes = _Sizes(questions, first.shape[0] if first is not None and first.dim() else 1)
    with set_ctx_getter(lambda: sizes):
        return kernel(*args, **kwargs)


__all__ = ["run_op"]
