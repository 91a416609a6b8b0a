"""One study for many machines: the gRPC proxy with real processes, and a study in optuna-dashboard."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import sim
from sim.codesign.space import build_space
from sim.codesign.study.storages import open_storage, open_study
from sim.errors import ConfigError

SERVER = """
import optuna, sys
from sim.codesign.study.storages import open_storage
optuna.storages.run_grpc_proxy_server(open_storage(sys.argv[1]), host="localhost", port=int(sys.argv[2]))
"""


@pytest.fixture
def proxy(tmp_path: Path):
    """URL of a proxy in front of a journal, in a process of its own."""
    pytest.importorskip("grpc")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path / "s.journal"), str(port)])
    try:
        yield f"grpc://localhost:{port}"
    finally:
        server.kill()
        server.wait()


def start(path: Path, storage: str, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "sim", "search", str(path), "--storage", storage, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def asked(study: Any) -> list[Any]:
    return [t for t in study.get_trials(deepcopy=False) if "parent" not in t.user_attrs]


def test_two_searches_share_a_proxy_and_one_is_killed(
    document: dict[str, Any], write: Any, tmp_path: Path, proxy: str
) -> None:
    """Two supervisors of two workers each on one proxy; one whole search is killed. The other and a third one
    reach the total, and what the dead ones had under way is tried again with its parameters."""
    (tmp_path / "slow.py").write_text("import time\ndef wait(row):\n    time.sleep(0.7)\n    return 0.0\n")
    document["constraints"] = {"functions": [f"{tmp_path / 'slow.py'}:wait"]}
    document["budget"]["estimates"] = 1
    space = build_space(document)
    path = write(document)
    doomed = start(path, proxy, "--trials", "12", "--workers", "2", "-o", str(tmp_path / "a"))
    deadline = time.monotonic() + 90
    study = None
    while study is None or sum(t.state.name == "RUNNING" and "key" in t.user_attrs for t in asked(study)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        try:
            study = open_study(open_storage(proxy), space)
        except ConfigError:  # the server is not up yet
            continue
    other = start(path, proxy, "--trials", "8", "--workers", "2", "-o", str(tmp_path / "b"))
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    lost = [t.number for t in asked(study) if t.state.name == "RUNNING"]
    _, errors = other.communicate(timeout=180)
    assert other.returncode == 0, errors
    last = start(path, proxy, "--trials", "10", "-o", str(tmp_path / "c"))
    _, errors = last.communicate(timeout=180)
    assert last.returncode == 0, errors
    trials = asked(study)
    assert sum(t.state.name in ("COMPLETE", "PRUNED") for t in trials) >= 10
    assert not [t for t in trials if t.state.name == "RUNNING"]
    again = {t.user_attrs.get("retry_of"): t for t in trials}
    for number in lost:
        before = study.trials[number]
        assert before.state.name == "FAIL"
        assert before.params.items() <= again[number].params.items()
    hosts = {t.user_attrs["worker"] for t in trials if t.state.name == "COMPLETE"}
    assert len(hosts) >= 3  # two workers of the second search, and the third search


def test_no_server_is_an_error() -> None:
    pytest.importorskip("grpc")
    with pytest.raises(ConfigError, match="no server answers; start one"):
        open_storage("grpc://localhost:1")


def test_optuna_dashboard_opens_the_study(document: dict[str, Any], tmp_path: Path) -> None:
    """The dashboard's own application, asked for the study: its names, all its trials and their values."""
    dashboard = pytest.importorskip("optuna_dashboard")
    found = sim.search(build_space(document), trials=3, output=tmp_path / "out")
    app = dashboard.wsgi(open_storage(str(tmp_path / "out" / "study.journal")))

    def get(path: str) -> Any:
        status: list[str] = []
        request = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "here",
                   "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
                   "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO()}  # fmt: skip
        body = b"".join(app(request, lambda line, headers, error=None: status.append(line)))
        assert status == ["200 OK"]
        return body

    assert b"<html" in get("/dashboard").lower()
    (summary,) = json.loads(get("/api/studies"))["study_summaries"]
    assert summary["study_name"] == "search-tiny"
    shown = json.loads(get(f"/api/studies/{summary['study_id']}"))
    assert shown["objective_names"] == ["latency", "area"]
    values = [tuple(t["values"]) for t in shown["trials"] if t["state"] == "Complete"]
    assert sorted(values) == sorted(row.values for row in found.rows)
