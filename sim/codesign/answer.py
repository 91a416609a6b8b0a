"""The folder that a search leaves: Pareto set, winners that reproduce, figures, and a text that says why."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from sim._version import __version__
from sim.codesign.choice import ModelChoice
from sim.codesign.found import Found, Row
from sim.codesign.pareto import spread
from sim.codesign.scenario import Costing
from sim.codesign.space import Space
from sim.codesign.trained import Course, Trained
from sim.compression.recipe import recipe_file
from sim.documents import plain
from sim.errors import DovetailError
from sim.hardware.chip import Chip
from sim.hardware.dump import chip_hash, dump
from sim.hardware.money import die_cost_assumes, modelled_alone
from sim.schedule.confidence import calibration_label
from sim.sweep_io import write_table
from sim.units import Dimension, format_quantity, parse_quantity
from sim.workload.serialize import save_graph

UNITS = {
    "latency": "s", "energy": "J", "edp": "J s", "area": "mm2", "power": "W", "peak_power": "W", "die_cost": "USD",
    "throughput": "1/s", "quality": "", "speed_up": "", "goodput": "1/s", "miss_rate": "", "memory": "B",
}  # fmt: skip


LATE = 0.25
"""Share of the trials: a front that grew within the last of them may go on to grow."""
WINNER_FILES = ("chip.yaml", "command.txt", "scenario.yaml", "winner.json")
"""What a winner's folder holds beside its graphs."""


@dataclass(frozen=True, kw_only=True)
class Winner:
    """A Pareto design costed again from its own chip, and by the event simulator."""

    id: str
    row: Row
    choice: ModelChoice
    chip: Chip
    exact: bool
    """The second evaluation gave the told values to the last bit."""
    simulated: Mapping[str, Any]
    """part -> simulated and estimated seconds, or why not"""
    scenario: Mapping[str, Any] | None = None
    """The scenario file in which it was simulated."""
    course: Course | None = None
    """How it was trained."""


_DIMENSIONS = {"latency": Dimension.TIME, "energy": Dimension.ENERGY, "power": Dimension.POWER,
               "peak_power": Dimension.POWER, "area": Dimension.AREA, "memory": Dimension.SIZE}  # fmt: skip


def value_text(objective: str, value: float) -> str:
    """A value of an objective for people: "17.6 µs", "14.3 mm2", "0.2688"."""
    dimension = _DIMENSIONS.get(objective)
    if dimension is None or not isfinite(value):
        return f"{value:.4g} {UNITS.get(objective, '')}".rstrip()
    return format_quantity(value, dimension).replace(" u", " µ")


def columns(found: Found) -> list[str]:
    return [_column(name) for name in found.objectives]


def _column(name: str) -> str:
    return f"{name} [{UNITS[name]}]" if UNITS[name] else name


