"""Disk cache of traced graphs.

An entry is found by what is known without running anything: the file, its function, its knobs and
the tracer's own sources. It is believed only if its checksum holds and every file and package that
the model used is still what it was; else it is traced again.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import NamedTemporaryFile

from sim.errors import WorkloadError
from sim.workload.graph import Graph
from sim.workload.serialize import graph_from_dict, graph_to_dict


def cache_dir() -> Path:
    """DOVETAIL_CACHE, else the platform's cache folder."""
    given = os.environ.get("DOVETAIL_CACHE")
    if given:
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "dovetail" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dovetail"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dovetail"


def entry_key(path: Path, function: str, knobs: Mapping[str, object], options: str) -> str:
    """Name of the entry: the workload's file, function, knobs, options and the tracer's version."""
    content = json.dumps([str(path.resolve()), function, dict(knobs), options, _tracer(), sys.version_info[:2]])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def load_entry(key: str) -> Graph | None:
    """The cached graph, or None when it is absent, broken, or of other sources than today's."""
    try:
        header_line, _, body = (cache_dir() / f"{key}.json").read_bytes().partition(b"\n")
        header = json.loads(header_line)
        if header["sha256"] != _checksum(header["files"], header["packages"], body):
            return None
        if any(_file_hash(Path(path)) != known for path, known in header["files"].items()):
            return None
        if any(_version(package) != known for package, known in header["packages"].items()):
            return None
        return graph_from_dict(json.loads(body))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, WorkloadError):
        return None


def store_entry(key: str, graph: Graph, files: Mapping[str, str], packages: Mapping[str, str | None]) -> None:
    """Write the entry in one step; a folder that cannot be written only costs the next run time.

    An empty folder in the entry's place gives way to it.
    """
    body = json.dumps(graph_to_dict(graph), separators=(",", ":")).encode()
    header = {"sha256": _checksum(files, packages, body), "files": dict(files), "packages": dict(packages)}
    entry = cache_dir() / f"{key}.json"
    written: Path | None = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=entry.parent, suffix=".tmp", delete=False) as file:
            written = Path(file.name)
            file.write(json.dumps(header).encode() + b"\n" + body)
        if entry.is_dir():
            entry.rmdir()
        os.replace(written, entry)
    except OSError:
        if written is not None:
            with suppress(OSError):
                written.unlink()


def dependencies(path: Path, imported: set[str]) -> tuple[dict[str, str], dict[str, str | None]]:
    """Files outside site-packages that a workload uses (with hashes), and packages (with versions).

    `imported` are modules that came in while it was built; imports found in the sources count as
    well, for modules that were there before.
    """
    files: dict[str, str] = {}
    packages: dict[str, str | None] = {"torch": _version("torch")}
    todo = [path.resolve(), *(f for name in imported if (f := _local_file(name)))]
    while todo:
        file = todo.pop()
        if str(file) in files:
            continue
        files[str(file)] = _file_hash(file)
        for name in _imports(file):
            local = _local_file(name)
            if local:
                todo.append(local)
            elif name.partition(".")[0] not in sys.stdlib_module_names:
                for package in _distributions().get(name.partition(".")[0], ()):
                    packages[package] = _version(package)
    return files, packages


def is_local(file: str | None) -> bool:
    """Is this module file the user's (or a bundled workload): not installed, not the standard library?"""
    if not file or not file.endswith(".py") or not os.path.isfile(file):
        return False
    path = str(Path(file).resolve())
    if path.startswith(str(_PACKAGE / "_data") + os.sep):  # bundled workloads of an installed wheel
        return True
    if "site-packages" in path or "dist-packages" in path or path.startswith(str(_PACKAGE) + os.sep):
        return False
    return not path.startswith(sysconfig.get_path("stdlib") + os.sep)


_PACKAGE = Path(__file__).resolve().parents[1]


def _local_file(name: str) -> Path | None:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file == getattr(sys.modules.get("__main__"), "__file__", None):  # the caller's script is no part of the model
        return None
    return Path(file).resolve() if file and is_local(file) else None


def _imports(file: Path) -> set[str]:
    """Names that a source file imports; `from a import b` counts both a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def code_hash(path: Path) -> str:
    """16 hex digits of what a file of Python says: comments and layout do not count."""
    data = path.read_bytes()
    with suppress(SyntaxError, ValueError):
        data = ast.unparse(ast.parse(data)).encode()  # the same in all versions of Python, unlike `ast.dump`
    return hashlib.sha256(data).hexdigest()[:16]


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checksum(files: Mapping[str, str], packages: Mapping[str, str | None], body: bytes) -> str:
    head = json.dumps([dict(files), dict(packages)], sort_keys=True).encode()
    return hashlib.sha256(head + b"\n" + body).hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@cache
def _tracer() -> str:
    """Hash of the sources that make graphs: another tracer, another entry."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
