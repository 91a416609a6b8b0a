"""Tasks that train without a download, by the workload that they belong to. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.compression.training import Task

__all__ = ["TASKS", "load_task"]

TASKS = {"digits_cnn": "cluttered digits, accuracy", "byte_gpt": "bytes of the Python manual, bits per byte"}
"""Workload name -> what its task measures."""


def load_task(workload: str, knobs: Mapping[str, object] | None = None, **options: int) -> Task | None:
    """The task of a bundled workload, or None: then quality comes from a table or a callable.

    `knobs` are the workload's: the text task's windows are as long as its context.
    """
    match workload:
        case "digits_cnn":
            from sim.compression.tasks.digits import DigitsTask

            return DigitsTask(**options)
        case "byte_gpt":
            from sim.compression.tasks.text import TextTask

            context = (knobs or {}).get("context")
            return TextTask(**({"context": int(str(context))} if context else {}), **options)
    return None
