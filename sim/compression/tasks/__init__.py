"""What a workload learns: the task that its file brings beside the model. Loads no torch.

Tasks to build on    digits (images), text (bytes), tensors (data of one's own)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sim.errors import WorkloadError
from sim.workload.load import Workload

if TYPE_CHECKING:
    from sim.compression.training import Task

__all__ = ["load_task"]

PARTS = ("name", "steps", "learning_rate", "batch", "loss", "calibration", "evaluate")
"""What a task has (`sim.compression.training.Task`)."""


def load_task(workload: str, knobs: Mapping[str, object] | None = None) -> Task | None:
    """The task of a workload, from the function `task` beside its `build`; None without one: then quality comes from
    a table or a callable.

    Raises: WorkloadError, TraceError: unknown knobs, an error in the file, or what `task` returned is none.
    """
    task = Workload(workload, dict(knobs or {})).task()
    missing = [part for part in PARTS if task is not None and not hasattr(task, part)]
    if missing:
        raise WorkloadError(
            f"{workload}: task returned a {type(task).__name__} without {', '.join(missing)}: expected a "
            "sim.compression.TensorTask, or what has the same attributes (sim.compression.Task)"
        )
    return task
