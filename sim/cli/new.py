"""`dovetail new`: a file to start from, copied from a bundled one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    CHIP = "chip"
    WORKLOAD = "workload"
    SEARCH = "search"


_FOLDERS = {Kind.CHIP: ("hw_configs", ".yaml"), Kind.WORKLOAD: ("workloads", ".py"), Kind.SEARCH: ("searches", ".yaml")}
_MODELS = {Kind.CHIP: "systolic", Kind.WORKLOAD: "mlp"}


def new(
    kind: Annotated[Kind, typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(help="Its name; the file gets it too.")],
    like: Annotated[str | None, typer.Option(help="Bundled file to copy; default: a plain one.")] = None,
) -> None:
    """Write NAME.yaml or NAME.py into this folder, a copy of a bundled file to change."""
    from sim.cli import common
    from sim.errors import ConfigError, nearest
    from sim.resources import data_dir

    folder, ending = _FOLDERS[kind]
    bundled = {p.stem: p for p in sorted(data_dir(folder).glob(f"*{ending}")) if not p.stem.startswith("_")}
    model = like or _MODELS.get(kind) or next(iter(bundled), "")
    if model not in bundled:
        raise ConfigError(
            f'--like "{model}": no bundled {kind.value} has this name; there are {", ".join(bundled) or "none"}.'
            f"{nearest(model, bundled)}"
        )
    if not name.replace("-", "_").isidentifier():
        raise ConfigError(f'"{name}" is no name: expected letters, digits, - and _, such as my-{kind.value}')
    path = Path(f"{name}{ending}")
    text = bundled[model].read_text(encoding="utf-8")
    if ending == ".yaml":
        text = "".join(f"name: {name}\n" if line.startswith("name:") else line for line in text.splitlines(True))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; choose another name or folder") from error
    common.say(f"{path} written, a copy of {model}; next: {_NEXT[kind].format(path=path)}")


_NEXT = {
    Kind.CHIP: "dovetail estimate resnet50 --hw {path}",
    Kind.WORKLOAD: "dovetail estimate {path} --hw tesla-fsd-npu",
    Kind.SEARCH: "dovetail search {path} -o found",
}
