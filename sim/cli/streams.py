"""stdout and stderr as a shell may leave them: closed, full, or of an encoding that lacks the signs of our tables."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress

PLAIN = str.maketrans("µμ²±×≥≤─…█▉▊▋▌▍▎▏", "uu2+x><-.####::..")
"""Sign of the tables -> what stands for it, as wide, where the encoding lacks it."""


def prepare() -> None:
    """Closed streams swallow what they are told, and what an encoding lacks is said in plainer signs."""
    codecs.register_error("dovetail.plain", _plainer)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="dovetail.plain")


def flush() -> None:
    """Write what stdout still holds, if anybody reads it still. Raises: OSError: a full disk."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        let_go()


def let_go() -> None:
    """What stdout still holds and could not write goes nowhere: the interpreter would fail of it once more as it ends,
    with words and an exit code of its own."""
    with suppress(OSError, ValueError):  # a stream that is no file, or closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    words = error.object[error.start : error.end].translate(PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in words), error.end
