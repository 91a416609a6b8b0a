"""Overrides: `<component>.<field>=quantity` or `clock=...` on a chip, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

import numpy as np

from sim.errors import ConfigError, expect, nearest
from sim.hardware.chip import Chip
from sim.hardware.designs import SET_FIRST
from sim.hardware.dump import to_document
from sim.hardware.load import from_document
from sim.hardware.rederive import rederive
from sim.hardware.schema import SPECS, OverheadsSpec, UnitSpec

_NOT_SET = {
    "units": frozenset({"name", "source", "hierarchy", "vector", "overheads"}),
    "technology": frozenset({"source", "area", "power", "idle_power", "area_fit", "power_fit", "idle_power_fit"}),
}
_SHOWN = 80
"""Characters of a value that a message repeats."""
_FIXED = frozenset({"name", "source", "ends"})


def settable(kind: str) -> list[str]:
    """The fields of a part of the given kind that an override may set."""
    fields = [name for name in SPECS[kind].model_fields if name not in _NOT_SET.get(kind, _FIXED)]
    return fields + [n for n in OverheadsSpec.model_fields if n != "source"] if kind == "units" else fields


def _components(document: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (kind, the component's own map inside the document)."""
    found: dict[str, tuple[str, dict[str, Any]]] = {m["name"]: ("memories", m) for m in document["memories"]}
    for unit in document["units"]:
        found[unit["name"]] = ("units", unit)
        for level in unit["hierarchy"]:
            kind, inner = next(iter(level.items()))
            found[inner["name"]] = (kind, inner)
        found[unit["vector"]["name"]] = ("vector", unit["vector"])
    for link in document.get("links", ()):
        found[link["name"]] = ("links", link)
    for part in ("technology", "system"):
        if part in document:
            found[part] = (part, document[part])
    return found


def set_path(chip: Chip, path: str, quantity: object) -> Chip:
    """The chip with one number or name changed; `chip.set` is this.

    Paths are as in the file: "SRAM.capacity", "array.rows", "array.macs_per_cycle.int8",
    "npu.launch", "technology.node", "clock" (units without a clock of their own follow). Stated
    energies, area and power hold at the file's own geometry, clock and voltage only: an override
    scales them by what the technology model says of the change, or drops them where it cannot.

    Raises: ConfigError, UnitError: unknown component or field (with the nearest), a value that the
    schema refuses, `bandwidth` where read and write are declared, a clock above the maximum.
    """
    expect(path, str, "the path of an override, such as SRAM.capacity", where=chip.name)
    return rederive(chip, _changed(chip, {path: quantity}), path)


def set_paths(chip: Chip, changes: Mapping[str, object]) -> Chip:
    """The chip with all of `changes` set, whatever their order.

    What a system states (chips, stages, topology, ports) bounds each other, so it is set at once. A value that the
    chip so far refuses is tried again when the others are set: a maximum below the clock that another one lowers.

    Raises: ConfigError, UnitError: as `set_path`, of the first value that the others do not make right.
    """
    system = {path: quantity for path, quantity in changes.items() if str(path).startswith("system.")}
    if len(system) > 1:
        chip = rederive(chip, _changed(chip, system), ", ".join(system))
    left = {path: changes[path] for path in sorted(changes, key=lambda path: path != SET_FIRST)}
    left = {path: quantity for path, quantity in left.items() if len(system) < 2 or path not in system}
    while left:
        refused: dict[str, ConfigError] = {}
        for path, quantity in left.items():
            try:
                chip = set_path(chip, path, quantity)
            except ConfigError as error:
                refused[path] = error
        if len(refused) == len(left):
            raise next(iter(refused.values()))
        left = {path: left[path] for path in refused}
    return chip


