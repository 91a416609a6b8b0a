"""Chips by name or path: read the YAML, resolve `extends`, check, compile; and list the bundled ones."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError, WithJsonSchema

from sim.documents import KeysOnce
from sim.errors import ConfigError, expect, nearest, several, why
from sim.hardware.chip import Chip
from sim.hardware.compile import compile_chip
from sim.hardware.extends import by_name, merge, stated_paths
from sim.hardware.rederive import inherited
from sim.hardware.schema import CHIP_SCHEMA, SPECS, ChipSpec, Spec
from sim.hardware.supply import supply_problems
from sim.resources import data_dir, is_file, why_no_file


class _Loader(KeysOnce, yaml.CSafeLoader):
    """YAML with the scalars of version 1.2: `no` is a word, 1e9 a number, 1:30 text; keys occur once."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]


def _whole(loader: yaml.Loader, node: yaml.ScalarNode) -> int | str:
    """A whole number; one of more digits than a float has stays text, which is refused where a number is due."""
    return int(node.value) if len(node.value) <= sys.float_info.max_10_exp else node.value


def _resolvers() -> None:
    for tag, pattern, first in (
        ("null", r"~|null|", ["~", "n", ""]),
        ("bool", r"true|false", ["t", "f"]),
        ("int", r"[-+]?\d+", list("-+0123456789")),
        ("float", r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d{1,3})?", list("-+.0123456789")),
    ):
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), first)
    _Loader.add_constructor("tag:yaml.org,2002:int", _whole)
    _Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(node.value))


_resolvers()


def hardware_dir() -> Path:
    """The folder of bundled chips."""
    return data_dir("hw_configs")


def list_hardware() -> list[str]:
    """Names of the bundled chips, sorted."""
    return sorted(path.stem for path in hardware_dir().glob("*.yaml"))


def chip_of_device(device: str) -> str | None:
    """The bundled chip that a measured or published device is, or None: its name, or "nvidia-" and its name, as the
    driver calls it. Where a driver's name says more (nvidia-a100-sxm4-80gb), the chip is to be named."""
    name = device.removeprefix("nvidia-")
    return name if name in list_hardware() else None


def hardware_path(name_or_path: str | Path) -> Path:
    """The file of a bundled name or of a path to a YAML file.

    Raises: ConfigError: neither, with the nearest bundled name.
    """
    expect(name_or_path, (str, PathLike), "a chip's name or the path of its YAML file", where="load_hardware")
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        if not is_file(text):
            raise ConfigError(f'chip file "{text}" {why_no_file(text)}')
        return Path(text)
    path = hardware_dir() / f"{text}.yaml"
    if not is_file(path):
        names = list_hardware()
        raise ConfigError(
            f'chip "{text}" is unknown: expected a path ending in .yaml or one of {", ".join(names)}.'
            f"{nearest(text, names)}"
        )
    return path


def load_hardware(name_or_path: str | Path, overrides: Mapping[str, object] | None = None) -> Chip:
    """The chip of a bundled name ("tesla-fsd-npu") or a YAML path, with overrides; see `Chip.set_all`.

    Raises: ConfigError, UnitError: unknown name or path, every problem of the file, one a line, or a supply that does
        not bear the clock.
    """
    path = hardware_path(name_or_path)
    changes = {} if overrides is None else overrides
    expect(changes, Mapping, 'a map such as {"array.rows": 32}', where="load_hardware: overrides")
    _, chip = _read(path, ())
    chip = chip.set_all(changes)
    if problems := supply_problems([chip]):
        raise ConfigError(f"{chip.name if overrides else path}: {problems[0]}")
    return chip


def as_chip(chip: object, *, where: str) -> Chip:
    """The chip that an argument of the Python interface stands for: itself, or one by name or path.

    Raises: ConfigError: something else, or as `load_hardware`.
    """
    if isinstance(chip, Chip):
        return chip
    expect(chip, (str, PathLike), "a chip (sim.load_hardware makes one), or a chip's name", where=where)
    return load_hardware(chip)  # type: ignore[arg-type]


def loads(text: str, *, where: str = "<text>") -> Chip:
    """The chip of a YAML text; `loads(dump(chip)) == chip`."""
    return from_document(_parse(text, where), where=where)


def from_document(document: Mapping[str, Any], *, where: str) -> Chip:
    """The chip of a parsed chip document, in which `extends` is already resolved."""
    return compile_chip(_validate(document, where=where), where=where)


