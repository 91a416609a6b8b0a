"""Functions that a copied module holds (hooks, a forward of its own): they speak of the copy, not of the original.

`copy.deepcopy` keeps functions as they are, so that a hook that was made by a method (`def hook(m, i, o):
self.features[name] = o`) would write into the original while the copy runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import CellType, FunctionType
from typing import Any

from torch import nn


def rebind(twin: nn.Module, memo: Mapping[int, Any]) -> None:
    """Functions among the attributes and hooks of a deep copy see copies where they saw what was copied.

    Args: memo: deepcopy's, of the originals' ids to their copies.
    """
    made: dict[int, FunctionType] = {}
    for part in twin.modules():
        own = vars(part)
        for holder in (own, *(value for value in own.values() if isinstance(value, dict))):
            for key, value in holder.items():
                if isinstance(value, FunctionType):
                    holder[key] = _rebound(value, memo, made)


def _rebound(function: FunctionType, memo: Mapping[int, Any], made: dict[int, FunctionType]) -> FunctionType:
    """The function over copied cells and defaults; itself where it sees nothing that was copied."""
    if id(function) in made:
        return made[id(function)]
    made[id(function)] = function  # where it calls itself
    values = [_value(cell) for cell in function.__closure__ or ()]
    defaults = list(function.__defaults__ or ())
    new = [_rebound(v, memo, made) if isinstance(v, FunctionType) else memo.get(id(v), v) for v in (*values, *defaults)]
    if all(after is before for after, before in zip(new, (*values, *defaults), strict=True)):
        return function
    cells = tuple(CellType() if value is CellType else CellType(value) for value in new[: len(values)])
    code, name = function.__code__, function.__name__
    copied = FunctionType(code, function.__globals__, name, tuple(new[len(values) :]) or None, cells)
    copied.__kwdefaults__, copied.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    made[id(function)] = copied
    return copied


def _value(cell: CellType) -> Any:
    """What a cell holds; `CellType` itself for one without contents."""
    try:
        return cell.cell_contents
    except ValueError:
        return CellType


__all__ = ["rebind"]