def _changed(chip: Chip, changes: Mapping[str, object]) -> Chip:
    """The chip of the file with these values in it."""
    document = to_document(chip)
    values = {path: q.item() if isinstance(q, np.generic) else q for path, q in changes.items()}
    texts = {path: value if isinstance(value, str) else repr(value) for path, value in values.items()}
    where = f"{chip.name}: {', '.join(f'{path}={_short(text)}' for path, text in texts.items())}"
    for path, value in values.items():
        if path == "clock":
            document["clock"] = value
            document["source"] = {"clock": f"override: {texts[path]}"}
        else:
            _set_component(document, path, value, texts[path], where)
    document["overrides"] = {**chip.overrides, **texts}
    return from_document(document, where=where)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _set_component(document: dict[str, Any], path: str, quantity: object, text: str, where: str) -> None:
    name, _, field = path.partition(".")
    components = _components(document)
    if name not in components:
        choices = [*components, "clock"]
        raise ConfigError(
            f'{where}: "{name}" is no component of {document["name"]}: expected one of '
            f"{', '.join(choices)}.{nearest(name, choices)}"
        )
    kind, component = components[name]
    fields = settable(kind)
    field, _, key = field.partition(".")
    if not field:
        raise ConfigError(
            f"{where}: {name} is a component: expected one of its fields, {', '.join(f'{name}.{f}' for f in fields)}"
        )
    if field not in fields:
        raise ConfigError(
            f'{where}: "{field}" is no field of {name} that can be set: expected one of {", ".join(fields)}.'
            f"{nearest(field, fields)}"
        )
    if key and not _is_map(kind, field):
        raise ConfigError(f"{where}: {name}.{field} is one value and has no {key}: set {name}.{field}")
    if not key and isinstance(quantity, str):
        _check_one_value(kind, name, field, document["name"], component, where)
    if kind in ("memories", "memory"):
        _check_bandwidth(component, name, field, where)
    target = component
    if kind == "units" and field in OverheadsSpec.model_fields:
        target = component.setdefault("overheads", {"source": {}})
    source = target.setdefault("source", {})
    if key:
        values = dict(target.get(field, {}))
        if field not in source:
            source.update({f"{field}.{old}": source.get(f"{field}.{old}", "estimated: default") for old in values})
        target[field] = {**values, key: quantity}
        source[f"{field}.{key}"] = f"override: {text}"
    else:
        target[field] = quantity
        for old in [k for k in source if k == field or k.startswith(field + ".")]:
            del source[old]
        source[field] = f"override: {text}"
    _drop_names(target, kind)


def _is_map(kind: str, field: str) -> bool:
    """Whether a field holds several values by key, as the rates of an array by precision."""
    own = SPECS[kind].model_fields.get(field)
    return own is not None and get_origin(own.annotation) is dict


def _check_one_value(kind: str, name: str, field: str, chip: str, held: Mapping[str, Any], where: str) -> None:
    """Refuse the text of one value where a list, or several values by key, are due; `held` is what the component has.

    Raises: ConfigError: what to do instead.
    """
    from sim.hardware.meanings import MEANINGS  # checking a file needs none of them

    own = SPECS[kind].model_fields.get(field)
    file = f"a chip file of your own that begins with `extends: {chip}` (docs/chip.md) states all"
    if _is_map(kind, field):
        examples = MEANINGS[SPECS[kind].__name__][field].get("examples", [])
        known: Mapping[str, Any] = held.get(field) or next(iter(examples), {})
        path = f"{name}.{field}.{next(iter(known), 'KEY')}"
        raise ConfigError(f"{where}: {field} has a value by key, of which --set gives one: --set {path}=VALUE; {file}")
    if own is not None and get_origin(own.annotation) is tuple:
        raise ConfigError(f"{where}: {field} is a list, which --set cannot give: {file}")


def _drop_names(component: dict[str, Any], kind: str) -> None:
    """Names and enumerations carry no source."""
    unsourced = (UnitSpec if kind == "units" else SPECS[kind]).unsourced
    source = component["source"]
    for field in [field for field in source if field.split(".")[0] in unsourced]:
        del source[field]
    if not source:
        del component["source"]


def _check_bandwidth(component: Mapping[str, Any], name: str, field: str, where: str) -> None:
    if field == "bandwidth" and "bandwidth" not in component:
        raise ConfigError(
            f"{where}: {name} declares read_bandwidth ({component['read_bandwidth']}) and write_bandwidth "
            f"({component['write_bandwidth']}) apart: set {name}.read_bandwidth and {name}.write_bandwidth"
        )
    if field in ("read_bandwidth", "write_bandwidth") and "bandwidth" in component:
        raise ConfigError(
            f"{where}: {name} declares one bandwidth for both directions ({component['bandwidth']}): "
            f"set {name}.bandwidth"
        )
