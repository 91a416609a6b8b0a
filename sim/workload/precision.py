"""Element types and precision names: one table for the whole tool."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType

from sim.errors import PrecisionError, nearest

BITS = MappingProxyType(
    {
        "fp64": 64, "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8_e4m3": 8, "fp8_e5m2": 8,
        "int64": 64, "int32": 32, "int16": 16, "int8": 8, "uint8": 8, "int4": 4, "int3": 3,
        "int2": 2, "bool": 8,
    }
)  # fmt: skip
"""Stored bits per element; tf32 is stored as fp32, bool as a byte."""

PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8_e4m3", "fp8_e5m2", "int16", "int8", "int4")
"""What `--precision` takes by name; `wXaY[kvZ]` beside them."""

_MIXED = re.compile(r"w(\d+)a(\d+)(?:kv(\d+))?$")
_INTEGER = {2: "int2", 4: "int4", 8: "int8"}
_SIXTEEN = ("bf16", "fp16", "int16")
"""What 16 bits are: the first of these that the chip has."""
_WIDE = {32: "fp32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Element types of weights, activations and KV cache. `name` is what the user wrote."""

    name: str
    weight: str
    activation: str
    kv: str

    @property
    def compute(self) -> str:
        """The array rate to look up: a dtype, or "wXaY" when weight and activation differ."""
        if self.weight == self.activation:
            return self.weight
        return f"w{BITS[self.weight]}a{BITS[self.activation]}"

    @property
    def states_cache(self) -> bool:
        """Whether the width of keys and values was asked for by itself, as in "w16a16kv8"."""
        mixed = _MIXED.match(self.name)
        return bool(mixed and mixed.group(3))


def is_precision(text: str) -> bool:
    """Whether a network can be asked for in it: an array may have rates for types beside these, as fp64."""
    try:
        return bool(parse_precision(text))
    except PrecisionError:
        return False


def parse_precision(text: str, types: Collection[str] = ()) -> Precision:
    """Parse "int8", "bf16", "w4a16", "w8a8kv4".

    Args: types: those of the array that it is for, which decides what 16 bits are.
    Raises: PrecisionError: unknown name or width, with the accepted ones.
    >>> parse_precision("w4a16").compute
    'w4a16'
    >>> parse_precision("w4a16").activation, parse_precision("w4a16", ["fp16", "w4a16"]).activation
    ('bf16', 'fp16')
    """
    if text in PRECISIONS:
        return Precision(name=text, weight=text, activation=text, kv=text)
    match = _MIXED.match(text)
    if match:
        widths = [int(w) if w else None for w in match.groups()]
        widths[2] = widths[2] if widths[2] is not None else widths[1]
        wide = _WIDE | {16: next((name for name in _SIXTEEN if name in types), _SIXTEEN[0])}
        found = [(_INTEGER | wide).get(w) for w in widths]  # type: ignore[arg-type]
        if all(found):
            return Precision(name=text, weight=found[0], activation=found[1], kv=found[2])  # type: ignore[arg-type]
    known = "is no type that networks are costed in, whatever rate an array has" if text in BITS else "is unknown"
    raise PrecisionError(
        f'precision "{text}" {known}: expected one of {", ".join(PRECISIONS)}, or wXaY[kvZ] with '
        f"widths 2, 4, 8, 16 or 32 such as w4a16 or w8a8kv4.{nearest(text, PRECISIONS)}"
    )
