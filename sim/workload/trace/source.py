"""Which line of the user's code is running."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import FrameType

import torch

_TORCH = str(Path(torch.__file__).parent) + os.sep  # not torchvision
_OURS = (str(Path(__file__).parent) + os.sep, str(Path(__file__).parents[1] / "raised.py"))
_LOADER = str(Path(__file__).parents[1] / "load.py")
"""What builds a workload and has it traced: a line of the model's own lies further in, or there is none (then the
loader says where the model is built)."""
_STDLIB = sysconfig.get_path("stdlib")


@cache
def user_file(filename: str) -> str | None:
    """Short name of a file of the user, None for torch, the tracer, its caller and the standard library."""
    if filename == _LOADER or filename.startswith((_TORCH, *_OURS, "<")):
        return None
    if filename.startswith(_STDLIB) and "site-packages" not in filename:
        return None
    return Path(filename).name


def user_frame() -> FrameType | None:
    """The innermost frame that is the user's; none where only torch's own modules run in a workload of a file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and user_file(frame.f_code.co_filename) is None:
        frame = None if frame.f_code.co_filename == _LOADER else frame.f_back
    return frame


def user_line() -> str:
    """ "file.py:line" of the innermost frame that is the user's, "" when there is none."""
    frame = user_frame()
    return "" if frame is None else f"{user_file(frame.f_code.co_filename)}:{frame.f_lineno}"
