"""What is wrong with a space before anything is costed: missing energies, rates, qualities, contradictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.codesign.recipes import effect
from sim.codesign.schema import SpeedUpSpec
from sim.compression.benefit import wide_precision
from sim.compression.recipe import find_recipe
from sim.errors import ConfigError, PrecisionError
from sim.hardware.designs import Designs
from sim.hardware.money import die_cost
from sim.hardware.physical import check_energies, chip_area_mm2, peak_power_w
from sim.schedule.confidence import calibration_label
from sim.units import Dimension, parse_quantity
from sim.workload.precision import BITS, parse_precision

if TYPE_CHECKING:
    from sim.codesign.space import Space

SAMPLES = 4096
"""Chips drawn to see whether a limit excludes all, where the grid is larger."""
FACTS = {f"technology.{name}" for name in ("max_clock", "area", "power", "idle_power", "dies")}
UNITS = {
    "deadline": ("latency", Dimension.TIME, 1.0), "area": ("area", Dimension.AREA, 1.0),
    "power": ("power", Dimension.POWER, 1.0), "peak_power": ("peak_power", Dimension.POWER, 1.0),
    "energy": ("energy", Dimension.ENERGY, 1.0), "memory": ("memory", Dimension.SIZE, 1.0),
}  # fmt: skip
"""Key of `constraints` -> (metric, dimension, factor to the metric's unit)."""


def limits(space: Space) -> dict[str, float]:
    """Metric -> largest allowed value in base units. Raises: UnitError: a limit without its unit."""
    found: dict[str, float] = {}
    for key, (metric, dimension, factor) in UNITS.items():
        text = getattr(space.spec.constraints, key)
        if text is not None:
            found[metric] = factor * parse_quantity(text, dimension, where=f"{space.where}: constraints.{key}")
    if space.spec.constraints.die_cost_usd is not None:
        found["die_cost"] = space.spec.constraints.die_cost_usd
    if space.spec.constraints.miss_rate is not None:
        found["miss_rate"] = space.spec.constraints.miss_rate
    return found


def check(space: Space) -> tuple[str, ...]:
    """Remarks on the files that the space names: broken lines of baselines, which are skipped.

    Raises: ConfigError, PrecisionError.
    """
    from sim.codesign.scenario import find_record, make_scenario

    bounds = limits(space)
    calibration_label(space.chip, space.spec.scenario.calibration)  # refuses one that is unknown
    asked = {*space.spec.objective_names, *bounds}
    _facts(space)
    _energies(space, asked)
    _rates(space)
    _trainable(space)
    _contradiction(space, bounds)
    make_scenario(space)  # loads what the file names: functions, the record of speed_up, the event scenario
    named = [o.speed_up for o in space.spec.objectives if isinstance(o, SpeedUpSpec)]
    notes: list[str] = []
    for record in [*named, *space.spec.baselines]:
        find_record(record, space, notes.append)
    return tuple(dict.fromkeys(notes))


def _facts(space: Space) -> None:
    """What a file states of the silicon is no choice: a higher `max_clock` alone would lower the supply for nothing."""
    for parameter in space.parameters:
        if parameter.name in FACTS:
            raise ConfigError(
                f"{space.where}: {parameter.name} says what the silicon is and cannot be searched: search what it "
                "follows from (clock, technology.node, technology.voltage, the parts), or change it in the chip file"
            )


def _energies(space: Space, asked: set[str]) -> None:
    chip = space.chip
    if asked & {"energy", "edp", "power"}:
        check_energies(chip, parse_precision(chip.default_precision).compute, where=f"{space.where}: ")
    for name, value in (("area", chip_area_mm2), ("die_cost", chip_area_mm2), ("peak_power", peak_power_w)):
        if name in asked and (value(chip) is None or (name == "die_cost" and chip.technology.node_nm is None)):
            raise ConfigError(f"{space.where}: {name} is asked of {chip.name}, which has no technology.node")
    if "die_cost" in asked and chip.technology.dies > 1:
        raise ConfigError(f"{space.where}: die_cost is asked, but {die_cost(chip)['reason']}; ask for area")


def _rates(space: Space) -> None:
    """Every precision runs on the array, unless its rates are searched."""
    from sim.cost.ceilings import macs_per_s

    array = space.chip.main_unit.array.name
    if any(p.name.startswith(f"{array}.macs_per_cycle") for p in space.parameters):
        return
    for precision in space.spec.compression.precision or [space.chip.default_precision]:
        try:
            macs_per_s(space.chip.main_unit, parse_precision(precision).compute, chip=space.chip.name)
        except PrecisionError as error:
            raise PrecisionError(f"{space.where}: compression.precision: {error}") from error


def _trainable(space: Space) -> None:
    """Trained quality is that of one network in the widths that it is costed in."""
    quality, compression = space.spec.quality, space.spec.compression
    if quality is None or quality.method != "train":
        return
    if len(space.spec.workloads) > 1 and space.spec.combine != "one_of":
        raise ConfigError(f"{space.where}: quality.method train judges one network at a time; use combine: one_of")
    if compression.recipe:
        _computed_wide(space)
        return
    for pattern in compression.sparsity:
        if pattern != "none":
            raise ConfigError(
                f"{space.where}: quality.method train: networks are trained dense, and nothing says what {pattern} "
                "costs them; name recipes (compression.recipe)"
            )
    for name in compression.precision or [space.chip.default_precision]:
        widths = parse_precision(name)
        if min(BITS[widths.weight], BITS[widths.activation], BITS[widths.kv]) < 16:
            raise ConfigError(
                f"{space.where}: quality.method train: networks are trained in 32 bits, and nothing says what "
                f"{name} costs them; name recipes (compression.recipe) or 16-bit precisions"
            )


def _computed_wide(space: Space) -> None:
    """What a recipe leaves in the widths of training is costed in them."""
    wide = wide_precision(space.chip.main_unit.array)
    for name in space.spec.compression.recipe:
        if effect(name, wide=wide, folder=space.folder)[0] == wide and BITS[wide] < 16:
            techniques = {step.technique for step in find_recipe(name, folder=space.folder).steps}
            if not techniques & {"quantise", "quantise_aware_training"}:
                raise ConfigError(
                    f"{space.where}: compression.recipe: {name} rounds nothing, {space.chip.name} computes {wide} at "
                    "most, and nothing says what that costs; name recipes that quantise"
                )


def _contradiction(space: Space, bounds: dict[str, float]) -> None:
    """A limit on what the chip alone decides that no chip of the space meets."""
    if not {"area", "peak_power", "die_cost"} & set(bounds):
        return
    tables = sample_designs(space)
    found = [physical_metrics(designs) for designs in tables]
    for name, unit in (("area", "mm2"), ("peak_power", "W"), ("die_cost", "USD")):
        column = np.concatenate([metrics[name] for metrics in found])
        if name in bounds and not (column <= bounds[name]).any():
            best = float(np.nanmin(column))
            raise ConfigError(
                f"{space.where}: constraints.{name} of {bounds[name]:g} {unit} excludes all {len(column)} chips "
                f"looked at: the least is {best:.4g} {unit}, {_times(best / bounds[name])}; raise the limit or add "
                "smaller choices"
            )


def _times(ratio: float) -> str:
    """How far a value lies above a limit: "12% above", "3.4 times as much"."""
    return f"{ratio - 1:.1%} above" if ratio < 2 else f"{ratio:.3g} times as much"


def sample_designs(space: Space) -> list[Designs]:
    """All chips of the space where they are few, else a sample with the smallest and largest corners: one table for
    each set of parameters that count together, for the others keep the chip's own value."""
    mine = [p for p in space.parameters if p.side == "chip"]
    if any(p.when for p in mine):  # on whatever other parameters
        mine = list(space.parameters)
    ends = {p.name: p.values if p.values is not None else (p.low, p.high) for p in mine}
    rows: Iterable[tuple[Any, ...]] = product(*ends.values())
    if np.prod([float(len(values)) for values in ends.values()]) > SAMPLES:
        rng = np.random.default_rng(0)
        drawn = [[values[i] for i in rng.integers(len(values), size=SAMPLES)] for values in ends.values()]
        corners = [tuple(values[place] for values in ends.values()) for place in (0, -1)]
        rows = [*zip(*drawn, strict=True), *corners]
    chips = [chip for row in rows if _is_system(chip := space.overrides(dict(zip(ends, row, strict=True))), space)]
    tables: dict[tuple[str, ...], dict[tuple[Any, ...], None]] = {}
    for chip in chips:
        tables.setdefault(tuple(chip), {})[tuple(chip.values())] = None
    return [
        Designs.rows(space.chip, dict(zip(names, zip(*table, strict=True), strict=True)))
        for names, table in tables.items()
    ]


def _is_system(chip: Mapping[str, Any], space: Space) -> bool:
    """Whether so many chips make so many stages: no other parameters exclude each other."""
    try:
        space.chip.set_all({path: value for path, value in chip.items() if path.startswith("system.")})
    except ConfigError:
        return False
    return True


def physical_metrics(designs: Designs) -> dict[str, np.ndarray]:
    """What the chips of a design alone decide, of all of them: area [mm2], peak_power [W], die_cost [USD]; NaN where
    unknown."""
    from sim.hardware.technology import die_cost_usd

    area, copies = np.asarray(chip_area_mm2(designs), dtype=float), designs.system_chips
    node = designs.column("technology.node")
    known = not np.isnan(node).any() and designs.chip.technology.dies == 1
    return {
        "area": copies * area,
        "peak_power": copies * np.asarray(peak_power_w(designs), dtype=float),
        "die_cost": copies * die_cost_usd(area_mm2=area, node_nm=node) if known else np.full(len(designs), np.nan),
    }
