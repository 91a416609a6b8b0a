"""Quality of a model choice without training: by table, by scaling law, or by the user's function.

The answers are `sim.compression.quality.Quality`: they say the method, the source, and whether the
law was asked inside its range. Loads no torch of its own.
"""

from __future__ import annotations

import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

from sim.codesign.choice import ModelChoice
from sim.codesign.schema import QualitySpec
from sim.codesign.trained import Trained
from sim.compression.quality import LAWS, Method, Quality, scaling_law
from sim.errors import ConfigError, nearest
from sim.workload.precision import BITS, parse_precision


def judge(spec: QualitySpec, *, folder: Path, where: str) -> Callable[[ModelChoice], Quality] | Trained:
    """`choice -> Quality` by the file's method, or what trains. Raises: ConfigError: a function that is not there."""
    if spec.method == "train":
        cheap = load_function(spec.cheap, folder=folder, where=f"{where}: quality.cheap") if spec.cheap else None
        return Trained(spec=spec, where=where, cheap=cheap, folder=folder)
    if spec.method == "table":
        return lambda choice: _by_table(spec, choice, where)
    if spec.method == "scaling_law":
        return lambda choice: _by_law(spec, choice, where)
    function = load_function(str(spec.function), folder=folder, where=f"{where}: quality.function")
    return lambda choice: by_function(spec, function, str(spec.function), choice, where)


def higher_is_better(spec: QualitySpec) -> bool:
    return spec.method != "scaling_law" and spec.higher_is_better


def _by_table(spec: QualitySpec, choice: ModelChoice, where: str) -> Quality:
    """The one row whose `when` holds; the row that says most wins, two of one length are an error."""
    facts = choice.facts()
    fitting = [row for row in spec.rows if all(facts.get(key) == value for key, value in row.when.items())]
    most = max((len(row.when) for row in fitting), default=0)
    found = [row for row in fitting if len(row.when) == most]
    if len(found) != 1:
        count = "no row" if not found else f"{len(found)} rows"
        raise ConfigError(f"{where}: quality.rows: {count} for {_words(facts)}; expected one")
    return Quality(
        metric=spec.metric, value=found[0].value, higher_is_better=spec.higher_is_better, method=Method.TABLE,
        source=found[0].source,
    )  # fmt: skip


def _words(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in facts.items())


def _by_law(spec: QualitySpec, choice: ModelChoice, where: str) -> Quality:
    """Loss of the one language model at its precision; sparsity has no law and is refused."""
    if len(choice.parts) != 1:
        raise ConfigError(f"{where}: quality.method scaling_law judges one model, not {len(choice.parts)} together")
    if choice.sparsity != "none":
        raise ConfigError(f"{where}: no scaling law is known for {choice.sparsity} sparsity; use a table")
    assert spec.law in LAWS
    assert spec.tokens is not None
    widths = parse_precision(choice.precision)
    (graph,) = choice.graphs()
    return scaling_law(
        parameters=float(graph.parameters), tokens=spec.tokens, weight_bits=min(16, BITS[widths.weight]),
        activation_bits=min(16, BITS[widths.activation]), kv_bits=min(16, BITS[widths.kv]),
        post_training=spec.post_training, law=spec.law,
    )  # fmt: skip


def by_function(spec: QualitySpec, function: Callable[..., Any], name: str, choice: ModelChoice, where: str) -> Quality:
    """Raises: ConfigError: the function `name` raised, or returned no finite number."""
    value = called(function, name, choice.facts(), where)
    return Quality(
        metric=spec.metric, value=value, higher_is_better=spec.higher_is_better, method=Method.CALLABLE, source=name
    )


def called(function: Callable[..., Any], name: str, row: Mapping[str, Any], where: str) -> float:
    """What a user's function makes of a row. Raises: ConfigError: it raised, or returned no finite number."""
    try:
        value = function(dict(row))
    except Exception as error:
        inside = traceback.extract_tb(error.__traceback__)[1:]  # the first is the call above
        place = f" ({Path(inside[-1].filename).name}, line {inside[-1].lineno})" if inside else ""
        raise ConfigError(f"{where}: {name} raised {type(error).__name__}: {error}{place} for {_words(row)}") from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ConfigError(f"{where}: {name} returned {value!r} for {_words(row)}, expected a finite number")
    return float(value)


@cache
def load_function(text: str, *, folder: Path, where: str) -> Callable[..., Any]:
    """The function of `file.py:function`, the file looked for beside the search file, then here.

    Raises: ConfigError: another form, no such file or function (with the nearest), an error in the file.
    """
    name, colon, attribute = text.rpartition(":")
    if not colon or not name.endswith(".py"):
        raise ConfigError(f'{where}: "{text}": expected file.py:function')
    path = next((p for p in (folder / name, Path(name)) if p.is_file()), None)
    if path is None:
        raise ConfigError(f"{where}: no file {name} in {folder} or here")
    spec = importlib.util.spec_from_file_location(f"_dovetail_search_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{where}: {path}: {type(error).__name__}: {error}") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        own = [key for key, value in vars(module).items() if callable(value)]
        raise ConfigError(f"{where}: {path} has no function {attribute}.{nearest(attribute, own)}")
    _check_signature(found, f"{path}:{attribute}", where)
    return found


def _check_signature(function: Callable[..., Any], name: str, where: str) -> None:
    """Raises: ConfigError: it cannot be called with one mapping."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C: nothing to ask
        return
    try:
        signature.bind({})
    except TypeError as error:
        code = getattr(function, "__code__", None)
        line = f", line {code.co_firstlineno}" if code else ""
        raise ConfigError(
            f"{where}: {name}{signature}{line}: expected a function of one argument, a map with the keys workload, "
            "precision, sparsity, recipe and each knob by its name (of a constraint each metric too, in base units: "
            'latency, energy, area, ...), such as def judge(row): return row["width"] / 64'
        ) from error
