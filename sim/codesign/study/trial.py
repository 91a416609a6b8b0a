"""One trial: ask for a model side and coarse chip, sweep the chips inside, tell the rows back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sim.codesign.choice import Scenario
from sim.codesign.evaluate import BEFORE, LEFT, Table
from sim.codesign.found import Row
from sim.codesign.guide import OPTIMISM, Guide, Promise, number_like
from sim.codesign.pareto import dominated_by, non_dominated, spread
from sim.codesign.scenario import Costing, row_parameters
from sim.codesign.space import Space
from sim.codesign.study.leases import held
from sim.codesign.study.samplers import TOLD_ROWS, InnerChoice, distribution, nearest_row
from sim.codesign.study.spent import Account
from sim.codesign.trained import Course, Trained
from sim.errors import DovetailError, TraceError

REDRAWS = 64
"""Draws in search of a choice that was not swept before."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


HOPES = (1.0, 2.0, 4.0)
"""What the guide's optimism is multiplied by where nothing promises anything."""
KINDS = 0.25
"""Share of the trials that get on with one kind of design, where there is one objective."""


@dataclass
class Archive:
    """What the study knows so far, read incrementally; `front` is in minimised objectives.

    What other processes learned by training is handed on to the scenario's judge.
    """

    scenario: Scenario
    finished: int = 0
    """Trials that were asked for and told; rows told in addition are not counted."""
    front: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    winners: list[Mapping[str, Any]] = field(default_factory=list)
    """Parameters of the front's designs."""
    best: dict[tuple[str, str], tuple[float, Mapping[str, Any]]] = field(default_factory=dict)
    """With one objective: (a parameter without order, its choice) -> (objective, parameters) of its best design."""
    unpromising: dict[float, tuple] = field(default_factory=dict)
    """Optimism -> what was known when nothing looked at promised anything."""
    costed: int = 0
    """Model-chip pairs handed to `estimate`."""
    rows: dict[str, list[Row]] = field(default_factory=dict)
    """Key of the coarse choice -> rows told for it."""
    seen: set[int] = field(default_factory=set)

    def update(self, study: optuna.Study) -> None:
        fresh, parameters = [], []
        for trial in study.get_trials(deepcopy=False, states=COUNTED):
            if trial.number in self.seen:
                continue
            self.seen.add(trial.number)
            self.finished += "parent" not in trial.user_attrs
            self.costed += trial.user_attrs.get("costed", 0)
            if isinstance(self.scenario.quality, Trained) and trial.user_attrs.get("training"):
                self.scenario.quality.remember(Course.of(trial.user_attrs["training"]))
            if trial.state is TrialState.COMPLETE:
                row = read_row(trial)
                self.rows.setdefault(trial.user_attrs.get("key", ""), []).append(row)
                if row.feasible:
                    pairs = zip(self.scenario.objectives, row.values, strict=True)
                    fresh.append([float(self.scenario.minimised(name, value)) for name, value in pairs])
                    parameters.append(row.parameters)
                    self._remember_best(fresh[-1], row.parameters)
        if fresh:
            both = np.array(fresh) if not self.front.size else np.concatenate([self.front, np.array(fresh)])
            known = self.winners + parameters
            kept = np.flatnonzero(non_dominated(both))
            self.front, first = np.unique(both[kept], axis=0, return_index=True)
            self.winners = [known[kept[i]] for i in first]

    def _remember_best(self, values: list[float], parameters: Mapping[str, Any]) -> None:
        for key in parameters.items() if len(values) == 1 else ():
            kind = isinstance(key[1], str) and not number_like(key[1])
            if kind and (key not in self.best or values[0] < self.best[key][0]):
                self.best[key] = (values[0], parameters)

    def kind(self, rng: np.random.Generator) -> tuple[tuple[str, str], np.ndarray] | None:
        """Now and then, with one objective, a kind of design to get on with and the objective (1, 1) that it has
        reached: what looks worse at first may have more to gain."""
        if not self.best or rng.random() > KINDS:
            return None
        keys = list(self.best)
        key = keys[int(rng.integers(len(keys)))]
        return key, np.array([[self.best[key][0]]])

    @property
    def parents(self) -> list[Mapping[str, Any]]:
        """Designs whose neighbours are worth a look: the front's; with one objective the best of each kind (of network,
        type, dataflow), since one best design holds a search in its own neighbourhood."""
        return [parameters for _, parameters in self.best.values()] or self.winners


