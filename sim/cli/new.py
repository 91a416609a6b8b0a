"""`dovetail new`: a file to start from, copied from a bundled one."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    CHIP = "chip"
    WORKLOAD = "workload"
    SEARCH = "search"
    SCENARIO = "scenario"
    RECIPE = "recipe"


_FOLDERS = {
    Kind.CHIP: (("hw_configs",), ".yaml"),
    Kind.WORKLOAD: (("workloads",), ".py"),
    Kind.SEARCH: (("searches",), ".yaml"),
    Kind.SCENARIO: (("workloads", "scenarios"), ".yaml"),
    Kind.RECIPE: (("workloads", "recipes"), ".yaml"),
}
_MODELS = {
    Kind.CHIP: "systolic",
    Kind.WORKLOAD: "template/model",
    Kind.SEARCH: "template/search",
    Kind.SCENARIO: "autopilot",
    Kind.RECIPE: "int8-ptq",
}


def new(
    kind: Annotated[Kind, typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(help="Its name; the file gets it too.")],
    like: Annotated[str | None, typer.Option(help="Bundled file to copy; default: a plain one.")] = None,
) -> None:
    """Write NAME.yaml or NAME.py into this folder, a copy of a bundled file to change."""
    from sim.cli import common
    from sim.errors import ConfigError

    source = _source(kind, like)
    if not name.replace("-", "_").isidentifier():
        raise ConfigError(f'"{name}" is no name: expected letters, digits, - and _, such as my-{kind.value}')
    text = source.read_text(encoding="utf-8")
    files = {Path(f"{name}{source.suffix}"): text}
    if source.suffix == ".yaml":
        text = "".join(f"name: {name}\n" if line.startswith("name:") else line for line in text.splitlines(True))
        for module in _modules(text, source.parent):
            own = f"{name.replace('-', '_')}_{module.name}"
            text = text.replace(f"{module.name}:", f"{own}:")
            files[Path(own)] = module.read_text(encoding="utf-8")
        files[Path(f"{name}.yaml")] = text
    for path in files:
        if path.exists():
            raise ConfigError(f"{path}: there is such a file; choose another name or folder")
    for path, words in files.items():
        try:
            path.write_text(words, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another folder") from error
    step = _NEXT[kind].format(path=next(iter(files)))
    what = source.stem if like or source.parent.name != "template" else "the template"
    common.say(f"{' and '.join(map(str, files))} written, a copy of {what}; next: {step}")


def _source(kind: Kind, like: str | None) -> Path:
    """The bundled file to copy."""
    from sim.errors import ConfigError, nearest
    from sim.resources import data_dir

    (root, *within), ending = _FOLDERS[kind]
    folder = data_dir(root).joinpath(*within)
    if like is None:
        return folder / f"{_MODELS[kind]}{ending}"
    bundled = {p.stem: p for p in sorted(folder.glob(f"*{ending}")) if not p.stem.startswith("_")}
    if like not in bundled:
        raise ConfigError(
            f'--like "{like}": no bundled {kind.value} has this name; there are {", ".join(bundled) or "none"}.'
            f"{nearest(like, bundled)}"
        )
    return bundled[like]


def _modules(text: str, folder: Path) -> list[Path]:
    """The Python files beside a search that it takes functions from (`quality.py:parameters`)."""
    names = dict.fromkeys(re.findall(r"([\w.-]+\.py):\w+", text))
    return [folder / name for name in names if (folder / name).is_file()]


_NEXT = {
    Kind.CHIP: "dovetail estimate resnet50 --hw {path}",
    Kind.WORKLOAD: "dovetail estimate {path} --hw tesla-fsd-npu",
    Kind.SEARCH: "dovetail search {path} --dry-run",
    Kind.SCENARIO: "dovetail simulate {path}",
    Kind.RECIPE: "dovetail compress digits_cnn --recipe {path} --hw edge-npu",
}
