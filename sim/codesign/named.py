"""The user's files that a search names: what stands in them belongs to the space as much as the search file itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sim.codesign.schema import SpaceSpec
from sim.errors import ConfigError
from sim.hardware.load import parse_yaml
from sim.workload.cache import code_hash


def contents(spec: SpaceSpec, folder: Path) -> dict[str, str]:
    """ "file NAME" -> hash of what it says, of every file that models, functions, recipes and the scenario come from.

    Comments and layout do not count, nor do the files that a file reads by itself. Bundled names are no files.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(_names(spec)):
        path = next((p for p in (folder / name, Path(name)) if p.is_file()), None)
        if path is not None:
            found[f"file {name}"] = _hash(path)
    return found


def _names(spec: SpaceSpec) -> Iterator[str]:
    quality = spec.quality
    functions = (*spec.constraints.functions, *((quality.function, quality.cheap) if quality else ()))
    for text in (*(w.workload for w in spec.workloads), *filter(None, functions)):
        file, python, _ = text.partition(".py:")
        yield file + ".py" * bool(python)
    yield from spec.compression.recipe
    yield from filter(None, (spec.scenario.events, spec.scenario.calibration))


def _hash(path: Path) -> str:
    if path.suffix == ".py":
        return code_hash(path)
    data = path.read_bytes()
    with suppress(ValueError, ConfigError):
        if path.suffix in (".yaml", ".yml"):
            data = json.dumps(parse_yaml(data.decode(), str(path)), sort_keys=True, default=str).encode()
    return hashlib.sha256(data).hexdigest()[:16]
