"""What a parameter may be: a list of values, or a continuous range of a quantity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.codesign.schema import RangeSpec
from sim.errors import ConfigError

_QUANTITY = re.compile(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One dimension of the space, by name: `vit.depth`, `precision`, `SRAM.capacity`.

    `values` are the choices; None means continuous from `low` to `high` in `unit`. `workload` is the
    label of the workload whose knob it is. A parameter counts where every name in `when` has one of
    the values given there; `inner` ones are swept inside a trial.
    """

    name: str
    side: str
    """ "model" or "chip"."""
    values: tuple[Any, ...] | None
    low: float = 0.0
    high: float = 0.0
    unit: str = ""
    log: bool = False
    workload: str | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    inner: bool = False
    coarse: bool = False
    """never inner, by the file's word"""

    @property
    def count(self) -> float:
        return float("inf") if self.values is None else len(self.values)

    def text(self, value: float) -> str | float:
        """A number of a continuous range as the quantity that chip or knob takes."""
        return f"{value:.6g} {self.unit}" if self.unit else value

    def draw(self, rng: np.random.Generator) -> Any:
        if self.values is not None:
            return self.values[int(rng.integers(len(self.values)))]
        if self.log:
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        return float(rng.uniform(self.low, self.high))


def expand(spec: RangeSpec, *, where: str) -> dict[str, Any]:
    """`values`, or `low`, `high`, `unit` and `log` of a range.

    Raises: ConfigError: two units, an empty range, a log range from zero, values that stand twice.
    """
    if spec.choices is not None:
        if len(set(map(repr, spec.choices))) != len(spec.choices):
            raise ConfigError(f"{where}: a choice stands twice in {spec.choices}")
        return {"values": tuple(spec.choices)}
    (low, unit), (high, other) = (_split(end, where) for end in (spec.low, spec.high))
    if unit != other:
        raise ConfigError(f'{where}: begins in "{unit}" and ends in "{other}"; write both in one unit')
    if not low < high or (spec.log and low <= 0):
        raise ConfigError(f"{where}: low {spec.low} must be below high {spec.high}" + (" and above 0" * spec.log))
    whole = isinstance(spec.low, int) and isinstance(spec.high, int)
    if spec.points is not None:
        spaced = np.geomspace if spec.log else np.linspace
        steps = [float(s) for s in spaced(low, high, spec.points)]
    elif spec.step is not None:
        step, step_unit = _split(spec.step, where)
        if step_unit != unit or step <= 0:
            raise ConfigError(f'{where}: step {spec.step} must be above 0 and in "{unit}" like low and high')
        whole = whole and isinstance(spec.step, int)
        steps = [low + step * i for i in range(int((high - low) / step * (1 + 1e-12)) + 1)]
    else:
        return {"values": None, "low": low, "high": high, "unit": unit, "log": spec.log}
    if whole:
        return {"values": tuple(dict.fromkeys(round(s) for s in steps))}
    return {"values": tuple(f"{s:.6g} {unit}" if unit else float(f"{s:.6g}") for s in steps)}


def _split(value: Any, where: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(str(value))
    if match is None or isinstance(value, bool):
        raise ConfigError(f'{where}: "{value}" is no quantity, expected a number with its unit')
    return float(match[1]), match[2].strip()
