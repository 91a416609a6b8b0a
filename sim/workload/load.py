"""Workloads by name, by file, or as a saved graph."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from sim.errors import TraceError, WorkloadError, expect, nearest
from sim.resources import data_dir, is_file
from sim.workload.cache import dependencies, entry_key, is_local, load_entry, store_entry
from sim.workload.graph import Graph
from sim.workload.knobs import Description, describe
from sim.workload.raised import foreign_code, told
from sim.workload.serialize import load_graph

FRONT_ENDS = ("recorder", "export")
MODEL_FILES = (".json", ".onnx", ".pt2")
"""Endings of files that hold a model itself, not code that builds it."""


@dataclass(frozen=True)
class Workload:
    """A model file and the values of its knobs.

    `name` is a bundled name, `path/model.py` or `path/model.py:function`. Nothing is imported until
    `build` or `graph` needs it.

    Raises: WorkloadError: unknown name, file, function or knob, or a value of another type.
    """

    name: str
    knobs: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _named(self.name, where="Workload"))
        object.__setattr__(self, "knobs", self.description.resolve(self.knobs))

    @cached_property
    def description(self) -> Description:
        path, function = _locate(self.name)
        return describe(path, function)

    @property
    def label(self) -> str:
        """Short name: the file's, with the function when it is not `build`."""
        function = self.description.function
        return self.description.path.stem + ("" if function == "build" else f":{function}")

    def build(self, *, device: str | None = None) -> tuple[Any, Any]:
        """(torch.nn.Module, example_inputs), made anew; on `device` if given ("meta": no weights).

        Raises: TraceError: the file or its function raised, with its line; WorkloadError: it
        returned something else.
        """
        return self._built(device)[0]

    def task(self) -> Any | None:
        """What the file's function `task` gives, called with those knobs that it names (or all of them, as
        `**knobs`); None where there is none. A class, or whatever else can be called, serves as well.

        Raises: TraceError: the file or its function raised, with its line; WorkloadError: it asks for what is no knob,
        or cannot be called.
        """
        with _imported(self.description) as module:
            function = getattr(module, "task", None)
            if function is None:
                return None
            if not callable(function):
                raise WorkloadError(
                    f"{self.description.path}: task is {_type_of(function)}, expected a function that returns one"
                )
            wanted = dict(inspect.signature(function).parameters)
            rest = [name for name, p in wanted.items() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            every = any(wanted.pop(name).kind is inspect.Parameter.VAR_KEYWORD for name in rest)
            strange = [name for name, p in wanted.items() if name not in self.knobs and p.default is p.empty]
            if strange:
                raise WorkloadError(
                    f"{self.description.path}: task asks for {', '.join(strange)}: expected knobs of "
                    f"{self.description.function} ({', '.join(self.knobs)})"
                )
            return function(**{name: value for name, value in self.knobs.items() if every or name in wanted})

    def _built(self, device: str | None) -> tuple[tuple[Any, Any], Any]:
        """What `build` gives, and the file's `POLICY` (None: it states none)."""
        import torch

        with _imported(self.description) as module, torch.device(device or torch.get_default_device()):
            built = getattr(module, self.description.function)(**self.knobs)
        if not (isinstance(built, tuple) and len(built) == 2 and isinstance(built[0], torch.nn.Module)):
            raise WorkloadError(
                f"{self.description.path}: {self.description.function} returned {_type_of(built)}, expected a tuple "
                "(torch.nn.Module, example_inputs)"
            )
        return built, getattr(module, "POLICY", None)

    def graph(
        self, *, via: str = "recorder", cache: bool = True, progress: Callable[[int], None] = lambda ops: None
    ) -> Graph:
        """The traced graph, from the disk cache where it holds.

        `via` names the front end; `progress` is called now and then with the number of ops recorded.
        Raises: as `build`, and TraceError from the trace.
        """
        if via not in FRONT_ENDS:
            raise WorkloadError(f'front end "{via}" is unknown: expected {" or ".join(FRONT_ENDS)}')
        key = entry_key(self.description.path, self.description.function, self.knobs, via)
        found = load_entry(key) if cache else None
        if found is not None:
            return found
        before = set(sys.modules)
        with _local_modules_forgotten():
            graph = self._trace(via, progress)
            files, packages = dependencies(self.description.path, set(sys.modules) - before)
        if cache:
            store_entry(key, graph, files, packages)
        return graph

    def _trace(self, via: str, progress: Callable[[int], None]) -> Graph:
        from sim.workload.trace import DataPolicy, trace
        from sim.workload.trace.export import export
        from sim.workload.trace.run import NumbersKept, refuse_untraceable

        try:
            with NumbersKept():
                built, policy = self._built("meta")
        except TraceError:  # a model that looks at values while it is built needs real ones
            built, policy = self._built(None)
        refuse_untraceable(built[0], f"{self.description.path}: {self.description.function}")
        if policy is not None and not isinstance(policy, DataPolicy):
            raise WorkloadError(
                f"{self.description.path}: POLICY is {_type_of(policy)}, expected a sim.workload.trace.DataPolicy, "
                "the answers to questions about data"
            )
        batch = self.knobs.get("batch", 1)
        if via == "export":
            graph = export(*built, name=self.label, progress=progress)
        else:
            graph = trace(*built, name=self.label, progress=progress, policy=policy)
        ops = tuple(op if op.source else replace(op, source=self.description.place) for op in graph.ops)
        return graph.with_(ops=ops, knobs=dict(self.knobs), batch=batch if isinstance(batch, int) else 1)


def load_workload(
    name_or_path: str | Path,
    *,
    via: str | None = None,
    progress: Callable[[int], None] = lambda ops: None,
    **knobs: object,
) -> Graph:
    """The graph of a bundled workload, a `.py` file, a saved `.json` graph, an `.onnx` file, or a `.pt2` file of
    `torch.export.save`.

    `via` names the front end of a model in Python (default: the recorder). `progress` is called now and then with the
    number of ops recorded so far. The knobs of an .onnx file are the free dimensions of its inputs.

    Raises: WorkloadError, TraceError: see `Workload`; knobs with a saved graph, another front end for a file.
    """
    name = _named(name_or_path, where="load_workload")
    suffix = Path(name).suffix
    if suffix not in MODEL_FILES:
        return Workload(name, knobs).graph(via=via or FRONT_ENDS[0], progress=progress)
    if via not in (None, "export" if suffix == ".pt2" else "recorder"):
        raise WorkloadError(f"{name}: {via} reads models, not {suffix} files; leave --via out")
    if suffix != ".onnx" and knobs:
        kind = "a saved graph" if suffix == ".json" else "an exported program"
        raise WorkloadError(f"{name}: {kind} has no knobs, got {', '.join(knobs)}")
    if suffix == ".json":
        return load_graph(name)
    if suffix == ".pt2":
        from sim.workload.trace.export import load_exported

        return load_exported(name, progress=progress)
    from sim.workload.trace.onnx import load_onnx

    return load_onnx(name, sizes=knobs, progress=progress)


def as_graph(workload: object, *, where: str) -> Graph:
    """The graph that an argument of the Python interface stands for: itself, a workload's, or one by name or path.

    Raises: WorkloadError: something else, or as `load_workload`; TraceError.
    """
    if isinstance(workload, Graph):
        return workload
    if isinstance(workload, Workload):
        return workload.graph()
    due = "a graph (sim.trace makes one of a torch module, sim.load_workload of a name), a sim.Workload, or its name"
    expect(workload, (str, PathLike), due, where=where, error=WorkloadError)
    return load_workload(workload)  # type: ignore[arg-type]


def _named(name: object, *, where: str) -> str:
    due = "a bundled name or the path of a .py, .onnx, .pt2 or .json file; sim.trace takes a torch module"
    expect(name, (str, PathLike), due, where=where, error=WorkloadError)
    return str(fspath(name))  # type: ignore[call-overload]


def list_workloads() -> tuple[Description, ...]:
    """Every bundled workload with docstring and knobs, by name; nothing is imported."""
    return tuple(describe(path) for path in _bundled().values())


def _bundled() -> dict[str, Path]:
    files = sorted(data_dir("workloads").glob("*.py"))
    return {path.stem: path for path in files if not path.stem.startswith("_")}


def _locate(name: str) -> tuple[Path, str]:
    """File and function of a bundled name, `path.py` or `path.py:function`."""
    text, _, function = name.rpartition(":") if ".py:" in name else (name, "", "")
    if text.endswith(".py"):
        path = Path(text)
        if not is_file(path):
            raise WorkloadError(f"{text}: no such file")
        return path, function or "build"
    bundled = _bundled()
    if name not in bundled:
        raise WorkloadError(
            f'workload "{name}" is unknown: expected a bundled name ({", ".join(bundled)}), a .py file, '
            f"an .onnx or .pt2 file or a saved graph.json.{nearest(name, bundled)}"
        )
    return bundled[name], "build"


def _type_of(value: object) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(type(v).__name__ for v in value)})"
    return f"a {type(value).__name__}"


@contextmanager
def _imported(description: Description) -> Iterator[Any]:
    """The workload's module, its folder importable, errors told with the user's line."""
    path = description.path.resolve()
    name = f"_dovetail_workload_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    # Python takes a compiled helper for current if its source has the same size and second: none is left behind.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with foreign_code(lambda error: _failure(error, path)):
            spec.loader.exec_module(module)  # type: ignore[union-attr]
            yield module
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(str(path.parent))


@contextmanager
def _local_modules_forgotten() -> Iterator[None]:
    """Helper modules that a workload imports are loaded anew each time: they may have changed."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if is_local(getattr(sys.modules[name], "__file__", None)):
                del sys.modules[name]


def _failure(error: BaseException, path: Path) -> str:
    """One paragraph: the last line in the user's files, and the error."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_local(f.filename)]
    place = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else str(path)
    return f"{place}: {told(error)}"
