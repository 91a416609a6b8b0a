"""Quantities: our prefix table against pint's, exact round trips, and errors that teach."""

import pint
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import UnitError
from sim.units import BINARY, DECIMAL, Dimension, format_exact, format_quantity, parse_quantity, parse_rate

REGISTRY = pint.UnitRegistry()
PINT_BASE = {"B": "byte", "s": "second", "Hz": "hertz", "J": "joule", "W": "watt", "V": "volt"}
PREFIXED = [
    *((prefix + symbol, symbol) for prefix in DECIMAL for symbol in PINT_BASE),
    *((prefix + "B", "B") for prefix in BINARY),
]
DIMENSION = {d.value: d for d in Dimension}


@pytest.mark.parametrize(("unit", "symbol"), PREFIXED, ids=[unit for unit, _ in PREFIXED])
def test_prefixes_agree_with_pint(unit, symbol):
    theirs = (3.25 * REGISTRY(unit)).to(PINT_BASE[symbol]).magnitude
    assert parse_quantity(f"3.25 {unit}", DIMENSION[symbol]) == pytest.approx(theirs, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "dimension", "pint_unit", "factor"),
    [
        ("7 Gbit/s", Dimension.RATE, "byte/s", 1),
        ("5 Mibit", Dimension.SIZE, "byte", 1),
        ("4 pJ/bit", Dimension.ENERGY_PER_BYTE, "joule/byte", 1),
        ("768 GiB/s", Dimension.RATE, "byte/s", 1),
        ("14 nm", Dimension.NODE, "nanometer", 1),
        ("0.5 um", Dimension.NODE, "nanometer", 1),
        ("3 um^2", Dimension.AREA, "millimeter^2", 1),
        ("2 cm^2", Dimension.AREA, "millimeter^2", 1),
    ],
)
def test_compound_units_agree_with_pint(text, dimension, pint_unit, factor):
    theirs = REGISTRY(text).to(pint_unit).magnitude * factor
    assert parse_quantity(text, dimension) == pytest.approx(theirs, rel=1e-12)


def test_values_by_hand():
    """32 MiB = 32 x 2^20; 100 ns is the float nearest to 1e-7; 1 pJ/bit = 8e-12 J/B."""
    assert parse_quantity("32 MiB", Dimension.SIZE) == 33554432
    assert parse_quantity("100 ns", Dimension.TIME) == 1e-7
    assert parse_quantity("1 pJ/bit", Dimension.ENERGY_PER_BYTE) == 8e-12
    assert parse_rate("68 GB/s") == (68e9, "s")
    assert parse_rate("384 B/cycle") == (384, "cycle")
    assert parse_rate("1 KiB/cycle") == (1024, "cycle")
    assert parse_quantity("2µs", Dimension.TIME) == 2e-6
    assert parse_quantity("inf GB/s", Dimension.RATE) == float("inf")


@given(st.floats(min_value=0, max_value=1e30), st.sampled_from(list(Dimension)))
def test_exact_text_gives_the_number_back(value, dimension):
    assert parse_quantity(format_exact(value, dimension), dimension) == value


@given(st.floats(min_value=1e-15, max_value=1e18), st.sampled_from([Dimension.TIME, Dimension.RATE, Dimension.SIZE]))
def test_text_for_people_is_right_to_its_digits(value, dimension):
    if dimension is Dimension.SIZE:
        value = max(value, 1.0)
    text = format_quantity(value, dimension, digits=3)
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (0.00193, Dimension.TIME, "1.93 ms"),
        (12.4e9, Dimension.RATE, "12.4 GB/s"),
        (33554432, Dimension.SIZE, "32 MiB"),
        (999.7e-6, Dimension.TIME, "1 ms"),
        (0.0, Dimension.TIME, "0 s"),
    ],
)
def test_text_for_people(value, dimension, text):
    assert format_quantity(value, dimension) == text


@pytest.mark.parametrize(
    ("text", "dimension", "parts"),
    [
        ("64 GB", Dimension.RATE, ["is a size", '"64 GB/s"']),
        ("64 GB/s", Dimension.SIZE, ["is a rate", '"64 GiB"']),
        (64, Dimension.SIZE, ["64 has no unit"]),
        ("1e9", Dimension.FREQUENCY, ["has no unit", '"2 GHz"']),
        ("64 KB", Dimension.SIZE, ["kB (1000 bytes) or KiB (1024 bytes)"]),
        ("2 gigahertz", Dimension.FREQUENCY, ["unknown unit"]),
        ("10 Gb/s", Dimension.RATE, ["Gbit or GB"]),
        ("5 ghz", Dimension.FREQUENCY, ["(write GHz)"]),
        ("16 G", Dimension.SIZE, ['(did you mean "GB"?)']),
        ("7 NM", Dimension.NODE, ['(did you mean "nm"?)']),
        ("64 GBps", Dimension.RATE, ["(write GB/s)"]),
        ("64 Gbps", Dimension.RATE, ["(write Gbit/s)"]),
        ("5 cycles", Dimension.TIME, ["(write cycle)"]),
        ("1e999 s", Dimension.TIME, ["beyond all numbers"]),
        ("-1 s", Dimension.TIME, ["is negative"]),
        ("fast", Dimension.TIME, ["is not a quantity"]),
        (True, Dimension.SIZE, ["is not a quantity"]),
        (None, Dimension.SIZE, ["is not a quantity"]),
        ("1 GB/s/s", Dimension.RATE, ["unknown unit"]),
    ],
)
def test_bad_quantities_say_where_what_and_how(text, dimension, parts):
    with pytest.raises(UnitError) as caught:
        parse_quantity(text, dimension, where="edge.yaml: memories[1].bandwidth")
    for part in ("edge.yaml: memories[1].bandwidth", *parts):
        assert part in str(caught.value)
