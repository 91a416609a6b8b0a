"""Tables of a search space before anything is costed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from sim.codesign.space import Space


def dry_run(space: Space, *, samples: int, seed: int = 0) -> list[Table | str]:
    """The size of the space, its parameters, and `samples` designs drawn from it."""
    from rich.table import Table

    model, chips, exact = space.size()
    words = "" if exact else "at most "
    inner = int(np.prod([p.count for p in space.inner], initial=1))
    parameters = Table(title=f"{space.spec.name}: parameters")
    for column in ("parameter", "chosen by", "values", "only when"):
        parameters.add_column(column)
    for p in space.parameters:
        level = "sweep inside a trial" if p.inner else "sampler"
        when = ", ".join(f"{name} in {list(values)}" for name, values in p.when.items())
        parameters.add_row(p.name, level, _values(p), when or (f"workload {p.workload}" if p.workload else ""))
    rng = np.random.default_rng(seed)
    drawn = [space.draw(rng) for _ in range(samples)]
    names = [name for name in space.names if any(name in d for d in drawn)]
    table = Table(title=f"{samples} samples")
    for name in names:
        table.add_column(name)
    for design in drawn:
        table.add_row(*(str(design.get(name, "-")) for name in names))
    size = (
        f"{words}{model:,.0f} model sides x {chips:,.0f} chips = {model * chips:,.0f} designs; one trial sweeps "
        f"{inner:,} chips, of which at most {space.spec.budget.estimates:,} are costed"
    )
    return [size, parameters, table]


def _values(p: Any) -> str:
    if p.values is None:
        return f"{p.low:g} to {p.high:g} {p.unit}".rstrip() + (" (log)" if p.log else "")
    return ", ".join(str(v) for v in p.values)
