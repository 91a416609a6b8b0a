"""Where a study is kept: a journal file, a database, or a proxy in front of either."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import BaseJournalFileLock

from sim.codesign.choice import LARGER
from sim.codesign.space import Space
from sim.errors import ConfigError

STUDY = "search"
"""Name of the study inside its storage; a space of its own name gets `search-<name>`."""


class KernelLock(BaseJournalFileLock):
    """An advisory lock that the kernel drops when its holder dies, however it dies.

    Optuna's own lock is a file, which a killed process leaves behind for 30 s. Taking this lock also
    cuts off a last line that a killed writer left unfinished; no later line could be read otherwise.
    """

    def __init__(self, path: str) -> None:
        self.path, self.handle = path, -1

    def acquire(self) -> bool:
        import fcntl

        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self.handle, fcntl.LOCK_EX)
        size = os.fstat(self.handle).st_size
        if size and os.pread(self.handle, 1, size - 1) != b"\n":
            tail = os.pread(self.handle, min(size, 1 << 20), max(0, size - (1 << 20)))
            os.ftruncate(self.handle, size - len(tail) + tail.rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        os.close(self.handle)


def journal(path: Path) -> JournalStorage:
    """The journal file at `path`, made if it is absent.

    Raises: ConfigError: it cannot be written, or a line of it, the torn last one left aside, is no record.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            check_journal(path)
        lock = JournalFileOpenLock(str(path)) if sys.platform == "win32" else KernelLock(str(path))
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except OSError as error:
        raise ConfigError(f"storage {path}: cannot be written: {error.strerror}") from error
    except (KeyError, IndexError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"storage {path}: its records do not go together ({type(error).__name__}: {error}): lines were changed or "
            "are missing; take a copy of it from before, or another storage or -o folder"
        ) from error


TORN = b'{"op_code"'
"""How every record begins."""


def check_journal(path: Path) -> None:
    """Optuna reads past a broken line only where it is the last, and writes behind it all the same: so none may stand.

    Raises: ConfigError: the first line that is no record. A last line without its end, as a writer leaves it that is
    killed, is none of them: the lock cuts it off.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") and (line.startswith(TORN) or TORN.startswith(line)):
                return
            try:
                record = json.loads(line)
                whole = isinstance(record, dict) and isinstance(record.get("op_code"), int) and "worker_id" in record
            except ValueError:
                whole = False
            if not (whole and line.endswith(b"\n")):
                words = line[:40].decode(errors="replace").strip()
                raise ConfigError(
                    f'storage {path}: line {number}: "{words}" is no record of a study, expected '
                    '{"op_code": ...}: delete that line if the file is a journal, or name another storage'
                )


def open_storage(text: str | None) -> BaseStorage:
    """A journal path, `sqlite:///file.db`, `postgresql://...`, `grpc://host:port`; memory for None.

    Raises: ConfigError: unreachable, or an unknown kind of URL.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if text is None:
        return InMemoryStorage()
    kind, _, rest = text.partition("://")
    try:
        if not rest:
            return journal(Path(text))
        if kind == "grpc":
            host, _, port = rest.partition(":")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return _reachable(GrpcStorageProxy(host=host, port=int(port or 13000)), text)
        return RDBStorage(text, **_engine(kind))
    except ConfigError:
        raise
    except Exception as error:  # sqlalchemy's and grpc's errors share no base, and neither may be installed
        words = " ".join(str(error).split())[:300]
        driver = " (the Python package of its driver)" if isinstance(error, ImportError) else ""
        raise ConfigError(f"storage {text}: cannot be reached: {type(error).__name__}: {words}{driver}") from error


def _engine(kind: str) -> dict[str, Any]:
    """SQLite waits for other writers; everything else checks that its connections still live."""
    if kind.startswith("sqlite"):
        return {"engine_kwargs": {"connect_args": {"timeout": 60}}}
    return {"engine_kwargs": {"pool_pre_ping": True}}


def _reachable(storage: GrpcStorageProxy, text: str) -> GrpcStorageProxy:
    import grpc

    channel = grpc.insecure_channel(text.partition("://")[2])
    try:
        grpc.channel_ready_future(channel).result(timeout=10)
    except grpc.FutureTimeoutError as error:
        raise ConfigError(
            f"storage {text}: no server answers; start one with optuna.storages.run_grpc_proxy_server"
        ) from error
    finally:
        channel.close()
    return storage


def open_study(storage: BaseStorage, space: Space, *, sampler: Any = None) -> optuna.Study:
    """The study of this space in the storage, made if it is absent.

    Raises: ConfigError: the storage holds a study of another space, with what differs.
    """
    names = space.spec.objective_names
    up = {*LARGER, *(["quality"] if space.spec.quality is not None and _higher(space) else [])}
    study = optuna.create_study(
        storage=storage, study_name=f"{STUDY}-{space.spec.name}", load_if_exists=True, sampler=sampler,
        directions=["maximize" if name in up else "minimize" for name in names],
    )  # fmt: skip
    attributes = study.user_attrs
    if "space" not in attributes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(names))
        study.set_user_attr("identity", space.identity())
        study.set_user_attr("space", space.fingerprint())
    elif attributes["space"] != space.fingerprint():
        before = attributes.get("identity", {})
        now = space.identity()
        differs = sorted(key for key in {*before, *now} if _plain(before.get(key)) != _plain(now.get(key)))
        raise ConfigError(
            f"{space.where}: the storage holds a study of another space (it differs in {', '.join(differs)}); "
            "choose another storage or -o folder, or give the space another name"
        )
    return study


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _higher(space: Space) -> bool:
    from sim.codesign.quality import higher_is_better

    assert space.spec.quality is not None
    return higher_is_better(space.spec.quality)
