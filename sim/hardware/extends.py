"""`extends`: a chip file over the one that it extends.

Maps merge key by key, memories, units and levels of a hierarchy by name; a new level follows the one that is listed
before it, or stands just outside the array. Everything else (links, the precisions of an array and its sparsity
patterns too) is replaced, notes are not inherited. A number keeps the source of the file that states it. What becomes
of stated energies, supply, area and power: `rederive.inherited`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sim.errors import ConfigError, nearest
from sim.hardware.chip import Chip
from sim.hardware.schema import SPECS

_LISTS = ("memories", "units", "hierarchy")
_KINDS = ("memory", "fanout", "array")
_WHOLE = ("source", "macs_per_cycle", "weight_sparsity", "depthwise_macs_per_cycle")
"""Maps that a file states in full: an older chip lacks precisions that its base has."""
_NOT_NUMBERS = frozenset[str]().union(*(part.unsourced for part in SPECS.values()))
"""What a part states and no source is due for."""


def merge(base: Mapping[str, Any], child: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """`child` over `base`. Raises ConfigError where a restated number has no source."""
    result = {key: value for key, value in base.items() if key != "notes" or "notes" in child}
    for key, value in child.items():
        old = base.get(key)
        place = f"{where}: {key}"
        if key in ("technology", "overheads", "system") and isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = _component(old, value, where=place)
        elif key in _LISTS and isinstance(old, list) and isinstance(value, list):
            result[key] = _by_name(old, value, key, where=place)
        elif key == "sources" and isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = {**old, **value}
        else:
            result[key] = value
    if child.get("clock") is not None and "source" not in child:
        raise ConfigError(f"{where}: source: missing: clock needs a source of its own")
    return result


def stated_paths(document: Mapping[str, Any], base: Chip) -> Iterator[str]:
    """Where a file that extends that of `base` states something itself: "technology.node", "array.mac_energy.int8"."""
    vectors = {unit.name: unit.vector.name for unit in base.units}

    def within(item: Mapping[str, Any], place: str) -> Iterator[str]:
        for key, value in item.items():
            if key == "vector" and isinstance(value, Mapping):
                yield from within(value, value.get("name", vectors.get(place, "")))
            elif isinstance(value, Mapping):
                yield from within(value, f"{place}.{key}" if place else key)
            elif isinstance(value, list):
                for part in map(_inner, value):
                    yield from within(part, part.get("name", "")) if isinstance(part, Mapping) else ()
            else:
                yield f"{place}.{key}"

    return within(document, "")


def _inner(item: Any) -> Any:
    """The component itself: a level of a hierarchy wraps it in its kind."""
    if isinstance(item, Mapping):
        for kind in _KINDS:
            if isinstance(item.get(kind), Mapping):
                return item[kind]
    return item


def by_name(loc: Sequence[int | str], document: Any) -> list[int | str]:
    """The place `loc` of a merged document with names for positions, which are not those of the file that extends."""
    place: list[int | str] = []
    for part in loc:
        try:
            document = document[part]
        except (LookupError, TypeError):  # what is missing has no place yet
            document = None
        inner = _inner(document)
        name = inner.get("name") if isinstance(part, int) and isinstance(inner, Mapping) else None
        if place and isinstance(name, str) and place[-1] in _LISTS:
            place.append(name)
        elif not (part in _KINDS and "hierarchy" in place[-2:-1]):  # the level of that name is said
            place.append(part)
    return place


def _by_name(old: list, new: list, listed: str, *, where: str) -> list:
    result = list(old)
    for position, item in enumerate(new):
        name = _name(item)
        if name is None:
            raise ConfigError(
                f"{where}[{position}]: expected a map with the name of what it changes or adds, got {repr(item)[:60]}"
            )
        names = [str(_name(one)) for one in result]
        if name not in names:
            _check_new(item, names, listed, where=where)
            said = [names.index(one) for one in map(_name, new[:position]) if one in names]
            level = listed == "hierarchy" and "array" not in item
            result.insert(len(names) if not level else said[-1] + 1 if said else len(names) - 1, item)
            continue
        place, inner = names.index(name), _inner(item)
        merged = _component(_inner(result[place]), inner, where=f"{where}.{name}")
        result[place] = merged if inner is item else {next(k for k in _KINDS if k in item): merged}
    return result


def _name(item: Any) -> str | None:
    inner = _inner(item)
    return inner.get("name") if isinstance(inner, Mapping) else None


def _check_new(item: Any, names: list[str], listed: str, *, where: str) -> None:
    """Raises: ConfigError: what bears none of the `names` of the base is too little for a new part: a misspelling."""
    inner, name = _inner(item), str(_name(item))
    spec = SPECS[listed if inner is item else next(kind for kind in _KINDS if kind in item)]
    due = [key for key, field in spec.model_fields.items() if field.is_required() and key not in inner]
    if due:
        raise ConfigError(
            f'{where}: "{name}" is none of {", ".join(names)} of the file extended, and a new part states '
            f"{', '.join(due)} too.{nearest(name, names)}"
        )


def _component(old: Mapping[str, Any], new: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """One component over another; its source becomes a map from field to source."""
    result = dict(old)
    restated = [key for key, value in new.items() if key not in _NOT_NUMBERS and value is not None]
    for key, value in new.items():
        before = old.get(key)
        if key in _LISTS and isinstance(before, list) and isinstance(value, list):
            result[key] = _by_name(before, value, key, where=f"{where}.{key}")
        elif key in ("vector", "overheads") and isinstance(before, Mapping) and isinstance(value, Mapping):
            result[key] = _component(before, value, where=f"{where}.{key}")
        elif isinstance(before, Mapping) and isinstance(value, Mapping) and key not in _WHOLE:
            result[key] = {**before, **value}
        else:
            result[key] = value
    if not restated:
        result["source"] = old.get("source")
        return {key: value for key, value in result.items() if key != "source" or value is not None}
    if "source" not in new:
        needs = "needs a source of its own" if len(restated) == 1 else "need a source of their own"
        raise ConfigError(f"{where}.source: missing: {', '.join(restated)} {needs}")
    result["source"] = _sources(old, new, restated)
    # one way of stating bandwidth replaces the other
    if "bandwidth" in new:
        drop = {"read_bandwidth", "write_bandwidth"}
    elif {"read_bandwidth", "write_bandwidth"} & set(new):
        drop = {"bandwidth"}
    else:
        drop = set()
    result["source"] = {key: text for key, text in result["source"].items() if key not in drop}
    return {key: value for key, value in result.items() if key not in drop}


def _sources(old: Mapping[str, Any], new: Mapping[str, Any], restated: list[str]) -> dict[str, str]:
    before, after = old.get("source", {}), new["source"]
    table: dict[str, str] = (
        dict(before) if isinstance(before, Mapping) else {key: before for key in old if key not in _NOT_NUMBERS}
    )
    if "default" in table:
        spread = table.pop("default")
        table = {**{key: spread for key in old if key not in _NOT_NUMBERS and key not in table}, **table}
    if isinstance(after, str):
        after = dict.fromkeys(restated, after)
    elif "default" in after:
        default = after["default"]
        after = {**dict.fromkeys(restated, default), **{k: v for k, v in after.items() if k != "default"}}
    for key in restated:  # finer sources of a replaced number go with it
        table = {k: v for k, v in table.items() if k != key and not k.startswith(key + ".")}
    return {**table, **after}
