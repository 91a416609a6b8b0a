"""Run a study to its number of trials, in this process or with worker processes under a supervisor."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import optuna

from sim.codesign.evaluate import Sweep
from sim.codesign.found import Found
from sim.codesign.guide import Guide
from sim.codesign.scenario import Costing
from sim.codesign.space import Space, build_space
from sim.codesign.study.leases import reclaim
from sim.codesign.study.read import read_found
from sim.codesign.study.samplers import InnerChoice, default_sampler, make_sampler
from sim.codesign.study.spent import Account
from sim.codesign.study.storages import open_storage, open_study
from sim.codesign.study.trial import Archive, run_trial
from sim.errors import ConfigError, DovetailError, checked_seed
from sim.units import Dimension, parse_quantity

DEATHS = 3
"""A worker may die this often without a finished trial in between before the search gives up."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every process of a search must know."""

    document: Any
    where: str
    folder: Path
    storage: str | None
    sampler: str
    seed: int


def run_study(
    space: Space, *, trials: int | None, timeout_s: float | None, storage: str | None, workers: int, seed: int | None,
    output: Path | None, progress: Callable[[str], None] | None, sweep: Sweep | None = None,
) -> Found:  # fmt: skip
    """See `sim.codesign.search`; `sweep` stands in for `sim.sweep` where one process does all."""
    budget = space.spec.budget
    total = budget.trials if trials is None else trials
    if total < 1 or workers < 1:
        raise ConfigError(f"trials ({total}) and workers ({workers}) must be at least 1")
    if timeout_s is None and budget.timeout is not None:
        timeout_s = parse_quantity(budget.timeout, Dimension.TIME, where=f"{space.where}: budget.timeout")
    if storage is None and output is not None:
        storage = str(output / "study.journal")
    if storage is None and workers > 1:
        raise ConfigError("several workers need a storage that they share: give --storage or -o")
    objectives = len(space.spec.objectives)
    asked = space.spec.sampler.name
    name = default_sampler(total, objectives) if asked == "auto" else asked
    plan = Plan(
        document=space.document, where=space.where, folder=space.folder, storage=storage, sampler=name,
        seed=space.spec.sampler.seed if seed is None else checked_seed(seed),
    )  # fmt: skip
    costing = Costing(space, sweep=sweep)
    make_sampler(name, space.spec.sampler, seed=0, objectives=objectives)  # refuse before work starts
    study = open_study(open_storage(storage), space)
    reclaim(study)
    enqueue_known(study, space)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    report = _Progress(total, progress)
    if workers == 1:
        _alone(study, costing, plan, total, deadline, report)
    else:
        _supervise(study, plan, space, total, workers, deadline, report)
    found = read_found(study, costing, sampler=name, seed=plan.seed)
    if output is not None:
        from sim.codesign.answer import write_answer

        write_answer(found, costing, output)
    return found


def enqueue_known(study: optuna.Study, space: Space) -> None:
    """The known designs, each once in the life of the study."""
    there = {trial.user_attrs.get("known") for trial in study.get_trials(deepcopy=False)}
    for name, assignment in space.known:
        if name not in there:
            study.enqueue_trial(dict(assignment), user_attrs={"known": name, "fixed": dict(assignment)})


class _Progress:
    """Lines for people: how far, how large the front, how long yet."""

    def __init__(self, total: int, sink: Callable[[str], None] | None) -> None:
        self.total, self.sink, self.begun = total, sink, time.monotonic()
        self.first: int | None = None

    def __call__(self, archive: Archive) -> None:
        if self.sink is None:
            return
        if self.first is None:
            self.first = archive.finished - 1
        done = archive.finished - self.first
        left = (time.monotonic() - self.begun) / max(done, 1) * max(0, self.total - archive.finished)
        self.sink(f"trial {archive.finished} of {self.total}, {len(archive.front)} on the front, {left:.0f} s left")


def _alone(
    study: optuna.Study, costing: Costing, plan: Plan, total: int, deadline: float | None, report: _Progress
) -> None:
    run = _Runner(study, costing, plan, index=0)
    while _goes_on(run.archive, costing.space, total) and (deadline is None or time.monotonic() < deadline):
        reclaim(study)  # of other searches on this storage
        run.step()
        report(run.archive)


def _goes_on(archive: Archive, space: Space, total: int) -> bool:
    pairs = space.spec.budget.pairs
    return archive.finished < total and (pairs is None or archive.costed < pairs)