def write_answer(found: Found, costing: Costing, folder: Path) -> tuple[Winner, ...]:
    """Write pareto.csv (and pareto.parquet where pyarrow is installed), winners/<id>/, summary.txt and search.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "pareto.csv", pareto_columns(found))
    if find_spec("pyarrow") is not None:
        write_table(folder / "pareto.parquet", pareto_columns(found))
    chosen = winners(found, costing)
    _clear(folder / "winners", {winner.id for winner in chosen})
    for winner in chosen:
        write_winner(winner, found, costing, folder / "winners" / winner.id)
    _write(folder / "summary.txt", summary(found, costing, chosen))
    document = {
        "schema": "dovetail.study/1", "version": __version__, "space": found.space,
        "identity": costing.space.identity(), "trials": found.trials, "covered": found.covered,
        "points": found.points, "costed": found.costed, "counts": dict(found.counts), "sampler": found.sampler,
        "seed": found.seed, "spent_cpu_s": dict(found.spent),
        "die_cost_assumes": die_cost_assumed(costing.space),
        "better": {name: int(-sign) for name, sign in zip(columns(found), found.signs, strict=True)},
    }  # fmt: skip
    _write(folder / "search.json", json.dumps(plain(document), indent=2))
    return chosen


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a search that goes on and is killed here leaves what it found before."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _clear(home: Path, kept: Collection[str]) -> None:
    """Take away what an earlier run of a search that went on wrote of designs that are no winners any more."""
    for folder in home.iterdir() if home.is_dir() else ():
        if folder.name not in kept and (folder / "winner.json").is_file():
            for name in WINNER_FILES:
                (folder / name).unlink(missing_ok=True)
            for graph in folder.glob("*.graph.json"):
                graph.unlink()
            if not any(folder.iterdir()):  # else something of the user's lies there
                folder.rmdir()


def pareto_columns(found: Found) -> dict[str, list[Any]]:
    """The front as columns: number of the design, parameters (None where one does not count), objectives with their
    units, and what else is limited. A column holds one kind of value: numbers, truth values, or else texts."""
    front = found.front
    names = list(dict.fromkeys(name for row in front for name in row.parameters))
    parameters = {name: _one_kind([row.parameters.get(name) for row in front]) for name in names}
    values = {name: [float(row.values[k]) for row in front] for k, name in enumerate(columns(found))}
    limited = {_column(name): [found.limited_value(row, name) for row in front] for name in found.limited}
    return {"design": [row.number for row in front], **parameters, **values, **limited}


def _one_kind(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds == {int, float}:
        return values
    return [None if value is None else str(value) for value in values]


def winners(found: Found, costing: Costing) -> tuple[Winner, ...]:
    """Up to `budget.winners` designs that represent the front, each costed again and simulated."""
    front = found.front
    if not front:
        return ()
    picked = spread(found.scaled(front), costing.space.spec.budget.winners)
    return tuple(_winner(front[i], costing) for i in picked)


def _winner(row: Row, costing: Costing) -> Winner:
    space = costing.space
    choice = space.choice(row.parameters)
    designs = costing.one(row.parameters)
    again = costing.table(row.parameters, one=True)
    values = again.values(costing.scenario.objectives, 0)
    chip = designs.row(0)
    return Winner(
        id=f"{row.number:05d}", row=row, choice=choice, chip=chip, exact=values == row.values,
        simulated=_simulated(choice, chip, costing),
        scenario=costing.scenario.driven.document(choice) if costing.scenario.driven else None,
        course=_course(costing, choice),
    )  # fmt: skip


def _course(costing: Costing, choice: ModelChoice) -> Course | None:
    trained = costing.scenario.quality
    return trained.courses.get(trained.key(choice)) if isinstance(trained, Trained) else None


def _simulated(choice: ModelChoice, chip: Chip, costing: Costing) -> dict[str, Any]:
    """Each part alone in the event simulator, beside its estimate."""
    from sim.analytical import estimate

    found: dict[str, Any] = {}
    scenario = costing.scenario
    options: dict[str, Any] = {
        "precision": choice.precision, "objective": scenario.mapping_for, "map_space": scenario.map_space,
        "calibration": scenario.calibration,
    }  # fmt: skip
    for part, graph in zip(choice.parts, choice.graphs(), strict=True):
        try:
            from sim.events.simulate import simulate

            run = simulate(graph, chip, **options)
            expected = estimate(graph, chip, **options)
            found[part.label] = {"simulated_s": run.latency_s, "estimated_s": expected.latency_s,
                                 "contended_s": getattr(run, "contended_s", None)}  # fmt: skip
        except (ImportError, DovetailError) as error:
            found[part.label] = {"absent": f"{type(error).__name__}: {error}"}
    return found


def commands(winner: Winner, costing: Costing) -> list[str]:
    """The lines that give the winner's numbers again, run in its folder."""
    lines = []
    mapped = "".join(
        f" --{option} {value}"
        for option, value, usual in (("objective", costing.scenario.mapping_for, "latency"),
                                     ("map-space", costing.scenario.map_space, "even"),
                                     ("calibration", costing.scenario.calibration, "auto"))
        if value != usual
    )  # fmt: skip
    for part in winner.choice.parts:
        knobs = "".join(f" -p {quote(f'{name}={value}')}" for name, value in part.knobs)
        model = f"{quote(part.absolute)}{knobs}"
        as_built = winner.choice.sparsity == "none" and part.graph is None
        subject = model if as_built else f"{part.label}.graph.json"
        lines.append(f"dovetail estimate {subject} --hw ./chip.yaml --precision {winner.choice.precision}{mapped}")
        if winner.course is not None and winner.choice.recipe is not None:
            spec = costing.space.spec.quality
            assert spec is not None
            recipe = quote(_recipe(winner.choice.recipe, costing.space.folder))
            lines.append(f"dovetail compress {model} --recipe {recipe} --train-steps {spec.steps} --seed {spec.seed}")
    if winner.scenario is not None:
        seed = costing.space.spec.scenario.seed
        lines.append(f"dovetail simulate scenario.yaml --hw ./chip.yaml --seed {seed}")
    return lines


