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
    copies = _Copies(memo)
    for part in twin.modules():
        own = vars(part)
        for holder in (own, *(value for value in own.values() if isinstance(value, dict | list))):
            for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
                if isinstance(value, FunctionType):
                    holder[key] = copies.of(value)


class _Copies:
    """Copies of functions and of the variables that they close over, each made once: what one function sets, another
    sees. Functions and variables that lead to nothing that was copied stay as they are."""

    def __init__(self, memo: Mapping[int, Any]) -> None:
        self.memo = memo
        self.functions: dict[int, FunctionType] = {}
        self.cells: dict[int, CellType] = {}

    def of(self, value: Any) -> Any:
        if not isinstance(value, FunctionType):
            return self.memo.get(id(value), value)
        if id(value) not in self.functions and self._sees(value, set()):
            cells = tuple(map(self._cell, value.__closure__ or ()))
            made = FunctionType(value.__code__, value.__globals__, value.__name__, closure=cells)
            self.functions[id(value)] = made  # before it is met among what it sees
            for old, new in zip(value.__closure__ or (), cells, strict=True):
                if new is not old:
                    new.cell_contents = self.of(old.cell_contents)
            made.__defaults__ = value.__defaults__ and tuple(map(self.of, value.__defaults__))
            made.__kwdefaults__ = value.__kwdefaults__ and {k: self.of(v) for k, v in value.__kwdefaults__.items()}
            made.__dict__.update(value.__dict__)
        return self.functions.get(id(value), value)

    def _cell(self, cell: CellType) -> CellType:
        sees = any(self._sees(value, set()) for value in _contents(cell))
        return self.cells.setdefault(id(cell), CellType()) if sees else cell

    def _sees(self, value: Any, met: set[int]) -> bool:
        if not isinstance(value, FunctionType):
            return id(value) in self.memo
        if id(value) in met:
            return False
        met.add(id(value))
        closed = (one for cell in value.__closure__ or () for one in _contents(cell))
        given = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return any(self._sees(one, met) for one in (*closed, *given))


def _contents(cell: CellType) -> tuple[Any, ...]:
    """What a cell holds, if anything."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


__all__ = ["rebind"]
