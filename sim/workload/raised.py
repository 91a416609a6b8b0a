"""What a model's own code, or torch, raised: told in one paragraph, whatever its message is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sim.errors import DovetailError, TraceError

_LONGEST = 400
_FRAMES = re.compile(r"^\s*(Exception raised from |C\+\+ CapturedTraceback|frame #\d+: )", re.MULTILINE)


_NOT_ON_META = re.compile(r"([\w:.]+): attempted to run this operator with Meta tensors.*", re.DOTALL)
_NO_FORM = "torch has no form of it that runs without data"

_FLOAT = "quantised modules hold packed weights: trace the model as it was before, and give --precision int8"
_RECORDED = "what depends on data is not exported: trace with the recorder (the default), which asks a policy"
_WAYS_OUT = {
    "FlexAttention is only supported": "FlexAttention is not traced: call scaled_dot_product_attention with the mask",
    "batch_sizes should always be on CPU": _RECORDED,
    "quantized::": _FLOAT,
    "classes.quantized": _FLOAT,
    "GuardOnDataDependentSymNode": _RECORDED,
    _NO_FORM: "a custom op with a shape function (register_fake) and a rule can stand for it: docs/extending.md",
    "SparseTensorImpl": "sparse tensors are not traced: write the product as a gather of rows, a product and index_add",
}
"""Part of what torch says -> the nearest way on, where torch names none that helps here."""


@contextmanager
def foreign_code(words: Callable[[BaseException], str]) -> Iterator[None]:
    """Around a model's own code: what it raises becomes a TraceError in `words`; errors of ours, Ctrl-C and a
    generator's end pass.

    Raises: TraceError.
    """
    try:
        yield
    except (DovetailError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise TraceError(words(error)) from error


def told(error: BaseException) -> str:
    """ "ValueError: message": its lines as one, without the C++ frames that torch appends, and cut where it is long.

    >>> told(ValueError("no weights:\\n  a.pt\\nException raised from load at a.cpp:7\\nframe #0: c10::Error"))
    'ValueError: no weights: a.pt'
    """
    kind = type(error).__name__
    text = _message(error)
    if isinstance(error, SystemExit):
        return f"sys.exit({text}) would end the program; expected a return, or an exception that says what is wrong"
    words = f"{kind}: {text}" if text else f"{kind} without a message"
    way = next((fix for sign, fix in _WAYS_OUT.items() if sign in words), None)
    return f"{words.rstrip('.')}; {way}" if way else words


def _message(error: BaseException) -> str:
    try:
        whole = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as second:
        return f"its message cannot be shown, its __str__ raises {type(second).__name__}"
    kept = _NOT_ON_META.sub(rf"\1: {_NO_FORM}", _FRAMES.split(whole, maxsplit=1)[0])
    text = " ".join(kept.split())
    if kept != whole and text.count('"') % 2:  # the frames stood in the quote
        text += '"'
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rsplit(' ', 1)[0]} ..."