def _recipe(name: str, folder: Path) -> str:
    return str(recipe_file(name, folder=folder).resolve()) if name.endswith((".yaml", ".yml")) else name


def write_winner(winner: Winner, found: Found, costing: Costing, folder: Path) -> None:
    """chip.yaml, winner.json (`dovetail.winner/1`), graphs where a pass changed them, the scenario where there is
    one, and command.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "chip.yaml", dump(winner.chip))
    choice = winner.choice
    if choice.sparsity != "none":
        for part, graph in zip(choice.parts, choice.graphs(), strict=True):
            save_graph(graph, folder / f"{part.label}.graph.json")
    if winner.scenario is not None:
        _write(folder / "scenario.yaml", yaml.safe_dump(dict(winner.scenario), sort_keys=False))
    document = {
        "schema": "dovetail.winner/1", "version": __version__, "search": found.space, "trial": winner.row.number,
        "sampler": found.sampler, "seed": found.seed, "chip_hash": chip_hash(winner.chip),
        "parameters": dict(winner.row.parameters), "precision": choice.precision, "sparsity": choice.sparsity,
        "recipe": choice.recipe,
        "workloads": [{"name": p.label, "workload": p.workload, "knobs": dict(p.knobs), "weight": p.weight}
                      for p in choice.parts],
        "objectives": dict(zip(found.objectives, winner.row.values, strict=True)),
        "reproduced_exactly": winner.exact, "simulated": dict(winner.simulated),
        "training": None if winner.course is None else winner.course.to_dict(),
    }  # fmt: skip
    _write(folder / "winner.json", json.dumps(plain(document), indent=2))
    _write(folder / "command.txt", "\n".join(commands(winner, costing)) + "\n")


def summary(found: Found, costing: Costing, chosen: tuple[Winner, ...]) -> str:
    """What was looked at, what was rejected and why, what won and what the nearest of the worse lacks."""
    lines = [
        f"{found.space}: {found.title}".rstrip(": "),
        (
            f"{found.trials} trials ({found.repeats} of them repeats), {found.covered} model-chip pairs, "
            f"{found.points} of them settled, {found.costed} costed; sampler {found.sampler}, seed {found.seed}"
        ),
        f"calibration {costing.scenario.calibration}: "
        + calibration_label(costing.space.chip, costing.scenario.calibration),
        *costing.space.notes,
        *_spent(found),
        *(
            f"  {count:8d}  {_reason(reason)}"
            for reason, count in sorted(found.counts.items(), key=lambda item: -item[1])
        ),
    ]
    if found.left_untold:
        lines.append(f"{found.left_untold} Pareto rows of single trials were thinned out before they were told back")
    lines += [f"quality: {source}" for source in found.quality_sources]
    if assumed := die_cost_assumed(costing.space):
        lines.append(f"die cost: {assumed}")
    miss = found.nearest_miss
    if miss is not None:
        worst = ", ".join(f"{name} by {_by(amount)}" for name, amount in miss.violations.items() if amount > 0)
        lines.append(f"No design meets all limits. The nearest, design {miss.number}, misses {worst}:")
        lines.append(f"  {', '.join(f'{name} {value}' for name, value in miss.parameters.items())}")
    lines.append(f"Pareto set: {len(found.front)} design{'s' * (len(found.front) != 1)}{_newest(found)}")
    for winner in chosen:
        pairs = zip(found.objectives, winner.row.values, strict=True)
        values = ", ".join(f"{name} {value_text(name, value)}" for name, value in pairs)
        limited = ", ".join(
            f"{name} {value_text(name, found.limited_value(winner.row, name))} "
            f"of {value_text(name, found.limits[name])}"
            for name in found.limited
        )
        values += f"; {limited}" if limited else ""
        lines += [f"winner {winner.id}: {values}", *(f"  {line}" for line in _why(winner.row, found))]
        lines.append(f"  reproduced exactly: {'yes' if winner.exact else 'NO'}")
        lines += [f"  {_confirmed(part, result)}" for part, result in winner.simulated.items()]
    return "\n".join(lines) + "\n"


def _newest(found: Found) -> str:
    """When the last design entered the front: late means that the search was stopped, not finished."""
    if not found.front:
        return ""
    newest = max(found.parents.get(row.number, row.number) for row in found.front)
    place = sum(number <= newest for number, _ in found.reached)
    more = ": more trials may find better ones" if place > len(found.reached) * (1 - LATE) else ""
    return f"; the newest came with number {place} of {len(found.reached)} trials{more}"


def die_cost_assumed(space: Space) -> str | None:
    """What every die cost of a search rests on; None where none is asked for."""
    if "die_cost" not in space.spec.objective_names and space.spec.constraints.die_cost_usd is None:
        return None
    path = "technology.node"
    searched = next((p.values for p in space.parameters if p.name == path and p.values is not None), ())
    own = space.chip.technology.node_nm
    nodes = [parse_quantity(str(value), Dimension.NODE, where=path) for value in searched]
    if not nodes and own is not None:
        nodes = [own]
    return die_cost_assumes(nodes, modelled=modelled_alone(space.chip)) if nodes else None


def _spent(found: Found) -> list[str]:
    """Where the CPU time went, and how many pairs a second of it settled."""
    total = sum(found.spent.values())
    inside = found.spent["estimates"] + found.spent["bounds"]
    if not (total and inside):
        return []
    shares = ", ".join(f"{name} {seconds / total:.0%}" for name, seconds in found.spent.items())
    lines = [f"{total:.1f} CPU s in trials: {shares}"]
    rate = (
        f"evaluations inside trials: {found.covered / inside:.0f} pairs a CPU second bounded, "
        f"{found.points / inside:.0f} settled"
    )
    if found.spent["estimates"]:
        rate += f"; {found.costed / found.spent['estimates']:.1f} estimates a CPU second of their own"
    return [*lines, rate]


def _by(amount: float) -> str:
    """How far beyond a limit, as a share of it."""
    return f"{amount:.1%}" if amount < 10 else f"a factor of {1 + amount:.4g}"


def _reason(name: str) -> str:
    """Why pairs did not count; what bears the name of a quantity broke its limit."""
    quantity, _, rest = name.partition(" ")
    if rest == "at its roofline":
        return f"over the limit of {quantity} whatever the mapping"
    return name if rest or name == "accepted" else f"over the limit of {name}"


def _confirmed(part: str, result: Mapping[str, Any]) -> str:
    if "absent" in result:
        return f"{part}: not confirmed by the event simulator: {result['absent']}"
    ratio = result["simulated_s"] / result["estimated_s"] - 1
    took = value_text("latency", result["simulated_s"])
    return f"{part}: event simulator {took}, {round(100 * ratio, 2) + 0.0:+.2f} % against the estimate"


def _why(row: Row, found: Found) -> list[str]:
    """Against the feasible design in each objective that is worse and differs least: what the winner has and it
    lacks."""
    lines = []
    others = [r for r in found.feasible if dict(r.parameters) != dict(row.parameters)]
    for k, name in enumerate(found.objectives):
        worse = [r for r in others if found.signs[k] * r.values[k] > found.signs[k] * row.values[k]]
        if not worse:
            continue
        other = min(worse, key=lambda r: (_distance(r, row), found.signs[k] * r.values[k]))
        changed = [f"{key} {value} (not {other.parameters.get(key, 'absent')})"
                   for key, value in row.parameters.items() if other.parameters.get(key) != value]  # fmt: skip
        ours, theirs = row.values[k], other.values[k]
        how = f"is at {theirs / ours:.3f} times" if ours * theirs > 0 else f"has {value_text(name, theirs)}"
        lines.append(f"{name}: {', '.join(changed)}; the nearest that is worse, design {other.number}, {how}")
    return lines


def _distance(a: Row, b: Row) -> int:
    return sum(a.parameters.get(name) != b.parameters.get(name) for name in {*a.parameters, *b.parameters})
