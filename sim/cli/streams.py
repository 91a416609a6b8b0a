"""stdout and stderr as a shell may leave them: closed, or of an encoding that lacks the signs of our tables."""

from __future__ import annotations

import codecs
import io
import os
import sys

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


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    words = error.object[error.start : error.end].translate(PLAIN)
    return "".join(sign if sign.isascii() else "?" for sign in words), error.end
