"""Control flow that a model writes as an op: `torch.cond`, `while_loop`, `scan` and their like.

A run without data takes one way through it. Which branch and how many rounds are questions about
data: the policy answers (`truth`, `number`), and the answer is noted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sim.errors import TraceError
from sim.workload.trace.questions import Questions
from sim.workload.trace.source import user_line


def run_control_flow(questions: Questions, func: Any, args: tuple, kwargs: dict) -> Any:
    """The results of a higher-order op, its body run in the open so that its ops are recorded.

    Raises: TraceError: an op whose body we do not know how to run.
    """
    run = _KNOWN.get(func.name())
    if run is None:
        raise TraceError(
            f"{user_line()}: the higher-order op {func.name()} is not traced (these are: {', '.join(_KNOWN)}); "
            "write the step out in plain torch, or trace with --via export"
        )
    return run(questions, *args, **kwargs)


def _cond(questions: Questions, pred: Any, true_fn: Any, false_fn: Any, operands: Any = ()) -> Any:
    taken = questions.scalar(bool, pred) if isinstance(pred, Tensor) else bool(pred)
    return (true_fn if taken else false_fn)(*operands)


def _while_loop(questions: Questions, cond_fn: Any, body_fn: Any, carried: Any, additional: Any = ()) -> Any:
    """The condition is asked for once more than the body runs, as often as `number` says."""
    pred = cond_fn(*carried, *additional)
    rounds = questions.rounds(pred) if isinstance(pred, Tensor) else 0
    for _ in range(rounds):
        carried = body_fn(*carried, *additional)
        cond_fn(*carried, *additional)
    return carried


def _scan(questions: Questions, combine_fn: Any, init: Any, xs: Any, additional: Any = ()) -> list:
    """One step after another along the first axis; results of the steps are stacked."""
    carry, rows = list(init), []
    for step in range(xs[0].shape[0] if xs else 0):
        out = list(combine_fn(*carry, *(x[step] for x in xs), *additional))
        carry, made = out[: len(init)], out[len(init) :]
        rows.append(made)
    return [*carry, *(torch.stack(parts) for parts in zip(*rows, strict=True))]


_KNOWN = {"cond": _cond, "while_loop": _while_loop, "scan": _scan}
