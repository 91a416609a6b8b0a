"""Axes with one unit: the label names it with its prefix, ticks are plain numbers of it."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, isfinite, log10
from typing import TYPE_CHECKING

from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter

if TYPE_CHECKING:
    from matplotlib.axis import Axis

PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
"""Power of ten -> prefix of a unit."""
PREFIXED = {"s": ("s", 0), "J": ("J", 12), "J s": ("J s", 12), "W": ("W", 12), "byte": ("B", 12)}
"""Unit -> (its symbol behind a prefix, the largest power of ten); other units take none (no kmm²)."""


def scale_of(unit: str, values: Iterable[float], *, log: bool = False) -> tuple[float, str]:
    """(what one unit of the axis is, its name): ("s", 0.0042) -> (1e-3, "ms").

    The largest value decides, on a logarithmic axis the middle of the decades.
    """
    sizes = [abs(value) for value in values if isfinite(value) and value]
    if unit not in PREFIXED or not sizes:
        return 1.0, unit
    symbol, largest = PREFIXED[unit]
    place = (log10(min(sizes)) + log10(max(sizes))) / 2 if log else log10(max(sizes))
    power = min(max(3 * floor(place / 3 + 1e-9), min(PREFIXES)), largest)
    return 10.0**power, PREFIXES[power] + symbol if power else unit


def label_of(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def ticks_of(unit: str, scale: float) -> Formatter:
    """Plain numbers of the axis' unit; large rates with a prefix of their own, "20k" [1/s]."""
    if unit == "1/s":
        return EngFormatter(sep="")
    return FuncFormatter(lambda value, _: f"{value / scale:.6g}")


def set_unit(axis: Axis, name: str, unit: str, values: Iterable[float], *, log: bool = False, more: str = "") -> None:
    """Give an axis over `values` in `unit` its label and ticks; `more` follows the unit."""
    scale, prefixed = scale_of(unit, values, log=log)
    axis.set_major_formatter(ticks_of(unit, scale))
    axis.set_label_text(label_of(name, prefixed) + more)
