"""Precision policies as YAML files, and what `--precision` takes: a name, or such a file.

schema: dovetail.precision/1
name: head-in-bf16        # what results call it; by default the file's name
default: int8             # of ops that no pattern matches; by default the chip's own
ops:                      # patterns of op or module names, in order: the first that matches decides
  fc: bf16
  "layer4.*": w4a16
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from sim.documents import KeysOnce
from sim.errors import ConfigError, PrecisionError, expect, nearest
from sim.workload.passes.precision import PrecisionPolicy
from sim.workload.precision import PRECISIONS, Precision, parse_precision

SCHEMA = "dovetail.precision/1"
_KEYS = ("schema", "name", "default", "ops")


class _Loader(KeysOnce, yaml.CBaseLoader):
    """YAML whose scalars all stay text, in which a key may not stand twice."""


def resolve_precision(
    given: str | Precision | PrecisionPolicy | None, default: str, types: Collection[str] = ()
) -> Precision | PrecisionPolicy:
    """What a caller means by a precision: a name such as "w4a16", a policy's YAML file, or either ready made.

    Args: default: the chip's own, for None and for a policy file without a default; types: those that its array has
        (`parse_precision`).
    Raises: PrecisionError: an unknown name; ConfigError, as `read_policy`.
    """
    if given is None:
        return parse_precision(default, types)
    if isinstance(given, Precision | PrecisionPolicy):
        return given
    due = 'a name such as "int8" or "w4a16", a policy\'s YAML file, or a sim.Precision'
    expect(given, str, due, where="precision", error=PrecisionError)
    return read_policy(given, default, types) if is_policy_file(given) else parse_precision(given, types)


def is_policy_file(text: str) -> bool:
    """Whether a word for a precision is a path."""
    return text.endswith((".yaml", ".yml")) or "/" in text


def read_policy(path: str | Path, default: str, types: Collection[str] = ()) -> PrecisionPolicy:
    """The policy of a YAML file; `default` where it names none, `types` as `resolve_precision`.

    Raises: as `policy_document`; PrecisionError: a precision that is none, with the file and the key.
    """
    document = policy_document(path)
    return PrecisionPolicy(
        default=_precision(document.get("default", default), types, where=f"{path}: default"),
        ops={
            pattern: _precision(text, types, where=f'{path}: ops: "{pattern}"')
            for pattern, text in document["ops"].items()
        },
        name=document["name"],
        where=str(path),
    )


def policy_document(path: str | Path) -> dict[str, Any]:
    """The checked content of a policy's file, with its name.

    Raises: ConfigError: no such file, no YAML, another schema, an unknown, missing or empty key, each with the file
    and the key.
    """
    document = _read(path)
    if document.get("schema") != SCHEMA:
        raise ConfigError(f'{path}: schema is {_shown(document.get("schema"))}, expected "{SCHEMA}"')
    for key in document:
        if key not in _KEYS:
            raise ConfigError(f"{path}: unknown key {key}, expected {', '.join(_KEYS)}.{nearest(key, _KEYS)}")
    for key in _EXAMPLE:
        if not isinstance(document.get(key, ""), str) or document.get(key) == "":
            raise ConfigError(f"{path}: {key}: {_shown(document[key])}, expected text such as {_EXAMPLE[key]}")
    ops = document.get("ops")
    if not isinstance(ops, dict) or not ops:
        raise ConfigError(
            f"{path}: ops: {_shown(ops)}, expected patterns of op or module names with their precisions, such as "
            '{"layer1.*": int8, fc: bf16}'
        )
    name = document.get("name", Path(path).stem)
    if _is_precision(name):
        raise ConfigError(f'{path}: name: "{name}" is a precision itself, expected another name such as {name}-mixed')
    return document | {"name": name}


def _is_precision(name: str) -> bool:
    with suppress(PrecisionError):
        return bool(parse_precision(name))
    return False


_EXAMPLE = {"name": "head-in-bf16", "default": "int8"}


def _read(path: str | Path) -> dict[str, Any]:
    try:
        document = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(
            f"precision {path}: cannot be read ({error.strerror}); expected a policy's YAML file, or one of "
            f"{', '.join(PRECISIONS)}, or wXaY[kvZ]"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text in UTF-8, expected a precision policy in YAML: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is no YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a precision policy with schema: {SCHEMA} and ops, got {_shown(document)}")
    return document


def _precision(text: Any, types: Collection[str], *, where: str) -> Precision:
    if not isinstance(text, str):
        raise PrecisionError(f"{where}: {_shown(text)}, expected a precision such as bf16 or w4a16")
    try:
        return parse_precision(text, types)
    except PrecisionError as error:
        raise PrecisionError(f"{where}: {error}") from error


def _shown(value: Any) -> str:
    return "missing" if value is None else f'"{value}"' if isinstance(value, str) else str(value)[:60]
