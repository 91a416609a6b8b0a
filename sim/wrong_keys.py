"""What is wrong with a file of ours, in our words: pydantic's problems with place, expectation and nearest key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

from sim.errors import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel

Place = Sequence[int | str]

EXPECTED = {
    "string_type": "text", "list_type": "a list, in brackets", "dict_type": "a map of keys to values",
    "model_type": "a map of keys to values", "model_attributes_type": "a map of keys to values",
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "greater_than": "a number above {gt}", "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}", "less_than_equal": "a number of at most {le}",
}  # fmt: skip
"""pydantic's kind of a problem -> what a file should have there."""


def problem_line(problem: Any, place: str, key: int | str, owner: type[BaseModel]) -> str:
    """One problem: place, what is there, what was expected, the nearest key.

    Args:
        place: where, as the file has it.
        key: the last part of the place.
        owner: the part of the schema that the key belongs to.
    """
    given, kind, context = problem["input"], problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        keys = [field.alias or name for name, field in owner.model_fields.items()]
        near = nearest(str(key), keys) or f" Expected one of {', '.join(keys)}."
        return f"{place}: unknown key.{near}"
    if kind == "missing":
        means = next((f.description for name, f in owner.model_fields.items() if key == (f.alias or name)), None)
        return f"{place}: missing" + (f": {means}" if means else "")
    if kind == "literal_error":
        expected = re.findall("'([^']*)'", context["expected"])
        return f'{place}: "{given}": expected one of {", ".join(expected)}.{nearest(str(given), expected)}'
    if kind == "too_short":
        return f"{place}: is empty, expected at least one"
    if kind in EXPECTED:
        whole = {name: int(n) for name, n in context.items() if isinstance(n, float) and n.is_integer()}
        limits = context | whole
        return f"{place}: expected {EXPECTED[kind].format(**limits)}, got {short(given)}"
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}"


def owner_of(root: type[BaseModel], loc: Place) -> type[BaseModel]:
    """The part of a schema at a place; names that are the file's own do not lead anywhere."""
    owner = root
    for part in loc:
        field = next((f for name, f in owner.model_fields.items() if part == (f.alias or name)), None)
        owner = next(_parts(field.annotation), owner) if field else owner
    return owner


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


def short(value: Any) -> str:
    """A value as it may stand in a file, cut."""
    words = "nothing" if value is None else repr(value)
    words = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else words
    return words if len(words) <= 60 else words[:57] + "..."