class _Runner:
    """One process's share: a sampler, an archive, and trials one after another."""

    def __init__(self, study: optuna.Study, costing: Costing, plan: Plan, *, index: int) -> None:
        space = costing.space
        self.study, self.costing, self.plan = study, costing, plan
        self.archive = Archive(scenario=costing.scenario)
        self.archive.update(study)
        # a study that goes on must not draw its first numbers again
        before = len(study.get_trials(deepcopy=False)) if self.archive.finished else 0
        own = (plan.seed * 1_000_003 + index * 10_007 + before) % 2**31
        objectives = len(space.spec.objectives)
        self.sampler = InnerChoice(make_sampler(plan.sampler, space.spec.sampler, seed=own, objectives=objectives))
        study.sampler = self.sampler
        signed = tuple(k for k, name in enumerate(space.spec.objective_names) if name == "quality")
        self.guide = Guide(space.parameters, signed) if space.spec.sampler.screen else None
        self.account = Account()

    def step(self) -> None:
        plan = self.plan
        with self.account.stage("optuna"):
            run_trial(
                self.study, self.sampler, self.costing, self.archive, self.guide, plan.sampler, plan.seed, self.account
            )
            self.archive.update(self.study)
        self.account.keep(self.study)


def _work(link: Connection, plan: Plan, index: int) -> None:
    """A worker process: one trial per word of the supervisor; ends when the supervisor is gone."""
    try:
        space = build_space(plan.document, where=plan.where, folder=plan.folder)
        run = _Runner(open_study(open_storage(plan.storage), space), Costing(space), plan, index=index)
        link.send(("ready", ""))
        while link.recv() == "go":
            run.step()
            link.send(("done", ""))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except DovetailError as error:
        link.send(("error", error))


class _Crew:
    """Worker processes, their links, and what each is at."""

    def __init__(self, plan: Plan, workers: int) -> None:
        self.plan, self.workers = plan, workers
        self.context = multiprocessing.get_context("spawn")
        self.processes: dict[Connection, Any] = {}
        self.idle: set[Connection] = set()
        self.busy: set[Connection] = set()
        self.hired, self.deaths = 0, 0

    def hire(self) -> None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=_work, args=(theirs, self.plan, self.hired), daemon=True)
        process.start()
        theirs.close()
        self.processes[ours] = process
        self.hired += 1

    def assign(self, link: Connection) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # died while idle: the next recv says so
            link.send("go")
        self.idle.discard(link)
        self.busy.add(link)

    def bury(self, link: Connection) -> None:
        """A worker died. Raises: ConfigError: they keep dying."""
        self.processes.pop(link).join()
        self.busy.discard(link)
        self.idle.discard(link)
        self.deaths += 1
        if self.deaths > DEATHS * self.workers:
            raise ConfigError(f"{self.deaths} workers died without finishing a trial; see the system's log")

    def words(self) -> Iterator[tuple[Connection, str]]:
        """What workers say within a second: "ready", "done", "dead". Raises: the error that one met."""
        for link in wait(list(self.processes), timeout=1.0):
            assert isinstance(link, Connection)
            try:
                word, detail = link.recv()
            except (EOFError, ConnectionResetError):
                self.bury(link)
                yield link, "dead"
                continue
            if word == "error":
                raise detail
            self.busy.discard(link)
            self.idle.add(link)
            yield link, word

    def dismiss(self) -> None:
        for link, process in self.processes.items():
            link.close()
            process.join(timeout=0.2)
            if process.is_alive():
                process.terminate()
                process.join()


def _supervise(
    study: optuna.Study, plan: Plan, space: Space, total: int, workers: int, deadline: float | None, report: _Progress
) -> None:
    """Hand out trials one by one; replace workers that die and take their trials back."""
    archive = Archive(scenario=Costing(space).scenario)
    archive.update(study)
    crew = _Crew(plan, workers)
    try:
        for _ in range(min(workers, total - archive.finished)):
            crew.hire()
        late = False
        while archive.finished < total and (crew.busy or not late):
            for _, word in crew.words():
                reclaim(study)
                if word == "dead":
                    crew.hire()
                elif word == "done":
                    crew.deaths = 0
                    archive.update(study)
                    report(archive)
            late = (deadline is not None and time.monotonic() >= deadline) or not _goes_on(archive, space, total)
            for link in list(crew.idle):
                if not late and archive.finished + len(crew.busy) < total:
                    crew.assign(link)
    finally:
        crew.dismiss()
