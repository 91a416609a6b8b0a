"""Where the time of a search goes: estimates, bounds, the guide, and Optuna with its storage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna

from sim.codesign.evaluate import Sweep
from sim.codesign.found import STAGES
from sim.codesign.study.leases import signature

PREFIX = "spent "
"""Attributes of the study that hold a process's account begin so."""


class Account:
    """CPU seconds of one process by stage; a stage inside another counts for itself alone."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.name = PREFIX + signature()
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        """The time since the last turn goes to the innermost open stage."""
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def timed(self, sweep: Sweep) -> Sweep:
        """The sweep, with its time under "estimates"."""

        def timing(*arguments: Any, **options: Any) -> Any:
            with self.stage("estimates"):
                return sweep(*arguments, **options)

        return timing

    def keep(self, study: optuna.Study) -> None:
        study.set_user_attr(self.name, {name: round(value, 4) for name, value in self.seconds.items()})


def read_spent(study: optuna.Study) -> dict[str, float]:
    """Stage -> CPU seconds of all processes that ever worked on the study."""
    accounts = [account for name, account in study.user_attrs.items() if name.startswith(PREFIX)]
    return {stage: float(sum(account.get(stage, 0.0) for account in accounts)) for stage in STAGES}