def parse_overrides(texts: Iterable[str]) -> dict[str, str]:
    """{"array.rows": "128"} of ["array.rows=128"].

    Raises: ConfigError: no "=", nothing on one side of it, or the same path twice.
    """
    result: dict[str, str] = {}
    for text in texts:
        path, equals, quantity = (part.strip() for part in text.partition("="))
        if not (path and equals and quantity):
            raise ConfigError(f'--set "{text}": expected path=value such as SRAM.capacity="8 MiB" or clock="1.5 GHz"')
        if path in result:
            raise ConfigError(f'--set "{text}": {path} is already set to {result[path]}')
        result[path] = quantity
    return result


def json_schema() -> dict[str, Any]:
    """JSON Schema of a chip file that stands alone."""
    return ChipSpec.model_json_schema(by_alias=True)


def editor_schema() -> dict[str, Any]:
    """JSON Schema of any chip file, for editors: one that extends another states what it changes alone."""
    alone, over = json_schema(), _without_required(json_schema())
    parts = alone.pop("$defs") | {f"{name}Change": part for name, part in over.pop("$defs").items()}
    over["properties"]["extends"] = {"type": "string", "description": "bundled name or path of the chip to start from"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": CHIP_SCHEMA,
        "if": {"required": ["extends"]},
        "then": over,
        "else": alone,
        "$defs": parts,
    }


def _without_required(part: Any) -> Any:
    """The schema of what may be stated in part; it refers to parts of its own."""
    if isinstance(part, list):
        return [_without_required(one) for one in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _without_required(value) for key, value in part.items() if key != "required"}
    return kept | {"$ref": f"{part['$ref']}Change"} if "$ref" in part else kept


def read_schema(path: str | Path) -> str:
    """The `schema:` of a YAML file. Raises ConfigError: no such file, not YAML, or no schema."""
    if not is_file(path):
        raise ConfigError(f'file "{path}" {why_no_file(path)}')
    document = parse_yaml(_text(Path(path)), str(path))
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str):
        raise ConfigError(f"{path}: no schema: expected a file that begins with a line such as schema: {CHIP_SCHEMA}")
    return schema


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {why(error)}") from error


def parse_yaml(text: str, where: str) -> Any:
    """What a YAML text holds, by the rules of `read_yaml`; `where` opens the message. Raises: ConfigError: not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise ConfigError(f"{place}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}") from error


def _parse(text: str, where: str) -> dict[str, Any]:
    document = parse_yaml(text, where)
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: expected a chip file that begins with schema: {CHIP_SCHEMA}")
    schema = document.get("schema")
    if schema != CHIP_SCHEMA:
        raise ConfigError(f'{where}: schema is "{schema}", expected {CHIP_SCHEMA}')
    return document


def _read(path: Path, through: tuple[Path, ...]) -> tuple[dict[str, Any], Chip]:
    """(the document at `path` with all that it extends merged in, its chip)"""
    document = _parse(_text(path), str(path))
    name = document.pop("extends", None)
    if name is None:
        return document, from_document(document, where=str(path))
    if not isinstance(name, str):
        raise ConfigError(f"{path}: extends: expected the name or path of a chip file")
    beside = path.parent / name
    try:
        target = beside if name.endswith((".yaml", ".yml")) and beside.is_file() else hardware_path(name)
    except ConfigError as error:
        hint = nearest(name, [p.name for p in path.parent.glob("*.yaml") if p.name != path.name])
        raise ConfigError(f"{path}: extends: {str(error).rstrip('.')}{hint and '.' + hint}") from error
    if target.resolve() in {p.resolve() for p in (*through, path)}:
        raise ConfigError(f"{path}: extends: {name} extends this file in turn")
    under, base = _read(target, (*through, path))
    merged = merge(under, document, where=str(path))
    chip = compile_chip(_validate(merged, where=str(path), named=True), where=str(path))
    return merged, inherited(base, chip, stated=set(stated_paths(document, base)))


def _validate(document: Mapping[str, Any], *, where: str, named: bool = False) -> ChipSpec:
    """The checked document; `named`: its errors call parts by their names, for their positions are not the file's."""
    try:
        return ChipSpec.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # a list whose items are wrong counts as empty too: say only what is wrong with the items
        around = {problem["loc"][:depth] for problem in problems for depth in range(1, len(problem["loc"]))}
        lines = [
            f"{where}: {_line(problem, document if named else None)}"
            for problem in problems
            if (problem["type"] != "too_short" or problem["loc"] not in around) and not _other_form(problem)
        ]
        raise ConfigError(several(lines)) from error


