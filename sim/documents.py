"""JSON documents: every one names its schema and the version that wrote it; reading is strict.

A file that is broken, foreign, of another schema, or with a key that the schema lacks is refused
with the place. A number that the model cannot give is null.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from sim._version import __version__
from sim.errors import ForeignResultError, ResultError, nearest, why

Document = dict[str, Any]

SCHEMAS = (
    "dovetail.estimate/1",
    "dovetail.simulate/1",
    "dovetail.roofline/1",
    "dovetail.sweep/1",
    "dovetail.validate/1",
    "dovetail.baseline/1",
    "dovetail.measure/1",
    "dovetail.winner/1",
    "dovetail.study/1",
    "dovetail.compress/1",
)
"""Every result that this version writes."""


def plain(value: Any) -> Any:
    """JSON's own types: NumPy scalars and arrays, tuples and mappings unwrapped, non-finite numbers as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not isfinite(value):
        return None
    return value


def count(value: Any) -> Any:
    """A whole number without a decimal point; a share of an operation stays as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Reader:
    """One JSON object with its place in the file; knows which keys were asked for."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise ResultError(f"{where}: expected an object, got {type(data).__name__}")
        self.data, self.where, self.asked = data, where, set[str]()

    def raw(self, key: str) -> Any:
        self.asked.add(key)
        if key not in self.data:
            raise ResultError(f"{self.where}: `{key}` is missing; the file is truncated or was edited")
        return self.data[key]

    def _typed(self, key: str, kind: type | tuple[type, ...], name: str) -> Any:
        value = self.raw(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ResultError(f"{self.where}: `{key}` is {json.dumps(value)[:60]}, expected {name}")
        return value

    def text(self, key: str) -> str:
        return self._typed(key, str, "text")

    def integer(self, key: str) -> int:
        return self._typed(key, int, "a whole number")

    def number(self, key: str, *, null: float | None = None) -> float:
        """A number; JSON's null stands for `null` where one is allowed."""
        if null is not None and self.data.get(key, 0.0) is None:
            self.asked.add(key)
            return null
        return self._typed(key, (int, float), "a number")

    def optional(self, key: str) -> float | None:
        return None if self.raw(key) is None else self.number(key)

    def child(self, key: str) -> Reader:
        return Reader(self.raw(key), f"{self.where}: {key}")

    def mapping(self, key: str) -> dict[str, Any]:
        return dict(self.child(key).data)

    def numbers(self, key: str) -> dict[str, float]:
        reader = self.child(key)
        return {name: reader.number(name) for name in reader.data}

    def items(self, key: str) -> list[Any]:
        return self._typed(key, list, "a list")

    def children(self, key: str) -> list[Reader]:
        return [Reader(item, f"{self.where}: {key}[{i}]") for i, item in enumerate(self.items(key))]

    def each(self, key: str, read: Callable[[Reader], Any]) -> dict[str, Any]:
        reader = self.child(key)
        return {name: read(reader.child(name)) for name in reader.data}

    def done(self) -> None:
        for key in self.data:
            if key not in self.asked:
                raise ResultError(f"{self.where}: `{key}` is no key of this schema.{nearest(key, self.asked)}")


def check_schema(document: Any, *, where: str, expected: tuple[str, ...] = SCHEMAS) -> str:
    """The document's schema, if it is one of `expected`.

    Raises: ForeignResultError: no object, no schema of ours, another kind of document; ResultError: an older or newer
        one.
    """
    if not isinstance(document, dict) or not isinstance(document.get("schema"), str):
        raise ForeignResultError(
            f'{where}: this is no result of Dovetail: expected an object with `schema: "{expected[0]}"`'
        )
    schema = document["schema"]
    if schema in expected:
        return schema
    family, _, number = schema.partition("/")
    ours = {known.partition("/")[0]: int(known.partition("/")[2]) for known in SCHEMAS}
    if family in ours and number.isdigit() and int(number) != ours[family]:
        if int(number) > ours[family]:
            fix = f"was written by a newer Dovetail (this is {__version__}); upgrade to read it"
        else:
            fix = "was written by an older Dovetail; run the command again"
        raise ResultError(f'{where}: schema "{schema}" {fix}; this version reads {family}/{ours[family]}')
    raise ForeignResultError(f'{where}: schema is "{schema}", expected {" or ".join(expected)}')


def read_documents(path: str | Path, *, expected: tuple[str, ...] = SCHEMAS) -> list[Document]:
    """The documents of a file that holds one, or a list of them (several `--hw`).

    Raises: ResultError: no such file, no JSON (truncated), or not one of the expected schemas.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{path}: cannot be read: {why(error)}") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ResultError(
            f"{path}: line {error.lineno}, column {error.colno}: this is no complete JSON ({error.msg}); "
            "expected a file that a command wrote with --json"
        ) from error
    documents = content if isinstance(content, list) and content else [content]
    for i, document in enumerate(documents):
        check_schema(document, where=f"{path}[{i}]" if len(documents) > 1 else str(path), expected=expected)
    return documents


class KeysOnce:
    """A YAML loader's part: a key that stands twice in one mapping is an error, with both lines."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        from yaml import MarkedYAMLError

        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise MarkedYAMLError(
                    problem=f'"{key.value}" stands twice, first in line {seen[key.value]}', problem_mark=key.start_mark
                )
            seen[key.value] = line
        return super().construct_mapping(node, deep)  # type: ignore[misc]