def read_row(trial: FrozenTrial) -> Row:
    violations = trial.user_attrs.get("violations", {})
    return Row(number=trial.number, parameters=trial.params, values=tuple(trial.values), violations=violations)


def run_trial(
    study: optuna.Study, sampler: InnerChoice, costing: Costing, archive: Archive, guide: Guide | None, name: str,
    seed: int, account: Account,
) -> int:  # fmt: skip
    """Ask, cost, tell. Returns the trial's number. Raises: DovetailError: bad input, not a bad design."""
    space = costing.space
    trial = study.ask()
    with held(trial):
        assert not trial.relative_params  # asking for them makes the sampler propose, which it does at first use
        fixed = trial.user_attrs.get("fixed", {})
        again = False
        if guide is not None:
            one = len(space.spec.objectives) == 1  # a front has room for all, one best has not
            guide.optimism = OPTIMISM * (trial.number % 2 if one else 1)
        if not fixed:
            drawn = np.random.default_rng([trial.number, seed])
            with account.stage("guide"):
                sampler.proposal, again = _proposal(sampler.proposal, costing, archive, guide, drawn, account)
        coarse = {p.name: _suggest(trial, p) for p in space.coarse}
        wanted = {p.name: fixed.get(p.name, sampler.proposal.get(p.name)) for p in space.inner}
        rng = np.random.default_rng([seed, trial.number])
        wanted = {p.name: p.draw(rng) if wanted[p.name] is None else wanted[p.name] for p in space.inner}
        known = all(p.name in fixed for p in space.inner) and bool(fixed)
        key = space.key(coarse)
        trial.set_user_attr("key", key)
        if key in archive.rows and not known and not again:
            _repeat(study, sampler, trial, archive.rows[key], costing, wanted)
            return trial.number
        try:
            front = archive.front if archive.front.size else None
            pairs = space.spec.budget.pairs
            with account.stage("traces"):
                costing.trace({**coarse, **wanted})
            with account.stage("bounds"):
                table = costing.table(
                    {**coarse, **wanted}, against=None if known else front, one=known, guide=guide,
                    estimates=None if pairs is None else max(1, pairs - archive.costed),
                    sweep=account.timed(costing.sweep),
                )  # fmt: skip
        except DovetailError as error:
            if not _impossible(error):
                raise
            _give_up(study, trial, str(error))
            return trial.number
        _tell(study, sampler, trial, table, costing, {**coarse, **wanted}, archive, TOLD_ROWS[name], known)
    return trial.number


def _impossible(error: DovetailError) -> bool:
    """No chip runs the choice, or its knobs do not go together: a property of the design, not bad input."""
    return error.exit_code == 1 or isinstance(error, TraceError)


def _proposal(
    proposal: Mapping[str, Any],
    costing: Costing,
    archive: Archive,
    guide: Guide | None,
    rng: np.random.Generator,
    account: Account,
) -> tuple[dict[str, Any], bool]:
    """(the sampler's proposal, or of all choices looked at so far the one of which a chip promises to add most to
    the front; whether it is worth its chips although it may have been swept before).

    Each trial looks at the sampler's proposal, some random choices, and as many that differ from one of the best
    designs in one or two parameters: of a large space random choices alone would hardly ever come near the best.

    A choice that no chip runs promises nothing. Where nothing promises anything, the sampler decides.
    """
    space = costing.space
    first = _unseen(proposal, costing, archive, rng)
    if guide is None or not space.coarse:
        return first, False
    count = space.spec.sampler.screen
    parents = archive.parents
    near = count // 2 if parents else 0
    fresh = [first, *({p.name: p.draw(rng) for p in space.coarse} for _ in range(count - near))]
    fresh += [_neighbour(parents[int(rng.integers(len(parents)))], space, rng) for _ in range(near)]
    for choice in fresh:
        try:
            with account.stage("traces"):
                costing.trace(choice)
            costing.look(choice, guide)
        except DovetailError as error:
            if not _impossible(error):
                raise
    best = _most_promising(costing, archive, guide, rng)
    return (first, False) if best is None else ({**first, **best}, True)