def _form(problem: Any) -> str:
    """Of a `source`, text or a map, the form that a problem is with; else ''."""
    loc = problem["loc"]
    at = loc.index("source") + 1 if "source" in loc else len(loc)
    return loc[at] if at < len(loc) and loc[at] in ("str", "dict[str,str]") else ""


def _other_form(problem: Any) -> bool:
    """Of a value with two forms, the problem with the one that is not meant."""
    form, whole = _form(problem), problem["loc"][-2:-1] == ("source",)
    return whole and (form == "dict[str,str]" or (form == "str" and isinstance(problem["input"], dict)))


_EXPECTED = {
    "tuple_type": "a list",
    "dict_type": "a map (key: value)",
    "model_type": "a map (key: value)",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""What a value of another kind was expected to be."""


def _line(problem: Any, merged: Mapping[str, Any] | None = None) -> str:
    """One problem in our words: place (by names in a merged document), what, expectation, nearest key."""
    form = _form(problem)
    loc = list(problem["loc"])
    if form:
        loc.remove(form)
    loc = [part for part in loc if part != "[key]"]  # a key of a map is named as it stands there
    said = loc if merged is None else by_name(loc, merged)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in said).lstrip(".") or "the file"
    kind, given = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        keys = [field.alias or name for name, field in _owner(loc).model_fields.items()]
        near = nearest(str(loc[-1]), keys) or f" Expected one of {', '.join(keys)}."
        return f"{place}: unknown key.{near}"
    if kind == "missing":
        return f"{place}: missing: {_due(_owner(loc), str(loc[-1]))}"
    if kind in ("enum", "literal_error"):
        choices = problem["ctx"]["expected"]
        near = nearest(str(given), choices.replace("'", "").replace(" or ", ", ").split(", "))
        return f'{place}: "{given}" is not one of {choices}.{near}'
    if kind == "too_short":
        form, least = "map" if isinstance(given, Mapping) else "list", problem["ctx"]["min_length"]
        return f"{place}: expected a {form} of {least} or more, got {len(given) or 'an empty one'}"
    if kind == "string_pattern_mismatch":
        first = "a letter" if problem["ctx"]["pattern"].startswith("^[A-Za-z][") else "a letter or digit"
        return f'{place}: "{given}" is no name: expected letters, digits, "-" and "_", and {first} first'
    if kind in _EXPECTED:
        due = "text, or a map from key to text" if form == "str" else _EXPECTED[kind]
        return f"{place}: expected {due}, got {'nothing' if given is None else repr(given)[:60]}"
    message = problem["msg"].removeprefix("Value error, ")
    return (
        f"{place}: {message}" if kind in ("value_error", "dovetail") else f"{place}: {message}, not {str(given)[:60]!r}"
    )


def _owner(loc: Sequence[int | str]) -> type[Spec]:
    """The part of the file in which the last key of a place stands."""
    return next((SPECS[p] for p in reversed(loc[:-1]) if isinstance(p, str) and p in SPECS), ChipSpec)


def _due(owner: type[Spec], key: str) -> str:
    """What a key that is missing means, and the words or the kind of quantity that it takes."""
    from sim.hardware.meanings import MEANINGS

    field = next(field for name, field in owner.model_fields.items() if key == (field.alias or name))
    own = MEANINGS[owner.__name__][key]
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"{own['description']}; expected {' or '.join(str(choice.value) for choice in kind)}"
    quantity = next((m.json_schema for m in field.metadata if isinstance(m, WithJsonSchema) and m.json_schema), {})
    examples = own.get("examples") or quantity.get("examples") or []
    form = f"; expected {quantity['description']}" if "description" in quantity else ""
    example = f"{',' if form else ';'} such as {examples[0]}" if examples else ""
    return own["description"] + form + example


def read_yaml(path: str | Path) -> Any:
    """What a YAML file of ours holds, by the same rules as a chip file (1.2 scalars, keys occur once).

    Raises: ConfigError: no such file, not YAML.
    """
    if not is_file(path):
        raise ConfigError(f'file "{path}" {why_no_file(path)}')
    return parse_yaml(_text(Path(path)), str(path))
