"""Tables of a search: the space before anything is costed, the designs that none beats after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim.codesign.answer import value_text
from sim.view.fitted import Column, FittedTable, fitted, number, words

if TYPE_CHECKING:
    from sim.codesign.found import Found, Row
    from sim.codesign.ranges import Parameter
    from sim.codesign.space import Space

SHOWN = 12
"""Designs of the front in the terminal; all of them are in pareto.csv."""


def dry_run(space: Space, *, samples: int, seed: int = 0) -> list[FittedTable | str]:
    """The size of the space, its parameters, and `samples` designs drawn from it."""
    inner = int(np.prod([p.count for p in space.inner], initial=1))
    size = f"{space.size_text()}; one trial sweeps {inner:,} chips"
    size += f", of which at most {space.spec.budget.estimates:,} are costed"
    heads = (words("parameter", at_least=20), words("values", at_least=20), words("chosen by", drop=1),
             words("only when", drop=2))  # fmt: skip
    lines = [(p.name, _values(p), "sweep" if p.inner else "sampler", _when(p)) for p in space.parameters]
    rng = np.random.default_rng(seed)
    drawn = [space.draw(rng) for _ in range(samples)]
    names = [name for name in space.names if any(name in d for d in drawn)]
    cells = [[str(design.get(name, "-")) for name in names] for design in drawn]
    return [size, "", fitted(f"{space.spec.name}: parameters", heads, lines),
            fitted(f"{samples} samples", [_head(name, i) for i, name in enumerate(names)], cells)]  # fmt: skip


def _head(name: str, place: int) -> Column:
    """A parameter's column; of many, the later ones go first where there is no room."""
    return words(name, at_least=max(8, len(name)), drop=place)


def _when(p: Parameter) -> str:
    found = ", ".join(f"{name} in {list(values)}" for name, values in p.when.items())
    return found or (f"workload {p.workload}" if p.workload else "")


def _values(p: Parameter) -> str:
    if p.values is None:
        return f"{p.low:g} to {p.high:g} {p.unit}".rstrip() + (" (log)" if p.log else "")
    return ", ".join(str(v) for v in p.values)


def front_table(found: Found) -> FittedTable:
    """The designs that none beats, best in the first objective first: objectives, then what was chosen."""
    front = sorted(found.front, key=lambda row: found.signs[0] * row.values[0])
    shown = _spread(front)
    names = [n for n in dict.fromkeys(n for row in front for n in row.parameters)
             if len({str(row.parameters.get(n, "-")) for row in front}) > 1]  # fmt: skip
    heads = [number("design", drop=len(names) + 1), *map(number, found.objectives)]
    heads += [_head(name, i + 1) for i, name in enumerate(names)]
    lines = [
        [str(row.number), *map(value_text, found.objectives, row.values),
         *(str(row.parameters.get(name, "-")) for name in names)]
        for row in shown
    ]  # fmt: skip
    same = {n: front[0].parameters[n] for n in front[0].parameters if n not in names} if front else {}
    title = f"Beaten by none: {len(front)} design{'s' * (len(front) != 1)}" + (
        f", {len(shown)} of them shown" if len(shown) < len(front) else ""
    )
    return fitted(title + (f"; all with {_pairs(same)}" if same else ""), heads, lines)


def _pairs(values: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _spread(front: list[Row]) -> list[Row]:
    """At most `SHOWN`, evenly over the order, both ends among them."""
    if len(front) <= SHOWN:
        return front
    return [front[round(i * (len(front) - 1) / (SHOWN - 1))] for i in range(SHOWN)]
