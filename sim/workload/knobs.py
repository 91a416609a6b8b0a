"""Knobs of a workload: read from the file's text, so that listing and cached traces need no torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sim.errors import WorkloadError, expect, nearest, why

Value = int | float | str | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One argument of `build`: its type by annotation, its default, the allowed values."""

    name: str
    kind: str
    """int, float, str or bool."""
    default: Value
    choices: tuple[Value, ...] = ()
    """Values of a Literal annotation; empty: any of the kind."""
    optional: bool = False
    """None is allowed."""

    def parse(self, value: object, *, where: str) -> Value:
        """The value in the knob's type; text (from a command line) is converted.

        Raises: WorkloadError: another type, or not one of the choices.
        """
        parsed = self._convert(value)
        if parsed is _BAD:
            wanted = f"one of {', '.join(map(str, self.choices))}" if self.choices else self.kind
            hint = nearest(str(value), map(str, self.choices)) if self.choices else ""
            raise WorkloadError(
                f"{where}: knob {self.name}={value!r}: expected {wanted} (default {self.default!r}).{hint}"
            )
        return parsed  # type: ignore[return-value]

    def _convert(self, value: object) -> object:
        if self.optional and value in (None, "none", "None"):
            return None
        if self.kind == "bool":
            parsed = _BOOLEANS.get(value.lower(), _BAD) if isinstance(value, str) else value
            parsed = parsed if isinstance(parsed, bool) else _BAD
        elif isinstance(value, bool):
            parsed = _BAD
        elif self.kind == "str":
            parsed = value if isinstance(value, str) else _BAD
        else:
            try:
                parsed = (int if self.kind == "int" else float)(value) if isinstance(value, int | float | str) else _BAD
            except ValueError:
                return _BAD
            if isinstance(value, float) and parsed != value:
                parsed = _BAD
        return _BAD if self.choices and parsed not in self.choices else parsed


_BAD = object()
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_KINDS = ("int", "float", "str", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a workload file says of itself."""

    path: Path
    function: str
    doc: str
    knobs: Mapping[str, Knob]
    line: int
    """At which the function begins."""

    @property
    def place(self) -> str:
        """ "file.py:line" of the function: where ops come from that only torch's own modules run."""
        return f"{self.path.name}:{self.line}"

    @property
    def summary(self) -> str:
        return self.doc.strip().partition("\n")[0]

    def resolve(self, given: Mapping[str, object]) -> dict[str, Value]:
        """All knobs with their values.

        Raises: WorkloadError: an unknown knob, or a value of another type.
        """
        where = self.path.name
        expect(given, Mapping, 'a map such as {"batch": 4}', where=f"{where}: knobs", error=WorkloadError)
        for name in given:
            if name not in self.knobs:
                known = ", ".join(self.knobs) or "none"
                raise WorkloadError(f'{where}: no knob "{name}": it has {known}.{nearest(name, self.knobs)}')
        return {
            name: knob.parse(given[name], where=where) if name in given else knob.default
            for name, knob in self.knobs.items()
        }


def describe(path: Path, function: str = "build") -> Description:
    """Docstring and knobs of a workload file, by its syntax tree.

    Raises: WorkloadError: no such file or function, a syntax error, a knob without default.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: cannot be read: {why(error)}") from error
    except SyntaxError as error:
        place = f"{path}:{error.lineno}" if error.lineno else str(path)
        raise WorkloadError(f"{place}: not Python: {error.msg}") from error
    except (RecursionError, MemoryError) as error:
        raise WorkloadError(f"{path}: an expression in it is nested too deeply for Python to read") from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if function not in functions:
        others = f" Functions in it: {', '.join(list(functions)[:8])}; write {path}:NAME." if functions else ""
        raise WorkloadError(
            f"{path}: no function {function}: a workload is a file with build(**knobs) -> (module, example_inputs)."
            f"{nearest(function, functions) or others}"
        )
    node = functions[function]
    doc = ast.get_docstring(node) if function != "build" else None
    doc = doc or ast.get_docstring(tree) or ast.get_docstring(node) or ""
    return Description(path=path, function=function, doc=doc, knobs=_knobs(node, path), line=node.lineno)


def _knobs(node: ast.FunctionDef, path: Path) -> dict[str, Knob]:
    arguments = node.args
    if arguments.vararg or arguments.kwarg:
        raise WorkloadError(f"{path}:{node.lineno}: {node.name} takes *args or **kwargs: name every knob")
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return {argument.arg: _knob(argument, default, path) for argument, default in pairs}


def _knob(argument: ast.arg, default: ast.expr | None, path: Path) -> Knob:
    where = f"{path}:{argument.lineno}: knob {argument.arg}"
    if default is None:
        raise WorkloadError(f"{where} has no default")
    try:
        value = ast.literal_eval(default)
    except ValueError as error:
        raise WorkloadError(f"{where}: its default must be a number, a string, a bool or None") from error
    kind, choices, optional = _annotation(argument.annotation, where)
    if kind is None:
        kind = type(value).__name__
    if kind not in _KINDS:
        raise WorkloadError(f"{where}: annotate it as int, float, str, bool or Literal[...]")
    return Knob(name=argument.arg, kind=kind, default=value, choices=choices, optional=optional)


def _annotation(node: ast.expr | None, where: str) -> tuple[str | None, tuple[Value, ...], bool]:
    """Kind, choices and whether None is allowed, of `int`, `int | None`, `Literal["a", "b"]`."""
    match node:
        case None:
            return None, (), False
        case ast.Name(id=name):
            return name, (), False
        case ast.Constant(value=str(text)):
            return _annotation(ast.parse(text, mode="eval").body, where)
        case ast.BinOp(left=left, right=ast.Constant(value=None)):
            kind, choices, _ = _annotation(left, where)
            return kind, choices, True
        case ast.Subscript(value=ast.Name(id="Literal") | ast.Attribute(attr="Literal"), slice=inner):
            values = ast.literal_eval(inner)
            values = values if isinstance(values, tuple) else (values,)
            return type(values[0]).__name__, values, False
        case _:
            raise WorkloadError(f"{where}: annotate it as int, float, str, bool or Literal[...]")
