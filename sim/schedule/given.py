"""Mappings and latencies that the user gives, in any of the forms that the results and files of ours have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.errors import ConfigError, MappingError, expect, nearest
from sim.hardware.chip import Chip, Costing
from sim.mapping.api import SPACES
from sim.mapping.mapping import Mapping as LoopNest
from sim.units import Dimension, parse_quantity

GIVEN = "given"
"""The map space of results whose mappings were given."""
Given = LoopNest | Mapping[str, object]
"""A mapping, its document ({"nodes": [...]}), or op name -> one of these or None ("*" for all others)."""

_UNMAPPED = {
    Costing.GPU_KERNELS: "is costed by the kernels that it runs",
    Costing.GPU_EAGER: "is costed by the kernels that a framework launches on it",
    Costing.CPU: "is costed by the loops that its caches and cores allow",
    Costing.ROOFLINE: "is costed by roofline",
}


def given_mappings(mapping: Given | None, map_space: str, chip: Chip) -> tuple[dict[str, LoopNest], str]:
    """(op name -> mapping, "*" for all others; the map space that is searched for ops without one).

    Raises: MappingError: malformed, of another type, or for a unit that takes none; ConfigError: the map space "given"
        and no mapping.
    """
    if mapping is None:
        check_space(map_space)
        return {}, map_space
    found = _read(mapping)
    unit = chip.main_unit
    if unit.costing is not Costing.MAPPED and (found or map_space == GIVEN):
        raise MappingError(
            f"{chip.name}: {unit.name} {_UNMAPPED[unit.costing]}: there are no mappings to give; leave `mapping`, or "
            "--mapping, out"
        )
    space = "even" if map_space == GIVEN else map_space
    check_space(space)
    return found, space


def check_space(space: str) -> None:
    """Raises: MappingError: unknown; ConfigError: it takes mappings."""
    if space == GIVEN:
        raise ConfigError(
            f'map space "{GIVEN}" searches nothing: give mappings too, with `mapping=`, or --mapping of `dovetail '
            f"estimate`, or choose one of {', '.join(SPACES)}"
        )
    if space not in SPACES:
        raise MappingError(
            f'map space "{space}" is unknown: expected one of {", ".join((*SPACES, GIVEN))}.'
            f"{nearest(space, (*SPACES, GIVEN))}"
        )


def given_latencies_s(overrides: Mapping[str, float | str] | None) -> dict[str, float]:
    """Op name -> seconds, of numbers of seconds and of texts with a unit.

    Raises: ConfigError, UnitError: no map, or a time that is none.
    """
    due = 'a map from op to time such as {"layer1.0.conv1.0.convolution": "1.2 ms"}'
    expect({} if overrides is None else overrides, Mapping, due, where="overrides")
    found = {}
    for op, time in (overrides or {}).items():
        where = f"--override {op}"
        if isinstance(time, str):
            found[op] = parse_quantity(time, Dimension.TIME, where=where)
        else:
            due = 'seconds, or a time with its unit such as "1.2 ms"'
            expect(time, (float, int, np.floating, np.integer), due, where=where)
            if isinstance(time, bool):  # a whole number to Python
                raise ConfigError(f"{where}: expected {due}, got {time}")
            found[op] = float(time)
    return found


def _read(mapping: Given) -> dict[str, LoopNest]:
    if _is_one(mapping):
        return {"*": _one(mapping, where="mapping")}
    if not isinstance(mapping, Mapping):
        raise MappingError(f"mapping: {_EXPECTED}, got {type(mapping).__name__}")
    return {str(name): _one(one, where=f'mapping for "{name}"') for name, one in mapping.items() if one is not None}


def _is_one(mapping: object) -> bool:
    nodes = mapping.get("nodes") if isinstance(mapping, Mapping) else None
    return isinstance(mapping, LoopNest) or isinstance(nodes, list | tuple)


def _one(mapping: object, *, where: str) -> LoopNest:
    if isinstance(mapping, LoopNest):
        return mapping
    if not isinstance(mapping, Mapping):
        raise MappingError(f"{where}: {_EXPECTED}, got {type(mapping).__name__}")
    return LoopNest.from_dict(mapping, where=where)


_EXPECTED = "expected a sim.Mapping, its form with `nodes` (as `OpEstimate.mapping`), or op name -> one of these"

__all__ = ["GIVEN", "Given", "check_space", "given_latencies_s", "given_mappings"]
