"""Quantities with units: one prefix table, parsing at the border, formatting for people and files.

Inside the tool everything is a plain number in base units with the unit in its name. Decimal and
binary prefixes are distinct ("32 MB" is 32e6 bytes, "32 MiB" is 2**25); "KB" and "Gb" are refused,
because people mean different things by them. Parsing is exact: the text is a rational number,
rounded once to a float.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from math import inf, isinf

from sim.errors import UnitError, nearest

DECIMAL = {
    "a": -18, "f": -15, "p": -12, "n": -9, "u": -6, "m": -3, "": 0,
    "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
"""Decimal prefixes -> power of ten."""
BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50}
"""Binary prefixes -> power of two; for bytes and bits only."""


class Dimension(Enum):
    """What a quantity measures; the value is its base unit."""

    SIZE = "B"
    RATE = "B/s"
    CYCLE_RATE = "B/cycle"
    TIME = "s"
    FREQUENCY = "Hz"
    ENERGY = "J"
    ENERGY_PER_BYTE = "J/B"
    POWER = "W"
    VOLTAGE = "V"
    NODE = "nm"
    AREA = "mm2"

    @property
    def noun(self) -> str:
        return _NOUNS[self][0]

    @property
    def example(self) -> str:
        return _NOUNS[self][1]


_NOUNS = {
    Dimension.SIZE: ("a size", "64 GiB"),
    Dimension.RATE: ("a rate", "64 GB/s"),
    Dimension.CYCLE_RATE: ("a rate per cycle", "64 B/cycle"),
    Dimension.TIME: ("a time", "1.5 us"),
    Dimension.FREQUENCY: ("a frequency", "2 GHz"),
    Dimension.ENERGY: ("an energy", "0.3 pJ"),
    Dimension.ENERGY_PER_BYTE: ("an energy per byte", "4 pJ/bit"),
    Dimension.POWER: ("a power", "75 W"),
    Dimension.VOLTAGE: ("a voltage", "0.8 V"),
    Dimension.NODE: ("a length", "14 nm"),
    Dimension.AREA: ("an area", "260 mm2"),
}

# unit symbol -> (base symbol, how many bases it is, takes binary prefixes)
_SYMBOLS = {
    "B": ("B", Fraction(1), True),
    "bit": ("B", Fraction(1, 8), True),
    "s": ("s", Fraction(1), False),
    "Hz": ("Hz", Fraction(1), False),
    "J": ("J", Fraction(1), False),
    "W": ("W", Fraction(1), False),
    "V": ("V", Fraction(1), False),
    "m": ("nm", Fraction(10**9), False),
    "cycle": ("cycle", Fraction(1), False),
}
_SQUARES = {"mm2": Fraction(1), "um2": Fraction(1, 10**6), "cm2": Fraction(100)}
_MEANT = {
    "KB": ("kB (1000 bytes)", "KiB (1024 bytes)"),
    "b": ("bit", "B"),
    "Hz": ("Hz",),
    "byte": ("B",),
    "bytes": ("B",),
    "bits": ("bit",),
    "sec": ("s",),
    "cycles": ("cycle",),
}
"""What people write -> what they may have meant; all but KB also behind a prefix, in any case."""
_TEXT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?|inf)\s*(.*?)\s*$")


def _unit_table() -> dict[str, tuple[str, Fraction]]:
    table: dict[str, tuple[str, Fraction]] = {}
    for symbol, (base, factor, binary) in _SYMBOLS.items():
        prefixes = DECIMAL if symbol != "cycle" else {"": 0}
        for prefix, power in prefixes.items():
            table[prefix + symbol] = (base, factor * Fraction(10) ** power)
        if binary:
            for prefix, power in BINARY.items():
                table[prefix + symbol] = (base, factor * 2**power)
    for symbol, factor in _SQUARES.items():
        table[symbol] = ("mm2", factor)
        table[f"{symbol[:2]}^2"] = ("mm2", factor)
    return table


_UNITS = _unit_table()


def pattern(*dimensions: Dimension) -> str:
    """Regular expression (ECMA 262, as JSON Schema has it) of quantities of these dimensions."""
    units = "|".join("/".join(map(_any_of, dimension.value.split("/"))) for dimension in dimensions)
    return rf"^ *([+]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{{1,2}})?|inf) *({units}) *$"


def _any_of(base: str) -> str:
    """Every way to write a unit of this base."""
    names = sorted(symbol for symbol, (own, _) in _UNITS.items() if own == base)
    spelled = "|".join(name.replace("u", "[uµμ]", name.startswith("u")).replace("^", r"\^") for name in names)
    return rf" *({spelled}) *"


_BY_BASE = {dimension.value: dimension for dimension in Dimension}


@dataclass(frozen=True, slots=True)
class _Parsed:
    value: float
    dimension: Dimension


def _unit(text: str) -> tuple[str, Fraction]:
    """(base unit, factor) of "GB", "GB/s" or "pJ/bit"; raises KeyError with the part not known."""
    parts = [part.strip().replace("µ", "u").replace("μ", "u").replace("²", "2") for part in text.split("/")]
    if len(parts) > 2:
        raise KeyError(text)
    bases, factor = [], Fraction(1)
    for place, part in enumerate(parts):
        if part not in _UNITS:
            raise KeyError(part)
        base, one = _UNITS[part]
        bases.append(base)
        factor = factor / one if place else factor * one
    return "/".join(bases), factor


def _parse(text: object, wanted: tuple[Dimension, ...], where: str) -> _Parsed:
    place = f"{where}: " if where else ""
    due = f'{wanted[0].noun} such as "{wanted[0].example}"'
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise UnitError(f"{place}{text!r} is not a quantity, expected {due}")
    return _parse_text(str(text), wanted, place, due)


@lru_cache(maxsize=4096)
def _parse_text(text: str, wanted: tuple[Dimension, ...], place: str, due: str) -> _Parsed:
    match = _TEXT.match(text)
    if not match:
        raise UnitError(f'{place}"{text}" is not a quantity, expected {due}')
    number, unit_text = match.groups()
    if not unit_text:
        raise UnitError(f"{place}{text} has no unit, expected {due}")
    try:
        base, factor = _unit(unit_text)
    except KeyError as error:
        raise UnitError(
            f'{place}"{text}" has the unknown unit "{unit_text}"{_hint(error.args[0], wanted)}, expected {due}'
        ) from None
    dimension = _BY_BASE.get(base)
    if dimension not in wanted:
        is_a = dimension.noun if dimension else f'in "{unit_text}"'
        raise UnitError(f'{place}"{text}" is {is_a}, expected {due}')
    try:
        value = inf if number == "inf" else float(Fraction(number) * factor)
    except OverflowError:
        raise UnitError(f'{place}"{text}" is beyond all numbers, expected {due}') from None
    if value < 0:
        raise UnitError(f'{place}"{text}" is negative, expected {due}')
    return _Parsed(value, dimension)


def _hint(part: str, wanted: tuple[Dimension, ...]) -> str:
    """ " (write ...)" or " (did you mean ...?)" for a unit that is not in the table, or nothing; near units of the
    dimensions wanted go before others: "16 G" of a size is GB, not gigaseconds."""
    for wrong, right in _MEANT.items():
        prefix = part[: len(part) - len(wrong)]
        if part.lower() == (prefix + wrong).lower() and (part == wrong if wrong == "KB" else len(prefix) < 2):
            prefix = {"g": "G", "t": "T", "K": "k"}.get(prefix, prefix)
            meant = [prefix + unit for unit in right if prefix + unit.split(" ")[0] in _UNITS]
            if meant:
                return f" (write {' or '.join(meant)})"
    rate = part[:-2] if part.endswith("ps") else ""  # GBps, Gbps
    stem = f"{rate[:-1]}bit" if rate.endswith("b") else rate
    if _UNITS.get(stem, ("",))[0] == "B":
        return f" (write {stem}/s)"
    due = {base for dimension in wanted for base in dimension.value.split("/")}
    near = nearest(part, [unit for unit, (base, _) in _UNITS.items() if base in due]) or nearest(part, _UNITS)
    return near.replace(" Did", " (did").replace("?", "?)")


def parse_quantity(text: object, dimension: Dimension, *, where: str = "") -> float:
    """The value of `text` in base units.

    Base units are those of `Dimension`: bytes, bytes/s, seconds, Hz, J, J/byte, W, V; nodes in nm
    and areas in mm2. "inf B" is endless.

    Raises: UnitError: no unit, an unknown unit, the unit of another dimension, or a negative
    value; `where` is put in front of the message.
    >>> parse_quantity("32 MiB", Dimension.SIZE)
    33554432.0
    >>> parse_quantity("100 ns", Dimension.TIME)
    1e-07
    """
    return _parse(text, (dimension,), where).value


def base_value(text: object) -> float | None:
    """The value of a quantity of any dimension in base units; None where `text` is none."""
    try:
        return _parse(text, tuple(Dimension), "").value
    except UnitError:
        return None


def unit_of(text: str) -> str:
    """The unit as it is written: "34 GB/s" -> "GB/s", "" for a plain number or what is no quantity."""
    match = _TEXT.match(text)
    return match[2] if match else ""


def parse_rate(text: object, *, where: str = "") -> tuple[float, str]:
    """(value, "s" or "cycle") of a bandwidth in bytes per second or bytes per cycle.

    >>> parse_rate("68 GB/s"), parse_rate("384 B/cycle")
    ((68000000000.0, 's'), (384.0, 'cycle'))
    """
    parsed = _parse(text, (Dimension.RATE, Dimension.CYCLE_RATE), where)
    return parsed.value, "s" if parsed.dimension is Dimension.RATE else "cycle"


def _candidates(dimension: Dimension) -> list[str]:
    """Unit texts to try, small to large: binary before decimal for sizes."""
    if dimension is Dimension.AREA:
        return ["mm2"]
    if dimension is Dimension.NODE:
        return ["nm"]
    if dimension is Dimension.ENERGY_PER_BYTE:
        return ["fJ/B", "pJ/B", "nJ/B", "uJ/B", "J/B", "pJ/bit"]
    symbol = dimension.value.split("/")[0]
    rest = dimension.value[len(symbol) :]
    if symbol != "B":
        return [f"{prefix}{symbol}{rest}" for prefix in DECIMAL]
    binary = [] if dimension is Dimension.RATE else list(BINARY)
    large = [prefix for prefix, power in DECIMAL.items() if power > 0]
    return [f"{prefix}{symbol}{rest}" for prefix in ["", *binary, *large]]


@lru_cache(maxsize=4096)
def format_exact(value: float, dimension: Dimension) -> str:
    """The shortest text from which `parse_quantity` gives exactly `value` back.

    >>> format_exact(33554432.0, Dimension.SIZE), format_exact(1e-07, Dimension.TIME)
    ('32 MiB', '100 ns')
    """
    if isinf(value):
        return f"inf {dimension.value}"
    texts = [f"{value!r} {dimension.value}".replace(".0 ", " ")]
    for unit in _candidates(dimension):
        for digits in (6, 15, 16, 17):
            number = f"{float(Fraction(value) / _unit(unit)[1]):.{digits}g}"
            if "e" not in number and parse_quantity(f"{number} {unit}", dimension) == value:
                texts.append(f"{number} {unit}")
                break
    return min(texts, key=len)


def format_times(ratio: float) -> str:
    """A ratio for people, however large.

    >>> format_times(1.25), format_times(3072.4), format_times(5e26)
    ('1.25 times', '3,072 times', '5e+26 times')
    """
    text = f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}" if ratio < 1e6 else f"{ratio:.3g}"
    return f"{text} times"


def format_quantity(value: float, dimension: Dimension, *, digits: int = 3) -> str:
    """Text for people: `digits` significant digits and the prefix that keeps 1 <= number < 1000.

    Sizes take binary prefixes, everything else decimal ones.
    >>> format_quantity(0.00193, Dimension.TIME), format_quantity(12.4e9, Dimension.RATE)
    ('1.93 ms', '12.4 GB/s')
    """
    if value == 0 or isinf(value):
        return f"{value:g} {dimension.value}"
    if dimension in (Dimension.AREA, Dimension.NODE):
        return f"{value:.{digits}g} {dimension.value}" if value < 10**digits else f"{value:.0f} {dimension.value}"
    symbol, _, per = dimension.value.partition("/")
    if dimension is Dimension.SIZE:
        scales = {"": 1.0} | {name: 2.0**power for name, power in BINARY.items()}
    else:
        scales = {name: float(Fraction(10) ** power) for name, power in DECIMAL.items()}
    almost = 1 - 0.5 * 10.0**-digits  # what rounds up to the next prefix takes it: never "1000 us"
    prefix, scale = next(
        ((p, s) for p, s in reversed(scales.items()) if abs(value) >= s * almost), next(iter(scales.items()))
    )
    number = f"{value / scale:.{digits}g}"
    if "e" in number and 1 <= abs(value / scale) < 10**5:
        number = f"{value / scale:.0f}"
    return f"{number} {prefix}{symbol}{'/' + per if per else ''}"
