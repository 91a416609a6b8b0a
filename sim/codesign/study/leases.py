"""Who works on a trial, and what becomes of the trials of those who died.

A worker signs each trial that it asks for with its host, process and time. A trial still running
whose signer is gone (its process on this host, or its lease elsewhere) is marked failed, and enqueued
again with the parameters it had. Works on every storage; Optuna's own heartbeats need a database.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

LEASE_S = 120.0
"""A signature from another host holds this long; it is renewed at a third of it."""
UNSIGNED_S = 30.0
"""A trial without a signature may be one that was asked for a moment ago."""


def signature() -> str:
    """Host, process and the process's start, so that a reused process number is not taken for the same."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _started(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "?"


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "?"


def alive(signed: str, until: float) -> bool:
    """Is the signer still there? On this host by its process, elsewhere by the lease."""
    host, process, started = signed.rsplit(":", 2)
    if host != socket.gethostname():
        return time.time() < until
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(int(process)) != "Z" and _started(int(process)) in ("?", started)


@contextmanager
def held(trial: Trial) -> Iterator[None]:
    """Sign a trial, and renew the signature while the block runs."""
    done = threading.Event()
    trial.set_user_attr("worker", signature())
    trial.set_user_attr("lease_until", time.time() + LEASE_S)

    def renew() -> None:
        while not done.wait(LEASE_S / 3):
            trial.set_user_attr("lease_until", time.time() + LEASE_S)

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def reclaim(study: optuna.Study) -> list[int]:
    """Enqueue again the trials of dead workers; returns their numbers.

    Every search on the storage does so before each of its trials. First failed, which only one of them can do, then
    enqueued by the one that did. Who dies between leaves a failed trial without a copy that names it in `retry_of`;
    after a while another makes it.
    """
    trials = study.get_trials(deepcopy=False)
    retried = {trial.user_attrs.get("retry_of") for trial in trials}
    lost = []
    for trial in trials:
        if trial.state is TrialState.RUNNING and not _held(trial):
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (UpdateFinishedTrialError, ValueError):  # another search was faster
                continue
            lost.append(trial)
        elif trial.state is TrialState.FAIL and trial.number not in retried and _older(trial.datetime_complete):
            lost.append(trial)
    for trial in lost:
        if trial.number not in retried:
            fixed = {**trial.user_attrs.get("fixed", {}), **trial.params}
            kept = {k: v for k, v in trial.user_attrs.items() if k == "known"}
            study.enqueue_trial(fixed, user_attrs={**kept, "fixed": fixed, "retry_of": trial.number})
    return [trial.number for trial in lost]


def _older(moment: datetime | None) -> bool:
    return moment is None or time.time() - moment.timestamp() > UNSIGNED_S


def _held(trial: FrozenTrial) -> bool:
    signed = trial.user_attrs.get("worker")
    if signed is not None:
        return alive(signed, trial.user_attrs.get("lease_until", 0.0))
    return not _older(trial.datetime_start)