def _most_promising(
    costing: Costing, archive: Archive, guide: Guide, rng: np.random.Generator
) -> Mapping[str, Any] | None:
    """The choice, of all looked at, of which a chip promises to add most: to the front, or to the best of a kind.

    Where nothing does, more is hoped for (`Guide.optimism`) before the sampler decides.
    """
    known = (costing.changes, guide.learned, archive.front.tobytes())
    for optimism in dict.fromkeys(guide.optimism * more for more in HOPES):
        if archive.unpromising.get(optimism) == known:  # a small space all of which was looked at
            continue
        guide.optimism = optimism
        best = _promising(costing, archive, guide, rng, known)
        if best is not None:
            return best
    return None


def _promising(
    costing: Costing, archive: Archive, guide: Guide, rng: np.random.Generator, known: tuple
) -> Mapping[str, Any] | None:
    """The same at the guide's optimism; that nothing was found is remembered with what was `known`."""
    choices, owners, predicted = costing.promise(guide)
    reached, kind = archive.front, archive.kind(rng)
    if kind is not None:
        (name, value), reached = kind
        own = np.array([choice.get(name) == value for choice in choices], dtype=bool)[owners]
        owners, predicted = owners[own], predicted[own]
    best = Promise.beyond(reached, predicted, seed=int(rng.integers(2**31)), signed=guide.signed).best(predicted)
    if best is not None:
        return choices[owners[best]]
    if kind is None:
        archive.unpromising[guide.optimism] = known
    return None


def _neighbour(design: Mapping[str, Any], space: Space, rng: np.random.Generator) -> dict[str, Any]:
    """The coarse choice of a design with one or two parameters drawn anew."""
    found = {p.name: design[p.name] if p.name in design else p.draw(rng) for p in space.coarse}
    active = [p for p in space.coarse if p.name in space.active(found)]
    for place in rng.choice(len(active), size=min(len(active), int(rng.integers(1, 3))), replace=False):
        found[active[place].name] = active[place].draw(rng)
    return found


def _unseen(
    proposal: Mapping[str, Any], costing: Costing, archive: Archive, rng: np.random.Generator
) -> dict[str, Any]:
    """The proposal with one coarse parameter after another drawn anew until the choice was not swept before.

    What the sampler leaves open in its first trials is drawn uniformly. Where all seems swept, the
    last draw stands and is told as a repeat.
    """
    space = costing.space
    found = {p.name: p.draw(rng) for p in space.coarse} | dict(proposal)
    for _ in range(REDRAWS):
        if not space.coarse or space.key(found) not in archive.rows:
            break
        p = space.coarse[int(rng.integers(len(space.coarse)))]
        found[p.name] = p.draw(rng)
    return found


def _suggest(trial: Trial, p: Any) -> Any:
    if p.values is None:
        return trial.suggest_float(p.name, p.low, p.high, log=p.log)
    return trial.suggest_categorical(p.name, list(p.values))


def _give_up(study: optuna.Study, trial: Trial, reason: str) -> None:
    """No chip runs this choice: the reason stays with the trial."""
    trial.set_user_attr("counts", {reason.partition(": ")[0][:120]: 1})
    _tell_nothing(study, trial, reason)


