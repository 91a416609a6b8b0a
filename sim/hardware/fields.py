"""Field types of the chip schema: quantities as text with a unit, plain numbers, dtypes.

Each type parses to base units and tells JSON Schema that an editor shall accept a string.
"""

from __future__ import annotations

import re
from math import inf, isfinite, isinf
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from sim.errors import PrecisionError, UnitError, nearest
from sim.hardware.chip import Rate
from sim.units import Dimension, parse_quantity, parse_rate, pattern
from sim.workload.precision import BITS, parse_precision

MOST = 10**9
"""The largest count: a thousand times the cores of a whole wafer, and the product of two still fits 64-bit integers, in
which cycles are counted."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$")
_WIDTH = re.compile(r"(\d+) ?bit$")
_MIXED = re.compile(r"w\d+a\d+$")
_PATTERN = re.compile(r"(\d+):(\d+)$")


def _fail(message: str) -> PydanticCustomError:
    return PydanticCustomError("dovetail", "{message}", {"message": message})


def _parser(dimension: Dimension) -> BeforeValidator:
    def parse(value: object) -> float:
        try:
            found = parse_quantity(value, dimension)
        except UnitError as error:
            raise _fail(str(error)) from error
        if isinf(found) and dimension is not Dimension.SIZE:
            raise _fail(f'"{value}" has no end, expected {dimension.noun} such as "{dimension.example}"')
        return found

    return BeforeValidator(parse)


def _text(dimension: Dimension) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "type": "string",
            "pattern": pattern(dimension),
            "description": f"{dimension.noun} with its unit",
            "examples": [dimension.example],
        }
    )


def _rate(value: object) -> Rate:
    try:
        number, per = parse_rate(value)
    except UnitError as error:
        raise _fail(str(error)) from error
    if number == 0:
        raise _fail(f'"{value}" is no rate at all, expected one above 0')
    return Rate(per_s=number) if per == "s" else Rate(per_cycle=number)


def _cycle_rate(value: object) -> float:
    try:
        found = parse_quantity(value, Dimension.CYCLE_RATE)
    except UnitError as error:
        raise _fail(str(error)) from error
    if found == 0:
        raise _fail(f'"{value}" is no rate at all, expected one above 0')
    return found


def number(value: object) -> float:
    """A plain number; text such as "1e9" counts, a truth value or a quantity does not."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _fail(f"{value!r} is not a number")
    if isinstance(value, str) and not _NUMBER.match(value.strip()):
        raise _fail(f'"{value}" is not a plain number')
    try:
        result = float(value)
    except OverflowError:
        result = inf
    if not isfinite(result):
        raise _fail(f"{str(value)[:40]} is not a finite number")
    return result


def _positive(value: object) -> float:
    result = number(value)
    if result <= 0:
        raise _fail(f"{value} must be above 0")
    return result


def _count(value: object) -> int:
    result = number(value)
    if result != int(result) or result < 1:
        raise _fail(f"{value} must be a whole number, at least 1")
    if result > MOST:
        raise _fail(f"{value} is more than any chip has: expected a whole number from 1 to {MOST:,}")
    return int(result)


def _bytes(value: object) -> int:
    try:
        size = parse_quantity(value, Dimension.SIZE)
    except UnitError as error:
        raise _fail(str(error)) from error
    if isinf(size) or size < 1 or size != int(size):
        raise _fail(f'"{value}" must be a whole number of bytes')
    return int(size)


def _share(value: object) -> float:
    result = number(value)
    if not 0 < result <= 1:
        raise _fail(f"{value} must be a fraction in (0, 1], such as 0.92")
    return result


def _compute_dtype(value: object) -> str:
    if isinstance(value, str) and value in BITS:
        return value
    if isinstance(value, str) and _MIXED.match(value):
        return _mixed(value)
    raise _fail(f'"{value}" is no element type: expected one of {", ".join(BITS)} or wXaY.{nearest(str(value), BITS)}')


def _mixed(value: str) -> str:
    """wXaY of two widths that a network can be costed in; of one width the rate is that of the type, which is asked."""
    try:
        precision = parse_precision(value)
    except PrecisionError:
        raise _fail(f'"{value}" has a width that no network is costed in: expected 2, 4, 8, 16 or 32 bit') from None
    if precision.compute != value:
        own = "bf16, fp16 or int16" if precision.compute == "bf16" else precision.compute
        raise _fail(f'"{value}" has one width and so is a type: expected {own}')
    return value


def _accumulate(value: object) -> int:
    match = _WIDTH.match(value) if isinstance(value, str) else None
    if match:
        return int(match[1])
    if isinstance(value, str) and value in BITS:
        return BITS[value]
    raise _fail(f'"{value}" is no accumulator: expected an element type such as int32, or a width such as "24 bit"')


def _sparsity_pattern(value: object) -> str:
    match = _PATTERN.match(str(value))
    if not match or not 0 < int(match[1]) < int(match[2]):
        raise _fail(f'"{value}" is no N:M pattern, expected one such as "2:4"')
    return match[0]


Size = Annotated[float, _parser(Dimension.SIZE), _text(Dimension.SIZE)]
Time = Annotated[float, _parser(Dimension.TIME), _text(Dimension.TIME)]
Frequency = Annotated[float, _parser(Dimension.FREQUENCY), _text(Dimension.FREQUENCY)]
Energy = Annotated[float, _parser(Dimension.ENERGY), _text(Dimension.ENERGY)]
EnergyPerByte = Annotated[float, _parser(Dimension.ENERGY_PER_BYTE), _text(Dimension.ENERGY_PER_BYTE)]
Power = Annotated[float, _parser(Dimension.POWER), _text(Dimension.POWER)]
Voltage = Annotated[float, _parser(Dimension.VOLTAGE), _text(Dimension.VOLTAGE)]
Node = Annotated[float, _parser(Dimension.NODE), _text(Dimension.NODE)]
Area = Annotated[float, _parser(Dimension.AREA), _text(Dimension.AREA)]
Bandwidth = Annotated[
    Rate,
    BeforeValidator(_rate),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": pattern(Dimension.RATE, Dimension.CYCLE_RATE),
            "description": "a rate with its unit",
            "examples": ["64 GB/s", "64 B/cycle"],
        }
    ),
]
CycleRate = Annotated[
    float,
    BeforeValidator(_cycle_rate),
    WithJsonSchema({"type": "string", "pattern": pattern(Dimension.CYCLE_RATE), "examples": ["64 B/cycle"]}),
]
Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema({"type": "string", "pattern": pattern(Dimension.SIZE), "examples": ["64 B"]}),
]
Number = Annotated[float, BeforeValidator(_positive), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Count = Annotated[int, BeforeValidator(_count), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST})]
Share = Annotated[
    float, BeforeValidator(_share), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
]
ComputeDtype = Annotated[str, BeforeValidator(_compute_dtype)]
Accumulator = Annotated[
    int, BeforeValidator(_accumulate), WithJsonSchema({"type": "string", "examples": ["int32", "24 bit"]})
]
SparsityPattern = Annotated[str, BeforeValidator(_sparsity_pattern)]
