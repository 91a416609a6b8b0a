"""Mappings of a whole network in one YAML or JSON file: op name -> mapping."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import Any

from sim.errors import MappingError, why
from sim.mapping.mapping import MAPPING_SCHEMA, Mapping

MAPPINGS_SCHEMA = "dovetail.mappings/1"


def read_mappings(path: str | Path) -> dict[str, Mapping]:
    """Op name -> mapping; a file with a single mapping (`dovetail.mapping/1`) gives it under "*".

    Raises: MappingError: no such file, no YAML, another schema, a malformed mapping.
    """
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MappingError(f"{path}: cannot be read: {why(error)}") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema == MAPPING_SCHEMA:
        return {"*": Mapping.from_dict(data, where=str(path))}
    ops = data.get("ops") if schema == MAPPINGS_SCHEMA else None
    if not isinstance(ops, dict) or set(data) != {"schema", "ops"}:
        raise MappingError(
            f"{path}: expected `schema: {MAPPINGS_SCHEMA}` with `ops: {{name: {{nodes: [...]}}}}`, or one mapping "
            f"with `schema: {MAPPING_SCHEMA}`"
        )
    return {str(name): _one(entry, where=f"{path}: ops[{name}]") for name, entry in ops.items()}


def _one(entry: Any, *, where: str) -> Mapping:
    if not isinstance(entry, dict):
        raise MappingError(f"{where}: expected a mapping with `nodes`, got {entry!r}")
    return Mapping.from_dict(entry, where=where)


def write_mappings(path: str | Path, mappings: MappingType[str, MappingType[str, object] | None]) -> None:
    """Write the mappings that an estimate chose (`OpEstimate.mapping`); ops without one are left out.

    Raises: MappingError: the file cannot be written.
    """
    import yaml

    from sim.documents import plain

    ops = {name: {"nodes": plain(found["nodes"])} for name, found in mappings.items() if found is not None}
    text = yaml.safe_dump({"schema": MAPPINGS_SCHEMA, "ops": ops}, sort_keys=False, default_flow_style=None, width=120)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise MappingError(f"{path}: cannot be written: {why(error)}") from error