def _tell_nothing(study: optuna.Study, trial: Trial, reason: str) -> None:
    trial.set_user_attr("reason", reason[:500])
    study.tell(trial, state=TrialState.PRUNED)


def _repeat(
    study: optuna.Study,
    sampler: InnerChoice,
    trial: Trial,
    rows: list[Row],
    costing: Costing,
    wanted: Mapping[str, Any],
) -> None:
    """The coarse choice was swept before: tell the row of it that is nearest to what was proposed."""
    row = rows[nearest_row(costing.space, [r.parameters for r in rows], wanted)]
    trial.set_user_attr("repeat_of", row.number)
    _finish(study, sampler, trial, costing, row.parameters, row.values, row.violations)


def _finish(
    study: optuna.Study, sampler: InnerChoice, trial: Trial, costing: Costing, parameters: Mapping[str, Any],
    values: tuple[float, ...], violations: Mapping[str, float],
) -> None:  # fmt: skip
    sampler.chosen = parameters
    trial.set_user_attr("violations", dict(violations))
    for p in costing.space.inner:
        _suggest(trial, p)
    for name, amount in violations.items():
        trial.set_constraint(name, amount)
    study.tell(trial, list(values))


def _tell(
    study: optuna.Study, sampler: InnerChoice, trial: Trial, table: Table, costing: Costing,
    assignment: Mapping[str, Any], archive: Archive, extra: int, known: bool,
) -> None:  # fmt: skip
    space = costing.space
    designs = costing.one(assignment) if known else costing.designs(assignment)
    trial.set_user_attr("counts", {reason: n for reason, n in table.counts.items() if reason != BEFORE})
    covered = len(table) - table.counts.get(BEFORE, 0)
    trial.set_user_attr("covered", covered)
    trial.set_user_attr("points", covered - table.counts.get(LEFT, 0))
    trial.set_user_attr("costed", int(table.costed.sum()))
    trial.set_user_attr("quality_source", table.quality_source)
    if table.training is not None:
        trial.set_user_attr("training", table.training)
    rows = _rows_to_tell(table)
    if not len(rows):
        _tell_nothing(study, trial, str(table.reason[0]))
        return
    full = [{**assignment, **row_parameters(designs, int(r))} for r in rows]
    first = nearest_row(space, full, assignment)
    outcomes = [_outcome(table, int(r), archive.scenario.objectives) for r in rows]
    _finish(study, sampler, trial, costing, full[first], *outcomes[first])
    others = [i for i in range(len(rows)) if i != first and table.accepted[rows[i]]]
    if archive.front.size and others:
        beaten = dominated_by(table.objectives[rows[others]], archive.front)
        others = [i for i, bad in zip(others, beaten, strict=True) if not bad]
    kept = [others[i] for i in spread(table.objectives[rows[others]], extra)] if others else []
    if len(others) > len(kept):
        study.set_user_attr(f"left_{trial.number}", len(others) - len(kept))
    for i in kept:
        values, violations = outcomes[i]
        study.add_trial(
            create_trial(
                values=list(values), params=full[i], distributions={p.name: distribution(p) for p in space.parameters},
                constraints=violations or None,
                user_attrs={"parent": trial.number, "violations": violations, "key": space.key(full[i])},
            )
        )  # fmt: skip


def _rows_to_tell(table: Table) -> np.ndarray:
    """The accepted Pareto rows; else the one that breaks the limits least, costed ones first."""
    accepted = np.flatnonzero(table.accepted)
    if len(accepted):
        return accepted[non_dominated(table.objectives[accepted])]
    usable = np.isfinite(table.objectives).all(axis=1) & (table.worst_violation > 0)
    if not usable.any():
        return np.empty(0, dtype=int)
    order = np.lexsort((table.worst_violation, ~table.costed, ~usable))
    return order[:1]


def _outcome(table: Table, row: int, objectives: tuple[str, ...]) -> tuple[tuple[float, ...], dict[str, float]]:
    return table.values(objectives, row), {name: float(amount[row]) for name, amount in table.violations.items()}
